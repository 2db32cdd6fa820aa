"""`down` and `sweep`: the end of a cluster, through its scheduler and through the cloud's API."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import discovery
from cloudprovider.cli.finding import (
    Home,
    Where,
    cloud_option,
    found_clusters,
    json_option,
    region_option,
    yes_option,
)
from cloudprovider.cli.text import columns, counted, length
from cloudprovider.config import seconds
from cloudprovider.errors import CloudError, ConfigError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudprovider.provider import Swept

__all__ = ["down", "sweep"]


@click.command(short_help="End cluster NAME and all it made.")
@click.argument("name")
@cloud_option
@region_option
@yes_option
@json_option
def down(name: str, clouds: tuple[str, ...], region: str | None, *, yes: bool, as_json: bool) -> None:
    """End cluster NAME and all it made: by its scheduler, then through the cloud's API."""
    home = Where(clouds, region).home(name)
    if not yes:
        click.confirm(
            f"End {counted(len(home.machines), 'machine')} of {name} on {home.cloud}?", abort=True, err=True
        )
    asked, said = _close(home)
    if as_json:
        ended = [machine.id for machine in home.machines]
        click.echo(json.dumps({"cluster": name, "cloud": home.cloud, "ended": ended, "asked": asked}))
    else:
        click.echo(said)


def _close(home: Home) -> tuple[bool, str]:
    """Close the cluster as its own manager would; whether its scheduler could be reached, and what happened."""
    from cloudprovider.cli.managing import attached
    from cloudprovider.events import Phase

    try:
        with attached(home) as cluster:
            cluster.shutdown_on_close = True
    except CredentialsError:
        raise
    except CloudError as error:
        if not home.provider.list(home.name):  # it ended, and something is left
            raise
        click.echo(f"{error}\nIts scheduler was not asked; the API alone ends it.", err=True)
        return False, _summed([_swept(home, home.provider.sweep(home.name))])
    return True, cluster.events.of(Phase.closed)[-1].message


@dataclass(frozen=True, kw_only=True)
class Target:
    """A cluster that may be swept.

    Parameters
    ----------
    home
        Where it is.
    use
        What it is in use for; empty when it is not, or nobody asked.
    unasked
        Why its scheduler could not be asked for that; empty when it was.
    """

    home: Home
    use: str = ""
    unasked: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cluster": self.home.name,
            "cloud": self.home.cloud,
            "machines": [machine.id for machine in self.home.machines],
            "created": self.home.created or None,
            "in_use": self.use,
            "not_asked": self.unasked,
        }

    @property
    def row(self) -> tuple[str, ...]:
        """For people."""
        home = self.home
        age = f"{length(time.time() - home.created)} old" if home.machines else "what it left"
        return home.name, home.cloud, counted(len(home.machines), "machine"), age, self.use


def _older_than(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds(_spelled(value), "--older-than")
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


def _spelled(value: str) -> str:
    """Dask knows `min`, and takes `m` for metres."""
    return f"{value[:-1]}min" if value[-1:] == "m" else value


@click.command(short_help="Remove cluster NAME, or what expired clusters left.")
@click.argument("name", required=False)
@cloud_option
@region_option
@click.option("--older-than", callback=_older_than, metavar="2h", help="Also running clusters of that age.")
@click.option("--force", is_flag=True, help="Also clusters that are in use.")
@yes_option
@json_option
def sweep(
    name: str | None,
    clouds: tuple[str, ...],
    region: str | None,
    older_than: float | None,
    *,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """End cluster NAME and remove all it made; without NAME, remove what expired clusters left.

    It says first what would go. Without --yes it then asks, or with --json goes no further.
    """
    if name and older_than is not None:
        raise click.UsageError("--older-than is for all clusters: leave out the name.")
    where = Where(clouds, region)
    targets = [_target(home, force=force) for home in _homes(where, name, older_than)]
    if not as_json:
        _tell(targets, name)
    refused = [target for target in targets if target.use]
    going = [target.home for target in targets if not target.use]
    if as_json and not yes:
        click.echo(json.dumps([target.as_json() for target in targets], indent=2))
        return
    if going and not yes:
        click.confirm("Go on?", abort=True, err=True)
    results = [_swept(home, home.provider.sweep(home.name)) for home in going]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    said = _summed(results)
    if going and not as_json:
        click.echo(said)
    if refused:
        raise CloudError(f"{', '.join(t.home.name for t in refused)} in use; --force ends it all the same.")
    if name and not any(result["machines"] or result["resources"] for result in results):
        raise where.unknown(name)


def _homes(where: Where, name: str | None, older_than: float | None) -> list[Home]:
    """What may be swept: where the name's machines are, or anywhere when it has none; else what is over."""
    homes = where.homes(name) if name else _candidates(where, older_than)
    living = [home for home in homes if home.machines]
    if name and living:
        return living
    where.mention()
    return _distinct(homes)


def _distinct(homes: Iterable[Home]) -> list[Home]:
    """Each leftover once: two of our names for one service, Fargate and ECS, leave the same kind of things."""
    first = {(discovery.CLOUDS[home.cloud].provider, home.name): home for home in reversed([*homes])}
    return [*reversed(first.values())]


def _candidates(where: Where, older_than: float | None) -> list[Home]:
    """What expired clusters left, and the running clusters of that age."""

    def left(cloud: str) -> list[Home]:
        names = where.provider(cloud).expired()
        return [
            Home(cloud=cloud, region=where.region, name=name, provider=where.provider(cloud, name))
            for name in names
        ]

    homes = _distinct(home for some in where.ask(left).values() for home in some)
    if older_than is None:
        return homes
    where.left_out.clear()
    oldest = time.time() - older_than
    old = [home for home in found_clusters(where) if home.created <= oldest]
    return [
        *homes,
        *(dataclasses.replace(home, provider=where.provider(home.cloud, home.name)) for home in old),
    ]


def _target(home: Home, *, force: bool) -> Target:
    """A cluster, and whether it may be swept."""
    if force or home.scheduler is None:
        return Target(home=home)
    from cloudprovider.cli.asking import use_of

    try:
        return Target(home=home, use=use_of(home.provider, home.scheduler))
    except (CloudError, OSError) as error:
        return Target(home=home, unasked=str(error) or type(error).__name__)


def _tell(targets: Sequence[Target], name: str | None) -> None:
    if not targets:
        click.echo("There is nothing to sweep.")
    elif name and not any(target.home.machines for target in targets):
        click.echo(f"No machine of {name} runs; what it may have left is removed.")
    else:
        click.echo("\n".join(columns([target.row for target in targets], right={2})))
    for target in targets:
        if target.unasked:
            said = f"Whether {target.home.name} is in use could not be asked: {target.unasked}"
            click.echo(said, err=True)


def _swept(home: Home, swept: Swept) -> dict[str, Any]:
    return {"cluster": home.name, "cloud": home.cloud, **dataclasses.asdict(swept)}


def _summed(results: Sequence[dict[str, Any]]) -> str:
    """How much went, in words.

    Raises
    ------
    CloudError
        When something did not.
    """
    if left := [one for result in results for one in result["left"]]:
        raise CloudError(f"Still there: {', '.join(left)}. Sweep again in a minute.")
    ended, removed = (sum(len(one[kind]) for one in results) for kind in ("machines", "resources"))
    return f"Ended {counted(ended, 'machine')} and removed {counted(removed, 'resource')}."
