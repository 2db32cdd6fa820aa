"""IAM's simulator: what a user's or role's policies say of actions, without any of them being called.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.aws_policy import Need, Unevaluated, verdict
from cloudprovider.emulator.wire import AWSError
from cloudprovider.emulator.wire_xml import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.emulator.wire import Request

__all__ = ["Simulator", "documents"]

#: What a verdict is called here: it allows, it denies, or nothing speaks of it.
DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny", "": "implicitDeny"}
ACTION = re.compile(r"[a-z0-9-]+:\w+", re.IGNORECASE)
#: Results of one page.
PAGE = 100


class Simulator:
    """Answers what IAM's simulator is asked; moto answers the rest of IAM."""

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation; None when moto does."""
        return self.simulate if operation == "SimulatePrincipalPolicy" else None

    def simulate(self, request: Request) -> dict[str, Any]:
        """SimulatePrincipalPolicy: each action on each resource."""
        given = named(request)
        policies = [*documents(given["PolicySourceArn"]), *given.get("PolicyInputList", ())]
        context = {
            entry["ContextKeyName"].lower(): _value(entry) for entry in given.get("ContextEntries", ())
        }
        resources = given.get("ResourceArns") or ["*"]
        results = [
            _result(policies, action, resources, context) for action in map(_checked, given["ActionNames"])
        ]
        start, size = int(given.get("Marker") or 0), int(given.get("MaxItems") or PAGE)
        more = start + size < len(results)
        return {
            "EvaluationResults": results[start : start + size],
            "IsTruncated": more,
            **({"Marker": str(start + size)} if more else {}),
        }


def documents(arn: str) -> Iterator[str]:
    """The policy documents of a user, with those of its groups, of a group or of a role.

    Raises
    ------
    AWSError
        When there is none of this ARN.
    """
    from moto.iam import iam_backends

    iam = iam_backends[ACCOUNT]["aws"]
    every = itertools.chain(iam.users.values(), iam.roles.values(), iam.groups.values())
    found = next((one for one in every if one.arn == arn), None)
    if found is None:
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:(user|role|group)/.+", arn):
            raise AWSError(
                "InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name."
            )
        raise AWSError("NoSuchEntity", f"The entity {arn} cannot be found.", 404)
    yield from _own(found)
    for group in iam.groups.values():
        if any(user is found for user in group.users):
            yield from _own(group)


def _own(entity: Any) -> Iterator[str]:
    """The policy documents that an entity has itself."""
    yield from entity.policies.values()
    for policy in entity.managed_policies.values():
        yield from (version.document for version in policy.versions if version.is_default)


def _value(entry: Mapping[str, Any]) -> Any:
    values = entry.get("ContextKeyValues", [])
    return values if entry.get("ContextKeyType", "").endswith("List") else "".join(values[:1])


def _checked(action: str) -> str:
    if not ACTION.fullmatch(action):
        raise AWSError("InvalidInput", f"Invalid Action: {action}.")
    return action


def _result(
    policies: Sequence[str], action: str, resources: Sequence[str], context: Mapping[str, Any]
) -> dict[str, Any]:
    decisions = {resource: _decision(policies, action, resource, context) for resource in resources}
    told = next((one for one in decisions.values() if one != "allowed"), "allowed")
    single = [
        {"EvalResourceName": resource, "EvalResourceDecision": decision, "MatchedStatements": []}
        for resource, decision in decisions.items()
        if resource != "*"
    ]
    return {
        "EvalActionName": action,
        "EvalResourceName": "*",
        "EvalDecision": told,
        "MatchedStatements": [],
        "MissingContextValues": [],
        **({"ResourceSpecificResults": single} if single else {}),
    }


def _decision(policies: Sequence[str], action: str, resource: str, context: Mapping[str, Any]) -> str:
    try:
        return DECISIONS[verdict(policies, Need(action=action, resource=resource, context=context))]
    except Unevaluated as error:
        raise AWSError("PolicyEvaluation", str(error), 500) from error
