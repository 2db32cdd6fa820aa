"""What all tests share."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import embedded
import pytest
from hypothesis import settings

from cloudprovider import credentials
from cloudprovider.emulator import Emulator

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# Whoever runs the tests may have credentials of a real cloud: none of it is asked.
for vendor in credentials.VENDORS.values():
    for name in vendor.variables:
        os.environ.pop(name, None)
    os.environ.update({variable: os.devnull for variable, *_ in vendor.files if variable}, **vendor.unasked)

# A shell that starts the tests in the background has them ignore interrupts, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong: each test has pytest's own limit.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


#: Files of few tests that wait for real time: begun last, each would run alone at the end.
LONG = (
    "test_chaos.py",
    "test_network.py",
    "test_refusals.py",
    "test_fargate_outage.py",
    "test_demo.py",
    "test_names.py",
    "test_fargate.py",
    "test_adaptive.py",
    "test_benchmarks_start.py",
    "test_cluster.py",
    "test_ends.py",
    "test_spot.py",
    "test_azure.py",
    "test_gcp.py",
    "test_vm_endings.py",
    "test_vm_whole.py",
    "test_budget.py",
    "test_autonomous.py",
    "test_lifecycle.py",
    "test_machines.py",
    "test_gce.py",
    "test_thousand.py",
    "test_ec2_scale.py",
    "test_examples.py",
    "test_storm.py",
    "test_lead.py",
    "test_ec2_uv.py",
)


#: What is the manager's own, and as good as tested on containers and on one cloud's virtual machines.
OWN = ("test_chaos.py", "test_ends.py", "test_names.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Begin with what takes long; a machine on ECS is one on Fargate but for what `test_ecs` tests."""
    for item in items:
        cloud = item.callspec.params.get("account") if getattr(item, "callspec", None) else None
        if cloud == "ecs" or (cloud in {"gcp", "azure"} and item.path.name in OWN):
            item.add_marker("slow")
    order = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session")
def bare_processes():
    """Emulated clouds whose machines are states only, with nothing inside: each is started when asked for."""
    with ExitStack() as started:
        yield functools.cache(lambda cloud: started.enter_context(Emulator(cloud, engine="none")))


@pytest.fixture(scope="session")
def bare_process(bare_processes):
    """An emulated AWS of that kind."""
    return bare_processes("aws")


@pytest.fixture
def bare(bare_process):
    """An emulated AWS as on an account's first day, with nothing inside its machines."""
    bare_process.reset(profile="instant", time_scale=1.0, seed=0)
    with bare_process.active():
        yield bare_process


@pytest.fixture(params=embedded.ACCOUNTS)
def account(request):
    """An account of each cloud in turn, as on its first day."""
    account = embedded.account(request.param, request)
    yield account
    if account.cloud:
        account.cloud.clear()


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
