"""The clouds that the same tests run over: what each has of its own, in one place."""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import boto3
import psutil
import pytest
from click.testing import CliRunner
from contract import until

from cloudprovider import CapacityError, CloudError, CredentialsError, QuotaError, discovery
from cloudprovider.cli import cloud as command_line
from cloudprovider.policies import Wanted, document
from cloudprovider.providers import _gcp
from cloudprovider.providers.local import LocalConfig, LocalProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The smallest machines of Fargate, and no progress.
SMALL = {
    "progress": False,
    "worker_cpu": 0.25,
    "worker_memory": "0.5 GiB",
    "scheduler_cpu": 0.25,
    "scheduler_memory": "0.5 GiB",
}
#: The ECS cluster of the user's, on whose container instances `ECSCluster` runs.
BATCH = "batch"


def running(cloud) -> list:
    """Machines that have not stopped."""
    return [machine for machine in cloud.machines() if machine.state != "STOPPED"]


def nothing_left(cloud) -> bool:
    """Whether the cloud has nothing beside its landing, soon: network interfaces take their time to go."""
    return until(lambda: not cloud.leftovers(), 30, "nothing is left")


def dask_cloud(*arguments: str) -> str:
    """What a command of the command line's says."""
    done = CliRunner().invoke(command_line, arguments)
    assert 0 == done.exit_code, done.output
    return done.stdout


class Account:
    """An account of one cloud as on its first day, and all that a test of every cloud asks of it."""

    #: What the command line calls it.
    name: ClassVar[str]
    #: What the emulator calls it; empty for this computer.
    emulator: ClassVar[str]
    #: The smallest cluster.
    options: ClassVar[dict[str, Any]]
    #: The operations that order machines.
    orders: ClassVar[tuple[str, ...]] = ()
    #: What the cloud calls machines that bill no more.
    over: ClassVar[frozenset[str]] = frozenset()
    #: Whether it has machines that it may take back.
    spot: ClassVar[bool] = True
    #: What can be refused: the fault with its figures, the error, and what that says.
    refusals: ClassVar[tuple[tuple[str, dict[str, Any], type[CloudError], str], ...]] = ()
    #: Options of a cluster that is closed while its machines boot.
    hasty: ClassVar[dict[str, Any]] = {}
    #: What Python's audit events call a call that can change something.
    events: ClassVar[tuple[str, ...]] = ("http.client.send",)
    #: What whoever starts clusters may do, and nothing else.
    policies: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.prepare()

    def prepare(self) -> None:
        """Make what the user would have made."""

    def start(self, **options: Any) -> Any:
        """Start a cluster, the smallest unless `options` say otherwise."""
        return discovery.cluster_class(self.name)(**{**self.options, **options})

    @contextlib.contextmanager
    def least(self) -> Iterator[None]:
        """Let what is started in a block have the least rights, all its life: the printed policies' and no others."""
        if not self.policies:
            yield
            return
        where = {} if self.name == "azure" else {"account": "123456789012", "region": "us-east-1"}
        shipped = [document(name, Wanted(**where)) for name in self.policies]
        with self.cloud.active(self.cloud.login(*shipped, name="manager")):
            yield

    def find(self, name: str, **options: Any) -> Any:
        """Attach to a cluster by its name."""
        return discovery.cluster_class(self.name).from_name(name, progress=False, **options)

    def provider(self, name: str = discovery.NOBODY, **options: Any) -> Any:
        """A provider of a cluster that it has not made; `options` are those of a cluster that it makes."""
        if not options:
            return discovery.provider(self.name, name)
        row = discovery.CLOUDS[self.name]
        module = importlib.import_module(row.module)
        small = {"allow_from": "127.0.0.1/32", **self.options, **options}
        config = getattr(module, row.config).of(name=name, **small)
        return getattr(module, row.provider)(config, config.identity())

    def running(self) -> list[str]:
        """Machines that bill."""
        return [machine.id for machine in self.cloud.machines() if machine.state not in self.over]

    def billing(self) -> list[str]:
        """Machines for which the cloud's own ledger counts another moment."""
        before = self._billed()
        time.sleep(0.05)
        return sorted(
            {
                machine
                for (machine, kind), s in self._billed().items()
                if s > before.get((machine, kind), 0.0) + 0.01
            }
        )

    def _billed(self) -> dict[tuple[str, str], float]:
        billed: Counter[tuple[str, str]] = Counter()
        for entry in self.cloud.ledger:
            billed[entry.machine, entry.kind] += entry.seconds
        return billed

    def leftovers(self) -> list[str]:
        """What there is beside the landing and what the user made."""
        return self.cloud.leftovers()

    def nothing_left(self, patience_s: float = 60) -> bool:
        """Whether all is gone, soon."""
        with contextlib.suppress(AssertionError):
            until(lambda: not self.running() and not self.leftovers(), patience_s, "nothing is left")
        assert ([], []) == (self.running(), self.leftovers())
        return True

    def room(self, machines: int) -> dict[str, Any]:
        """Let there be room for only so many machines; the options of a cluster that is to see it."""
        self.cloud.inject("capacity", room=machines)
        return {}

    def room_again(self, cluster: Any) -> None:
        """Let there be room for all."""
        self.cloud.clear()

    def kill(self, cluster: Any, machine: str) -> None:
        """End a machine at once, without any notice."""
        self.cloud.kill(machine)

    def kill_scheduler(self, name: str) -> bool:
        """End the scheduler's machine of a cluster at once; whether there was one."""
        wanted = {"dask-cluster": name, "dask-role": "scheduler"}
        for machine in self.cloud.machines():
            if machine.state not in self.over and wanted.items() <= machine.tags.items():
                self.cloud.kill(machine.id)
                return True
        return False

    def ordered(self) -> int:
        """How many calls have ordered machines."""
        return sum(call.operation in self.orders for call in self.cloud.calls)

    def calls_to_start(self, n_workers: int) -> int:
        """How many calls order a scheduler and so many workers."""
        return 2

    def shown(self, cluster: Any) -> str:
        """All that the cloud shows of a cluster's machines to who may look at them."""
        raise NotImplementedError

    def admitted(self) -> list[str]:
        """From where anybody may come in, by the cloud's rules."""
        raise NotImplementedError


class Local(Account):
    """The computer that runs the tests, on which machines are processes."""

    name = "local"
    emulator = ""
    options: ClassVar = {"progress": False}
    spot = False
    events = ("subprocess.Popen", "os.rename")
    #: The variable that says where it keeps what a cloud would.
    folder = "DASK_CLOUD__LOCAL__DIRECTORY"

    @property
    def _records(self) -> LocalProvider:
        config = LocalConfig.named(discovery.NOBODY)
        return LocalProvider(config, config.identity())

    def running(self) -> list[str]:
        return [machine.id for machine in self._records.list()]

    def billing(self) -> list[str]:
        return self.running()

    def leftovers(self) -> list[str]:
        root = self._records.config.root
        return sorted(str(path) for path in root.rglob("*") if path.is_dir()) if root.is_dir() else []

    def room(self, machines: int) -> dict[str, Any]:
        return {"capacity": machines}

    def room_again(self, cluster: Any) -> None:
        cluster.provider.capacity = None

    def kill(self, cluster: Any, machine: str) -> None:
        self._kill(cluster.name, machine)

    def kill_scheduler(self, name: str) -> bool:
        schedulers = [machine.id for machine in self._records.list(name) if machine.role == "scheduler"]
        for machine in schedulers:
            self._kill(name, machine)
        return bool(schedulers)

    def _kill(self, cluster: str, machine: str) -> None:
        process = psutil.Process(self._records._record(cluster, machine)["pid"])
        for each in (process, *process.children(recursive=True)):
            each.kill()

    def ordered(self) -> int:
        return 2

    def shown(self, cluster: Any) -> str:
        root = cluster.provider.config.root / cluster.name
        files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".secret"]
        return "".join(path.read_text(errors="replace") for path in files)

    def admitted(self) -> list[str]:
        return ["127.0.0.0/8"]  # the option's default: loopback has no rules


class AWS(Account):
    """What all services of AWS have in common."""

    emulator = "aws"

    def admitted(self) -> list[str]:
        groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
        rules = [rule for group in groups for rule in group["IpPermissions"]]
        sources = [source["CidrIp"] for rule in rules for source in rule["IpRanges"]]
        return sources + [source["CidrIpv6"] for rule in rules for source in rule["Ipv6Ranges"]]


class Fargate(AWS):
    """AWS Fargate."""

    name = "fargate"
    policies = ("aws-fargate", "aws-fargate-landing")
    options: ClassVar = SMALL
    orders = ("RunTask",)
    over = frozenset({"STOPPED"})
    refusals = (
        ("capacity", {"room": 0}, CapacityError, "zones"),
        ("quota", {"room": 0}, QuotaError, "L-3032A538"),
        ("denied", {"operation": "RunTask"}, CredentialsError, "ecs:RunTask"),
        ("image-pull", {}, CloudError, "CannotPull"),
        ("addresses", {}, CloudError, "(?i)address"),
        ("expired-credentials", {}, CredentialsError, "expired"),
    )
    ecs_cluster = "dask"
    # A container's first process does not hear a SIGTERM that comes before it listens: it is then killed.
    hasty: ClassVar = {"task_definition_args": {"containerDefinitions": [{"stopTimeout": 5}]}}

    def shown(self, cluster: Any) -> str:
        ecs = boto3.client("ecs")
        definitions = [
            ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
            for arn in ecs.list_task_definitions()["taskDefinitionArns"]
        ]
        arns = ecs.list_tasks(cluster=self.ecs_cluster)["taskArns"]
        tasks = ecs.describe_tasks(cluster=self.ecs_cluster, tasks=arns, include=["TAGS"])
        return str(definitions) + str(tasks)


class ECS(Fargate):
    """An Amazon ECS cluster of the user's, with a container instance that has room for eight machines."""

    name = "ecs"
    policies = ("aws-ecs", "aws-ecs-landing")
    options: ClassVar = {**SMALL, "ecs_cluster": BATCH, "allow_from": "127.0.0.0/8"}
    spot = False
    refusals = (
        ("denied", {"operation": "RunTask"}, CredentialsError, "ecs:RunTask"),
        ("image-pull", {}, CloudError, "CannotPull"),
    )
    ecs_cluster = BATCH

    def prepare(self) -> None:
        boto3.client("ecs").create_cluster(clusterName=BATCH)
        self.host()

    def host(self, machines: int = 8, **options: Any) -> str:
        """Start a container instance with room for so many small machines; its EC2 id."""
        return self.cloud.add_container_instance(
            BATCH, cpu=machines / 4, memory=machines / 2, interfaces=machines, **options
        )

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The container instances."""
        ecs = boto3.client("ecs")
        arns = ecs.list_container_instances(cluster=BATCH)["containerInstanceArns"]
        return ecs.describe_container_instances(cluster=BATCH, containerInstances=arns)["containerInstances"]

    def running(self) -> list[str]:
        return [id for id in super().running() if not id.startswith("i-")]

    def billing(self) -> list[str]:
        return [id for id in super().billing() if not id.startswith("i-")]

    def leftovers(self) -> list[str]:
        interfaces = {
            nic["NetworkInterfaceId"]
            for reservation in boto3.client("ec2").describe_instances()["Reservations"]
            for instance in reservation["Instances"]
            for nic in instance["NetworkInterfaces"]
        }
        return [
            line
            for line in self.cloud.leftovers()
            if line != f"ecs cluster: {BATCH}"
            and not line.startswith(("ec2 instance: ", "ec2 volume: "))
            and not any(interface in line for interface in interfaces)
        ]

    def room(self, machines: int) -> dict[str, Any]:
        self.remove_hosts()
        if machines:
            self.host(machines)
        return {}

    def room_again(self, cluster: Any) -> None:
        self.host()

    def remove_hosts(self) -> None:
        """Terminate the container instances."""
        boto3.client("ec2").terminate_instances(InstanceIds=[host["ec2InstanceId"] for host in self.hosts])


class EC2(AWS):
    """Amazon EC2."""

    name = "ec2"
    policies = ("aws-ec2", "aws-ec2-landing")
    options: ClassVar = {
        "progress": False,
        "instance_type": "m7i.large",
        "scheduler_instance_type": "c7i.large",
    }
    orders = ("RunInstances", "CreateFleet")
    over = frozenset({"terminated"})
    refusals = (
        ("capacity", {"room": 0}, CapacityError, "InsufficientInstanceCapacity"),
        ("quota", {"room": 1}, QuotaError, "L-1216C47A|VcpuLimitExceeded"),
        ("denied", {"operation": "RunInstances"}, CredentialsError, "ec2:RunInstances"),
        ("denied", {"operation": "CreateFleet"}, CredentialsError, "ec2:CreateFleet"),
        ("clock-skew", {"seconds": 1200}, CredentialsError, "clock"),
        ("image-pull", {}, CloudError, "(?s)image=.*last log lines.*manifests"),
        ("expired-credentials", {}, CredentialsError, "expired"),
    )

    def shown(self, cluster: Any) -> str:
        ec2 = boto3.client("ec2")
        data = [
            ec2.describe_instance_attribute(InstanceId=id, Attribute="userData")["UserData"]["Value"]
            for id in self.running()
        ]
        text = "".join(map(unpacked, data))
        template = {"LaunchTemplateName": f"dask-{cluster.name}"}
        return text + str(ec2.describe_instances()) + str(ec2.describe_launch_template_versions(**template))


class GCP(Account):
    """Google Compute Engine."""

    name = "gcp"
    policies = ("gcp", "gcp-landing")
    emulator = "gcp"
    options: ClassVar = {
        "progress": False,
        "instance_type": "n2-standard-2",
        "scheduler_instance_type": "e2-standard-2",
    }
    orders = ("instances.insert", "instances.bulkInsert")
    over = frozenset({"DELETED"})
    refusals = (
        ("capacity", {"room": 0}, CapacityError, "ZONE_RESOURCE_POOL_EXHAUSTED|enough resources"),
        ("quota", {"room": 1}, QuotaError, "CPUS"),
        ("denied", {"operation": "instances.insert"}, CredentialsError, "compute.instances.create"),
        ("denied", {"operation": "instances.bulkInsert"}, CredentialsError, "compute.instances.create"),
        ("image-pull", {}, CloudError, "(?s)image=.*last log lines.*manifest"),
        ("expired-credentials", {}, CredentialsError, "expired"),
    )

    @property
    def project(self) -> Any:
        """The project, as its owner sees it."""
        return _gcp.GCP()

    def shown(self, cluster: Any) -> str:
        pages = self.project.pages("instances", "aggregated_list")
        every = [one for page in pages for scope in page.items.values() for one in scope.instances]
        data = [item.value for one in every for item in one.metadata.items if item.key == "user-data"]
        return str(every) + "".join(map(unpacked, data))

    def admitted(self) -> list[str]:
        # The default network has rules of Google's own, which are not ours to judge.
        rules = [
            rule for rule in self.project.items("firewalls") if rule.name.startswith("dask-") and rule.allowed
        ]
        return [source for rule in rules for source in rule.source_ranges]


class Azure(Account):
    """Azure virtual machines."""

    name = "azure"
    policies = ("azure", "azure-offers", "azure-landing")
    emulator = "azure"
    options: ClassVar = {
        "progress": False,
        "instance_type": "Standard_D2s_v5",
        "scheduler_instance_type": "Standard_D2s_v5",
    }
    orders = ("VirtualMachines.CreateOrUpdate", "VirtualMachineScaleSets.CreateOrUpdate")
    over = frozenset({"deleted"})
    refusals = (
        (
            "capacity",
            {"room": 0},
            CapacityError,
            "AllocationFailed|SkuNotAvailable|OverconstrainedAllocation",
        ),
        ("quota", {"room": 0}, QuotaError, "(?i)quota"),
        (
            "denied",
            {"operation": "VirtualMachines.CreateOrUpdate"},
            CredentialsError,
            "virtualMachines/write",
        ),
        (
            "denied",
            {"operation": "VirtualMachineScaleSets.CreateOrUpdate"},
            CredentialsError,
            "virtualMachineScaleSets/write",
        ),
        ("image-pull", {}, CloudError, "(?s)image=.*last log lines.*manifest"),
        ("expired-credentials", {}, CredentialsError, "(?i)expir(ed|y)"),
    )

    @property
    def clients(self) -> Any:
        """The SDK's own clients."""
        from azure_subscription import Subscription

        return Subscription.of(self.cloud)

    def calls_to_start(self, n_workers: int) -> int:
        # The cluster's own scale set, which has no machine, comes with its tags before the scheduler.
        return 3

    def shown(self, cluster: Any) -> str:
        clients = self.clients
        every = [
            *clients.compute.virtual_machines.list_all(),
            *clients.compute.virtual_machine_scale_sets.list_all(),
            *clients.network.network_interfaces.list_all(),
        ]
        return json.dumps([one.as_dict() for one in every], default=str)

    def admitted(self) -> list[str]:
        groups = self.clients.network.network_security_groups.list_all()
        rules = [rule for group in groups for rule in group.security_rules or ()]
        inwards = [rule for rule in rules if (rule.access, rule.direction) == ("Allow", "Inbound")]
        sources = [[rule.source_address_prefix, *(rule.source_address_prefixes or ())] for rule in inwards]
        return [source for some in sources for source in some if source]


def unpacked(data: str) -> str:
    """User data as the machine reads it."""
    raw = data.encode()
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(raw, validate=True)
    return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()


ACCOUNTS: dict[str, type[Account]] = {
    account.name: account for account in (Local, Fargate, ECS, EC2, GCP, Azure)
}


def account(name: str, request: Any) -> Account:
    """The account of a cloud for one test, by its emulator's fixture; this computer has a folder of its own."""
    if cloud := ACCOUNTS[name].emulator:
        return ACCOUNTS[name](request.getfixturevalue(f"emulated_{cloud}"))
    folder = request.getfixturevalue("tmp_path") / "machines"
    request.getfixturevalue("monkeypatch").setenv(Local.folder, str(folder))
    return ACCOUNTS[name](None)


@contextlib.contextmanager
def lasting(name: str, request: Any, folders: Any) -> Iterator[Account]:
    """The account of a cloud for several tests."""
    if cloud := ACCOUNTS[name].emulator:
        process = request.getfixturevalue(f"emulated_{cloud}_process")
        process.reset(profile="instant", time_scale=1.0, seed=0)
        with process.active():
            yield ACCOUNTS[name](process)
        process.reset()
        return
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(Local.folder, str(folders.mktemp("machines")))
        yield ACCOUNTS[name](None)
