"""What a benchmark ran on, and how its table and its JSON are printed."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata

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
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(rows: list[dict[str, object]], machine: dict[str, str], *, as_json: bool) -> None:
    """Print rows of equal keys as a Markdown table, or everything as JSON."""
    if as_json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=2))
        return
    print("; ".join(f"{name} {value}" for name, value in machine.items()) + "\n")
    names = [name for name, value in rows[0].items() if not isinstance(value, dict)]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict):
                counts = ", ".join(f"{count} {key}" for key, count in value.items())
                print(f"\n{row[names[0]]} workers, {name}: {counts}.")
