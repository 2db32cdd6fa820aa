"""What Azure is told and what it answers, without any cloud."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import sys

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.mgmt.compute import models as compute
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.mgmt.network import models as network
from cloudruntime.boot import Boot, Leases

from cloudprovider.emulator.azure_models import problems
from cloudprovider.errors import (
    BootError,
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
)
from cloudprovider.provider import Identity, Machine, State
from cloudprovider.providers import _azure, _azure_ends, _azure_errors, _azure_roles, _azure_tunnel
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_wire as wire
from cloudprovider.providers._azure_landing import Landing
from cloudprovider.providers._azure_plan import Kind, Plan
from cloudprovider.providers.azure import AzureVMConfig, policy

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/dask-westeurope"
IDENTITY = Identity(name="it", owner="me", created=1_800_000_000, expires=1_800_086_400)
LANDING = Landing(
    region="westeurope",
    group="dask-westeurope",
    subnet=f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v/subnets/s",
    members=f"{GROUP}/providers/Microsoft.Network/applicationSecurityGroups/a",
    security_group=f"{GROUP}/providers/Microsoft.Network/networkSecurityGroups/n",
    identity=f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i",
    client_id="00000000-0000-4000-8000-000000000002",
    vaults={"machine": "https://m.vault.azure.net/", "client": "https://c.vault.azure.net/"},
)
KIND = Kind(
    types=("Standard_D4s_v5", "Standard_D4ds_v5"),
    zones={"Standard_D4s_v5": (), "Standard_D4ds_v5": ("1", "2")},
    ephemeral={"Standard_D4ds_v5": "ResourceDisk"},
    accelerated=("Standard_D4s_v5",),
    quotas={"on-demand": {"cores": 4, "standardDSv5Family": 4}},
    gpus=0,
    image={"publisher": "p", "offer": "o", "sku": "s", "version": "latest"},
    disk_gib=30,
)
BOOTS = {
    role: Boot(cluster="it", role=role, image="i", secret="keyvault:x", leases=Leases(expires=1))
    for role in ("scheduler", "worker")
}
PLAN = Plan(
    identity=IDENTITY,
    landing=LANDING,
    key="ssh-ed25519 AAAA",
    kinds={"scheduler": KIND, "worker": KIND},
    boots=BOOTS,
)


def config(**options) -> AzureVMConfig:
    return AzureVMConfig.of(region="westeurope", resource_group="dask-westeurope", **options)


def scale_set(count=3, *, size="Standard_D4s_v5", market="on-demand", plan=PLAN, **options) -> dict:
    given = {"name": "dask-it-w-abc123", "size": size, "market": market, "user_data": b"#cloud-config"}
    return wire.scale_set_request(config(**options), plan, BOOTS["worker"], count, **given)


def scheduler(size="Standard_D4s_v5", **options) -> dict:
    given = {"size": size, "interface": "/nic", "user_data": b"#cloud-config"}
    return wire.machine_request(config(**options), PLAN, BOOTS["scheduler"], **given)


def rules(request: dict) -> dict:
    return {rule["name"]: rule["properties"] for rule in request["properties"]["securityRules"]}


class Response:
    """What the SDK keeps of an answer."""

    def __init__(self, status: int, document: dict, headers: dict | None = None) -> None:
        self.status_code, self.reason, self.headers = status, "because", headers or {}
        self.document, self.content_type = document, "application/json"

    def text(self, encoding: str | None = None) -> str:
        return json.dumps(self.document)


def refused(code: str, message: str = "because", status: int = 409, **more) -> HttpResponseError:
    headers = more.pop("headers", None)
    document = {"error": {"code": code, "message": message, **more}}
    return HttpResponseError(response=Response(status, document, headers), error_format=ARMErrorFormat)


# -- requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("market", ["on-demand", "spot"])
@pytest.mark.parametrize("size", KIND.types)
@pytest.mark.parametrize("public", [True, False])
def test_orders_are_what_azure_takes(market, size, public):
    """A scale set, a machine and its network have no member that Azure's own SDK does not know."""
    given = {"public": public, "allow_from": "10.0.0.0/8", "tags": {"team": "x"}}
    mine = config(**given), PLAN, BOOTS["scheduler"]
    interface = wire.interface_request(*mine, size=size, security_group="/nsg", address="/ip")
    requests = [
        (compute.VirtualMachineScaleSet, scale_set(size=size, market=market, **given)),
        (compute.VirtualMachineScaleSet, wire.claim_request(config(**given), IDENTITY, "secret")),
        (compute.VirtualMachine, scheduler(size, **given)),
        (network.NetworkInterface, interface),
        (network.PublicIPAddress, wire.address_request(*mine)),
        (
            network.NetworkSecurityGroup,
            wire.security_group_request("westeurope", {}, "/asg", ["10.0.0.0/8", "::/0"]),
        ),
    ]
    assert [] == [problem for kind, request in requests for problem in problems(kind, request)]


def test_an_order_is_one_scale_set():
    """One call orders up to 1,000 machines, which are as their scale set says."""
    request = scale_set(1000)

    assert {"name": "Standard_D4s_v5", "tier": "Standard", "capacity": 1000} == request["sku"]
    assert "Flexible" == request["properties"]["orchestrationMode"]
    assert 1 == request["properties"]["platformFaultDomainCount"]
    assert "it" == request["tags"]["dask-cluster"]
    assert "worker" == request["tags"]["dask-role"]


def test_all_of_a_machine_goes_with_it():
    """Disk, interface and address of a machine are deleted with it, and bear its tags."""
    own = scale_set()["properties"]["virtualMachineProfile"]
    [interface] = own["networkProfile"]["networkInterfaceConfigurations"]
    [address] = interface["properties"]["ipConfigurations"]
    public = address["properties"]["publicIPAddressConfiguration"]
    alone = scheduler()["properties"]

    assert "Delete" == own["storageProfile"]["osDisk"]["deleteOption"]
    assert "Delete" == interface["properties"]["deleteOption"]
    assert "Delete" == public["properties"]["deleteOption"]
    assert "it" == interface["tags"]["dask-cluster"] == public["tags"]["dask-cluster"]
    assert "Delete" == alone["storageProfile"]["osDisk"]["deleteOption"]
    assert "Delete" == alone["networkProfile"]["networkInterfaces"][0]["properties"]["deleteOption"]


def test_private_machines_have_no_public_address():
    """With public=False nothing asks for a public address."""
    request = scale_set(public=False, allow_from="10.0.0.0/8")
    assert "publicIPAddress" not in json.dumps(request)


def test_spot_is_deleted_when_it_is_evicted():
    """Spare capacity costs at most what it costs on demand, and its machines leave nothing when they go."""
    own = scale_set(market="spot")["properties"]["virtualMachineProfile"]
    assert ("Spot", "Delete", -1) == (
        own["priority"],
        own["evictionPolicy"],
        own["billingProfile"]["maxPrice"],
    )
    assert "priority" not in scale_set()["properties"]["virtualMachineProfile"]


def test_ephemeral_disk_where_the_size_has_room():
    """A size with storage of its own keeps the OS disk there; another has a managed one."""
    local = scale_set(size="Standard_D4ds_v5")["properties"]["virtualMachineProfile"]["storageProfile"][
        "osDisk"
    ]
    managed = scale_set(disk_type="Premium_LRS")["properties"]["virtualMachineProfile"]["storageProfile"][
        "osDisk"
    ]

    assert {"option": "Local", "placement": "ResourceDisk"} == local["diffDiskSettings"]
    assert "ReadOnly" == local["caching"]
    assert {"storageAccountType": "Premium_LRS"} == managed["managedDisk"]


def test_zones():
    """Workers may be in every zone that is named, the scheduler is in the first; without any Azure chooses."""
    assert ["1", "2"] == scale_set(size="Standard_D4ds_v5")["zones"]
    assert ["1"] == scheduler("Standard_D4ds_v5")["zones"]
    assert "zones" not in scale_set()


def test_custom_data_and_who_may_log_in():
    """The custom data travels as it is, passwords are off, and only the given key opens."""
    system = scale_set()["properties"]["virtualMachineProfile"]["osProfile"]
    linux = system["linuxConfiguration"]

    assert b"#cloud-config" == base64.b64decode(system["customData"])
    assert linux["disablePasswordAuthentication"]
    assert ["ssh-ed25519 AAAA"] == [key["keyData"] for key in linux["ssh"]["publicKeys"]]


def test_a_plan_of_a_marketplace_image():
    """An image with a plan is ordered with it."""
    plan = {"name": "n", "product": "o", "publisher": "p"}
    kind = dataclasses.replace(KIND, plan=plan)
    with_plan = dataclasses.replace(PLAN, kinds={"scheduler": kind, "worker": kind})

    assert plan == scale_set(plan=with_plan)["plan"]
    assert "plan" not in scale_set()


def test_rules_let_members_and_sources_in_and_nobody_else():
    """Members talk to each other, sources reach two ports, and nothing else is let in."""
    made = wire.security_group_request("r", {}, "/asg", ["10.1.0.0/16", "fd00::/8"], ["10.2.0.0/26"])
    found = rules(made)

    assert [{"id": "/asg"}] == found["members"]["sourceApplicationSecurityGroups"]
    assert ["10.1.0.0/16"] == found["allow-from"]["sourceAddressPrefixes"]
    assert ["fd00::/8"] == found["allow-from-6"]["sourceAddressPrefixes"]
    assert ["10.2.0.0/26"] == found["bastion"]["sourceAddressPrefixes"]
    assert {"8786-8787"} == {found[name]["destinationPortRange"] for name in ("allow-from", "bastion")}
    assert "Deny" == found["nobody-else"]["access"]
    assert found["nobody-else"]["priority"] == max(rule["priority"] for rule in found.values())
    assert {"10.1.0.0/16", "fd00::/8"} == wire.sources_of(made)


def test_no_rule_is_open_to_the_world_unasked():
    """Without sources only members are let in."""
    found = rules(wire.security_group_request("r", {}, "/asg"))
    assert ["members"] == [name for name, rule in found.items() if rule["access"] == "Allow"]


def test_a_claim_tells_clusters_apart_and_nothing_of_their_secret():
    """The claim has the secret's digest, not the secret, and no machine."""
    request = wire.claim_request(config(), IDENTITY, "a secret")

    assert wire.digest("a secret") == request["tags"][wire.CLAIM]
    assert wire.digest("another") != request["tags"][wire.CLAIM]
    assert "a secret" not in json.dumps(request)
    assert "sku" not in request


# -- names and plans -----------------------------------------------------------------------------------


def test_names_fit_azure():
    """The longest name of a cluster makes names that Azure takes, of machines too."""
    longest = "a" + "b" * 39
    order = names.order(longest, "abc123")

    assert max(len(names.scheduler(longest)), len(f"{order}_12345678")) <= 64
    assert len(order) <= 58
    for whose in ("machine", "client"):
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", names.vault(SUBSCRIPTION, "dask-x", whose))


def test_a_machine_says_its_scale_set():
    """Which machines one call deletes follows from their names; a scheduler stands alone."""
    assert "dask-it-w-abc123" == names.scale_set_of("dask-it-w-abc123_0f1e2d3c")
    assert names.scale_set_of("dask-it-scheduler") is None


def test_plan_travels():
    """Another process reads the plan as it was made, and the options that machines are ordered with."""
    read, options = Plan.loads(PLAN.parts(config(spot="fallback")))

    assert PLAN == read
    assert "fallback" == options["spot"]


def test_plan_that_is_too_large():
    """What fits into no secret is an error before any machine."""
    noise = "".join(map(str, range(200_000)))
    with pytest.raises(ConfigError, match="put large values into the image"):
        PLAN.parts(config(user_data=f"#!/bin/sh\n# {base64.b85encode(noise.encode()).decode()}"))


# -- answers -------------------------------------------------------------------------------------------


def vm(power: str = "", provisioning: str = "Succeeded", **more) -> dict:
    statuses = [{"code": f"PowerState/{power}"}] if power else []
    return {
        "name": "dask-it-w-abc123_0f1e2d3c",
        "tags": {
            "dask-cluster": "it",
            "dask-role": "worker",
            "dask-expires": "1800086400",
            **more.pop("tags", {}),
        },
        "zones": ["2"],
        "properties": {
            "provisioningState": provisioning,
            "timeCreated": "2027-01-15T08:00:00.1234567+00:00",
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "instanceView": {"statuses": [*statuses, *more.pop("statuses", [])]},
            **more,
        },
    }


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (vm(provisioning="Creating"), State.starting, ""),
        (vm("starting", "Creating"), State.starting, ""),
        (vm("running", "Creating"), State.running, ""),
        (vm("running"), State.running, ""),
        (vm(), State.running, ""),
        (vm("stopped"), State.gone, "it was shut down from inside"),
        (vm("deallocated"), State.gone, "it was deallocated"),
        (vm(provisioning="Deleting"), State.gone, ""),
        (
            vm(
                provisioning="Failed",
                statuses=[{"code": "ProvisioningState/failed/AllocationFailed", "message": "No room."}],
            ),
            State.gone,
            "AllocationFailed: No room",
        ),
        (vm("running", tags={"dask-ended": "no such image"}), State.gone, "no such image"),
    ],
)
def test_machine_states(answer, state, reason):
    """What Azure says of a machine's power and its making is how far it is in its life, and why it is over."""
    machine = wire.machine(answer, now=1_900_000_000)

    assert (state, reason) == (machine.state, machine.reason)
    assert (state is State.gone) == (machine.ended is not None)


def test_machine_is_read():
    """Role, cluster, zone, size, market and moments are the machine's own."""
    machine = wire.machine(vm("running", priority="Spot"), now=1_900_000_000)

    assert (
        Machine(
            id="dask-it-w-abc123_0f1e2d3c",
            role="worker",
            state=State.running,
            cluster="it",
            zone="2",
            kind="Standard_D4s_v5",
            market="spot",
            created=1_800_000_000.123456,
            billed_from=1_800_000_000.123456,
            expires=1_800_086_400,
        )
        == machine
    )


# -- errors --------------------------------------------------------------------------------------------

FORBIDDEN = (
    "The client 'x' with object id 'y' does not have authorization to perform action "
    f"'Microsoft.Compute/virtualMachines/write' over scope '{GROUP}' or the scope is invalid."
)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            refused("AuthorizationFailed", FORBIDDEN, 403),
            CredentialsError,
            f"may not perform Microsoft.Compute/virtualMachines/write on {GROUP}.*dask cloud policy azure",
        ),
        (refused("ExpiredAuthenticationToken", status=401), CredentialsError, "az login"),
        (refused("SubscriptionNotFound", status=404), ConfigError, "for subscription mine.*az account list"),
        (refused("InvalidSubscriptionId", status=400), ConfigError, "subscription="),
        (refused("ResourceGroupNotFound", status=404), ConfigError, "resource_group="),
        (refused("QuotaExceeded"), QuotaError, "Ask for more"),
        (
            refused(
                "OperationNotAllowed", "Operation results in exceeding approved Total Regional Cores quota."
            ),
            QuotaError,
            "Ask for more",
        ),
        (refused("OperationNotAllowed", "It is being updated."), CloudError, "being updated"),
        (refused("SkuNotAvailable"), CapacityError, "another region="),
        (refused("AllocationFailed"), CapacityError, "Try again later"),
        (refused("ZonalAllocationFailed"), CapacityError, "without zones="),
        (refused("OverconstrainedAllocationRequest"), CapacityError, "instance_type="),
        (refused("ImageNotFound", status=404), ConfigError, "machine_image="),
        (refused("MarketplacePurchaseEligibilityFailed", status=400), ConfigError, "terms accept"),
        (refused("PublicIPCountLimitReached", status=400), QuotaError, "public=False"),
        (
            refused("TooManyRequests", status=429, headers={"Retry-After": "17"}),
            QuotaError,
            "after 17 seconds",
        ),
        (
            refused(
                "MissingSubscriptionRegistration",
                "The subscription is not registered to use namespace 'Microsoft.KeyVault'.",
            ),
            CredentialsError,
            "az provider register --namespace Microsoft.KeyVault",
        ),
        (refused("Conflict"), CloudError, "try again"),
        (
            refused(
                "DeploymentFailed", "See details.", details=[{"code": "AllocationFailed", "message": "Full."}]
            ),
            CapacityError,
            "Full",
        ),
        (
            refused(
                "Forbidden",
                "Caller is not authorized.\r\nAction: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'",
                403,
            ),
            CredentialsError,
            "may not perform Microsoft.KeyVault/vaults/secrets/setSecret/action",
        ),
        (ServiceRequestError("no route"), CloudError, "could not be reached"),
        (ClientAuthenticationError("DefaultAzureCredential failed\nand so on"), CredentialsError, "az login"),
    ],
)
def test_errors_are_ours(error, kind, said):
    """What the SDK raises becomes an error of ours that says what to do next."""
    translated = _azure_errors.translate(error, "mine")

    assert kind is type(translated)
    assert re.search(said, str(translated), re.DOTALL), str(translated)


def test_errors_of_others_are_let_through():
    """Only what is of Azure's SDK is translated."""
    assert _azure_errors.translate(KeyError("x"), "mine") is None


@pytest.mark.parametrize(
    ("logs", "kind", "said"),
    [
        ("exec format error", BootError, "architecture="),
        ("Error response from daemon: manifest unknown", BootError, "image="),
        ("dial tcp 1.2.3.4:443: i/o timeout", BootError, "public=True"),
        ("ForbiddenByRbac", BootError, "Key Vault Secrets User"),
        ("", CapacityError, "Try again later"),
    ],
)
def test_diagnosis(logs, kind, said):
    """Why a machine came to nothing is in its log, or in what Azure said of it."""
    machine = Machine(id="m", role="worker", state=State.gone, reason="AllocationFailed: no room")
    error = _azure_ends.diagnosis(machine, logs)

    assert kind is type(error)
    assert said in str(error)


# -- where, and who ------------------------------------------------------------------------------------


def test_endpoints_of_another_cloud():
    """A cloud's own description says where it is, as a document or in a list."""
    said = {
        "authentication": {"loginEndpoint": "https://login.x/", "audiences": ["https://arm.x/"]},
        "resourceManager": "https://arm.x/",
    }
    for answer in (said, [said]):
        found = _azure.Endpoints.read(answer)
        assert ("https://arm.x", "https://arm.x", "https://login.x", True) == (
            found.manager,
            found.audience,
            found.authority,
            found.private,
        )


def test_machine_role_is_narrow():
    """Machines may delete machines of their resource group and say why, and nothing else."""
    role = _azure_roles.role("azure-machine", SUBSCRIPTION, "dask-westeurope")
    properties = role.definition["properties"]
    [permissions] = properties["permissions"]

    assert [GROUP] == properties["assignableScopes"]
    assert ["Microsoft.Compute/virtualMachines/delete", "Microsoft.Resources/tags/write"] == permissions[
        "actions"
    ]
    assert role.id == _azure_roles.role("azure-machine", SUBSCRIPTION, "dask-westeurope").id
    assert role.id != _azure_roles.role("azure-machine", SUBSCRIPTION, "dask-other").id


def test_a_scheduler_that_orders_has_an_identity_of_its_own():
    """The scheduler's machine of an autonomous cluster runs under another identity than workers, who may order nothing."""
    landing = dataclasses.replace(LANDING, scheduler=f"{GROUP}/scheduler", scheduler_client_id="c-2")
    assert (f"{GROUP}/scheduler", "c-2") == landing.identity_of("scheduler")
    assert (LANDING.identity, LANDING.client_id) == landing.identity_of("worker")
    assert (LANDING.identity, LANDING.client_id) == LANDING.identity_of("scheduler")


def test_what_is_given_covers_what_is_wanted():
    """A role is given once; a role that somebody made of ours counts, and one of ours for something else does not."""
    own = [
        _azure_roles.role(name, SUBSCRIPTION, "dask-westeurope") for name in _azure_roles.ROLES["scheduler"]
    ]
    group, operations = own
    wanted = _azure_roles.Assignment(scope=group.scope, role=group.id, principal="p", kind="ServicePrincipal")

    def there(role, scope):
        return {"properties": {"roleDefinitionId": f"{_azure_roles.DEFINITION}{role}", "scope": scope}}

    assert _azure_roles._covers(there(group.id, group.scope), wanted, own)
    assert _azure_roles._covers(there("somebodys", group.scope), wanted, own)
    assert not _azure_roles._covers(there(operations.id, operations.scope), wanted, own)
    assert not _azure_roles._covers(there(_azure_roles.READER, group.scope), wanted, own)


@pytest.mark.parametrize(
    "name",
    [
        "azure",
        "azure-landing",
        "azure-machine",
        "azure-offers",
        "azure-operations",
        "azure-scheduler",
        "azure-tunnel",
    ],
)
def test_policies_are_roles(name):
    """Every printed policy is a role definition that `az role definition create` takes."""
    role = json.loads(policy(name, subscription=SUBSCRIPTION, resource_group="dask-westeurope"))

    assert {"Name", "IsCustom", "Description", "Actions", "NotActions", "AssignableScopes"} <= role.keys()
    assert all(action.startswith("Microsoft.") for action in role["Actions"])
    assert not any(action.endswith("/*") or action == "*" for action in role["Actions"])
    assert [SUBSCRIPTION in scope for scope in role["AssignableScopes"]] == [True]


def test_tunnel_command():
    """The Azure CLI is told which Bastion leads to which machine, and from which port to which."""
    bastion = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b"
    command = _azure_tunnel.command("az", bastion, "/vm", 8786, 1234)

    assert ("az", "network", "bastion", "tunnel") == command[:4]
    assert {
        "--name": "b",
        "--resource-group": "g",
        "--target-resource-id": "/vm",
        "--port": "1234",
    }.items() <= dict(zip(command[4::2], command[5::2], strict=True)).items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"machine_image": "ubuntu"}, "publisher:offer:sku:version"),
        ({"plan": {"name": "n"}, "machine_image": "a:b:c:d"}, "product"),
        ({"disk_type": "fast"}, "Premium_LRS"),
        ({"ssh_key": "/home/me/.ssh/id"}, "public key"),
        ({"subnet": "s"}, "vnet="),
        ({"bastion": "b"}, "tunnel=True"),
        ({"zones": ["westeurope-1"]}, "'1', '2' and '3'"),
        ({"vm_args": {"osProfile": {}}}, "osProfile"),
        ({"disk_size": 5000}, "4095"),
        ({"instance_typ": "x"}, "did you mean 'instance_type'"),
    ],
)
def test_options_are_checked(options, said):
    """What cannot work is refused before any call."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        AzureVMConfig.of(**options)


def test_importing_needs_no_sdk():
    """The provider and its cluster import no SDK before the first call."""
    program = (
        "import sys; from cloudprovider import AzureVMCluster; import cloudprovider.providers.azure; "
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'msal', 'boto3', 'google')])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]" == said.stdout.strip()
