"""ECS's calls about tasks, answered by live tasks; the rest is moto's, with what AWS refuses refused."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ecs_checks
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.ecs_checks import client_error, invalid
from cloudprovider.emulator.ecs_life import Life
from cloudprovider.emulator.ecs_task import Container, Task
from cloudprovider.emulator.profiles import Bucket
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.wire import Request

MARKETS = {"FARGATE": "on-demand", "FARGATE_SPOT": "spot"}
NO_CAPACITY = (
    "Capacity is unavailable at this time. Please try again later or in a different availability zone"
)
PAGE = 100  # DescribeTasks, ListTasks: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
REMEMBERED_S = 3600.0  # "Stopped tasks are shown for at least an hour": API_DescribeTasks
TOKEN_S = 24 * 3600.0  # how long a clientToken is remembered

Document = dict[str, Any]


class ECS:
    """The ECS of one account, in every region.

    Each method named after an operation answers it; `before` holds what moto's answer must wait for.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.life = Life(account)
        self._tokens: dict[tuple[str, str, str], _Remembered] = {}
        self._launches: dict[tuple[str, str], Bucket] = {}

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {
            "RunTask": self.run_task,
            "StopTask": self.stop_task,
            "DescribeTasks": self.describe_tasks,
            "ListTasks": self.list_tasks,
            "StartTask": self.start_task,
            "ListTaskDefinitionFamilies": self.list_task_definition_families,
            "ListTaskDefinitions": self.list_task_definitions,
        }.get(operation)

    def check(self, request: Request) -> None:
        """Refuse what AWS refuses and moto does not."""
        parameters = request.parameters or {}
        if request.operation == "RegisterTaskDefinition":
            ecs_checks.check_definition(parameters)
        elif request.operation == "DeleteCluster":
            self._check_empty(request, parameters["cluster"])
        elif request.operation == "DescribeClusters":
            self._backend(request).count()

    def tasks(self) -> Iterator[Task]:
        """Every task there is, or was until an hour ago."""
        from moto.ecs import ecs_backends

        for backend in list(ecs_backends[ACCOUNT].values()):
            for tasks in list(backend.tasks.values()):
                yield from list(tasks.values())

    def find(self, id: str) -> Task:
        """The task of this id or ARN, in any region."""
        name = id.rpartition("/")[2]
        for task in self.tasks():
            if task.id == name:
                return task
        raise KeyError(f"There is no machine {id}.")

    # -- the operations ------------------------------------------------------------------------------

    def run_task(self, request: Request) -> Document:
        """RunTask: as many tasks as there is room for."""
        parameters = dict(request.parameters or {})
        # "Requests that use the same token within a cluster are idempotent": ECS_Idempotency
        token = (request.region, parameters.get("cluster", "default"), parameters.get("clientToken", ""))
        if answer := self._remembered(token, parameters):
            return answer
        order = self._order(request, parameters)
        count = parameters.get("count", 1)
        markets = self._markets(order, count)
        self._take_launches(request, markets)
        tasks: list[Task] = []
        failures: list[Document] = []
        for provider in markets:
            if self._room(MARKETS[provider or "FARGATE"], order.size.vcpus):
                tasks.append(self._make(request, order, provider))
            else:
                failures.append({"reason": NO_CAPACITY})
        if token[-1]:
            self._tokens[token] = _Remembered(time.time(), _fingerprint(parameters), tasks, failures)
        for task in tasks:
            self.life.begin(task)
        return {"tasks": [task.describe() for task in tasks], "failures": failures}

    def start_task(self, request: Request) -> Document:
        """StartTask: there are no container instances to start tasks on."""
        instances = (request.parameters or {})["containerInstances"]
        return {"tasks": [], "failures": [{"arn": arn, "reason": "MISSING"} for arn in instances]}

    def stop_task(self, request: Request) -> Document:
        """StopTask: SIGTERM now, SIGKILL at the stop timeout."""
        parameters = request.parameters or {}
        cluster = self._cluster(request, parameters)
        name = parameters["task"].rpartition("/")[2]
        task = self._of(request, cluster).get(name)
        if task is None:
            raise invalid("The referenced task was not found.")
        self.life.stop(task, "UserInitiated", parameters.get("reason") or "Task stopped by user")
        return {"task": task.describe()}

    def describe_tasks(self, request: Request) -> Document:
        """DescribeTasks: at most a hundred."""
        parameters = request.parameters or {}
        cluster = self._cluster(request, parameters)
        names = parameters["tasks"]
        if not names:
            raise invalid("Tasks cannot be empty.")
        if len(names) > PAGE:
            raise invalid(f"Tasks cannot have more than {PAGE} elements.")
        tags = "TAGS" in parameters.get("include", [])
        known = self._of(request, cluster)
        found, failures = [], []
        for name in dict.fromkeys(names):
            task = known.get(name.rpartition("/")[2])
            if task is not None and self._visible(task):
                found.append(task.describe(tags=tags))
            else:
                arn = f"arn:aws:ecs:{request.region}:{ACCOUNT}:task/{cluster.name}/{name.rpartition('/')[2]}"
                failures.append({"arn": arn, "reason": "MISSING"})
        return {"tasks": found, "failures": failures}

    def list_tasks(self, request: Request) -> Document:
        """ListTasks: a hundred a page."""
        parameters = request.parameters or {}
        cluster = self._cluster(request, parameters)
        others = {"family", "serviceName", "containerInstance", "launchType"} & set(parameters)
        if "startedBy" in parameters and others:
            raise invalid("startedBy cannot be combined with other filters.")
        wanted = [task for task in self._of(request, cluster).values() if _listed(task, parameters)]
        return _page("taskArns", [task.task_arn for task in wanted if self._visible(task)], parameters)

    def list_task_definitions(self, request: Request) -> Document:
        """ListTaskDefinitions: a hundred a page."""
        parameters = request.parameters or {}
        return _page("taskDefinitionArns", self._backend(request).definitions(parameters), parameters)

    def list_task_definition_families(self, request: Request) -> Document:
        """ListTaskDefinitionFamilies: a hundred a page."""
        parameters = request.parameters or {}
        return _page("families", self._backend(request).families(parameters), parameters)

    # -- how -------------------------------------------------------------------------------------------

    def _backend(self, request: Request) -> Any:
        from moto.ecs import ecs_backends

        return ecs_backends[ACCOUNT][request.region]

    def _cluster(self, request: Request, parameters: Mapping[str, Any]) -> Any:
        name = parameters.get("cluster", "default").rpartition("/")[2]
        cluster = self._backend(request).clusters.get(name)
        if cluster is None or cluster.status != "ACTIVE":
            raise AWSError("ClusterNotFoundException", "Cluster not found.")
        return cluster

    def _of(self, request: Request, cluster: Any) -> dict[str, Task]:
        tasks = self._backend(request).tasks.setdefault(cluster.name, {})
        forgotten = time.time() - REMEMBERED_S
        for arn, task in list(tasks.items()):
            if task.stopped and task.times["stoppedAt"] < forgotten:
                del tasks[arn]
        return {task.id: task for task in tasks.values()}

    def _visible(self, task: Task) -> bool:
        age = time.time() - task.times["createdAt"]
        return all(age >= fault.seconds for fault in self._account.faults.of("stale"))

    def _check_empty(self, request: Request, name: str) -> None:
        cluster = self._cluster(request, {"cluster": name})
        if any(not task.stopped for task in self._of(request, cluster).values()):
            raise AWSError(
                "ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active."
            )

    def _remembered(self, token: tuple[str, str, str], parameters: Mapping[str, Any]) -> Document | None:
        known = self._tokens.get(token)
        if known is None or time.time() - known.time > TOKEN_S:
            return None
        if known.fingerprint != _fingerprint(parameters):
            raise AWSError(
                "ConflictException",
                "The request conflicts with an earlier one of the same clientToken and other parameters.",
                fields={"resourceIds": [task.task_arn for task in known.tasks]},
            )
        return {"tasks": [task.describe() for task in known.tasks], "failures": known.failures}

    def _order(self, request: Request, parameters: Mapping[str, Any]) -> _Order:
        cluster = self._cluster(request, parameters)
        definition = self._definition(request, parameters["taskDefinition"])
        names = [container["name"] for container in definition.container_definitions]
        ecs_checks.check_order(parameters, names)
        network = ecs_checks.check_network(parameters, self._network(request))
        order = _Order(parameters, cluster, definition, network)
        age = max((fault.seconds for fault in self._account.faults.of("role-propagation")), default=0.0)
        for role in filter(None, (order.execution_role, order.task_role)):
            ecs_checks.check_role(ACCOUNT, role, age, time.time())
        return order

    def _network(self, request: Request) -> Any:
        from moto.ec2 import ec2_backends

        return ec2_backends[ACCOUNT][request.region]

    def _definition(self, request: Request, name: str) -> Any:
        family, _, revision = name.rpartition("/")[2].partition(":")
        revisions = self._backend(request).task_definitions.get(family, {})
        if not revision:
            active = [number for number, one in revisions.items() if one.status == "ACTIVE"]
            revision = str(max(active, default=0))
        definition = revisions.get(int(revision)) if revision.isdigit() else None
        if definition is None:
            raise client_error("TaskDefinition not found.")
        if definition.status != "ACTIVE":
            raise client_error("TaskDefinition is inactive")
        return definition

    def _markets(self, order: _Order, count: int) -> list[str | None]:
        """The capacity provider of each task; None where the call names a launch type."""
        strategy = order.strategy
        if not strategy:
            return [None] * count
        for item in strategy:
            if item["capacityProvider"] not in (order.cluster.capacity_providers or []):
                raise invalid(
                    "The specified capacity provider strategy cannot contain a capacity provider that is not "
                    "associated with the cluster. Associate the capacity provider with the cluster and try again."
                )
            if item["capacityProvider"] not in MARKETS:
                raise client_error("No Container Instances were found in your capacity provider.")
        return list(_spread(strategy, count))

    def _take_launches(self, request: Request, providers: list[str | None]) -> None:
        rate = self._account.profile.launches
        if rate is None:
            return
        scale = self._account.timers.scale
        for market in ("on-demand", "spot"):
            count = sum(MARKETS[provider or "FARGATE"] == market for provider in providers)
            bucket = self._launches.setdefault((request.region, market), Bucket(rate, scale))
            if count and not bucket.take(count):
                raise AWSError("ThrottlingException", "Rate exceeded.")

    def _room(self, market: str, vcpus: float) -> bool:
        running = [task for task in self.tasks() if task.market == market and not task.stopped]
        quota = self._account.faults.market("quota", market)
        if quota and sum(task.size.vcpus for task in running) + vcpus > quota.room:
            raise AWSError(
                "ThrottlingException",
                "You've reached the limit on the number of vCPUs you can run concurrently",
            )
        if len(running) >= self._account.profile.capacity.get(market, len(running) + 1):
            return False
        if fault := self._account.faults.market("capacity", market):
            fault.room -= 1
            return fault.room >= 0
        return True

    def _make(self, request: Request, order: _Order, provider: str | None) -> Task:
        id = uuid.uuid4().hex
        subnet = self._network(request).get_subnet(self._account.chance.choice(order.network["subnets"]))
        architecture = (order.definition.runtime_platform or {}).get("cpuArchitecture", "X86_64")
        task = Task(
            id=id,
            region=request.region,
            account=ACCOUNT,
            cluster_name=order.cluster.name,
            cluster_arn=order.cluster.arn,
            task_definition_arn=order.definition.arn,
            family=order.definition.family,
            size=order.size,
            launch_type="FARGATE",
            capacity_provider=provider,
            market=MARKETS[provider or "FARGATE"],
            architecture=architecture,
            subnet=subnet.id,
            zone=subnet.availability_zone,
            groups=tuple(order.network.get("securityGroups", [])),
            public=order.network.get("assignPublicIp", "DISABLED") == "ENABLED",
            containers=order.containers(request, id),
            overrides=order.overrides,
            execution_role=order.execution_role,
            task_role=order.task_role,
            group=order.parameters.get("group") or f"family:{order.definition.family}",
            started_by=order.parameters.get("startedBy", ""),
            tags=order.tags(),
            execute_command=bool(order.parameters.get("enableExecuteCommand")),
        )
        self._backend(request).tasks.setdefault(order.cluster.name, {})[task.task_arn] = task
        task.enter("PROVISIONING", "createdAt")
        return task


@dataclass(frozen=True)
class _Remembered:
    """What the first call with a clientToken did."""

    time: float
    fingerprint: str
    tasks: list[Task]
    failures: list[Document]


class _Order:
    """What one RunTask asks for."""

    def __init__(self, parameters: Mapping[str, Any], cluster: Any, definition: Any, network: Any) -> None:
        self.parameters = parameters
        self.cluster = cluster
        self.definition = definition
        self.network = network
        self.overrides: Mapping[str, Any] = parameters.get("overrides") or {}
        storage = self.overrides.get("ephemeralStorage") or definition.ephemeral_storage
        cpu = self.overrides.get("cpu") or definition.cpu
        self.size = ecs_checks.fargate_size(cpu, self.overrides.get("memory") or definition.memory, storage)
        self.execution_role = self._role("executionRoleArn", "execution_role_arn")
        self.task_role = self._role("taskRoleArn", "task_role_arn")
        if parameters.get("enableExecuteCommand") and not self.task_role:
            raise invalid("The task definition must have a task role when execute command is enabled.")

    def _role(self, override: str, attribute: str) -> str:
        return self.overrides.get(override) or getattr(self.definition, attribute, None) or ""

    @property
    def strategy(self) -> list[Mapping[str, Any]]:
        """The capacity provider strategy: the call's, or else the cluster's."""
        if self.parameters.get("launchType"):
            if self.parameters["launchType"] != "FARGATE":
                raise invalid("No Container Instances were found in your cluster.")
            return []
        own = self.parameters.get("capacityProviderStrategy")
        strategy = own or self.cluster.default_capacity_provider_strategy or []
        if not strategy:
            raise invalid("No Container Instances were found in your cluster.")
        return list(strategy)

    def containers(self, request: Request, id: str) -> list[Container]:
        """The containers of one task."""
        overrides = {one["name"]: one for one in self.overrides.get("containerOverrides", [])}
        prefix = f"arn:aws:ecs:{request.region}:{ACCOUNT}:container/{self.cluster.name}/{id}"
        return [
            Container(
                name=definition["name"],
                definition=definition,
                override=overrides.get(definition["name"], {}),
                arn=f"{prefix}/{uuid.uuid4()}",
                runtime_id=f"{id}-{uuid.uuid4().int % 10**10}",
            )
            for definition in self.definition.container_definitions
        ]

    def tags(self) -> list[dict[str, str]]:
        """The tags of the call, and of the definition when the call wants them."""
        inherited = self.definition.tags if self.parameters.get("propagateTags") == "TASK_DEFINITION" else []
        merged = {tag["key"]: tag.get("value", "") for tag in [*inherited, *self.parameters.get("tags", [])]}
        return [{"key": key, "value": value} for key, value in merged.items()]


def _fingerprint(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _listed(task: Task, parameters: Mapping[str, Any]) -> bool:
    return (
        task.desired_status == parameters.get("desiredStatus", "RUNNING")
        and parameters.get("family", task.family) == task.family
        and parameters.get("startedBy", task.started_by) == task.started_by
        and parameters.get("launchType", task.launch_type) == task.launch_type
        and not {"serviceName", "containerInstance"} & set(parameters)
    )


def _page(name: str, arns: list[str], parameters: Mapping[str, Any]) -> Document:
    size = parameters.get("maxResults", PAGE)
    if not 1 <= size <= PAGE:
        raise invalid(f"maxResults must be between 1 and {PAGE}.")
    start = _offset(parameters.get("nextToken"))
    answer: Document = {name: arns[start : start + size]}
    if start + size < len(arns):
        answer["nextToken"] = f"offset-{start + size}"
    return answer


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    if not token.startswith("offset-"):
        raise invalid("Invalid token.")
    return int(token.removeprefix("offset-"))


def _spread(strategy: list[Mapping[str, Any]], count: int) -> Iterator[str]:
    """First each provider's base, then shares by weight."""
    given = dict.fromkeys((item["capacityProvider"] for item in strategy), 0)
    for item in strategy:
        base = min(item.get("base", 0), count - sum(given.values()))
        given[item["capacityProvider"]] += base
        yield from [item["capacityProvider"]] * base
    weights = {item["capacityProvider"]: item.get("weight", 0) for item in strategy}
    if not any(weights.values()):
        weights = {strategy[0]["capacityProvider"]: 1}
    shared = dict.fromkeys(weights, 0)
    for _ in range(count - sum(given.values())):
        least = min(
            (name for name in weights if weights[name]), key=lambda name: shared[name] / weights[name]
        )
        shared[least] += 1
        yield least
