"""The manager beside the scheduler of an autonomous cluster on ECS: a second container of its task."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import autonomous
from cloudprovider.images import Reference, manager_image
from cloudprovider.providers import _aws_roles as roles
from cloudprovider.providers import _ecs_landing as land
from cloudprovider.providers import _ecs_names as names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ecs_config import TaskConfig

__all__ = ["beside", "image", "with_role"]

#: Of the task's CPU the manager gets one part in so many when both want it, and of its memory no more than this.
CPU_PARTS, MEMORY_MIB, MEMORY_PARTS = 8, 512, 2
#: It starts itself again when it dies; this is for what it dies of that it cannot know.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerRestartPolicy.html
RESTART = {"enabled": True, "ignoredExitCodes": [0], "restartAttemptPeriod": 60}
STOP_S = 30
#: What it shares with the scheduler's container: how its keys come, and where its log goes.
SHARED = ("linuxParameters", "logConfiguration", "secrets")


def image(config: TaskConfig) -> str:
    """The image that it runs in."""
    return config.manager_image or manager_image()


def beside(
    config: TaskConfig, identity: Identity, boot: Boot, region: str, ours: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scheduler's container with its share of the CPU, and the manager's.

    A container that asks for no CPU gets next to none as soon as another asks for some, so that both must.
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
    """
    cpu, memory = config.size("scheduler")
    share = cpu // CPU_PARTS
    told = autonomous.environment(
        dataclasses.replace(boot, environment={}),
        autonomous.mandate(dataclasses.replace(config, region=region), identity),
    )
    manager: dict[str, Any] = {
        **{part: ours[part] for part in SHARED},
        "name": names.MANAGER,
        "image": image(config),
        "essential": False,
        "entryPoint": [*autonomous.COMMAND],
        "environment": [{"name": name, "value": value} for name, value in told.items()],
        "cpu": share,
        "memory": min(MEMORY_MIB, memory // MEMORY_PARTS),
        "restartPolicy": RESTART,
        "stopTimeout": STOP_S,
    }
    login = ours.get("repositoryCredentials")
    if login and Reference.of(image(config)).registry == Reference.of(boot.image).registry:
        manager["repositoryCredentials"] = login
    return {**ours, "cpu": cpu - share}, manager


def with_role(aws: AWS, config: TaskConfig, identity: Identity, landing: land.Landing) -> land.Landing:
    """The landing with the role that was made for this cluster's scheduler.

    Raises
    ------
    CredentialsError
        When the caller may not make roles.
    """
    account = landing.task_role.split(":")[4]
    parts = [("aws-fargate-autonomous", ())]
    if config.tunnel:
        parts.append(("aws-fargate-tunnel-role", ()))
    policy = partial(
        roles.document,
        parts,
        account=account,
        ecs_cluster=landing.ecs_cluster.rpartition("/")[2],
        execution_role=landing.execution_role,
        log_group=landing.log_group,
        partition=aws.partition,
        region=aws.region,
        task_role=landing.task_role,
    )
    wanted = "one that ecs-tasks.amazonaws.com may take,"
    role = roles.managed(aws, config, identity, policy, land.TRUST, wanted)
    return dataclasses.replace(landing, scheduler_role=role, fresh=True)
