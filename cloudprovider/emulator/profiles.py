"""How fast, how large and how reliable an emulated cloud is: published figures, where there are any."""

from __future__ import annotations

import dataclasses
import difflib
import threading
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["PROFILES", "Calls", "Profile", "Rate", "check_figures", "profile"]


@dataclass(frozen=True)
class Rate:
    """A token bucket: `burst` at once, then `per_second`."""

    burst: float
    per_second: float


@dataclass(frozen=True)
class Calls:
    """Operations that share one rate."""

    rate: Rate
    operations: frozenset[str]


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


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the emulated cloud does to those who call it; every wait is multiplied by the time scale.

    Parameters
    ----------
    latency_s
        How long each API call takes beside its own work.
    address_s
        From the order until a machine's network interface has its address and its image is pulled.
    running_s
        From the order until its container starts, or until an EC2 instance runs.
    guest_s
        From an EC2 instance that runs until its operating system has a network.
    release_s
        From the end of its container until it is stopped for good; from an EC2 instance's shutdown until it
        is stopped or terminated.
    spread
        Share of its boot by which machines differ, drawn from the seed.
    launches
        Machines that may be started, for each market.
    calls
        Calls that may be made, in each region: groups of `service:Operation` that share one rate.
    resources
        Machines that calls may concern, in each region, by `service:Operation`.
    capacity
        Machines the cloud has room for, by market; a market that is not named has no end. For EC2 also by zone
        and type: words between slashes that must all fit, such as `spot/us-east-1a/m7i.*`.
    quotas
        What an account's service quotas are, by their codes, where they are not as large as anyone needs.
    spot_interruptions
        Expected interruptions of a spot machine an hour.
    """

    latency_s: float = 0.0
    address_s: float = 0.02
    running_s: float = 0.1
    guest_s: float = 0.0
    release_s: float = 0.02
    spread: float = 0.0
    launches: Rate | None = None
    calls: tuple[Calls, ...] = ()
    resources: Mapping[str, Rate] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)
    spot_interruptions: float = 0.0


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

PROFILES: Mapping[str, Profile] = MappingProxyType({"instant": INSTANT, "fargate": FARGATE})


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
        else Calls(_rate(one["rate"]) or Rate(0, 0), frozenset(one["operations"]))
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
        return {"rate": plain(value.rate), "operations": sorted(value.operations)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


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
