"""What IAM lets a role do: whether it may be assumed, and whether its policies allow an action."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

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
    return any(
        statement.get("Effect") == "Allow" and _trusts(statement.get("Principal"), service)
        for statement in _statements([role.assume_role_policy_document])
    )


def _trusts(principal: Any, service: str) -> bool:
    services = principal.get("Service", []) if isinstance(principal, dict) else principal
    return service in _listed(services) or "*" in _listed(services)


def allows(policies: Iterable[str | dict[str, Any]], action: str, resource: str) -> bool:
    """Whether policy documents allow an action on a resource: one that allows, and none that denies.

    Conditions are taken as met. The resource `*` means that it is not known: each pattern then fits.
    """
    effects = {
        statement["Effect"]
        for statement in _statements(policies)
        if _concerns(statement, "Action", action.lower())
        and (resource == "*" or _concerns(statement, "Resource", resource))
    }
    return effects == {"Allow"}


def policies(role: Any) -> Iterator[str]:
    """The policy documents of a role, its own and the managed ones."""
    yield from role.policies.values()
    for policy in role.managed_policies.values():
        yield from (version.document for version in policy.versions if version.is_default)


def _statements(documents: Iterable[str | dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        text = unquote(document) if isinstance(document, str) and document.startswith("%") else document
        parsed = json.loads(text) if isinstance(text, str) else text
        yield from _listed(parsed.get("Statement", []))


def _concerns(statement: dict[str, Any], key: str, value: str) -> bool:
    lower = key == "Action"
    if f"Not{key}" in statement:
        return not _matches(statement[f"Not{key}"], value, lower=lower)
    return _matches(statement.get(key, []), value, lower=lower)


def _matches(patterns: Any, value: str, *, lower: bool) -> bool:
    # in IAM only * and ? are wild, in fnmatch also [
    plain = (pattern.replace("[", "[[]") for pattern in _listed(patterns))
    return any(fnmatchcase(value, pattern.lower() if lower else pattern) for pattern in plain)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
