"""What Azure is told and what it answers: pure builders of requests, pure parsers of answers."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.provider import Machine, State
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers._azure_boot import ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._azure_config import AzureVMConfig
    from cloudprovider.providers._azure_plan import Kind, Plan

__all__ = [
    "CLAIM",
    "MARK",
    "address_request",
    "claim_request",
    "digest",
    "failed",
    "interface_request",
    "machine",
    "machine_request",
    "scale_set_request",
    "security_group_request",
    "settled",
    "sources_of",
]

#: The tags of what clusters share.
MARK = {ledger.LANDING: "dask"}
#: The tag of a claim that tells two clusters of one name, owner and second apart.
CLAIM = "dask-claim"
PORTS = "8786-8787"
USER = "dask"
#: The rule of a scheduler's group that says what `allow_from` says.
INGRESS = ("allow-from", "allow-from-6")
#: The version of the network's API that Azure makes interfaces of a Flexible scale set's machines by.
# https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets/create-or-update
NETWORK_API = "2022-11-01"

# https://learn.microsoft.com/azure/virtual-machines/states-billing
STATES = {
    "PowerState/starting": State.starting,
    "PowerState/running": State.running,
    # What ran on it does not come back. It still bills until it is deleted: who sees it deletes it.
    "PowerState/stopping": State.gone,
    "PowerState/stopped": State.gone,
    "PowerState/deallocating": State.gone,
    "PowerState/deallocated": State.gone,
}
PROVISIONING = {"Deleting": State.gone, "Failed": State.gone, "Succeeded": State.running}
REASONS = {
    "PowerState/stopped": "it was shut down from inside",
    "PowerState/stopping": "it is being shut down",
    "PowerState/deallocated": "it was deallocated",
    "PowerState/deallocating": "it is being deallocated",
}


def machine_tags(config: AzureVMConfig, identity: Identity, boot: Boot) -> dict[str, str]:
    """The tags of one role's machines and of all that comes with them."""
    return ledger.for_machine(identity, boot.role, boot.group, config.tags)


# -- machines ------------------------------------------------------------------------------------------


def _profile(config: AzureVMConfig, kind: Kind, size: str, market: str) -> dict[str, Any]:
    """What a machine and a scale set say in the same words."""
    spot: dict[str, Any] = {}
    if market == "spot":
        # -1: never more than on demand, and never evicted for its price.
        spot = {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}
    return {
        **config.vm_args,
        "storageProfile": {"imageReference": dict(kind.image), "osDisk": _disk(config, kind, size)},
        # Of Azure's own storage account: https://learn.microsoft.com/azure/virtual-machines/boot-diagnostics
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
        **spot,
    }


def _disk(config: AzureVMConfig, kind: Kind, size: str) -> dict[str, Any]:
    disk: dict[str, Any] = {
        "createOption": "FromImage",
        "deleteOption": "Delete",
        "diskSizeGB": kind.disk_gib,
    }
    if size in kind.ephemeral:
        # https://learn.microsoft.com/azure/virtual-machines/ephemeral-os-disks
        local = {"option": "Local", "placement": kind.ephemeral[size]}
        return {**disk, "caching": "ReadOnly", "diffDiskSettings": local}
    return {**disk, "caching": "ReadWrite", "managedDisk": {"storageAccountType": config.disk_type}}


def _system(name: Mapping[str, str], plan: Plan, data: bytes) -> dict[str, Any]:
    """How a machine is set up: nobody knows the private key of a public one that nobody gave."""
    key = {"path": f"/home/{USER}/.ssh/authorized_keys", "keyData": plan.key}
    return {
        **name,
        "adminUsername": USER,
        "customData": base64.b64encode(data).decode(),
        "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
    }


def _whole(
    config: AzureVMConfig, plan: Plan, boot: Boot, zones: Collection[str], properties: Mapping[str, Any]
) -> dict[str, Any]:
    """A resource that machines are, or come of."""
    kind, (identity, _) = plan.kinds[boot.role], plan.landing.identity_of(boot.role)
    return {
        "location": plan.landing.region,
        "tags": machine_tags(config, plan.identity, boot),
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}},
        **({"plan": dict(kind.plan)} if kind.plan else {}),
        **({"zones": list(zones)} if zones else {}),
        "properties": dict(properties),
    }


def machine_request(
    config: AzureVMConfig, plan: Plan, boot: Boot, *, size: str, interface: str, user_data: bytes
) -> dict[str, Any]:
    """The virtual machine of the scheduler, with an interface that is there already.

    Parameters
    ----------
    config, plan, boot
        What runs how, and whose it is.
    size
        Its size.
    interface
        The id of its network interface.
    user_data
        As the machine is to read it.
    """
    kind, name = plan.kinds[boot.role], names.scheduler(plan.identity.name)
    profile = _profile(config, kind, size, "on-demand")
    profile["storageProfile"]["osDisk"]["name"] = name
    properties = {
        **profile,
        "hardwareProfile": {"vmSize": size},
        "osProfile": _system({"computerName": name}, plan, user_data),
        "networkProfile": {
            "networkInterfaces": [
                {"id": interface, "properties": {"primary": True, "deleteOption": "Delete"}}
            ]
        },
    }
    return _whole(config, plan, boot, kind.zones[size][:1], properties)


def scale_set_request(
    config: AzureVMConfig,
    plan: Plan,
    boot: Boot,
    count: int,
    *,
    name: str,
    size: str,
    market: str,
    user_data: bytes,
) -> dict[str, Any]:
    """The Flexible scale set that is one order of workers.

    Parameters
    ----------
    config, plan, boot
        What runs how, and whose it is.
    count
        Machines, at most 1,000.
    name
        Of the scale set; the same for a call that is retried, so that nothing is made twice.
    size, market
        What they are.
    user_data
        As a machine is to read it.
    """
    kind, tags = plan.kinds[boot.role], machine_tags(config, plan.identity, boot)
    profile = {
        **_profile(config, kind, size, market),
        "osProfile": _system({"computerNamePrefix": name}, plan, user_data),
        "networkProfile": {
            "networkApiVersion": NETWORK_API,
            "networkInterfaceConfigurations": [_interface(config, plan, name, size, tags)],
        },
    }
    properties = {
        "orchestrationMode": "Flexible",
        # 1 spreads as far as there is room, and lets a scale set have 1,000 machines of any size.
        # https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-orchestration-modes
        "platformFaultDomainCount": 1,
        "singlePlacementGroup": False,
        "virtualMachineProfile": profile,
    }
    whole = _whole(config, plan, boot, kind.zones[size], properties)
    return {**whole, "sku": {"name": size, "tier": "Standard", "capacity": count}}


def _interface(
    config: AzureVMConfig, plan: Plan, name: str, size: str, tags: Mapping[str, str]
) -> dict[str, Any]:
    """The network interface of each machine of a scale set."""
    landing = plan.landing
    address: dict[str, Any] = {
        "subnet": {"id": landing.subnet},
        "applicationSecurityGroups": [{"id": landing.members}],
        "primary": True,
    }
    if config.public:
        address["publicIPAddressConfiguration"] = {
            "name": name,
            "sku": {"name": "Standard", "tier": "Regional"},
            "tags": dict(tags),
            "properties": {"deleteOption": "Delete"},
        }
    return {
        "name": name,
        "tags": dict(tags),
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "enableAcceleratedNetworking": size in plan.kinds["worker"].accelerated,
            "networkSecurityGroup": {"id": landing.security_group},
            "ipConfigurations": [{"name": "own", "properties": address}],
        },
    }


def claim_request(config: AzureVMConfig, identity: Identity, secret: str) -> dict[str, Any]:
    """The scale set that has no machines, and says that there is a cluster of this name."""
    tags = {**ledger.for_cluster(identity, config.tags), CLAIM: digest(secret)}
    properties = {"orchestrationMode": "Flexible", "platformFaultDomainCount": 1}
    return {"location": config.region, "tags": tags, "properties": properties}


def digest(secret: str) -> str:
    """What tells two clusters of one owner and second apart, and tells nobody the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


# -- network -------------------------------------------------------------------------------------------


def security_group_request(
    region: str,
    tags: Mapping[str, str],
    members: str,
    sources: Iterable[str] = (),
    bastion: Iterable[str] = (),
) -> dict[str, Any]:
    """A network security group that lets members talk to each other, and few others in.

    Parameters
    ----------
    region, tags
        Of the group.
    members
        The id of the application security group.
    sources
        CIDR blocks that may reach Dask and its front.
    bastion
        CIDR blocks from which a Bastion comes.
    """
    group, some = [{"id": members}], sorted(sources)
    one = {"sourceApplicationSecurityGroups": group, "destinationPortRange": "*", "protocol": "*"}
    rules = [_rule("members", 100, group, **one)]
    families = ([s for s in some if ":" not in s], [s for s in some if ":" in s])
    for place, (name, blocks) in enumerate(zip(INGRESS, families, strict=True)):
        if blocks:
            rules.append(_rule(name, 110 + place, group, sourceAddressPrefixes=blocks))
    if blocks := sorted(bastion):
        rules.append(_rule("bastion", 120, group, sourceAddressPrefixes=blocks))
    # Without it all of the virtual network, and what is peered with it, may reach machines.
    # https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview
    closed: dict[str, Any] = {
        "priority": 4096,
        "direction": "Inbound",
        "access": "Deny",
        "protocol": "*",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "*",
    }
    rules.append({"name": "nobody-else", "properties": closed})
    return {"location": region, "tags": dict(tags), "properties": {"securityRules": rules}}


def _rule(name: str, priority: int, group: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    rule = {
        "priority": priority,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "destinationApplicationSecurityGroups": group,
        "destinationPortRange": PORTS,
        **more,
    }
    return {"name": name, "properties": rule}


def sources_of(group: Mapping[str, Any]) -> set[str]:
    """The CIDR blocks that a scheduler's network security group lets in."""
    return {
        block
        for rule in group["properties"].get("securityRules", ())
        if rule["name"] in INGRESS
        for block in rule["properties"].get("sourceAddressPrefixes", ())
    }


def address_request(config: AzureVMConfig, plan: Plan, boot: Boot) -> dict[str, Any]:
    """The scheduler's public address."""
    return {
        "location": plan.landing.region,
        "tags": machine_tags(config, plan.identity, boot),
        "sku": {"name": "Standard", "tier": "Regional"},
        "properties": {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4"},
    }


def interface_request(
    config: AzureVMConfig, plan: Plan, boot: Boot, *, size: str, security_group: str, address: str
) -> dict[str, Any]:
    """The scheduler's network interface, whose private address is known before there is a machine.

    Parameters
    ----------
    config, plan, boot
        Whose it is.
    size
        Of the machine that it is for.
    security_group, address
        Ids of its network security group and of its public address; it has none where that is empty.
    """
    own: dict[str, Any] = {
        "primary": True,
        "privateIPAllocationMethod": "Dynamic",
        "subnet": {"id": plan.landing.subnet},
        "applicationSecurityGroups": [{"id": plan.landing.members}],
    }
    if address:
        own["publicIPAddress"] = {"id": address, "properties": {"deleteOption": "Delete"}}
    return {
        "location": plan.landing.region,
        "tags": machine_tags(config, plan.identity, boot),
        "properties": {
            "enableAcceleratedNetworking": size in plan.kinds[boot.role].accelerated,
            "networkSecurityGroup": {"id": security_group},
            "ipConfigurations": [{"name": "own", "properties": own}],
        },
    }


# -- what Azure says -----------------------------------------------------------------------------------


def machine(vm: Mapping[str, Any], now: float) -> Machine:
    """Read one virtual machine, with its instance view or without."""
    tags, properties = vm.get("tags") or {}, vm.get("properties", {})
    statuses = (properties.get("instanceView") or {}).get("statuses", ())
    state = State.gone if ENDED in tags else _state(properties.get("provisioningState", ""), statuses)
    why = tags.get(ENDED) or _reason(properties.get("provisioningState", ""), statuses)
    made, expires = seconds(properties.get("timeCreated")), tags.get(ledger.EXPIRES, "")
    zones = vm.get("zones") or [None]
    return Machine(
        id=vm["name"],
        role=tags.get(ledger.ROLE, "worker"),
        state=state,
        cluster=tags.get(ledger.CLUSTER, ""),
        group=tags.get(ledger.GROUP, "default"),
        zone=zones[0],
        kind=properties.get("hardwareProfile", {}).get("vmSize", ""),
        market="spot" if properties.get("priority") == "Spot" else "on-demand",
        created=made or now,
        billed_from=None if state is State.starting else made,
        ended=now if state is State.gone else None,
        reason=why if state is State.gone else "",
        expires=int(expires) if expires.isdecimal() else None,
    )


def _state(provisioning: str, statuses: Iterable[Mapping[str, Any]]) -> State:
    if provisioning in {"Deleting", "Failed"}:
        return State.gone
    power = next((s["code"] for s in statuses if s.get("code", "").startswith("PowerState/")), None)
    if power is not None:
        return STATES.get(power, State.starting)
    return PROVISIONING.get(provisioning, State.starting)


def settled(vm: Mapping[str, Any]) -> bool:
    """Whether it is known that there is room for a machine, or that there is none."""
    properties = vm.get("properties", {})
    statuses = (properties.get("instanceView") or {}).get("statuses", ())
    powered = any(status.get("code", "").startswith("PowerState/") for status in statuses)
    return powered or properties.get("provisioningState") in PROVISIONING


def failed(vm: Mapping[str, Any]) -> bool:
    """Whether a machine could not be made; it is there all the same, until somebody deletes it."""
    return bool(vm.get("properties", {}).get("provisioningState") == "Failed")


def _reason(provisioning: str, statuses: Iterable[Mapping[str, Any]]) -> str:
    """Why a machine is gone: the code and the text of what failed, or who stopped it."""
    if provisioning == "Deleting":
        return ""  # Azure does not say by whom
    for status in statuses:
        found = re.fullmatch(r"ProvisioningState/failed/(\w+)", status.get("code", ""), re.IGNORECASE)
        if found:
            return f"{found.group(1)}: {status.get('message', '')}".rstrip(": .")
    powers = (REASONS.get(status.get("code", ""), "") for status in statuses)
    return next(filter(None, powers), "it could not be made" if provisioning == "Failed" else "")


def seconds(moment: Any) -> float | None:
    """A moment that Azure says, in seconds since the epoch: '2026-11-23T18:00:00.1234567+00:00'."""
    if moment is None or hasattr(moment, "timestamp"):
        return None if moment is None else float(moment.timestamp())
    text = re.sub(r"(\.\d{1,6})\d*", r"\1", str(moment)).replace("Z", "+00:00")
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
