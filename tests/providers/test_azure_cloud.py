"""AzureProvider on the embedded cloud: what is Azure's own, and what can go wrong in its way."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter

import pytest
from contract import until

from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.provider import State
from cloudprovider.providers._azure import Azure
from cloudprovider.providers.azure import AzureProvider, AzureVMConfig
from cloudprovider.security import make_secrets

SIZE = "Standard_D2s_v5"
OPTIONS = {
    "region": "westeurope",
    "allow_from": "127.0.0.1/32",
    "instance_type": SIZE,
    "scheduler_instance_type": SIZE,
}
GROUP = "dask-westeurope"
LANDING = (
    "ResourceGroups",
    "VirtualNetworks",
    "Vaults",
    "UserAssignedIdentities",
    "Role",
    "ApplicationSecurityGroups",
)


@pytest.fixture
def cloud(emulated_azure):
    yield emulated_azure
    emulated_azure.clear()


@pytest.fixture
def azure(cloud):
    """The user's own hands on the subscription."""
    return Azure()


def provider(name="it", **options) -> AzureProvider:
    config = AzureVMConfig.of(name=name, **{**OPTIONS, **options})
    return AzureProvider(config, config.identity())


def prepared(name="it", **options) -> AzureProvider:
    made = provider(name, **options)
    boots = [made.config.boot_for(role, made.identity) for role in ("scheduler", "worker")]
    made.prepare(boots, make_secrets(made.identity))
    return made


def workers(made: AzureProvider, count: int):
    boot = dataclasses.replace(made.boot("worker"), scheduler="tls://127.0.0.1:1")
    return made.create(boot, count)


def gone(made: AzureProvider, id: str):
    """What is said of a machine when it is gone."""

    def look():
        return next((one for one in made.describe([id]) if one.state is State.gone), None)

    return until(look, 30, "the machine is gone")


def operations(cloud, since: int = 0) -> Counter:
    return Counter(call.operation for call in cloud.calls[since:])


def billed(cloud) -> list:
    return [machine for machine in cloud.machines() if machine.state not in {"deleted", "evicted"}]


# -- landing -------------------------------------------------------------------------------------------


def test_landing_is_made_once(cloud):
    """The first cluster makes what all share, the second finds it, and neither sweep removes it."""
    prepared("first").sweep("first")
    since = len(cloud.calls)
    second = prepared("second")
    made = operations(cloud, since)
    second.sweep("second")

    assert [] == [
        name for name in made if name.startswith(LANDING) and not name.endswith(("Get", "ListForScope"))
    ]
    assert 1 == made["VirtualMachineScaleSets.CreateOrUpdate"]
    assert [] == cloud.leftovers()


def test_who_may_not_give_roles_is_told_the_commands(cloud):
    """Without the right to give roles the error has the commands for somebody who may, and nothing is left."""
    cloud.inject("denied", operation="RoleAssignments.Create")
    with pytest.raises(
        CredentialsError, match=r"(?s)roleAssignments/write.*az rest.*az role assignment create"
    ) as told:
        prepared()
    assert "Key Vault" not in str(told.value)
    assert "--assignee-object-id" in str(told.value)
    cloud.clear()
    assert [] == cloud.leftovers()


def test_network_and_identity_of_the_users(cloud, azure):
    """A network, a group of rules and an identity of the user's are used as they are, and none is made."""
    azure.call("resources", "resource_groups.create_or_update", "mine", {"location": "westeurope"})
    subnets = [
        {"name": name, "properties": {"addressPrefix": f"10.9.{place}.0/24"}}
        for place, name in enumerate(("front", "back", "AzureBastionSubnet"))
    ]
    space = {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}, "subnets": subnets}
    request = {"location": "westeurope", "properties": space}
    azure.make("network", "virtual_networks.begin_create_or_update", "mine", "net", request)
    azure.call("msi", "user_assigned_identities.create_or_update", "mine", "me", {"location": "westeurope"})
    options = {"resource_group": "mine", "vnet": "net", "machine_identity": "me"}

    with pytest.raises(ConfigError, match=r"front, back: pass subnet="):
        prepared("first", **options)
    with pytest.raises(ConfigError, match="is not in it"):
        prepared("second", subnet="side", **options)
    made = prepared("third", subnet="back", region=None, **options)
    made.create(made.boot("scheduler"), 1)
    machine = azure.call("compute", "virtual_machines.get", "mine", "dask-third-scheduler")
    interface = azure.call("network", "network_interfaces.get", "mine", "dask-third-scheduler")

    assert "westeurope" == made.config.region
    assert ["me"] == [id.rpartition("/")[2] for id in machine["identity"]["userAssignedIdentities"]]
    [own] = interface["properties"]["ipConfigurations"]
    assert own["properties"]["subnet"]["id"].endswith("/net/subnets/back")
    assert 2 == operations(cloud)["RoleAssignments.Create"]  # our own right to the secrets


def test_wrong_places(cloud):
    """A resource group, a subscription or a network that is not there is an error that names it."""
    with pytest.raises(ConfigError, match="resource_group="):
        prepared(resource_group="nowhere")
    with pytest.raises(ConfigError, match="for subscription 00000000-0000-4000-8000-000000000009"):
        prepared(subscription="00000000-0000-4000-8000-000000000009")
    with pytest.raises(CloudError, match="net-that-is-not"):
        prepared(vnet="net-that-is-not")
    with pytest.raises(ConfigError, match="Canonical:nothing"):
        prepared(machine_image="Canonical:nothing:at-all:latest")
    assert 0 == operations(cloud)["VirtualMachines.CreateOrUpdate"]


def test_a_service_that_the_subscription_has_never_used(cloud):
    """Where a service is not registered, and the caller may not do it, the error has the command."""
    namespace = "Microsoft.Network"
    said = f"The subscription is not registered to use namespace '{namespace}'."
    cloud.inject("denied", operation="Providers.Register")
    code = "MissingSubscriptionRegistration"
    cloud.inject("error", operation="VirtualNetworks.Get", code=code, message=said, status=409)
    with pytest.raises(CredentialsError, match=f"az provider register --namespace {namespace}"):
        prepared()


def test_a_right_that_does_not_hold_everywhere_yet(cloud):
    """The first start in a resource group waits until its own right to the secrets holds."""
    cloud.inject("role-propagation", seconds=1.0)
    prepared()

    assert provider().attach().client
    assert operations(cloud)["SetSecret"] > len(("machine", "client", "plan"))


def test_a_vault_that_was_deleted(cloud, azure):
    """A vault of the landing's that somebody deleted is recovered, for Azure keeps its name."""
    prepared("first").sweep("first")
    for vault in azure.pages("keyvault", "vaults.list_by_resource_group", GROUP):
        azure.call("keyvault", "vaults.delete", GROUP, vault["name"])
    prepared("second")

    assert provider("second").attach().client


@pytest.mark.parametrize(
    ("operation", "code", "kind", "said"),
    [
        ("PublicIPAddresses.CreateOrUpdate", "PublicIPCountLimitReached", QuotaError, "public=False"),
        ("VirtualMachines.CreateOrUpdate", "MarketplacePurchaseEligibilityFailed", ConfigError, "plan="),
        ("VirtualMachines.CreateOrUpdate", "QuotaExceeded", QuotaError, "Ask for more"),
    ],
)
def test_what_azure_refuses(cloud, operation, code, kind, said):
    """A refusal of a start is an error of its kind, with what to do, and a sweep leaves nothing."""
    cloud.inject("error", operation=operation, code=code, message="No.")
    made = provider()
    boots = [made.config.boot_for(role, made.identity) for role in ("scheduler", "worker")]

    def start():
        made.prepare(boots, make_secrets(made.identity))
        if refusal := made.create(made.boot("scheduler"), 1).refusal:
            raise refusal

    with pytest.raises(kind, match=said):
        start()
    cloud.clear()
    made.sweep("it")
    assert [] == cloud.leftovers()


def test_a_bastion_that_is_there(cloud, azure, tmp_path, monkeypatch):
    """A tunnel goes through a Bastion that is there, whose subnet alone is let in; none is ever made."""
    program = tmp_path / "az"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    options = {"public": False, "tunnel": True, "allow_from": None}
    with pytest.raises(ConfigError, match=r"bills by the hour.*az network bastion create"):
        prepared("first", **options)

    prefix = {"properties": {"addressPrefix": "10.58.128.0/26"}}
    where = GROUP, "dask-landing", "AzureBastionSubnet"
    subnet = azure.make("network", "subnets.begin_create_or_update", *where, prefix)
    address = {
        "location": "westeurope",
        "sku": {"name": "Standard"},
        "properties": {"publicIPAllocationMethod": "Static"},
    }
    ip = azure.make("network", "public_ip_addresses.begin_create_or_update", GROUP, "b", address)
    place = {"subnet": {"id": subnet["id"]}, "publicIPAddress": {"id": ip["id"]}}
    bastion = {
        "location": "westeurope",
        "sku": {"name": "Basic"},
        "properties": {"ipConfigurations": [{"name": "own", "properties": place}]},
    }
    operation = "bastion_hosts.begin_create_or_update"
    azure.make("network", operation, GROUP, "b", bastion)
    with pytest.raises(ConfigError, match="--enable-tunneling true"):
        prepared("second", **options)

    better = {**bastion, "sku": {"name": "Standard"}}
    better["properties"] = {**bastion["properties"], "enableTunneling": True}
    azure.make("network", operation, GROUP, "b", better)
    made = prepared("third", **options)
    [scheduler] = made.create(made.boot("scheduler"), 1).machines
    rules = azure.call("network", "network_security_groups.get", GROUP, "dask-third-scheduler")
    allowed = {
        rule["name"]: rule["properties"].get("sourceAddressPrefixes")
        for rule in rules["properties"]["securityRules"]
        if rule["properties"]["access"] == "Allow"
    }

    assert {"members": None, "bastion": ["10.58.128.0/26"]} == {
        key: value or None for key, value in allowed.items()
    }
    assert scheduler.public_address is None
    assert made.tunnel(scheduler)
    assert 3 == operations(cloud)["BastionHosts.CreateOrUpdate"] + 1


# -- names ---------------------------------------------------------------------------------------------


def test_a_name_is_free_again_without_the_right_to_purge(cloud):
    """Secrets that the vault keeps do not stand in the way of the next cluster of the name."""
    cloud.inject("denied", operation="PurgeDeletedSecret")
    first = prepared()
    first.sweep("it")
    second = prepared()

    assert second.identity == provider().identity or provider().attach().client
    assert json.loads(provider().attach().client)


def test_a_claim_that_was_answered_and_lost(cloud):
    """A claim whose answer was lost is known as one's own when it is made again."""
    cloud.inject("lost-answer", operation="VirtualMachineScaleSets.CreateOrUpdate", times=1)
    made = prepared()

    assert provider().attach().client
    assert "dask-it" in str(made.sweep("it").resources)


# -- ends --------------------------------------------------------------------------------------------


def test_an_operation_that_fails_after_it_was_accepted(cloud):
    """A scheduler that was accepted and not allocated is gone, says why, and leaves no machine."""
    made = prepared()
    cloud.inject("capacity", room=0)
    [scheduler] = made.create(made.boot("scheduler"), 1).machines
    machine = gone(made, scheduler.id)
    error = made.diagnosis(machine, "")

    assert "AllocationFailed" in machine.reason
    assert isinstance(error, CapacityError)
    until(lambda: not billed(cloud), 30, "it is deleted")


def test_an_evicted_machine_is_gone(cloud):
    """A spot machine that Azure takes back leaves nothing, and is said to be gone."""
    cloud.reset(time_scale=0.05)
    made = prepared(spot=True)
    [machine] = workers(made, 1).machines
    until(lambda: made.describe([machine.id])[0].state is State.running, 30, "it runs")
    cloud.interrupt(machine.id)

    assert "evicted" in gone(made, machine.id).reason


def test_rules_and_quotas(cloud, azure):
    """Ingress is exactly what is asked, another process finds it, and the tightest quota is said."""
    made = prepared()
    made.allow(["127.0.0.2/32", "127.0.0.3/32"])
    found = provider(allow_from=None)
    found.attach()
    [quota] = made.quotas()

    assert ("127.0.0.2/32", "127.0.0.3/32") == found.config.allow_from
    assert (2.0, 2.0, "cores") == (quota.each, quota.taken, quota.unit)
    assert quota.machines > 0
    rules = azure.call("network", "network_security_groups.get", GROUP, "dask-it-scheduler")
    sources = [rule["properties"].get("sourceAddressPrefix") for rule in rules["properties"]["securityRules"]]
    assert ["*"] == [source for source in sources if source]  # of the rule that denies
