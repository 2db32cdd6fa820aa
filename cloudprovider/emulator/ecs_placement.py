"""Which container instance a task goes to, and what ECS says where there is no room. No I/O, no state.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement.html
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudprovider.emulator.ecs_checks import Size
    from cloudprovider.emulator.ecs_task import Task

ATTRIBUTE = "attribute:"


@dataclass(kw_only=True, eq=False)
class Instance:
    """One container instance; `status` and `attributes` are called as moto's PutAttributes expects.

    Parameters
    ----------
    id, region, account, cluster_name
        What its ARN is made of.
    ec2_id, zone, subnet, public
        The EC2 instance that it is, and where; `public` is whether that has a public address.
    cpu, memory
        CPU units and MiB for tasks.
    interfaces
        How many tasks can have a network interface of their own: its primary one is not for tasks.
    gpus
        The ids of its GPUs.
    reserved_ports
        What the agent keeps for itself.
    capacity_provider
        Whose Auto Scaling group it belongs to; None when it belongs to none.
    """

    id: str
    region: str
    account: str
    cluster_name: str
    ec2_id: str
    zone: str
    subnet: str
    public: bool
    cpu: int
    memory: int
    interfaces: int
    registered_at: float
    gpus: Sequence[str] = ()
    reserved_ports: Sequence[str] = ()
    capacity_provider: str | None = None
    attributes: dict[str, str | None] = field(default_factory=dict)
    tags: list[dict[str, str]] = field(default_factory=list)
    version_info: Mapping[str, str] = field(default_factory=dict)
    status: str = "ACTIVE"
    agent_connected: bool = True
    version: int = 1

    @property
    def container_instance_arn(self) -> str:
        """Its name everywhere."""
        return f"arn:aws:ecs:{self.region}:{self.account}:container-instance/{self.cluster_name}/{self.id}"

    @property
    def architecture(self) -> str:
        """In the words of a task definition."""
        return (self.attributes.get("ecs.cpu-architecture") or "x86_64").upper()

    def enter(self, status: str, *, connected: bool) -> None:
        """It is in this state from now on."""
        self.status, self.agent_connected = status, connected
        self.version += 1

    def on_it(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks that hold a part of it."""
        return [task for task in tasks if task.host is self and not task.stopped]

    def free_gpus(self, tasks: Iterable[Task]) -> list[str]:
        """The GPUs that no task holds."""
        taken = {gpu for task in self.on_it(tasks) for gpu in task.gpus}
        return [gpu for gpu in self.gpus if gpu not in taken]

    def describe(self, tasks: Iterable[Task], *, tags: bool) -> dict[str, Any]:
        """The instance as the API tells it."""
        held = self.on_it(tasks)
        left_cpu = self.cpu - sum(task.size.cpu for task in held)
        left_memory = self.memory - sum(task.size.memory for task in held)
        document: dict[str, Any] = {
            "containerInstanceArn": self.container_instance_arn,
            "ec2InstanceId": self.ec2_id,
            "version": self.version,
            "versionInfo": dict(self.version_info),
            "remainingResources": self._resources(left_cpu, left_memory, self.free_gpus(held)),
            "registeredResources": self._resources(self.cpu, self.memory, self.gpus),
            "status": self.status,
            "agentConnected": self.agent_connected,
            "runningTasksCount": sum(task.desired_status == "RUNNING" for task in held),
            "pendingTasksCount": sum(task.last_status == "PENDING" for task in held),
            "attributes": [
                {"name": name, **({} if value is None else {"value": value})}
                for name, value in sorted(self.attributes.items())
            ],
            "registeredAt": self.registered_at,
            "attachments": [],
            "tags": self.tags if tags else [],
        }
        if self.capacity_provider:
            document["capacityProviderName"] = self.capacity_provider
        return document

    def _resources(self, cpu: int, memory: int, gpus: Sequence[str]) -> list[dict[str, Any]]:
        def resource(name: str, kind: str, **value: Any) -> dict[str, Any]:
            nothing: dict[str, Any] = {"doubleValue": 0.0, "longValue": 0, "integerValue": 0}
            return {"name": name, "type": kind, **nothing, **value}

        own = [resource("GPU", "STRINGSET", stringSetValue=list(gpus))] if self.gpus else []
        return [
            resource("CPU", "INTEGER", integerValue=cpu),
            resource("MEMORY", "INTEGER", integerValue=memory),
            resource("PORTS", "STRINGSET", stringSetValue=list(self.reserved_ports)),
            resource("PORTS_UDP", "STRINGSET", stringSetValue=[]),
            *own,
        ]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What the tasks of one order need of an instance, and which they prefer.

    Parameters
    ----------
    size, architecture
        Of one task.
    subnets
        The zone of each subnet that the order names.
    group
        The task group, over which tasks are spread.
    strategy, constraints
        As in RunTask.
    """

    size: Size
    architecture: str
    subnets: Mapping[str, str]
    group: str
    strategy: Sequence[Mapping[str, str]] = ()
    constraints: Sequence[Mapping[str, str]] = ()

    def refusal(self, instance: Instance, tasks: Sequence[Task]) -> str:
        """Why an instance cannot take one more task, in ECS's words; empty when it can.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html
        """
        held = instance.on_it(tasks)
        if not instance.agent_connected:
            return "AGENT"
        if self.architecture != instance.architecture or instance.zone not in self.subnets.values():
            return "ATTRIBUTE"
        if any(one["type"] == "distinctInstance" for one in self.constraints) and self._of_group(held):
            return "DistinctInstance placement constraint unsatisfied."
        lacks = {
            "CPU": self.size.cpu > instance.cpu - sum(task.size.cpu for task in held),
            "MEMORY": self.size.memory > instance.memory - sum(task.size.memory for task in held),
            "GPU": self.size.gpus > len(instance.free_gpus(held)),
            "ENI": len(held) >= instance.interfaces,
        }
        return next((f"RESOURCE:{what}" for what, lacking in lacks.items() if lacking), "")

    def choose(
        self, instances: Iterable[Instance], tasks: Sequence[Task], chance: random.Random
    ) -> Instance | None:
        """The instance for one more task; None when none has room."""
        fit = [instance for instance in instances if not self.refusal(instance, tasks)]
        for rule in self.strategy:
            weigh = self._weight(rule, fit, tasks)
            least = min(map(weigh, fit), default=0)
            fit = [instance for instance in fit if weigh(instance) == least]
        # A standalone task has no strategy of its own, unlike a service's:
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html
        return chance.choice(fit) if fit else None

    def subnet(self, instance: Instance, chance: random.Random) -> str:
        """A subnet for a task's interface, in the zone of its instance."""
        return chance.choice(sorted(id for id, zone in self.subnets.items() if zone == instance.zone))

    def _of_group(self, tasks: Iterable[Task]) -> int:
        return sum(task.group == self.group for task in tasks)

    def _weight(
        self, rule: Mapping[str, str], instances: Sequence[Instance], tasks: Sequence[Task]
    ) -> Callable[[Instance], int]:
        """What a rule wants to be least."""
        kind, what = rule.get("type", "random"), rule.get("field", "")
        if kind == "random":
            return lambda _: 0
        if kind == "binpack":
            part = what.lower()
            if part not in ("cpu", "memory"):
                raise AWSError("InvalidParameterException", f"The field {what} cannot be used to binpack.")
            return lambda one: getattr(one, part) - sum(getattr(task.size, part) for task in one.on_it(tasks))
        if what in ("instanceId", "host"):
            return lambda one: self._of_group(one.on_it(tasks))
        name = what.removeprefix(ATTRIBUTE)
        there: Counter[str | None] = Counter()
        for one in instances:
            there[one.attributes.get(name)] += self._of_group(one.on_it(tasks))
        return lambda one: there[one.attributes.get(name)]
