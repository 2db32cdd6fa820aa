"""What is EC2's own, end to end on the embedded AWS; what all clouds share is in the suite of all clouds."""

from __future__ import annotations

import os

import embedded
import pytest

from cloudprovider import ConfigError


@pytest.fixture
def account(emulated_aws):
    """An account of EC2's alone."""
    return embedded.EC2(emulated_aws)


def test_type_that_does_not_exist(account):
    """A misspelt type is an error before any machine, with the nearest."""
    with pytest.raises(ConfigError, match=r"m7i\.large"):
        account.start(instance_type="m7i.lage")
    assert 0 == account.ordered()
    assert account.nothing_left()


def test_user_data_that_is_too_large(account):
    """What would not fit is an error before any call."""
    noise = os.urandom(80_000).hex()
    with pytest.raises(ConfigError, match=r"(?i)user.data|environment"):
        account.start(user_data=f"#!/bin/sh\n# {noise}\n")
    assert 0 == account.ordered()
    assert account.nothing_left()
