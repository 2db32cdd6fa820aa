"""Importing is cheap: names come when they are used, and an SDK at its first call."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cloudprovider
from cloudprovider.discovery import CLOUDS

SDKS = {"boto3", "botocore", "moto", "flask", "cryptography", "rich", "click", "google", "azure"}


def imported(statement: str, after: str = "pass") -> set[str]:
    """Top-level modules that `statement` imports in a fresh interpreter, beyond those of `after`."""
    code = (
        f"import sys\n{after}\nbefore = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else():
    """`import cloudprovider` brings neither Dask nor an SDK."""
    assert not imported("import cloudprovider") & {*SDKS, "dask", "distributed", "tornado", "asyncio"}


@pytest.mark.parametrize("name", [row.cluster for row in CLOUDS.values()])
def test_importing_a_manager_brings_no_sdk(name):
    """A manager's class needs what `distributed.deploy` needs and modules of ours, but no SDK."""
    beyond = imported(f"from cloudprovider import {name}", after="import distributed.deploy")
    assert not beyond & SDKS
    assert {"cloudprovider", "cloudruntime"} <= beyond


def test_checking_options_brings_no_sdk():
    """A wrong option is refused before an SDK is even imported."""
    wrong = "from cloudprovider.providers.ecs import FargateConfig\nFargateConfig.of(worker_cpu=1, worker_memory='4 GiB')"
    assert not imported(wrong, after="import distributed.deploy") & (SDKS - {"rich"})


def test_pytest_plugin_is_cheap():
    """The fixtures, which pytest imports in every session, bring no emulator and no Dask."""
    beyond = imported("import cloudprovider.emulator.fixtures", after="import pytest")
    assert not beyond & {*SDKS, "dask", "distributed"}


@pytest.mark.parametrize("name", sorted(cloudprovider.NAMES))
def test_every_public_name_can_be_had(name):
    """Each name of the table is where the table says."""
    assert name in dir(cloudprovider)
    assert name == getattr(cloudprovider, name).__name__


def test_unknown_name():
    """A name that is not public is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="EC3Cluster"):
        _ = cloudprovider.EC3Cluster
