"""`show`: what one cluster is made of, what it costs, how long it may live, and why machines of it ended."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING

import click

from cloudprovider.bill import amount, dollars, remarks
from cloudprovider.cli.finding import Where, cloud_option, json_option, name_argument, region_option
from cloudprovider.cli.look import Look, look
from cloudprovider.cli.text import columns, counted, leases, length, strong, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.provider import Machine

__all__ = ["show"]

#: Dollars that two counts may differ by.
CENT = 0.01


@click.command(short_help="Show NAME's machines, cost and leases.")
@name_argument
@cloud_option
@region_option
@json_option
def show(name: str, clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """Show the machines of cluster NAME, what they have cost, its leases, and why machines ended."""
    cluster = look(Where(clouds, region).home(name, ended=True))
    if as_json:
        click.echo(json.dumps(cluster.as_json(), indent=2))
    else:
        click.echo("\n".join(lines(cluster, time.time())))


def lines(cluster: Look, now: float) -> list[str]:
    """For people, at most 80 columns wide where the cloud's words are no longer."""
    said = [strong(_headline(cluster, now)), *wrapped(_money(cluster)), *wrapped(_use(cluster))]
    for (role, market, kind), group in itertools.groupby(sorted(cluster.living, key=_kind), _kind):
        machines = list(group)
        said += ["", strong(f"{counted(len(machines), role)}: {kind}, {market}" if kind else role)]
        said += columns([_row(cluster, machine, now) for machine in machines], right={3, 4}, indent=2)
    if cluster.ended:
        said += ["", strong(f"{counted(len(cluster.ended), 'machine')} ended")]
        said += wrapped(map(str, cluster.whys), indent=2)
        if more := len(cluster.ended) - len(cluster.whys):
            said += [f"  and {more} before these; --json has all."]
    said += ["", strong("Timeline"), *_timeline(cluster)]
    if cluster.bill.spent != 0:
        said += ["", *wrapped([*remarks(cluster.bill), cluster.limits])]
    return said


def _headline(cluster: Look, now: float) -> str:
    home = cluster.home
    owner = f", made by {cluster.owner}" if cluster.owner else ""
    if not home.machines:
        return f"Cluster {home.name} on {home.cloud}{owner} has ended: none of its machines runs."
    ends = f", ends in {length(home.expires - now)}" if home.expires else ""
    return f"Cluster {home.name} on {home.cloud}{owner}, {length(now - home.created)} old{ends}."


def _money(cluster: Look) -> Iterator[str]:
    bill = cluster.bill
    if bill.lines:
        yield f"Spent until now: {bill.total}, {amount(bill.per_hour, bill.unknown)} an hour."
    if (counted_all := cluster.view.get("spent")) and counted_all > (bill.spent or 0.0) + CENT:
        yield f"With what the cloud has forgotten: {dollars(counted_all)}, as its manager counts."
    if budget := cluster.status.get("budget"):
        lasts = (
            f"; it pays for {length(budget['left_s'])} more" if budget["left_s"] > 0 else ", which is over"
        )
        yield f"Budget: {dollars(budget['spent'])} of {dollars(budget['usd'])} are spent{lasts}."


def _use(cluster: Look) -> Iterator[str]:
    """Who uses it, and how long it lives when nobody does."""
    status = cluster.status
    if not status:
        if cluster.unasked and cluster.living:
            yield f"Its scheduler could not be asked. {cluster.unasked}"
        return
    lead = status.get("lead")
    heard = f"Led by {lead['who']}, heard of {length(lead['said_s'])} ago" if lead else "Nobody leads it"
    work = "has work" if status["working"] else f"idle for {length(status['idle_s'])}"
    clients = counted(len(status["clients"]), "client") if status["clients"] else "no client"
    yield f"{heard}; {clients}; {work}."
    yield leases(status["leases"], time.time())


def _row(cluster: Look, machine: Machine, now: float) -> tuple[str, ...]:
    spent = cluster.bills[machine.id].total
    return machine.id, machine.state, machine.zone or "", length(now - machine.created), spent


def _timeline(cluster: Look) -> list[str]:
    moments = cluster.timeline
    if not moments:
        return []
    began = moments[0]["time"]
    rows: list[tuple[str, str, str]] = []
    for moment in moments:
        clock = time.strftime("%H:%M:%S", time.localtime(moment["time"]))
        rows.append((clock, f"+{_after(moment['time'] - began)}", moment["what"]))
    return columns(rows, right={1}, indent=2)


def _after(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else length(seconds)  # noqa: PLR2004  (a minute)


def _kind(machine: Machine) -> tuple[str, str, str]:
    return machine.role, machine.market, machine.kind
