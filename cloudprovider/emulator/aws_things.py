"""What a call of AWS is on: resources that are there, with their tags, and those that it is to make."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import wire_xml
from cloudprovider.emulator.account import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudprovider.emulator.wire import Request

__all__ = [
    "TOLD",
    "Thing",
    "definition",
    "everywhere",
    "filled",
    "machines",
    "parameters",
    "tags_in",
    "things",
]

PARTITION = "aws"
#: The condition keys that the emulator tells where a call has them.
TOLD = frozenset(
    {
        *("aws:tagkeys", "ec2:region", "ec2:createaction", "ec2:instancetype", "ec2:instanceprofile"),
        *("ec2:subnetid", "ec2:securitygroupid", "ec2:imageid", "ec2:instanceid", "ec2:vpcid"),
        *("ec2:metadatahttptokens", "ec2:instancemarkettype"),
        *("ecs:cluster", "ecs:createaction", "ecs:enable-execute-command", "ecs:capacity-provider"),
        *("iam:passedtoservice", "iam:awsservicename", "iam:policyarn"),
        *("ssm:overwrite", "ssm:recursive", "servicequotas:service"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A resource that a call is on.

    Parameters
    ----------
    kind
        As the service authorization reference calls it: `task-definition`.
    name
        The last part of its ARN; `*` for one that the call is to make.
    arn
        The whole of it, where it is known.
    held, given
        The tags that it has, and those that the call gives it.
    facts
        Other condition keys.
    """

    kind: str
    name: str = "*"
    arn: str = ""
    held: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def filled(template: str, name: str, region: str) -> str:
    """An ARN of the reference's form: all that is not the account's is the name."""
    head = {"Partition": PARTITION, "Region": region, "Account": ACCOUNT}
    text = re.sub(r"\$\{(Partition|Region|Account)\}", lambda match: head[match[1]], template)
    return re.sub(r"\$\{.*\}", lambda _: name, text)


def everywhere(request: Request) -> dict[str, Any]:
    """The condition keys that every call has.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    region = "us-east-1" if request.service in ("iam", "sts") else request.region
    return {"aws:requestedregion": region, "aws:principalaccount": ACCOUNT, "aws:securetransport": "false"}


def parameters(request: Request) -> dict[str, Any]:
    """The parameters of a call, in botocore's names."""
    return wire_xml.named(request) if request.protocol != "json" else dict(request.parameters or {})


def tags_in(tags: Any) -> dict[str, str]:
    """Tags, however a service writes them: as pairs, or as a document."""
    if isinstance(tags, dict):
        return {str(key): str(value) for key, value in tags.items()}
    pairs = [{key.lower(): value for key, value in tag.items()} for tag in tags or ()]
    return {str(pair["key"]): str(pair.get("value", "")) for pair in pairs}


def things(request: Request) -> Iterator[Thing]:
    """What a call is on; nothing where its service is none of those whose resources we know."""
    if of_service := SERVICES.get(request.service):
        yield from of_service(request, parameters(request))


# -- EC2 -----------------------------------------------------------------------------------------------

#: Which parameters name which resources.
NAMED = {
    "InstanceIds": "instance",
    "InstanceId": "instance",
    "GroupId": "security-group",
    "VpcId": "vpc",
    "LaunchTemplateId": "launch-template",
    "LaunchTemplateName": "launch-template",
}
#: What each operation makes.
MADE = {"CreateSecurityGroup": "security-group", "CreateLaunchTemplate": "launch-template"}
#: The kinds of resources, by the beginning of their ids.
KINDS = {
    "i-": "instance",
    "sg-": "security-group",
    "lt-": "launch-template",
    "vol-": "volume",
    "eni-": "network-interface",
    "subnet-": "subnet",
    "vpc-": "vpc",
    "ami-": "image",
    "fleet-": "fleet",
    "sir-": "spot-instances-request",
}


def _of_ec2(request: Request, given: dict[str, Any]) -> Iterator[Thing]:
    made = MADE.get(request.operation)
    tags = _specified(given)
    if request.operation in ("RunInstances", "CreateFleet"):
        yield from _of_order(request, given)
        return
    if request.operation in ("CreateTags", "DeleteTags"):
        own = tags_in(given.get("Tags"))
        for id in given.get("Resources", ()):
            yield _ec2(request.region, _kind_of(id), id, own)
        return
    if made:
        yield Thing(kind=made, given=tags.get(made, {}))
    for parameter, kind in NAMED.items():
        if kind != made:
            for id in _several(given.get(parameter)):
                yield _ec2(
                    request.region, kind, _template_id(request.region, id) if "Template" in parameter else id
                )


def _specified(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The tags of a call that makes something, by the type of what they are for."""
    found: dict[str, dict[str, str]] = {}
    for one in given.get("TagSpecifications") or ():
        found.setdefault(one["ResourceType"], {}).update(tags_in(one.get("Tags")))
    return found


def _kind_of(id: str) -> str:
    return next((kind for start, kind in KINDS.items() if id.startswith(start)), "")


def _ec2(region: str, kind: str, id: str, given: Mapping[str, str] | None = None) -> Thing:
    """A resource of EC2's that is there, with its tags."""
    from moto.ec2 import ec2_backends

    held = ec2_backends[ACCOUNT][region].tags.get(id, {})
    facts = {f"ec2:{kind.replace('-', '')}id": id}
    return Thing(kind=kind, name=id, held=dict(held), given=given or {}, facts=facts)


def _template_id(region: str, name: str) -> str:
    from moto.ec2 import ec2_backends

    return str(ec2_backends[ACCOUNT][region].launch_template_name_to_ids.get(name, name))


def machines(request: Request, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What RunInstances would be asked for the machines that a call orders, its launch templates' own included."""
    from moto.ec2 import ec2_backends

    from cloudprovider.emulator import ec2_fleets, ec2_orders

    backend = ec2_backends[ACCOUNT][request.region]
    if request.operation == "RunInstances":
        yield ec2_orders.merged(backend, given)[0]
    else:
        for asked in ec2_fleets.orders(request.region, given):
            yield ec2_orders.merged(backend, asked)[0]


def _of_order(request: Request, given: dict[str, Any]) -> Iterator[Thing]:
    """What RunInstances and CreateFleet are on: the second also on the fleet, and on the same machines."""
    if request.operation == "CreateFleet":
        yield Thing(kind="fleet", given=_specified(given).get("fleet", {}))
    seen = set()
    for order in machines(request, given):
        for thing in _of_machine(request.region, order):
            if (key := (thing.kind, thing.name, str(thing.facts))) not in seen:
                seen.add(key)
                yield thing


def _of_machine(region: str, order: Mapping[str, Any]) -> Iterator[Thing]:
    tags = _specified(order)
    profile = order.get("IamInstanceProfile") or {}
    facts = {
        "ec2:instancetype": order.get("InstanceType", ""),
        "ec2:instancemarkettype": (order.get("InstanceMarketOptions") or {}).get("MarketType", "on-demand"),
    }
    if tokens := (order.get("MetadataOptions") or {}).get("HttpTokens"):
        facts["ec2:metadatahttptokens"] = tokens
    if profile:
        name = profile.get("Name", "").rpartition("/")[2]
        facts["ec2:instanceprofile"] = profile.get("Arn") or f"arn:aws:iam::{ACCOUNT}:instance-profile/{name}"
    interfaces = order.get("NetworkInterfaces") or [order]
    yield _ec2(region, "image", order.get("ImageId", ""))
    yield Thing(kind="instance", given=tags.get("instance", {}), facts=facts)
    yield Thing(kind="network-interface", given=tags.get("network-interface", {}))
    yield Thing(kind="volume", given=tags.get("volume", {}))
    for interface in interfaces:
        for id in interface.get("Groups") or interface.get("SecurityGroupIds") or ["*"]:
            yield _ec2(region, "security-group", id)
        yield _ec2(region, "subnet", interface.get("SubnetId") or "*")
    if name := order.get("KeyName"):
        yield Thing(kind="key-pair", name=name)
    template = order.get("LaunchTemplate") or {}
    if id := template.get("LaunchTemplateId") or template.get("LaunchTemplateName"):
        yield _ec2(region, "launch-template", _template_id(region, id))
    for device in order.get("BlockDeviceMappings") or ():
        if id := (device.get("Ebs") or {}).get("SnapshotId"):
            yield Thing(kind="snapshot", name=id)


# -- ECS -----------------------------------------------------------------------------------------------


def _of_ecs(request: Request, given: dict[str, Any]) -> Iterator[Thing]:
    tags = tags_in(given.get("tags"))
    cluster = str(given.get("cluster") or "default").rpartition("/")[2]
    facts: dict[str, Any] = {"ecs:cluster": filled(CLUSTER, cluster, request.region)}
    if "enableExecuteCommand" in given:
        facts["ecs:enable-execute-command"] = str(bool(given["enableExecuteCommand"])).lower()
    if providers := given.get("capacityProviders") or given.get("capacityProviderStrategy"):
        facts["ecs:capacity-provider"] = [
            one if isinstance(one, str) else one["capacityProvider"] for one in providers
        ]
    for kind, name in _ecs_names(request.operation, given, cluster):
        yield Thing(kind=kind, name=name, held=_held(request.region, kind, name), given=tags, facts=facts)
    if "taskDefinition" in given or "taskDefinitions" in given or "family" in given:
        for name in _definitions(request, given):
            held = _held(request.region, "task-definition", name)
            yield Thing(kind="task-definition", name=name, held=held, given=tags, facts=facts)


CLUSTER = "arn:${Partition}:ecs:${Region}:${Account}:cluster/${ClusterName}"


def _ecs_names(operation: str, given: Mapping[str, Any], cluster: str) -> Iterator[tuple[str, str]]:
    if operation == "CreateCluster":
        yield "cluster", str(given.get("clusterName") or "default")
    elif operation == "DescribeClusters":
        for name in given.get("clusters") or ["default"]:
            yield "cluster", name.rpartition("/")[2]
    elif operation in ("DeleteCluster", "ListContainerInstances", "ExecuteCommand"):
        yield "cluster", cluster
    if operation == "ListTasks":
        yield "container-instance", f"{cluster}/*"
    for name in (*_several(given.get("task")), *_several(given.get("tasks"))):
        yield "task", f"{cluster}/{name.rpartition('/')[2]}"
    for name in _several(given.get("containerInstances")):
        yield "container-instance", f"{cluster}/{name.rpartition('/')[2]}"
    if arn := given.get("resourceArn"):
        kind, _, name = arn.split(":", 5)[5].partition("/")
        yield kind, name


def _definitions(request: Request, given: Mapping[str, Any]) -> Iterator[str]:
    """The task definitions of a call, each as `family:revision`."""
    if request.operation == "RegisterTaskDefinition":
        yield f"{given['family']}:*"
        return
    for text in (*_several(given.get("taskDefinition")), *_several(given.get("taskDefinitions"))):
        name = text.rpartition("/")[2]
        if ":" not in name and (newest := definition(request.region, name)) is not None:
            name = f"{name}:{newest.revision}"
        yield name


def definition(region: str, name: str) -> Any:
    """The task definition of this family, or family and revision; None when there is none."""
    from moto.ecs import ecs_backends

    family, _, revision = name.partition(":")
    known = ecs_backends[ACCOUNT][region].task_definitions.get(family) or {}
    if revision:
        return known.get(int(revision)) if revision.isdecimal() else None
    active = [number for number, one in known.items() if one.status == "ACTIVE"]
    return known[max(active)] if active else None


def _held(region: str, kind: str, name: str) -> dict[str, str]:
    """The tags of a resource of ECS's."""
    from moto.ecs import ecs_backends

    backend = ecs_backends[ACCOUNT][region]
    if kind == "task-definition":
        found = definition(region, name)
    elif kind == "task":
        cluster, _, id = name.partition("/")
        tasks = backend.tasks.get(cluster, {})
        found = next((task for arn, task in tasks.items() if arn.endswith(f"/{id}")), None)
    else:
        found = backend.clusters.get(name) if kind == "cluster" else None
    return tags_in(getattr(found, "tags", None))


# -- IAM, Systems Manager, CloudWatch Logs, and the rest -----------------------------------------------


def _of_iam(_: Request, given: dict[str, Any]) -> Iterator[Thing]:
    from moto.iam import iam_backends

    backend, tags = iam_backends[ACCOUNT]["aws"], tags_in(given.get("Tags"))
    facts = {"iam:policyarn": given["PolicyArn"]} if "PolicyArn" in given else {}
    if name := given.get("RoleName"):
        role = next((role for role in backend.roles.values() if role.name == name), None)
        held = _role_tags(role)
        path = given.get("Path", "/") if role is None else role.path
        yield Thing(
            kind="role", name=f"{path.strip('/')}/{name}".lstrip("/"), held=held, given=tags, facts=facts
        )
    if name := given.get("InstanceProfileName"):
        yield Thing(kind="instance-profile", name=name, given=tags)
    if name := given.get("UserName"):
        yield Thing(kind="user", name=name, given=tags)
    if arn := given.get("PolicySourceArn"):
        yield Thing(kind=arn.split(":", 5)[5].partition("/")[0], arn=arn)
    if service := given.get("AWSServiceName"):
        yield Thing(kind="role", name=f"aws-service-role/{service}/*", facts={"iam:awsservicename": service})


def _role_tags(role: Any) -> dict[str, str]:
    tags = getattr(role, "tags", None) or []  # moto keeps them as it was given them
    return tags_in([*tags.values()] if isinstance(tags, dict) else tags)


def _of_ssm(request: Request, given: dict[str, Any]) -> Iterator[Thing]:
    tags, facts = tags_in(given.get("Tags")), {}
    for key in ("Overwrite", "Recursive"):
        if key in given:
            facts[f"ssm:{key.lower()}"] = str(bool(given[key])).lower()
    named = [given[key] for key in ("Name", "Path") if key in given]
    if given.get("ResourceType") == "Parameter":
        named.append(given["ResourceId"])
    for name in (*named, *_several(given.get("Names"))):
        arn = name if name.startswith("arn:") else ""
        if name.startswith("/aws/"):  # AWS's own, which every account may have a policy for
            arn = f"arn:aws:ssm:{request.region}::parameter{name}"
        short = name.partition(":parameter")[2] if name.startswith("arn:") else name
        held = _parameter_tags(request.region, short)
        yield Thing(kind="parameter", name=short.lstrip("/"), arn=arn, held=held, given=tags, facts=facts)
    yield from _of_sessions(request, given)


def _parameter_tags(region: str, name: str) -> dict[str, str]:
    from moto.ssm import ssm_backends

    backend = ssm_backends[ACCOUNT][region]
    return tags_in(backend.list_tags_for_resource("Parameter", name)) if name in backend._parameters else {}


def _of_sessions(request: Request, given: Mapping[str, Any]) -> Iterator[Thing]:
    if id := given.get("SessionId"):
        yield Thing(kind="session", name=id)
    if document := given.get("DocumentName"):
        owner = "" if document.startswith(("AWS-", "Amazon")) else ACCOUNT
        yield Thing(kind="document", arn=f"arn:aws:ssm:{request.region}:{owner}:document/{document}")
    target = str(given.get("Target", ""))
    if target.startswith("ecs:"):
        cluster, task, *_ = target.removeprefix("ecs:").split("_")
        held = _held(request.region, "task", f"{cluster}/{task}")
        yield Thing(kind="task", name=f"{cluster}/{task}", held=held)
    elif target:
        yield _ec2(request.region, "instance", target)


def _of_logs(request: Request, given: dict[str, Any]) -> Iterator[Thing]:
    if group := given.get("logGroupName") or given.get("logGroupIdentifier"):
        head = filled("arn:${Partition}:logs:${Region}:${Account}:log-group:${Name}", group, request.region)
        if stream := given.get("logStreamName"):
            yield Thing(kind="log-stream", arn=f"{head}:log-stream:{stream}")
        # Calls about a whole group are on its streams: their ARN ends so.
        yield Thing(kind="log-group", arn=f"{head}:log-stream:", given=tags_in(given.get("tags")))
    if arn := given.get("resourceArn"):
        yield Thing(kind="log-group", arn=arn.removesuffix(":*"), given=tags_in(given.get("tags")))


def _of_quotas(_: Request, given: dict[str, Any]) -> Iterator[Thing]:
    service = given.get("ServiceCode", "*")
    name = f"{service}/{given.get('QuotaCode', '*')}"
    yield Thing(kind="quota", name=name, facts={"servicequotas:service": service})


def _of_secrets(_: Request, given: dict[str, Any]) -> Iterator[Thing]:
    if id := given.get("SecretId"):
        yield Thing(kind="Secret", name=f"{id}-??????", arn=id if id.startswith("arn:") else "")


def _of_sts(_: Request, given: dict[str, Any]) -> Iterator[Thing]:
    if arn := given.get("RoleArn"):
        yield Thing(kind="role", arn=arn)


def _several(value: Any) -> Iterable[str]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


SERVICES: dict[str, Callable[[Any, dict[str, Any]], Iterator[Thing]]] = {
    "ec2": _of_ec2,
    "ecs": _of_ecs,
    "iam": _of_iam,
    "logs": _of_logs,
    "secretsmanager": _of_secrets,
    "service-quotas": _of_quotas,
    "ssm": _of_ssm,
    "sts": _of_sts,
}
