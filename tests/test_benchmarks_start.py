"""The benchmarks of starts run: theirs are the longest."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


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


def test_clouds(report):
    """The benchmark of all clouds counts the calls of a start on one of them, and finds nothing left."""
    [row] = report("clouds.py", "--clouds", "gcp", "--workers", "2", "--boots", "1")["starts"]
    calls = row["calls by operation"]

    assert ("gcp", 2, "1") == (row["cloud"], row["workers"], row["boot s"])
    assert row["wall s"] > 1
    assert (1, 1) == (calls["instances.insert"], calls["instances.bulkInsert"])
    assert (0, 0, 0) == (row["throttled"], row["left at close"], row["left"])
    assert row["seconds by step"]["workers' boot"] > 0
