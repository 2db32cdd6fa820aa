"""The roles of an account: whether one may be assumed, and what its policies are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import aws_policy
from cloudprovider.emulator.aws_policy import Need

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ECS_TASKS = "ecs-tasks.amazonaws.com"


def find(account: str, arn: str) -> Any | None:
    """The role of this name or ARN; None when there is none."""
    from moto.iam import iam_backends

    name = arn.rpartition("/")[2]
    roles = iam_backends[account]["aws"].roles.values()
    return next((role for role in roles if role.name == name and arn in (role.arn, name)), None)


def profile(account: str, arn: str | None, name: str | None) -> Any | None:
    """The instance profile of this ARN, or else of this name; None when there is none."""
    from moto.iam import iam_backends

    profiles = iam_backends[account]["aws"].instance_profiles.values()
    return next((one for one in profiles if arn == one.arn or (not arn and name == one.name)), None)


def assumable(role: Any, service: str) -> bool:
    """Whether a role trusts a service."""
    return any({service, "*"}.intersection(_principals(one, "Service")) for one in _trusting(role))


def trusts(role: Any, account: str, who: str) -> bool:
    """Whether a role trusts a user or a role of its account, or the account as a whole."""
    whole = {account, f"arn:aws:iam::{account}:root", who, "*"}
    return any(whole.intersection(_principals(one, "AWS")) for one in _trusting(role))


def _trusting(role: Any) -> Iterator[Any]:
    """Whom a role's trust policy allows to assume it."""
    for statement in aws_policy.statements([role.assume_role_policy_document]):
        if statement.get("Effect") == "Allow":
            yield statement.get("Principal")


def _principals(principal: Any, kind: str) -> list[Any]:
    named = principal.get(kind, []) if isinstance(principal, dict) else principal
    return named if isinstance(named, list) else [named]


def allows(documents: Iterable[str], action: str, resource: str) -> bool:
    """Whether policies allow a service to do something for who has them."""
    return aws_policy.allows(documents, Need(action=action, resource=resource))


def policies(holder: Any) -> Iterator[str]:
    """The policy documents of a role, a user or a group: its own and the managed ones."""
    yield from holder.policies.values()
    for policy in holder.managed_policies.values():
        yield from (version.document for version in policy.versions if version.is_default)
