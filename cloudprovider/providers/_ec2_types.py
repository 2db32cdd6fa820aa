"""Which EC2 instance types a cluster runs on: named by the user, or chosen for what the user requires.

The dated table nominates the cheapest types that fit, by name; the cloud then says what they are and where it
has them. So both roles cost two calls side by side of one page each, where a search of all types that EC2 has
takes a page for each hundred of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import prices
from cloudprovider.config import gibibytes, listed
from cloudprovider.errors import CloudError, ConfigError
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._vm_config import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["Choice", "InstanceType", "choose_all", "quota_code", "ranked_zones", "spot_prices"]

#: Alternatives that an order offers, and how many times the cheapest one's price they may cost.
MOST, FACTOR = 10, 1.6
#: Prices so near to each other are as good as equal: the newer type, which is faster, comes first.
NEAR = 1.05
#: Types to ask about for each role: both fit one page of DescribeInstanceTypes, which has 100.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html
NOMINATED, BURSTABLE = 24, 6
#: Where prices are known best; where a region has none, types are ranked by these.
KNOWN = "us-east-1"
#: What a worker's machine has at least when nobody says.
CPU, MEMORY = 2.0, 8.0
#: What the table knows of a type, in order.
SIZES = ("vCPU", "GiB", "GPUs")
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
class InstanceType:
    """What DescribeInstanceTypes says of one type.

    Parameters
    ----------
    name
        Such as `m7i.xlarge`.
    vcpu, memory_gib
        What a machine of it has.
    architecture
        `x86_64` or `arm64`; empty for any other.
    gpus, gpu_name, gpu_memory_gib
        How many NVIDIA GPUs (or parts of one), which, and the memory of one; 0, empty and 0 when it has none.
    disks_gib
        The size of each of its instance-store disks; empty when it has none.
    nvme
        Whether those are NVMe.
    burstable
        Whether it is of a T family, whose processors slow down, or bill more, under steady work.
    nitro, metal
        Whether it is of the newer virtual machines, which boot and run faster; whether it is a whole computer.
    markets
        `on-demand`, `spot`.
    """

    name: str
    vcpu: int
    memory_gib: float
    architecture: str
    gpus: int = 0
    gpu_name: str = ""
    gpu_memory_gib: float = 0.0
    disks_gib: tuple[int, ...] = ()
    nvme: bool = False
    burstable: bool = False
    nitro: bool = True
    metal: bool = False
    markets: tuple[str, ...] = ("on-demand",)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a role's machines shall be.

    Parameters
    ----------
    role
        `scheduler` or `worker`.
    named
        Types in order of preference; empty when the rest decides.
    cpu, memory_gib, gpus
        What they have at least; 0 GPUs are none at all.
    architecture
        `x86_64` or `arm64`; None for any that comes with `named`.
    markets
        On which they may be ordered, all of them.
    """

    role: str
    named: tuple[str, ...] = ()
    cpu: float = 0.0
    memory_gib: float = 0.0
    gpus: int = 0
    architecture: str | None = None
    markets: tuple[str, ...] = ("on-demand",)

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        size = (
            f"{self.cpu:g} vCPU" * bool(self.cpu),
            f"{self.memory_gib:g} GiB" * bool(self.memory_gib),
            gpus,
        )
        return " with ".join(filter(None, size)) or "any size"

    def fits(self, kind: InstanceType) -> bool:
        """Whether machines of a type are what is wished for."""
        return (
            (kind.nitro and not kind.metal)
            and kind.architecture == (self.architecture or kind.architecture)
            and kind.vcpu >= self.cpu
            and kind.memory_gib >= self.memory_gib
            and (kind.gpus >= self.gpus if self.gpus else not kind.gpus)
            and set(self.markets) <= set(kind.markets)
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The types that one role's machines may have: all of one architecture, with the same number of GPUs.

    Parameters
    ----------
    types
        In order of preference: the user's own, or cheapest first.
    zones
        By type's name, the zones of the region that offer it.
    reason
        What was chosen and why, for the user.
    wish, region, spare
        What for, where, and what else would do, best first.
    """

    types: tuple[InstanceType, ...]
    zones: Mapping[str, tuple[str, ...]]
    reason: str
    wish: Wish
    region: str
    spare: tuple[InstanceType, ...] = ()

    @property
    def architecture(self) -> str:
        """`x86_64` or `arm64`."""
        return self.types[0].architecture

    @property
    def gpus(self) -> int:
        """GPUs of each machine."""
        return self.types[0].gpus

    def within(self, zones: Collection[str]) -> Choice:
        """The choice among what these zones offer, each type in one of them at least.

        Raises
        ------
        ConfigError
            When they offer nothing that would do; says which zones do.
        """
        known = (*self.types, *self.spare)
        left = [kind for kind in known if set(self.zones[kind.name]) & set(zones)]
        if not left:
            raise _not_there(self.wish, self.region, [kind.name for kind in known], self.zones, zones)
        return _choice(self.wish, self.region, left, self.zones)


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
    names = dict.fromkeys(name for wish in wishes_of(config) for name in asked_about(wish, aws.region))
    kinds, zones = side_by_side([partial(_described, aws, [*names]), partial(_offered, aws, [*names])])
    return settled(config, aws.region, kinds, zones)


def settled(
    config: EC2Config,
    region: str,
    kinds: Mapping[str, InstanceType],
    zones: Mapping[str, tuple[str, ...]],
) -> dict[str, Choice]:
    """The Choice of each role among these types, by name, and the zones that offer them."""
    worker, scheduler = wishes_of(config)
    workers = chosen(worker, region, kinds, zones)
    if scheduler.architecture is None and not scheduler.named:
        scheduler = dataclasses.replace(scheduler, architecture=workers.architecture)
    choices = {"worker": workers, "scheduler": chosen(scheduler, region, kinds, zones)}
    if config.zones:
        choices = {role: choice.within(listed(config.zones)) for role, choice in choices.items()}
    return choices


def wishes_of(config: EC2Config) -> tuple[Wish, Wish]:
    """What the workers' machines shall be, and the scheduler's.

    The scheduler's architecture is the workers' unless its type is named; None where that must be asked.
    """
    named = tuple(listed(config.instance_type))
    architecture = config.architecture.lower() if config.architecture else None if named else ARCHITECTURES[0]
    cpu, memory = config.cpu or 0.0, gibibytes(config.memory, "memory") if config.memory else 0.0
    if not (named or cpu or memory or config.gpu):
        cpu, memory = CPU, MEMORY
    worker = Wish(
        role="worker",
        named=named,
        cpu=cpu,
        memory_gib=memory,
        gpus=config.gpu or 0,
        architecture=architecture,
        markets=config.markets("worker"),
    )
    scheduler = Wish(
        role="scheduler",
        named=tuple(listed(config.scheduler_instance_type)),
        cpu=config.scheduler_cpu,
        memory_gib=gibibytes(config.scheduler_memory, "scheduler_memory"),
        architecture=None if config.scheduler_instance_type else architecture,
        markets=config.markets("scheduler"),
    )
    return worker, scheduler


def asked_about(wish: Wish, region: str) -> list[str]:
    """The names of the types to ask about for a wish."""
    if wish.named:
        return list(wish.named)
    both = ARCHITECTURES if wish.architecture is None else (wish.architecture,)
    return [name for architecture in both for name in nominated(wish, region, architecture, len(both))]


def nominated(wish: Wish, region: str, architecture: str, share: int = 1) -> list[str]:
    """The types of the table that fit, cheapest first, and after them some burstable ones that do."""
    fitting = [
        name
        for name, (vcpu, memory_gib, gpus) in tabled(architecture).items()
        if vcpu >= wish.cpu
        and memory_gib >= wish.memory_gib
        and (gpus >= wish.gpus if wish.gpus else not gpus)
    ]
    ranked = sorted(fitting, key=partial(_rank, region))
    steady = [name for name in ranked if not _is_burstable(name)]
    burstable = [name for name in ranked if _is_burstable(name)]
    return steady[: NOMINATED // share] + burstable[: BURSTABLE // share]


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


def _rank(region: str, name: str) -> tuple[bool, float, int, float, str]:
    """Known prices first, and of those the lowest; of nearly equal ones the newer family's."""
    price = prices.ec2_price(region, name)
    known = price or prices.ec2_price(KNOWN, name) or math.inf
    found = re.match(r"[a-z]+-?(\d+)", name)
    step = round(math.log(known, NEAR)) if known < math.inf else math.inf
    return price is None, step, -int(found[1]) if found else 0, known, name


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


def chosen(
    wish: Wish, region: str, kinds: Mapping[str, InstanceType], zones: Mapping[str, tuple[str, ...]]
) -> Choice:
    """The Choice among what the cloud has."""
    if wish.named:
        known = [_known(wish, name, region, kinds) for name in wish.named]
        _check_alike(wish, known)
    else:
        known = [
            kinds[name] for name in asked_about(wish, region) if name in kinds and wish.fits(kinds[name])
        ]
        if not known:
            raise _nothing_fits(wish, region)
    left = [kind for kind in known if zones.get(kind.name)]
    if not left:
        raise _not_there(wish, region, [kind.name for kind in known], zones, ())
    return _choice(wish, region, left, zones)


def _choice(
    wish: Wish, region: str, known: Sequence[InstanceType], zones: Mapping[str, tuple[str, ...]]
) -> Choice:
    """The best of types that all would do."""
    best = [*known] if wish.named else _shortlist(known, region)
    return Choice(
        types=tuple(best),
        zones={kind.name: zones[kind.name] for kind in known},
        reason=_sentence(wish, region, best),
        wish=wish,
        region=region,
        spare=tuple(kind for kind in known if kind not in best),
    )


def _shortlist(ranked: Sequence[InstanceType], region: str) -> list[InstanceType]:
    """The first of them, and those like it that cost not much more.

    Burstable types are taken only where there are no others: Dask's workers compute all the time, for which
    those are slowed down or bill more.
    """
    like = [kind for kind in ranked if not kind.burstable] or [*ranked]
    like = [kind for kind in like if kind.gpus == like[0].gpus]
    lowest = _price(region, like[0].name)[0]
    near = [kind for kind in like if (_price(region, kind.name)[0] or math.inf) <= FACTOR * (lowest or 0)]
    return (near or like)[:MOST]


def _price(region: str, name: str) -> tuple[float | None, str]:
    """Dollars an hour of a type on demand, and where: in the region, or where prices are known best."""
    if (price := prices.ec2_price(region, name)) is not None:
        return price, region
    return prices.ec2_price(KNOWN, name), KNOWN


def _known(wish: Wish, name: str, region: str, kinds: Mapping[str, InstanceType]) -> InstanceType:
    """A type that the user named."""
    option = "instance_type" if wish.role == "worker" else "scheduler_instance_type"
    if name not in kinds:
        elsewhere = prices.ec2_price(KNOWN, name) is not None
        near = difflib.get_close_matches(name, prices.ec2_prices(region) or prices.ec2_prices(KNOWN), n=3)
        why = f"{region} does not offer it." if elsewhere else f"EC2 has no such type in {region}."
        hint = (
            f" Near it: {', '.join(other for other in near if other != name)}." if set(near) - {name} else ""
        )
        raise ConfigError(f"{option}={name!r}: {why}{hint}")
    kind = kinds[name]
    if not kind.architecture:
        raise ConfigError(f"{option}={name!r} runs no Linux of x86_64 or arm64.")
    if wish.architecture and kind.architecture != wish.architecture:
        raise ConfigError(f"{option}={name!r} is {kind.architecture}: leave out architecture=.")
    if missing := [market for market in wish.markets if market not in kind.markets]:
        raise ConfigError(f"{option}={name!r} cannot be ordered on the {missing[0]} market.")
    return kind


def _check_alike(wish: Wish, kinds: Sequence[InstanceType]) -> None:
    """Refuse a list whose machines could not run the same boot."""
    option = "instance_type" if wish.role == "worker" else "scheduler_instance_type"
    for what, values in (
        ("architectures", [kind.architecture for kind in kinds]),
        ("numbers of GPUs", [kind.gpus for kind in kinds]),
    ):
        if len(set(values)) > 1:
            said = ", ".join(f"{kind.name} has {value}" for kind, value in zip(kinds, values, strict=True))
            raise ConfigError(f"{option} has several {what}: {said}. Its machines must be alike.")


def _nothing_fits(wish: Wish, region: str) -> ConfigError:
    """Why a requirement has no answer: by what it is too large, or that the region has no such types."""
    architecture = wish.architecture or ARCHITECTURES[0]
    if asked_about(wish, region):
        where = f"{region} offers none of them" + (" on the spot market" * ("spot" in wish.markets))
        return ConfigError(f"Of the {architecture} types with {wish}, {where}. Ask for less, or elsewhere.")
    of_kind = {
        name: facts for name, facts in tabled(architecture).items() if bool(facts[2]) == bool(wish.gpus)
    }
    asked = SIZES if wish.gpus else SIZES[:2]
    largest = {what: max(of_kind, key=lambda name: of_kind[name][i]) for i, what in enumerate(asked)}
    said = ", ".join(
        f"{of_kind[name][i]:g} {what} ({name})" for i, (what, name) in enumerate(largest.items())
    )
    return ConfigError(f"No {architecture} type of EC2 has {wish}. The largest have {said}.")


def _not_there(
    wish: Wish,
    region: str,
    names: Sequence[str],
    zones: Mapping[str, tuple[str, ...]],
    wanted: Collection[str],
) -> ConfigError:
    """Why types that would do cannot be had in these zones, and where they can."""
    here = f"zone {', '.join(sorted(wanted))}" if wanted else f"any zone of {region}"
    what = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")  # noqa: PLR2004
    there = sorted({zone for name in names for zone in zones.get(name, ())})
    where = (
        f"They are in {', '.join(there)}: pass zones= or subnets= there." if there else "Try another region."
    )
    if len(names) == 1:
        where = where.replace("They are", "It is")
    asked = "" if wish.named else f" ({wish})"
    return ConfigError(f"{what}{asked} {'is' if len(names) == 1 else 'are'} not offered in {here}. {where}")


def _sentence(wish: Wish, region: str, types: Sequence[InstanceType]) -> str:
    """What was chosen, for the user."""
    first, *others = types
    price, where = _price(region, first.name)
    market = " on demand" if "spot" in wish.markets else ""
    cost = f" (${price:g}/h{market}{'' if where == region else f' in {where}'})" if price else ""
    then = f", then {', '.join(kind.name for kind in others)}" if others else ""
    if wish.named:
        return f"{first.name}{cost}{then}: {first.vcpu} vCPU with {first.memory_gib:g} GiB"
    return f"{wish}: {first.name}{cost}{then}{_other_architecture(wish, region, price, where)}"


def _other_architecture(wish: Wish, region: str, price: float | None, where: str) -> str:
    """What the same would cost on the other architecture, where that is less."""
    other = ARCHITECTURES[1] if wish.architecture == ARCHITECTURES[0] else ARCHITECTURES[0]
    if not price or wish.role != "worker" or wish.gpus:
        return ""
    cheapest = next((name for name in nominated(wish, region, other) if not _is_burstable(name)), "")
    cost, place = _price(region, cheapest)
    return f"; {other} {cheapest} would cost ${cost:g}" if cost and cost < price and place == where else ""


def ranked_zones(choices: Mapping[str, Choice], zones: Collection[str]) -> tuple[str, ...]:
    """Those of the zones that offer every role a type, first the one that offers workers the most and best.

    Raises
    ------
    ConfigError
        When none of them offers anything to some role.
    """
    near = {role: choice.within(zones) for role, choice in choices.items()}
    offered = {
        (role, zone): [i for i, kind in enumerate(choice.types) if zone in choice.zones[kind.name]]
        for role, choice in near.items()
        for zone in zones
    }
    able = [zone for zone in zones if all(offered[role, zone] for role in choices)]
    return tuple(sorted(able, key=lambda z: (-len(offered["worker", z]), offered["worker", z], z)))


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
