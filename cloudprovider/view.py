"""What a manager knows of its cluster, as small JSON for the scheduler's page *Cloud* (`cloudruntime.page`).

Nothing of it asks the cloud, but for the last words of a machine that has just died: its log is read then, since a
cloud forgets machines, and some forget their logs with them.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import HOUR, bill
from cloudprovider.blackbox import LAST, RETURNED
from cloudprovider.events import Phase
from cloudprovider.provider import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.blackbox import Why
    from cloudprovider.estate import Estate
    from cloudprovider.events import Event
    from cloudprovider.provider import Machine
    from cloudprovider.timeline import Timeline

__all__ = ["Obituaries", "view"]

#: Machines in a view: the living first, then the last that ended.
LIVING, ENDED = 100, 50
#: Events in a view, and characters of one.
DECISIONS, LONGEST = 60, 400
#: Lines that are told of a dead machine's log, and characters of one.
LINES, WIDTH = 30, 300
#: Dead machines whose logs are read in one go, and how often the log of one is asked for its last line.
AT_ONCE, LOOKS = 4, 3
#: Seconds by which a cloud's clock and ours may seem apart.
CLOCKS_S = 2.0
#: Of many dead machines the logs of the last so many are read.
MOURNED = 50


def view(estate: Estate, start: Timeline) -> dict[str, Any]:
    """What is known of a cluster, without a call.

    Parameters
    ----------
    estate
        What it has in its cloud.
    start
        Which second of its start went where.

    Returns
    -------
    dict
        JSON; see `cloudruntime.page` for what it holds.
    """
    now = estate.provider.now()
    ahead = now - time.time()  # the cloud's clock before ours
    fleet, known = estate.fleet, estate.known()
    arrivals = estate.events.of(Phase.arrived, Phase.connected)
    seen = {event.machine: event.time + ahead for event in reversed(arrivals)}
    began = (start.began or now) + ahead
    made = any(event.facts.get("role") == "scheduler" for event in estate.events.of(Phase.ordered))
    living = [estate.scheduler, *fleet.machines.values()]
    ended = list(fleet.ended.values())
    return {
        "where": estate.where,
        "now": now,
        "target": fleet.target,
        "spent": known.spent,
        "per_hour": known.per_hour,
        "priced": bool(known.spent or known.per_hour or known.unknown),
        "sums": dict(Counter(str(machine.state) for machine in (*living[1:], *ended))),
        "machines": [
            _machine(estate, machine, now) | _arrival(machine, seen.get(machine.id), began)
            for machine in (*living[:LIVING], *ended[-ENDED:])
        ],
        "steps": [
            {
                "name": step.name,
                "start": step.start + ahead,
                "end": None if step.end is None else step.end + ahead,
            }
            for step in (start.steps if made else ())
        ],
        "decisions": _decisions(estate.events, ahead),
        "words": [],
    }


def _arrival(machine: Machine, seen: float | None, began: float) -> dict[str, Any]:
    """Whether Dask has seen a machine, and when it came: who came to it later knows only that it is there."""
    ours = machine.created >= began - CLOCKS_S
    return {"seen": seen is not None, "arrived": seen if ours else None}


def _machine(estate: Estate, machine: Machine, now: float) -> dict[str, Any]:
    record = {
        "id": machine.id,
        "role": machine.role,
        "state": str(machine.state),
        "zone": machine.zone,
        "kind": machine.kind,
        "market": machine.market,
        "created": machine.created,
        "billed_from": machine.billed_from,
        "ended": machine.ended,
        "reason": machine.reason[:LONGEST],
        "cost": None,
        "per_s": 0.0,
        "priceless": False,
    }
    if (rate := estate.known_rate(machine)) is not None:
        if machine.billed_from is None and machine.state is not State.starting:
            machine = dataclasses.replace(machine, billed_from=machine.created)
        alone = bill([(machine, rate)], now)
        record |= {
            "cost": alone.spent,
            "per_s": (alone.per_hour or 0.0) / HOUR,
            "priceless": alone.spent is None,
        }
    return record


def _decisions(events: Iterable[Event], ahead: float) -> list[dict[str, Any]]:
    told = [event for event in events if event.phase is not Phase.arrived]
    return [
        {
            "time": event.time + ahead,
            "phase": str(event.phase),
            "message": event.message[:LONGEST],
            "machine": event.machine,
        }
        for event in told[-DECISIONS:]
    ]


def news(view: dict[str, Any]) -> dict[str, Any]:
    """What of a view is news when it changes; what only grows with time is not."""
    machines = [{**machine, "cost": None} for machine in view["machines"]]
    return {**view, "now": None, "spent": None, "machines": machines}


class Obituaries:
    """Reads the last words of machines that die, once, and again while their log may still grow.

    Parameters
    ----------
    estate
        Whose machines they are.
    heard
        Says why a machine left, as its scheduler heard it; empty where it heard nothing.
    """

    def __init__(self, estate: Estate, heard: Callable[[str], str]) -> None:
        self._estate = estate
        self._heard = heard
        self._looks: Counter[str] = Counter()
        self._over: set[str] = set()

    def read(self) -> list[dict[str, Any]]:
        """What is new of machines that have died; asks the cloud for the logs of a few.

        Raises
        ------
        CloudError
            When the cloud does not say; the next time it is asked again.
        """
        ended = list(self._estate.fleet.ended.values())  # a pass may go on beside this
        died = [machine for machine in ended if not RETURNED.fullmatch(machine.reason)]
        words = []
        for machine in [one for one in died[-MOURNED:] if one.id not in self._over][:AT_ONCE]:
            said = self._estate.why(machine.id, self._heard(machine.id))
            self._looks[machine.id] += 1
            if LAST.search(said.logs) or self._looks[machine.id] >= LOOKS:
                self._over.add(machine.id)
            words.append(word(said, self._estate.provider.now()))
        return words


def word(said: Why, now: float) -> dict[str, Any]:
    """What is told of one machine that died."""
    lines = [line[:WIDTH] for line in said.logs.splitlines()[-LINES:]]
    machine = said.machine
    return {"id": machine.id, "time": machine.ended or now, "why": str(said), "logs": "\n".join(lines)}
