"""`list` and `show`: what runs, by its machines' tags, and what one cluster is made of."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudprovider.bill import Meter, Rate, amount, bill, remarks
from cloudprovider.cli.finding import Where, cloud_option, found_clusters, json_option, region_option
from cloudprovider.cli.text import columns, counted, length, wrapped
from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudprovider.bill import Bill
    from cloudprovider.cli.finding import Home
    from cloudprovider.provider import Machine

__all__ = ["list_clusters", "show"]

ALIVE_ONLY = "Machines that have ended are not in it."


@click.command("list")
@cloud_option
@region_option
@json_option
def list_clusters(clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """List running clusters, by their machines' tags."""
    where = Where(clouds, region)
    homes = found_clusters(where)
    where.mention()
    if as_json:
        click.echo(json.dumps([_summary(home) for home in homes], indent=2))
    elif homes:
        for line in columns(_table(homes, time.time()), right={2}):
            click.echo(line)
    else:
        click.echo("No cluster runs.")


def _summary(home: Home) -> dict[str, Any]:
    return {
        "cluster": home.name,
        "cloud": home.cloud,
        "scheduler": home.scheduler.id if home.scheduler else None,
        "workers": len(home.workers),
        "created": home.created,
        "expires": home.expires,
    }


def _table(homes: Sequence[Home], now: float) -> Iterator[tuple[str, ...]]:
    yield "cluster", "cloud", "workers", "age", "ends in"
    for home in homes:
        ends = length(home.expires - now) if home.expires else ""
        yield home.name, home.cloud, str(len(home.workers)), length(now - home.created), ends


@click.command(short_help="Show NAME's machines and what they cost.")
@click.argument("name")
@cloud_option
@region_option
@json_option
def show(name: str, clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """Show the machines of cluster NAME, and what they have cost until now."""
    cluster = look(Where(clouds, region).home(name))
    if as_json:
        click.echo(json.dumps(cluster.as_json(), indent=2))
    else:
        click.echo("\n".join(cluster.lines(time.time())))


@dataclass(frozen=True, kw_only=True)
class Look:
    """A cluster as it is now.

    Parameters
    ----------
    home
        Where it is.
    owner
        Who made it; empty when that could not be read.
    bills
        What each machine has cost, by its id.
    total
        What all of them have.
    """

    home: Home
    owner: str
    bills: Mapping[str, Bill]
    total: Bill

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        machines = [
            _fields(machine, self.bills[machine.id]) for machine in sorted(self.home.machines, key=_kind)
        ]
        cost = {**self.total.as_json(), "left_out": [*self.total.left_out, ALIVE_ONLY]}
        return {**_summary(self.home), "owner": self.owner, "machines": machines, "cost": cost}

    def lines(self, now: float) -> list[str]:
        """For people, at most 80 columns wide where the cloud's words are no longer."""
        home, total = self.home, self.total
        ends = f", ends in {length(home.expires - now)}" if home.expires else ""
        owner = f", made by {self.owner}" if self.owner else ""
        now_costs = amount(total.per_hour, total.unknown)
        said = [f"Cluster {home.name} on {home.cloud}{owner}, {length(now - home.created)} old{ends}."]
        said += [f"Spent until now: {total.total}, {now_costs} an hour."] if total.lines else []
        for (role, market, kind), group in itertools.groupby(sorted(home.machines, key=_kind), _kind):
            machines = list(group)
            said += ["", f"{counted(len(machines), role)}: {kind}, {market}" if kind else role]
            rows = [self._row(machine, now) for machine in machines]
            said += columns(rows, right={3, 4}, indent=2)
        if total.spent != 0:
            said += ["", *wrapped([*remarks(total), ALIVE_ONLY])]
        return said

    def _row(self, machine: Machine, now: float) -> tuple[str, ...]:
        spent = self.bills[machine.id].total
        return machine.id, machine.state, machine.zone or "", length(now - machine.created), spent


def look(home: Home) -> Look:
    """What a cluster is made of; its prices need what it was made with, which its secrets' store knows."""
    provider, owner, note = home.provider, "", ""
    try:
        provider.attach()
        owner = provider.identity.owner
    except CloudError as error:  # the machines are there, and may be all that is
        note = f"What it was made with could not be read: {error}"
    meter, now = Meter(), provider.now()
    rates = {machine.id: _rate(home, machine, note) for machine in home.machines}
    for machine in home.machines:
        meter.see(machine, rates[machine.id], now)
    bills = {machine.id: bill([(machine, rates[machine.id])], now) for machine in home.machines}
    return Look(home=home, owner=owner, bills=bills, total=meter.bill(now))


def _rate(home: Home, machine: Machine, note: str) -> Rate:
    try:
        return home.provider.rate(machine)
    except CloudError as error:
        notes = (note or str(error),)
        return Rate(per_hour=0.0, unknown=(f"{machine.market} {machine.kind} machines",), notes=notes)


def _kind(machine: Machine) -> tuple[str, str, str]:
    return machine.role, machine.market, machine.kind


def _fields(machine: Machine, spent: Bill) -> dict[str, Any]:
    return {
        "id": machine.id,
        "role": machine.role,
        "group": machine.group,
        "state": str(machine.state),
        "market": machine.market,
        "zone": machine.zone,
        "kind": machine.kind,
        "private_address": machine.private_address,
        "public_address": machine.public_address,
        "created": machine.created,
        "billed_from": machine.billed_from,
        "expires": machine.expires,
        "spent": spent.spent,
        "unknown": list(spent.unknown),
    }
