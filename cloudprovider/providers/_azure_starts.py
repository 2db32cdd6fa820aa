"""What a cluster on Azure settles and owns before its first machine, and how an order of workers comes true."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.images import default_image, require_architecture, require_image
from cloudprovider.providers import (
    _azure_boot,
    _azure_ends,
    _azure_images,
    _azure_roles,
    _azure_secrets,
    _azure_types,
    _vm_boot,
)
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_wire as wire
from cloudprovider.providers._azure import tags_of
from cloudprovider.providers._azure_errors import because, codes
from cloudprovider.providers._azure_landing import NOT_THERE
from cloudprovider.providers._azure_plan import Plan, kind_of
from cloudprovider.providers._calls import moments, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity, Machine
    from cloudprovider.providers._azure import Azure, Operation
    from cloudprovider.providers._azure_config import AzureVMConfig
    from cloudprovider.providers._azure_images import MachineImage
    from cloudprovider.providers._azure_landing import Landing
    from cloudprovider.providers._azure_types import Choice

__all__ = ["arrivals", "booting", "check_architectures", "check_image", "choose", "claim", "planned", "store"]

#: A name whose cluster has no machine is free again after this.
LEFT_S = 900.0
#: How Azure says that there is a scale set of a name already.
TAKEN = ("ConditionNotMet", "Conflict", "PreconditionFailed", "ResourceAlreadyExists")
#: Seconds in which an order is accepted or refused for good, and in which all of Azure knows its machines.
ORDER_S, KNOWN_S = 600.0, 30.0


def booting(config: AzureVMConfig, boots: Sequence[Boot]) -> tuple[Boot, ...]:
    """The boots with their image, checked before any call."""
    none = config.boot == "uv"
    made = [
        dataclasses.replace(boot, image="" if none else boot.image or default_image(), scheduler=None)
        for boot in boots
    ]
    _azure_boot.check(config, made)
    return tuple(made)


def check_image(config: AzureVMConfig, boots: Sequence[Boot]) -> dict[str, frozenset[str] | None]:
    """Refuse a container image that its registry does not have; which architectures each is for."""
    images = [boot.image for boot in boots if boot.image]
    if config.autonomous:
        images.append(_vm_boot.image_of_manager(config))
    return {image: require_image(image) for image in dict.fromkeys(images)}


def check_architectures(
    choices: Mapping[str, Choice], boots: Sequence[Boot], known: Mapping[str, frozenset[str] | None]
) -> None:
    """Refuse a container image that is not for the machines that were chosen."""
    for boot in (boot for boot in boots if boot.image):
        [size, *_] = choices[boot.role].types
        machines = f"machines like {size.name}"
        require_architecture(boot.image, known[boot.image], size.architecture, machines)


def choose(azure: Azure, config: AzureVMConfig) -> tuple[dict[str, Choice], dict[str, MachineImage]]:
    """The sizes of each role, and the machine images they boot from."""
    choices = _azure_types.choose_all(azure, config)
    wanted = {
        role: (choice.types[0].architecture, choice.types[0].gpus > 0) for role, choice in choices.items()
    }
    images = _azure_images.find_all(azure, config, set(wanted.values()))
    for role, kind in wanted.items():
        _azure_images.check_alike(choices[role], images[kind])
    return choices, {role: images[kind] for role, kind in wanted.items()}


def planned(
    config: AzureVMConfig,
    identity: Identity,
    landing: Landing,
    choices: Mapping[str, Choice],
    images: Mapping[str, MachineImage],
    boots: Sequence[Boot],
) -> Plan:
    """How the machines are made, with how many workers each, and where their secret is."""
    kinds = {role: kind_of(config, choices[role], images[role], config.markets(role)) for role in names.ROLES}
    vault, client_ids = (
        landing.vaults["machine"],
        {role: landing.identity_of(role)[1] for role in names.ROLES},
    )
    per_machine = config.workers_per_machine or max(1, kinds["worker"].gpus)
    made = {
        boot.role: dataclasses.replace(
            boot,
            secret=_azure_boot.secret(vault, identity.name, client_ids[boot.role]),
            processes=per_machine if boot.role == "worker" else boot.processes,
        )
        for boot in boots
    }
    key = config.ssh_key or throwaway_key()
    return Plan(identity=identity, landing=landing, key=key, kinds=kinds, boots=made)


def throwaway_key() -> str:
    """A public key whose private one nobody has: Azure wants one, or a password."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


# -- the name ------------------------------------------------------------------------------------------


def claim(
    azure: Azure,
    config: AzureVMConfig,
    identity: Identity,
    secret: str,
    live: Callable[[str], Collection[Machine]],
    sweep: Callable[[], Any],
) -> None:
    """Take the cluster's name by a scale set without machines, which only one can make.

    Parameters
    ----------
    azure, config, identity, secret
        Whose it is to be.
    live
        The live machines of a cluster.
    sweep
        Removes what a cluster that died left under the name.

    Raises
    ------
    CloudError
        When there is a cluster of that name, or was until just now.
    """
    if _take(azure, config, identity, secret):
        return
    tags = tags_of(claimed(azure, config.resource_group or "", identity.name))
    if tags.get(wire.CLAIM) == wire.digest(secret):
        return  # a retried call
    owner, now = ledger.identity(tags), azure.now()
    old = owner is not None and (owner.expires < now or owner.created < now - LEFT_S)
    if not old or live(identity.name):
        raise _taken(identity.name, owner, config)
    sweep()
    if not _take(azure, config, identity, secret):
        raise _taken(identity.name, None, config)


def _take(azure: Azure, config: AzureVMConfig, identity: Identity, secret: str) -> bool:
    """Make the claim; whether there was none."""
    made = azure.begin(
        "compute",
        "virtual_machine_scale_sets.begin_create_or_update",
        config.resource_group,
        names.claim(identity.name),
        wire.claim_request(config, identity, secret),
        headers={"If-None-Match": "*"},
        fine=TAKEN,
    )
    return made is not None


def claimed(azure: Azure, group: str, cluster: str) -> dict[str, Any]:
    """The claim of a name; empty when there is none."""
    operation = "virtual_machine_scale_sets.get"
    return azure.call("compute", operation, group, names.claim(cluster), fine=NOT_THERE)


def _taken(name: str, owner: Identity | None, config: AzureVMConfig) -> CloudError:
    return CloudError(
        f"There is a cluster {name!r} in {config.resource_group} already, of "
        f"{owner.owner if owner else 'somebody'}. Attach to it with from_name({name!r}), end it with "
        f"`dask cloud sweep {name}`, or choose another name."
    )


# -- what a cluster owns -------------------------------------------------------------------------------


def store(azure: Azure, config: AzureVMConfig, plan: Plan, machine: str, client: str) -> None:
    """Keep the secrets and the plan, each where those may read it who must."""
    parts = {names.plan_part(part): text for part, text in enumerate(plan.parts(config))}
    stored = {"machine": {"machine": machine}, "client": {"client": client, **parts}}
    try:
        _store(azure, plan, stored)
    except CredentialsError as error:
        if _azure_secrets.FORBIDDEN.isdisjoint(codes(error)):
            raise
        try:
            _azure_roles.let_in(azure, plan.landing.group)
        except CredentialsError as refused:
            raise CredentialsError(f"{error} {refused}") from refused
        _store(azure, plan, stored, fresh=True)


def _store(azure: Azure, plan: Plan, stored: Mapping[str, Mapping[str, str]], *, fresh: bool = False) -> None:
    """Put secrets, by their vault and what they are, side by side."""
    identity = plan.identity
    put = partial(
        _azure_secrets.put,
        azure,
        tags=ledger.for_cluster(identity),  # a secret has 15 tags at most
        expires=identity.expires,
        fresh=fresh,
    )
    side_by_side(
        partial(put, plan.landing.vaults[vault], names.secret(identity.name, whose), text)
        for vault, some in stored.items()
        for whose, text in some.items()
    )


def make_network(azure: Azure, config: AzureVMConfig, plan: Plan) -> tuple[str, str]:
    """Make the scheduler's own network security group and public address; their ids."""
    group, name = plan.landing.group, names.scheduler(plan.identity.name)
    address = wire.address_request(config, plan, plan.boots["scheduler"])
    where = "public_ip_addresses.begin_create_or_update"
    made, [rules] = side_by_side(
        [
            lambda: azure.make("network", where, group, name, address)["id"] if config.public else "",
            lambda: [allow(azure, config, plan, config.sources())],
        ]
    )
    return rules, made


def allow(azure: Azure, config: AzureVMConfig, plan: Plan, sources: Collection[str]) -> str:
    """Make who may reach the scheduler exactly these CIDR sources; the id of the group with the rules."""
    landing = plan.landing
    if not sources and config.security_group is not None and not landing.bastion:
        return landing.security_group
    tags = wire.machine_tags(config, plan.identity, plan.boots["scheduler"])
    request = wire.security_group_request(
        landing.region, tags, landing.members, sources, landing.bastion_from
    )
    operation, name = "network_security_groups.begin_create_or_update", names.scheduler(plan.identity.name)
    return str(azure.make("network", operation, landing.group, name, request)["id"])


# -- machines ------------------------------------------------------------------------------------------


def user_data(azure: Azure, config: AzureVMConfig, boot: Boot, plan: Plan) -> bytes:
    """What a machine is told at its first boot."""
    _, client_id = plan.landing.identity_of(boot.role)
    where = {"client_id": client_id, "manager": azure.endpoints.manager}
    told = dataclasses.replace(config, subscription=azure.subscription)
    whole = "".join(plan.parts(config)) if boot.autonomous else ""
    return _azure_boot.user_data(
        told, plan.identity, boot, gpus=plan.kinds[boot.role].gpus, plan=whole, **where
    )


def arrivals(
    azure: Azure, group: str, name: str, count: int, operation: Operation
) -> tuple[list[dict[str, Any]], CloudError | None]:
    """The machines of an order, as soon as all have room or it is known that no more come; and why no more.

    A scale set's answer does not name its machines, and it may fail after it was accepted and has made some.
    What could not be made is there all the same, and is deleted.
    """
    refused: CloudError | None = None
    found: list[dict[str, Any]] = []
    over, ended = False, 0.0
    for passed in moments(ORDER_S):
        if not over:
            try:
                over = operation.over()
            except CloudError as error:
                over, refused = True, error
            ended = passed
        found = _azure_ends.members(azure, group, name, view=True)
        if refused or (over and passed - ended > KNOWN_S):
            break
        # Azure accepts before it has found room: only what is switched on has some.
        if len(found) >= count and all(wire.settled(vm) for vm in found):
            break
    made = [vm for vm in found if not wire.failed(vm)]
    if lost := [vm for vm in found if wire.failed(vm)]:
        _azure_ends.delete(azure, group, [vm["name"] for vm in lost])
        refused = refused or _refusal(lost[0], azure.now())
    if len(made) < count and refused is None:
        refused = CloudError(f"{name} has {len(made)} of {count} machines after {ORDER_S:g} s.")
    return made, refused if len(made) < count else None


def _refusal(vm: Mapping[str, Any], now: float) -> CloudError:
    """Why a machine could not be made, as the machine says it."""
    reason = wire.machine(vm, now).reason
    kind, advice = because(reason) or (CloudError, "")
    return kind(f"{reason}. {advice}".strip())
