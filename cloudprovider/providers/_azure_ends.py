"""The ends on Azure: what goes with a cluster, what others left, and what an early end of a machine means."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError
from cloudprovider.provider import Swept
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_secrets as secrets
from cloudprovider.providers import _azure_wire as wire
from cloudprovider.providers import _vm_diagnosis
from cloudprovider.providers._azure import tags_of
from cloudprovider.providers._azure_errors import because, codes
from cloudprovider.providers._azure_landing import NOT_THERE
from cloudprovider.providers._azure_plan import PARTS
from cloudprovider.providers._azure_roles import VAULTS
from cloudprovider.providers._calls import moments, side_by_side
from cloudprovider.providers._vm_diagnosis import causes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from cloudprovider.provider import Identity, Machine
    from cloudprovider.providers._azure import Azure

__all__ = ["claims", "console", "delete", "described", "diagnosis", "is_going", "living", "members", "sweep"]

#: What of a cluster's is in use until its machines are gone, in the order in which it may go.
NETWORK = ("network_interfaces", "public_ip_addresses", "network_security_groups")
#: How Azure says that something is still in use, or that its machines are still going.
BUSY = (
    "AnotherOperationInProgress",
    "Conflict",
    "InUseNetworkSecurityGroupCannotBeDeleted",
    "NicInUse",
    "NicReservedForAnotherVm",
    "OperationNotAllowed",
    "PublicIPAddressCannotBeDeleted",
    "ScaleSetHasMachines",
)
#: Nobody waits for what runs on a machine that is to go: Dask has left it.
# https://learn.microsoft.com/azure/virtual-machines/delete
AT_ONCE: dict[str, Any] = {"force_deletion": True}
#: The SDK asks again for what it knows to change nothing more; it does not know it of this POST.
AGAIN: dict[str, Any] = {"retry_on_methods": frozenset({"POST"})}
#: How a scale set says that it has no such machine.
STRANGERS = ("InstanceIdsListSingleVMNotFound", "InvalidParameter", "NotFound", "ResourceNotFound")

NO_ROUTE = (
    "Its subnet has no way out: pass public=True, or vnet= and subnet= with a NAT gateway, or with private endpoints "
    "for Key Vault and the registry. Its network security group must let it out, too."
)
PULL = (
    "It could not pull its image. Is image= right, and does its registry answer? Machines log in to none: it must "
    "be public, or be on the machine_image= already."
)
FORBIDDEN = (
    "May the machines' identity read the cluster's secret? It needs Key Vault Secrets User on the landing's vault; "
    "a right that was just given may take ten minutes."
)
#: What the log of a machine that came to nothing means.
CAUSES = causes(
    no_route=NO_ROUTE,
    pull=PULL,
    image="machine_image",
    more=((r"ForbiddenByRbac|Caller is not authorized", FORBIDDEN),),
)


# -- machines ------------------------------------------------------------------------------------------


def members(azure: Azure, group: str, scale_set: str, *, view: bool = False) -> list[dict[str, Any]]:
    """The machines of a scale set, as many a call as Azure puts on a page; with what they do now, or without."""
    id = names.id_of(azure.subscription, group, "Microsoft.Compute/virtualMachineScaleSets", scale_set)
    more = {"expand": "instanceView"} if view else {}
    only = f"'virtualMachineScaleSet/id' eq '{id}'"
    return azure.pages("compute", "virtual_machines.list", group, filter=only, fine=NOT_THERE, **more)


def described(azure: Azure, group: str, ids: Collection[str]) -> list[dict[str, Any]]:
    """What Azure says of these: one call for those of a scale set, one for each that is asked for alone."""
    sets = _by_scale_set(ids)
    single = [id for name, some in sets.items() for id in some if name is None or len(some) == 1]
    listed = [name for name, some in sets.items() if name is not None and len(some) > 1]
    answers = side_by_side(
        [
            *(partial(members, azure, group, name, view=True) for name in listed),
            *(partial(_one, azure, group, id) for id in single),
        ]
    )
    return [vm for answer in answers for vm in answer if vm["name"] in set(ids)]


def _one(azure: Azure, group: str, id: str) -> list[dict[str, Any]]:
    operation, view = "virtual_machines.get", "instanceView"
    found = azure.call("compute", operation, group, id, expand=view, fine=NOT_THERE)
    return [found] if found else []


def _by_scale_set(ids: Collection[str]) -> dict[str | None, list[str]]:
    sets: dict[str | None, list[str]] = {}
    for id in sorted(set(ids)):
        sets.setdefault(names.scale_set_of(id), []).append(id)
    return sets


def delete(azure: Azure, group: str, ids: Collection[str]) -> None:
    """End machines, and do not wait for it: one call for those of a scale set; unknown ones are no error."""
    calls: list[Callable[[], Any]] = []
    for name, some in _by_scale_set(ids).items():
        if name is None:
            one = partial(azure.begin, "compute", "virtual_machines.begin_delete", group)
            calls += [partial(one, id, fine=NOT_THERE, **AT_ONCE) for id in some]
        else:
            calls.append(partial(_delete_members, azure, group, name, some))
    side_by_side(calls)


def _delete_members(azure: Azure, group: str, scale_set: str, ids: list[str]) -> None:
    operation = "virtual_machine_scale_sets.begin_delete_instances"
    where = "compute", operation, group, scale_set
    if azure.begin(*where, {"instanceIds": ids}, fine=STRANGERS, **AT_ONCE, **AGAIN):
        return
    there = {vm["name"] for vm in members(azure, group, scale_set)}
    if left := [id for id in ids if id in there]:
        azure.begin(*where, {"instanceIds": left}, fine=NOT_THERE, **AT_ONCE, **AGAIN)


def living(azure: Azure, group: str, cluster: str | None) -> list[dict[str, Any]]:
    """The machines of a cluster, or of all, in a resource group."""
    every = azure.pages("compute", "virtual_machines.list", group, fine=NOT_THERE)
    return [vm for vm in every if _is_of(tags_of(vm), cluster)]


def _is_of(tags: Mapping[str, str], cluster: str | None) -> bool:
    return ledger.CLUSTER in tags if cluster is None else tags.get(ledger.CLUSTER) == cluster


def console(azure: Azure, group: str, id: str, lines: int) -> str:
    """The last lines of a machine's serial console; empty when there are none yet, or no more."""
    operation = "virtual_machines.retrieve_boot_diagnostics_data"
    fine = (*NOT_THERE, "BadRequest", "Conflict", "OperationNotAllowed")
    answer = azure.call("compute", operation, group, id, fine=fine)
    url = answer.get("serialConsoleLogBlobUri")
    return "\n".join(azure.fetch(url).splitlines()[-lines:]) if url else ""


# -- clusters ------------------------------------------------------------------------------------------


def scale_sets(azure: Azure, group: str, cluster: str | None) -> list[dict[str, Any]]:
    """The scale sets of a cluster, or of all."""
    every = azure.pages("compute", "virtual_machine_scale_sets.list", group, fine=NOT_THERE)
    return [one for one in every if _is_of(tags_of(one), cluster)]


def claims(azure: Azure, group: str) -> dict[str, Identity]:
    """Whose each cluster is that has a name, or has left one."""
    every = (tags_of(one) for one in scale_sets(azure, group, None) if wire.CLAIM in tags_of(one))
    owners = (ledger.identity(tags) for tags in every)
    return {owner.name: owner for owner in owners if owner}


def sweep(azure: Azure, group: str, cluster: str, patience_s: float) -> Swept:
    """Remove all that a cluster owns: its machines, then what they need no more, and its name at last."""
    ended: dict[str, None] = {}

    def ending() -> list[str]:
        """End what lives; what is still there."""
        vms = living(azure, group, cluster)
        new = [vm["name"] for vm in vms if vm["name"] not in ended and not is_going(vm)]
        delete(azure, group, new)
        ended.update(dict.fromkeys(new))
        return [str(vm["name"]) for vm in vms]

    left = ending()
    removed = [f"secret {name}" for name in _remove_secrets(azure, group, cluster)]
    for _ in moments(patience_s):
        if not left:
            break
        left = ending()
    if left:
        return Swept(machines=tuple(ended), resources=tuple(removed), left=tuple(left))
    gone, left = _remove_rest(azure, group, cluster, patience_s)
    return Swept(machines=tuple(ended), resources=(*removed, *gone), left=tuple(left))


def is_going(vm: Mapping[str, Any]) -> bool:
    """Whether a machine is being deleted."""
    return bool(vm.get("properties", {}).get("provisioningState") == "Deleting")


def _remove_secrets(azure: Azure, group: str, cluster: str) -> list[str]:
    """Delete a cluster's secrets and its plan."""

    def removed(whose: str) -> list[str]:
        return [*of(whose)]

    def of(whose: str) -> Iterator[str]:
        vault = names.vault(azure.subscription, group, whose)
        found = azure.call("keyvault", "vaults.get", group, vault, fine=NOT_THERE)
        wanted = [whose, *map(names.plan_part, range(PARTS))] if whose == "client" else [whose]
        for name in (names.secret(cluster, one) for one in wanted if found):
            if secrets.remove(azure, found["properties"]["vaultUri"], name):
                yield name
            elif name != names.secret(cluster, whose):
                return  # parts of a plan are numbered

    return [name for some in side_by_side([partial(removed, whose) for whose in VAULTS]) for name in some]


def _remove_rest(azure: Azure, group: str, cluster: str, patience_s: float) -> tuple[list[str], list[str]]:
    """Delete what was in use by machines: what is gone, and what is not."""
    name = names.scheduler(cluster)
    sets = [str(one["name"]) for one in scale_sets(azure, group, cluster)]
    orders = [("compute", "virtual_machine_scale_sets", one) for one in sets if one != names.claim(cluster)]
    gone: list[str] = []
    for some in (orders, *([("network", kind, name)] for kind in NETWORK)):
        done, busy = _remove(azure, group, some, patience_s)
        gone += done
        if busy:
            return gone, busy
    # The name is free when all else is gone.
    last = [("compute", "virtual_machine_scale_sets", one) for one in sets if one == names.claim(cluster)]
    done, busy = _remove(azure, group, last, patience_s)
    return [*gone, *done], busy


def _remove(
    azure: Azure, group: str, resources: Collection[tuple[str, str, str]], patience_s: float
) -> tuple[list[str], list[str]]:
    """Delete resources side by side, and again while they are in use: what is gone, and what is not."""
    answers = side_by_side(partial(_remove_one, azure, group, one, patience_s) for one in resources)
    gone = [f"{kind} {name}" for (_, kind, name), answer in zip(resources, answers, strict=True) if answer]
    busy = [name for (_, _, name), answer in zip(resources, answers, strict=True) if answer is None]
    return gone, busy


def _remove_one(azure: Azure, group: str, resource: tuple[str, str, str], patience_s: float) -> bool | None:
    """Delete a resource; whether there was one, and None while it is in use."""
    service, kind, name = resource
    for _ in moments(patience_s):
        try:
            begun = azure.begin(service, f"{kind}.begin_delete", group, name, fine=NOT_THERE)
            if begun is None or begun.idle:
                return False
            begun.wait(patience_s)
        except CloudError as error:
            if set(codes(error)).isdisjoint(BUSY):
                raise
        else:
            return True
    return None


def diagnosis(machine: Machine, logs: str) -> CloudError:
    """What to tell the user of a machine that ended before Dask answered on it."""
    return _vm_diagnosis.diagnosis(machine, logs, CAUSES, because, "Azure")
