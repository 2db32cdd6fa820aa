"""The ends on ECS: what goes with a cluster, what others left, and what an early end of a machine means."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import BootError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.providers import _aws_ends as shared
from cloudprovider.providers import _ecs_names as names
from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._aws import because
from cloudprovider.providers._aws_names import ROLES
from cloudprovider.providers._calls import chunks, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cloudprovider.provider import Identity, Machine, Swept
    from cloudprovider.providers._aws import AWS

__all__ = ["clusters", "diagnosis", "expired", "stop", "stopped", "sweep", "tasks_of"]

MAX_DESCRIBE = 100  # DescribeTasks
NO_CLUSTER = ("ClusterNotFoundException",)
MAX_DELETE = 10  # DeleteTaskDefinitions
SERVICE = "ecs"
#: StopTask of what is not there.
NO_TASK = ("InvalidParameterException/not found", "ClusterNotFoundException")

MOUNTS = (
    "Is volumes= right? Each zone of the machines needs a mount target of the file system, whose security "
    "group admits theirs on port 2049."
)
NO_ROUTE = (
    "Its subnet has no route out: pass public=True, or subnets= with a route to a NAT gateway, or with VPC "
    "endpoints for ECR, S3, SSM and CloudWatch Logs. Its security groups must let it out, too."
)
PLATFORM = (
    "The image does not have the machines' architecture: pass architecture= the other, or another image."
)
EXECUTION = (
    "The execution role may not read the cluster's secret or log in to the registry: "
    "`dask cloud policy aws-fargate-execution` prints what it needs."
)
TIMEOUTS = (
    r"i/o timeout|dial tcp|request cancell?ed|deadline exceeded|connection (refused|reset|timed out)|"
    r"no route to host|tls handshake|connect(ion)? issue|network is unreachable"
)
FORBIDDEN = r"ResourceInitialization.*(AccessDenied|not authorized)|unable to (pull|retrieve) secret.*denied"
#: What the reason or the log of a machine that came to nothing means, most telling first.
CAUSES: tuple[tuple[str, type[CloudError], str], ...] = (
    (r"EFS utils", ConfigError, MOUNTS),
    (r"exec format error|platform", ConfigError, PLATFORM),
    (
        r"toomanyrequests|pull rate limit",
        QuotaError,
        "The registry limits anonymous pulls: use a copy of yours.",
    ),
    (r"no space left on device", BootError, "The image does not fit: pass ephemeral_storage= more."),
    (TIMEOUTS, BootError, NO_ROUTE),
    (FORBIDDEN, CredentialsError, EXECUTION),
    (
        r"log (group|stream).*not exist|logging driver",
        ConfigError,
        "Is log_group= right, and may the role write?",
    ),
    (
        r"CannotPull.*(not found|manifest unknown|name unknown|does not exist|denied|unauthorized|40[134])",
        ConfigError,
        "Is image= right? One in a private registry needs repository_credentials=.",
    ),
    (r"OutOfMemory", BootError, "It ran out of memory: give this role more."),
)


def stop(aws: AWS, ecs_cluster: str, ids: Sequence[str], reason: str) -> None:
    """End tasks; unknown ones are no error."""
    request: dict[str, Any] = {"cluster": ecs_cluster, "reason": reason, "fine": NO_TASK}
    # ECS has no batch form of StopTask.
    side_by_side([partial(aws.call, "ecs", "stop_task", task=id, **request) for id in ids])


def sweep(
    aws: AWS,
    ecs_cluster: str,
    cluster: str,
    live: Callable[[], Sequence[Machine]],
    patience_s: float,
) -> Swept:
    """Remove all that a cluster owns: its machines, then what they need no more."""
    told: set[str] = set()

    def end() -> list[str]:
        found = [m for m in live() if m.id not in told]
        # The scheduler first: it tells its workers to close, which then need not look for it.
        for role in ROLES:
            stop(aws, ecs_cluster, [m.id for m in found if m.role == role], f"dask sweep {cluster}")
        told.update(m.id for m in found)
        return [m.id for m in found]

    return shared.sweep(
        aws,
        cluster,
        end=end,
        free=[
            partial(_definitions, aws, cluster),
            partial(shared.parameters, aws, cluster, ("machine", "client")),
        ],
        ending=partial(_ending, aws, ecs_cluster, cluster),
        unfinished=partial(_unfinished, aws, ecs_cluster),
        patience_s=patience_s,
        profiles=False,
    )


def _ending(aws: AWS, ecs_cluster: str, cluster: str) -> list[str]:
    """Tasks that were told to stop within the last hour, by whomever."""
    return _listed(aws, ecs_cluster, startedBy=cluster, desiredStatus="STOPPED")


def _listed(aws: AWS, ecs_cluster: str, **request: str) -> list[str]:
    try:
        arns = aws.pages("ecs", "list_tasks", "taskArns", cluster=ecs_cluster, **request)
    except ConfigError:  # no ECS cluster: nothing was ever started here
        return []
    return [arn.rpartition("/")[2] for arn in arns]


def places(aws: AWS, default: str, cluster: str | None) -> list[str]:
    """The ECS clusters in which to look for a cluster's machines, or everybody's; where they are stands last.

    `ECSCluster` runs in ECS clusters of its users', which its task definitions say.
    """
    wanted = clusters(aws) if cluster is None else [cluster]
    found = side_by_side(partial(_place_of, aws, name) for name in wanted)
    return list(dict.fromkeys([default, *filter(None, found)]))


def _place_of(aws: AWS, cluster: str) -> str:
    family = names.family(cluster, "worker")
    answer = aws.call("ecs", "describe_task_definition", taskDefinition=family, fine=["ClientException"])
    return wire.place_of(answer["taskDefinition"]) if answer else ""


def living(aws: AWS, ecs_clusters: Sequence[str], cluster: str | None) -> list[dict[str, Any]]:
    """The tasks that nobody has told to stop, of a cluster or of all."""
    found: dict[str, dict[str, Any]] = {}
    for place in ecs_clusters:
        try:
            ids = _listed(aws, place, **({"startedBy": cluster} if cluster else {}))
        except CredentialsError:
            if cluster is not None or place == ecs_clusters[0]:
                raise
            continue  # somebody else's ECS cluster, of which we may know nothing
        found |= {task["taskArn"]: task for task in tasks_of(aws, place, ids, include=["TAGS"])}
    return list(found.values())


def stopped(aws: AWS, ecs_clusters: Sequence[str], cluster: str) -> list[dict[str, Any]]:
    """The tasks of a cluster that were told to stop, or stopped, within about the last hour.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-errors.html
    """
    found = [
        (place, _listed(aws, place, startedBy=cluster, desiredStatus="STOPPED")) for place in ecs_clusters
    ]
    return [task for place, ids in found for task in tasks_of(aws, place, ids, include=["TAGS"])]


def tasks_of(aws: AWS, ecs_cluster: str, ids: Collection[str], **request: Any) -> list[dict[str, Any]]:
    """What DescribeTasks says of these tasks, 100 a call; unknown ones are left out."""
    answers = side_by_side(
        partial(
            aws.call, "ecs", "describe_tasks", cluster=ecs_cluster, tasks=some, fine=NO_CLUSTER, **request
        )
        for some in chunks(sorted(set(ids)), MAX_DESCRIBE)
    )
    return [task for answer in answers for task in answer.get("tasks", ())]


def _unfinished(aws: AWS, ecs_cluster: str, ids: Collection[str]) -> list[str]:
    """Which of these tasks have not stopped."""
    tasks = tasks_of(aws, ecs_cluster, ids)
    return [task["taskArn"].rpartition("/")[2] for task in tasks if task["lastStatus"] != "STOPPED"]


def _definitions(aws: AWS, cluster: str) -> list[str]:
    """Deregister and delete the task definitions."""

    def arns(role: str, status: str) -> list[str]:
        family = names.family(cluster, role)
        request = {"familyPrefix": family, "status": status}
        return aws.pages("ecs", "list_task_definitions", "taskDefinitionArns", **request)

    looks = [partial(arns, role, status) for status in ("ACTIVE", "INACTIVE") for role in ROLES]
    found = side_by_side(looks)
    active = [arn for some in found[: len(ROLES)] for arn in some]
    side_by_side(
        partial(aws.call, "ecs", "deregister_task_definition", taskDefinition=arn, fine=["ClientException"])
        for arn in active
    )
    every = sorted({arn for some in found for arn in some})
    for some in chunks(every, MAX_DELETE):
        aws.call("ecs", "delete_task_definitions", taskDefinitions=some)
    return every


def clusters(aws: AWS) -> list[str]:
    """The names of all clusters that have a task definition."""
    request = {"familyPrefix": "dask-", "status": "ACTIVE"}
    families = aws.pages("ecs", "list_task_definition_families", "families", **request)
    return sorted({cluster for family in families if (cluster := names.cluster_of(family))})


def expired(aws: AWS) -> list[str]:
    """Clusters whose `expires` has passed: two calls, and one for each that has no group."""
    groups, known = side_by_side([partial(shared.groups_of, aws, None), partial(clusters, aws)])
    found = shared.owners_of(groups, SERVICE)
    bare = [name for name in known if name not in found]
    found |= {owner.name: owner for owner in side_by_side(partial(owner_of, aws, n) for n in bare) if owner}
    return shared.overdue(found, aws.now())


def owner_of(aws: AWS, cluster: str) -> Identity | None:
    """Whose a cluster is, as its worker's task definition says."""
    answer = aws.call(
        "ecs",
        "describe_task_definition",
        taskDefinition=names.family(cluster, "worker"),
        include=["TAGS"],
        fine=["ClientException"],
    )
    return ledger.identity({tag["key"]: tag["value"] for tag in answer.get("tags", ())})


def diagnosis(machine: Machine, logs: str) -> CloudError:
    """What to tell the user of a machine that ended before Dask answered on it."""
    why = machine.reason or "ECS gave no reason"
    what = f"The {machine.role} {machine.id} ended before Dask answered on it: {why.rstrip('.')}."
    for pattern, kind, advice in CAUSES:
        if re.search(pattern, why, re.IGNORECASE) or (
            "exec format" in pattern and "exec format error" in logs
        ):
            return BootError(f"{what} {advice}", logs) if kind is BootError else kind(f"{what} {advice}")
    kind, advice = because(why) or (BootError, "")
    return BootError(what, logs) if kind is BootError else kind(f"{what} {advice}")
