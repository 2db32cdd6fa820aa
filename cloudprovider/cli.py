"""`dask cloud ...`, the command line; `dask-cloud` is the same."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudprovider.emulator.__main__ import emulate
from cloudprovider.errors import CloudError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloudprovider.provider import Machine

T = TypeVar("T")

CLOUDS = ("fargate", "ec2", "local")
#: The files under templates/policies.
POLICIES = (
    "aws-fargate",
    "aws-fargate-landing",
    "aws-fargate-execution",
    "aws-fargate-tunnel",
    "aws-fargate-tunnel-role",
    "aws-ec2",
    "aws-ec2-landing",
    "aws-ec2-machine",
    "aws-ec2-machine-ssm",
    "aws-ec2-tunnel",
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show what a cloud refused as one message, without a traceback."""
    try:
        yield
    except CloudError as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error


@click.group()
def cloud() -> None:
    """Dask clusters on any cloud."""


cloud.add_command(emulate)

cloud_option = click.option(
    "--cloud", "clouds", type=click.Choice(CLOUDS), multiple=True, help="Where to look; all by default."
)
region_option = click.option("--region", default=None, help="Region; your credentials' default otherwise.")
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@cloud.command("list")
@cloud_option
@region_option
@json_option
def list_clusters(clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """List running clusters, by their machines' tags."""
    with plain_errors():
        found = _of_each(clouds, lambda name: _provider(name, region).list(None))
    rows = [
        _row(name, cluster, group) for name, all_ in found.items() for cluster, group in _by_cluster(all_)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows)
    else:
        click.echo("No cluster runs.")


def _provider(cloud_name: str, region: str | None, name: str | None = None) -> Any:
    from cloudprovider import discovery

    options = {"region": region} if region and cloud_name != "local" else {}
    return discovery.provider(cloud_name, name, **options)


def _of_each(clouds: Sequence[str], ask: Callable[[str], T]) -> dict[str, T]:
    """What each cloud says; of those that nobody named, who cannot be asked is only mentioned."""
    found = {}
    for name in clouds or CLOUDS:
        try:
            found[name] = ask(name)
        except ImportError:  # the cloud's extra is not installed: it can have started nothing from here
            continue
        except CredentialsError as error:
            if clouds:
                raise
            click.echo(f"{name} is left out. {type(error).__name__}: {error}", err=True)
    return found


def _homes(clouds: Sequence[str], region: str | None, name: str) -> dict[str, int]:
    """How many machines a cluster has in each cloud that has any; 0 in all when none has."""
    counts = _of_each(clouds, lambda one: len(_provider(one, region).list(name)))
    return {one: count for one, count in counts.items() if count} or counts


def _by_cluster(machines: list[Machine]) -> list[tuple[str, list[Machine]]]:
    names = sorted({machine.cluster for machine in machines})
    return [(name, [m for m in machines if m.cluster == name]) for name in names]


def _row(cloud_name: str, cluster: str, machines: list[Machine]) -> dict[str, Any]:
    workers = [m for m in machines if m.role == "worker"]
    return {
        "cluster": cluster,
        "cloud": cloud_name,
        "scheduler": next((m.id for m in machines if m.role == "scheduler"), None),
        "workers": len(workers),
        "created": min(m.created for m in machines),
        "expires": next((m.expires for m in machines if m.expires), None),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("cluster", "cloud", "workers", "age", "ends in"):
        table.add_column(heading)
    now = time.time()
    for row in rows:
        ends = _minutes(row["expires"] - now) if row["expires"] else ""
        table.add_row(row["cluster"], row["cloud"], str(row["workers"]), _minutes(now - row["created"]), ends)
    Console().print(table)


def _minutes(seconds: float) -> str:
    hours, minutes = divmod(max(0, int(seconds)) // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


@cloud.command()
@click.argument("name", required=False)
@cloud_option
@region_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def sweep(name: str | None, clouds: tuple[str, ...], region: str | None, *, yes: bool) -> None:
    """End cluster NAME and remove all it made; without NAME, what expired clusters left."""
    with plain_errors():
        if name is None:
            found = _of_each(clouds, lambda one: _provider(one, region).sweep_expired())
            swept = [cluster for some in found.values() for cluster in some]
            click.echo(f"Swept {len(swept)} expired clusters{': ' if swept else ''}{', '.join(swept)}.")
            return
        homes = _homes(clouds, region, name)
        if not yes:
            machines = sum(homes.values())
            click.confirm(f"End {machines} machines of {name!r} and remove all it made?", abort=True)
        results = [_provider(one, region).sweep(name) for one in homes]
    ended, removed = (sum(len(getattr(r, kind)) for r in results) for kind in ("machines", "resources"))
    click.echo(f"Ended {ended} machines and removed {removed} resources.")
    if left := [one for result in results for one in result.left]:
        raise click.ClickException(f"Still there: {', '.join(left)}. Sweep again in a minute.")


@cloud.command()
@click.argument("name")
@cloud_option
@region_option
@click.option("--lines", default=100, show_default=True, help="Of each machine.")
def logs(name: str, clouds: tuple[str, ...], region: str | None, lines: int) -> None:
    """Show the last log lines of every live machine of cluster NAME."""
    with plain_errors():
        for one in _homes(clouds, region, name):
            provider = _provider(one, region, name)
            for machine in provider.list(name):
                click.echo(f"== {machine.role} {machine.id}")
                click.echo(provider.logs(machine.id, lines))


@cloud.command()
@click.argument("name", type=click.Choice(POLICIES))
@click.option("--region", default="*", show_default=True)
@click.option("--account", default="*", show_default=True)
def policy(name: str, region: str, account: str) -> None:
    """Print a least-privilege policy: of whoever starts clusters (aws-fargate, aws-ec2), or of a role."""
    from cloudprovider.providers import ec2, ecs

    of = ec2.policy if name.startswith("aws-ec2") else ecs.policy
    click.echo(json.dumps(json.loads(of(name, region=region, account=account)), indent=2))


@cloud.command()
@click.option("--keep", is_flag=True, help="Leave the embedded cloud up and print how to connect.")
@click.option("--json", "report", type=click.Path(dir_okay=False), help="Write the report to a file.")
def demo(report: str | None, *, keep: bool) -> None:
    """Start a FargateCluster on the embedded cloud, compute, scale, lose a spot worker, see the bill."""
    from cloudprovider.demo import run

    result = run(keep=keep)
    if report:
        with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(dataclasses.asdict(result), file, indent=2, default=str)
    raise SystemExit(0 if result.ok else 1)
