"""`list`: what runs, by its machines' tags."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from cloudprovider.cli.codes import Code
from cloudprovider.cli.finding import Where, cloud_option, found_clusters, json_option, region_option
from cloudprovider.cli.text import columns, length, strong

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudprovider.cli.finding import Home

__all__ = ["list_clusters", "summary"]


@click.command("list", short_help="List running clusters.")
@cloud_option
@region_option
@json_option
def list_clusters(clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """List running clusters, by their machines' tags: all clouds are asked side by side."""
    where = Where(clouds, region)
    homes = found_clusters(where)
    where.mention()
    if as_json:
        click.echo(json.dumps([summary(home) for home in homes], indent=2))
    elif homes:
        head, *lines = columns(_table(homes, time.time()), right={2})
        click.echo("\n".join([strong(head), *lines]))
    else:
        click.echo("No cluster runs.")
    if where.code is not Code.done:
        raise SystemExit(where.code)


def summary(home: Home) -> dict[str, Any]:
    """A cluster for programs."""
    return {
        "cluster": home.name,
        "cloud": home.cloud,
        "zone": home.zone,
        "scheduler": home.scheduler.id if home.scheduler else None,
        "workers": len(home.workers),
        "created": home.created,
        "expires": home.expires,
    }


def _table(homes: Sequence[Home], now: float) -> Iterator[tuple[str, ...]]:
    yield "cluster", "cloud", "workers", "zone", "age", "ends in"
    for home in homes:
        ends = length(home.expires - now) if home.expires else "?"
        said = ends if home.scheduler else f"{ends}, no scheduler"
        yield home.name, home.cloud, str(len(home.workers)), home.zone or "", length(now - home.created), said
