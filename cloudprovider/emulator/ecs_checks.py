"""What ECS refuses before anything happens: definitions and orders that cannot work."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GB = 1024
#: CPU units: the least and the most memory in MiB, and its step.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
SIZES = {
    256: (512, 2 * GB, None),
    512: (1 * GB, 4 * GB, GB),
    1024: (2 * GB, 8 * GB, GB),
    2048: (4 * GB, 16 * GB, GB),
    4096: (8 * GB, 30 * GB, GB),
    8192: (16 * GB, 60 * GB, 4 * GB),
    16384: (32 * GB, 120 * GB, 8 * GB),
}
SMALLEST = (512, 1 * GB, 2 * GB)  # what goes with 256 CPU units
STORAGE_GB = (21, 200)
MAX_STOP_TIMEOUT_S = 120
MAX_OVERRIDES = 8192
MAX_DEFINITION = 64 * 1024
MAX_TAGS = 50
PARAMETER_LIMITS = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}
NETWORK_LIMITS = {"subnets": 16, "securityGroups": 5}
TAG_KEY = re.compile(r"[\w\s.:/=+@-]{1,128}")
TAG_VALUE = re.compile(r"[\w\s.:/=+@-]{0,256}")
CLIENT_TOKEN = re.compile(r"[!-~]{1,64}")
STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{1,128}")


@dataclass(frozen=True)
class Size:
    """How large a task is.

    Parameters
    ----------
    cpu
        CPU units, 1,024 a vCPU.
    memory
        MiB.
    storage_gb
        Ephemeral storage.
    gpus
        Whole GPUs of a container instance.
    """

    cpu: int
    memory: int
    storage_gb: int = 20
    gpus: int = 0

    @property
    def vcpus(self) -> float:
        """Virtual CPUs."""
        return self.cpu / GB

    def __str__(self) -> str:
        return f"{self.vcpus:g} vCPU, {self.memory / GB:g} GB"


def client_error(message: str) -> AWSError:
    """What ECS says to a request that cannot work."""
    return AWSError("ClientException", message)


def invalid(message: str) -> AWSError:
    """What ECS says to a parameter that cannot be."""
    return AWSError("InvalidParameterException", message)


def units(text: str, what: str) -> int:
    """CPU units or MiB, from `1024`, `1 vCPU` or `2 GB`."""
    match = re.fullmatch(r"\s*(\.?\d+(?:\.\d+)?)\s*(vcpu|gb)?\s*", str(text), re.IGNORECASE)
    if not match:
        raise client_error(f"Invalid '{what}' setting for task.")
    return int(float(match[1]) * (GB if match[2] else 1))


def fargate_size(cpu: str | None, memory: str | None, storage: Mapping[str, int] | None) -> Size:
    """The size that a definition says, when Fargate has it."""
    if not cpu or not memory:
        missing = "cpu" if not cpu else "memory"
        raise client_error(f"Fargate requires that '{missing}' be defined at the task level.")
    size = Size(units(cpu, "cpu"), units(memory, "memory"), (storage or {}).get("sizeInGiB", 20))
    low, high, step = SIZES.get(size.cpu, (1, 0, None))
    fits = low <= size.memory <= high and (
        size.memory in SMALLEST if step is None else size.memory % step == 0
    )
    if not fits:
        raise client_error(
            "No Fargate configuration exists for given values: "
            f"{size.cpu} CPU, {size.memory} memory. See the Amazon ECS documentation for the valid values."
        )
    if storage and not STORAGE_GB[0] <= size.storage_gb <= STORAGE_GB[1]:
        raise client_error("Ephemeral storage size must be between 21 and 200 GiB.")
    return size


def own_size(cpu: str | None, memory: str | None, containers: Sequence[Mapping[str, Any]]) -> Size:
    """What a task takes of a container instance: what its definition says, or else its containers."""
    each = [(one.get("cpu", 0), one.get("memoryReservation") or one.get("memory") or 0) for one in containers]
    return Size(
        units(cpu, "cpu") if cpu else sum(cpu for cpu, _ in each),
        units(memory, "memory") if memory else sum(memory for _, memory in each),
        gpus=sum(map(gpus, containers)),
    )


def gpus(container: Mapping[str, Any]) -> int:
    """How many GPUs a container of a definition asks for.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ResourceRequirement.html
    """
    wanted = container.get("resourceRequirements") or []
    return sum(int(one["value"]) for one in wanted if one["type"] == "GPU")


def check_launch(definition: Any, *, own: bool) -> None:
    """Refuse a launch type that a definition is not for."""
    if not own and "FARGATE" not in definition.compatibilities:
        raise invalid("Task definition does not support launch_type FARGATE.")
    if own and definition.network_mode != "awsvpc":
        raise AWSError("NotImplemented", "The emulated ECS runs tasks of network mode awsvpc only.", 501)


def check_definition(parameters: Mapping[str, Any]) -> None:
    """Refuse what RegisterTaskDefinition refuses."""
    if len(json.dumps(parameters, separators=(",", ":"))) > MAX_DEFINITION:
        raise client_error("Actual length: too long. Max allowed length is '65536' bytes.")
    check_tags(parameters.get("tags"))
    containers = parameters["containerDefinitions"]
    if not any(container.get("essential", True) for container in containers):
        raise client_error("At least one container must be marked as essential.")
    if "FARGATE" in parameters.get("requiresCompatibilities", []):
        _check_fargate(parameters, containers)


def _check_fargate(parameters: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> None:
    if parameters.get("networkMode") != "awsvpc":
        raise client_error("Fargate only supports network mode 'awsvpc'.")
    size = fargate_size(parameters.get("cpu"), parameters.get("memory"), parameters.get("ephemeralStorage"))
    role = parameters.get("executionRoleArn")
    for container in containers:
        if gpus(container):
            raise client_error("Fargate does not support GPU resource requirements.")
        if container.get("stopTimeout", 0) > MAX_STOP_TIMEOUT_S:
            raise client_error(f"Stop timeout must be at most {MAX_STOP_TIMEOUT_S} seconds on Fargate.")
        if container.get("memory", 0) > size.memory:
            name = container.get("name")
            raise client_error(f"The 'memory' setting for container '{name}' is greater than for the task.")
        needs = container.get("secrets") or container.get("repositoryCredentials")
        if needs and not role:
            raise client_error(
                "When you are specifying container secrets or a repositoryCredentials, "
                "you must also specify a value for 'executionRoleArn'."
            )
        if (container.get("logConfiguration") or {}).get("logDriver") == "awslogs" and not role:
            raise client_error(
                "Fargate requires task definition to have execution role ARN to support log driver awslogs."
            )
        for mapping in container.get("portMappings") or []:
            if mapping.get("hostPort", mapping["containerPort"]) != mapping["containerPort"]:
                raise client_error(
                    "When networkMode=awsvpc, the host ports and container ports in port mappings must match."
                )


def check_tags(tags: Sequence[Mapping[str, str]] | None) -> None:
    """Refuse tags that no ECS resource can have."""
    if len(tags or []) > MAX_TAGS:
        raise invalid(f"The maximum number of tags is {MAX_TAGS}.")
    for tag in tags or []:
        key, value = tag.get("key", ""), tag.get("value", "")
        if not TAG_KEY.fullmatch(key) or key.lower().startswith("aws:") or not TAG_VALUE.fullmatch(value):
            raise invalid(f"The tag {key!r} with the value {value!r} is not valid.")


def check_order(parameters: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse what RunTask refuses by its parameters alone; `names` are the definition's containers."""
    if not 1 <= parameters.get("count", 1) <= 10:  # noqa: PLR2004  (API_RunTask: "up to 10 tasks")
        raise invalid("Count should be between 1 and 10.")
    if parameters.get("launchType") and parameters.get("capacityProviderStrategy"):
        raise invalid("Specify only one of launchType and capacityProviderStrategy.")
    if parameters.get("propagateTags") == "SERVICE":
        raise invalid("propagateTags can not be SERVICE when running a task.")
    token = parameters.get("clientToken")
    if token is not None and not CLIENT_TOKEN.fullmatch(token):
        raise invalid("clientToken must be 1 to 64 characters in the range of 33-126.")
    started_by = parameters.get("startedBy")
    if started_by is not None and not STARTED_BY.fullmatch(started_by):
        raise invalid(
            "startedBy must be 1 to 128 letters, numbers, hyphens, forward slashes and underscores."
        )
    check_tags(parameters.get("tags"))
    overrides = parameters.get("overrides") or {}
    if len(json.dumps(overrides, separators=(",", ":"))) > MAX_OVERRIDES:
        raise invalid(f"Container Overrides length must be at most {MAX_OVERRIDES}")
    for override in overrides.get("containerOverrides", []):
        if override.get("name") not in names:
            raise invalid(
                f"Override for container named {override.get('name')} is not a container in the TaskDefinition."
            )


def check_network(parameters: Mapping[str, Any], ec2: Any, *, own: bool = False) -> Mapping[str, Any]:
    """The network that an order names, when it exists."""
    network = (parameters.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    if not network:
        raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    if own and network.get("assignPublicIp") == "ENABLED":
        raise invalid("Assign public IP is not supported for this launch type.")
    for name, limit in NETWORK_LIMITS.items():
        if len(network.get(name, [])) > limit:
            raise invalid(f"{name} can have at most {limit} items.")
    if not network["subnets"]:
        raise invalid("subnets can not be empty.")
    subnets = {subnet.id: subnet.vpc_id for subnet in ec2.describe_subnets()}
    groups = {id: vpc for vpc, of_vpc in ec2.groups.items() for id in of_vpc}
    vpcs = _known(network["subnets"], subnets, "subnet", "The subnet ID", "InvalidSubnetID.NotFound")
    if len(vpcs) > 1:
        raise invalid("Subnets must be in the same VPC.")
    wanted = network.get("securityGroups", [])
    if _known(wanted, groups, "security group", "The security group", "InvalidGroup.NotFound") - vpcs:
        raise invalid("Security groups and subnets must be in the same VPC.")
    return dict(network)


def _known(ids: Sequence[str], vpcs: Mapping[str, str], what: str, noun: str, code: str) -> set[str]:
    """The networks of some resources, when each of them exists."""
    for id in ids:
        if id not in vpcs:
            raise invalid(
                f"Error retrieving {what} information for [{', '.join(ids)}]: "
                f"{noun} '{id}' does not exist (ErrorCode: {code})"
            )
    return {vpcs[id] for id in ids}


def check_role(account: str, arn: str, young_s: float, now: float) -> None:
    """Refuse a role that ECS could not assume; `young_s` is how long a new one cannot be used yet."""
    role = roles.find(account, arn)
    usable = role is not None and roles.assumable(role, roles.ECS_TASKS)
    if usable and role is not None and young_s:
        usable = now - _epoch(role.create_date) >= young_s
    if not usable:
        raise client_error(
            f"ECS was unable to assume the role '{arn}' that was provided for this task. "
            "Please verify that the role being passed has the proper trust relationship and permissions "
            "and that your IAM user has permissions to pass this role."
        )


def _epoch(moment: dt.datetime) -> float:
    """Seconds since the epoch; moto's moments are in UTC and do not say so."""
    return moment.replace(tzinfo=dt.UTC).timestamp()


def check_parameter(parameters: Mapping[str, Any]) -> None:
    """Refuse what the parameter store refuses of PutParameter."""
    tier = parameters.get("Tier", "Standard")
    limit = PARAMETER_LIMITS[tier]
    if len(parameters["Value"].encode()) > limit:
        raise AWSError(
            "ValidationException",
            f"{tier} tier parameters support a maximum parameter value of {limit} characters. To create a larger "
            "parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, "
            "see https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html",
        )
    if parameters.get("Overwrite") and parameters.get("Tags"):
        raise AWSError(
            "ValidationException",
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please "
            "remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or "
            "RemoveTagsFromResource.",
        )
