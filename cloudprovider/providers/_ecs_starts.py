"""The task definitions that a cluster on ECS owns before its first machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._aws_starts import pack, patiently

if TYPE_CHECKING:
    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers import _ecs_landing as land
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ecs_config import TaskConfig

__all__ = ["register"]


def register(aws: AWS, config: TaskConfig, identity: Identity, landing: land.Landing, boot: Boot) -> str:
    """Register the task definition of one role; its ARN."""
    request = wire.task_definition_request(config, identity, boot, landing, aws.region, pack(boot))
    call = partial(aws.call, "ecs", "register_task_definition", **request)
    return str(patiently(call, fresh=landing.fresh)["taskDefinition"]["taskDefinitionArn"])
