"""The API side of ECS Exec: the agent in a task, and the sessions that Systems Manager opens to it.

The data channel of a session is AWS's own protocol inside a web socket, which is not emulated: whoever
takes up a session reaches the task's address, which is on this computer, by itself.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2, roles
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.ecs import ECS
    from cloudprovider.emulator.ecs_task import Task
    from cloudprovider.emulator.wire import Request

#: What the agent needs of the task's role.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
CHANNELS = tuple(
    f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
)
#: What each document must be told.
DOCUMENTS = {
    "AWS-StartPortForwardingSession": ("portNumber",),
    "AWS-StartPortForwardingSessionToRemoteHost": ("portNumber", "host"),
}


def agent_connects(task: Task, network: Any) -> bool:
    """Whether the agent in a task reaches Systems Manager, and may use it."""
    role = roles.find(task.account, task.task_role)
    if not task.execute_command or role is None:
        return False
    documents = list(roles.policies(role))
    return all(roles.allows(documents, action, "*") for action in CHANNELS) and (
        ec2.has_way_out(network, task.subnet, public=task.public)
        or "ssmmessages" in ec2.endpoints(network, task.subnet)
    )


class Sessions:
    """The sessions to tasks."""

    def __init__(self, ecs: ECS) -> None:
        self._ecs = ecs
        self._open: set[str] = set()

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation; None when moto does."""
        return {"StartSession": self.start, "TerminateSession": self.terminate}.get(operation)

    def start(self, request: Request) -> dict[str, Any]:
        """StartSession: `ecs:CLUSTER_TASK_RUNTIME` must be a container whose agent runs."""
        parameters = request.parameters or {}
        target, document = parameters["Target"], parameters.get("DocumentName", "")
        if document not in DOCUMENTS:
            raise AWSError("InvalidDocument", f"Document with name {document} does not exist.")
        lacking = [name for name in DOCUMENTS[document] if not parameters.get("Parameters", {}).get(name)]
        if lacking:
            raise AWSError("InvalidParameters", f"The document {document} needs {', '.join(lacking)}.")
        if not self._connected(target):
            raise AWSError("TargetNotConnected", f"{target} is not connected.")
        session = f"emulated-{uuid.uuid4().hex[:17]}"
        self._open.add(session)
        channel = f"wss://ssmmessages.{request.region}.amazonaws.com/v1/data-channel/{session}"
        return {
            "SessionId": session,
            "TokenValue": base64.b64encode(secrets.token_bytes(96)).decode(),
            "StreamUrl": f"{channel}?role=publish_subscribe",
        }

    def terminate(self, request: Request) -> dict[str, Any]:
        """TerminateSession: what is not open is no error."""
        session = (request.parameters or {})["SessionId"]
        self._open.discard(session)
        return {"SessionId": session}

    def _connected(self, target: str) -> bool:
        cluster, _, rest = target.removeprefix("ecs:").partition("_")
        id, _, runtime = rest.partition("_")
        return any(
            task.id == id
            and task.cluster_name == cluster
            and task.agent == "RUNNING"
            and any(container.runtime_id == runtime for container in task.containers)
            for task in self._ecs.tasks()
        )
