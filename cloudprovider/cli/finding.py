"""Which clouds are asked, and which of them has a cluster."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudprovider import discovery
from cloudprovider.errors import CloudError, ConfigError, CredentialsError
from cloudprovider.tags import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.provider import Machine, Provider

__all__ = ["Home", "Where", "cloud_option", "found_clusters", "json_option", "region_option", "yes_option"]

T = TypeVar("T")

#: How many names an error lists.
MANY = 10

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
        self.left_out: list[str] = []

    def ask(self, question: Callable[[str], T]) -> dict[str, T]:
        """What each cloud says, side by side; of those that nobody named, who cannot be asked is noted."""
        clouds = self.named or self._configured()
        with ThreadPoolExecutor(len(clouds)) as pool:
            asked = {cloud: pool.submit(question, cloud) for cloud in clouds}
        answers = {}
        for cloud, answer in asked.items():
            try:
                answers[cloud] = answer.result()
            except (CredentialsError, ConfigError, ImportError) as error:
                if self.named or (self.region and not isinstance(error, CredentialsError)):
                    raise
                self.left_out.append(f"{cloud} is left out. {type(error).__name__}: {error}")
        return answers

    def _configured(self) -> tuple[str, ...]:
        """The clouds that can be asked; that none has credentials is noted."""
        clouds = discovery.configured()
        if not any(discovery.CLOUDS[cloud].vendor for cloud in clouds):
            others = ", ".join(name for name in discovery.CLOUDS if name not in clouds)
            self.left_out.append(f"No credentials of a cloud are configured here; not asked: {others}.")
        return clouds

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

    def home(self, name: str) -> Home:
        """Where the one running cluster of this name is.

        Raises
        ------
        CloudError
            When there is none, with the nearest names; when there are several.
        """
        found = [home for home in self.homes(name) if home.machines]
        if not found:
            raise self.unknown(name)
        if len(found) > 1:
            clouds = " and in ".join(home.cloud for home in found)
            raise CloudError(f"There is a cluster {name!r} in {clouds}: say which with --cloud.")
        return found[0]

    def unknown(self, name: str) -> CloudError:
        """That no cluster of this name runs, with what does."""
        self.left_out.clear()
        every = self.ask(lambda cloud: self.provider(cloud).list(None))
        names = sorted({machine.cluster for machines in every.values() for machine in machines})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if near:
            hint = f"; did you mean {' or '.join(map(repr, near))}?"
        elif names:
            hint = f". There: {', '.join(names[:MANY])}{', ...' if len(names) > MANY else ''}."
        else:
            hint = "; nothing does there."
        said = f"No cluster {name!r} runs in {', '.join(every) or 'any cloud that can be asked'}{hint}"
        return CloudError(" ".join([said, *self.left_out]))

    def mention(self) -> None:
        """Say which clouds could not be asked."""
        for sentence in self.left_out:
            click.echo(sentence, err=True)


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
