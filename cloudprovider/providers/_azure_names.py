"""What a cluster's resources on Azure are called: functions of its name, so that any process finds them."""

from __future__ import annotations

import hashlib
import re

__all__ = [
    "LANDING",
    "ROLES",
    "claim",
    "group",
    "id_of",
    "name_of",
    "order",
    "plan_part",
    "scale_set_of",
    "scheduler",
    "secret",
    "vault",
]

ROLES = ("scheduler", "worker")
#: The network, its security group and its application security group of a landing.
LANDING = "dask-landing"
#: Under whose identity machines run, and the scheduler's where it orders others.
IDENTITY, SCHEDULER_IDENTITY = "dask-machine", "dask-scheduler"
#: A scale set's machines are called after it, with "_" and 8 characters.
# https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-instance-ids
INSTANCE = re.compile(r"(?P<scale_set>.+)_[0-9a-z]{8}", re.IGNORECASE)


def group(region: str) -> str:
    """The resource group that is made where the user names none."""
    return f"dask-{region}"


def vault(subscription: str, resource_group: str, whose: str) -> str:
    """A vault of the landing's: of the `machine` secrets, or of the `client` ones.

    Names of vaults are unique in all of Azure, and have at most 24 characters.
    https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
    """
    digest = hashlib.sha256(f"{subscription}/{resource_group}".lower().encode()).hexdigest()
    return f"dask-{whose}-{digest[:11]}"


def claim(cluster: str) -> str:
    """The scale set without machines that says that there is a cluster of this name."""
    return f"dask-{cluster}"


def scheduler(cluster: str) -> str:
    """The scheduler's machine, its interface, its address and its network security group."""
    return f"dask-{cluster}-scheduler"


def order(cluster: str, token: str) -> str:
    """The scale set of one order of workers."""
    return f"dask-{cluster}-w-{token}"


def scale_set_of(machine: str) -> str | None:
    """The scale set that a machine is of; None for one that stands alone."""
    match = INSTANCE.fullmatch(machine)
    return match["scale_set"] if match else None


def secret(cluster: str, whose: str) -> str:
    """One of a cluster's secrets: `machine`, `client`, or a part of its plan."""
    return f"dask-{cluster}-{whose}"


def plan_part(part: int) -> str:
    """One secret of the plan, which may need several."""
    return f"plan-{part}"


def id_of(subscription: str, resource_group: str, kind: str, name: str) -> str:
    """The id of a resource, whose kind is such as `Microsoft.Network/virtualNetworks`."""
    return f"/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/{kind}/{name}"


def name_of(id: str) -> str:
    """The last part of a resource's id."""
    return id.rpartition("/")[2]
