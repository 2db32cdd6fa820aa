"""Which machine types of Compute Engine a cluster runs on: named by the user, or chosen for what they require.

A machine type is of a zone, so both roles cost a call for each zone of the region, all side by side. NVIDIA's GPUs are
part of accelerator-optimised types, or are attached to N1 machines, which `gpu_type=` asks for.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import prices
from cloudprovider.errors import ConfigError
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._machine_types import (
    Catalogue,
    Choice,
    MachineType,
    ranked_zones,
    tabled,
    wishes_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gcp import GCP

__all__ = [
    "GCE",
    "Choice",
    "InstanceType",
    "boot_disk",
    "cards_of",
    "choose_all",
    "for_workers",
    "parsed",
    "quotas_of",
    "ranked_zones",
]

#: GPUs that are attached to N1 machines, and how many of them one may have.
# https://cloud.google.com/compute/docs/gpus#n1-gpus
ATTACHED = {
    "nvidia-tesla-p100": (1, 2, 4),
    "nvidia-tesla-p4": (1, 2, 4),
    "nvidia-tesla-t4": (1, 2, 4),
    "nvidia-tesla-v100": (1, 2, 4, 8),
}
HYPERDISK = "hyperdisk-balanced"
#: Families whose machines boot from no Persistent Disk: https://cloud.google.com/compute/docs/disks/hyperdisks
NO_PD = (
    "a3-ultragpu-", "a4-", "a4x-", "c4-", "c4a-", "c4d-", "c4n-", "g4-", "h4d-", "m4-", "n4-", "n4a-", "n4d-", "x4-",
)  # fmt: skip
#: Families of ARM, whose type may not say it.
ARM = frozenset({"a4x", "c4a", "n4a", "t2a"})
#: By family, the regional quota that its vCPUs count against; those of others are no regional quotas of the API.
# https://cloud.google.com/compute/resource-usage#cpu_quota
CPUS = {
    **dict.fromkeys(("e2", "f1", "g1", "n1"), "CPUS"),
    **{family: f"{family.upper()}_CPUS" for family in ("a2", "c2", "c2d", "c3", "n2", "n2d", "t2a", "t2d")},
}
#: By accelerator, the word for it in the quotas' names.
# https://cloud.google.com/compute/resource-usage#gpu_quota
GPUS = {
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-tesla-p4": "NVIDIA_P4_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
}
OBSOLETE = frozenset({"OBSOLETE", "DELETED"})


@dataclass(frozen=True, kw_only=True)
class InstanceType(MachineType):
    """What machineTypes.list says of one type, and the accelerators that go with it.

    Parameters
    ----------
    attached
        Whether its GPUs are `guestAccelerators` of the order; those of accelerator-optimised types are part of them.
    obsolete
        Whether no new machine may be of it.
    """

    attached: bool = False
    obsolete: bool = False
    markets: tuple[str, ...] = ("on-demand", "spot")

    @property
    def fit(self) -> bool:
        """Whether a requirement may be answered with it."""
        return not self.obsolete

    @property
    def alike(self) -> dict[str, Any]:
        """What all machines of one role have in common: an order has one kind of GPU and one type of boot disk."""
        return super().alike | {"kinds of GPUs": self.gpu_name, "types of boot disks": self.boot_disk}

    @property
    def family(self) -> str:
        """Such as `n2`."""
        return self.name.partition("-")[0]

    @property
    def boot_disk(self) -> str:
        """The type of its boot disk, where nobody says."""
        return boot_disk(self.name)


def boot_disk(name: str) -> str:
    """The type of the boot disk of machines of a type, where nobody says: not every family takes a Persistent Disk."""
    return HYPERDISK if name.startswith(NO_PD) else "pd-balanced"


def _generation(name: str) -> int:
    """The number in a family's name; of those whose disks have no known price none, so that others go before."""
    found = re.match(r"[a-z]+(\d+)", name)
    return int(found[1]) if found and boot_disk(name) != HYPERDISK else 0


def _is_shared(name: str) -> bool:
    """Whether it has a part of a processor: https://cloud.google.com/compute/docs/general-purpose-machines#sharedcore ."""
    return re.fullmatch(r"(e2-(micro|small|medium)|f1-micro|g1-small)", name) is not None


GCE = Catalogue(
    cloud="Compute Engine",
    known="us-central1",
    price=prices.gce_price,
    sizes=partial(tabled, "gcp"),
    generation=_generation,
    burstable=_is_shared,
)


def choose_all(gcp: GCP, config: GCPConfig, zones: Sequence[str] | None = None) -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in a call for each zone of the region, side by side.

    Parameters
    ----------
    gcp
        The session.
    config
        Names of types, or what the machines shall have; and the zones to look in.
    zones
        Those of the region. Default: one more call asks.

    Raises
    ------
    ConfigError
        For an unknown type (with the nearest), one that is not offered in `zones=`, mixed architectures or
        numbers of GPUs in one list, a requirement that nothing fits, or GPUs that there are none of.
    """
    there = _zones(gcp) if zones is None else zones
    worker, scheduler = wishes_of(config)
    names = [*for_workers(config).asked_about(worker, gcp.region), *GCE.asked_about(scheduler, gcp.region)]
    ask = {"machine_types": [*dict.fromkeys(names)]}
    if config.gpu_type in ATTACHED:
        ask["accelerator_types"] = [config.gpu_type]
    places = [(client, zone) for client in ask for zone in there]
    answers = side_by_side(partial(_listed, gcp, client, zone, ask[client]) for client, zone in places)
    kinds: dict[str, InstanceType] = {}
    offered: dict[str, tuple[str, ...]] = {}
    cards: dict[str, int] = {}
    for (client, zone), some in zip(places, answers, strict=True):
        if client == "accelerator_types":
            cards[zone] = max((one.maximum_cards_per_instance for one in some), default=0)
        else:
            found = {kind.name: kind for kind in map(parsed, some)}
            kinds |= found
            offered |= {name: (*offered.get(name, ()), zone) for name in found}
    return settled(config, gcp.region, kinds, offered, cards)


def settled(
    config: GCPConfig,
    region: str,
    kinds: Mapping[str, InstanceType],
    zones: Mapping[str, tuple[str, ...]],
    cards: Mapping[str, int] | None = None,
) -> dict[str, Choice]:
    """The Choice of each role among these types, by name, and the zones that offer them.

    `cards` says how many of the GPUs of `gpu_type=` one machine may have in each zone, where those are attached.
    """
    wish, catalogue, card = wishes_of(config)[0], for_workers(config), config.gpu_type
    if card in ATTACHED:
        count = _count(config, card)
        able = {zone for zone, most in (cards or {}).items() if most >= count}
        if not able:
            raise ConfigError(f"gpu_type={card!r}: {region} has none, or not {count} in one machine.")
        of = {name: _with(kind, card, count) for name, kind in kinds.items() if kind.family == "n1"}
        near = {name: tuple(zone for zone in zones.get(name, ()) if zone in able) for name in of}
        workers = catalogue.chosen(wish, region, of, near)
    else:
        fine = {name: kind for name, kind in kinds.items() if card in {None, kind.gpu_name}}
        workers = catalogue.chosen(wish, region, fine, zones)
    return GCE.settled(config, region, kinds, zones, workers)


def for_workers(config: GCPConfig) -> Catalogue:
    """What workers may be of: all types, those with the GPUs of `gpu_type=`, or N1's with these attached."""
    card = config.gpu_type
    if card is None:
        return GCE
    if card in ATTACHED:
        count = _count(config, card)
        return dataclasses.replace(
            GCE, price=partial(_price_with, card, count), sizes=partial(_sizes_with, count)
        )
    if card not in _cards():
        raise ConfigError(f"gpu_type={card!r} is none of {', '.join(sorted({*_cards(), *ATTACHED}))}.")
    return dataclasses.replace(GCE, sizes=partial(_sizes_of, card))


def cards_of(config: GCPConfig) -> dict[str, int]:
    """How many of which GPUs are attached to each worker's machine."""
    return {config.gpu_type: _count(config, config.gpu_type)} if config.gpu_type in ATTACHED else {}


def _count(config: GCPConfig, card: str) -> int:
    """How many cards a machine gets that shall have so many at least."""
    wanted = config.gpu or 1
    fitting = [count for count in ATTACHED[card] if count >= wanted]
    if not fitting:
        raise ConfigError(f"gpu={wanted}: a machine has {ATTACHED[card][-1]} {card} at most.")
    return fitting[0]


def _with(kind: InstanceType, card: str, count: int) -> InstanceType:
    return dataclasses.replace(kind, gpus=count, gpu_name=card, attached=True)


def _price_with(card: str, count: int, region: str, name: str, market: str) -> float | None:
    """Dollars an hour of a type with so many GPUs attached to it."""
    price, each = prices.gce_price(region, name, market), prices.gce_gpu_price(region, card, market)
    return None if price is None or each is None else price + count * each


def _sizes_with(count: int, architecture: str) -> Mapping[str, tuple[float, float, int]]:
    """What N1 machines have that so many GPUs are attached to."""
    known = tabled("gcp", architecture)
    return {name: (facts[0], facts[1], count) for name, facts in known.items() if name.startswith("n1-")}


def _sizes_of(card: str, architecture: str) -> Mapping[str, tuple[float, float, int]]:
    """What types have that have this GPU."""
    cards = _cards()
    return {name: facts for name, facts in tabled("gcp", architecture).items() if name in cards[card]}


@functools.cache
def _cards() -> Mapping[str, frozenset[str]]:
    """By accelerator, the accelerator-optimised types that have it."""
    found: dict[str, set[str]] = {}
    for types in prices.table("gcp")["types"].values():
        for name, (_, _, *gpus) in types.items():
            if gpus:
                found.setdefault(gpus[1], set()).add(name)
    return {card: frozenset(names) for card, names in found.items()}


def _zones(gcp: GCP) -> list[str]:
    """The zones of the region."""
    region = gcp.call("regions", "get", fine={404}, region=gcp.region)
    if region is None:
        raise ConfigError(
            f"region={gcp.region!r} is no region of Google Cloud's: `gcloud compute regions list` shows them."
        )
    return sorted(zone.rpartition("/")[2] for zone in region.zones)


def _listed(gcp: GCP, client: str, zone: str, names: Sequence[str]) -> list[Any]:
    """Those of the types of a zone that have these names."""
    found: list[Any] = gcp.items(
        client, zone=zone, filter=" OR ".join(f'(name = "{name}")' for name in names)
    )
    return found


def quotas_of(kind: InstanceType, market: str) -> dict[str, int]:
    """By metric of regions.get's `quotas`, how much of it one machine of a type takes.

    A project without a quota for preemptible machines (its limit is 0) takes Spot VMs from the other one, which is
    what is said `on-demand`. Families that are newer than the API's regional quotas have none there.
    """
    vcpu = "PREEMPTIBLE_CPUS" if market == "spot" else CPUS.get(kind.family)
    card = GPUS.get(kind.gpu_name)
    gpus = f"PREEMPTIBLE_{card}" if card and market == "spot" else card
    taken = {vcpu: kind.vcpu, gpus: kind.gpus}
    return {metric: amount for metric, amount in taken.items() if metric and amount}


def parsed(answer: Any) -> InstanceType:
    """Read one type of a machineTypes.list answer."""
    cards = [card for card in answer.accelerators if "nvidia" in card.guest_accelerator_type]
    family = answer.name.partition("-")[0]
    return InstanceType(
        name=answer.name,
        vcpu=answer.guest_cpus,
        memory_gib=answer.memory_mb / 1024,
        # Not every type says it.
        architecture="arm64" if answer.architecture == "ARM64" or family in ARM else "x86_64",
        gpus=sum(card.guest_accelerator_count for card in cards),
        gpu_name=cards[0].guest_accelerator_type if cards else "",
        burstable=answer.is_shared_cpu,
        obsolete=answer.deprecated.state in OBSOLETE,
    )
