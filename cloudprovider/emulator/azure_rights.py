"""Who may do what in the embedded Azure, as role assignments say."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import AzureError, ResourceId

if TYPE_CHECKING:
    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_services import AzureServices, Principal
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["Rights", "action"]

VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"


class Rights:
    """Asks the services beside whether a caller may do something."""

    def __init__(self, account: Account, services: AzureServices) -> None:
        self._account = account
        self._services = services

    def authenticated(self, request: Request) -> Principal:
        """Who calls; raises AzureError when nobody does."""
        if not request.token:
            text = "Authentication failed. The 'Authorization' header is missing."
            raise AzureError(401, "AuthenticationFailed", text, headers={"WWW-Authenticate": "Bearer"})
        if (principal := self._services.who(request.token)) is None:
            raise AzureError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        return principal

    def require(self, request: Request) -> None:
        """Refuse a call whose own action the caller may not do."""
        self._services.require(request, *action(request))

    def linked(self, request: Request, needed: str, scope: str) -> None:
        """Refuse a call that also does something to another resource, unless the caller may do that.

        https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
        """
        principal = self.authenticated(request)
        why = self._services.may(principal, needed, scope) or self._policies(request, needed)
        if why:
            own, mine = action(request)
            raise AzureError(
                403,
                "LinkedAuthorizationFailed",
                f"The client '{principal.client_id}' with object id '{principal.object_id}' has permission to "
                f"perform action '{own}' on scope '{mine}'; however, it does not have permission to perform "
                f"action(s) '{needed}' on the linked scope(s) '{scope}' (respectively) or the linked scope(s) "
                "are invalid.",
            )

    def refuse(self, request: Request) -> None:
        """Raise what faults make of a caller's rights."""
        needed, scope = action(request)
        if self._account.faults.hit("denied", request) or self._policies(request, needed):
            raise denied(self.authenticated(request), needed, scope)

    def _policies(self, request: Request, needed: str) -> bool:
        """Whether a role that a fault holds people to leaves an action out; machines have roles of their own."""
        policies = self._account.faults.of("policy")
        if not policies or self.authenticated(request).resource_id:
            return False
        return not all(any(allows(one, needed) for one in fault.allowed) for fault in policies)


def allows(permission: Any, needed: str) -> bool:
    """Whether one permission of a role definition allows an action."""

    def names(word: str) -> bool:
        return any(fnmatchcase(needed.lower(), one.lower()) for one in permission.get(word, ()))

    return names("actions") and not names("notActions")


def action(request: Request) -> tuple[str, str]:
    """What a call does, and on what: `Microsoft.Compute/virtualMachines/write`, and a resource's id.

    https://learn.microsoft.com/azure/role-based-access-control/resource-provider-operations
    """
    known, verb = request.id, VERBS.get(request.method, "action")
    if not known.type:
        return _of_group(request, known, verb)
    namespace, *kinds = known.type.split("/")
    if not kinds:  # the provider itself
        return "Microsoft.Resources/subscriptions/providers/read", known.scope
    if verb != "action":
        whole = len(known.names) == len(kinds)
        return f"{known.type}/{verb}", request.path if whole else _parent(known, namespace, kinds)
    return f"{known.type}/action", _parent(known, namespace, kinds)


def _of_group(request: Request, known: ResourceId, verb: str) -> tuple[str, str]:
    parts = known.scope.strip("/").split("/")
    if len(parts) == 3:  # noqa: PLR2004  (subscriptions/ID/resourceGroups)
        return f"{GROUPS}/{verb}", "/" + "/".join(parts[:2])
    if len(parts) > 4:  # noqa: PLR2004  (something of a group)
        return f"{GROUPS}/{'/'.join(parts[4:])}/{verb}", "/" + "/".join(parts[:4])
    return f"{GROUPS}/{verb}", request.path


def _parent(known: ResourceId, namespace: str, kinds: list[str]) -> str:
    """What a collection or an action belongs to."""
    pairs = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, known.names, strict=False))
    return f"{known.scope}/providers/{namespace}/{pairs}" if pairs else known.scope


def denied(principal: Principal, needed: str, scope: str) -> AzureError:
    """What is said to who may not."""
    return AzureError(
        403,
        "AuthorizationFailed",
        f"The client '{principal.client_id}' with object id '{principal.object_id}' does not have authorization "
        f"to perform action '{needed}' over scope '{scope}' or the scope is invalid. If access was recently "
        "granted, please refresh your credentials.",
    )
