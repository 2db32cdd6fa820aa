"""Which types of machines a cluster runs on: named by the user, or chosen for what the user requires.

The dated price table nominates the cheapest types that fit, by name; the cloud then says what they are and where it
has them. Each cloud says in a `Catalogue` how its types are named and priced.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import prices
from cloudprovider.config import gibibytes, listed
from cloudprovider.errors import ConfigError
from cloudprovider.providers._vm_config import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cloudprovider.providers._vm_config import VMConfig

__all__ = ["Catalogue", "Choice", "MachineType", "Wish", "ranked_zones", "tabled", "wishes_of"]

#: Alternatives that an order offers, and how many times the cheapest one's price they may cost.
MOST, FACTOR = 10, 1.6
#: Prices so near to each other are as good as equal: the newer type, which is faster, comes first.
NEAR = 1.05
#: Types to ask about for each role.
NOMINATED, BURSTABLE = 24, 6
#: What a worker's machine has at least when nobody says.
CPU, MEMORY = 2.0, 8.0
#: What a table knows of a type, in order.
SIZES = ("vCPU", "GiB", "GPUs")
#: Names that a hint or a sentence has at most.
FEW = 3


@dataclass(frozen=True, kw_only=True)
class MachineType:
    """What a cloud says of one of its types.

    Parameters
    ----------
    name
        In the cloud's words.
    vcpu, memory_gib
        What a machine of it has.
    architecture
        `x86_64` or `arm64`; empty for any other.
    gpus, gpu_name
        How many NVIDIA GPUs (or parts of one), and which; 0 and empty when it has none.
    burstable
        Whether its processors slow down, or bill more, under steady work.
    markets
        `on-demand`, `spot`.
    """

    name: str
    vcpu: int
    memory_gib: float
    architecture: str
    gpus: int = 0
    gpu_name: str = ""
    burstable: bool = False
    markets: tuple[str, ...] = ("on-demand",)

    @property
    def fit(self) -> bool:
        """Whether a requirement may be answered with it."""
        return True

    @property
    def alike(self) -> dict[str, Any]:
        """What all machines of one role have in common, by what several of it are called."""
        return {"architectures": self.architecture, "numbers of GPUs": self.gpus}


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

    @property
    def option(self) -> str:
        """The keyword that names types for the role."""
        return "instance_type" if self.role == "worker" else "scheduler_instance_type"

    def fits(self, kind: MachineType) -> bool:
        """Whether machines of a type are what is wished for."""
        return (
            kind.fit
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
    wish, region, catalogue, spare
        What for, where, of what, and what else would do, best first.
    """

    types: tuple[Any, ...]
    zones: Mapping[str, tuple[str, ...]]
    reason: str
    wish: Wish
    region: str
    catalogue: Catalogue
    spare: tuple[Any, ...] = ()

    @property
    def architecture(self) -> str:
        """`x86_64` or `arm64`."""
        return str(self.types[0].architecture)

    @property
    def gpus(self) -> int:
        """GPUs of each machine."""
        return int(self.types[0].gpus)

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
            names = [kind.name for kind in known]
            raise self.catalogue.not_there(self.wish, self.region, names, self.zones, zones)
        return self.catalogue.choice(self.wish, self.region, left, self.zones)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What the types of one cloud are called, and what they cost.

    Parameters
    ----------
    cloud, word
        What it is called, and what it calls a type.
    known
        The region where prices are known best; where another has none, types are ranked by these.
    price
        Dollars an hour by region, type's name and market; None when the table does not have it.
    sizes
        By architecture: vCPUs, GiB and GPUs of each type that a requirement may be answered with, by name.
    generation
        How new a type is, by its name: the higher, the newer.
    burstable
        Whether a type is, by its name.
    spot
        Whether the table has prices of the spot market, so that machines there are ranked by these.
    zonal
        Whether a type that no zone of a region offers is not there.
    elsewhere
        What the user may pass to have machines in other zones.
    """

    cloud: str
    word: str = "type"
    known: str
    price: Callable[[str, str, str], float | None]
    sizes: Callable[[str], Mapping[str, tuple[float, float, int]]]
    generation: Callable[[str], int]
    burstable: Callable[[str], bool]
    spot: bool = True
    zonal: bool = True
    elsewhere: str = "pass zones= there"

    def settled(
        self,
        config: VMConfig,
        region: str,
        kinds: Mapping[str, MachineType],
        zones: Mapping[str, tuple[str, ...]],
        workers: Choice | None = None,
    ) -> dict[str, Choice]:
        """The Choice of each role among these types, by name, and the zones that offer them."""
        worker, scheduler = wishes_of(config)
        workers = workers or self.chosen(worker, region, kinds, zones)
        if scheduler.architecture is None and not scheduler.named:
            scheduler = dataclasses.replace(scheduler, architecture=workers.architecture)
        choices = {"worker": workers, "scheduler": self.chosen(scheduler, region, kinds, zones)}
        if wanted := listed(getattr(config, "zones", None)):
            choices = {role: choice.within(wanted) for role, choice in choices.items()}
        return choices

    def asked_about(self, wish: Wish, region: str) -> list[str]:
        """The names of the types to ask about for a wish."""
        if wish.named:
            return list(wish.named)
        both = ARCHITECTURES if wish.architecture is None else (wish.architecture,)
        return [
            name for architecture in both for name in self.nominated(wish, region, architecture, len(both))
        ]

    def nominated(self, wish: Wish, region: str, architecture: str, share: int = 1) -> list[str]:
        """The types of the table that fit, cheapest first, and after them some burstable ones that do."""
        fitting = [
            name
            for name, (vcpu, memory_gib, gpus) in self.sizes(architecture).items()
            if vcpu >= wish.cpu
            and memory_gib >= wish.memory_gib
            and (gpus >= wish.gpus if wish.gpus else not gpus)
        ]
        ranked = sorted(fitting, key=partial(self._rank, wish, region))
        steady = [name for name in ranked if not self.burstable(name)]
        burstable = [name for name in ranked if self.burstable(name)]
        return steady[: NOMINATED // share] + burstable[: BURSTABLE // share]

    def chosen(
        self,
        wish: Wish,
        region: str,
        kinds: Mapping[str, MachineType],
        zones: Mapping[str, tuple[str, ...]],
    ) -> Choice:
        """The Choice among what the cloud has."""
        if wish.named:
            known = [self._known(wish, name, region, kinds) for name in wish.named]
            _check_alike(wish, known)
        else:
            asked = self.asked_about(wish, region)
            known = [kinds[name] for name in asked if name in kinds and wish.fits(kinds[name])]
            if not known:
                raise self._nothing_fits(wish, region)
        left = [kind for kind in known if zones.get(kind.name) or not self.zonal]
        if not left:
            raise self.not_there(wish, region, [kind.name for kind in known], zones, ())
        return self.choice(wish, region, left, zones)

    def choice(
        self,
        wish: Wish,
        region: str,
        known: Sequence[MachineType],
        zones: Mapping[str, tuple[str, ...]],
    ) -> Choice:
        """The best of types that all would do."""
        best = [*known] if wish.named else self._shortlist(known, wish, region)
        return Choice(
            types=tuple(best),
            zones={kind.name: zones.get(kind.name, ()) for kind in known},
            reason=self._sentence(wish, region, best),
            wish=wish,
            region=region,
            catalogue=self,
            spare=tuple(kind for kind in known if kind not in best),
        )

    def cost(self, wish: Wish, region: str, name: str) -> tuple[float | None, str]:
        """Dollars an hour of a type on a wish's first market, and where: in the region, or where they are known best."""
        market = wish.markets[0] if self.spot else "on-demand"
        if (price := self.price(region, name, market)) is not None:
            return price, region
        return self.price(self.known, name, market), self.known

    def not_there(
        self,
        wish: Wish,
        region: str,
        names: Sequence[str],
        zones: Mapping[str, tuple[str, ...]],
        wanted: Collection[str],
    ) -> ConfigError:
        """Why types that would do cannot be had in these zones, and where they can."""
        here = f"zone {', '.join(sorted(wanted))}" if wanted else f"any zone of {region}"
        what = ", ".join(names[:FEW]) + (f" and {len(names) - FEW} others" if len(names) > FEW else "")
        there = sorted({zone for name in names for zone in zones.get(name, ())})
        where = f"They are in {', '.join(there)}: {self.elsewhere}." if there else "Try another region."
        if len(names) == 1:
            where = where.replace("They are", "It is")
        asked = "" if wish.named else f" ({wish})"
        return ConfigError(
            f"{what}{asked} {'is' if len(names) == 1 else 'are'} not offered in {here}. {where}"
        )

    def _rank(self, wish: Wish, region: str, name: str) -> tuple[bool, float, int, float, str]:
        """Known prices first, and of those the lowest; of nearly equal ones the newer family's."""
        price, where = self.cost(wish, region, name)
        known = price or math.inf
        step = round(math.log(known, NEAR)) if known < math.inf else math.inf
        return price is None or where != region, step, -self.generation(name), known, name

    def _shortlist(self, ranked: Sequence[MachineType], wish: Wish, region: str) -> list[MachineType]:
        """The first of them, and those like it that cost not much more.

        Burstable types are taken only where there are no others: Dask's workers compute all the time, for which
        those are slowed down or bill more.
        """
        like = [kind for kind in ranked if not kind.burstable] or [*ranked]
        like = [kind for kind in like if kind.alike == like[0].alike]
        lowest = self.cost(wish, region, like[0].name)[0]
        most = FACTOR * (lowest or 0)
        near = [kind for kind in like if (self.cost(wish, region, kind.name)[0] or math.inf) <= most]
        return (near or like)[:MOST]

    def _known(self, wish: Wish, name: str, region: str, kinds: Mapping[str, MachineType]) -> MachineType:
        """A type that the user named."""
        said = f"{wish.option}={name!r}"
        if name not in kinds:
            raise ConfigError(f"{said}: {self._why_not(name, region)}")
        kind = kinds[name]
        if not kind.architecture:
            raise ConfigError(f"{said} runs no Linux of x86_64 or arm64.")
        if wish.architecture and kind.architecture != wish.architecture:
            raise ConfigError(f"{said} is {kind.architecture}: leave out architecture=.")
        if missing := [market for market in wish.markets if market not in kind.markets]:
            raise ConfigError(f"{said} cannot be ordered on the {missing[0]} market.")
        return kind

    def _why_not(self, name: str, region: str) -> str:
        """Why a type is not there, and which ones near it are."""
        every = [name for architecture in ARCHITECTURES for name in self.sizes(architecture)]
        here = [one for one in every if self.price(region, one, "on-demand") is not None] or every
        near = [one for one in difflib.get_close_matches(name, here, n=FEW) if one != name]
        why = (
            f"{region} does not offer it."
            if self.price(self.known, name, "on-demand") is not None
            else f"{self.cloud} has no such {self.word} in {region}."
        )
        return why + (f" Near it: {', '.join(near)}." if near else "")

    def _nothing_fits(self, wish: Wish, region: str) -> ConfigError:
        """Why a requirement has no answer: by what it is too large, or that the region has no such types."""
        architecture = wish.architecture or ARCHITECTURES[0]
        if self.asked_about(wish, region):
            where = f"{region} offers none of them" + (" on the spot market" * ("spot" in wish.markets))
            return ConfigError(
                f"Of the {architecture} {self.word}s with {wish}, {where}. Ask for less, or elsewhere."
            )
        like = {
            name: facts
            for name, facts in self.sizes(architecture).items()
            if bool(facts[2]) == bool(wish.gpus)
        }
        asked = SIZES if wish.gpus else SIZES[:2]
        largest = {what: max(like, key=lambda name: like[name][i]) for i, what in enumerate(asked) if like}
        said = ", ".join(
            f"{like[name][i]:g} {what} ({name})" for i, (what, name) in enumerate(largest.items())
        )
        there_are = f"The largest have {said}." if said else "There are none."
        return ConfigError(f"No {architecture} {self.word} of {self.cloud} has {wish}. {there_are}")

    def _sentence(self, wish: Wish, region: str, types: Sequence[MachineType]) -> str:
        """What was chosen, for the user."""
        first, *others = types
        price, where = self.cost(wish, region, first.name)
        market = (" spot" if self.spot else " on demand") if "spot" in wish.markets else ""
        cost = f" (${price:.4g}/h{market}{'' if where == region else f' in {where}'})" if price else ""
        then = f", then {', '.join(kind.name for kind in others)}" if others else ""
        if wish.named:
            return f"{first.name}{cost}{then}: {first.vcpu} vCPU with {first.memory_gib:g} GiB"
        return f"{wish}: {first.name}{cost}{then}{self._other_architecture(wish, region, price, where)}"

    def _other_architecture(self, wish: Wish, region: str, price: float | None, where: str) -> str:
        """What the same would cost on the other architecture, where that is less."""
        other = ARCHITECTURES[1] if wish.architecture == ARCHITECTURES[0] else ARCHITECTURES[0]
        if not price or wish.role != "worker" or wish.gpus:
            return ""
        names = (name for name in self.nominated(wish, region, other) if not self.burstable(name))
        cheapest = next(names, "")
        cost, place = self.cost(wish, region, cheapest) if cheapest else (None, "")
        less = cost is not None and cost < price and place == where
        return f"; {other} {cheapest} would cost ${cost:.4g}" if less else ""


def wishes_of(config: VMConfig) -> tuple[Wish, Wish]:
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


@functools.cache
def tabled(cloud: str, architecture: str) -> Mapping[str, tuple[float, float, int]]:
    """vCPUs, GiB and GPUs of each type in a cloud's price table."""
    types: Mapping[str, Sequence[Any]] = prices.table(cloud)["types"][architecture]
    return {name: (facts[0], facts[1], facts[2] if len(facts) > 2 else 0) for name, facts in types.items()}  # noqa: PLR2004


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


def _check_alike(wish: Wish, kinds: Sequence[MachineType]) -> None:
    """Refuse a list whose machines could not run the same boot."""
    for what in kinds[0].alike:
        values = [kind.alike[what] for kind in kinds]
        if len(set(values)) > 1:
            said = ", ".join(f"{kind.name} has {value}" for kind, value in zip(kinds, values, strict=True))
            raise ConfigError(f"{wish.option} has several {what}: {said}. Its machines must be alike.")
