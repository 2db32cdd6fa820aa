"""The benchmarks run, and say what they measured, where, and with what."""

from __future__ import annotations

import pytest


def test_imports(report):
    """The benchmark of imports times each case, and names the machine and the versions."""
    said = report("imports.py", "--runs", "1")
    assert {"processors", "system", "python", "dask-cloud", "distributed"} <= set(said["machine"])
    assert "import cloudprovider" == said["rows"][1]["what"]
    assert all(row["median ms"] > 0 for row in said["rows"])


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


@pytest.mark.slow
def test_listing(report):
    """The benchmark of listing times the command with no machine and with some, and lists each of them."""
    rows = report("listing.py", "--runs", "1", "--providers", "ec2", "--machines", "20", "--clusters", "2")[
        "rows"
    ]
    assert [(0, 1), (20, 1)] == [(row["machines"], row["calls"]) for row in rows]
    assert all(0 <= row["of these the cloud answers"] < row["seconds"] for row in rows)


@pytest.mark.slow  # `test_autonomous` and `test_cli` do the same but for the clock
def test_operate(report):
    """The benchmark of coming back times a list and a reattachment, with and without a manager of the cluster's own."""
    rows = report("operate.py", "--machines", "20", "--workers", "1", "--runs", "1")["rows"]
    assert [20, 20, 20, 20, 1, 1] == [row["machines"] for row in rows]
    assert ["from_name", "from_name, autonomous"] == [row["what"] for row in rows[-2:]]
    assert all(row["median s"] > 0 for row in rows)
