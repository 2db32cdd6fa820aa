"""What all tests share."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from cloudprovider.emulator import Emulator

# A shell that starts the tests in the background has them ignore interrupts, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong: each test has pytest's own limit.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


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
