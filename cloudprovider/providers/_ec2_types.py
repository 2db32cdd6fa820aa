"""Which EC2 instance types a cluster runs on: named by the user, or chosen for what the user requires.

The dated table nominates the cheapest types that fit, by name; the cloud then says what they are and where it
has them. So both roles cost two calls side by side of one page each, where a search of all types that EC2 has
takes a page for each hundred of them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import prices
from cloudprovider.errors import CloudError
from cloudprovider.providers._aws_quotas import Share, quotas
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._machine_types import Catalogue, Choice, MachineType, ranked_zones, wishes_of
from cloudprovider.providers._vm_config import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudprovider.provider import Quota
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = [
    "EC2",
    "Choice",
    "InstanceType",
    "choose_all",
    "quota_code",
    "quotas_of",
    "ranked_zones",
    "spot_prices",
]

#: Where prices are known best; where a region has none, types are ranked by these.
KNOWN = "us-east-1"
#: The quotas on vCPUs by market, and by the letters that a type's name begins with.
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
STANDARD = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})
QUOTAS = {
    "on-demand": {
        "": "L-1216C47A",
        "dl": "L-6E869C2A",
        "f": "L-74FC7D96",
        "g": "L-DB2E81BA",
        "hpc": "L-F7808C92",
        "inf": "L-1945791B",
        "p": "L-417A185B",
        "trn": "L-2C3B7624",
        "u": "L-43DA4232",
        "x": "L-7295265B",
    },
    "spot": {
        "": "L-34B43A08",
        "dl": "L-85EED4F7",
        "f": "L-88CF9481",
        "g": "L-3819A6DF",
        "inf": "L-B5D1601B",
        "p": "L-7212CCBC",
        "p5": "L-C4BD4855",
        "trn": "L-6B0D517C",
        "x": "L-E3A00192",
    },
}


@dataclass(frozen=True, kw_only=True)
class InstanceType(MachineType):
    """What DescribeInstanceTypes says of one type.

    Parameters
    ----------
    gpu_memory_gib
        The memory of one GPU; 0 when it has none.
    disks_gib
        The size of each of its instance-store disks; empty when it has none.
    nvme
        Whether those are NVMe.
    nitro, metal
        Whether it is of the newer virtual machines, which boot and run faster; whether it is a whole computer.
    """

    gpu_memory_gib: float = 0.0
    disks_gib: tuple[int, ...] = ()
    nvme: bool = False
    nitro: bool = True
    metal: bool = False

    @property
    def fit(self) -> bool:
        """Whether a requirement may be answered with it."""
        return self.nitro and not self.metal


def choose_all(aws: AWS, config: EC2Config) -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in two calls side by side.

    Parameters
    ----------
    aws
        The session.
    config
        Names of types, or what the machines shall have; and the zones to look in.

    Raises
    ------
    ConfigError
        For an unknown type (with the nearest), one that is not offered in `zones=`, mixed architectures or
        numbers of GPUs in one list, or a requirement that nothing fits.
    """
    names = dict.fromkeys(name for wish in wishes_of(config) for name in EC2.asked_about(wish, aws.region))
    kinds, zones = side_by_side([partial(_described, aws, [*names]), partial(_offered, aws, [*names])])
    return EC2.settled(config, aws.region, kinds, zones)


@functools.cache
def tabled(architecture: str) -> Mapping[str, tuple[float, float, int]]:
    """vCPUs, GiB and GPUs of each type in the table that a requirement may be answered with."""
    families = prices.table("ec2")["types"][architecture]
    return {
        f"{family}.{size}": (facts[0], facts[1], facts[2] if len(facts) > 2 else 0)  # noqa: PLR2004
        for family, sizes in families.items()
        for size, facts in sizes.items()
    }


def _is_burstable(name: str) -> bool:
    return re.match(r"t\d", name) is not None


def _generation(name: str) -> int:
    """The number in a type's name."""
    found = re.match(r"[a-z]+-?(\d+)", name)
    return int(found[1]) if found else 0


EC2 = Catalogue(
    cloud="EC2",
    known=KNOWN,
    price=lambda region, name, _: prices.ec2_price(region, name),
    sizes=tabled,
    generation=_generation,
    burstable=_is_burstable,
    spot=False,
    elsewhere="pass zones= or subnets= there",
)


def _described(aws: AWS, names: Sequence[str]) -> dict[str, InstanceType]:
    """What the cloud says of these types, by name; those that it does not have in the region are not in it."""
    # As a filter: with an unknown name in `InstanceTypes` the call fails.
    found = aws.pages("ec2", "describe_instance_types", "InstanceTypes", Filters=_filters(names))
    return {kind.name: kind for kind in map(parsed, found)}


def _offered(aws: AWS, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The zones that offer these types, by name."""
    found = aws.pages(
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=_filters(names),
    )
    zones: dict[str, list[str]] = {name: [] for name in names}
    for offering in found:
        zones[offering["InstanceType"]].append(offering["Location"])
    return {name: tuple(sorted(where)) for name, where in zones.items()}


def _filters(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"Name": "instance-type", "Values": [*names]}]


def spot_prices(aws: AWS, names: Iterable[str]) -> dict[tuple[str, str], float]:
    """Dollars an hour on the spot market now, by type and zone, in one call; what EC2 does not say is not in it.

    It is what an order would cost now: with the same start and end, DescribeSpotPriceHistory answers with the
    price in force.
    """
    now = datetime.fromtimestamp(aws.now(), UTC)
    request = {
        "InstanceTypes": [*names],
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": now,
        "EndTime": now,
    }
    try:
        history = aws.pages("ec2", "describe_spot_price_history", "SpotPriceHistory", **request)
    except CloudError:  # a bill that does not know a price is no reason not to start
        return {}
    newest = sorted(history, key=lambda said: said["Timestamp"])
    return {(said["InstanceType"], said["AvailabilityZone"]): float(said["SpotPrice"]) for said in newest}


def quota_code(instance_type: str, market: str) -> str | None:
    """The code, in Service Quotas' `ec2`, of the limit on vCPUs that machines of this type count against.

    Parameters
    ----------
    instance_type
        Such as `m7i.xlarge`.
    market
        `on-demand` or `spot`.

    Returns
    -------
    str or None
        None where AWS documents no such limit.
    """
    letters, generation = re.match(r"([a-z]*)-?(\d*)", instance_type).groups()  # type: ignore[union-attr]
    family = "" if letters in STANDARD else {"gr": "g", "vt": "g"}.get(letters, letters)
    if market == "spot" and family == "p" and generation not in {"2", "3", "4"}:
        family += generation
    return QUOTAS[market].get(family)


def quotas_of(
    aws: AWS, sizes: Mapping[str, tuple[str, float]], role: str, markets: Sequence[str]
) -> Sequence[Quota]:
    """The account's limits on vCPUs for a role's machines, one for each market; empty where one is not known.

    Parameters
    ----------
    aws
        The session.
    sizes
        By role, the name of its type and its vCPUs.
    role, markets
        Whose machines, and from where they may come.
    """
    codes = {name: quota_code(kind, "on-demand") for name, (kind, _) in sizes.items()}
    (kind, vcpu), shares = sizes[role], []
    for market in markets:
        if (quota := quota_code(kind, market)) is None:
            return ()
        beside = role != "scheduler" and market == "on-demand" and codes[role] == codes["scheduler"]
        taken = float(sizes["scheduler"][1]) if beside else 0.0
        shares.append(Share(code=quota, each=float(vcpu), taken=taken))
    return quotas(aws, "ec2", shares)


def parsed(answer: Mapping[str, Any]) -> InstanceType:
    """Read one type of a DescribeInstanceTypes answer."""
    gpus = [gpu for gpu in answer.get("GpuInfo", {}).get("Gpus", ()) if gpu.get("Manufacturer") == "NVIDIA"]
    storage = answer.get("InstanceStorageInfo", {})
    supported = answer["ProcessorInfo"].get("SupportedArchitectures", ())
    return InstanceType(
        name=answer["InstanceType"],
        vcpu=answer["VCpuInfo"]["DefaultVCpus"],
        memory_gib=answer["MemoryInfo"]["SizeInMiB"] / 1024,
        architecture=next((name for name in ARCHITECTURES if name in supported), ""),
        # A part of a GPU counts as none in `Count`, and as one in `LogicalGpuCount`.
        gpus=sum(gpu.get("Count") or gpu.get("LogicalGpuCount", 0) for gpu in gpus),
        gpu_name=gpus[0].get("Name", "") if gpus else "",
        gpu_memory_gib=gpus[0].get("MemoryInfo", {}).get("SizeInMiB", 0) / 1024 if gpus else 0.0,
        disks_gib=tuple(disk["SizeInGB"] for disk in storage.get("Disks", ()) for _ in range(disk["Count"])),
        nvme=storage.get("NvmeSupport") in {"required", "supported"},
        burstable=answer.get("BurstablePerformanceSupported", False),
        nitro=answer.get("Hypervisor") == "nitro",
        metal=answer.get("BareMetal", False),
        markets=tuple(answer.get("SupportedUsageClasses", ("on-demand",))),
    )
