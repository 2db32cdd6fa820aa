"""`logs`: what machines wrote, dead or alive, and what they go on to write."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from cloudprovider.cli.finding import Where, cloud_option, region_option
from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.cli.finding import Home

__all__ = ["fresh", "logs"]

#: Machines that are asked at once, seconds between two looks, and lines that each looks back at least.
AT_ONCE, PAUSE_S, BACK = 8, 2.0, 1000


@click.command(short_help="Show what NAME's machines wrote last.")
@click.argument("name")
@cloud_option
@region_option
@click.option("--machine", default=None, metavar="ID", help="One machine, also one that has ended.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Of each.")
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C, or until nothing runs any more.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one object a line.")
def logs(
    name: str,
    clouds: tuple[str, ...],
    region: str | None,
    machine: str | None,
    lines: int,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the last log lines of the machines of cluster NAME."""
    home = Where(clouds, region).home(name)
    with suppress(CloudError):  # it only says where the logs are when they are not in the usual place
        home.provider.attach()
    tell = _as_json if as_json else Headed()
    seen: dict[str, list[str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool, suppress(KeyboardInterrupt):
        wanted = _wanted(home, machine)
        _round(home, wanted, lines, seen, tell, pool)
        while follow and wanted:
            time.sleep(PAUSE_S)
            now = _wanted(home, machine, again=True)
            _round(home, {**wanted, **now}, lines, seen, tell, pool)  # also the last of what has ended
            wanted = now


def _wanted(home: Home, machine: str | None, *, again: bool = False) -> dict[str, str]:
    """The machines to ask, with their roles."""
    machines = home.provider.list(home.name) if again else home.machines
    roles = {one.id: one.role for one in machines}
    if machine is None:
        return roles
    if again and machine not in roles:
        return {}
    return {machine: roles.get(machine, "ended")}


def _round(
    home: Home,
    wanted: dict[str, str],
    lines: int,
    seen: dict[str, list[str]],
    tell: Callable[[str, str, Sequence[str]], None],
    pool: ThreadPoolExecutor,
) -> None:
    """Ask every machine once, and tell what is new; of one that is new itself, its last lines."""
    back = max(lines, BACK)
    texts = pool.map(lambda id: home.provider.logs(id, back).splitlines(), wanted)
    for (id, role), now in zip(wanted.items(), texts, strict=True):
        new = fresh(seen[id], now) if id in seen else now[-lines:]
        if new or id not in seen:
            tell(id, role, new)
        seen[id] = now or seen.get(id, [])


def fresh(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What of the last lines of a log was not among its last lines before, when both go as far back."""
    for count in range(min(len(before), len(now)), 0, -1):
        if list(before[-count:]) == list(now[:count]):
            return now[count:]
    return now


class Headed:
    """Tells lines under the machine they are of."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, id: str, role: str, lines: Sequence[str]) -> None:
        if id != self._last:
            click.echo(f"== {role} {id}")
        self._last = id
        for line in lines:
            click.echo(line)


def _as_json(id: str, role: str, lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(json.dumps({"machine": id, "role": role, "line": line}))
