"""What a caller's policies must allow for a call, the actions that a call takes along included.

https://docs.aws.amazon.com/service-authorization/latest/reference/ lists them for each service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.account import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudprovider.emulator.wire import Request

#: The prefix that a service's actions have in policies, where botocore calls the service otherwise.
PREFIXES = {"resourcegroupstaggingapi": "tag", "service-quotas": "servicequotas"}
#: What must be allowed too when a call that makes something also tags it.
TAGGING = {
    "ecs": "ecs:TagResource",
    "ec2": "ec2:CreateTags",
    "iam": "iam:TagRole",
    "logs": "logs:TagResource",
    "secretsmanager": "secretsmanager:TagResource",
    "ssm": "ssm:AddTagsToResource",
}
TAGS = ("tags", "Tags", "TagSpecifications", "TagSpecification")
#: Always allowed: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
FREE = frozenset({"sts:GetCallerIdentity"})


def needed(request: Request) -> Iterator[tuple[str, str]]:
    """Each action a call needs, with the resource it is on; `*` where the resource is not known."""
    parameters: Mapping[str, Any] = request.parameters or {}
    action = f"{PREFIXES.get(request.service, request.service)}:{request.operation}"
    if action in FREE:
        return
    resource = _resource(request, parameters)
    yield action, resource
    tags = TAGGING.get(request.service, action)
    if tags != action and any(parameters.get(name) for name in TAGS):
        yield tags, "*"
    if request.service == "ecs":
        yield from _passed(parameters)
    if request.service == "ec2":
        yield from _of_instances(request, parameters)


def _passed(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    overrides = parameters.get("overrides") or {}
    for name in ("executionRoleArn", "taskRoleArn"):
        if arn := overrides.get(name) or parameters.get(name):
            yield "iam:PassRole", arn


def _of_instances(request: Request, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What an order of instances takes along: a fleet the order itself, a profile the passing of its role."""
    if request.operation == "CreateFleet":
        yield "ec2:RunInstances", "*"
    if request.operation not in ("RunInstances", "CreateFleet"):
        return
    for arn in _profile_roles(request, parameters):
        yield "iam:PassRole", arn


def _profile_roles(request: Request, parameters: Mapping[str, Any]) -> Iterator[str]:
    """The roles of the instance profiles that an order names, itself or in its launch templates."""
    from moto.ec2 import ec2_backends

    backend = ec2_backends[ACCOUNT][request.region]
    configs = parameters.get("LaunchTemplateConfigs") or []
    specifications = [one.get("LaunchTemplateSpecification") or {} for one in configs]
    specifications.append(parameters.get("LaunchTemplate") or {})
    profiles = [parameters.get("iamInstanceProfile")]
    for given in specifications:
        name = given.get("LaunchTemplateName")
        id = given.get("LaunchTemplateId") or backend.launch_template_name_to_ids.get(name)
        template = backend.launch_templates.get(id)
        profiles += (
            [version.data.get("IamInstanceProfile") for version in template.versions] if template else []
        )
    for profile in filter(None, profiles):
        found = roles.profile(
            ACCOUNT, profile.get("Arn") or profile.get("arn"), profile.get("Name") or profile.get("name")
        )
        yield from (role.arn for role in (found.roles if found else ()))


def _resource(request: Request, parameters: Mapping[str, Any]) -> str:
    region = request.region
    if request.service == "ssm" and "Name" in parameters:
        return f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{parameters['Name'].lstrip('/')}"
    if request.service == "iam" and "InstanceProfileName" in parameters:
        return f"arn:aws:iam::{ACCOUNT}:instance-profile/{parameters['InstanceProfileName']}"
    if request.service == "iam" and "RoleName" in parameters:
        return f"arn:aws:iam::{ACCOUNT}:role/{parameters['RoleName']}"
    if request.service == "logs" and "logGroupName" in parameters:
        return f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{parameters['logGroupName']}:*"
    if request.operation in ("RunTask", "DescribeTaskDefinition") and "taskDefinition" in parameters:
        name = parameters["taskDefinition"].rpartition("/")[2]
        return f"arn:aws:ecs:{region}:{ACCOUNT}:task-definition/{name}"
    return "*"


def missing(request: Request, policies: Iterable[str | Mapping[str, Any]]) -> tuple[str, str] | None:
    """The first action that a call needs and policies do not allow, and its resource; None when they allow all."""
    documents = [policy if isinstance(policy, str) else dict(policy) for policy in policies]
    for action, resource in needed(request):
        if not roles.allows(documents, action, resource):
            return action, resource
    return None
