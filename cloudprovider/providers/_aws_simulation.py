"""What somebody may do on AWS, by simulation of a policy of ours: nothing is called but IAM's simulator.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.config import listed
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudprovider.providers._aws import AWS

__all__ = ["Lack", "Trial", "actions", "lacks", "simulate_request", "trials", "with_roles"]

#: In the place of what a policy's pattern leaves open.
SAMPLE = "dask-doctor"
#: Colons of an ARN whose sixth part is everything.
WHOLE_ACCOUNT = 5
#: Side by side: IAM has low rates.
WIDTH = 8
ALLOWED = "allowed"

Context = tuple[tuple[str, tuple[str, ...], str], ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Actions that are tried on the same resources, under the same circumstances.

    Parameters
    ----------
    actions
        Such as `ecs:RunTask`.
    resources
        ARNs, or `*` alone.
    context
        Condition keys with their values and type.
    """

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: Context


@dataclass(frozen=True, kw_only=True)
class Lack:
    """What may not be done.

    Parameters
    ----------
    action, resource
        What, on what; `*` where it is on nothing in particular.
    why
        `implicitDeny` where no policy allows it, `explicitDeny` where one forbids it.
    above
        Who forbids it from above: `organization` or `boundary`; empty where neither does.
    """

    action: str
    resource: str
    why: str
    above: str = ""


def trials(policy: Mapping[str, Any]) -> list[Trial]:
    """What is to be tried of a policy: each statement's actions on samples of its resources, as its conditions want."""
    tried: dict[tuple[tuple[str, ...], Context], list[str]] = {}
    for statement in policy["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        resources = tuple(_sample(resource) for resource in listed(statement["Resource"]))
        context = tuple(_context(statement.get("Condition", {})))
        named = [action for action in listed(statement["Action"]) if "*" not in action]
        tried.setdefault((resources, context), []).extend(named)
    return [
        Trial(actions=tuple(dict.fromkeys(some)), resources=resources, context=context)
        for (resources, context), some in tried.items()
    ]


def actions(policy: Mapping[str, Any]) -> list[str]:
    """The actions of a policy, each once."""
    return sorted({action for trial in trials(policy) for action in trial.actions})


def with_roles(policy: str, roles: Mapping[str, str | None]) -> str:
    """A policy, as JSON, about the roles of a user's own instead of ours, and without those that nobody needs.

    Parameters
    ----------
    policy
        The policy.
    roles
        By the name of a role or an instance profile of ours: the name or ARN of another, or None.
    """

    def own(resource: str) -> str | None:
        where, _, name = resource.rpartition("/")
        if where.rpartition(":")[2] not in ("role", "instance-profile") or name not in roles:
            return resource
        other = roles[name]
        return other if other is None or other.startswith("arn:") else f"{where}/{other}"

    document = json.loads(policy)
    for statement in document["Statement"]:
        resources = [own(resource) for resource in listed(statement["Resource"])]
        statement["Resource"] = [resource for resource in resources if resource]
    document["Statement"] = [one for one in document["Statement"] if one["Resource"]]
    return json.dumps(document)


def _sample(resource: str) -> str:
    """A resource that a pattern fits, as its service would name one."""
    # Everything in an account; what follows it is a kind and a name.
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
    if resource.endswith(":*") and resource.count(":") == WHOLE_ACCOUNT:
        return f"{resource[:-1]}instance/{SAMPLE}"
    if resource == "*":
        return resource
    return resource.replace("*", SAMPLE)


def _context(conditions: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Values under which conditions hold."""
    for operator, keys in conditions.items():
        for key, given in keys.items():
            values = tuple(str(value).replace("*", SAMPLE) for value in listed(given))
            if operator == "Null":
                if values[0].lower() == "false":  # the key must be there
                    yield key, (SAMPLE,), "string"
            elif operator.startswith("For"):
                yield key, values, "stringList"
            else:
                yield key, values[:1], "boolean" if operator == "Bool" else "string"


def simulate_request(trial: Trial, source: str) -> dict[str, Any]:
    """The SimulatePrincipalPolicy call of one trial, for a user, a group or a role."""
    entries = [
        {"ContextKeyName": key, "ContextKeyValues": list(values), "ContextKeyType": kind}
        for key, values, kind in trial.context
    ]
    return {
        "PolicySourceArn": source,
        "ActionNames": list(trial.actions),
        **({} if trial.resources == ("*",) else {"ResourceArns": list(trial.resources)}),
        **({"ContextEntries": entries} if entries else {}),
    }


def lacks(aws: AWS, source: str, policy: str) -> list[Lack]:
    """What of a policy, as JSON, a user or role may not do.

    Parameters
    ----------
    aws
        The session.
    source
        The ARN of the user or role.
    policy
        The policy.

    Raises
    ------
    CredentialsError
        When the caller may not simulate.
    """
    ask = partial(aws.pages, "iam", "simulate_principal_policy", "EvaluationResults")
    wanted = trials(json.loads(policy))
    answers = side_by_side((partial(ask, **simulate_request(trial, source)) for trial in wanted), WIDTH)
    found = [lack for trial, answer in zip(wanted, answers, strict=True) for lack in _lacking(trial, answer)]
    return sorted(found, key=lambda lack: (lack.action, lack.resource))


def _lacking(trial: Trial, results: Sequence[Mapping[str, Any]]) -> Iterator[Lack]:
    """What was refused, of each action on the kinds of resources that it is about.

    Which those are of a statement of several actions, the answer says: some are allowed.
    """
    for result in results:
        single = {"EvalResourceName": "*", "EvalResourceDecision": result["EvalDecision"]}
        each = result.get("ResourceSpecificResults") or [single]
        refused = [one for one in each if one["EvalResourceDecision"] != ALLOWED]
        if len(trial.actions) > 1 and len(refused) < len(each):
            kinds = {_kind(one) for one in each if one["EvalResourceDecision"] == ALLOWED}
            refused = [one for one in refused if _kind(one) in kinds]
        for one in refused:
            yield Lack(
                action=result["EvalActionName"],
                resource=one["EvalResourceName"],
                why=one["EvalResourceDecision"],
                above=_above({**result, **one}),
            )


def _kind(result: Mapping[str, Any]) -> str:
    """What kind of resource an ARN is of."""
    return str(result["EvalResourceName"]).split(":", 5)[-1].partition("/")[0]


def _above(result: Mapping[str, Any]) -> str:
    if result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is False:
        return "organization"
    bounded = result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary")
    return "boundary" if bounded is False else ""
