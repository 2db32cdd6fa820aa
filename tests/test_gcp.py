"""GCPCluster's private machines and the tunnel to them, on the embedded Google Cloud with real processes.

What every cloud does alike is in the suites over all of them.
"""

from __future__ import annotations

import gcloud
import pytest
from contract import until
from distributed import Client

from cloudprovider import BootError, ConfigError, GCPCluster
from cloudprovider.providers._gcp import GCP
from cloudprovider.providers.gce import GCEProvider, GCPConfig
from cloudprovider.security import make_secrets

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


def test_a_private_machine_without_a_way_out_says_so(cloud, tmp_path, monkeypatch):
    """Where nothing leads out of the network, the error says what would."""
    gcloud.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BootError, match=r"(?s)no way out.*Cloud NAT"):
        GCPCluster(public=False, tunnel=True, **SMALL)
    assert nothing_left(cloud)


def test_a_sweep_leaves_machines_the_right_to_delete_themselves(cloud):
    """What lets a cluster's machines delete themselves goes after the last of them, and not while one is left."""
    config = GCPConfig.of(name="dead", allow_from="127.0.0.1/32", **SMALL)
    provider = GCEProvider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    provider.create(provider.boot("scheduler"), 1)
    provider.patience_s = 0.01
    assert provider.sweep("dead").left
    assert [line for line in cloud.leftovers() if "iam binding" in line]
    provider.patience_s = 60
    provider.sweep("dead")
    assert nothing_left(cloud)
