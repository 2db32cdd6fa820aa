"""The benchmarks run, and say what they measured, where, and with what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def report(tmp_path):
    """Runs a benchmark; gives what it says in JSON."""

    def run(script: str, *arguments: str) -> dict:
        file = tmp_path / "report.json"
        command = [sys.executable, BENCHMARKS / script, "--json", file, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=150)
        said = json.loads(file.read_text())
        tables = [table for table in said.values() if isinstance(table, list)]
        lines = sum(len(table) + 1 for table in tables)
        assert lines == done.stdout.count("\n| "), "a line of each row, and of their names"
        return said

    return run


def test_imports(report):
    """The benchmark of imports times each case, and names the machine and the versions."""
    said = report("imports.py", "--runs", "1")
    assert {"processors", "system", "python", "dask-cloud", "distributed"} <= set(said["machine"])
    assert "import cloudprovider" == said["rows"][1]["what"]
    assert all(row["median ms"] > 0 for row in said["rows"])


def test_start(report):
    """The benchmark of starts finds no throttled call, nothing left, and a start no faster than its limit."""
    [row] = report("start.py", "--workers", "2", "--boots", "1", "--tables", "starts")["starts"]
    assert (2, "1") == (row["workers"], row["boot s"])
    assert row["wall s"] > row["limit s"] > 1
    assert row["two boots in a row s"] > row["limit s"]
    assert 0 < row["client CPU s"] < row["wall s"] * 2
    assert (2, 1) == (row["calls by operation"]["RunTask"], row["calls by operation"]["GetServiceQuota"])
    assert (0, 0, 0) == (row["throttled"], row["left at close"], row["left"])
    assert row["seconds by step"]["workers' boot"] > row["seconds by step"]["workers' order"]


def test_what_is_left(report):
    """The benchmark counts what a killed program leaves, how long its machines go on, and what a sweep leaves."""
    rows = {row["after"]: row for row in report("start.py", "--tables", "left")["left"]}
    assert ["a clean end", "a failed start", "kill -9"] == list(rows)
    assert [0, 0] == [rows[after]["left"] for after in ("a clean end", "a failed start")]
    assert 5 == rows["kill -9"]["machines at once"]
    assert 0 < rows["kill -9"]["machines go on for s"]
    assert 0 == rows["kill -9"]["left after a sweep"]


def test_ec2(report):
    """The benchmark of EC2 counts the calls of an order, and finds user data with TLS as small as it must be."""
    said = report("ec2.py", "--workers", "3", "--rates", "AWS's", "--tables", "orders", "boot data")
    [row] = said["orders"]
    calls = row["calls by operation"]
    assert (1, 1, 0) == (calls["RunInstances"], calls["CreateFleet"], row["throttled"])
    assert 0 <= row["s from the scheduler's order on"] < row["s until all are ordered"]
    limits = {"carries the runtime": 4096, "has Dask only": 12_288}
    assert 4 == sum(row["bytes"] < limits[row["image"]] for row in said["boot data"])


def test_thousand(report):
    """The benchmark of many machines counts a call for ten of them, and keeps to memory and time."""
    [row] = report("thousand.py", "--machines", "120", "--time-scale", "0.02")["rows"]
    assert (120, 13, 0) == (row["machines"], row["RunTask"], row["throttled"])
    assert 0 < row["s until all are ordered"] <= row["s until all run"]
    assert row["slowest pass ms"] < 1000
    assert 50 < row["peak memory MB"] < 300


def test_scale(report):
    """The benchmark of scaling grows, shrinks and mends a cluster, and none of its calls is throttled."""
    rows = report("scale.py", "--few", "1", "--many", "2")["rows"]
    assert ["up by 1", "up by 2", "down by 1", "a lost machine replaced"] == [row["what"] for row in rows]
    assert all(row["seconds"] > 0 for row in rows)
    assert 0 == sum(row["throttled"] for row in rows)


def test_data_path(report):
    """The benchmark of the data path times the same work with and without TLS, and says the ratios."""
    rows = report("data_path.py", "--megabytes", "2", "--tasks", "50", "--runs", "1")["rows"]
    assert ["scatter 2 MB", "gather 2 MB", "2 MB from worker to worker", "50 small tasks"] == [
        row["what"] for row in rows
    ]
    assert all(row["ProcessCluster / LocalCluster"] > 0 for row in rows)
