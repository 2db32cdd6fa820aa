"""A cluster as it is now: what its cloud says of its machines, dead or alive, and its scheduler of its leases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import Meter, Rate, bill
from cloudprovider.blackbox import why
from cloudprovider.cli.listing import summary
from cloudprovider.cli.text import counted
from cloudprovider.errors import CloudError
from cloudprovider.provider import Machine, State, find

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cloudprovider.bill import Bill
    from cloudprovider.blackbox import Why
    from cloudprovider.cli.finding import Home
    from cloudprovider.provider import Provider

__all__ = ["Look", "ended_machines", "last_words", "look", "status"]

#: Of as many machines that ended the logs are read.
EXPLAINED = 10
#: Lines of a log that say why.
LAST_LINES = 50
#: Asked at once.
WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class Look:
    """A cluster as it is now.

    Parameters
    ----------
    home
        Where it is.
    owner
        Who made it; empty when that could not be read.
    ended
        Machines that are known to have ended, the latest first.
    whys
        Of the latest of these, why.
    bills
        What each machine has cost, by its id.
    bill
        What all of them have.
    status
        What its scheduler says (`cloud_status`); empty when it could not be asked.
    unasked
        Why it could not.
    """

    home: Home
    owner: str
    ended: Sequence[Machine]
    whys: Sequence[Why]
    bills: Mapping[str, Bill]
    bill: Bill
    status: Mapping[str, Any] = field(default_factory=dict)
    unasked: str = ""

    @property
    def living(self) -> Sequence[Machine]:
        """The machines that have not ended."""
        return self.home.machines

    @property
    def view(self) -> Mapping[str, Any]:
        """What a manager told the scheduler (`cloudruntime.page`); empty where none did."""
        view: Mapping[str, Any] = self.status.get("view", {})
        return view

    @property
    def limits(self) -> str:
        """What the bill may not have."""
        if not self.ended:
            return "Machines that have ended are in it while the cloud remembers them."
        return (
            f"Machines that ended are in it ({len(self.ended)}), but for those that the cloud has forgotten."
        )

    @property
    def timeline(self) -> Sequence[dict[str, Any]]:
        """What happened when, as far as can be told now, in order: `time`, `what` and `machine`."""
        every = [*self.living, *self.ended]
        began = [*map(_step, self.view.get("steps", ()))] or [*_began(every, self.status)]
        moments = [*began, *map(_end, self.ended[:EXPLAINED])]
        return sorted((moment for moment in moments if moment["time"]), key=lambda moment: moment["time"])

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        causes = {one.machine.id: str(one) for one in self.whys}
        told = ("leases", "lead", "budget", "clients", "working", "idle_s")
        return {
            **summary(self.home),
            "owner": self.owner,
            "machines": [_fields(machine, self.bills[machine.id]) for machine in self.living],
            "ended": [
                {**_fields(machine, self.bills[machine.id]), "why": causes.get(machine.id, machine.reason)}
                for machine in self.ended
            ],
            "cost": {**self.bill.as_json(), "left_out": [*self.bill.left_out, self.limits]},
            **{name: self.status.get(name) for name in told},
            "not_asked": self.unasked,
            "timeline": [*self.timeline],
            "decisions": [*self.view.get("decisions", ())],
        }


def look(home: Home) -> Look:
    """What a cluster is made of; its prices need what it was made with, which its secrets' store knows."""
    provider, owner, note = home.provider, "", ""
    said: tuple[Mapping[str, Any], str] = {}, ""
    try:
        secret = find(provider).client
        owner = provider.identity.owner
    except CloudError as error:  # the machines are there, and may be all that is
        note = f"What it was made with could not be read: {error}"
        said = {}, str(error)
    else:
        said = status(home, secret)
    ended = ended_machines(home, said[0])
    meter, now, every = Meter(), provider.now(), [*home.machines, *ended]
    rates = {machine.id: _rate(provider, machine, note) for machine in every}
    for machine in every:
        meter.see(machine, rates[machine.id], now)
    bills = {machine.id: bill([(machine, rates[machine.id])], now) for machine in every}
    return Look(
        home=home,
        owner=owner,
        ended=ended,
        whys=_explained(provider, ended[:EXPLAINED], said[0]),
        bills=bills,
        bill=meter.bill(now),
        status=said[0],
        unasked=said[1],
    )


def status(home: Home, secret: str) -> tuple[Mapping[str, Any], str]:
    """What a cluster's scheduler says, or why it could not be asked."""
    if home.scheduler is None:
        return {}, "It has ended." if home.machines else ""
    from cloudprovider.cli.asking import status_of

    try:
        return status_of(home.provider, home.scheduler, secret), ""
    except (CloudError, OSError) as error:
        return {}, str(error) or type(error).__name__


def ended_machines(home: Home, status: Mapping[str, Any]) -> list[Machine]:
    """The machines that have ended, as their cloud or else their scheduler says, the latest first."""
    try:
        known = {machine.id: machine for machine in home.provider.ended(home.name)}
    except CloudError:  # who may list may not be allowed to look back
        known = {}
    living = {machine.id for machine in home.machines}
    view = status.get("view", {})
    for record in view.get("machines", ()):
        if record["state"] == State.gone and not (record["id"] in known and known[record["id"]].kind):
            known[record["id"]] = _told(home, record)
    for left in status.get("left", ()):
        known.setdefault(left["machine"], _left(home, left))
    dead = [machine for machine in known.values() if machine.id not in living]
    return sorted(dead, key=lambda machine: -(machine.ended or 0.0))


def _told(home: Home, record: Mapping[str, Any]) -> Machine:
    """A machine that a manager told of."""
    names = ("id", "role", "zone", "kind", "market", "created", "billed_from", "ended", "reason")
    facts = {name: record[name] for name in names if name in record}
    return Machine(**facts, state=State.gone, cluster=home.name)


def _left(home: Home, left: Mapping[str, Any]) -> Machine:
    """A machine that its scheduler tells of, and its cloud no more."""
    return Machine(
        id=left["machine"],
        role="worker",
        state=State.gone,
        cluster=home.name,
        ended=left["time"],
        market="",
        reason=str(left["reason"]),
    )


def last_words(status: Mapping[str, Any]) -> dict[str, str]:
    """The last lines of machines that died, by their ids, as a manager told them before clouds forgot."""
    return {word["id"]: word["logs"] for word in status.get("view", {}).get("words", ())}


def _explained(provider: Provider, machines: Collection[Machine], status: Mapping[str, Any]) -> Sequence[Why]:
    """Why machines ended, by their last lines and by what their scheduler heard of them."""
    words = last_words(status)
    heard = {left["machine"]: str(left["reason"]) for left in status.get("left", ())}

    def explain(machine: Machine) -> Why:
        said = heard.get(machine.id, "")
        try:
            return why(machine, words.get(machine.id) or provider.logs(machine.id, LAST_LINES), said)
        except CloudError:
            return why(machine, "", said)

    with ThreadPoolExecutor(WIDTH) as pool:
        return [*pool.map(explain, machines)]


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of the start that a manager told."""
    took = f": {step['end'] - step['start']:.1f} s" if step["end"] else ""
    return _moment(step["start"], f"{step['name']}{took}")


def _began(machines: Collection[Machine], status: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """How a cluster came to be."""
    for scheduler in [machine for machine in machines if machine.role == "scheduler"]:
        yield _moment(scheduler.created, "scheduler ordered", scheduler.id)
        yield _moment(scheduler.billed_from, "scheduler's machine runs", scheduler.id)
    yield _moment(status.get("started"), "scheduler answers")
    if workers := [machine for machine in machines if machine.role == "worker" and machine.created]:
        running = [one.billed_from for one in workers if one.billed_from]
        yield _moment(
            min(one.created for one in workers), f"first of {counted(len(workers), 'worker')} ordered"
        )
        yield _moment(max(running, default=None), f"last of {counted(len(running), 'worker')} runs")


def _end(machine: Machine) -> dict[str, Any]:
    return _moment(machine.ended, f"{machine.role} {machine.id} ended", machine.id)


def _moment(moment: float | None, what: str, machine: str | None = None) -> dict[str, Any]:
    return {"time": moment or 0.0, "what": what, "machine": machine}


def _rate(provider: Provider, machine: Machine, note: str) -> Rate:
    if not machine.market:
        return Rate(per_hour=0.0, unknown=("what the cloud has forgotten",))
    try:
        return provider.rate(machine)
    except CloudError as error:
        notes = (note or str(error),)
        return Rate(per_hour=0.0, unknown=(f"{machine.market} {machine.kind} machines",), notes=notes)


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
        "ended": machine.ended,
        "reason": machine.reason,
        "expires": machine.expires,
        "spent": spent.spent,
        "unknown": list(spent.unknown),
    }
