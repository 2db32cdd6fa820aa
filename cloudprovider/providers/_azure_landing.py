"""What Dask on Azure needs once in a resource group, which costs nothing at rest: found, or made.

Whoever comes second finds what the first made; whoever comes at the same second makes it once more, which changes
nothing, for all of it has names and ids that follow from where it is. What the user names is never made.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.errors import ConfigError
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_roles as roles
from cloudprovider.providers._azure import canonical, default_region
from cloudprovider.providers._azure_wire import MARK, security_group_request
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.providers._azure import Azure
    from cloudprovider.providers._azure_config import AzureVMConfig

__all__ = ["NOT_THERE", "Landing", "find_or_make", "settled"]

NOT_THERE = (
    "NotFound",
    "ParentResourceNotFound",
    "ResourceGroupNotFound",
    "ResourceNotFound",
    "VaultNotFound",
)
#: How Azure says that a vault of this name was deleted, and that it keeps it for a while.
KEPT = ("Conflict", "ConflictError", "ExistingVaultInSoftDeletedState", "VaultAlreadyExists")
#: Days that a vault keeps what was deleted, at the least.
# https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview
KEPT_DAYS = 7
#: Subnets that are for something else.
TAKEN = ("AzureBastionSubnet", "AzureFirewallSubnet", "GatewaySubnet", "RouteServerSubnet")
#: SKUs of a Bastion through which programs may connect.
# https://learn.microsoft.com/azure/bastion/bastion-sku-comparison
TUNNELLING = ("Standard", "Premium")


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What clusters share in a resource group.

    Parameters
    ----------
    region, group
        Where it is.
    subnet
        Id of the subnet in which machines get their addresses.
    members
        Id of the application security group whose members may talk to each other.
    security_group
        Id of the network security group of the workers.
    identity, client_id
        The user-assigned identity of machines: its id, and what they call it.
    scheduler, scheduler_client_id
        The same of the scheduler's machine where it orders others; empty where it has the machines'.
    vaults
        By whose secrets it has, `machine` or `client`, the URL of a key vault.
    bastion
        Id of the Bastion that tunnels go through; empty without tunnels.
    bastion_from
        From where that comes.
    """

    region: str
    group: str
    subnet: str
    members: str
    security_group: str
    identity: str
    client_id: str
    vaults: Mapping[str, str]
    scheduler: str = ""
    scheduler_client_id: str = ""
    bastion: str = ""
    bastion_from: tuple[str, ...] = ()

    def identity_of(self, role: str) -> tuple[str, str]:
        """The identity under which a role's machines run: its id, and what they call it."""
        own = role == "scheduler" and self.scheduler
        return (self.scheduler, self.scheduler_client_id) if own else (self.identity, self.client_id)

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The landing that a document says."""
        return cls(**{**said, "bastion_from": tuple(said["bastion_from"])})


def settled(azure: Azure, config: AzureVMConfig) -> AzureVMConfig:
    """The options with the region and the resource group that they mean.

    Raises
    ------
    ConfigError
        When nobody says where.
    """
    group, region = config.resource_group, config.region
    if group and not region:
        region = str(azure.call("resources", "resource_groups.get", group)["location"])
    region = canonical(region or default_region())
    if not region:
        raise ConfigError(
            "No Azure region: pass region='westeurope' or the like, set AZURE_DEFAULTS_LOCATION, or run "
            "`az config set defaults.location=westeurope`."
        )
    return dataclasses.replace(config, region=region, resource_group=group or names.group(region))


def find_or_make(azure: Azure, config: AzureVMConfig, *, own_group: bool) -> Landing:
    """The landing: one round of calls where it is there, four the first time in a subscription.

    Parameters
    ----------
    azure, config
        Where; the options are settled.
    own_group
        Whether the resource group is the user's, which is never made.
    """
    region, group = config.region or "", config.resource_group or ""
    _ensure_group(azure, region, group, own_group=own_group)
    (subnet, vnet), machine, scheduler, *every = side_by_side(
        [
            partial(_subnet, azure, config),
            partial(_identity, azure, config, names.IDENTITY, config.machine_identity),
            partial(_scheduler_identity, azure, config),
            *(partial(_vault, azure, region, group, whose) for whose in roles.VAULTS),
        ]
    )
    vaults = dict(zip(roles.VAULTS, every, strict=True))
    ours = {} if config.machine_identity else {"machine": machine}
    if scheduler and not config.scheduler_identity:
        ours["scheduler"] = scheduler
    (members, security_group), (bastion, sources), _ = side_by_side(
        [
            partial(_groups, azure, config, vnet),
            partial(_bastion, azure, config, vnet),
            partial(roles.ensure, azure, group, ours, vaults),
        ]
    )
    return Landing(
        region=region,
        group=group,
        subnet=subnet,
        members=members,
        security_group=security_group,
        identity=machine["id"],
        client_id=machine["properties"]["clientId"],
        scheduler=scheduler.get("id", ""),
        scheduler_client_id=scheduler.get("properties", {}).get("clientId", ""),
        vaults={whose: vault["properties"]["vaultUri"] for whose, vault in vaults.items()},
        bastion=bastion,
        bastion_from=sources,
    )


def _ensure_group(azure: Azure, region: str, group: str, *, own_group: bool) -> None:
    fine = () if own_group else NOT_THERE
    if not azure.call("resources", "resource_groups.get", group, fine=fine):
        made = {"location": region, "tags": dict(MARK)}
        azure.call("resources", "resource_groups.create_or_update", group, made)


# -- network -------------------------------------------------------------------------------------------


def _subnet(azure: Azure, config: AzureVMConfig) -> tuple[str, str]:
    """The ids of the subnet and of its virtual network."""
    if config.vnet is not None:
        return _own_subnet(azure, config)
    group, name = config.resource_group, names.LANDING
    vnet = azure.call("network", "virtual_networks.get", group, name, fine=NOT_THERE)
    if not vnet:
        request = _vnet_request(config)
        vnet = azure.make("network", "virtual_networks.begin_create_or_update", group, name, request)
    return str(vnet["properties"]["subnets"][0]["id"]), str(vnet["id"])


def _vnet_request(config: AzureVMConfig) -> dict[str, Any]:
    """A virtual network with one subnet, which leaves half of it to what the user may add."""
    try:
        space = ipaddress.ip_network(config.address_space)
        half = next(space.subnets())
    except ValueError as error:
        raise ConfigError(f"address_space={config.address_space!r}: {error}.") from error
    return {
        "location": config.region,
        "tags": dict(MARK),
        "properties": {
            "addressSpace": {"addressPrefixes": [str(space)]},
            "subnets": [{"name": names.LANDING, "properties": {"addressPrefix": str(half)}}],
        },
    }


def _parts(named: str, group: str) -> tuple[str, str]:
    """The resource group and the name of what is named by its name or its id."""
    if not named.startswith("/"):
        return group, named
    parts = named.split("/")
    return parts[4], parts[-1]


def _own_subnet(azure: Azure, config: AzureVMConfig) -> tuple[str, str]:
    vnet = azure.call(
        "network", "virtual_networks.get", *_parts(config.vnet or "", config.resource_group or "")
    )
    if canonical(vnet["location"]) != config.region:
        raise ConfigError(f"vnet={config.vnet!r} is in {vnet['location']}, not in region={config.region!r}.")
    subnets = {one["name"]: one["id"] for one in vnet["properties"].get("subnets", ())}
    there = [name for name in subnets if name not in TAKEN]
    name = config.subnet or (there[0] if len(there) == 1 else "")
    if name not in subnets:
        which = f"subnet={config.subnet!r} is not in it" if config.subnet else "pass subnet="
        raise ConfigError(f"vnet={config.vnet!r} has the subnets {', '.join(there) or 'none'}: {which}.")
    return str(subnets[name]), str(vnet["id"])


def _groups(azure: Azure, config: AzureVMConfig, vnet: str) -> tuple[str, str]:
    """The ids of the group whose members may talk to each other, and of the rules that let them."""
    # All members of one are in one virtual network.
    # https://learn.microsoft.com/azure/virtual-network/application-security-groups
    group, name = config.resource_group, _per_network(config, vnet)
    where = "network", "application_security_groups"
    members, rules = side_by_side(
        [
            partial(azure.call, where[0], f"{where[1]}.get", group, name, fine=NOT_THERE),
            partial(_security_group, azure, config, name),
        ]
    )
    if not members:
        made = {"location": config.region, "tags": dict(MARK)}
        members = azure.make(where[0], f"{where[1]}.begin_create_or_update", group, name, made)
    if not rules:
        request = security_group_request(config.region or "", MARK, members["id"])
        operation = "network_security_groups.begin_create_or_update"
        rules = azure.make("network", operation, group, name, request)
    return str(members["id"]), str(rules["id"])


def _per_network(config: AzureVMConfig, vnet: str) -> str:
    return names.LANDING if config.vnet is None else f"{names.LANDING}-{names.name_of(vnet)}"[:80]


def _security_group(azure: Azure, config: AzureVMConfig, name: str) -> dict[str, Any]:
    operation = "network_security_groups.get"
    if config.security_group is not None:
        return azure.call("network", operation, *_parts(config.security_group, config.resource_group or ""))
    return azure.call("network", operation, config.resource_group, name, fine=NOT_THERE)


def _bastion(azure: Azure, config: AzureVMConfig, vnet: str) -> tuple[str, tuple[str, ...]]:
    """The id of the Bastion that tunnels go through, and from which addresses it comes."""
    if not config.tunnel:
        return "", ()
    if config.bastion is not None:
        named = _parts(config.bastion, config.resource_group or "")
        found = [azure.call("network", "bastion_hosts.get", *named)]
    else:
        every = azure.pages("network", "bastion_hosts.list")
        found = [one for one in every if _bastion_subnet(one).lower().startswith(f"{vnet.lower()}/")]
    if not found:
        raise ConfigError(
            f"tunnel=True goes through an Azure Bastion, and there is none in {names.name_of(vnet)}. It bills by "
            "the hour, so none is made: make one with `az network bastion create --sku Standard "
            "--enable-tunneling true`, or pass bastion=."
        )
    [bastion, *_] = found
    if bastion.get("sku", {}).get("name") not in TUNNELLING or not bastion["properties"].get(
        "enableTunneling"
    ):
        raise ConfigError(
            f"Bastion {bastion['name']} takes no native clients: `az network bastion update --name "
            f"{bastion['name']} --resource-group {_parts(bastion['id'], '')[0]} --sku Standard "
            "--enable-tunneling true` lets it."
        )
    place = _bastion_subnet(bastion).split("/")
    subnet = azure.call("network", "subnets.get", place[4], place[8], place[-1])
    prefixes = subnet["properties"].get("addressPrefixes") or [subnet["properties"]["addressPrefix"]]
    return str(bastion["id"]), tuple(prefixes)


def _bastion_subnet(bastion: Mapping[str, Any]) -> str:
    configurations = bastion["properties"].get("ipConfigurations") or [{}]
    return str(configurations[0].get("properties", {}).get("subnet", {}).get("id", ""))


# -- identity and vaults -------------------------------------------------------------------------------


def _scheduler_identity(azure: Azure, config: AzureVMConfig) -> dict[str, Any]:
    """The identity of the scheduler's machine where it orders others; empty where it does not."""
    if not config.autonomous:
        return {}
    return _identity(azure, config, names.SCHEDULER_IDENTITY, config.scheduler_identity)


def _identity(azure: Azure, config: AzureVMConfig, name: str, own: str | None) -> dict[str, Any]:
    """A user-assigned identity: the user's own, or one of the landing."""
    operation = "user_assigned_identities.{}"
    if own is not None:
        return azure.call("msi", operation.format("get"), *_parts(own, config.resource_group or ""))
    where = config.resource_group, name
    if found := azure.call("msi", operation.format("get"), *where, fine=NOT_THERE):
        return found
    request = {"location": config.region, "tags": dict(MARK)}
    return azure.call("msi", operation.format("create_or_update"), *where, request)


def _vault(azure: Azure, region: str, group: str, whose: str) -> dict[str, Any]:
    """The vault of one kind of secrets."""
    name = names.vault(azure.subscription, group, whose)
    if found := azure.call("keyvault", "vaults.get", group, name, fine=NOT_THERE):
        return found
    request: dict[str, Any] = {
        "location": region,
        "tags": dict(MARK),
        "properties": {
            "tenantId": azure.tenant,
            "sku": {"family": "A", "name": "standard"},
            "enableRbacAuthorization": True,
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": KEPT_DAYS,
        },
    }
    operation = "vaults.begin_create_or_update"
    made = azure.make("keyvault", operation, group, name, request, fine=KEPT)
    if not made:  # it was deleted, and its name is kept
        request["properties"]["createMode"] = "recover"
        made = azure.make("keyvault", operation, group, name, request)
    return made
