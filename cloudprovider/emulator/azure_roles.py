"""Role definitions and role assignments of the embedded Azure: who may do what, and where.

https://learn.microsoft.com/azure/role-based-access-control/overview
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import time
import uuid
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_builtin_roles import BUILT_IN, Role
from cloudprovider.emulator.azure_wire import PERSON, SUBSCRIPTION, TENANT, AzureError, check_body
from cloudprovider.emulator.records import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_tokens import Directory, Principal
    from cloudprovider.emulator.azure_wire import Request

    Require = Callable[[Request, str, str], Principal]

DEFINITIONS = "Microsoft.Authorization/roleDefinitions"
ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
VERSION = "2022-04-01"
OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
METHODS = {
    (DEFINITIONS, "PUT", True): ("RoleDefinitions.CreateOrUpdate", "_put_definition"),
    (DEFINITIONS, "GET", True): ("RoleDefinitions.Get", "_get_definition"),
    (DEFINITIONS, "DELETE", True): ("RoleDefinitions.Delete", "_delete_definition"),
    (DEFINITIONS, "GET", False): ("RoleDefinitions.List", "_list_definitions"),
    (ASSIGNMENTS, "PUT", True): ("RoleAssignments.Create", "_put"),
    (ASSIGNMENTS, "GET", True): ("RoleAssignments.Get", "_get"),
    (ASSIGNMENTS, "DELETE", True): ("RoleAssignments.Delete", "_delete"),
    (ASSIGNMENTS, "GET", False): ("RoleAssignments.ListForScope", "_list"),
}
FILTER = re.compile(r"(\w+) eq '([^']*)'|(atScope|assignedTo)\((?:'([^']*)')?\)", re.IGNORECASE)
#: The fields of a role definition and of ours.
FIELDS = {
    "actions": "actions",
    "notActions": "not_actions",
    "dataActions": "data_actions",
    "notDataActions": "not_data_actions",
}


@dataclass(frozen=True, kw_only=True)
class _Assignment:
    name: str
    scope: str
    role: str
    principal: str
    description: str = ""
    made: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return f"{self.scope}/providers/{ASSIGNMENTS}/{self.name}"

    def document(self) -> dict[str, Any]:
        stamp = dt.datetime.fromtimestamp(self.made, dt.UTC).isoformat()
        return {
            "id": self.id,
            "name": self.name,
            "type": ASSIGNMENTS,
            "properties": {
                "roleDefinitionId": definition_id(self.role),
                "principalId": self.principal,
                "principalType": "ServicePrincipal",
                "scope": self.scope,
                "createdOn": stamp,
                "updatedOn": stamp,
                **({"description": self.description} if self.description else {}),
            },
        }


@dataclass(kw_only=True)
class _Definition:
    id: str
    role: Role
    description: str
    scopes: list[str]
    own: bool

    def document(self) -> dict[str, Any]:
        permissions = {name: list(getattr(self.role, ours)) for name, ours in FIELDS.items()}
        return {
            "id": definition_id(self.id),
            "name": self.id,
            "type": DEFINITIONS,
            "properties": {
                "roleName": self.role.name,
                "type": "CustomRole" if self.own else "BuiltInRole",
                "description": self.description,
                "assignableScopes": self.scopes,
                "permissions": [permissions],
            },
        }


class Roles:
    """The roles of a subscription and to whom they are given.

    Parameters
    ----------
    account
        Of the emulated cloud; its fault `role-propagation` delays what an assignment gives.
    directory
        Who there is.
    require
        Refuses a call unless who makes it may: `(request, action, scope)`.
    """

    def __init__(self, account: Account, directory: Directory, require: Require) -> None:
        self._account, self._directory, self._require = account, directory, require
        self._definitions = {
            id: _Definition(id=id, role=role, description=role.name, scopes=["/"], own=False)
            for id, role in BUILT_IN.items()
        }
        owner = _Assignment(
            name=PERSON, scope=f"/subscriptions/{SUBSCRIPTION}", role=OWNER, principal=PERSON, made=0.0
        )
        self._assignments = {owner.id.lower(): owner}
        self.recorder = Recorder()

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call; None when it is another's."""
        known = request.id
        kind = next((one for one in (DEFINITIONS, ASSIGNMENTS) if one.lower() == known.type.lower()), "")
        found = METHODS.get((kind, request.method, len(known.names) == 1))
        if found is None:
            return None
        request.service, request.operation = "authorization", found[0]
        answer: Callable[[Request], tuple[int, Any]] = getattr(self, found[1])
        return answer

    # -- what is allowed -------------------------------------------------------------------------------

    def allows(self, object_id: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Whether an assignment on a scope or one above gives this to a principal."""
        allowed = any(_gives(role, action, data=data) for role in self.given(object_id, scope))
        self.recorder.heard(action, scope, denied=not allowed, own=object_id == PERSON)
        return allowed

    def login(self, object_id: str, permissions: dict[str, list[str]]) -> None:
        """Let a principal have one role on the subscription, with these permissions and no others."""
        scope, name = f"/subscriptions/{SUBSCRIPTION}", str(uuid.uuid5(uuid.NAMESPACE_OID, object_id))
        role = Role(
            name=name, actions=tuple(permissions["Actions"]), data_actions=tuple(permissions["DataActions"])
        )
        made = _Assignment(name=name, scope=scope, role=name, principal=object_id, made=0.0)
        with self._account.lock:
            self._definitions[name] = _Definition(
                id=name, role=role, description=name, scopes=[scope], own=True
            )
            self._assignments[made.id.lower()] = made

    def given(self, object_id: str, scope: str) -> list[Role]:
        """The roles that a principal has on a scope, by assignments on it or above."""
        oldest = time.time() - self._delay_s()
        with self._account.lock:
            return [
                self._definitions[one.role].role
                for one in self._assignments.values()
                if one.principal == object_id and one.made <= oldest and _within(scope, one.scope)
            ]

    def _delay_s(self) -> float:
        return max((fault.seconds for fault in self._account.faults.of("role-propagation")), default=0.0)

    def forget(self, scope: str) -> None:
        """Remove the assignments on what is no more."""
        for key in [key for key, one in self._assignments.items() if _within(one.scope, scope)]:
            del self._assignments[key]

    def assignments(self) -> list[dict[str, Any]]:
        """Every assignment that somebody made."""
        return [one.document() for one in self._assignments.values() if one.made]

    # -- definitions -----------------------------------------------------------------------------------

    def _definition(self, name: str) -> _Definition:
        if found := self._definitions.get(name.rpartition("/")[2].lower()):
            return found
        text = f"The specified role definition with ID '{name.rpartition('/')[2]}' does not exist."
        raise AzureError(404, "RoleDefinitionDoesNotExist", text)

    def _put_definition(self, request: Request) -> tuple[int, Any]:
        check_body(request, _models().RoleDefinition)
        name, given = request.id.names[0].lower(), request.body.get("properties") or {}
        scopes = given.get("assignableScopes") or []
        if not ID.fullmatch(name):
            raise AzureError(
                400,
                "InvalidRoleDefinitionId",
                f"The role definition ID '{name}' is not valid: it must be a GUID.",
            )
        if name in BUILT_IN or not scopes or given.get("type", "CustomRole") != "CustomRole":
            raise AzureError(
                400,
                "InvalidRoleDefinition",
                "A custom role has a new id and assignable scopes, and is of type CustomRole.",
            )
        for scope in scopes:
            self._require(request, f"{DEFINITIONS}/write", scope)
        title = str(given.get("roleName", ""))
        if any(
            one.role.name.lower() == title.lower() and one.id != name for one in self._definitions.values()
        ):
            text = f"A role definition cannot be created with the name '{title}': one with that name exists already."
            raise AzureError(409, "RoleDefinitionWithSameNameExists", text)
        about = str(given.get("description", ""))
        made = _Definition(id=name, role=_role(title, given), description=about, scopes=scopes, own=True)
        self._definitions[name] = made
        return 201, made.document()

    def _get_definition(self, request: Request) -> tuple[int, Any]:
        self._require(request, f"{DEFINITIONS}/read", request.id.scope or f"/subscriptions/{SUBSCRIPTION}")
        return 200, self._definition(request.id.names[0]).document()

    def _delete_definition(self, request: Request) -> tuple[int, Any]:
        self._require(request, f"{DEFINITIONS}/delete", request.id.scope)
        name = request.id.names[0].lower()
        found = self._definitions.get(name)
        if found is None:
            return 204, None
        if any(one.role == name for one in self._assignments.values()):
            text = "There are existing role assignments referencing role (code: RoleDefinitionHasAssignments)"
            raise AzureError(400, "RoleDefinitionHasAssignments", text)
        if found.own:
            del self._definitions[name]
        return 200, found.document()

    def _list_definitions(self, request: Request) -> tuple[int, Any]:
        self._require(request, f"{DEFINITIONS}/read", request.id.scope or f"/subscriptions/{SUBSCRIPTION}")
        wanted = _filter(request)
        unknown = set(wanted) - {"rolename", "type", "atscope"}
        if unknown:
            raise AzureError(
                400, "UnsupportedQuery", f"The filter '{request.query.get('$filter')}' is not supported."
            )
        documents = [one.document() for one in self._definitions.values()]
        return 200, {
            "value": [
                one
                for one in documents
                if one["properties"]["roleName"] == wanted.get("rolename", one["properties"]["roleName"])
                and one["properties"]["type"].lower() == wanted.get("type", one["properties"]["type"]).lower()
            ]
        }

    # -- assignments -----------------------------------------------------------------------------------

    def _put(self, request: Request) -> tuple[int, Any]:
        check_body(request, _models().RoleAssignmentCreateParameters)
        known, given = request.id, request.body["properties"]
        if not ID.fullmatch(known.names[0]):
            raise AzureError(
                400,
                "InvalidRoleAssignmentId",
                f"The role assignment ID '{known.names[0]}' is not valid. The role assignment ID must be a GUID.",
            )
        self._require(request, f"{ASSIGNMENTS}/write", known.scope)
        if given.get("condition") or given.get("conditionVersion"):
            raise AzureError(
                501, "NotImplemented", "The emulated Azure has no conditions of role assignments."
            )
        definition = self._assignable(str(given["roleDefinitionId"]), known.scope)
        self._check_principal(str(given["principalId"]), given.get("principalType"))
        made = _Assignment(
            name=known.names[0].lower(),
            scope=known.scope,
            role=definition.id,
            principal=str(given["principalId"]),
            description=str(given.get("description") or ""),
        )
        return self._assigned(made)

    def _assigned(self, made: _Assignment) -> tuple[int, Any]:
        facts = (made.scope.lower(), made.role, made.principal)
        for one in self._assignments.values():
            if (one.scope.lower(), one.role, one.principal) == facts:
                if one.name == made.name:
                    return 200, one.document()
                text = f"The role assignment already exists. The ID of the existing role assignment is {one.name.replace('-', '')}."
                raise AzureError(409, "RoleAssignmentExists", text)
        if made.id.lower() in self._assignments:
            text = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated."
            raise AzureError(400, "RoleAssignmentUpdateNotPermitted", text)
        self._assignments[made.id.lower()] = made
        return 201, made.document()

    def _assignable(self, role: str, scope: str) -> _Definition:
        try:
            definition = self._definition(role)
        except AzureError as error:
            raise AzureError(400, error.code, error.message) from error
        if not any(_within(scope, one) for one in definition.scopes):
            text = f"The assignment scope '{scope}' is not assignable to role definition '{definition.id}'."
            raise AzureError(400, "RoleAssignmentScopeNotAssignableToRoleDefinition", text)
        return definition

    def _check_principal(self, object_id: str, kind: str | None) -> None:
        """Refuse who is not there, or was made a moment ago and is not said to be a service principal.

        https://learn.microsoft.com/azure/role-based-access-control/troubleshooting#symptom---assigning-a-role-to-a-new-principal-sometimes-fails
        """
        born = self._directory.born(object_id)
        fresh = born is not None and kind is None and born > time.time() - self._delay_s()
        if born is None or fresh:
            raise AzureError(
                400,
                "PrincipalNotFound",
                f"Principal {object_id.replace('-', '')} does not exist in the directory {TENANT}. Check that you have "
                "the correct principal ID. If you are creating this principal and then immediately assigning a role, "
                "this error might be related to a replication delay. In this case, set the role assignment "
                "principalType property to a value, such as ServicePrincipal, User, or Group. See "
                "https://aka.ms/docs-principaltype",
            )
        if kind not in (None, "ServicePrincipal"):
            text = f"The PrincipalId '{object_id.replace('-', '')}' has type 'ServicePrincipal', which is different from specified PrincipalType '{kind}'."
            raise AzureError(400, "UnmatchedPrincipalType", text)

    def _get(self, request: Request) -> tuple[int, Any]:
        self._require(request, f"{ASSIGNMENTS}/read", request.id.scope)
        if found := self._assignments.get(request.path.rstrip("/").lower()):
            return 200, found.document()
        raise AzureError(
            404, "RoleAssignmentNotFound", f"The role assignment '{request.id.names[0]}' is not found."
        )

    def _delete(self, request: Request) -> tuple[int, Any]:
        self._require(request, f"{ASSIGNMENTS}/delete", request.id.scope)
        found = self._assignments.pop(request.path.rstrip("/").lower(), None)
        return (200, found.document()) if found else (204, None)

    def _list(self, request: Request) -> tuple[int, Any]:
        scope = request.id.scope
        self._require(request, f"{ASSIGNMENTS}/read", scope)
        wanted = _filter(request)
        unknown = set(wanted) - {"principalid", "atscope", "assignedto"}
        if unknown:
            raise AzureError(
                400, "UnsupportedQuery", f"The filter '{request.query.get('$filter')}' is not supported."
            )
        whose = wanted.get("principalid") or wanted.get("assignedto")
        shown = [
            one.document()
            for one in self._assignments.values()
            if (_within(scope, one.scope) or ("atscope" not in wanted and _within(one.scope, scope)))
            and whose in (None, one.principal)
        ]
        return 200, {"value": shown}


def definition_id(name: str) -> str:
    """The id of a role definition in the subscription."""
    return f"/subscriptions/{SUBSCRIPTION}/providers/{DEFINITIONS}/{name}"


def _role(name: str, given: dict[str, Any]) -> Role:
    kept = given.get("permissions") or []
    parts = {
        ours: tuple(action for one in kept for action in one.get(theirs) or ())
        for theirs, ours in FIELDS.items()
    }
    return Role(name=name, **parts)


def _within(scope: str, above: str) -> bool:
    return f"{scope.rstrip('/')}/".lower().startswith(f"{above.rstrip('/')}/".lower())


def _gives(role: Role, action: str, *, data: bool) -> bool:
    given, kept = (role.data_actions, role.not_data_actions) if data else (role.actions, role.not_actions)
    return _any(action, given) and not _any(action, kept)


def _any(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def _filter(request: Request) -> dict[str, str]:
    """The conditions of a filter by their names in lower case."""
    text = request.query.get("$filter", "")
    found = {}
    for match in FILTER.finditer(text):
        field, value, function, argument = match.groups()
        found[(field or function).lower()] = value or argument or ""
    if text and not found:
        raise AzureError(400, "UnsupportedQuery", f"The filter '{text}' is not supported.")
    return found


@functools.cache
def _models() -> Any:
    from azure.mgmt.authorization.v2022_04_01 import models

    return models
