"""Who may do what in a landing: roles, and to whom they are given, once."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider import templates
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers._azure_errors import code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudprovider.providers._azure import Azure

__all__ = ["VAULTS", "ensure", "let_in", "role"]

#: Whose secrets each vault of the landing's has: a right on a vault is a right on all that is in it.
VAULTS = ("machine", "client")
#: The roles of ours that each identity has.
MACHINE = "azure-machine"
ROLES = {"machine": (MACHINE,), "scheduler": ("azure-scheduler", "azure-operations")}
#: Key Vault Secrets User and Key Vault Secrets Officer.
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/security
READER, OFFICER = "4633458b-17de-408a-b874-0445c86b69e6", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
#: What the ids of our roles and assignments are made of, so that making one again changes nothing.
SPACE = uuid.UUID("8d6c0e0e-5a8e-4d7b-9a57-1f0c5a2d7c11")
#: To whom nothing must be given again.
GIVEN = ("RoleAssignmentExists",)
REFUSED = ("AuthorizationFailed", "Forbidden", "LinkedAuthorizationFailed")
DEFINITION = "/providers/Microsoft.Authorization/roleDefinitions/"


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A role that somebody is to have.

    Parameters
    ----------
    scope
        The id of what it is about.
    role
        The id of its definition, without its scope.
    principal, kind
        Who has it: the object id, and `ServicePrincipal` or `User`.
    """

    scope: str
    role: str
    principal: str
    kind: str

    @property
    def name(self) -> str:
        """The assignment's own id."""
        return str(uuid.uuid5(SPACE, f"{self.scope}/{self.role}/{self.principal}".lower()))

    def request(self, subscription: str) -> dict[str, Any]:
        """What is to be."""
        # With its kind, an identity that was just made need not be known everywhere.
        # https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
        return {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{subscription}{DEFINITION}{self.role}",
                "principalId": self.principal,
                "principalType": self.kind,
            }
        }

    @property
    def command(self) -> str:
        """The Azure CLI's command that makes it."""
        return (
            f"az role assignment create --role {self.role} --assignee-object-id {self.principal} "
            f"--assignee-principal-type {self.kind} --scope {self.scope}"
        )


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role of ours.

    Parameters
    ----------
    scope
        Where it can be given.
    id
        Its own.
    definition
        What it says.
    """

    scope: str
    id: str
    definition: Mapping[str, Any]


def role(name: str, subscription: str, group: str) -> Role:
    """A role of ours, as `templates/policies` says it.

    Parameters
    ----------
    name
        `azure-machine`, which deletes machines as each does at its own end; `azure-scheduler`, which orders them; or
        `azure-operations`, which sees how orders go.
    subscription, group
        Where it can be given.
    """
    said = json.loads(
        templates.render(f"policies/{name}.json", subscription=subscription, resource_group=group)
    )
    [scope] = said["AssignableScopes"]
    where = f"{group}, {subscription}" if "/resourceGroups/" in scope else subscription
    properties = {
        "roleName": f"{said['Name']} ({where})",  # unique in a tenant
        "description": said["Description"],
        "type": "CustomRole",
        "permissions": [
            {"actions": said["Actions"], "notActions": [], "dataActions": [], "notDataActions": []}
        ],
        "assignableScopes": [scope],
    }
    # The machines' was the first, and has the scope alone in its id.
    whose = scope if name == MACHINE else f"{scope}/{name}"
    return Role(scope=scope, id=str(uuid.uuid5(SPACE, whose.lower())), definition={"properties": properties})


def ensure(
    azure: Azure,
    group: str,
    identities: Mapping[str, Mapping[str, Any]],
    vaults: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give the landing's own identities what they need.

    Parameters
    ----------
    azure, group, vaults
        Whose, and on what.
    identities
        By what they are for, `machine` or `scheduler`; those of the user's are not among them, and have what the user
        gave them.

    Raises
    ------
    CredentialsError
        When the caller may give no roles; says the commands for somebody who may.
    """
    for whose, identity in identities.items():
        principal = identity["properties"]["principalId"]
        who = {"principal": principal, "kind": "ServicePrincipal"}
        own = [role(name, azure.subscription, group) for name in ROLES[whose]]
        wanted = [
            *(Assignment(scope=one.scope, role=one.id, **who) for one in own),
            Assignment(scope=vaults["machine"]["id"], role=READER, **who),
        ]
        there = _there(azure, group, principal)
        _give(azure, [one for one in wanted if not any(_covers(other, one, own) for other in there)], own)


def let_in(azure: Azure, group: str) -> None:
    """Give whoever calls the right to the secrets of a landing, which not even its owner has unasked.

    Raises
    ------
    CredentialsError
        When the caller may give no roles; says the commands for somebody who may.
    """
    principal, kind = azure.who
    ids = [
        names.id_of(
            azure.subscription,
            group,
            "Microsoft.KeyVault/vaults",
            names.vault(azure.subscription, group, whose),
        )
        for whose in VAULTS
    ]
    _give(azure, [Assignment(scope=id, role=OFFICER, principal=principal, kind=kind) for id in ids])


def _there(azure: Azure, group: str, principal: str) -> list[dict[str, Any]]:
    """The roles that somebody has in a resource group."""
    return azure.pages(
        "authorization",
        "role_assignments.list_for_resource_group",
        group,
        filter=f"principalId eq '{principal}'",
    )


def _covers(there: Mapping[str, Any], wanted: Assignment, own: Sequence[Role]) -> bool:
    """Whether what there is does for what is wanted; a role that is not known may be what a user made of ours."""
    said = there["properties"]
    id = said["roleDefinitionId"].rpartition("/")[2].lower()
    known = {READER, *(one.id for one in own)}
    same = id == wanted.role or (id not in known and wanted.role != READER)
    return same and wanted.scope.lower().startswith(said["scope"].lower())


def _give(azure: Azure, wanted: Sequence[Assignment], own: Sequence[Role] = ()) -> None:
    """Give roles, after making those of ours that are among them."""
    made = [one for one in own if any(one.id == other.role for other in wanted)]
    try:
        for one in made:
            azure.call(
                "authorization", "role_definitions.create_or_update", one.scope, one.id, dict(one.definition)
            )
        for assignment in wanted:
            request = assignment.request(azure.subscription)
            azure.call(
                "authorization",
                "role_assignments.create",
                assignment.scope,
                assignment.name,
                request,
                fine=GIVEN,
            )
    except CloudError as error:
        if code(error) not in REFUSED:
            raise
        commands = "\n".join(f"  {line}" for line in _commands(azure, wanted, made))
        raise CredentialsError(
            f"{error}\nWhoever may give roles there can run these, once for everybody:\n{commands}"
        ) from error


def _commands(azure: Azure, wanted: Sequence[Assignment], made: Sequence[Role]) -> Iterator[str]:
    for one in made:
        url = f"{azure.endpoints.manager}{one.scope}{DEFINITION}{one.id}?api-version=2022-04-01"
        yield f"az rest --method put --url '{url}' --body '{json.dumps(one.definition)}'"
    for assignment in wanted:
        yield assignment.command
