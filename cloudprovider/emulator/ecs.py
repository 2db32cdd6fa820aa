"""ECS's calls about tasks, answered by live tasks; the rest is moto's, with what AWS refuses refused."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ecs_checks, ecs_settings, ecs_volumes
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.ecs_checks import client_error, invalid
from cloudprovider.emulator.ecs_instances import Instances, cluster_instances, is_managed
from cloudprovider.emulator.ecs_life import Life
from cloudprovider.emulator.ecs_pages import PAGE, page
from cloudprovider.emulator.ecs_placement import Placement
from cloudprovider.emulator.ecs_task import Container, Task
from cloudprovider.emulator.profiles import Bucket
from cloudprovider.emulator.quotas import Quotas, fargate_quota
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ecs_placement import Instance
    from cloudprovider.emulator.wire import Request

MARKETS = {"FARGATE": "on-demand", "FARGATE_SPOT": "spot"}
NO_CAPACITY = (
    "Capacity is unavailable at this time. Please try again later or in a different availability zone"
)
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
        self.instances = Instances(account, self.life, self.tasks)
        self._tokens: dict[tuple[str, str, str], _Remembered] = {}
        self._launches: dict[tuple[str, str], Bucket] = {}

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        own = {
            "RunTask": self.run_task,
            "StopTask": self.stop_task,
            "DescribeTasks": self.describe_tasks,
            "ListTasks": self.list_tasks,
            "StartTask": self.start_task,
            "ListTaskDefinitionFamilies": self.list_task_definition_families,
            "ListTaskDefinitions": self.list_task_definitions,
            "ListAccountSettings": self.list_account_settings,
        }.get(operation)
        return own or self.instances.handler(operation)

    def check(self, request: Request) -> None:
        """Refuse what AWS refuses and moto does not."""
        parameters = request.parameters or {}
        if request.operation == "RegisterTaskDefinition":
            ecs_checks.check_definition(parameters)
            ecs_volumes.check(parameters)
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
        if order.own:
            tasks, failures = self._on_instances(request, order, markets)
        else:
            tasks, failures = self._on_fargate(request, order, markets)
        if token[-1]:
            self._tokens[token] = _Remembered(time.time(), _fingerprint(parameters), tasks, failures)
        self._begin(tasks, order)
        return {"tasks": [task.describe() for task in tasks], "failures": failures}

    def start_task(self, request: Request) -> Document:
        """StartTask: a task on each of the container instances that the call names."""
        parameters = dict(request.parameters or {})
        names = parameters.pop("containerInstances")
        order = self._order(request, {**parameters, "launchType": "EC2"})
        hosts = cluster_instances(request.region, order.cluster.name)
        tasks: list[Task] = []
        failures: list[Document] = []
        for name in names:
            host = hosts.get(name.rpartition("/")[2])
            reason = "MISSING" if host is None else order.placement.refusal(host, list(self.tasks()))
            if host is None or reason:
                failures.append(
                    {"arn": name if host is None else host.container_instance_arn, "reason": reason}
                )
            else:
                tasks.append(self._make(request, order, None, host))
        self._begin(tasks, order)
        return {"tasks": [task.describe() for task in tasks], "failures": failures}

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
        return page("taskArns", [task.task_arn for task in wanted if self._visible(task)], parameters)

    def list_task_definitions(self, request: Request) -> Document:
        """ListTaskDefinitions: a hundred a page."""
        parameters = request.parameters or {}
        return page("taskDefinitionArns", self._backend(request).definitions(parameters), parameters)

    def list_task_definition_families(self, request: Request) -> Document:
        """ListTaskDefinitionFamilies: a hundred a page."""
        parameters = request.parameters or {}
        return page("families", self._backend(request).families(parameters), parameters)

    def list_account_settings(self, request: Request) -> Document:
        """ListAccountSettings: what was set, or what is in effect."""
        return ecs_settings.settings(self._backend(request).account_settings, request.parameters or {})

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
        if any(one.status != "INACTIVE" for one in cluster_instances(request.region, cluster.name).values()):
            raise AWSError(
                "ClusterContainsContainerInstancesException",
                "The Cluster cannot be deleted while Container Instances are active or draining.",
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
        order = _Order(parameters, cluster, definition, self._network(request))
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
        return list(_spread(strategy, count))

    def _on_fargate(
        self, request: Request, order: _Order, providers: list[str | None]
    ) -> tuple[list[Task], list[Document]]:
        self._take_launches(request, providers)
        tasks: list[Task] = []
        failures: list[Document] = []
        for provider in providers:
            if self._room(MARKETS[provider or "FARGATE"], order.size.vcpus):
                tasks.append(self._make(request, order, provider))
            else:
                failures.append({"reason": NO_CAPACITY})
        return tasks, failures

    def _on_instances(
        self, request: Request, order: _Order, providers: list[str | None]
    ) -> tuple[list[Task], list[Document]]:
        """As many tasks as the cluster's own capacity has room for, and why not more: a failure an instance."""
        where = {provider: (request.region, order.cluster.name, provider) for provider in providers}
        managed = {
            provider: bool(provider and is_managed(request.region, provider)) for provider in providers
        }
        for provider, capacity in where.items():
            if not managed[provider] and not self.instances.of(*capacity):
                what = "capacity provider" if provider else "cluster"
                raise invalid(f"No Container Instances were found in your {what}.")
        tasks: list[Task] = []
        failures: dict[str, Document] = {}
        for provider in providers:
            host = self.instances.choose(where[provider], order.placement)
            if host is not None or managed[provider]:
                tasks.append(self._make(request, order, provider, host))
            else:
                some = self.instances.failures(where[provider], order.placement)
                failures |= {failure["arn"]: failure for failure in some}
        return tasks, list(failures.values())

    def _begin(self, tasks: list[Task], order: _Order) -> None:
        for task in tasks:
            if task.subnet:
                self.life.begin(task)
            else:
                self.instances.wait(task, order.placement)

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
        running = [
            task for task in self.tasks() if task.market == market and not task.own and not task.stopped
        ]
        limit = Quotas(self._account).value(fargate_quota(market))
        if sum(task.size.vcpus for task in running) + vcpus > limit:
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

    def _make(
        self, request: Request, order: _Order, provider: str | None, host: Instance | None = None
    ) -> Task:
        id = uuid.uuid4().hex
        task = Task(
            id=id,
            region=request.region,
            account=ACCOUNT,
            cluster_name=order.cluster.name,
            cluster_arn=order.cluster.arn,
            task_definition_arn=order.definition.arn,
            family=order.definition.family,
            size=order.size,
            launch_type="EC2" if order.own else "FARGATE",
            capacity_provider=provider or (host.capacity_provider if host else None),
            market=MARKETS.get(provider or "FARGATE", "on-demand"),
            architecture=order.placement.architecture,
            groups=tuple(order.network.get("securityGroups", [])),
            public=order.network.get("assignPublicIp", "DISABLED") == "ENABLED",
            containers=order.containers(request, id),
            overrides=order.overrides,
            execution_role=order.execution_role,
            task_role=order.task_role,
            group=order.group,
            started_by=order.parameters.get("startedBy", ""),
            tags=order.tags(),
            execute_command=bool(order.parameters.get("enableExecuteCommand")),
        )
        if host is not None:
            task.settle(host, order.placement.subnet(host, self._account.chance), self.tasks())
        elif not order.own:
            task.subnet = self._account.chance.choice(order.network["subnets"])
            task.zone = order.placement.subnets[task.subnet]
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

    def __init__(self, parameters: Mapping[str, Any], cluster: Any, definition: Any, ec2: Any) -> None:
        self.parameters = parameters
        self.cluster = cluster
        self.definition = definition
        self.own = self._is_own()
        ecs_checks.check_launch(definition, own=self.own)
        self.network = ecs_checks.check_network(parameters, ec2, own=self.own)
        self.overrides: Mapping[str, Any] = parameters.get("overrides") or {}
        storage = self.overrides.get("ephemeralStorage") or definition.ephemeral_storage
        cpu = self.overrides.get("cpu") or definition.cpu
        memory = self.overrides.get("memory") or definition.memory
        if self.own:
            self.size = ecs_checks.own_size(cpu, memory, definition.container_definitions)
        else:
            self.size = ecs_checks.fargate_size(cpu, memory, storage)
        self.placement = self._placement(ec2)
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
            return []
        own = self.parameters.get("capacityProviderStrategy")
        return list(own or self.cluster.default_capacity_provider_strategy or [])

    def _is_own(self) -> bool:
        """Whether its tasks run on the cluster's container instances: what else is said is Fargate."""
        providers = {item["capacityProvider"] for item in self.strategy}
        if providers & set(MARKETS) and providers - set(MARKETS):
            raise invalid(
                "The specified capacity provider strategy cannot contain both Fargate capacity providers and "
                "Auto Scaling group capacity providers."
            )
        return not providers & set(MARKETS) if providers else self.parameters.get("launchType") != "FARGATE"

    def _placement(self, ec2: Any) -> Placement:
        zones = {id: ec2.get_subnet(id).availability_zone for id in self.network["subnets"]}
        constraints = [
            *(self.definition.placement_constraints or []),
            *self.parameters.get("placementConstraints", []),
        ]
        for one in constraints:
            if one["type"] != "distinctInstance":
                raise AWSError("NotImplemented", f"The emulated ECS has no constraint {one['type']}.", 501)
        return Placement(
            size=self.size,
            architecture=(self.definition.runtime_platform or {}).get("cpuArchitecture", "X86_64"),
            subnets=zones,
            group=self.group,
            strategy=self.parameters.get("placementStrategy", ()),
            constraints=constraints,
        )

    @property
    def group(self) -> str:
        """The task group: the call's, or else the family."""
        return self.parameters.get("group") or f"family:{self.definition.family}"

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
        and "serviceName" not in parameters
        and parameters.get("containerInstance", "").rpartition("/")[2]
        in ("", task.host.id if task.host else None)
    )


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
