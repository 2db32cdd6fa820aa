"""ECS Exec port forwarding: a way to a task that has no address outside, and no rule open to anybody.

The agent that ECS puts into a task started with `enableExecuteCommand` connects *from inside* the task. A
machine listens on its private address, not on its loopback, so the session document is the one that names
a host. https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-sessions-start.html

What it takes: on the task's role `ssmmessages:CreateControlChannel`, `CreateDataChannel`,
`OpenControlChannel` and `OpenDataChannel`; on the caller's `ssm:StartSession` for the task and for the
document, and `ssm:TerminateSession`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import AccessError, CloudError, ConfigError
from cloudprovider.providers._aws import code
from cloudprovider.tunnel import NotYetError, Program, Relay, Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.providers._aws import AWS

__all__ = ["Tunnel", "plugin", "start_session_request", "target", "tunnel"]

PLUGIN = "session-manager-plugin"
INSTALL = "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
READY = "Waiting for connections"
#: Newer plugins read the session, whose token opens it, from this variable instead of their arguments.
RESPONSE = "AWS_SSM_START_SESSION_RESPONSE"
LAST_WITHOUT_RESPONSE = (1, 2, 497, 0)


def plugin() -> str:
    """The path of AWS's plugin.

    Raises
    ------
    ConfigError
        When it is not installed; says where it is to be had.
    """
    path = shutil.which(PLUGIN)
    if path is None:
        raise ConfigError(
            f"tunnel=True needs AWS's {PLUGIN}, which is not in your PATH. Install it ({INSTALL}), "
            "or reach the scheduler another way: public=True, or allow_from= from inside its network."
        )
    return path


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
    container: Mapping[str, Any] = next(iter(task.get("containers", ())), {})
    agents = {agent.get("name"): agent for agent in container.get("managedAgents", ())}
    agent = agents.get("ExecuteCommandAgent", {"lastStatus": "PENDING"})
    if "runtimeId" not in container or agent.get("lastStatus") != "RUNNING":
        raise NotYetError(
            f"Task {task_id} takes no sessions: its agent is {agent.get('lastStatus')}"
            f"{': ' + agent['reason'] if agent.get('reason') else ''}. Its role needs ssmmessages:*Channel, "
            "and its subnet a way to the ssmmessages endpoint."
        )
    return f"ecs:{cluster}_{task_id}_{container['runtimeId']}"


def start_session_request(target: str, host: str, port: int, local_port: int) -> dict[str, Any]:
    """A StartSession that leads from a local port to what the task reaches as `host:port`."""
    parameters = {"host": [host], "portNumber": [str(port)], "localPortNumber": [str(local_port)]}
    return {"Target": target, "DocumentName": DOCUMENT, "Parameters": parameters}


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
    path = plugin()
    quiet = version(path) > LAST_WITHOUT_RESPONSE

    def relay(port: int) -> Relay:
        def program(local_port: int) -> Program:
            answer = aws.call("ecs", "describe_tasks", cluster=cluster, tasks=[task])
            if not answer["tasks"]:
                raise NotYetError(f"ECS does not show task {task} yet.")
            request = start_session_request(target(answer["tasks"][0]), host, port, local_port)
            return _program(aws, path, request, quiet=quiet)

        return Relay(program)

    return Tunnel(scheduler=relay(scheduler), pages=relay(front))


def version(path: str) -> tuple[int, ...]:
    """The plugin's version; empty when it does not say."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
        if re.fullmatch(r"\d+(\.\d+){0,3}", said.stdout.strip()):
            return tuple(map(int, said.stdout.strip().split(".")))
    return ()


def _program(aws: AWS, path: str, request: dict[str, Any], *, quiet: bool) -> Program:
    """Start a session, and say how the plugin takes it up."""
    try:
        answer = aws.call("ssm", "start_session", **request)
    except CloudError as error:
        if code(error) == "TargetNotConnected":
            raise NotYetError(f"{request['Target']} takes no sessions yet: {error}") from error
        raise
    session = json.dumps({key: answer[key] for key in ("SessionId", "TokenValue", "StreamUrl")})
    meta = aws.client("ssm").meta
    # The profile is the environment's: https://github.com/aws/session-manager-plugin
    rest = (meta.region_name, "StartSession", "", json.dumps(request), meta.endpoint_url)

    def end() -> None:
        with contextlib.suppress(CloudError):  # it ends by itself after 20 idle minutes
            aws.call("ssm", "terminate_session", SessionId=answer["SessionId"])

    return Program(
        command=(path, RESPONSE if quiet else session, *rest),
        ready=READY,
        environment={RESPONSE: session} if quiet else {},
        end=end,
    )
