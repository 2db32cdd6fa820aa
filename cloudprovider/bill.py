"""What a cluster costs: a meter that watches machines, and the bill it makes of them.

It knows no cloud: a provider says each machine's `Rate`, and with it what the bill leaves out.
"""

from __future__ import annotations

import dataclasses
import html
import math
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.provider import Machine, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

__all__ = ["Bill", "Line", "Meter", "Rate", "receipt"]

HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one machine costs while it bills.

    Parameters
    ----------
    per_hour
        US dollars an hour, all parts together.
    parts
        The same by what it is for (`vCPU`, `memory`, ...); empty when the provider does not say.
    minimum_s
        Seconds that bill even when the machine lived for less.
    left_out
        What else may cost and is not in it, in words for people.
    notes
        What is uncertain about it, in sentences for people.

    Raises
    ------
    ValueError
        When the parts do not add up to `per_hour`.
    """

    per_hour: float
    parts: Mapping[str, float] = field(default_factory=dict)
    minimum_s: int = 0
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.parts and not math.isclose(self.per_hour, sum(self.parts.values()), abs_tol=1e-12):
            raise ValueError(f"The parts {dict(self.parts)} do not add up to {self.per_hour} an hour.")

    @classmethod
    def of(cls, parts: Mapping[str, float], **facts: Any) -> Self:
        """The Rate of these parts."""
        return cls(per_hour=sum(parts.values()), parts=parts, **facts)

    @property
    def per_second(self) -> float:
        """US dollars a second."""
        return self.per_hour / HOUR


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a bill: the machines of one role, market and kind.

    Parameters
    ----------
    machines, billing
        How many there have been, and how many of them bill now.
    seconds
        Machine-seconds that bill, minimums included.
    spent, per_hour
        US dollars until now, and an hour from now on.
    """

    role: str
    market: str
    kind: str
    machines: int
    billing: int
    seconds: int
    spent: float
    per_hour: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Bill:
    """What a cluster has cost until `until`, in US dollars, by the provider's price table.

    Parameters
    ----------
    spent
        Until now, billing minimums included.
    per_hour
        What the machines that bill now cost an hour.
    lines
        The same by role, market and kind of machine.
    parts
        What was spent by what it was for.
    left_out
        What may cost and is not in it.
    notes
        What is uncertain about it.
    since, until
        Seconds since the epoch; `since` is None when nothing has billed.
    """

    spent: float
    per_hour: float
    lines: tuple[Line, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    since: float | None = None
    until: float = 0.0

    def __repr__(self) -> str:
        return f"<Bill: {dollars(self.spent)} spent, {dollars(self.per_hour)} an hour now>"

    def __rich__(self) -> RenderableType:
        return receipt(self)

    def as_json(self) -> dict[str, Any]:
        """The bill for programs: plain dictionaries, lists and numbers."""
        document = dataclasses.asdict(self)
        document["parts"] = dict(self.parts)
        for name in ("lines", "left_out", "notes"):
            document[name] = list(document[name])
        return {"currency": "USD", **document}

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(line)) + "</tr>"
            for line in self.lines
        )
        words = "".join(f"<br>{html.escape(sentence)}" for sentence in remarks(self))
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p><b>{dollars(self.spent)}</b> spent, {dollars(self.per_hour)} an hour now{words}</p>"
        )


class Meter:
    """Watches the machines of one cluster and makes its bill. Thread-safe.

    * A machine is counted once, however often it is seen.
    * What was once seen of it is not forgotten: a later, emptier answer of the cloud takes nothing back.
    * So between two looks at the clock the bill never falls.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Machine, Rate]] = {}
        self._closed: float | None = None
        self._lock = threading.Lock()

    def see(self, machine: Machine, rate: Rate, now: float | None = None) -> None:
        """Take note of what the cloud says of a machine now.

        Parameters
        ----------
        now
            Seconds since the epoch: a machine that is gone and does not say since when ended now.
            Default: the clock.
        """
        with self._lock:
            if machine.ended is None and self._closed is not None:
                machine = _ended(machine, self._closed)
            elif machine.ended is None and machine.state is State.gone and machine.billed_from is not None:
                machine = _ended(machine, time.time() if now is None else now)
            if machine.id in self._seen:
                machine, rate = _both(*self._seen[machine.id], machine, rate)
            self._seen[machine.id] = machine, rate

    def close(self, now: float) -> None:
        """Every machine that still bills ended now, also one that is seen only later."""
        with self._lock:
            self._closed = now
            for key, (machine, rate) in self._seen.items():
                if machine.ended is None:
                    self._seen[key] = _ended(machine, now), rate

    def bill(self, now: float | None = None) -> Bill:
        """The bill until `now`, in seconds since the epoch; default: the clock."""
        with self._lock:
            seen = list(self._seen.values())
        return bill(seen, time.time() if now is None else now)


def _ended(machine: Machine, when: float) -> Machine:
    return dataclasses.replace(machine, ended=when, state=State.gone)


def _both(before: Machine, old: Rate, machine: Machine, new: Rate) -> tuple[Machine, Rate]:
    """What two looks at one machine say together.

    The dearer rate counts: a machine that is gone no longer shows the address it was billed for.
    """
    together = dataclasses.replace(
        machine,
        state=before.state if before.state is State.gone else machine.state,
        billed_from=machine.billed_from if before.billed_from is None else before.billed_from,
        ended=machine.ended if before.ended is None else before.ended,
    )
    return together, max(old, new, key=lambda rate: rate.per_hour)


def billed_seconds(machine: Machine, rate: Rate, now: float) -> int:
    """Whole seconds that a machine bills until `now`: begun seconds count, and the minimum does."""
    if machine.billed_from is None or now < machine.billed_from:
        return 0
    until = now if machine.ended is None else min(now, machine.ended)
    lived = math.ceil(round(until - machine.billed_from, 3))  # a clock's noise is no second
    return max(lived, rate.minimum_s)


def bills(machine: Machine, now: float) -> bool:
    """Whether a machine bills at that moment."""
    if machine.billed_from is None or now < machine.billed_from:
        return False
    return machine.ended is None or now < machine.ended


def bill(seen: Iterable[tuple[Machine, Rate]], now: float) -> Bill:
    """The bill of these machines until `now`."""
    groups: defaultdict[tuple[str, str, str], list[tuple[Machine, Rate]]] = defaultdict(list)
    parts: defaultdict[str, float] = defaultdict(float)
    for machine, rate in (seen := list(seen)):
        groups[machine.role, machine.market, machine.kind].append((machine, rate))
        seconds = billed_seconds(machine, rate, now)
        for name, per_hour in (rate.parts or {"machines": rate.per_hour}).items():
            parts[name] += per_hour * seconds / HOUR
    lines = tuple(_line(*key, group, now) for key, group in sorted(groups.items()))
    return Bill(
        spent=sum(line.spent for line in lines),
        per_hour=sum(line.per_hour for line in lines),
        lines=lines,
        parts=dict(parts),
        left_out=_once(word for _, rate in seen for word in rate.left_out),
        notes=_once(note for _, rate in seen for note in rate.notes),
        since=min((m.billed_from for m, _ in seen if m.billed_from is not None), default=None),
        until=now,
    )


def _line(role: str, market: str, kind: str, group: list[tuple[Machine, Rate]], now: float) -> Line:
    seconds = [billed_seconds(machine, rate, now) for machine, rate in group]
    billing = [rate for machine, rate in group if bills(machine, now)]
    return Line(
        role=role,
        market=market,
        kind=kind,
        machines=len(group),
        billing=len(billing),
        seconds=sum(seconds),
        spent=sum(rate.per_second * s for (_, rate), s in zip(group, seconds, strict=True)),
        per_hour=sum(rate.per_hour for rate in billing),
    )


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


HEADINGS = ("machines", "kind", "billed", "now", "an hour", "spent")


def dollars(amount: float) -> str:
    """An amount for people: cents, or as many digits as a small one needs."""
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def duration(seconds: float) -> str:
    """A length of time for people."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004  (a minute)
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s"


def cells(line: Line) -> tuple[str, ...]:
    """A line of the bill as text, in the order of `HEADINGS`."""
    market = "" if line.market == "on-demand" else f"{line.market} "
    return (
        f"{line.machines} {market}{line.role}{'s' if line.machines != 1 else ''}",
        line.kind,
        duration(line.seconds),
        str(line.billing),
        dollars(line.per_hour),
        dollars(line.spent),
    )


def remarks(bill: Bill) -> list[str]:
    """What stands under the total."""
    said = list(bill.notes)
    shares = sorted(bill.parts.items(), key=lambda part: -part[1])
    if len(shares) > 1:
        said.insert(0, "For " + ", ".join(f"{name} {dollars(amount)}" for name, amount in shares) + ".")
    if bill.left_out:
        said.append(f"Not in it: {', '.join(bill.left_out)}.")
    return said


def receipt(bill: Bill, title: str = "Bill") -> RenderableType:
    """A bill as a table for a terminal, with what it leaves out under the total."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, title_justify="left", caption_justify="left", show_footer=True, box=SIMPLE_HEAD
    )
    table.caption = Text("\n".join(remarks(bill)))
    footers = ["total", "", "", "", dollars(bill.per_hour), dollars(bill.spent)]
    for heading, footer in zip(HEADINGS, footers, strict=True):
        number = heading in {"billed", "now", "an hour", "spent"}
        table.add_column(heading, footer, justify="right" if number else "left", no_wrap=heading != "kind")
    for line in bill.lines:
        table.add_row(*cells(line))
    return table
