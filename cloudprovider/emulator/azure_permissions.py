"""What a caller may do in a resource group, as the embedded Azure tells it to the caller.

https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_roles import FIELDS
from cloudprovider.emulator.azure_store import group_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_roles import Require, Roles
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["Permissions"]

KIND = "Microsoft.Authorization/permissions"


class Permissions:
    """Tells callers their permissions.

    Parameters
    ----------
    account, roles
        Of the emulated cloud; its fault `policy` holds people to roles.
    require
        Refuses a call unless who makes it may: `(request, action, scope)`.
    has_group
        Whether there is such a resource group.
    """

    def __init__(
        self, account: Account, roles: Roles, require: Require, has_group: Callable[[str], bool]
    ) -> None:
        self._account, self._roles, self._require, self._has_group = account, roles, require, has_group

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call; None when it is another's."""
        if request.id.type.lower() != KIND.lower() or request.method != "GET":
            return None
        request.service, request.operation = "authorization", "Permissions.ListForResourceGroup"
        return self._list

    def _list(self, request: Request) -> tuple[int, Any]:
        scope = request.id.scope
        if not self._has_group(scope.rpartition("/")[2]):
            raise group_missing(scope.rpartition("/")[2])
        caller = self._require(request, f"{KIND}/read", scope)
        held = [
            {name: list(getattr(role, ours)) for name, ours in FIELDS.items()}
            for role in self._roles.given(caller.object_id, scope)
        ]
        for fault in self._account.faults.of("policy") if not caller.resource_id else ():
            held = [{name: list(one.get(name, ())) for name in FIELDS} for one in fault.allowed]
        return 200, {"value": held}
