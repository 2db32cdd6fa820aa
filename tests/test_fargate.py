"""What is Fargate's own, end to end on the embedded AWS; what all clouds share is in the suite of all clouds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request

import pytest
from distributed import Client, wait
from embedded import SMALL, nothing_left

from cloudprovider import BootError, ConfigError, CredentialsError, FargateCluster
from cloudprovider.events import Phase


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


@pytest.fixture
def cluster(cloud):
    with FargateCluster(n_workers=2, **SMALL) as cluster:
        cluster.wait_for_workers(2, timeout=60)
        yield cluster


def count(cloud, operation, error="") -> int:
    return sum(call.operation == operation and (not error or call.error == error) for call in cloud.calls)


def test_threads_and_memory_are_the_machine_s(cloud):
    """A worker's threads and memory are what was ordered, not what this computer has."""
    size = {**SMALL, "worker_cpu": 4, "worker_memory": "8 GiB"}
    with FargateCluster(n_workers=1, **size) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        [worker] = cluster.scheduler_info["workers"].values()
        assert (4, 8 * 2**30) == (worker["nthreads"], worker["memory_limit"])


def test_worker_image_that_can_never_be_pulled_is_no_billing_loop(cluster, cloud):
    """After three failed boots the fleet stops, and waiting ends with a BootError."""
    cloud.inject("image-pull")
    before = count(cloud, "RunTask")
    cluster.scale(3)
    with pytest.raises(BootError, match="in a row"):
        cluster.wait_for_workers(3, timeout=60)
    time.sleep(3)
    assert count(cloud, "RunTask") - before <= 4


def test_image_without_distributed(cloud, tmp_path):
    """An image that lacks distributed is a BootError that says so."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    cloud.add_image("registry.example/bare:1", python=tmp_path / "bare" / "bin" / "python")
    with pytest.raises(BootError, match="distributed"):
        FargateCluster(n_workers=1, image="registry.example/bare:1", **SMALL)
    assert nothing_left(cloud)


def test_no_route_out(cloud):
    """Private addresses in a subnet without a way out are explained."""
    with pytest.raises(BootError, match=r"(?i)nat|route|endpoint"):
        FargateCluster(n_workers=1, public=False, allow_from="127.0.0.0/8", **SMALL)
    assert nothing_left(cloud)


def test_no_credentials(cloud):
    """Without credentials the error says how to get some, before anything is made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(name)
    with pytest.raises(CredentialsError, match=r"(?i)credentials"):
        FargateCluster(**SMALL)


def test_wrong_region(cloud):
    """A region that does not exist is an error before any call."""
    with pytest.raises(ConfigError, match="us-esat-1"):
        FargateCluster(region="us-esat-1", **SMALL)
    assert [] == cloud.calls


def test_impossible_size(cloud):
    """A size that Fargate does not have is an error before any call, with the nearest."""
    with pytest.raises(ConfigError, match="nearest"):
        FargateCluster(worker_cpu=1, worker_memory="64 GiB", progress=False)
    assert [] == cloud.calls


def test_dashboard_through_the_local_proxy(cluster):
    """The dashboard answers on this machine's loopback, through the cluster's certificate."""
    with urllib.request.urlopen(cluster.dashboard_link, timeout=20) as page:
        assert "Dask" in page.read().decode()


def test_interpreter_lock_held_for_a_minute(cloud):
    """User code that holds the interpreter lock for a minute loses neither its machine nor its result."""
    with FargateCluster(n_workers=2, **SMALL) as cluster, Client(cluster) as client:

        def hold(seconds):
            import ctypes

            ctypes.PyDLL(None).sleep(seconds)
            return seconds

        futures = client.map(hold, [61, 61], pure=False)
        wait(futures, timeout=120)
        assert [61, 61] == client.gather(futures)
        assert [] == cluster.events.of(Phase.lost)
