"""The container instances of ECS clusters: what an agent registers, and what becomes of their tasks."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.ecs_checks import client_error, invalid
from cloudprovider.emulator.ecs_pages import PAGE, page
from cloudprovider.emulator.ecs_placement import Instance
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ecs_life import Life
    from cloudprovider.emulator.ecs_placement import Placement
    from cloudprovider.emulator.ecs_task import Task
    from cloudprovider.emulator.wire import Request

GB = 1024
#: What the agent keeps for itself: SSH, Docker, its own.
PORTS = ("22", "2375", "2376", "51678", "51679")
CAPABILITIES = ("ecs.capability.task-eni", "ecs.capability.secrets.ssm.environment-variables")
#: From which an instance is chosen by its size.
FAMILIES = {"x86_64": "m5", "arm64": "m6g"}
GPU_FAMILIES = {"x86_64": "g4dn", "arm64": "g5g"}
#: The tag by which an Auto Scaling group knows its own.
GROUP_TAG = "aws:autoscaling:groupName"
#: Why the tasks of an instance ended that is no more.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
GONE = ("TerminationNotice", "Host EC2 (instance {id}) {how}.")
FORCED = ("UserInitiated", "Container instance deregistration forced by user.")

Document = dict[str, Any]


class Instances:
    """The container instances of one account; `tasks` tells every task."""

    def __init__(self, account: Account, life: Life, tasks: Callable[[], Iterable[Task]]) -> None:
        self._account = account
        self._life = life
        self._tasks = tasks
        self._waiting: list[tuple[Task, Placement]] = []
        life.freed = self.settle

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {
            "RegisterContainerInstance": self.register,
            "DeregisterContainerInstance": self.deregister,
            "DescribeContainerInstances": self.describe,
            "ListContainerInstances": self.list_them,
            "UpdateContainerInstancesState": self.update_state,
        }.get(operation)

    # -- the operations ------------------------------------------------------------------------------

    def register(self, request: Request) -> Document:
        """RegisterContainerInstance, as the agent on an EC2 instance calls it."""
        parameters = request.parameters or {}
        cluster = _cluster(request.region, parameters)
        host = _host(request.region, parameters.get("instanceIdentityDocument"))
        given = {resource["name"]: resource for resource in parameters.get("totalResources", [])}
        instance = _instance(request.region, cluster.name, host)
        known = cluster_instances(request.region, cluster.name).get(
            _id(parameters.get("containerInstanceArn"))
        )
        if known is not None and known.ec2_id == host.id:
            instance = known
            instance.enter("ACTIVE", connected=True)
        instance.cpu = given.get("CPU", {}).get("integerValue", instance.cpu)
        instance.memory = given.get("MEMORY", {}).get("integerValue", instance.memory)
        instance.gpus = given.get("GPU", {}).get("stringSetValue", instance.gpus)
        instance.reserved_ports = given.get("PORTS", {}).get("stringSetValue", PORTS)
        instance.attributes |= {one["name"]: one.get("value") for one in parameters.get("attributes", [])}
        instance.tags = parameters.get("tags", instance.tags)
        instance.version_info = parameters.get("versionInfo", instance.version_info)
        self._keep(instance)
        return {"containerInstance": instance.describe(self._tasks(), tags=True)}

    def deregister(self, request: Request) -> Document:
        """DeregisterContainerInstance: with tasks on it only by force, which ends them.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html
        """
        parameters = request.parameters or {}
        cluster = _cluster(request.region, parameters)
        instance = cluster_instances(request.region, cluster.name).get(_id(parameters["containerInstance"]))
        if instance is None or instance.status == "INACTIVE":
            raise invalid("The referenced container instance was not found.")
        held = [task for task in instance.on_it(self._tasks()) if task.desired_status == "RUNNING"]
        if held and not parameters.get("force"):
            raise invalid("Found running tasks on the instance.")
        instance.enter("INACTIVE", connected=False)
        self._end(instance, *FORCED)
        return {"containerInstance": instance.describe(self._tasks(), tags=True)}

    def describe(self, request: Request) -> Document:
        """DescribeContainerInstances: at most a hundred, those that were deregistered as INACTIVE."""
        parameters = request.parameters or {}
        found, failures = _found(request, parameters)
        tags = "TAGS" in parameters.get("include", [])
        tasks = list(self._tasks())
        return {
            "containerInstances": [one.describe(tasks, tags=tags) for one in found],
            "failures": failures,
        }

    def list_them(self, request: Request) -> Document:
        """ListContainerInstances: all that are not INACTIVE, or those of one status."""
        parameters = request.parameters or {}
        if "filter" in parameters:
            raise _unknown("filter of ListContainerInstances")
        cluster = _cluster(request.region, parameters)
        wanted = parameters.get("status")
        arns = [
            one.container_instance_arn
            for one in cluster_instances(request.region, cluster.name).values()
            if (one.status == wanted if wanted else one.status != "INACTIVE")
        ]
        return page("containerInstanceArns", sorted(arns), parameters)

    def update_state(self, request: Request) -> Document:
        """UpdateContainerInstancesState: a DRAINING instance gets no new tasks and keeps its standalone ones."""
        parameters = request.parameters or {}
        status = parameters["status"]
        if status not in ("ACTIVE", "DRAINING"):
            raise invalid("Container instance status should be one of [ACTIVE,DRAINING].")
        found, failures = _found(request, parameters)
        for instance in found:
            if instance.status == "INACTIVE":
                raise invalid("The container instance is INACTIVE: its status cannot be changed.")
            instance.enter(status, connected=instance.agent_connected)
        self.settle()
        tasks = list(self._tasks())
        return {"containerInstances": [one.describe(tasks, tags=True) for one in found], "failures": failures}

    # -- what else happens to them -------------------------------------------------------------------

    def add(
        self,
        cluster: str,
        *,
        cpu: float,
        memory: float,
        gpus: int = 0,
        architecture: str,
        capacity_provider: str | None,
        interfaces: int | None,
        zone: str,
        region: str,
    ) -> str:
        """Start an EC2 instance whose agent joins a cluster; its EC2 id. See `Emulator.add_container_instance`."""
        with self._account.lock:
            name = cluster.rpartition("/")[2]
            if name not in _backend(region).clusters:
                raise LookupError(f"There is no ECS cluster {name!r} in {region}.")
            if capacity_provider and capacity_provider not in _backend(region).capacity_providers:
                raise ValueError(f"There is no capacity provider {capacity_provider!r} in {region}.")
            host = _started(region, cpu, memory, gpus, architecture, zone)
            instance = _instance(region, name, host)
            instance.cpu, instance.memory = round(cpu * GB), round(memory * GB)
            instance.interfaces = instance.interfaces if interfaces is None else interfaces
            instance.capacity_provider = capacity_provider or instance.capacity_provider
            self._keep(instance)
            return instance.ec2_id

    def watch(self) -> None:
        """See what became of the EC2 instances: the agent of one that ended is heard no more."""
        from moto.ecs import ecs_backends

        for backend in list(ecs_backends[ACCOUNT].values()):
            for instances in list(backend.container_instances.values()):
                for instance in list(instances.values()):
                    if instance.status != "INACTIVE":
                        self._look(instance)

    def of(self, region: str, cluster: str, provider: str | None) -> list[Instance]:
        """The instances that tasks of a cluster can be placed on."""
        return [
            one
            for one in cluster_instances(region, cluster).values()
            if one.status == "ACTIVE" and provider in (None, one.capacity_provider)
        ]

    def choose(self, task_of: tuple[str, str, str | None], placement: Placement) -> Instance | None:
        """An instance with room, of a region, cluster and capacity provider."""
        return placement.choose(self.of(*task_of), list(self._tasks()), self._account.chance)

    def failures(self, task_of: tuple[str, str, str | None], placement: Placement) -> list[Document]:
        """Why none of the instances can take a task: one failure each."""
        tasks = list(self._tasks())
        return [
            {"arn": one.container_instance_arn, "reason": placement.refusal(one, tasks)}
            for one in self.of(*task_of)
        ]

    def wait(self, task: Task, placement: Placement) -> None:
        """Keep a task PROVISIONING until an instance has room, as managed scaling does."""
        self._waiting.append((task, placement))

    def settle(self) -> None:
        """Place what waits, now that there may be room."""
        with self._account.lock:
            waiting, self._waiting = self._waiting, []
            for task, placement in waiting:
                if task.desired_status != "RUNNING":
                    continue
                host = self.choose((task.region, task.cluster_name, task.capacity_provider), placement)
                if host is None:
                    self._waiting.append((task, placement))
                    continue
                task.settle(host, placement.subnet(host, self._account.chance), self._tasks())
                self._life.begin(task)

    def _keep(self, instance: Instance) -> None:
        cluster_instances(instance.region, instance.cluster_name)[instance.id] = instance
        self.settle()

    def _look(self, instance: Instance) -> None:
        host = next((one for one in _hosts(instance.region) if one.id == instance.ec2_id), None)
        state = "terminated" if host is None else host.state
        if state == "pending":
            return
        if state == "running":
            if not instance.agent_connected:
                instance.enter(instance.status, connected=True)
                self.settle()
            return
        how = "terminated" if state in ("terminated", "shutting-down") else "stopped"
        if instance.agent_connected:
            # One that was stopped before it was terminated is not deregistered by ECS.
            status = "INACTIVE" if how == "terminated" else instance.status
            instance.enter(status, connected=False)
            code, reason = GONE
            self._end(instance, code, reason.format(id=instance.ec2_id, how=how))

    def _end(self, instance: Instance, code: str, reason: str) -> None:
        for task in instance.on_it(self._tasks()):
            self._life.lose(task, code, reason)


def cluster_instances(region: str, cluster: str) -> dict[str, Instance]:
    """The container instances of a cluster by id, where moto keeps them."""
    instances: dict[str, Instance] = _backend(region).container_instances.setdefault(cluster, {})
    return instances


def is_managed(region: str, provider: str) -> bool:
    """Whether tasks wait for a capacity provider that has no room: with managed scaling only."""
    known = _backend(region).capacity_providers.get(provider)
    return known is not None and known.auto_scaling_group_provider["managedScaling"]["status"] == "ENABLED"


def _backend(region: str) -> Any:
    from moto.ecs import ecs_backends

    return ecs_backends[ACCOUNT][region]


def _network(region: str) -> Any:
    from moto.ec2 import ec2_backends

    return ec2_backends[ACCOUNT][region]


def _cluster(region: str, parameters: Mapping[str, Any]) -> Any:
    name = parameters.get("cluster", "default").rpartition("/")[2]
    cluster = _backend(region).clusters.get(name)
    if cluster is None or cluster.status != "ACTIVE":
        raise AWSError("ClusterNotFoundException", "Cluster not found.")
    return cluster


def _hosts(region: str) -> Iterator[Any]:
    for reservation in list(_network(region).reservations.values()):
        yield from reservation.instances


def _host(region: str, document: str | None) -> Any:
    """The EC2 instance of an identity document; its signature is not looked at."""
    try:
        id = json.loads(document or "{}")["instanceId"]
    except (ValueError, KeyError, TypeError) as error:
        raise client_error("The instance identity document is not valid.") from error
    for host in _hosts(region):
        if host.id == id and host.state == "running":
            return host
    raise client_error(f"The instance {id} of the identity document is not running in {region}.")


def _instance(region: str, cluster: str, host: Any) -> Instance:
    """What the agent on a host registers when it is told nothing."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    kind = INSTANCE_TYPES[host.instance_type]
    nic = host.nics[0]
    groups = [tag["value"] for tag in host.get_tags() if tag["key"] == GROUP_TAG]
    return Instance(
        id=uuid.uuid4().hex,
        region=region,
        account=ACCOUNT,
        cluster_name=cluster,
        ec2_id=host.id,
        zone=nic.subnet.availability_zone,
        subnet=nic.subnet.id,
        public=bool(nic.public_ip),
        cpu=kind["VCpuInfo"]["DefaultVCpus"] * GB,
        memory=kind["MemoryInfo"]["SizeInMiB"],
        # Without the account setting `awsvpcTrunking`.
        interfaces=kind["NetworkInfo"]["MaximumNetworkInterfaces"] - 1,
        registered_at=round(time.time(), 3),
        gpus=_gpus(kind),
        reserved_ports=PORTS,
        capacity_provider=_provider(region, groups),
        attributes={
            **dict.fromkeys(CAPABILITIES),
            "ecs.ami-id": host.image_id,
            "ecs.availability-zone": nic.subnet.availability_zone,
            "ecs.cpu-architecture": kind["ProcessorInfo"]["SupportedArchitectures"][0],
            "ecs.instance-type": host.instance_type,
            "ecs.os-type": "linux",
            "ecs.subnet-id": nic.subnet.id,
            "ecs.vpc-id": nic.subnet.vpc_id,
        },
        version_info={
            "agentVersion": "1.89.0",
            "agentHash": "emulated",
            "dockerVersion": "DockerVersion: 25.0.6",
        },
    )


def _provider(region: str, groups: Iterable[str]) -> str | None:
    """The capacity provider of an Auto Scaling group, which it names by its ARN or its name."""
    for provider in _backend(region).capacity_providers.values():
        arn = provider.auto_scaling_group_provider.get("autoScalingGroupArn", "")
        if arn.rpartition("autoScalingGroupName/")[2] in groups:
            return str(provider.name)
    return None


def _started(region: str, cpu: float, memory: float, gpus: int, architecture: str, zone: str) -> Any:
    """A new EC2 instance in the default VPC."""
    network = _network(region)
    subnets = [one for one in network.get_default_subnets().values() if zone in ("", one.availability_zone)]
    if not subnets:
        raise ValueError(f"There is no default subnet in {zone or region}.")
    images = [
        one for one in network.describe_images() if one.architecture == architecture and not one.platform
    ]
    image = next((one for one in images if "-ecs-" in (one.name or "")), images[0])
    reservation = network.run_instances(
        image.id,
        1,
        None,
        [],
        instance_type=_type(cpu, memory, gpus, architecture),
        is_instance_type_default=False,
        region_name=region,
        subnet_id=subnets[0].id,
        associate_public_ip=None,
    )
    host = reservation.instances[0]
    host.inside = False  # its agent is ours
    host.life.hasten(host)
    return host


def _type(cpu: float, memory: float, gpus: int, architecture: str) -> str:
    """The smallest type of a family with as many vCPUs, GPUs and as much memory, or else the largest."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    family = f"{(GPU_FAMILIES if gpus else FAMILIES)[architecture]}."
    sizes = sorted(
        (kind["VCpuInfo"]["DefaultVCpus"], kind["MemoryInfo"]["SizeInMiB"], name)
        for name, kind in INSTANCE_TYPES.items()
        if name.startswith(family) and "metal" not in name and len(_gpus(kind)) >= gpus
    )
    fit = [name for cpus, mib, name in sizes if cpus >= cpu and mib >= memory * GB]
    return str(fit[0] if fit else sizes[-1][2])


def _gpus(kind: Mapping[str, Any]) -> list[str]:
    """Ids for the GPUs of an instance type."""
    count = sum(gpu["Count"] for gpu in kind.get("GpuInfo", {}).get("Gpus", ()))
    return [f"GPU-{uuid.uuid4()}" for _ in range(count)]


def _found(request: Request, parameters: Mapping[str, Any]) -> tuple[list[Instance], list[Document]]:
    cluster = _cluster(request.region, parameters)
    names = [_id(name) for name in parameters["containerInstances"]]
    if not names:
        raise invalid("Container instances cannot be empty.")
    if len(names) > PAGE:
        raise invalid(f"Container instances cannot have more than {PAGE} elements.")
    known = cluster_instances(request.region, cluster.name)
    head = f"arn:aws:ecs:{request.region}:{ACCOUNT}:container-instance/{cluster.name}"
    missing = [{"arn": f"{head}/{name}", "reason": "MISSING"} for name in names if name not in known]
    return [known[name] for name in names if name in known], missing


def _id(arn: str | None) -> str:
    return (arn or "").rpartition("/")[2]


def _unknown(what: str) -> AWSError:
    return AWSError("NotImplemented", f"The emulated ECS has no {what}.", 501)
