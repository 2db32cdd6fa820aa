"""What a benchmark ran on, and how its table and its JSON are printed."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from cloudprovider.emulator.records import Call

PACKAGES = ("dask-cloud", "distributed", "boto3", "moto")


def described() -> dict[str, str]:
    """Processor, load, system and versions."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "processors": f"{os.cpu_count()} x {_processor()}",
        "load at the start": load,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark its option for programs."""
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file, too")


def throttled(calls: Iterable[Call]) -> int:
    """How many of an embedded cloud's calls were refused for their rate."""
    return sum("Throttl" in call.error or "LimitExceeded" in call.error for call in calls)


Rows = list[dict[str, Any]]


def save(tables: dict[str, Rows], machine: dict[str, str], file: str | None) -> None:
    """Write everything to a file, if one is named."""
    if file is not None:
        said = {"machine": machine, **tables}
        Path(file).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def show(rows: Rows | dict[str, Rows], machine: dict[str, str], file: str | None) -> None:
    """Print one table, or several by their titles, as Markdown, and write everything to a file if one is named."""
    tables = rows if isinstance(rows, dict) else {"rows": rows}
    save(tables, machine, file)
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    for some in filter(None, tables.values()):
        _print(some)


def _print(rows: Rows) -> None:
    """Rows of equal keys; what is counted within a row comes below."""
    names = [name for name, value in rows[0].items() if not isinstance(value, dict)]
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict) and value:
                counts = ", ".join(f"{count} {key}" for key, count in value.items())
                which = ", ".join(str(row[key]) for key in names[:3] if isinstance(row[key], (str, int)))
                print(f"\n{which}; {name}: {counts}.")
