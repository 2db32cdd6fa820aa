"""`logs`: what machines wrote, dead or alive, and what they go on to write."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cloudprovider.cli.codes import Code, Failure
from cloudprovider.cli.finding import Where, cloud_option, name_argument, nearest, region_option
from cloudprovider.cli.look import ended_machines, last_words, status
from cloudprovider.errors import CloudError
from cloudprovider.provider import Provider, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudprovider.cli.finding import Home
    from cloudprovider.provider import Machine

__all__ = ["fresh", "logs"]

#: Machines that are asked at once, seconds between two looks, and lines that each looks back at least.
AT_ONCE, PAUSE_S, BACK = 8, 2.0, 1000


@click.command(short_help="Show what NAME's machines wrote last.")
@name_argument
@cloud_option
@region_option
@click.option("--machine", default=None, metavar="ID", help="One machine; the beginning of its id will do.")
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
    """Show the last log lines of the machines of cluster NAME, also of those that have ended.

    Those that ended come first, then what runs: workers, and the scheduler last.
    """
    home = Where(clouds, region).home(name, ended=True)
    dead, words = _dead(home)
    tell = _as_json if as_json else Headed()
    seen: dict[str, list[str]] = {}
    ask = partial(_text, home, words, max(lines, BACK))
    with ThreadPoolExecutor(AT_ONCE) as pool, suppress(KeyboardInterrupt):
        wanted = _wanted(home, dead, machine)
        _round(pool.map(ask, wanted), wanted, lines, seen, tell)
        wanted = {id: role for id, role in wanted.items() if id in _living(home)}
        while follow and wanted:
            time.sleep(PAUSE_S)
            now = _living(home, again=True)
            now = now if machine is None else {id: role for id, role in now.items() if id in wanted}
            both = {**wanted, **now}  # also the last of what has ended
            _round(pool.map(ask, both), both, lines, seen, tell)
            wanted = now


def _dead(home: Home) -> tuple[Sequence[Machine], dict[str, str]]:
    """The machines that have ended, the latest last, and last words that their cloud may not have any more."""
    said: Mapping[str, Any] = {}
    try:
        secret = find(home.provider).client  # it also says where the logs are, if not in the usual place
        if type(home.provider).ended is Provider.ended:  # this cloud remembers none: their scheduler may
            said, _ = status(home, secret)
    except CloudError:
        pass
    return ended_machines(home, said)[::-1], last_words(said)


def _text(home: Home, words: Mapping[str, str], lines: int, id: str) -> list[str]:
    """A machine's last lines."""
    return (home.provider.logs(id, lines) or words.get(id, "")).splitlines()


def _living(home: Home, *, again: bool = False) -> dict[str, str]:
    """The machines that run, with their roles, the scheduler last."""
    machines = home.provider.list(home.name) if again else home.machines
    return {one.id: one.role for one in sorted(machines, key=lambda one: one.role, reverse=True)}


def _wanted(home: Home, dead: Sequence[Machine], machine: str | None) -> dict[str, str]:
    """The machines to ask at first, with their roles.

    Raises
    ------
    Failure
        When there is no such machine, or there are several.
    """
    roles = {**{one.id: f"{one.role}, ended" for one in dead}, **_living(home)}
    if machine is None:
        return roles
    ids = [id for id in roles if id == machine] or [id for id in roles if id.startswith(machine)]
    if len(ids) == 1:
        return {ids[0]: roles[ids[0]]}
    if ids:
        raise Failure(f"{machine!r} begins the ids of {', '.join(ids)}: say which.", Code.unknown)
    # A machine that its cloud has forgotten may have left a log.
    if not home.provider.logs(machine, 1):
        said = f"Cluster {home.name} has no machine {machine!r}{nearest(machine, [*roles], 'none is known')}"
        raise Failure(said, Code.unknown)
    return {machine: "ended"}


def _round(
    texts: Iterable[list[str]],
    wanted: dict[str, str],
    lines: int,
    seen: dict[str, list[str]],
    tell: Callable[[str, str, Sequence[str]], None],
) -> None:
    """Tell what is new in each machine's last lines; of one that is new itself, its last lines."""
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
