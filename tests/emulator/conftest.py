"""An account of the embedded AWS with what a Fargate task needs."""

from __future__ import annotations

import pytest
from ec2_account import Machines
from fargate_account import Account

from cloudprovider.emulator import Emulator


@pytest.fixture(scope="session")
def clients(emulated_aws_process):
    """Clients of the shared emulated AWS: to make one takes longer than most tests."""
    with emulated_aws_process.active():
        return Account.clients()


@pytest.fixture
def account(emulated_aws, clients):
    """An account with what a Fargate task needs, on the shared emulated AWS."""
    del emulated_aws
    return Account(**clients).prepare()


@pytest.fixture(scope="session")
def bare_process():
    """An emulated AWS whose machines are states only, with nothing inside."""
    with Emulator("aws", engine="none") as cloud:
        yield cloud


@pytest.fixture
def bare(bare_process):
    """An emulated AWS as on an account's first day, with nothing inside its machines."""
    bare_process.reset(profile="instant", time_scale=1.0, seed=0)
    with bare_process.active():
        yield bare_process


@pytest.fixture(scope="session")
def bare_clients(bare_process):
    """Its clients: to make one takes longer than most tests."""
    with bare_process.active():
        return Machines.clients()


@pytest.fixture
def machines(bare, bare_clients):
    """An account on it with what EC2 machines need."""
    del bare
    return Machines(**bare_clients).prepare()
