"""EC2Cluster on the embedded AWS, from start to end, with real processes, and what can go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings

import pytest
from contract import until
from distributed import Client

from cloudprovider import (
    BootError,
    CapacityError,
    CloudWarning,
    ConfigError,
    CredentialsError,
    EC2Cluster,
    QuotaError,
)

SMALL = {"progress": False, "instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


def running(cloud) -> list:
    return [machine for machine in cloud.machines() if machine.state != "terminated"]


def nothing_left(cloud) -> bool:
    return until(lambda: not running(cloud) and not cloud.leftovers(), 60, "nothing is left")


def count(cloud, operation) -> int:
    return sum(call.operation == operation for call in cloud.calls)


def test_a_life(cloud):
    """It starts, computes, scales both ways, is billed, is found by another, and leaves nothing."""
    with EC2Cluster(name="life", n_workers=2, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert list(range(1, 11)) == client.gather(client.map(lambda x: x + 1, range(10)))
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        cluster.scale(1)
        until(lambda: len(cluster.observed) == 1, 60, "one worker is left")
        assert cluster.cost().spent > 0
        assert {"m7i.large"} == {machine.kind for machine in cluster.workers.values()}
        assert {cluster.scheduler_machine.zone} == {machine.zone for machine in cluster.workers.values()}
        shown = subprocess.run(
            [sys.executable, "-m", "dask", "cloud", "list"], capture_output=True, text=True, check=True
        )
        assert "life" in shown.stdout
        assert "ec2" in shown.stdout
        with EC2Cluster.from_name("life", progress=False, shutdown_on_close=False) as other:
            other.scale(2)
            other.wait_for_workers(2, timeout=60)
    assert nothing_left(cloud)


def test_left_and_swept_from_the_command_line(cloud):
    """A cluster that somebody left is ended by its name alone, whatever it runs on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloudWarning)
        cluster = EC2Cluster(name="left", n_workers=1, **SMALL)
    cluster.detach()
    done = subprocess.run(
        [sys.executable, "-m", "dask", "cloud", "sweep", "left", "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Ended 2 machines" in done.stdout
    assert nothing_left(cloud)


def test_spot_falls_back(cloud):
    """What spot refuses comes on demand, and the cluster says which is which."""
    cloud.inject("capacity", room=1, market="spot")
    with EC2Cluster(n_workers=3, spot="fallback", **SMALL) as cluster:
        cluster.wait_for_workers(3, timeout=60)
        markets = sorted(machine.market for machine in cluster.workers.values())
    assert ["on-demand", "on-demand", "spot"] == markets


def test_no_room_for_all(cloud):
    """What came is kept and used, and the warning says how many and why."""
    cloud.inject("capacity", room=1, type="m7i.large")
    with pytest.warns(CloudWarning, match="1 of 3"):
        cluster = EC2Cluster(n_workers=3, **SMALL)
    with cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        assert 3 == client.submit(lambda: 3).result(timeout=60)
    cloud.clear()
    assert nothing_left(cloud)


@pytest.mark.parametrize(
    ("fault", "figures", "kind", "said"),
    [
        ("capacity", {"room": 0}, CapacityError, "InsufficientInstanceCapacity"),
        ("quota", {"room": 1}, QuotaError, "L-1216C47A|VcpuLimitExceeded"),
        ("denied", {"operation": "RunInstances"}, CredentialsError, "ec2:RunInstances"),
        ("denied", {"operation": "CreateFleet"}, CredentialsError, "ec2:CreateFleet"),
        ("clock-skew", {"seconds": 1200}, CredentialsError, "clock"),
    ],
)
def test_failed_start_leaves_nothing(cloud, fault, figures, kind, said):
    """A start that the cloud refuses is an error that says why, and leaves nothing."""
    cloud.inject(fault, **figures)
    with pytest.raises(kind, match=said):
        EC2Cluster(n_workers=1, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_type_that_does_not_exist(cloud):
    """A misspelt type is an error before any machine, with the nearest."""
    with pytest.raises(ConfigError, match=r"m7i\.large"):
        EC2Cluster(**{**SMALL, "instance_type": "m7i.lage"})
    assert 0 == count(cloud, "RunInstances")
    assert nothing_left(cloud)


def test_user_data_that_is_too_large(cloud):
    """What would not fit is an error before any call."""
    noise = os.urandom(80_000).hex()
    with pytest.raises(ConfigError, match=r"(?i)user.data|environment"):
        EC2Cluster(user_data=f"#!/bin/sh\n# {noise}\n", **SMALL)
    assert 0 == count(cloud, "RunInstances")
    assert nothing_left(cloud)


def test_image_that_cannot_be_pulled(cloud):
    """A machine that boots but gets no image ends the start with what its console says."""
    cloud.inject("image-pull")
    with pytest.raises(BootError, match=r"(?s)image=.*last log lines.*manifests"):
        EC2Cluster(n_workers=1, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_machine_that_ends_itself(cloud):
    """A worker whose machine dies without notice is replaced."""
    with EC2Cluster(n_workers=1, **SMALL) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        victim = min(cluster.workers)
        cloud.kill(victim)
        until(lambda: victim not in cluster.workers, 60, "the loss is noticed")
        until(lambda: cluster.observed - {victim}, 60, "another connects")
    assert nothing_left(cloud)


def test_killed_client_leaves_nothing_that_bills(cloud):
    """After `kill -9` of the client the machines end by their leases, and a sweep removes the rest."""
    script = """
        from cloudprovider import EC2Cluster
        cluster = EC2Cluster(name="killed", n_workers=1, progress=False, client_timeout="3s",
                             scheduler_timeout="3s", instance_type="m7i.large")
        cluster.wait_for_workers(1)
        print("ready", flush=True)
        import time; time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert "ready" in process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    until(lambda: not running(cloud), 60, "no machine runs after the lease")
    with cloud.active():
        subprocess.run([sys.executable, "-m", "dask", "cloud", "sweep", "killed", "--yes"], check=True)
    assert nothing_left(cloud)
