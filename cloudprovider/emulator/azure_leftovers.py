"""What a subscription still has that costs or clutters, beside what it keeps on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.emulator.azure_networks import RULE, SUBNET
from cloudprovider.tags import LANDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator.azure_services import AzureServices
    from cloudprovider.emulator.azure_store import Resource, Store


def leftovers(store: Store, services: AzureServices) -> list[str]:
    """Everything but the landing: one line each, `type: name`."""
    return sorted([*_of_store(store), *services.leftovers()])


def _of_store(store: Store) -> Iterator[str]:
    for group in store.groups.values():
        if LANDING not in group.tags:
            yield f"resource group: {group.name}"
    for one in store.all():
        if not _kept(store, one) and one.type != SUBNET:
            yield f"{one.type}: {one.name}"


def _kept(store: Store, resource: Resource) -> bool:
    """Whether it is of the landing, or belongs to what is; a cluster's own rule is not."""
    if LANDING in resource.tags:
        return True
    if resource.type.count("/") == 1 or (resource.type == RULE and resource.name.startswith("dask-")):
        return False
    parent = store.find(resource.id.rpartition("/")[0].rpartition("/")[0])
    return parent is not None and _kept(store, parent)
