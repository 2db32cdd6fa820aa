"""`down` and `sweep`: the end of a cluster, through its scheduler and through the cloud's API."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import discovery
from cloudprovider.cli.codes import Code, Failure
from cloudprovider.cli.finding import (
    Home,
    Where,
    cloud_option,
    completed,
    found_clusters,
    json_option,
    name_argument,
    region_option,
    yes_option,
)
from cloudprovider.cli.text import columns, counted, length
from cloudprovider.config import seconds
from cloudprovider.errors import CloudError, ConfigError, CredentialsError
from cloudprovider.provider import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudprovider.provider import Swept

__all__ = ["down", "sweep"]


@click.command(short_help="End cluster NAME and all it made.")
@name_argument
@cloud_option
@region_option
@yes_option
@json_option
def down(name: str, clouds: tuple[str, ...], region: str | None, *, yes: bool, as_json: bool) -> None:
    """End cluster NAME and all it made: by its scheduler, then through the cloud's API."""
    home = Where(clouds, region).home(name)
    machines = counted(len(home.machines), "machine")
    _agree(f"End {machines} of {name} on {home.cloud}", yes=yes)
    asked, said = _close(home)
    if as_json:
        ended = [machine.id for machine in home.machines]
        click.echo(json.dumps({"cluster": name, "cloud": home.cloud, "ended": ended, "asked": asked}))
    else:
        click.echo(said)


def _agree(what: str, *, yes: bool) -> None:
    """Go on only with a yes.

    Raises
    ------
    Failure
        Without one, or where there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            f"{what}: this takes --yes where nobody can be asked. Nothing was done.", Code.unconfirmed
        )
    try:
        agreed = click.confirm(f"{what}?", err=True)
    except click.Abort:  # Ctrl-C
        agreed = False
    if not agreed:
        raise Failure("Nothing was done.", Code.unconfirmed)


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
        click.echo(f"{error}\nIts scheduler was not asked; the cloud's API alone ends it.", err=True)
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
        What it is in use for, or may be; empty when it is not.
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
@click.argument("name", required=False, shell_complete=completed)
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

    It says first what would go. Without --yes it then asks; where nobody can be asked, and with --json, it goes
    no further. A cluster is in use while its scheduler has a client, work or a manager; when that cannot be
    asked, while its machines live and its lease is not over.
    """
    if name and older_than is not None:
        raise click.UsageError("--older-than is for all clusters: leave out the name.")
    where = Where(clouds, region)
    targets = [_target(home, force=force) for home in _homes(where, name, older_than)]
    going = [target.home for target in targets if not target.use]
    nobody = bool(name) and not any(target.home.machines for target in targets)
    if nobody:
        click.echo(where.unknown(str(name)).message, err=True)
    if not as_json:
        _tell(targets, nobody=nobody)
        if going:
            what = f"what {name} may have left" if nobody else counted(len(going), "cluster")
            _agree(f"Sweep {what}", yes=yes)
    elif not yes:
        click.echo(json.dumps([target.as_json() for target in targets], indent=2))
        raise SystemExit(Code.unconfirmed if going else _refused_code(targets))
    results = [_swept(home, home.provider.sweep(home.name)) for home in going]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    said = _summed(results)
    if going and not as_json:
        click.echo(said)
    _conclude(where, name, targets, results)


def _refused_code(targets: Sequence[Target]) -> Code:
    return Code.in_use if targets else Code.done


def _conclude(
    where: Where, name: str | None, targets: Sequence[Target], results: Sequence[dict[str, Any]]
) -> None:
    """Say what was not swept.

    Raises
    ------
    Failure
        When that is anything that was asked for.
    """
    if refused := [target.home.name for target in targets if target.use]:
        in_use = f"{', '.join(refused)} in use; --force ends it all the same."
        raise Failure(in_use, Code.partly if results and not name else Code.in_use)
    if name and not any(result["machines"] or result["resources"] for result in results):
        raise Failure(f"There is nothing of {name}.", Code.unknown)
    if where.code is not Code.done and not any(target.home.machines for target in targets):
        raise SystemExit(where.code)


def _homes(where: Where, name: str | None, older_than: float | None) -> list[Home]:
    """What may be swept: where the name's machines are, or anywhere when it has none; else what is over."""
    homes = where.homes(name) if name else _candidates(where, older_than)
    if name and (living := [home for home in homes if home.machines]):
        return living
    if not name:
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
    oldest = time.time() - older_than
    old = [home for home in found_clusters(where) if home.created <= oldest]
    return [*homes, *(where.again(home) for home in old)]


def _target(home: Home, *, force: bool) -> Target:
    """A cluster, and whether it may be swept."""
    if force or home.scheduler is None:
        return Target(home=home)
    from cloudprovider.cli.asking import in_words, status_of

    try:
        status = status_of(home.provider, home.scheduler, find(home.provider).client)
    except (CloudError, OSError) as error:
        over = home.expires is not None and home.expires <= time.time()
        use = "" if over else "maybe: its lease is not over"
        return Target(home=home, use=use, unasked=str(error) or type(error).__name__)
    return Target(home=home, use=in_words(status))


def _tell(targets: Sequence[Target], *, nobody: bool) -> None:
    """Say what would go, unless there is nothing but a name."""
    if not targets:
        click.echo("There is nothing to sweep.")
    elif not nobody:
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
    Failure
        When something did not.
    """
    if left := [one for result in results for one in result["left"]]:
        raise Failure(f"Still there: {', '.join(left)}. Sweep again in a minute.", Code.partly)
    ended, removed = (sum(len(one[kind]) for one in results) for kind in ("machines", "resources"))
    return f"Ended {counted(ended, 'machine')} and removed {counted(removed, 'resource')}."
