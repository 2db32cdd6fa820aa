"""The benchmarks run, and say what they measured, where, and with what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def report(script: str, *arguments: str) -> dict:
    """What a benchmark says in JSON."""
    command = [sys.executable, BENCHMARKS / script, "--json", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=150).stdout)


def test_imports():
    """The benchmark of imports times each case, and names the machine and the versions."""
    said = report("imports.py", "--runs", "1")
    assert {"processors", "system", "python", "dask-cloud", "distributed"} <= set(said["machine"])
    assert "import cloudprovider" == said["rows"][0]["what"]
    assert all(row["median ms"] > 0 for row in said["rows"])


def test_start():
    """The benchmark of starts finds no throttled call, nothing left, and a start no faster than its limit."""
    [row] = report("start.py", "--workers", "2", "--time-scale", "0.05")["rows"]
    assert 2 == row["workers"]
    assert row["wall s"] > row["limit s"] > 0
    assert row["two boots in a row s"] > row["limit s"]
    assert 2 == row["calls by operation"]["RunTask"]
    assert (0, 0) == (row["throttled"], row["left a minute later"])
