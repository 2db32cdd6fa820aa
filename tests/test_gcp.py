"""GCPCluster on the embedded Google Cloud, from start to end, with real processes: what Google Cloud alone has.

What every cloud does alike is in the suites over all of them.
"""

from __future__ import annotations

import subprocess
import sys

import gcloud
import pytest
from contract import until
from distributed import Client

from cloudprovider import BootError, CapacityError, ConfigError, GCPCluster
from cloudprovider.providers._gcp import GCP

SMALL = {"progress": False, "instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}


@pytest.fixture
def cloud(emulated_gcp):
    yield emulated_gcp
    emulated_gcp.clear()


def running(cloud) -> list:
    return [machine for machine in cloud.machines() if machine.state != "DELETED"]


def nothing_left(cloud) -> bool:
    return until(lambda: not running(cloud) and not cloud.leftovers(), 60, "nothing is left")


def add_nat() -> None:
    """Give machines without an address outside a way out."""
    nat = {
        "name": "out",
        "nat_ip_allocate_option": "AUTO_ONLY",
        "source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    router = {"name": "out", "network": "projects/dask-emulated/global/networks/default", "nats": [nat]}
    gcp = GCP()
    gcp.done(gcp.change("routers", "insert", region="us-central1", router_resource=router))


def test_a_life(cloud):
    """It starts, computes, scales both ways, is billed, is found by another, and leaves nothing."""
    with GCPCluster(name="life", n_workers=2, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert list(range(1, 11)) == client.gather(client.map(lambda x: x + 1, range(10)))
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        cluster.scale(1)
        until(lambda: len(cluster.observed) == 1, 60, "one worker is left")
        assert cluster.cost().spent > 0
        assert {"n2-standard-2"} == {machine.kind for machine in cluster.workers.values()}
        assert {cluster.scheduler_machine.zone} == {machine.zone for machine in cluster.workers.values()}
        shown = subprocess.run(
            [sys.executable, "-m", "dask", "cloud", "list"], capture_output=True, text=True, check=True
        )
        assert "life" in shown.stdout
        assert "gcp" in shown.stdout
        with GCPCluster.from_name("life", progress=False, shutdown_on_close=False) as other:
            assert other.workers.keys() == cluster.workers.keys()
    assert nothing_left(cloud)


def test_a_preempted_worker_is_drained_and_replaced(cloud):
    """What a spot machine holds is safe before Google takes it, and another comes in its place."""
    with GCPCluster(n_workers=2, spot=True, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        results = client.scatter({str(n): n for n in range(8)})
        [victim, *_] = cluster.workers
        cloud.interrupt(victim)
        until(lambda: victim not in cluster.workers, 60, "it is gone")
        client.wait_for_workers(2, timeout=60)
        assert {str(n): n for n in range(8)} == client.gather(results)
    assert nothing_left(cloud)


def test_a_killed_worker_is_replaced(cloud):
    """A machine whose host fails is replaced; what it was to do is done."""
    with GCPCluster(n_workers=1, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        [victim] = cluster.workers
        cloud.kill(victim)
        until(lambda: cluster.workers and victim not in cluster.workers, 60, "another came")
        assert 2 == client.submit(lambda: 2).result(timeout=60)
    assert nothing_left(cloud)


def test_private_machines_through_a_tunnel(cloud, tmp_path, monkeypatch):
    """With public=False nothing has an address outside, and only Google's proxy may come in."""
    add_nat()
    gcloud.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with GCPCluster(n_workers=1, public=False, tunnel=True, **SMALL) as cluster, Client(cluster) as client:
        assert 3 == client.submit(lambda: 3).result(timeout=60)
        rules = [rule for rule in GCP().items("firewalls") if rule.name == f"dask-{cluster.name}-scheduler"]
        assert [["35.235.240.0/20"]] == [list(rule.source_ranges) for rule in rules]
        for machine in (cluster.scheduler_machine, *cluster.workers.values()):
            one = GCP().call("instances", "get", instance=machine.id, zone=machine.zone)
            assert not one.network_interfaces[0].access_configs
    assert nothing_left(cloud)


def test_a_tunnel_needs_gcloud(cloud, tmp_path, monkeypatch):
    """Without gcloud the error says where to get it, before anything has been asked of the cloud."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cloud\.google\.com/sdk/docs/install"):
        GCPCluster(public=False, tunnel=True, **SMALL)
    assert [] == cloud.calls


def test_a_scheduler_that_cannot_be_placed(cloud):
    """An insert that Google accepts and cannot do, in any zone, is an error with what to do, and leaves nothing."""
    cloud.inject("capacity", room=0)
    with pytest.raises(CapacityError, match=r"ZONE_RESOURCE_POOL_EXHAUSTED.*zones="):
        GCPCluster(**SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_a_machine_that_never_boots_says_why(cloud):
    """The last lines of a machine that deleted itself are in the error, though nothing of it is left."""
    cloud.inject("image-pull")
    with pytest.raises(BootError, match=r"(?s)image=.*Its last log lines:.*manifest"):
        GCPCluster(**SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_a_private_machine_without_a_way_out_says_so(cloud, tmp_path, monkeypatch):
    """Where nothing leads out of the network, the error says what would."""
    gcloud.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BootError, match=r"(?s)no way out.*Cloud NAT"):
        GCPCluster(public=False, tunnel=True, **SMALL)
    assert nothing_left(cloud)
