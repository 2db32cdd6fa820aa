"""What is Azure's own, end to end on the embedded Azure; what all clouds share is in the suite of all clouds."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter

import azure_cli
import pytest
from contract import until
from distributed import Client

from cloudprovider import AzureVMCluster, ConfigError
from cloudprovider.emulator import Emulator
from cloudprovider.events import Events
from cloudprovider.fleet import Fleet
from cloudprovider.providers._azure import Azure
from cloudprovider.providers.azure import AzureProvider, AzureVMConfig
from cloudprovider.security import make_secrets

SMALL = {
    "progress": False,
    "region": "westeurope",
    "instance_type": "Standard_D2s_v5",
    "scheduler_instance_type": "Standard_D2s_v5",
}


@pytest.fixture
def cloud(emulated_azure):
    yield emulated_azure
    emulated_azure.clear()


def running(cloud) -> list:
    return [machine for machine in cloud.machines() if machine.state != "deleted"]


def make_network(group: str) -> None:
    """A network of the user's with a way out and a Bastion, in a resource group of the user's."""
    azure, place = Azure(), {"location": "westeurope"}
    standard = {**place, "sku": {"name": "Standard"}}

    def make(kind: str, name: str, **request) -> str:
        return azure.make("network", f"{kind}.begin_create_or_update", group, name, request)["id"]

    azure.call("resources", "resource_groups.create_or_update", group, place)
    door, way = (
        make("public_ip_addresses", name, **standard, properties={"publicIPAllocationMethod": "Static"})
        for name in ("door", "way")
    )
    nat = make("nat_gateways", "way", **standard, properties={"publicIpAddresses": [{"id": way}]})
    subnets = [
        {"name": "machines", "properties": {"addressPrefix": "10.9.0.0/24", "natGateway": {"id": nat}}},
        {"name": "AzureBastionSubnet", "properties": {"addressPrefix": "10.9.1.0/24"}},
    ]
    space = {"addressPrefixes": ["10.9.0.0/16"]}
    net = make("virtual_networks", "net", **place, properties={"addressSpace": space, "subnets": subnets})
    inside = {"subnet": {"id": f"{net}/subnets/AzureBastionSubnet"}, "publicIPAddress": {"id": door}}
    own = {"enableTunneling": True, "ipConfigurations": [{"name": "own", "properties": inside}]}
    make("bastion_hosts", "door", **standard, properties=own)


def test_through_a_bastion(cloud, tmp_path, monkeypatch):
    """Machines without public addresses are reached through the Bastion that is there, and none is left."""
    azure_cli.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    make_network("mine")
    options = {"resource_group": "mine", "vnet": "net", "public": False, "tunnel": True, **SMALL}
    with AzureVMCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
        assert 3 == client.submit(lambda: 3).result(timeout=60)
        machines = [cluster.scheduler_machine, *cluster.workers.values()]
        assert {None} == {machine.public_address for machine in machines}
    until(lambda: not running(cloud), 60, "no machine is left")
    made = Counter(call.operation for call in cloud.calls)
    assert 1 == made["BastionHosts.CreateOrUpdate"]
    assert 2 == made["PublicIPAddresses.CreateOrUpdate"]  # the user's own


def test_size_that_does_not_exist(cloud):
    """A misspelt size is an error before any machine, with the nearest."""
    with pytest.raises(ConfigError, match="Standard_D2s_v5"):
        AzureVMCluster(**{**SMALL, "instance_type": "Standard_D2s_v50"})
    assert [] == running(cloud)
    assert [] == cloud.leftovers()


def test_a_thousand_workers_in_one_order():
    """One call orders 1,000 workers; until all are there a start takes no more than 40 others."""
    with Emulator("azure", engine="none") as cloud, cloud.active():
        config = AzureVMConfig.of(name="thousand", allow_from="127.0.0.1/32", spot=True, **SMALL)
        provider = AzureProvider(config, config.identity())
        boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, make_secrets(provider.identity))
        provider.sweep("thousand")  # the landing is there from now on
        provider.prepare(boots, make_secrets(provider.identity))
        before = len(cloud.calls)
        [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
        boot = dataclasses.replace(provider.boot("worker"), scheduler=f"tls://{scheduler.private_address}:1")
        fleet = Fleet(provider, lambda: boot, Events())
        fleet.ask(1000)
        arrived: set[str] = set()

        def all_here() -> bool:
            assert fleet.reconcile(arrived) is None
            arrived.update({m.id for m in cloud.machines() if m.state == "running"} & fleet.machines.keys())
            time.sleep(0.3)
            return 1000 == len(arrived)

        until(all_here, 120, "all 1000 have arrived")
        calls = Counter(call.operation for call in cloud.calls[before:])
        assert 1 == calls["VirtualMachineScaleSets.CreateOrUpdate"]
        assert calls.total() <= 40, calls

        ending = len(cloud.calls)
        provider.delete(list(fleet.machines))
        ended = Counter(call.operation for call in cloud.calls[ending:])
        assert {"VirtualMachineScaleSets.DeleteInstances": 1} == dict(ended)
