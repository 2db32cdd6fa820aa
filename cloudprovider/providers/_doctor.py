"""What the doctors of all clouds look at: what is here, and what a provider tells by itself."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from abc import ABC, abstractmethod
from datetime import UTC, date, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cloudprovider import access, prices
from cloudprovider.doctor import Check, ok, problem, unknown, warning
from cloudprovider.images import ARCHITECTURES, Reference, default_image, image_architectures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudprovider.doctor import Finding
    from cloudprovider.provider import Machine, Provider, Quota

    Look = Callable[[], Iterable[Finding]]

__all__ = [
    "ASKEW_S",
    "Doctor",
    "address",
    "clock",
    "images",
    "leftovers",
    "machines",
    "named",
    "quota",
    "quotas",
    "tables",
    "tool",
    "versions",
]

OURS, RUNTIME = "dask-cloud", "dask-cloud-runtime"
#: Days after which the prices of a table may have moved.
OLD_DAYS = 180
#: Seconds by which clocks may differ before leases and logs mislead, and before clouds refuse calls.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
ASKEW_S, REFUSED_S = 30.0, 240.0
#: How many names a sentence lists.
MANY = 6


def named(names: Iterable[str]) -> str:
    """Names in a sentence, the first few of them."""
    every = [*names]
    more = f" and {len(every) - MANY} more" if len(every) > MANY else ""
    return f"{', '.join(every[:MANY])}{more}"


# -- here --------------------------------------------------------------------------------------------------


def versions(extra: str) -> Iterator[Finding]:
    """Whether what is installed here is what this version needs, and fits together."""
    yield from _required(extra)
    ours, runtime, dask, distributed = map(_version, (OURS, RUNTIME, "dask", "distributed"))
    if runtime and ours and runtime != ours:
        yield problem(
            "versions",
            f"{OURS} is {ours} and {RUNTIME} is {runtime}: machines would run what this client does not know.",
            f"`pip install --upgrade {OURS}=={ours} {RUNTIME}=={ours}`.",
        )
    if dask != distributed:
        newest = max(dask, distributed, key=_parts)
        yield warning(
            "versions",
            f"dask is {dask} and distributed is {distributed}; they are made for each other at the same version.",
            f"`pip install dask=={newest} distributed=={newest}`.",
        )
    python = ".".join(map(str, sys.version_info[:3]))
    yield ok("versions", f"{OURS} {ours}, dask {dask}, distributed {distributed}, Python {python}.")


def _required(extra: str) -> Iterator[Finding]:
    """What our own package asks for, of an extra too, and is not there or too old."""
    from packaging.requirements import Requirement

    for line in (metadata.requires(OURS) if _version(OURS) else ()) or ():
        wanted = Requirement(line)
        mine = wanted.marker is None or f'"{extra}"' in str(wanted.marker)
        if not mine or (wanted.marker and not wanted.marker.evaluate({"extra": extra})):
            continue
        version = _version(wanted.name)
        if not version:
            found = f"{wanted.name} is not installed."
        elif not wanted.specifier.contains(version, prereleases=True):
            found = f"{wanted.name} is {version}, and {wanted.specifier} is needed."
        else:
            continue
        yield problem("versions", found, f"`pip install --upgrade '{OURS}[{extra}]'`.")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def images(config: Any, architecture: str | None) -> Iterator[Finding]:
    """Whether the container image is there, for machines of this architecture; None where any would do."""
    if getattr(config, "boot", "") == "uv":
        yield ok("image", "Not needed: boot='uv' makes an environment on each machine.")
        return
    image = config.image or default_image()
    found = image_architectures(image)
    mine = config.image is not None
    if found is None:
        yield unknown(
            "image",
            f"{Reference.of(image).registry} does not say whether it has {image}.",
            "If it is private, pass what logs in there; else look at it in a browser, or at your network.",
        )
    elif not found:
        yield _absent(image, mine=mine)
    elif architecture and architecture not in found:
        platforms = ",".join(f"linux/{name}" for name in ARCHITECTURES)
        yield problem(
            "image",
            f"{image} is for {' and '.join(sorted(found))}, and machines are {architecture}.",
            f"Pass architecture= another, or build it for both: `docker buildx build --platform {platforms}`.",
        )
    else:
        fits = "Its Dask must be yours." if mine else "It has your versions of Dask and Python."
        yield ok("image", f"{image} is there, for {' and '.join(sorted(found))}. {fits}")


def _absent(image: str, *, mine: bool) -> Finding:
    reference = Reference.of(image)
    return problem(
        "image",
        f"{reference.registry} has no {reference.repository}:{reference.tag}.",
        "Check the spelling of image= and its tag."
        if mine
        else "Dask makes an image for each of its releases: install a released Dask, or one more recent "
        "(`pip install --upgrade dask distributed`), or pass image= of yours that has your versions.",
    )


def address(config: Any) -> Iterator[Finding]:
    """From where the scheduler may be reached, and whether that can be learned."""
    if config.tunnel:
        yield ok("address", "tunnel=True: no address is let in.")
        return
    if sources := config.sources():
        if open_to_all := [one for one in sources if one.endswith("/0")]:
            yield warning(
                "address",
                f"allow_from={', '.join(open_to_all)} lets the whole internet knock at the scheduler.",
                "Leave allow_from= out: it is then your own address alone.",
            )
        else:
            yield ok("address", f"allow_from= lets in {named(sources)}.")
        return
    yield ok("address", f"Yours is {access.own_address()}: the scheduler will let in that alone.")


def tables(table: str, today: date) -> Iterator[Finding]:
    """How old the prices are, by which costs and budgets are told."""
    day = date.fromisoformat(prices.dated(table))
    age = (today - day).days
    if age > OLD_DAYS:
        yield warning(
            "prices",
            f"The price table is of {day}, {age} days ago: costs and budgets may be wrong by now.",
            f"`pip install --upgrade {OURS}`.",
        )
    else:
        yield ok("prices", f"The price table is of {day}.")


def tool(find: Callable[[], str]) -> Iterator[Finding]:
    """Whether the program that tunnels go through is here; `find` raises a ConfigError that says where to get it."""
    yield ok("tunnel", f"{find()} is here.")


# -- what any provider tells -------------------------------------------------------------------------------


def clock(ahead_s: float) -> Finding:
    """By how much the cloud's clock is ahead of ours."""
    minutes, side = f"{abs(ahead_s) / 60:.1f} minutes", "slow" if ahead_s > 0 else "fast"
    fix = "Set it by NTP: `sudo timedatectl set-ntp true`, or in your system's settings for date and time."
    if abs(ahead_s) > REFUSED_S:
        return problem("clock", f"This computer's clock is {minutes} {side}: calls are refused for it.", fix)
    if abs(ahead_s) > ASKEW_S:
        return warning("clock", f"This computer's clock is {minutes} {side}.", fix)
    return ok("clock", "This computer's clock and the cloud's agree.")


def quota(limit: Quota, market: str, wanted: int, *, chosen: bool) -> Finding:
    """How many workers a limit of the account allows.

    Parameters
    ----------
    limit
        The limit.
    market
        `on-demand` or `spot`.
    wanted
        Machines that there shall be.
    chosen
        Whether the options order from this market; elsewhere one is enough.
    """
    beside = " beside the scheduler" if limit.taken else ""
    rest = "less what else runs" if limit.used is None else f"with {limit.used:,.10g} in use"
    of = "" if limit.each == 1 else f" of {limit.each:g} {limit.unit}"
    said = (
        f"{market}: room for {limit.free:,} workers{of}{beside}, {rest}; "
        f"{limit.name} is {limit.limit:,.10g} {limit.unit}."
    )
    if limit.free >= max(1, wanted if chosen else 1):
        return ok("quotas", said)
    return (problem if chosen else warning)("quotas", said, limit.advice)


def quotas(found: Sequence[Quota], market: str, wanted: int, *, chosen: bool) -> Iterator[Finding]:
    """How many workers the account's limits allow in one market."""
    for limit in found:
        yield quota(limit, market, wanted, chosen=chosen)
    if not found:
        yield unknown(
            "quotas",
            f"{market}: the cloud tells no limit for such machines.",
            "Its console has a page of quotas.",
        )


def leftovers(provider: Provider) -> Iterator[Finding]:
    """What clusters that are over have left, which costs nothing."""
    if over := provider.expired():
        yield warning(
            "leftovers",
            f"Clusters that are over have left what costs nothing: {named(over)}.",
            "`dask cloud sweep` removes it.",
        )
    else:
        yield ok("leftovers", "Nothing waits for a sweep.")


def machines(provider: Provider) -> Iterator[Finding]:
    """Machines that bill now, and those that should not any more."""
    by_cluster: dict[str, list[Machine]] = {}
    for machine in provider.list(None):
        by_cluster.setdefault(machine.cluster, []).append(machine)
    now, late = provider.now(), []
    for name, some in sorted(by_cluster.items()):
        until = min((machine.expires for machine in some if machine.expires), default=None)
        if until is not None and until < now:
            late.append(name)
            yield problem(
                "machines",
                f"{len(some)} of {name} still bill, and should have ended at {_moment(until)}.",
                f"`dask cloud down {name}`, or `dask cloud sweep {name}`.",
            )
    if living := [name for name in by_cluster if name not in late]:
        count = sum(len(by_cluster[name]) for name in living)
        yield ok("machines", f"{count} run and bill, of {named(living)}.")
    elif not late:
        yield ok("machines", "None runs, none bills.")


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


class Doctor(ABC):
    """Looks at an account for clusters of one provider; what a cloud has of its own is a subclass's.

    Parameters
    ----------
    provider
        Whose Config says what is wanted; nothing is ever made with it.
    today
        From when the age of tables is told; None for this day.
    """

    #: Of our own package, the extra with the cloud's SDK.
    extra: str
    #: The price table.
    table: str

    def __init__(self, provider: Any, today: date | None = None) -> None:
        self.provider, self.config = provider, provider.config
        self.today = today or datetime.fromtimestamp(time.time(), UTC).date()

    def checks(self) -> list[Check]:
        """In the order in which findings are told."""
        after = [
            *self.looks(),
            ("machines", lambda: machines(self.provider)),
            ("leftovers", lambda: leftovers(self.provider)),
        ]
        here: list[tuple[str, Look]] = [
            *([("tunnel", lambda: tool(self.plugin))] if self.config.tunnel else []),
            ("versions", lambda: versions(self.extra)),
            ("image", lambda: images(self.config, self.architecture)),
            ("address", lambda: address(self.config)),
            ("prices", lambda: tables(self.table, self.today)),
        ]
        return [
            Check(topic="credentials", look=self.credentials),
            *(Check(topic=topic, look=look, after="credentials") for topic, look in after),
            *(Check(topic=topic, look=look) for topic, look in here),
        ]

    @property
    def architecture(self) -> str | None:
        """Of the machines; None where their types say it."""
        named = self.config.architecture
        if named is None and getattr(self.config, "instance_type", None) is None:
            return "x86_64"
        return named.lower() if named else None

    @abstractmethod
    def credentials(self) -> Iterator[Finding]:
        """Whose they are, and whether the cloud takes them; and what time it is there."""

    @abstractmethod
    def looks(self) -> list[tuple[str, Look]]:
        """What else is asked of the cloud, by topic."""

    @abstractmethod
    def plugin(self) -> str:
        """The program that tunnels go through."""

    @property
    def wanted(self) -> int:
        """Machines of workers that there shall be."""
        return int(-(-self.config.n_workers // (self.config.workers_per_machine or 1)))

    def quotas(self, ask: Callable[[Any, str], Sequence[Quota]]) -> Iterator[Finding]:
        """What the account's limits allow in each market; `ask` is asked with the options that order from it."""
        chosen = self.config.markets("worker")
        for market in ("on-demand", "spot"):
            config = dataclasses.replace(self.config, spot=market == "spot")
            yield from quotas(ask(config, market), market, self.wanted, chosen=market in chosen)
