"""The lock that a machine's environment is made of: one pinned package a line, for `uv pip sync`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["UV", "read"]

#: uv's own image, of which the digest is an index of both architectures: https://docs.astral.sh/uv/guides/integration/docker/
UV = "ghcr.io/astral-sh/uv:0.12.6@sha256:88bc6eb1ccd4b82efd0e1b530caffabddf50dc2bf612e66c14ea25b8ee8a4d3d"
#: What machines do not need: they run no client, and the boot brings the runtime.
OURS = frozenset({"dask-cloud", "dask-cloud-runtime"})
PINNED = re.compile(r"(?P<name>[\w.-]+)(\[[\w.,\s-]*\])?\s*==\s*(?P<version>[\w.!+-]+)(?=[\s;]|$)")
#: Options of a requirements file that name no package, but say where packages are.
WHERE = re.compile(r"--(index-url|extra-index-url|find-links|no-index|only-binary|no-binary|pre)\b")
EXPORT_S = 60.0


def read(lock: str | None) -> str:
    """The lock of a cluster, in the form of `requirements.txt`, without comments.

    Parameters
    ----------
    lock
        Path of a `requirements.txt`, `pylock.toml` or `uv.lock`, or what this returned before.
        Default: the packages of this environment.

    Raises
    ------
    ConfigError
        When it pins not everything, or the client's `distributed` not.
    """
    if lock is None:
        text = _frozen()
    elif "\n" in lock:
        text = lock
    else:
        text = _of_file(Path(lock))
    lines = [*_lines(text)]
    _check(lines)
    return "".join(f"{line}\n" for line in lines)


def _of_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"lock={str(path)!r} cannot be read: {error}") from error
    if path.name == "uv.lock":
        return _of_pylock(_exported(path.parent))
    return _of_pylock(text) if path.suffix == ".toml" else text


def _lines(text: str) -> Iterator[str]:
    """What counts of a requirements file, each requirement with its hashes on one line."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if bare := " ".join(re.sub(r"(^|\s)#.*", "", line).split()):
            yield bare


def _check(lines: list[str]) -> None:
    found = {}
    for line in lines:
        if match := PINNED.match(line):
            found[_normal(match["name"])] = match["version"]
        elif not WHERE.match(line):
            raise ConfigError(
                f"lock= says {line!r}, which pins no package of an index: each line must be NAME==VERSION."
            )
    ours, theirs = metadata.version("distributed"), found.get("distributed")
    if theirs is None:
        raise ConfigError(f"lock= has no distributed: add distributed=={ours}, and what it needs.")
    if theirs != ours:
        raise ConfigError(
            f"lock= has distributed {theirs}, the client has {ours}: make them the same, for another version "
            "speaks another protocol."
        )


# -- this environment -----------------------------------------------------------------------------------


def _frozen() -> str:
    """The packages of this environment at their versions."""
    found: dict[str, metadata.Distribution] = {}
    for package in metadata.distributions():
        found.setdefault(_normal(package.metadata["Name"] or ""), package)  # the first is what is imported
    packages = {name: found[name] for name in sorted(found.keys() - OURS - {""})}
    if local := [name for name, package in packages.items() if _local(package)]:
        raise ConfigError(
            f"boot='uv' without lock= takes this environment's packages, but no index has {', '.join(local)} as "
            "installed here: pass lock= a file without them, or with versions that are published."
        )
    return "".join(f"{name}=={package.version}\n" for name, package in packages.items())


def _local(package: metadata.Distribution) -> bool:
    """Whether a package came from no index, or has a version that the public one does not take."""
    # https://packaging.python.org/en/latest/specifications/direct-url/
    return package.read_text("direct_url.json") is not None or "+" in package.version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- locks of other forms -------------------------------------------------------------------------------


def _exported(project: Path) -> str:
    """The `pylock.toml` of a project with a `uv.lock`: what it needs, without itself."""
    if (uv := os.environ.get("UV") or shutil.which("uv")) is None:  # uv sets it for what it runs
        raise ConfigError(
            "lock='uv.lock' needs uv here to be read: install it (pip install uv), or export it elsewhere "
            "(uv export --format pylock.toml -o pylock.toml), and pass that."
        )
    options = ["--frozen", "--no-default-groups", "--no-emit-project", "--format", "pylock.toml"]
    done = subprocess.run(
        [uv, "export", "--quiet", "--project", str(project), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=EXPORT_S,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"lock={str(project / 'uv.lock')!r} cannot be exported: {done.stderr.strip()}")
    return done.stdout


def _of_pylock(text: str) -> str:
    """The requirements that a `pylock.toml` says: https://packaging.python.org/en/latest/specifications/pylock-toml/."""
    from packaging.specifiers import SpecifierSet

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"lock= is no TOML: {error}") from error
    python = platform.python_version()
    if not SpecifierSet(wanted := document.get("requires-python", "")).contains(python, prereleases=True):
        raise ConfigError(f"lock= is for Python {wanted}, the client has {python}: lock for that.")
    packages = document.get("packages", ())
    indexes = sorted({package["index"] for package in packages if "index" in package})
    return "".join([*(f"--extra-index-url {index}\n" for index in indexes), *map(_requirement, packages)])


def _requirement(package: Mapping[str, Any]) -> str:
    name = package["name"]
    if "version" not in package or {"vcs", "directory", "archive"} & set(package):
        raise ConfigError(f"lock= has {name} from elsewhere than an index: machines could not get it.")
    marker = f" ; {package['marker']}" if "marker" in package else ""
    wheels = [wheel for wheel in package.get("wheels", ()) if _fits(wheel)]
    digests = {file.get("hashes", {}).get("sha256") for file in wheels or [package.get("sdist", {})]}
    hashes = [f" --hash=sha256:{digest}" for digest in sorted(filter(None, digests))]
    return f"{name}=={package['version']}{marker}{''.join(hashes)}\n"


def _fits(wheel: Mapping[str, Any]) -> bool:
    """Whether machines could install a wheel, by the tags in its name, whatever their architecture."""
    name = wheel.get("name") or wheel.get("url", "").rpartition("/")[2]
    *_, python, abi, system = name.removesuffix(".whl").split("-")
    ours = f"cp{sys.version_info.major}{sys.version_info.minor}"
    speaks = python.startswith(("py3", "py2.py3")) or abi == "abi3" or (python, abi) == (ours, ours)
    return speaks and (system == "any" or bool(re.search(r"manylinux.*_(x86_64|aarch64)", system)))
