"""What a subscription has: resource groups and resources, by ids that are the same in any case."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError, ResourceId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Resource", "Store", "group_missing", "not_found"]

GROUP = "Microsoft.Resources/resourceGroups"
Document = dict[str, Any]


@dataclass(kw_only=True, eq=False)
class Resource:
    """One resource.

    Parameters
    ----------
    id, type
        As Azure tells them: `/subscriptions/…/virtualMachines/NAME`, `Microsoft.Compute/virtualMachines`.
    document
        What is told of it, beside its id, name and type.
    """

    id: str
    type: str
    document: Document
    created: float = field(default_factory=time.time)
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def name(self) -> str:
        """The last part of its id."""
        return self.id.rpartition("/")[2]

    @property
    def group(self) -> str:
        """Its resource group."""
        return ResourceId.of(self.id).group

    @property
    def location(self) -> str:
        """Its region; empty for what has none of its own."""
        return str(self.document.get("location", ""))

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        found: Mapping[str, str] = self.document.get("tags") or {}
        return found

    @property
    def properties(self) -> Document:
        """What is its own."""
        found: Document = self.document.setdefault("properties", {})
        return found

    def changed(self) -> None:
        """It is another than it was."""
        self.etag = str(uuid.uuid4())


class Store:
    """The groups and resources of a subscription; guarded by the account's lock."""

    def __init__(self) -> None:
        self.groups: dict[str, Resource] = {}
        self._resources: dict[str, Resource] = {}
        self._by_type: dict[str, dict[str, Resource]] = {}

    def find(self, id: str) -> Resource | None:
        """The resource of an id; None when there is none."""
        return self._resources.get(id.lower().rstrip("/"))

    def get(self, id: str) -> Resource:
        """The resource of an id; raises AzureError when there is none."""
        self.group(ResourceId.of(id).group)
        if found := self.find(id):
            return found
        raise not_found(id)

    def referenced(self, id: str, by: str) -> Resource:
        """The resource that another's document names; raises AzureError when there is none."""
        if found := self.find(id):
            return found
        raise AzureError(
            400,
            "InvalidResourceReference",
            f"Resource {id} referenced by resource {by} was not found. Please make sure that the referenced "
            "resource exists, and that both resources are in the same region.",
        )

    def group(self, name: str) -> Resource:
        """A resource group; raises AzureError when there is none."""
        if found := self.groups.get(name.lower()):
            return found
        raise group_missing(name)

    def add(self, resource: Resource) -> None:
        """Keep a resource."""
        id = resource.id.lower()
        self._resources[id] = self._by_type.setdefault(resource.type.lower(), {})[id] = resource

    def remove(self, resource: Resource) -> None:
        """Forget a resource; what is not there is no error."""
        id = resource.id.lower()
        self._resources.pop(id, None)
        self._by_type.get(resource.type.lower(), {}).pop(id, None)

    def of(self, type: str, group: str = "") -> list[Resource]:
        """The resources of a type, of one group or of all, oldest first."""
        found = list(self._by_type.get(type.lower(), {}).values())
        return [one for one in found if one.group.lower() == group.lower()] if group else found

    def all(self) -> Iterator[Resource]:
        """Every resource, oldest first."""
        yield from list(self._resources.values())


def resource_id(group: str, type: str, *names: str) -> str:
    """The id of a resource: `type` such as `Microsoft.Network/virtualNetworks/subnets`."""
    provider, *kinds = type.split("/")
    parts = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/{provider}/{parts}"


def group_missing(name: str) -> AzureError:
    """What is said of a resource group that there is not."""
    return AzureError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


def not_found(id: str) -> AzureError:
    """What is said of a resource that there is not."""
    known = ResourceId.of(id)
    provider, *kinds = known.type.split("/")
    what = "/".join([provider, *(f"{kind}/{name}" for kind, name in zip(kinds, known.names, strict=False))])
    return AzureError(
        404,
        "ResourceNotFound",
        f"The Resource '{what}' under resource group '{known.group}' was not found. For more details please "
        "go to https://aka.ms/ARMResourceNotFoundFix",
    )
