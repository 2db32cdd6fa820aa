"""What the makers of price tables share: reading files of git repositories, and writing compact JSON.

A repository is the directory of a clone, with `@REVISION` at its end where not its newest commit is meant.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "cloudprovider"
TABLES = PACKAGE / "price_tables"


def git(repository: str, command: str, *arguments: str) -> str:
    directory = repository.partition("@")[0]
    call = ["git", "-C", directory, command, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


def revision(repository: str) -> str:
    return repository.partition("@")[2] or "HEAD"


def read(repository: str, path: str) -> str:
    return git(repository, "show", f"{revision(repository)}:{path}")


def listed(repository: str, path: str) -> str:
    return git(repository, "ls-tree", "-r", "--name-only", revision(repository), path)


def commit(repository: str) -> str:
    return git(repository, "rev-parse", revision(repository)).strip()


def changed_on(repository: str, path: str) -> str:
    """The day of the newest commit that changed a file."""
    return git(repository, "log", "-1", "--format=%cs", revision(repository), "--", path).strip()


def source(what: str, url: str, repository: str = "", name: str = "", licence: str = "") -> dict[str, str]:
    """One of a table's sources: what was read, whose it is, and where."""
    read_in = {"read_in": f"https://github.com/{name} at {commit(repository)[:12]}"} if repository else {}
    return {"what": what, "url": url, **read_in, **({"licence": licence} if licence else {})}


def short(price: float) -> float:
    """A price without digits that nobody bills by."""
    return float(f"{price:.7g}")


def compact(value: object, depth: int = 0) -> str:
    """JSON with a line for each family, so that a change can be read."""
    leaf = isinstance(value, dict) and not any(isinstance(inner, dict) for inner in value.values())
    if not isinstance(value, dict) or (leaf and depth > 1):
        return json.dumps(value, separators=(",", ":"))
    margin = "\n" + " " * (depth + 1)
    lines = (f"{margin}{json.dumps(key)}:{compact(inner, depth + 1)}" for key, inner in value.items())
    return "{" + ",".join(lines) + "\n" + " " * depth + "}"


def save(path: Path, document: dict[str, object]) -> None:
    path.write_text(f"{compact(document)}\n", "utf-8")
    print(f"{path.name}: {len(document['regions'])} regions, {path.stat().st_size:,} bytes")
