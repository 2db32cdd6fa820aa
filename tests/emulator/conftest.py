"""Accounts of the embedded AWS with what tasks and instances need, and machines without any."""

from __future__ import annotations

import itertools

import pytest
from ec2_account import Machines
from fargate_account import Account
from guests import Machine, make


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


@pytest.fixture
def boot(room):
    """Boots virtual machines in a test's own room, and leaves nothing of them."""
    machines: list[Machine] = []
    ids = itertools.count(1)

    def boot(user_data="", kind=None, **options) -> Machine:
        machines.append(make(room, f"i-{next(ids):017x}", user_data, kind, **options))
        return machines[-1]

    yield boot
    for machine in machines:
        machine.guest.discard()
        assert not machine.guest.path("/").exists()


@pytest.fixture
def subscription(emulated_azure):
    """A subscription of the shared emulated Azure, with a group and a network."""
    from azure_subscription import Subscription  # its SDK takes a second to import

    return Subscription.of(emulated_azure).prepare()


@pytest.fixture(scope="class")
def shared(emulated_azure_process):
    """One for all tests of a class, none of which changes what the next one sees."""
    from azure_subscription import Subscription

    emulated_azure_process.reset(profile="instant", time_scale=1.0, seed=0)
    with emulated_azure_process.active():
        yield Subscription.of(emulated_azure_process).prepare()
    emulated_azure_process.reset()
