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
    from cloudprovider.providers._azure_config import AzureVMConfig

__all__ = ["VAULTS", "ensure", "let_in", "machine_role"]

#: Whose secrets each vault of the landing's has: a right on a vault is a right on all that is in it.
VAULTS = ("machine", "client")
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


def machine_role(subscription: str, group: str) -> tuple[str, dict[str, Any]]:
    """The role of machines, by its id: to delete machines of their resource group, as one needs for its own end."""
    text = templates.render("policies/azure-machine.json", subscription=subscription, resource_group=group)
    role = json.loads(text)
    [scope] = role["AssignableScopes"]
    properties = {
        "roleName": f"{role['Name']} ({group}, {subscription})",  # unique in a tenant
        "description": role["Description"],
        "type": "CustomRole",
        "permissions": [
            {"actions": role["Actions"], "notActions": [], "dataActions": [], "notDataActions": []}
        ],
        "assignableScopes": [scope],
    }
    return str(uuid.uuid5(SPACE, scope.lower())), {"properties": properties}


def ensure(
    azure: Azure,
    config: AzureVMConfig,
    identity: Mapping[str, Any],
    vaults: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give machines what they need; an identity of the user's has what the user gave it.

    Parameters
    ----------
    azure, config, identity, vaults
        Whose, and on what.

    Raises
    ------
    CredentialsError
        When the caller may give no roles; says the commands for somebody who may.
    """
    if config.machine_identity is not None:
        return
    group, principal = config.resource_group or "", identity["properties"]["principalId"]
    scope = f"/subscriptions/{azure.subscription}/resourceGroups/{group}"
    id, role = machine_role(azure.subscription, group)
    whose = {"principal": principal, "kind": "ServicePrincipal"}
    wanted = [
        Assignment(scope=scope, role=id, **whose),
        Assignment(scope=vaults["machine"]["id"], role=READER, **whose),
    ]
    there = _there(azure, group, principal)
    _give(
        azure, [one for one in wanted if not any(_covers(other, one) for other in there)], (scope, id, role)
    )


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


def _covers(there: Mapping[str, Any], wanted: Assignment) -> bool:
    """Whether what there is does for what is wanted; another role on the group may be what a user made of ours."""
    said = there["properties"]
    reads = said["roleDefinitionId"].lower().endswith(READER)
    return reads == (wanted.role == READER) and wanted.scope.lower().startswith(said["scope"].lower())


def _give(
    azure: Azure, wanted: Sequence[Assignment], own: tuple[str, str, Mapping[str, Any]] | None = None
) -> None:
    """Give roles, after making the one of ours, whose scope, id and definition these are."""
    try:
        if own and any(one.role == own[1] for one in wanted):
            azure.call("authorization", "role_definitions.create_or_update", *own[:2], dict(own[2]))
        for one in wanted:
            request = one.request(azure.subscription)
            azure.call("authorization", "role_assignments.create", one.scope, one.name, request, fine=GIVEN)
    except CloudError as error:
        if code(error) not in REFUSED:
            raise
        commands = "\n".join(f"  {line}" for line in _commands(azure, wanted, own))
        raise CredentialsError(
            f"{error}\nWhoever may give roles there can run these, once for everybody:\n{commands}"
        ) from error


def _commands(
    azure: Azure, wanted: Sequence[Assignment], own: tuple[str, str, Mapping[str, Any]] | None
) -> Iterator[str]:
    if own and any(one.role == own[1] for one in wanted):
        scope, id, definition = own
        url = f"{azure.endpoints.manager}{scope}{DEFINITION}{id}?api-version=2022-04-01"
        yield f"az rest --method put --url '{url}' --body '{json.dumps(definition)}'"
    for one in wanted:
        yield one.command
