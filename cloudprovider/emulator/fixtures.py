"""pytest fixtures: an emulated cloud for each test, from one process for all.

pytest imports this in every session where the package is installed, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator import Emulator


@pytest.fixture(scope="session")
def emulated_aws_process() -> Iterator[Emulator]:
    """The process of an emulated AWS, shared by all tests of the session."""
    from cloudprovider.emulator import Emulator

    with Emulator("aws") as cloud:
        yield cloud


@pytest.fixture
def emulated_aws(emulated_aws_process: Emulator) -> Iterator[Emulator]:
    """An emulated AWS as on an account's first day; the environment points to it during the test."""
    emulated_aws_process.reset(profile="instant", time_scale=1.0, seed=0)
    with emulated_aws_process.active():
        yield emulated_aws_process
    emulated_aws_process.reset()
