"""Test your own deployment code without an account: `pytest your_own_tests.py`.

The fixture `emulated_aws` comes with `dask-cloud[emulator]`: an AWS on this computer, as on an account's
first day, whose machines are processes here. What is tested does not know that it talks to it.
"""

import time

import pytest

from cloudprovider import CapacityError, Emulator, FargateCluster


def nightly(parts: int, workers: int) -> int:
    """Your code, as it runs in production: a cluster for one computation."""
    with FargateCluster(n_workers=workers) as cluster, cluster.get_client() as client:
        return client.submit(sum, client.map(lambda part: part + 1, range(parts))).result()


def left(cloud: Emulator) -> list[str]:
    """What the account still has, once it has taken back what was ended: that takes AWS some seconds."""
    deadline = time.monotonic() + 30
    while (found := cloud.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_it_computes_and_leaves_nothing(emulated_aws: Emulator) -> None:
    """The night's result is right, on as many machines as asked, and nothing is left in the account."""
    assert nightly(parts=10, workers=2) == 55
    assert left(emulated_aws) == []
    roles = sorted(machine.tags["dask-role"] for machine in emulated_aws.machines())
    assert roles == ["scheduler", "worker", "worker"]


def test_it_costs_less_than_a_cent(emulated_aws: Emulator) -> None:
    """A small night costs less than a cent."""
    nightly(parts=10, workers=2)
    assert sum(entry.price for entry in emulated_aws.ledger) < 0.01


def test_it_survives_throttling(emulated_aws: Emulator) -> None:
    """An order that AWS throttles is tried again."""
    emulated_aws.inject("throttle", "RunTask", times=1)
    assert nightly(parts=10, workers=1) == 55


def test_it_says_so_when_there_is_no_room(emulated_aws: Emulator) -> None:
    """Without capacity the night fails with a reason, and leaves nothing."""
    emulated_aws.inject("capacity", room=0)
    with pytest.raises(CapacityError, match="zones"):
        nightly(parts=10, workers=2)
    assert left(emulated_aws) == []
