"""One ECS task: what is known of it, and how DescribeTasks tells it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudprovider.emulator.ecs_checks import Size
    from cloudprovider.emulator.ecs_placement import Instance

#: Seconds that a container must have run to be started again, unless its policy says otherwise.
RESTART_S = 300
TIMES = (
    "connectivityAt",
    "createdAt",
    "executionStoppedAt",
    "pullStartedAt",
    "pullStoppedAt",
    "startedAt",
    "stoppedAt",
    "stoppingAt",
)


@dataclass(kw_only=True)
class Container:
    """One container of a task."""

    name: str
    definition: Mapping[str, Any]
    override: Mapping[str, Any]
    arn: str
    runtime_id: str = ""
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str = ""
    process: Any = None
    since: float = 0.0
    restarts: int = 0

    @property
    def essential(self) -> bool:
        """Whether its end is the task's."""
        return bool(self.definition.get("essential", True))

    @property
    def argv(self) -> list[str]:
        """What it runs: the definition's entry point with the command, which a call may override."""
        command = self.override.get("command") or self.definition.get("command") or []
        return [*(self.definition.get("entryPoint") or []), *command]

    @property
    def stop_timeout(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return float(self.definition.get("stopTimeout", 30))

    @property
    def init(self) -> bool:
        """Whether an init process is its first one."""
        return bool((self.definition.get("linuxParameters") or {}).get("initProcessEnabled"))

    @property
    def restartable(self) -> bool:
        """Whether it has a restart policy."""
        return bool((self.definition.get("restartPolicy") or {}).get("enabled"))

    def restarts_now(self, scale: float) -> bool:
        """Whether its policy has it started again: it ended otherwise than it may, and not too early.

        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerRestartPolicy.html
        """
        policy = self.definition.get("restartPolicy") or {}
        long_enough_s = policy.get("restartAttemptPeriod", RESTART_S) * scale
        return (
            self.restartable
            and self.exit_code not in policy.get("ignoredExitCodes", ())
            and time.time() - self.since >= long_enough_s
        )

    def environment(self) -> dict[str, str]:
        """The variables that the definition and the call say; the call's win."""
        pairs = [*self.definition.get("environment", []), *self.override.get("environment", [])]
        return {pair["name"]: pair["value"] for pair in pairs}


@dataclass(kw_only=True)
class Task:
    """One task; its names are moto's where moto reads them."""

    id: str
    region: str
    account: str
    cluster_name: str
    cluster_arn: str
    task_definition_arn: str
    family: str
    size: Size
    launch_type: str
    capacity_provider: str | None
    market: str
    architecture: str
    groups: tuple[str, ...]
    public: bool
    containers: list[Container]
    overrides: Mapping[str, Any]
    execution_role: str
    task_role: str
    group: str
    started_by: str
    tags: list[dict[str, str]]
    execute_command: bool
    subnet: str = ""
    zone: str = ""
    host: Instance | None = None
    gpus: Sequence[str] = ()
    lost: bool = False
    agent: str = "PENDING"
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    stop_code: str = ""
    stopped_reason: str = ""
    times: dict[str, float] = field(default_factory=dict)
    version: int = 1
    attachment: str = field(default_factory=lambda: str(uuid.uuid4()))
    attachment_status: str = "PRECREATED"
    interface: Any = None
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    mounts: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def task_arn(self) -> str:
        """Its name everywhere."""
        return f"arn:aws:ecs:{self.region}:{self.account}:task/{self.cluster_name}/{self.id}"

    @property
    def own(self) -> bool:
        """Whether it runs on the cluster's own container instances."""
        return self.launch_type == "EC2"

    @property
    def container_instance_arn(self) -> str | None:
        """The container instance that it runs on; None on Fargate, and while it waits for one."""
        return self.host.container_instance_arn if self.host is not None else None

    @property
    def way(self) -> tuple[str, bool]:
        """The subnet from which its start reaches AWS and the registry, and whether by a public address.

        On a container instance it is the agent that pulls images, reads secrets and writes logs.
        """
        return (self.subnet, self.public) if self.host is None else (self.host.subnet, self.host.public)

    @property
    def address(self) -> str:
        """Its own address; empty while it has none."""
        return self.interface.private_ip_address if self.interface is not None else ""

    @property
    def stopped(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.last_status == "STOPPED"

    def settle(self, host: Instance, subnet: str, tasks: Iterable[Task]) -> None:
        """It runs on this container instance beside those tasks, with an interface in this subnet."""
        self.gpus = host.free_gpus(tasks)[: self.size.gpus]
        self.host, self.subnet, self.zone = host, subnet, host.zone

    def enter(self, status: str, *stamps: str) -> None:
        """It is in this state from now on."""
        now = round(time.time(), 3)
        self.last_status = status
        self.version += 1
        for stamp in stamps:
            self.times.setdefault(stamp, now)

    def describe(self, *, tags: bool = True) -> dict[str, Any]:
        """The task as the API tells it."""
        document: dict[str, Any] = {
            "attachments": [self._attachment()],
            "attributes": [{"name": "ecs.cpu-architecture", "value": self.architecture.lower()}],
            "clusterArn": self.cluster_arn,
            "containers": [self._container(container) for container in self.containers],
            "cpu": str(self.size.cpu),
            "desiredStatus": self.desired_status,
            "enableExecuteCommand": self.execute_command,
            "group": self.group,
            "healthStatus": "UNKNOWN",
            "lastStatus": self.last_status,
            "launchType": self.launch_type,
            "memory": str(self.size.memory),
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": [], **self.overrides},
            "tags": self.tags if tags else [],
            "taskArn": self.task_arn,
            "taskDefinitionArn": self.task_definition_arn,
            "version": self.version,
            **{stamp: self.times[stamp] for stamp in TIMES if stamp in self.times},
        }
        if not self.own:
            document |= {
                "ephemeralStorage": {"sizeInGiB": self.size.storage_gb},
                "fargateEphemeralStorage": {"sizeInGiB": self.size.storage_gb},
                "platformFamily": "Linux",
                "platformVersion": "1.4.0",
            }
        if self.zone:
            document["availabilityZone"] = self.zone
        if self.container_instance_arn:
            document["containerInstanceArn"] = self.container_instance_arn
        if self.capacity_provider:
            document["capacityProviderName"] = self.capacity_provider
        if self.started_by:
            document["startedBy"] = self.started_by
        if "connectivityAt" in self.times:
            document["connectivity"] = "DISCONNECTED" if self.stopped else "CONNECTED"
        if self.stopped_reason:
            document |= {"stoppedReason": self.stopped_reason}
        if self.stop_code:
            document |= {"stopCode": self.stop_code}
        return document

    def _attachment(self) -> dict[str, Any]:
        details = {"subnetId": self.subnet}
        if self.interface is not None:
            details |= {
                "networkInterfaceId": self.interface.id,
                "macAddress": self.interface.mac_address,
                "privateDnsName": getattr(self.interface, "private_dns_name", ""),
                "privateIPv4Address": self.address,
            }
        return {
            "id": self.attachment,
            "type": "ElasticNetworkInterface",
            "status": self.attachment_status,
            "details": [{"name": name, "value": value} for name, value in details.items() if value],
        }

    def _container(self, container: Container) -> dict[str, Any]:
        document: dict[str, Any] = {
            "containerArn": container.arn,
            "taskArn": self.task_arn,
            "name": container.name,
            "image": container.definition["image"],
            "lastStatus": container.status,
            "healthStatus": "UNKNOWN",
            "networkInterfaces": [],
            "cpu": str(container.override.get("cpu", container.definition.get("cpu", 0))),
        }
        if self.interface is not None:
            interface = {"attachmentId": self.attachment, "privateIpv4Address": self.address}
            document["networkInterfaces"] = [interface]
        for name in ("memory", "memoryReservation"):
            value = container.override.get(name, container.definition.get(name))
            if value is not None:
                document[name] = str(value)
        if self.execute_command:
            agent: dict[str, Any] = {"name": "ExecuteCommandAgent", "lastStatus": self.agent}
            if self.agent == "RUNNING":
                agent["lastStartedAt"] = self.times["startedAt"]
            document["managedAgents"] = [agent]
        if container.runtime_id:
            document["runtimeId"] = container.runtime_id
        if container.exit_code is not None:
            document["exitCode"] = container.exit_code
        if container.reason:
            document["reason"] = container.reason
        return document
