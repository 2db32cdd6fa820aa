"""The simulator that compares adaptive scaling: it is repeatable, and what it says holds together."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def modules():
    """The benchmark's own modules, for the time of these tests, and Dask's adaptive quiet."""
    sys.path.insert(0, str(BENCHMARKS))
    quiet = logging.getLogger("distributed.deploy.adaptive")
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    yield
    quiet.setLevel(before)
    sys.path.remove(str(BENCHMARKS))


def run(workload, policy, seed=0):
    from adaptive_world import Cloud, World

    return World(workload, Cloud(per_second=1e-5), policy, seed).run()


def bursty_hour():
    """A burst of forty tasks of two seconds each minute."""
    from adaptive_workloads import Spec, Workload

    arrivals = tuple(range(0, 3600, 60))
    tasks = [("work", 2.0, 1000, []) for _ in range(40)]
    return Workload("bursty", [Spec(0.0, tasks) for _ in arrivals], arrivals)


def test_a_bursty_hour_orders_few():
    """In an hour of sixty bursts ours orders a tenth of what Dask's defaults do, for less money."""
    from adaptive_policies import Dask, Ours

    dask, ours = run(bursty_hour(), Dask(20)), run(bursty_hour(), Ours(20))
    assert ours.orders <= dask.orders / 10
    assert ours.dollars < dask.dollars
    assert ours.waited < dask.waited


def test_all_work_is_done_and_none_beats_the_bound():
    """Every policy does every task, and bills no less than who knew the future."""
    from adaptive_policies import Dask, Fixed, Ours, bound
    from adaptive_workloads import pipeline, sessions

    for workload in (sessions(1), pipeline(1)):
        for policy in (Fixed(3), Dask(10), Dask(10, 5.0, 180.0, 24), Ours(10), Ours(10, minimum=2)):
            world = run(workload, policy)
            assert len(workload.jobs) == len(world.jobs)
            assert all(job.ended for job in world.jobs)
            assert world.machine_seconds >= bound(world) - 1e-6


def test_the_recorded_workloads_are_whole():
    """Each recorded file says what it is, and its tasks need only tasks before them."""
    from adaptive_workloads import RECORDED, WORKLOADS

    for name in RECORDED:
        document = json.loads((WORKLOADS / f"{name}.json").read_text())
        assert document["recorded"].startswith("distributed 20")
        for job in document["jobs"]:
            for position, (_, seconds, nbytes, needs) in enumerate(job["tasks"]):
                assert seconds >= 0
                assert nbytes >= 0
                assert all(need < position for need in needs)


def test_tuned_and_held_out_are_apart():
    """No workload is in both sets."""
    from adaptive_workloads import held_out, tuning

    assert not {w.name for w in tuning()} & {w.name for w in held_out()}


def test_the_command(tmp_path):
    """One command prints the tables, writes measures and picture, and says the same again."""
    reports = [tmp_path / "first.json", tmp_path / "second.json"]
    for report in reports:
        command = [sys.executable, str(BENCHMARKS / "adaptive.py"), "--seeds", "1", "--json", str(report)]
        picture = tmp_path / "picture.svg"
        done = subprocess.run(
            [*command, "--picture", str(picture)], capture_output=True, text=True, check=True
        )
        assert "offline bound" in done.stdout
        assert picture.read_text().startswith("<svg")
    first, second = (json.loads(report.read_text()) for report in reports)
    assert first == second
    for totals in first["totals"].values():
        ours, dask = totals["dask-cloud"], totals["Dask, defaults"]
        assert ours["dollars"] < 0.7 * dask["dollars"]
        assert ours["makespan"] < 1.05 * dask["makespan"]
