"""The tunnel to a task: ECS Exec's agent, which ECS puts into a task started with `enableExecuteCommand`.

What it takes: on the task's role `ssmmessages:CreateControlChannel`, `CreateDataChannel`,
`OpenControlChannel` and `OpenDataChannel`; on the caller's `ssm:StartSession` for the task and for the
document, and `ssm:TerminateSession`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.errors import AccessError
from cloudprovider.providers import _aws_tunnel
from cloudprovider.providers._aws_tunnel import plugin
from cloudprovider.providers._ecs_names import CONTAINER
from cloudprovider.tunnel import NotYetError, Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._aws import AWS

__all__ = ["Tunnel", "plugin", "target", "tunnel"]


def target(task: Mapping[str, Any]) -> str:
    """What a session calls a task of a DescribeTasks answer.

    Raises
    ------
    NotYetError
        Until the task's agent runs.
    AccessError
        When the task has ended.
    """
    cluster, task_id = (task[key].rpartition("/")[2] for key in ("clusterArn", "taskArn"))
    if task.get("desiredStatus") == "STOPPED" or task.get("lastStatus") == "STOPPED":
        reason = task.get("stoppedReason", "nobody says why")
        raise AccessError(f"There is nothing to tunnel to: task {task_id} has ended ({reason}).")
    every: Sequence[Mapping[str, Any]] = task.get("containers", ())
    container = next((one for one in every if one.get("name") == CONTAINER), {})
    agents = {agent.get("name"): agent for agent in container.get("managedAgents", ())}
    agent = agents.get("ExecuteCommandAgent", {"lastStatus": "PENDING"})
    if "runtimeId" not in container or agent.get("lastStatus") != "RUNNING":
        raise NotYetError(
            f"Task {task_id} takes no sessions: its agent is {agent.get('lastStatus')}"
            f"{': ' + agent['reason'] if agent.get('reason') else ''}. Its role needs ssmmessages:*Channel, "
            "and its subnet a way to the ssmmessages endpoint."
        )
    return f"ecs:{cluster}_{task_id}_{container['runtimeId']}"


def tunnel(
    aws: AWS, cluster: str, task: str, host: str, *, scheduler: int = 8786, front: int = 8787
) -> Tunnel:
    """The ways to a scheduler and to the front of its pages; `open` opens them.

    Parameters
    ----------
    aws
        The account.
    cluster, task
        The ECS cluster, and the task in it.
    host
        The task's private address.
    scheduler, front
        The ports there.

    Raises
    ------
    ConfigError
        When the plugin is not installed.
    """

    def known() -> str:
        answer = aws.call("ecs", "describe_tasks", cluster=cluster, tasks=[task])
        if not answer["tasks"]:
            raise NotYetError(f"ECS does not show task {task} yet.")
        return target(answer["tasks"][0])

    return _aws_tunnel.tunnel(aws, known, host, scheduler=scheduler, front=front)
