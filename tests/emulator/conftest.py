"""An account of the embedded AWS with what a Fargate task needs."""

from __future__ import annotations

import pytest
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
