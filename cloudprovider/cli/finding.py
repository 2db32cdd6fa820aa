"""Which clouds are asked, and which of them has a cluster."""

from __future__ import annotations

import dataclasses
import difflib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudprovider import discovery
from cloudprovider.cli.codes import Code, Failure
from cloudprovider.errors import CloudError
from cloudprovider.tags import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.provider import Machine, Provider

__all__ = [
    "Home",
    "Where",
    "cloud_option",
    "completed",
    "found_clusters",
    "json_option",
    "name_argument",
    "nearest",
    "region_option",
    "yes_option",
]

T = TypeVar("T")

#: How many names an error lists.
MANY = 10
#: Seconds that a shell's completion waits for the clouds.
COMPLETE_S = 3.0

cloud_option = click.option(
    "--cloud",
    "clouds",
    type=click.Choice([*discovery.CLOUDS]),
    multiple=True,
    help="Where to look; everywhere by default.",
)
region_option = click.option("--region", default=None, help="Region; your credentials' default otherwise.")
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def completed(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The names of running clusters that begin so, of the clouds that answer soon."""
    found: set[str] = set()

    def look(cloud: str) -> None:
        with suppress(Exception):  # a shell that completes has nowhere to show an error
            machines = discovery.machines(cloud, **options(cloud, ctx.params.get("region")))
            found.update(machine.cluster for machine in machines)

    clouds = ctx.params.get("clouds") or discovery.configured()
    looking = [threading.Thread(target=look, args=(cloud,), daemon=True) for cloud in clouds]
    deadline = time.monotonic() + COMPLETE_S
    for thread in looking:
        thread.start()
    for thread in looking:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sorted(name for name in [*found] if name.startswith(incomplete))


name_argument = click.argument("name", shell_complete=completed)


@dataclass(frozen=True, kw_only=True)
class Home:
    """A cluster where it runs.

    Parameters
    ----------
    cloud
        What the command line calls the provider.
    region
        As it was given.
    name
        The cluster's.
    provider
        Of that name, not attached yet; of no name where every cluster was asked for.
    machines
        The live ones.
    """

    cloud: str
    region: str | None
    name: str
    provider: Provider
    machines: tuple[Machine, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that say where it is."""
        return options(self.cloud, self.region)

    @property
    def scheduler(self) -> Machine | None:
        """Its scheduler's machine; None when that has ended."""
        return next((machine for machine in self.machines if machine.role == "scheduler"), None)

    @property
    def workers(self) -> Sequence[Machine]:
        """Its workers' machines."""
        return [machine for machine in self.machines if machine.role == "worker"]

    @property
    def zone(self) -> str | None:
        """Its scheduler's zone, or that of any machine; None while nobody knows."""
        every = [self.scheduler, *self.machines]
        return next((machine.zone for machine in every if machine and machine.zone), None)

    @property
    def created(self) -> float:
        """Seconds since the epoch when its oldest machine was ordered."""
        return min((machine.created for machine in self.machines), default=0.0)

    @property
    def expires(self) -> int | None:
        """Its hard end, in seconds since the epoch."""
        return next((machine.expires for machine in self.machines if machine.expires), None)


class Where:
    """The clouds in which to look, all of them when none is named.

    Parameters
    ----------
    clouds
        What the command line calls them.
    region
        The region; None for the credentials' default.
    """

    def __init__(self, clouds: Sequence[str], region: str | None) -> None:
        self.named = tuple(clouds)
        self.region = region
        self.notes: list[str] = []  # what was not asked, which nobody need mind
        self.refused: dict[str, Exception] = {}  # by cloud

    def ask(self, question: Callable[[str], T]) -> dict[str, T]:
        """What each cloud says, side by side; who refuses is noted, and hides none of the others.

        Raises
        ------
        CloudError, ImportError, OSError
            When none answers of those that were named, or that could have the region.
        """
        self.notes, self.refused = [], {}
        clouds = self.named or self._configured()
        with ThreadPoolExecutor(len(clouds)) as pool:
            asked = {cloud: pool.submit(question, cloud) for cloud in clouds}
        answers = {}
        for cloud, answer in asked.items():
            try:
                answers[cloud] = answer.result()
            except (CloudError, ImportError, OSError) as error:
                self.refused[cloud] = error
        if self.refused and (self.named or self.region) and not any(map(self._has_regions, answers)):
            raise next(iter(self.refused.values()))
        return answers

    def _has_regions(self, cloud: str) -> bool:
        """Whether a cloud's answer is one about the clouds, or the region, that were asked for."""
        return cloud in self.named or bool(discovery.CLOUDS[cloud].vendor)

    def _configured(self) -> tuple[str, ...]:
        """The clouds that can be asked; that none has credentials is noted."""
        clouds = discovery.configured()
        if not any(discovery.CLOUDS[cloud].vendor for cloud in clouds):
            others = ", ".join(name for name in discovery.CLOUDS if name not in clouds)
            self.notes.append(f"No credentials of a cloud are configured here; not asked: {others}.")
        return clouds

    @property
    def left_out(self) -> list[str]:
        """Which clouds were not asked or refused, in sentences."""
        by_words: dict[str, list[str]] = {}
        for cloud, error in self.refused.items():
            by_words.setdefault(f"{type(error).__name__}: {error}", []).append(cloud)
        return [
            *self.notes,
            *(f"Left out: {', '.join(clouds)}. {words}" for words, clouds in by_words.items()),
        ]

    @property
    def code(self) -> Code:
        """With what a command ends whose answer is what the clouds said."""
        return Code.partly if any(not _is_absent(error) for error in self.refused.values()) else Code.done

    def provider(self, cloud: str, name: str = discovery.NOBODY) -> Provider:
        """A cloud's provider."""
        found: Provider = discovery.provider(cloud, name, **options(cloud, self.region))
        return found

    def homes(self, name: str) -> list[Home]:
        """Where clusters of this name may be: one for each cloud that can be asked."""
        checked_name(name)

        def look(cloud: str) -> Home:
            provider = self.provider(cloud, name)
            machines = tuple(provider.list(name))
            return Home(cloud=cloud, region=self.region, name=name, provider=provider, machines=machines)

        return list(self.ask(look).values())

    def again(self, home: Home) -> Home:
        """The same with a provider of its own name, which knows its scheduler's addresses."""
        provider = self.provider(home.cloud, home.name)
        return dataclasses.replace(home, provider=provider, machines=tuple(provider.list(home.name)))

    def home(self, name: str, *, ended: bool = False) -> Home:
        """Where the one running cluster of this name is.

        Parameters
        ----------
        name
            The cluster's.
        ended
            Whether one of which machines are known that have ended will do.

        Raises
        ------
        Failure
            When there is none, with the nearest names.
        CloudError
            When there are several.
        """
        homes = self.homes(name)
        found = [home for home in homes if home.machines]
        if not found and ended:
            dead = self.ask(lambda cloud: self._remembered(cloud, homes))
            found = [home for home in homes if dead.get(home.cloud)]
        if not found:
            raise self.unknown(name)
        if len(found) > 1:
            clouds = " and in ".join(home.cloud for home in found)
            raise CloudError(f"There is a cluster {name!r} in {clouds}: say which with --cloud.")
        return found[0]

    def _remembered(self, cloud: str, homes: Sequence[Home]) -> Sequence[Machine]:
        """The machines of a cluster that a cloud knows to have ended."""
        return [m for home in homes if home.cloud == cloud for m in home.provider.ended(home.name)]

    def unknown(self, name: str) -> Failure:
        """That no cluster of this name runs, with what does."""
        every = self.ask(lambda cloud: self.provider(cloud).list(None))
        names = sorted({machine.cluster for machines in every.values() for machine in machines})
        where = f"in {', '.join(every)}" if every else "in any cloud that can be asked"
        where += f" (region {self.region})" if self.region else ""
        said = f"No cluster {name!r} runs {where}{nearest(name, names, 'no cluster does')}"
        if not self.region and any(discovery.CLOUDS[cloud].vendor for cloud in every):
            said += " Only your default region was asked; --region names another."
        return Failure(" ".join([said, *self.left_out]), Code.unknown)

    def mention(self) -> None:
        """Say which clouds could not be asked."""
        for sentence in self.left_out:
            click.echo(sentence, err=True)


def _is_absent(error: Exception) -> bool:
    """Whether a cloud was not asked because its SDK is not installed."""
    return isinstance(error, ImportError) or isinstance(error.__cause__, ImportError)


def nearest(name: str, names: Sequence[str], nothing: str) -> str:
    """The end of a sentence that says that there is no such name: the nearest, else those there are."""
    if near := difflib.get_close_matches(name, names, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(map(repr, near))}?"
    if names:
        return f". There: {', '.join(names[:MANY])}{', ...' if len(names) > MANY else ''}."
    return f"; {nothing}."


def found_clusters(where: Where) -> list[Home]:
    """Every running cluster."""

    def look(cloud: str) -> list[Home]:
        provider = where.provider(cloud)
        by_name: dict[str, list[Machine]] = {}
        for machine in provider.list(None):
            by_name.setdefault(machine.cluster, []).append(machine)
        return [
            Home(cloud=cloud, region=where.region, name=name, provider=provider, machines=tuple(some))
            for name, some in sorted(by_name.items())
        ]

    return [home for homes in where.ask(look).values() for home in homes]


def options(cloud: str, region: str | None) -> dict[str, Any]:
    """The keyword arguments that say where to look in a cloud."""
    return {"region": region} if region and discovery.CLOUDS[cloud].vendor else {}
