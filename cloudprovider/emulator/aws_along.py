"""What a call of AWS takes along: the tags it gives, the roles it passes, the roles that services make of themselves.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.aws_things import Thing, definition, machines, parameters, things

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudprovider.emulator.wire import Request

__all__ = ["LINKED", "along", "linked"]

#: What must be allowed too when a call that makes something also tags it.
TAGGING = {
    "ec2": "ec2:CreateTags",
    "ecs": "ecs:TagResource",
    "logs": "logs:TagResource",
    "ssm": "ssm:AddTagsToResource",
}
#: IAM has an action for each kind of resource.
TAGGING_ROLES = {"CreateRole": "iam:TagRole", "CreateInstanceProfile": "iam:TagInstanceProfile"}
#: The condition key that says which call tags what it makes.
CREATES = {"ec2": "ec2:createaction", "ecs": "ecs:createaction"}
#: The services that make a role of their own at their first use in an account, and what that is called.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using-service-linked-roles.html
#: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html
LINKED = {
    "ecs.amazonaws.com": "AWSServiceRoleForECS",
    "ec2fleet.amazonaws.com": "AWSServiceRoleForEC2Fleet",
    "spot.amazonaws.com": "AWSServiceRoleForEC2Spot",
}


def along(request: Request) -> Iterator[tuple[str, list[Thing]]]:
    """Each further action that a call needs, and what that is on."""
    given = parameters(request)
    if (request.service, request.operation) == ("ec2", "CreateFleet"):
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html
        yield "ec2:RunInstances", [thing for thing in things(request) if thing.kind != "fleet"]
    yield from _tagging(request, given)
    yield from _passing(request, given)


def _tagging(request: Request, given: Mapping[str, Any]) -> Iterator[tuple[str, list[Thing]]]:
    name = TAGGING_ROLES.get(request.operation) or TAGGING.get(request.service, "")
    if not name or name.endswith(f":{request.operation}"):
        return
    tagged = [thing for thing in things(request) if thing.given]
    if request.service == "ec2":
        tagged = [*_tagged_by_ec2(request, given)]
    elif request.service == "ecs":
        tagged = [_tagged_by_ecs(request, given, thing) for thing in tagged[:1]]
    elif request.service == "logs":  # the ARN of a group itself, which its tags are on, ends with its name
        tagged = [dataclasses.replace(thing, arn=thing.arn.removesuffix(":log-stream:")) for thing in tagged]
    if tagged:
        yield name, tagged


def _tagged_by_ecs(request: Request, given: Mapping[str, Any], thing: Thing) -> Thing:
    facts = {**thing.facts, CREATES["ecs"]: request.operation}
    if request.operation != "RunTask":
        return dataclasses.replace(thing, facts=facts)
    cluster = str(given.get("cluster") or "default").rpartition("/")[2]
    return Thing(kind="task", name=f"{cluster}/*", given=thing.given, facts=facts)


def _tagged_by_ec2(request: Request, given: Mapping[str, Any]) -> Iterator[Thing]:
    """What an order tags, each type of resource for itself; a fleet's machines get their template's tags, too."""
    orders = [(given, request.operation)]
    if request.operation == "CreateFleet":
        orders += [(order, "RunInstances") for order in machines(request, given)]
    elif request.operation == "RunInstances":
        orders = [(order, "RunInstances") for order in machines(request, given)]
    seen = []
    for order, creates in orders:
        for one in order.get("TagSpecifications") or ():
            tags = {tag["Key"]: tag.get("Value", "") for tag in one.get("Tags") or ()}
            thing = Thing(kind=one["ResourceType"], given=tags, facts={CREATES["ec2"]: creates})
            if tags and thing not in seen:
                seen.append(thing)
                yield thing


# -- roles -----------------------------------------------------------------------------------------------


def _passing(request: Request, given: Mapping[str, Any]) -> Iterator[tuple[str, list[Thing]]]:
    passed = dict.fromkeys(_passed(request, given))
    if passed:
        yield (
            "iam:PassRole",
            [Thing(kind="role", arn=arn, facts={"iam:passedtoservice": service}) for arn, service in passed],
        )


def _passed(request: Request, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The roles that a call hands to a service, and which."""
    if request.operation in ("RegisterTaskDefinition", "RunTask"):
        for arn in _task_roles(request, given):
            yield arn, roles.ECS_TASKS
    if request.operation in ("RunInstances", "CreateFleet"):
        for order in machines(request, given):
            for arn in _profile_roles(order.get("IamInstanceProfile") or {}):
                yield arn, "ec2.amazonaws.com"
    if request.operation == "AddRoleToInstanceProfile" and (role := roles.find(ACCOUNT, given["RoleName"])):
        yield role.arn, "ec2.amazonaws.com"


def _task_roles(request: Request, given: Mapping[str, Any]) -> Iterator[str]:
    """The roles of a task: those of the call over those of its definition."""
    overrides = given.get("overrides") or {}
    defined = None
    if "taskDefinition" in given:
        defined = definition(request.region, str(given["taskDefinition"]).rpartition("/")[2])
    for name, attribute in (("executionRoleArn", "execution_role_arn"), ("taskRoleArn", "task_role_arn")):
        if arn := overrides.get(name) or given.get(name) or getattr(defined, attribute, None):
            known = roles.find(ACCOUNT, arn)
            yield known.arn if known else arn


def _profile_roles(profile: Mapping[str, Any]) -> Iterator[str]:
    found = roles.profile(ACCOUNT, profile.get("Arn"), profile.get("Name")) if profile else None
    yield from (role.arn for role in (found.roles if found else ()))


def linked(request: Request) -> Iterator[Thing]:
    """The roles that services make for themselves at a call, unless they are there."""
    given = parameters(request)
    if (request.service, request.operation) == ("ecs", "CreateCluster"):
        yield _linked("ecs.amazonaws.com")
    if request.service == "ec2" and request.operation == "CreateFleet":
        yield _linked("ec2fleet.amazonaws.com")
    if request.service == "ec2" and _orders_spot(request.operation, given):
        yield _linked("spot.amazonaws.com")


def _linked(service: str) -> Thing:
    name = f"aws-service-role/{service}/{LINKED[service]}"
    return Thing(kind="role", name=name, facts={"iam:awsservicename": service})


def _orders_spot(operation: str, given: Mapping[str, Any]) -> bool:
    if operation == "CreateFleet":
        target = given.get("TargetCapacitySpecification") or {}
        return target.get("DefaultTargetCapacityType") == "spot" or bool(target.get("SpotTargetCapacity"))
    options = given.get("InstanceMarketOptions") or {}
    return operation == "RunInstances" and options.get("MarketType") == "spot"
