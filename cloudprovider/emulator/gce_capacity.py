"""How many machines there is room for: by zone, type and market, and by the project's quotas.

https://cloud.google.com/compute/resource-usage
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_links import region_of
from cloudprovider.emulator.gce_operations import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.faults import Fault
    from cloudprovider.emulator.gce_machine import LiveInstance
    from cloudprovider.emulator.gce_orders import Order

ENDLESS = 1 << 30
#: What a project has when its profile does not say: more than anyone needs here.
AMPLE = 1_000_000.0
#: Families whose vCPUs count for a quota of their own; all others count as CPUS.
OWN_CPUS = ("a2", "c2", "c2d", "c3", "m1", "m2", "m3", "n2", "n2d", "t2a", "t2d")
SOLID = ("pd-balanced", "pd-ssd", "pd-extreme")
#: The quotas of a region that its answers tell.
REGIONAL = (
    "CPUS",
    *(f"{family.upper()}_CPUS" for family in OWN_CPUS),
    "PREEMPTIBLE_CPUS",
    "NVIDIA_A100_GPUS",
    "NVIDIA_A100_80GB_GPUS",
    "NVIDIA_L4_GPUS",
    "NVIDIA_P100_GPUS",
    "NVIDIA_P4_GPUS",
    "NVIDIA_T4_GPUS",
    "NVIDIA_V100_GPUS",
    "PREEMPTIBLE_NVIDIA_A100_GPUS",
    "PREEMPTIBLE_NVIDIA_A100_80GB_GPUS",
    "PREEMPTIBLE_NVIDIA_H100_GPUS",
    "PREEMPTIBLE_NVIDIA_L4_GPUS",
    "PREEMPTIBLE_NVIDIA_P100_GPUS",
    "PREEMPTIBLE_NVIDIA_P4_GPUS",
    "PREEMPTIBLE_NVIDIA_T4_GPUS",
    "PREEMPTIBLE_NVIDIA_V100_GPUS",
    "DISKS_TOTAL_GB",
    "SSD_TOTAL_GB",
    "IN_USE_ADDRESSES",
    "INSTANCES",
)
GLOBAL = ("CPUS_ALL_REGIONS", "GPUS_ALL_REGIONS", "NETWORKS", "FIREWALLS")
#: States in which an instance holds its place: https://cloud.google.com/compute/docs/instances/instance-lifecycle
HOLDING = frozenset({"PROVISIONING", "STAGING", "RUNNING", "STOPPING"})


class Capacity:
    """What is left of one account's cloud."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.instances: Callable[[], Iterable[LiveInstance]] = tuple

    # -- room ----------------------------------------------------------------------------------------

    def room(self, order: Order, zone: str) -> int:
        """How many machines of an order a zone has room for."""
        words = (order.market, zone, order.type)
        held = [one for one in self.instances() if one.state in HOLDING]
        limits = [
            limit - sum(_fits(key, (one.market, one.zone, one.type)) for one in held)
            for key, limit in self._account.profile.capacity.items()
            if _fits(key, words)
        ]
        limits += [fault.room for fault in self._faults(words)]
        return max(0, min([*limits, ENDLESS]))

    def take(self, order: Order, zone: str, count: int = 1) -> None:
        """Take room away where it does not come back."""
        for fault in self._faults((order.market, zone, order.type)):
            fault.room -= count

    def _faults(self, words: tuple[str, str, str]) -> list[Fault]:
        market, zone, kind = words
        return [
            fault
            for fault in self._account.faults.of("capacity")
            if fault.market in ("", market)
            and fault.zone in ("", zone)
            and (not fault.type or fnmatchcase(kind, fault.type))
        ]

    # -- quotas --------------------------------------------------------------------------------------

    def within_quota(self, order: Order, zone: str) -> tuple[int, str]:
        """How many machines of an order the project may still have, and which quota says so."""
        used = {False: self._used(region_of(zone)), True: self._used("")}
        left = {
            metric: max(0, int((self._limit(metric) - used[metric in GLOBAL][metric]) // amount))
            for metric, amount in metrics(order).items()
            if amount
        }
        return min(((count, metric) for metric, count in left.items()), default=(ENDLESS, ""))

    def over_quota(self, metric: str, zone: str) -> Failure:
        """What is said of the machine that is one too many."""
        region, limit = region_of(zone), self._limit(metric)
        everywhere = metric in GLOBAL
        where = "globally" if everywhere else f"in region {region}"
        info = {
            "metricName": f"compute.googleapis.com/{metric.lower()}",
            "limitName": f"{metric.replace('_', '-')}-per-project" + ("" if everywhere else "-region"),
            "dimensions": {"global": "global"} if everywhere else {"region": region},
            "limit": limit,
        }
        return Failure(
            "QUOTA_EXCEEDED",
            f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}.",
            403,
            [{"quotaInfo": info}],
        )

    def quotas(self, region: str) -> list[dict[str, Any]]:
        """The quotas of a region, or with no region those that count everywhere, as answers tell them."""
        used = self._used(region)
        return [
            {"metric": metric, "limit": self._limit(metric), "usage": float(used[metric])}
            for metric in (REGIONAL if region else GLOBAL)
        ]

    def _limit(self, metric: str) -> float:
        limit = float(self._account.profile.quotas.get(metric, AMPLE))
        if metric.endswith("CPUS"):
            market = "spot" if metric.startswith("PREEMPTIBLE_") else "on-demand"
            fault = self._account.faults.market("quota", market)
            return min(limit, float(fault.room)) if fault else limit
        return limit

    def _used(self, region: str) -> Counter[str]:
        """What machines count for in a region, or with no region anywhere."""
        used: Counter[str] = Counter()
        for one in self.instances():
            if one.state in HOLDING and region in ("", region_of(one.zone)):
                used.update(one.counts)
        return used


def metrics(order: Order) -> dict[str, Any]:
    """What one machine of an order counts for, by quota.

    https://cloud.google.com/compute/resource-usage#cpu_quota
    """
    spot = order.market == "spot"
    family = order.type.partition("-")[0]
    own = f"{family.upper()}_CPUS" if family in OWN_CPUS else "CPUS"
    found: dict[str, Any] = {"PREEMPTIBLE_CPUS" if spot else own: order.vcpus, "INSTANCES": 1}
    found["CPUS_ALL_REGIONS"] = order.vcpus
    for name, count in order.gpus.items():
        card = name.removeprefix("nvidia-").removeprefix("tesla-").replace("-", "_").upper()
        found[f"{'PREEMPTIBLE_' if spot else ''}NVIDIA_{card}_GPUS"] = count
        found["GPUS_ALL_REGIONS"] = found.get("GPUS_ALL_REGIONS", 0) + count
    for disk in order.disks:
        total = "SSD_TOTAL_GB" if disk.kind in SOLID else "DISKS_TOTAL_GB"
        found[total] = found.get(total, 0) + disk.size_gb
    if order.public:
        found["IN_USE_ADDRESSES"] = 1
    return found


def stockout(order: Order, zone: str, project: str, elsewhere: Sequence[str] = ()) -> Failure:
    """What is said when a zone has no room.

    https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-availability
    """
    info = {
        "reason": "resource_availability",
        "domain": "compute.googleapis.com",
        "metadatas": {
            "vmType": order.type,
            "attachment": "",
            "zone": zone,
            "zonesAvailable": ",".join(elsewhere),
        },
    }
    hint = {
        "locale": "en-US",
        "message": f"A {order.type} VM instance is currently unavailable in the {zone} zone. Consider trying your "
        "request in other zones, or try again later.",
    }
    return Failure(
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the "
        "request.  '(resource type:compute)'.",
        503,
        [{"errorInfo": info}, {"localizedMessage": hint}],
    )


def _fits(key: str, words: tuple[str, str, str]) -> bool:
    """Whether each word of a capacity's name is the market, the zone or the type."""
    return all(any(fnmatchcase(word, part) for word in words) for part in key.split("/"))
