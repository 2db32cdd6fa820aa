"""What policies must allow for a call: its actions, on which resources, under which conditions.

What an action is on, and which condition keys it has there, is data: `aws_actions.json`, as the service
authorization reference lists it. An action that is not listed is an error, and no leave.

https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import aws_along, aws_things
from cloudprovider.emulator.aws_policy import Need, Unevaluated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudprovider.emulator.aws_things import Thing
    from cloudprovider.emulator.wire import Request

__all__ = ["FREE", "action", "needs"]

#: The prefix that a service's actions have in policies, where botocore calls the service otherwise.
PREFIXES = {"resourcegroupstaggingapi": "tag", "service-quotas": "servicequotas"}
#: Always allowed: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
FREE = frozenset({"sts:GetCallerIdentity"})
#: Condition keys of tags, by what they are the tags of.
GIVEN = ("aws:requesttag/",)
HELD = ("aws:resourcetag/", "ec2:resourcetag/", "ecs:resourcetag/", "iam:resourcetag/", "ssm:resourcetag/")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The reference, as far as the embedded cloud knows AWS.

    Parameters
    ----------
    rows
        Of each action, the condition keys by the type of what it is on; the type '' is everything.
    arns
        The form of the ARNs of each type.
    """

    rows: Mapping[str, Mapping[str, frozenset[str]]]
    arns: Mapping[str, str]


@functools.cache
def table() -> Table:
    """The reference, read once."""
    said = json.loads(Path(__file__).with_name("aws_actions.json").read_text("utf-8"))
    kinds = said["kinds"]
    rows: dict[str, dict[str, frozenset[str]]] = {
        name: {"": _keys(["ec2:Region"] if name.startswith("ec2:") else [])} for name in said["on everything"]
    }
    for name, one in said["actions"].items():
        prefix, common = name.partition(":")[0], _keys(one.get("keys", ()))
        rows[name] = {
            kind: common | _keys(keys) | _keys(kinds[f"{prefix}:{kind}"]["keys"] if kind else ())
            for kind, keys in ((key.rstrip("*"), keys) for key, keys in one.get("on", {"": ()}).items())
        }
    return Table(rows=rows, arns={kind: one["arn"] for kind, one in kinds.items()})


def _keys(names: Any) -> frozenset[str]:
    return frozenset(name.replace("${TagKey}", "").lower() for name in names)


def action(request: Request) -> str:
    """The action that a call is."""
    return f"{PREFIXES.get(request.service, request.service)}:{request.operation}"


def needs(request: Request) -> Iterator[Need]:
    """All that policies must allow for a call, the call's own action first.

    Raises
    ------
    Unevaluated
        When the reference, as we have it, does not list an action.
    """
    name = action(request)
    if name in FREE:
        return
    things = [*aws_things.things(request)]
    yield from _of(name, things, request)
    for dependent, concerned in aws_along.along(request):
        yield from _of(dependent, concerned, request)


def _of(name: str, things: list[Thing], request: Request) -> Iterator[Need]:
    rows = table().rows.get(name)
    if rows is None:
        raise Unevaluated(
            f"The emulated AWS cannot tell who may call {name}: it is not in its table of actions."
        )
    if "" in rows:
        facts = things[0].facts if things else {}
        yield _need(name, "*", rows[""], aws_things.Thing(kind="", facts=facts), request)
        return
    fitting = [thing for thing in things if thing.kind in rows]
    if not fitting:
        raise Unevaluated(f"The emulated AWS cannot tell what this call of {name} is on.")
    for thing in fitting:
        yield _need(name, _arn(name, thing, request), rows[thing.kind], thing, request)


def _arn(name: str, thing: Thing, request: Request) -> str:
    if thing.arn:
        return thing.arn
    prefix = name.partition(":")[0]
    return aws_things.filled(table().arns[f"{prefix}:{thing.kind}"], thing.name, request.region)


def _need(name: str, arn: str, keys: frozenset[str], thing: Thing, request: Request) -> Need:
    """What is needed on one resource, with those of the condition keys that the action has there."""
    families = tuple(key for key in keys if key.endswith("/"))
    known = {
        key: value
        for key, value in _context(thing, request).items()
        if key in keys or (families and key.startswith(families))
    }
    return Need(
        action=name,
        resource=arn,
        context={**aws_things.everywhere(request), **known},
        unknown=keys - aws_things.TOLD - {*GIVEN, *HELD},
    )


def _context(thing: Thing, request: Request) -> dict[str, Any]:
    known: dict[str, Any] = {
        f"{prefix}{key.lower()}": value for prefix in GIVEN for key, value in thing.given.items()
    }
    known |= {f"{prefix}{key.lower()}": value for prefix in HELD for key, value in thing.held.items()}
    if thing.given:
        known["aws:tagkeys"] = [*thing.given]
    return {**known, "ec2:region": request.region, **thing.facts}
