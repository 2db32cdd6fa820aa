"""The managed identities of the embedded Azure: user-assigned ones, which machines act by.

https://learn.microsoft.com/rest/api/managedidentity/
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import SUBSCRIPTION, TENANT, AzureError, check_body, group_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.azure_tokens import Directory, Principal
    from cloudprovider.emulator.azure_wire import Request

TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
VERSION = "2024-11-30"
LONGEST = 128
#: By method, and whether the path names one: what it is called, and what answers it.
METHODS = {
    ("PUT", True): ("UserAssignedIdentities.CreateOrUpdate", "_put"),
    ("PATCH", True): ("UserAssignedIdentities.Update", "_patch"),
    ("GET", True): ("UserAssignedIdentities.Get", "_get"),
    ("DELETE", True): ("UserAssignedIdentities.Delete", "_delete"),
    ("GET", False): ("UserAssignedIdentities.List", "_list"),
}


class Identities:
    """The user-assigned identities of a subscription.

    Parameters
    ----------
    directory
        Where their principals are.
    has_group
        Whether there is such a resource group.
    """

    def __init__(self, directory: Directory, has_group: Callable[[str], bool]) -> None:
        self._directory, self._has_group = directory, has_group
        self._identities: dict[str, dict[str, Any]] = {}

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call; None when it is another's."""
        known = request.id
        found = METHODS.get((request.method, len(known.names) == 1))
        if known.type.lower() != TYPE.lower() or found is None:
            return None
        request.service, request.operation = "managedidentity", found[0]
        answer: Callable[[Request], tuple[int, Any]] = getattr(self, found[1])
        return answer

    def find(self, resource_id: str) -> Principal | None:
        """The principal of an identity; None when there is none."""
        one = self._identities.get(resource_id.lower())
        return self._directory.get(one["properties"]["principalId"]) if one else None

    def all(self) -> list[dict[str, Any]]:
        """Every identity, as it is answered."""
        return list(self._identities.values())

    def forget(self, scope: str) -> None:
        """Remove those within a scope that is no more."""
        for key in [key for key in self._identities if key.startswith(f"{scope.lower()}/")]:
            self._directory.remove(self._identities.pop(key)["properties"]["principalId"])

    def _put(self, request: Request) -> tuple[int, Any]:
        check_body(request, _model())
        known, body = request.id, request.body
        if not self._has_group(known.group):
            raise group_missing(known.group)
        if len(known.names[0]) > LONGEST:
            raise AzureError(400, "InvalidIdentityName", f"The identity name '{known.names[0]}' is too long.")
        key = request.path.lower()
        if one := self._identities.get(key):
            if one["location"] != body["location"]:
                raise AzureError(409, "InvalidResourceLocation", _elsewhere(known.names[0], one["location"]))
            one["tags"] = body.get("tags") or {}
            return 200, one
        id = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{known.group}/providers/{TYPE}/{known.names[0]}"
        principal = self._directory.add(id)
        self._identities[key] = one = {
            "id": id,
            "name": known.names[0],
            "type": TYPE,
            "location": body["location"],
            "tags": body.get("tags") or {},
            "properties": {
                "tenantId": TENANT,
                "principalId": principal.object_id,
                "clientId": principal.client_id,
                "isolationScope": "None",
            },
        }
        return 201, one

    def _found(self, request: Request) -> dict[str, Any]:
        known = request.id
        if not self._has_group(known.group):
            raise group_missing(known.group)
        if one := self._identities.get(request.path.lower()):
            return one
        text = (
            f"The Resource '{TYPE}/{known.names[0]}' under resource group '{known.group}' was not found. For more "
            "details please go to https://aka.ms/ARMResourceNotFoundFix"
        )
        raise AzureError(404, "ResourceNotFound", text)

    def _get(self, request: Request) -> tuple[int, Any]:
        return 200, self._found(request)

    def _patch(self, request: Request) -> tuple[int, Any]:
        one = self._found(request)
        one["tags"] = (request.body or {}).get("tags") or one["tags"]
        return 200, one

    def _delete(self, request: Request) -> tuple[int, Any]:
        one = self._identities.pop(request.path.lower(), None)
        if one is None:
            return 204, None
        self._directory.remove(one["properties"]["principalId"])
        return 200, None

    def _list(self, request: Request) -> tuple[int, Any]:
        scope = request.id.scope.lower()
        return 200, {"value": [one for key, one in self._identities.items() if key.startswith(f"{scope}/")]}


def _elsewhere(name: str, location: str) -> str:
    return f"The resource '{name}' already exists in location '{location}': it cannot be made in another."


@functools.cache
def _model() -> Any:
    from azure.mgmt.msi.v2024_11_30 import models

    return models.Identity
