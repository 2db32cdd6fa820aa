"""How fast, how large and how reliable an emulated cloud is: published figures, where there are any."""

from __future__ import annotations

import dataclasses
import difflib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["PROFILES", "Calls", "Profile", "Rate", "check_figures", "profile"]


@dataclass(frozen=True)
class Rate:
    """A token bucket: `burst` at once, then `per_second`."""

    burst: float
    per_second: float


@dataclass(frozen=True)
class Calls:
    """Operations that share one rate.

    Parameters
    ----------
    rate
        Of all of them together, or of each alone.
    operations
        Such as `ecs:RunTask`, or patterns, such as `ec2:Describe*`.
    each
        Whether each has that rate alone; the first group that an operation fits is then the one it is of.
    """

    rate: Rate
    operations: frozenset[str]
    each: bool = False


def _ecs(burst: float, per_second: float, *operations: str) -> Calls:
    return Calls(Rate(burst, per_second), frozenset(f"ecs:{operation}" for operation in operations))


#: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html, and for RunTask alone
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html: 20 a second, burst and sustained
ECS_CALLS = (
    _ecs(20, 1, "CreateCluster", "DeleteCluster", "PutClusterCapacityProviders", "UpdateCluster"),
    _ecs(50, 20, "DescribeClusters", "ListClusters"),
    _ecs(20, 1, "DeregisterTaskDefinition", "RegisterTaskDefinition"),
    _ecs(50, 20, "DescribeTaskDefinition", "ListTaskDefinitions", "ListTaskDefinitionFamilies"),
    _ecs(5, 1, "DeleteTaskDefinitions"),
    _ecs(20, 10, "TagResource", "UntagResource"),
    _ecs(50, 20, "ListTagsForResource"),
    _ecs(100, 40, "RunTask", "StartTask", "StopTask", "ExecuteCommand"),
    _ecs(100, 20, "DescribeTasks", "ListTasks"),
    _ecs(50, 5, "CreateService", "DeleteService", "UpdateService"),
    _ecs(100, 20, "DescribeServices", "ListServices"),
    _ecs(20, 20, "RunTask"),
)


#: What the name of a call of EC2 ends in that asks for all there is, in one answer.
UNFILTERED = " unfiltered"


def _ec2(burst: float, per_second: float, *operations: str) -> Calls:
    return Calls(
        Rate(burst, per_second), frozenset(f"ec2:{operation}" for operation in operations), each=True
    )


#: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html: each operation alone
EC2_CALLS = (
    _ec2(5, 2, "RunInstances", "StartInstances"),
    _ec2(100, 5, "TerminateInstances", "CreateLaunchTemplateVersion", "ModifyLaunchTemplate"),
    _ec2(100, 5, "AssociateIamInstanceProfile", "CreateVolume", "DeleteVolume", "CreateNetworkInterface"),
    _ec2(100, 10, "CreateTags", "DeleteTags"),
    _ec2(50, 10, f"Describe*{UNFILTERED}"),
    _ec2(100, 20, "Describe*", "List*", "Search*", "Get*"),
    _ec2(50, 5, "*"),
)
#: The same page, "Resource token bucket sizes and refill rates".
EC2_RESOURCES = MappingProxyType(
    {
        "ec2:RunInstances": Rate(1000, 2),
        "ec2:TerminateInstances": Rate(1000, 20),
        "ec2:StartInstances": Rate(1000, 2),
        "ec2:StopInstances": Rate(1000, 20),
    }
)
#: The same page: who calls these without any filter and any page size has a smaller rate.
EC2_UNFILTERED = frozenset(
    {
        "DescribeInstances",
        "DescribeInstanceStatus",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSnapshots",
        "DescribeSpotInstanceRequests",
        "DescribeVolumes",
    }
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the emulated cloud does to those who call it; every wait is multiplied by the time scale.

    Parameters
    ----------
    latency_s
        How long each API call takes beside its own work.
    latencies
        The same for single operations, by `service:Operation`, where they take longer.
    address_s
        From the order until a machine's network interface has its address and its image is pulled.
    running_s
        From the order until its container starts, or until an EC2 instance runs.
    guest_s
        From an EC2 instance that runs until its operating system has a network.
    pull_s
        How long an EC2 instance takes to pull an image that it does not have.
    engine_s
        How long a machine whose image has no container engine takes to install one.
    release_s
        From the end of its container until it is stopped for good; from an EC2 instance's shutdown until it
        is stopped or terminated.
    poll_s
        What Azure says is to be waited before a long-running operation is asked for again. Less than a second is
        not said; short operations are then over when they are answered.
    spread
        Share of its boot by which machines differ, drawn from the seed.
    launches
        Machines that may be started, for each market.
    calls
        Calls that may be made, in each region: groups of `service:Operation` that share one rate.
    resources
        Machines that calls may concern, in each region, by `service:Operation`.
    capacity
        Machines the cloud has room for, by market; a market that is not named has no end. For virtual machines also by zone
        and type: words between slashes that must all fit, such as `spot/us-east-1a/m7i.*`.
    quotas
        What an account's quotas are, by their codes or metrics, where they are not as large as anyone needs.
    spot_interruptions
        Expected interruptions of a spot machine an hour.
    """

    latency_s: float = 0.0
    latencies: Mapping[str, float] = field(default_factory=dict)
    address_s: float = 0.02
    running_s: float = 0.1
    guest_s: float = 0.0
    pull_s: float = 0.0
    engine_s: float = 0.0
    release_s: float = 0.02
    poll_s: float = 0.0
    spread: float = 0.0
    launches: Rate | None = None
    calls: tuple[Calls, ...] = ()
    resources: Mapping[str, Rate] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)
    spot_interruptions: float = 0.0

    def rates(self, name: str) -> Iterator[tuple[str, Rate]]:
        """The rates that a call of this name takes a token of, each with a name of its own."""
        alone = False
        for number, group in enumerate(self.calls):
            fits = name in group.operations or any(fnmatchcase(name, one) for one in group.operations)
            if not group.each and fits:
                yield str(number), group.rate
            elif group.each and not alone and fits:
                alone = True
                yield f"{number} {name}", group.rate


INSTANT = Profile()

FARGATE = Profile(
    # A signed call from a home or office to a region on the same continent: our own choice, not published.
    latency_s=0.05,
    # "ENI の Allocate (10秒程度)", the rest of the start is mostly the pull:
    # https://qiita.com/kjm/items/a86c5a425c57439ecfa0. "ENI attachment latency: < 10 seconds per task (normal)":
    # https://www.cloudkeeper.com/insights/blog/addressing-network-bottlenecks-while-scaling-amazon-ecs.
    # 40 s until it runs stand for an image of some 200 MB: our own choice, not published.
    address_s=10.0,
    running_s=40.0,
    # The interface is detached and deleted in DEPROVISIONING: our own choice, not published.
    release_s=10.0,
    spread=0.1,
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html: on-demand and spot each
    launches=Rate(100, 20),
    calls=ECS_CALLS,
)

EC2 = Profile(
    latency_s=0.05,  # as for Fargate
    # "1.5 s API + 4.9 s to running + 17 s to network": https://www.daemonology.net/blog/2021-08-12-EC2-boot-time-benchmarking.html
    latencies={"ec2:RunInstances": 1.5, "ec2:CreateFleet": 1.5},
    running_s=4.9,
    guest_s=17.0,
    pull_s=15.0,  # an image of some 400 MB: our own choice, not published
    release_s=30.0,  # our own choice, not published
    spread=0.1,
    calls=EC2_CALLS,
    resources=EC2_RESOURCES,
)


def _gce(per_minute: float, *operations: str) -> Calls:
    return Calls(
        Rate(per_minute, per_minute / 60), frozenset(f"compute:{operation}" for operation in operations)
    )


#: https://cloud.google.com/compute/docs/api-rate-limits: 1,500 a minute of each group in each region; and of bulk
#: requests 20 a second, https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-bulk-vm-creation
GCP_CALLS = (
    _gce(
        1500, *(f"*.{verb}" for verb in ("insert", "bulkInsert", "delete", "patch", "set*", "start", "stop"))
    ),
    _gce(1500, "*.get", "*.getFromFamily", "instances.getSerialPortOutput"),
    _gce(1500, "*.list", "*.aggregatedList"),
    _gce(1500, "*Operations.get", "*Operations.wait"),
    Calls(Rate(20, 20), frozenset({"compute:*.bulkInsert"})),
    # https://cloud.google.com/logging/quotas#api-limits
    Calls(Rate(60, 1), frozenset({"logging:entries.list"})),
)

GCP = Profile(
    latency_s=0.05,  # as for Fargate
    # "consistently takes only ~23 seconds" until a machine of 8 CPUs answers:
    # https://medium.com/@robaboukhalil/move-fast-and-break-the-cloud-b55b899e3683; how much of it is the boot is our
    # own choice.
    address_s=2.0,
    running_s=10.0,
    guest_s=13.0,
    pull_s=15.0,  # as for EC2
    release_s=30.0,  # our own choice, not published
    spread=0.1,
    calls=GCP_CALLS,
)


def _azure(burst: float, per_minute: float, *operations: str) -> Calls:
    return Calls(Rate(burst, per_minute / 60), frozenset(f"compute:{operation}" for operation in operations))


#: https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling: what a service
#: principal may read, write and delete in a subscription, and what Microsoft.Network takes in five minutes;
#: https://learn.microsoft.com/azure/virtual-machines/compute-throttling-limits: what Microsoft.Compute takes in a region
AZURE_CALLS = (
    Calls(Rate(250, 25), frozenset({"subscription:reads"})),
    Calls(Rate(200, 10), frozenset({"subscription:writes"})),
    Calls(Rate(200, 10), frozenset({"subscription:deletes"})),
    Calls(Rate(10_000, 10_000 / 300), frozenset({"network:reads"})),
    Calls(Rate(1000, 1000 / 300), frozenset({"network:changes"})),
    _azure(1500, 500, "VirtualMachines.CreateOrUpdate"),
    _azure(
        1500,
        500,
        *("VirtualMachines.Update", "VirtualMachines.PowerOff", "VirtualMachines.Start"),
        "VirtualMachines.Restart",
    ),
    _azure(
        1500,
        500,
        *("VirtualMachines.Delete", "VirtualMachines.Deallocate", "VirtualMachines.SimulateEviction"),
    ),
    _azure(
        24_000,
        8000,
        *("VirtualMachines.Get", "VirtualMachines.InstanceView"),
        "VirtualMachines.RetrieveBootDiagnosticsData",
    ),
    _azure(900, 300, "VirtualMachines.List", "VirtualMachines.ListAll", "VirtualMachines.ListByLocation"),
    _azure(15_000, 5000, "Operations.Get"),
    _azure(375, 125, "VirtualMachineScaleSets.CreateOrUpdate"),
    _azure(
        1500,
        500,
        *("VirtualMachineScaleSets.Update", "VirtualMachineScaleSets.ScaleOut"),
    ),
    _azure(525, 175, "VirtualMachineScaleSets.Delete", "VirtualMachineScaleSets.DeleteInstances"),
    _azure(2400, 800, "VirtualMachineScaleSets.Get"),
    _azure(
        1080,
        360,
        *("VirtualMachineScaleSets.List", "VirtualMachineScaleSets.ListAll"),
        "VirtualMachineScaleSets.ListByLocation",
    ),
)
#: The same page, "resource level": what each resource alone takes.
AZURE_RESOURCES = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "compute:VirtualMachines.CreateOrUpdate",
                "compute:VirtualMachines.Update",
                "compute:VirtualMachines.Delete",
                "compute:VirtualMachines.Deallocate",
                "compute:VirtualMachines.PowerOff",
                "compute:VirtualMachines.Start",
                "compute:VirtualMachineScaleSets.CreateOrUpdate",
                "compute:VirtualMachineScaleSets.Update",
                "compute:VirtualMachineScaleSets.Delete",
                "compute:VirtualMachineScaleSets.DeleteInstances",
            ),
            Rate(12, 4 / 60),
        ),
        **dict.fromkeys(
            (
                "compute:VirtualMachines.Get",
                "compute:VirtualMachines.InstanceView",
                "compute:VirtualMachineScaleSets.Get",
            ),
            Rate(36, 12 / 60),
        ),
        "compute:Operations.Get": Rate(45, 15 / 60),
    }
)

AZURE = Profile(
    latency_s=0.05,  # as for Fargate
    # An order is answered when it is accepted: our own choice, not published.
    latencies={
        "compute:VirtualMachines.CreateOrUpdate": 1.0,
        "compute:VirtualMachineScaleSets.CreateOrUpdate": 1.5,
    },
    address_s=1.0,  # our own choice, not published
    running_s=15.0,  # our own choice, not published
    guest_s=25.0,  # our own choice, not published
    pull_s=15.0,  # as for EC2
    engine_s=10.0,  # our own choice, not published
    release_s=20.0,  # our own choice, not published
    # "Retry-After: 10" of Microsoft.Compute's answers: our own choice where it is not published.
    poll_s=10.0,
    spread=0.1,
    calls=AZURE_CALLS,
    resources=AZURE_RESOURCES,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {"instant": INSTANT, "fargate": FARGATE, "ec2": EC2, "gcp": GCP, "azure": AZURE}
)


def check_figures(figures: Mapping[str, Any]) -> None:
    """Refuse figures that no profile has.

    Raises
    ------
    ValueError
        Naming the nearest that there is.
    """
    known = [field.name for field in dataclasses.fields(Profile)]
    for name in figures:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}."
            raise ValueError(f"A profile has no figure '{name}'; {hint}")


def profile(name: str, figures: Mapping[str, Any] | None = None) -> Profile:
    """The profile of this name, with some of its figures changed, as plain data tells them."""
    figures = figures or {}
    check_figures(figures)
    changes: dict[str, Any] = {
        key: READERS[key](value) if key in READERS else value for key, value in figures.items()
    }
    return dataclasses.replace(PROFILES[name], **changes)


def _rate(told: Any) -> Rate | None:
    if told is None or isinstance(told, Rate):
        return told
    return Rate(**told) if isinstance(told, dict) else Rate(*told)


def _calls(told: Any) -> tuple[Calls, ...]:
    return tuple(
        one
        if isinstance(one, Calls)
        else Calls(_rate(one["rate"]) or Rate(0, 0), frozenset(one["operations"]), one.get("each", False))
        for one in told or ()
    )


def _rates(told: Any) -> dict[str, Rate | None]:
    return {name: _rate(rate) for name, rate in (told or {}).items()}


#: How the figures that are more than a number are read from plain data.
READERS = {"launches": _rate, "calls": _calls, "resources": _rates}


def plain(value: Any) -> Any:
    """A figure as JSON can say it."""
    if isinstance(value, Rate):
        return [value.burst, value.per_second]
    if isinstance(value, Calls):
        return {"rate": plain(value.rate), "operations": sorted(value.operations), "each": value.each}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


class Bucket:
    """The tokens of one rate; thread-safe."""

    def __init__(self, rate: Rate, scale: float = 1.0) -> None:
        self._rate = rate
        self._scale = max(scale, 1e-9)
        self._tokens = rate.burst
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: float = 1) -> bool:
        """Whether there were `count` tokens; if so, they are gone."""
        with self._lock:
            now = time.monotonic()
            refill = (now - self._filled) * self._rate.per_second / self._scale
            self._tokens = min(self._rate.burst, self._tokens + refill)
            self._filled = now
            if self._tokens < count:
                return False
            self._tokens -= count
            return True

    @property
    def left(self) -> float:
        """How many tokens there were when somebody last took some."""
        return self._tokens
