"""pytest fixtures: an emulated cloud for each test, from one process for all.

pytest imports this in every session where the package is installed, so it imports nothing heavy.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator import Emulator


@contextlib.contextmanager
def _first_day(process: Emulator) -> Iterator[Emulator]:
    process.reset(profile="instant", time_scale=1.0, seed=0)
    with process.active():
        yield process
    process.reset()


@pytest.fixture(scope="session")
def emulated_aws_process() -> Iterator[Emulator]:
    """The process of an emulated AWS, shared by all tests of the session."""
    from cloudprovider.emulator import Emulator

    with Emulator("aws") as cloud:
        yield cloud


@pytest.fixture
def emulated_aws(emulated_aws_process: Emulator) -> Iterator[Emulator]:
    """An emulated AWS as on an account's first day; the environment points to it during the test."""
    with _first_day(emulated_aws_process) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def emulated_gcp_process() -> Iterator[Emulator]:
    """The process of an emulated Google Cloud, shared by all tests of the session."""
    from cloudprovider.emulator import Emulator

    with Emulator("gcp") as cloud:
        yield cloud


@pytest.fixture
def emulated_gcp(emulated_gcp_process: Emulator) -> Iterator[Emulator]:
    """An emulated Google Cloud as on a project's first day; the environment points to it during the test."""
    with _first_day(emulated_gcp_process) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def emulated_azure_process() -> Iterator[Emulator]:
    """The process of an emulated Azure, shared by all tests of the session."""
    from cloudprovider.emulator import Emulator

    with Emulator("azure") as cloud:
        yield cloud


@pytest.fixture
def emulated_azure(emulated_azure_process: Emulator) -> Iterator[Emulator]:
    """An emulated Azure as on a subscription's first day; the environment points to it during the test."""
    with _first_day(emulated_azure_process) as cloud:
        yield cloud
