"""Nothing outlives its lease: clients that are killed anywhere in a cluster's life.

A run takes a sample of the calls. `DASK_CLOUD_CHAOS=40` takes the first 40 calls of each phase, one after the
other, which is more than any phase has; `DASK_CLOUD_CHAOS_SEED=1` takes another sample.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_client import PHASES
from contract import until

EVERY = int(os.environ.get("DASK_CLOUD_CHAOS", "0"))
SEED = os.environ.get("DASK_CLOUD_CHAOS_SEED", "0")
CLIENT = Path(__file__).parent / "chaos_client.py"
#: Calls among which a sample is drawn: the fewest that a phase has on any cloud.
FEW = 6
#: Clients that live and die at once.
TOGETHER = 4
#: How long machines may live alone.
LEASES = {"client_timeout": "4s", "scheduler_timeout": "4s", "work_timeout": "4s"}


def deaths(cloud: str) -> list[tuple[str, int, float]]:
    """When clients are killed: in which phase, at which of its calls, and how many seconds after that."""
    if EVERY:
        return [(phase, at, late) for phase in PHASES for at in range(1, EVERY + 1) for late in (0.0, 0.01)]
    chance = random.Random(f"{SEED} {cloud}")
    return [(phase, chance.randint(1, FEW), chance.choice([0.0, 0.01])) for phase in PHASES]


def client(account, name: str, phase: str, at: int, late_s: float) -> subprocess.Popen:
    """Start a client that will be killed."""
    options = {**account.options, **account.hasty, **LEASES, "name": name, "n_workers": 1}
    asked = {"cloud": account.name, "options": options, "events": account.events}
    asked |= {"phase": phase, "at": at, "late_s": late_s}
    command = [sys.executable, CLIENT, json.dumps(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(180 if not EVERY else 7200)
def test_killed_clients_leave_nothing(account):
    """After `kill -9` of clients at any call nothing bills when the leases are over; a sweep removes the rest."""
    if account.cloud:
        account.cloud.reset(time_scale=0.2)  # a machine looks at its lease every 30 seconds
        account.prepare()
    every = deaths(account.name)
    for first in range(0, len(every), TOGETHER):
        named = {f"killed-{number}": each for number, each in enumerate(every[first : first + TOGETHER])}
        clients = {name: client(account, name, *death) for name, death in named.items()}
        for name, process in clients.items():
            said, _ = process.communicate(timeout=120)
            assert "died in" in said, (named[name], said)
            assert -9 == process.returncode, (named[name], said)
        until(lambda: not account.running(), 90, f"no machine bills after the leases: {named}")
        for name in named:
            account.provider(name).sweep(name)
        assert account.nothing_left(), named
