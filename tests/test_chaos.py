"""Nothing outlives its lease, whatever goes wrong in a cluster's life: a few of the cases of `chaos_cases`.

`DASK_CLOUD_CHAOS=40` takes 40 cases of each cloud, `DASK_CLOUD_CHAOS_SEED=1` takes others;
`python benchmarks/chaos.py` takes all, cuts networks and sets clocks as well, and makes a table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_cases import KINDS, Recorded, cases, sample
from chaos_suite import Suite

#: How many of each cloud: one of each of the first kinds.
FEW = 3
NUMBER = int(os.environ.get("DASK_CLOUD_CHAOS", FEW))
BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "chaos.py"
SEED = os.environ.get("DASK_CLOUD_CHAOS_SEED", "0")
LIFE = Recorded(
    client={"start": ["PUT a", "PUT b"], "scale": ["POST c"], "close": ["DELETE a"]},
    cloud={"start": ["x:ListA", "x:PutA", "x:PutA"], "scale": ["x:RunC"], "close": ["x:DeleteA"]},
)


@pytest.mark.timeout(240 if NUMBER == FEW else 7200)
def test_nothing_outlives_its_lease(account):
    """Whatever went wrong, nothing bills after the leases, a sweep leaves nothing, and no result is lost."""
    suite = Suite(account)
    # On Azure a machine whose client died before it had stored a secret waits ten minutes for that.
    early = ("azure", "killed", "start") if NUMBER == FEW else ()
    every = [case for case in suite.cases() if (case.cloud, case.kind, case.phase) != early]
    chosen = sample(every, f"{SEED} {account.name}", NUMBER)
    assert NUMBER == len(chosen)
    for verdict in suite.run(chosen):
        assert verdict.survived, verdict


@pytest.mark.slow
def test_the_whole_suite_from_the_command_line(tmp_path):
    """Verdicts are kept as they come, and not tried again; the table counts each kind, and all."""
    log, figures = tmp_path / "log.jsonl", tmp_path / "figures.json"
    command = [sys.executable, BENCHMARK, "--cloud", "local", "--limit", "2", "--log", log, "--json", figures]
    for _ in range(2):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        assert "| local | killed | 1 | 0 | 0 |" in done.stdout
        assert 2 == json.loads(figures.read_text())["table"][-1]["cases"]
    assert 2 == len(log.read_text().splitlines())


def test_every_call_has_its_cases():
    """Clients die at each call and after the last, each call that changes something fails in every way."""
    every = cases("fargate", LIFE, network=True, clocks=True)
    assert len(every) == len({case.id for case in every})
    assert set(KINDS) == {case.kind for case in every}
    killed = {(case.phase, case.at) for case in every if case.kind == "killed"}
    assert {
        ("start", 1),
        ("start", 2),
        ("start", 3),
        ("scale", 1),
        ("scale", 2),
        ("close", 1),
        ("close", 2),
    } == killed
    faults = [(case.phase, *case.figures.values()) for case in every if case.kind == "fault"]
    assert 5 == faults.count(("start", "x:PutA", 2))
    assert 1 == faults.count(("start", "x:ListA", 1))


def test_a_sample_is_the_same_again():
    """The same seed takes the same cases, of every kind in turn, each once."""
    every = cases("fargate", LIFE, network=True, clocks=True)
    chosen = sample(every, "1", len(KINDS))
    assert chosen == sample(every, "1", len(KINDS))
    assert list(KINDS) == [case.kind for case in chosen]
    assert len(every) == len({case.id for case in sample(every, "1", 10_000)})
