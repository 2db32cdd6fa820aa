"""The API side of Systems Manager's sessions: the agents in tasks and instances, and what is opened to them.

The data channel of a session is AWS's own protocol inside a web socket, which is not emulated: whoever
takes up a session is told in which network its machine is, and connects from there by itself.
"""

from __future__ import annotations

import base64
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2, roles
from cloudprovider.emulator.ec2_instances import known
from cloudprovider.emulator.room import hostname
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.ecs import ECS
    from cloudprovider.emulator.ecs_task import Task
    from cloudprovider.emulator.wire import Request

#: What the agent needs of the task's role.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
CHANNELS = tuple(
    f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
)
#: What an instance's role must allow beside the channels, and the services that its agent calls.
#: https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html
REGISTER = "ssm:UpdateInstanceInformation"
SERVICES = frozenset({"ssm", "ssmmessages"})
AGENT = "3.3.3050.0"
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


def agent_online(instance: LiveInstance) -> bool:
    """Whether the agent in an instance reaches Systems Manager, and may use it."""
    profile = instance.order.profile
    if instance.state != "running" or profile is None or not profile.roles:
        return False
    if instance.guest is not None and not instance.guest.ssm_agent:
        return False
    documents = list(roles.policies(profile.roles[0]))
    interface, network = instance.nics[0], instance.ec2_backend
    return all(roles.allows(documents, action, "*") for action in (REGISTER, *CHANNELS)) and (
        ec2.has_way_out(network, interface.subnet.id, public=bool(interface.public_ip))
        or ec2.endpoints(network, interface.subnet.id) >= SERVICES
    )


#: What DescribeInstanceInformation can be asked for, and what it then looks at.
FILTERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "InstanceIds": lambda told: str(told["InstanceId"]),
    "PingStatus": lambda told: str(told["PingStatus"]),
    "PlatformTypes": lambda told: str(told["PlatformType"]),
    "ResourceType": lambda told: str(told["ResourceType"]),
}


def information(instance: LiveInstance) -> dict[str, Any]:
    """What DescribeInstanceInformation says of an instance whose agent is online."""
    return {
        "InstanceId": instance.id,
        "PingStatus": "Online",
        "LastPingDateTime": time.time(),
        "AgentVersion": AGENT,
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ResourceType": "EC2Instance",
        "IPAddress": instance.address,
        "ComputerName": hostname(instance.address),
    }


class Sessions:
    """The sessions to tasks and instances."""

    def __init__(self, ecs: ECS) -> None:
        self._ecs = ecs
        self._open: dict[str, str] = {}

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation; None when moto does."""
        return {
            "StartSession": self.start,
            "TerminateSession": self.terminate,
            "DescribeInstanceInformation": self.describe,
        }.get(operation)

    def machine(self, session: str) -> str:
        """The id of the machine that an open session leads to.

        Raises
        ------
        LookupError
            When it is not open.
        """
        if session not in self._open:
            raise LookupError(f"There is no open session {session}.")
        return self._open[session]

    @staticmethod
    def describe(request: Request) -> dict[str, Any]:
        """DescribeInstanceInformation: the instances whose agents are online."""
        parameters = request.parameters or {}
        filters = {one["Key"]: one["Values"] for one in parameters.get("Filters", ())}
        filters |= {
            one["key"]: one["valueSet"] for one in parameters.get("InstanceInformationFilterList", ())
        }
        if unknown := sorted(set(filters) - set(FILTERS)):
            raise AWSError("InvalidFilterKey", f"The emulated filter {unknown[0]} is not to be had.")
        told = [information(one) for one in known(request.region).values() if agent_online(one)]
        shown = [one for one in told if all(FILTERS[key](one) in values for key, values in filters.items())]
        return {"InstanceInformationList": shown}

    def start(self, request: Request) -> dict[str, Any]:
        """StartSession: to an instance, or to the container `ecs:CLUSTER_TASK_RUNTIME`, whose agent runs."""
        parameters = request.parameters or {}
        target, document = parameters["Target"], parameters.get("DocumentName", "")
        if document not in DOCUMENTS:
            raise AWSError("InvalidDocument", f"Document with name {document} does not exist.")
        lacking = [name for name in DOCUMENTS[document] if not parameters.get("Parameters", {}).get(name)]
        if lacking:
            raise AWSError("InvalidParameters", f"The document {document} needs {', '.join(lacking)}.")
        machine = self._instance(target, request.region) or self._task(target)
        if not machine:
            raise AWSError("TargetNotConnected", f"{target} is not connected.")
        session = f"emulated-{uuid.uuid4().hex[:17]}"
        self._open[session] = machine
        channel = f"wss://ssmmessages.{request.region}.amazonaws.com/v1/data-channel/{session}"
        return {
            "SessionId": session,
            "TokenValue": base64.b64encode(secrets.token_bytes(96)).decode(),
            "StreamUrl": f"{channel}?role=publish_subscribe",
        }

    def terminate(self, request: Request) -> dict[str, Any]:
        """TerminateSession: what is not open is no error."""
        session = (request.parameters or {})["SessionId"]
        self._open.pop(session, None)
        return {"SessionId": session}

    @staticmethod
    def _instance(target: str, region: str) -> str:
        instance = known(region).get(target)
        return target if instance is not None and agent_online(instance) else ""

    def _task(self, target: str) -> str:
        cluster, _, rest = target.removeprefix("ecs:").partition("_")
        id, _, runtime = rest.partition("_")
        return next(
            (
                task.id
                for task in self._ecs.tasks()
                if task.id == id
                and task.cluster_name == cluster
                and task.agent == "RUNNING"
                and any(container.runtime_id == runtime for container in task.containers)
            ),
            "",
        )
