"""An account of the embedded AWS with what a Fargate task needs."""

from __future__ import annotations

import pytest
from ec2_account import Machines
from fargate_account import Account


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
def bare_clients(bare_process):
    """Its clients: to make one takes longer than most tests."""
    with bare_process.active():
        return Machines.clients()


@pytest.fixture
def machines(bare, bare_clients):
    """An account on it with what EC2 machines need."""
    del bare
    return Machines(**bare_clients).prepare()
