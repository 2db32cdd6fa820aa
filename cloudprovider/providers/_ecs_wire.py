"""What ECS is told and what it answers: pure builders of requests, pure parsers of answers."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from cloudruntime.boot import BOOT, SCHEDULER, Boot
from cloudruntime.exits import explain

from cloudprovider import tags as ledger
from cloudprovider import templates
from cloudprovider.errors import CloudError, ConfigError
from cloudprovider.provider import Identity, Machine, State
from cloudprovider.providers import _ecs_names as names
from cloudprovider.providers._aws import because
from cloudprovider.providers._aws_names import parameter
from cloudprovider.providers._ecs_landing import Landing, ecs_tags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._ecs_config import TaskConfig

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
STATES = {
    "PROVISIONING": State.starting,
    "PENDING": State.starting,
    "ACTIVATING": State.starting,
    "RUNNING": State.running,
    "DEACTIVATING": State.gone,
    "STOPPING": State.gone,
    "DEPROVISIONING": State.gone,
    "STOPPED": State.gone,
    "DELETED": State.gone,
}
SPOT = "FARGATE_SPOT"
SECRET = "DASK_CLOUD_SECRET"  # noqa: S105  (the name of a variable)
RUNTIME = "DASK_CLOUD_RUNTIME"
PLACED = "dask-cloud.placed"
GB = 1024
MAX_DEFINITION = 64 * 1024  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
MAX_SUBNETS = 16  # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html


#: Where a machine sees a volume, and what it is: an EFS file system, and maybe an access point of it.
MOUNT = re.compile(r"/[\w./-]+")
VOLUME = re.compile(r"(fs-[0-9a-f]+)(?:/(fsap-[0-9a-f]+))?")


def kind_of(cpu: int, memory: int, architecture: str, storage: int = 20) -> str:
    """The size of a machine in words, from which `rate` reads its price."""
    disk = f", {storage} GiB disk" if storage > 20 else ""  # noqa: PLR2004  (20 are included)
    return f"{cpu / GB:g} vCPU, {memory / GB:g} GiB, {architecture.upper()}{disk}"


def task_definition_request(
    config: TaskConfig, identity: Identity, boot: Boot, landing: Landing, region: str, packed: str = ""
) -> dict[str, Any]:
    """The RegisterTaskDefinition call of one role.

    Parameters
    ----------
    config, identity, boot, landing, region
        What runs where, and whose it is.
    packed
        The runtime, for an image that does not carry it.

    Raises
    ------
    ConfigError
        When it is larger than ECS takes.
    """
    cpu, memory = config.size(boot.role)
    scheduler = boot.role == "scheduler"
    text = templates.render(
        "task-definition.json",
        family=names.family(identity.name, boot.role, boot.group),
        compatibility=config.compatibility,
        cpu=str(cpu),
        memory=str(memory),
        execution_role=landing.execution_role,
        task_role=landing.scheduler_role if scheduler else landing.task_role,
        architecture=config.architecture.upper(),
        image=boot.image,
        secret=parameter(identity.name, "machine"),
        log_group=landing.log_group,
        log_stream=names.log_prefix(identity.name),
        region=region,
    )
    request: dict[str, Any] = json.loads(text)
    [container] = request["containerDefinitions"]
    variables = {**boot.environment, BOOT: dataclasses.replace(boot, environment={}).dumps()}
    if packed:
        from cloudruntime.packing import BOOTSTRAP

        container["entryPoint"] = ["python", "-c", BOOTSTRAP]
        variables[RUNTIME] = packed
    container["environment"] = [{"name": name, "value": value} for name, value in variables.items()]
    container["dockerLabels"] = {PLACED: placed(config, landing)}
    if config.repository_credentials:
        container["repositoryCredentials"] = {"credentialsParameter": config.repository_credentials}
    if not scheduler and (storage := getattr(config, "ephemeral_storage", None)):
        request["ephemeralStorage"] = {"sizeInGiB": storage}
    if gpus := config.gpus(boot.role):
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-gpu-specifying.html
        container["resourceRequirements"] = [{"type": "GPU", "value": str(gpus)}]
    if config.volumes:
        request["volumes"], container["mountPoints"] = volumes(config.volumes)
    if boot.autonomous:
        from cloudprovider.providers import _ecs_manager

        request["containerDefinitions"] = [*_ecs_manager.beside(config, identity, boot, region, container)]
    request["tags"] = ecs_tags(ledger.for_machine(identity, boot.role, boot.group, config.tags))
    return _fitting(_merged(request, config.task_definition_args))


def volumes(wanted: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The volumes of a task definition, encrypted on the way, and where its container sees them."""
    found, points = [], []
    for number, (path, volume) in enumerate(wanted.items()):
        match = VOLUME.fullmatch(volume)
        system, point = match.groups() if match else (volume, None)
        efs: dict[str, Any] = {"fileSystemId": system, "transitEncryption": "ENABLED"}
        if point:
            efs["authorizationConfig"] = {"accessPointId": point}
        found.append({"name": f"volume-{number}", "efsVolumeConfiguration": efs})
        points.append({"sourceVolume": f"volume-{number}", "containerPath": path})
    return found, points


def _merged(request: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the user's own arguments, which may add and change but not take our place."""
    given = {**extra}
    containers = list(given.pop("containerDefinitions", [{}]))
    ours, *beside = request["containerDefinitions"]
    fixed = {"family", "tags", "networkMode", "executionRoleArn"} & set(given)
    fixed |= {"name", "image", "entryPoint", "environment", "secrets", "dockerLabels"} & set(containers[0])
    if fixed:
        raise ConfigError(
            f"task_definition_args has {', '.join(sorted(fixed))}, which this project sets itself."
        )
    return {**request, **given, "containerDefinitions": [{**ours, **containers[0]}, *beside, *containers[1:]]}


def _fitting(request: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(request).encode())
    if size > MAX_DEFINITION:
        own = sum(len(v["name"]) + len(v["value"]) for v in request["containerDefinitions"][0]["environment"])
        raise ConfigError(
            f"The task definition would be {size} bytes, of which its variables are {own}: ECS takes "
            f"{MAX_DEFINITION}. Make environment= smaller, or put large values into the image."
        )
    return request


def placed(config: TaskConfig, landing: Landing) -> str:
    """What another process needs to order more machines, as a label of the task definition."""
    own = (
        "public", "tunnel", "architecture", "spot", "capacity_provider", "task_args", "tags",
        "autonomous", "scheduler_role",
    )  # fmt: skip
    options = {name: getattr(config, name) for name in own if hasattr(config, name)}
    return json.dumps({"landing": landing.dumps(), "options": options}, separators=(",", ":"), sort_keys=True)


def replaced(config: TaskConfig, definition: Mapping[str, Any]) -> tuple[TaskConfig, Landing]:
    """The options and the landing that a task definition was registered with."""
    said = json.loads(definition["containerDefinitions"][0]["dockerLabels"][PLACED])
    return dataclasses.replace(config, **said["options"]), Landing.loads(said["landing"])


def place_of(definition: Mapping[str, Any]) -> str:
    """The ECS cluster that a task definition was registered for; empty when it is none of ours, or does not say."""
    labels = definition["containerDefinitions"][0].get("dockerLabels", {})
    try:
        return Landing.loads(json.loads(labels[PLACED])["landing"]).ecs_cluster
    except (LookupError, TypeError, ValueError):  # another version's: its cluster is listed all the same
        return ""


def boot_of(definition: Mapping[str, Any]) -> Boot:
    """The Boot in a task definition of a DescribeTaskDefinition answer."""
    variables = {v["name"]: v["value"] for v in definition["containerDefinitions"][0]["environment"]}
    boot = Boot.loads(variables.pop(BOOT))
    variables.pop(RUNTIME, None)
    return dataclasses.replace(boot, environment=variables)


def run_task_request(
    config: TaskConfig,
    identity: Identity,
    boot: Boot,
    landing: Landing,
    count: int,
    *,
    market: str,
    token: str,
    definition: str = "",
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """The RunTask call that starts up to 10 machines of one boot.

    Parameters
    ----------
    config, identity, boot, landing
        What runs where, and whose it is.
    count
        Machines, at most 10.
    market
        `on-demand` or `spot`.
    token
        The same for a call that is retried, so that nothing is made twice.
    definition
        ARN of the task definition. Default: the newest of the role's family.
    groups
        Ids of security groups beside the landing's.
    """
    variables = [{"name": SCHEDULER, "value": boot.scheduler}] if boot.scheduler else []
    if boot.leases.budget is not None:  # known only when the definition stands
        variables.append({"name": BOOT, "value": dataclasses.replace(boot, environment={}).dumps()})
    return {
        "cluster": landing.ecs_cluster,
        "taskDefinition": definition or names.family(identity.name, boot.role, boot.group),
        "count": count,
        "clientToken": token,
        "startedBy": identity.name,
        "propagateTags": "TASK_DEFINITION",
        "tags": ecs_tags(ledger.for_machine(identity, boot.role, boot.group, config.tags)),
        "overrides": {"containerOverrides": [{"name": names.CONTAINER, "environment": variables}]},
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": list(landing.network.subnets[:MAX_SUBNETS]),
                "securityGroups": [*landing.groups, *groups],
                "assignPublicIp": "ENABLED" if config.public else "DISABLED",
            }
        },
        "enableExecuteCommand": config.tunnel and boot.role == "scheduler",
        **config.capacity(market),
        **config.task_args,
    }


def machine(task: Mapping[str, Any]) -> Machine:
    """Read one task of a RunTask or DescribeTasks answer."""
    details = _details(task)
    tags = {tag["key"]: tag["value"] for tag in task.get("tags", ())}
    state = STATES[task["lastStatus"]]
    expires = tags.get(ledger.EXPIRES, "")
    return Machine(
        id=last(task["taskArn"]),
        role=tags.get(ledger.ROLE, "worker"),
        state=state,
        cluster=tags.get(ledger.CLUSTER, ""),
        group=tags.get(ledger.GROUP, "default"),
        private_address=details.get("privateIPv4Address"),
        zone=task.get("availabilityZone"),
        kind=_kind(task),
        market="spot" if task.get("capacityProviderName") == SPOT else "on-demand",
        created=_seconds(task.get("createdAt")) or 0.0,
        # From the start of the image's download until the task ends: https://aws.amazon.com/fargate/pricing/
        billed_from=_seconds(task.get("pullStartedAt") or task.get("startedAt")),
        ended=_seconds(task.get("stoppedAt")),
        reason=_reason(task) if state is State.gone else "",
        expires=int(expires) if expires.isdecimal() else None,
    )


def scheduler_interfaces(tasks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The network interface of each living scheduler among the tasks of a DescribeTasks answer."""
    return {
        last(task["taskArn"]): interface
        for task in tasks
        if {"key": ledger.ROLE, "value": "scheduler"} in task.get("tags", ())
        and STATES[task["lastStatus"]] is not State.gone
        and (interface := _details(task).get("networkInterfaceId"))
    }


def _kind(task: Mapping[str, Any]) -> str:
    attributes = {a["name"]: a.get("value", "") for a in task.get("attributes", ())}
    if not task.get("cpu") or not task.get("memory"):
        return ""
    storage = (task.get("ephemeralStorage") or {}).get("sizeInGiB", 20)
    architecture = attributes.get("ecs.cpu-architecture", "x86_64")
    return kind_of(int(task["cpu"]), int(task["memory"]), architecture, storage)


def _details(task: Mapping[str, Any]) -> dict[str, str]:
    """What a task's attachments say of its network interface."""
    pairs = (pair for part in task.get("attachments", ()) for pair in part.get("details", ()))
    return {pair["name"]: pair["value"] for pair in pairs if "value" in pair}


def _reason(task: Mapping[str, Any]) -> str:
    """Why a task ended: what ECS says, what its container says, and what its exit code means."""
    container: Mapping[str, Any] = next(
        (c for c in task.get("containers", ()) if c.get("name") == names.CONTAINER), {}
    )
    said = [task.get("stoppedReason", ""), container.get("reason", "")]
    if container.get("exitCode") is not None:
        said.append(explain(container["exitCode"]))
    return "; ".join(dict.fromkeys(text.rstrip(".") for text in said if text))


def _seconds(moment: Any) -> float | None:
    return None if moment is None else float(getattr(moment, "timestamp", lambda: moment)())


def last(arn: str) -> str:
    """The last part of an ARN."""
    return arn.rpartition("/")[2]


def failure(failures: Sequence[Mapping[str, Any]]) -> CloudError:
    """Why a RunTask answer has fewer tasks than were asked for."""
    first = failures[0] if failures else {}
    why = " ".join(filter(None, (first.get("reason"), first.get("detail")))) or "ECS gave no reason"
    kind, advice = because(why) or (CloudError, "")
    return kind(f"{why.rstrip('.')}. {advice}".strip())


def refusal(error: CloudError, made: int, count: int, where: str) -> CloudError:
    """Why fewer machines came than were asked for, with how many."""
    kept = f" The cluster keeps the {made}." if made else ""
    return type(error)(f"{where} started {made} of {count} tasks: {error}{kept}")
