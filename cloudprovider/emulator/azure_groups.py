"""Resource groups, providers, the subscription itself, and tags of anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_offers import check_location
from cloudprovider.emulator.azure_scalesets import Countdown
from cloudprovider.emulator.azure_store import Resource, group_missing, not_found
from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_machines import Machines
    from cloudprovider.emulator.azure_pending import Operations
    from cloudprovider.emulator.azure_services import AzureServices
    from cloudprovider.emulator.azure_store import Store
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["TAGS", "Groups"]

TYPE = "Microsoft.Resources/resourceGroups"
TAGS = "/providers/microsoft.resources/tags/default"
MOST_TAGS = 50  # https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources
#: Providers that are answered here.
PROVIDERS = ("Compute", "Network", "KeyVault", "ManagedIdentity", "Authorization", "Resources", "Storage")


class Groups:
    """Answers what is asked of Microsoft.Resources."""

    def __init__(
        self,
        account: Account,
        store: Store,
        pending: Operations,
        machines: Machines,
        services: AzureServices,
    ) -> None:
        self._account, self._store, self._pending = account, store, pending
        self._machines, self._services = machines, services
        self.registered = {name.lower() for name in PROVIDERS}
        """Providers that the subscription uses."""

    def handlers(self) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        """What answers each operation."""
        yield "ResourceGroups.CreateOrUpdate", self._put
        yield "ResourceGroups.Update", self._patch
        yield "ResourceGroups.Get", lambda request: Reply(body=told(self._store.group(group_of(request))))
        yield "ResourceGroups.CheckExistence", self._exists
        yield "ResourceGroups.List", self._list
        yield "ResourceGroups.Delete", self._delete
        yield "Resources.List", self._resources
        yield "Resources.ListByResourceGroup", self._resources
        yield "Providers.Get", self._provider
        yield "Providers.Register", self._register
        yield "Providers.Unregister", self._unregister

    # -- groups --------------------------------------------------------------------------------------

    def _put(self, request: Request) -> Reply:
        name, body = group_of(request), request.body
        location = check_location(body["location"])
        known = self._store.groups.get(name.lower())
        if known and known.location != location:
            text = (
                f"Invalid resource group location '{location}'. The Resource group already exists in location "
                f"'{known.location}'."
            )
            raise AzureError(409, "InvalidResourceGroupLocation", text)
        if known and known.properties["provisioningState"] == "Deleting":
            text = f"The resource group '{known.name}' is in deprovisioning state and cannot perform this operation."
            raise AzureError(409, "ResourceGroupBeingDeleted", text)
        document = {"location": location, "tags": dict(body.get("tags") or {})}
        document["properties"] = {"provisioningState": "Succeeded"}
        id = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{known.name if known else name}"
        self._store.groups[name.lower()] = group = Resource(id=id, type=TYPE, document=document)
        return Reply(body=told(group), status=200 if known else 201)

    def _patch(self, request: Request) -> Reply:
        group = self._store.group(group_of(request))
        if "tags" in (request.body or {}):
            group.document["tags"] = dict(request.body["tags"])
        return Reply(body=told(group))

    def _exists(self, request: Request) -> Reply:
        return Reply(status=204 if group_of(request).lower() in self._store.groups else 404)

    def _list(self, request: Request) -> Reply:
        groups = list(self._store.groups.values())
        if wanted := request.query.get("$filter"):
            groups = [one for one in groups if tagged(one, wanted)]
        return Reply(body={"value": [told(one) for one in groups]})

    def _delete(self, request: Request) -> Reply:
        name = group_of(request)
        group = self._store.group(name)
        group.properties["provisioningState"] = "Deleting"
        pending, reply = self._pending.begin(request, group.location)
        machines = [one for one in self._machines.all() if one.resource.group.lower() == name.lower()]

        def over() -> None:
            with self._account.lock:
                self._empty(group)
            pending.succeed()

        countdown = Countdown(max(1, len(machines)), over)
        for machine in machines:
            self._machines.life.delete(machine, countdown)
        if not machines:
            self._account.timers.after(self._account.profile.release_s, countdown)
        return reply

    def _empty(self, group: Resource) -> None:
        """Everything in a group is gone, and it is itself."""
        from cloudprovider.emulator.azure_machines import DISK

        for one in list(self._store.all()):
            if one.group.lower() != group.name.lower():
                continue
            if one.type == DISK:
                self._machines.remove_disk(one)
            else:
                self._machines.networks.remove(one)
        self._services.forget_group(group.id)
        self._store.groups.pop(group.name.lower(), None)

    def _resources(self, request: Request) -> Reply:
        name = request.names.get("resource_group_name", "")
        if name:
            self._store.group(name)
        beside = self._services.resources()
        every = [
            *self._store.all(),
            *(Resource(id=one["id"], type=one["type"], document=one) for one in beside),
        ]
        found = [one for one in every if name.lower() in ("", one.group.lower())]
        if wanted := request.query.get("$filter"):
            found = [one for one in found if tagged(one, wanted)]
        kept = ("location", "tags", "zones", "sku")
        told_all = [
            {
                "id": one.id,
                "name": one.name,
                "type": one.type,
                **{k: one.document[k] for k in kept if k in one.document},
            }
            for one in found
            if one.type.count("/") == 1
        ]
        return Reply(body={"value": told_all})

    # -- providers -----------------------------------------------------------------------------------

    def _provider(self, request: Request) -> Reply:
        return Reply(body=self._provider_told(request.names["resource_provider_namespace"]))

    def _provider_told(self, namespace: str) -> dict[str, Any]:
        short = namespace.rpartition(".")[2].lower()
        known = next((name for name in PROVIDERS if name.lower() == short), None)
        if known is None:
            text = f"The resource namespace '{namespace}' is invalid."
            raise AzureError(404, "InvalidResourceNamespace", text)
        state = "Registered" if short in self.registered else "NotRegistered"
        id = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.{known}"
        return {"id": id, "namespace": f"Microsoft.{known}", "registrationState": state, "resourceTypes": []}

    def _register(self, request: Request) -> Reply:
        namespace = request.names["resource_provider_namespace"]
        self._provider_told(namespace)
        self.registered.add(namespace.rpartition(".")[2].lower())
        return Reply(body=self._provider_told(namespace))

    def _unregister(self, request: Request) -> Reply:
        namespace = request.names["resource_provider_namespace"]
        self.registered.discard(namespace.rpartition(".")[2].lower())
        return Reply(body=self._provider_told(namespace))

    # -- tags ----------------------------------------------------------------------------------------

    def tags(self, request: Request) -> Reply:
        """What is asked at `SCOPE/providers/Microsoft.Resources/tags/default`."""
        scope = request.path[: -len(TAGS)]
        owner = self._store.find(scope) or self._store.groups.get(scope.rpartition("/")[2].lower())
        if owner is None or owner.id.lower() != scope.lower():
            raise not_found(scope) if "/providers/" in scope else group_missing(scope.rpartition("/")[2])
        tags = dict(owner.tags)
        given = ((request.body or {}).get("properties") or {}).get("tags") or {}
        if request.method == "PUT":
            tags = dict(given)
        elif request.method == "DELETE":
            tags = {}
        elif request.method == "PATCH":
            tags = patched(tags, given, (request.body or {}).get("operation", ""))
        if len(tags) > MOST_TAGS:
            text = f"{len(tags)} tags are more than the {MOST_TAGS} that a resource may have."
            raise AzureError(400, "InvalidTagParameters", text)
        if request.method != "GET":
            owner.document["tags"] = tags
        return Reply(
            body={
                "id": f"{owner.id}/providers/Microsoft.Resources/tags/default",
                "name": "default",
                "type": "Microsoft.Resources/tags",
                "properties": {"tags": tags},
            }
        )


def patched(tags: dict[str, str], given: dict[str, str], operation: str) -> dict[str, str]:
    """Tags with some merged in, replaced, or taken away."""
    match operation.lower():
        case "merge":
            return {**tags, **given}
        case "replace":
            return dict(given)
        case "delete":
            return {key: value for key, value in tags.items() if given.get(key) != value}
    raise AzureError(
        400, "InvalidTagsPatchOperation", f"The tags patch operation '{operation}' is not valid."
    )


def tagged(resource: Resource, wanted: str) -> bool:
    """Whether a resource is what a filter wants: by tag, or by type.

    https://learn.microsoft.com/rest/api/resources/resources/list
    """
    if found := re.fullmatch(r"tagName eq '([^']*)'(?: and tagValue eq '([^']*)')?", wanted):
        name, value = found.groups()
        return name in resource.tags and value in (None, resource.tags[name])
    if found := re.fullmatch(r"resourceType eq '([^']*)'", wanted):
        return resource.type.lower() == found[1].lower()
    raise AzureError(
        400, "InvalidFilterInQueryString", f"Invalid $filter '{wanted}' specified in the query string."
    )


def group_of(request: Request) -> str:
    """The name of the group that a call is about."""
    return request.names["resource_group_name"]


def told(group: Resource) -> dict[str, Any]:
    """A group as the API tells it."""
    return {"id": group.id, "name": group.name, "type": TYPE, **group.document}
