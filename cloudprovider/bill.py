"""What a cluster costs: a meter that watches machines, and the bill it makes of them.

It knows no cloud: a provider says each machine's `Rate`, and with it what the bill leaves out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import html
import io
import json
import math
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cloudprovider.errors import ConfigError
from cloudprovider.provider import Machine, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

__all__ = ["Bill", "Line", "Meter", "Rate", "Source", "checked_path", "receipt"]

T = TypeVar("T")
HOUR = 3600
DAY = 24 * HOUR
#: Prices on demand hold for years, but types and regions are new: beyond this age, a table says so.
STALE_DAYS = 365
#: How a receipt is written, by the ending of its file.
ENDINGS = (".txt", ".json", ".html")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The table that prices are from.

    Parameters
    ----------
    name
        Whose prices they are.
    date
        The day on which they were read, as `2026-09-29`.
    url
        Where they are published.
    """

    name: str
    date: str
    url: str = ""

    def days(self, now: float) -> int:
        """How old it is."""
        return math.floor((now - dt.datetime.fromisoformat(f"{self.date}T00:00:00+00:00").timestamp()) / DAY)

    def stale(self, now: float) -> str:
        """A sentence when it is older than `STALE_DAYS`; empty while it is not."""
        if (days := self.days(now)) <= STALE_DAYS:
            return ""
        return f"The prices of {self.name} here are {days} days old, of {self.date}: they may have changed."


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one machine costs while it bills.

    Parameters
    ----------
    per_hour
        US dollars an hour, all parts together that have a price.
    parts
        The same by what it is for (`vCPU`, `memory`, ...); empty when the provider does not say.
    minimum_s
        Seconds that bill even when the machine lived for less.
    left_out
        What else may cost and is not in it, in words for people.
    notes
        What is uncertain about it, in sentences for people.
    unknown
        What of it has no known price, in words for people; `per_hour` is the rest.
    source
        The table it is from; None where there is none.

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
    unknown: tuple[str, ...] = ()
    source: Source | None = None

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
        US dollars until now, and an hour from now on, of all that has a price; None when nothing has one.
    unknown
        What has no known price and is not in them.
    """

    role: str
    market: str
    kind: str
    machines: int
    billing: int
    seconds: int
    spent: float | None
    per_hour: float | None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Bill:
    """What a cluster has cost until `until`, in US dollars, by the provider's price table.

    Parameters
    ----------
    spent
        Until now, billing minimums included: all that has a price, so at least this if there is something
        `unknown`. None when nothing that has billed has a price; an unknown price is never 0.
    per_hour
        What the machines that bill now cost an hour, likewise.
    lines
        The same by role, market and kind of machine.
    parts
        What was spent by what it was for.
    left_out
        What may cost and is not in it.
    notes
        What is uncertain about it.
    since, until
        Seconds since the epoch by the cloud's clock; `since` is None when nothing has billed.
    unknown
        What has no known price.
    sources
        The tables that prices are from.
    title
        What it is the bill of, for people.
    budget, before
        US dollars that the cluster may cost in all, None where there is no limit; and what of them machines
        have cost that are not in the bill, because another manager had them.
    """

    spent: float | None
    per_hour: float | None
    lines: tuple[Line, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    since: float | None = None
    until: float = 0.0
    unknown: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    title: str = "Bill"
    budget: float | None = None
    before: float = 0.0

    def __repr__(self) -> str:
        return f"<Bill: {self.summary}>"

    @property
    def summary(self) -> str:
        """One line: spent, an hour from now on, and what is left of a budget."""
        left = (
            ""
            if self.left is None or self.budget is None
            else f", {self._left} of {dollars(self.budget)} left"
        )
        return f"{self.total} spent, {amount(self.per_hour, self.unknown)} an hour now{left}"

    @property
    def left(self) -> float | None:
        """US dollars that are left of the budget; None where there is none."""
        return None if self.budget is None else self.budget - self.before - (self.spent or 0.0)

    @property
    def _left(self) -> str:
        return dollars(max(0.0, self.left or 0.0))

    @property
    def total(self) -> str:
        """What was spent, for people: an amount, `at least` an amount, or `unknown`."""
        return amount(self.spent, self.unknown)

    def __rich__(self) -> RenderableType:
        return receipt(self)

    def as_json(self) -> dict[str, Any]:
        """The bill for programs: plain dictionaries, lists and numbers."""
        document = {**dataclasses.asdict(self), "left": self.left}
        document["parts"] = dict(self.parts)
        for name in ("lines", "left_out", "notes", "unknown", "sources"):
            document[name] = list(document[name])
        return {"currency": "USD", **document}

    def json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_json(), indent=2) + "\n"

    def text(self) -> str:
        """The bill for people, as plain text that fits 80 columns where its words are no longer."""
        from rich.console import Console

        console = Console(file=io.StringIO(), width=TEXT_COLUMNS, color_system=None)
        console.print(receipt(self, self.title), soft_wrap=False)
        drawn: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
        return "".join(f"{line.rstrip()}\n" for line in drawn.strip().splitlines())

    def html(self) -> str:
        """The bill for people, as a page of its own."""
        return PAGE.format(title=html.escape(self.title), body=self._repr_html_())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bill as text, JSON or HTML, by the ending of its file; folders are made, and `~` is yours.

        Returns
        -------
        Path
            Of the file, which is there whole or not at all.

        Raises
        ------
        ConfigError
            For another ending.
        OSError
            When it cannot be written.
        """
        file = checked_path(path)
        written = {".txt": self.text, ".json": self.json, ".html": self.html}[file.suffix]()
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_text(written, encoding="utf-8")
        return fresh.replace(file)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(line)) + "</tr>"
            for line in self.lines
        )
        said = [*filter(None, [period(self)]), *remarks(self)]
        words = "".join(f"<br>{html.escape(sentence)}" for sentence in said)
        return (
            f"<h4>{html.escape(self.title)}</h4>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p><b>{html.escape(self.summary)}</b>{words}</p>"
        )


class Meter:
    """Watches the machines of one cluster and makes its bill. Thread-safe.

    * A machine is counted once, however often it is seen.
    * What was once seen of it is not forgotten: a later, emptier answer of the cloud takes nothing back.
    * Its end is the last that the cloud said; where it said none, the moment it was first seen gone.
    * The cloud's own times count before any clock of ours: a bill ends no earlier than the last of them.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Machine, Rate]] = {}
        self._gone: dict[str, float] = {}
        self._closed: float | None = None
        self._lock = threading.Lock()

    def see(self, machine: Machine, rate: Rate, now: float | None = None) -> None:
        """Take note of what the cloud says of a machine now.

        Parameters
        ----------
        now
            Seconds since the epoch: a machine that is gone and does not say since when ended now, until
            it does. Default: the clock.
        """
        with self._lock:
            if machine.id in self._seen:
                machine, rate = _both(*self._seen[machine.id], machine, rate)
            if machine.state is State.gone and machine.ended is None:
                self._gone.setdefault(machine.id, time.time() if now is None else now)
            self._seen[machine.id] = machine, rate

    def close(self, now: float) -> None:
        """Every machine that still bills ended now, also one that is seen only later."""
        with self._lock:
            self._closed = now

    def bill(self, now: float | None = None, begun: Mapping[str, float] | None = None) -> Bill:
        """The bill until `now`, in seconds since the epoch; default: the clock.

        Parameters
        ----------
        begun
            By id, since when machines are taken to bill of which the cloud has not said it.
        """
        with self._lock:
            seen = [(self._ended(machine), rate) for machine, rate in self._seen.values()]
            until = self._closed
        if begun:
            seen = [(_begun(machine, begun.get(machine.id)), rate) for machine, rate in seen]
        if until is None:
            until = time.time() if now is None else now
        return bill(seen, max([until, *(moment for machine, _ in seen for moment in _moments(machine))]))

    def _ended(self, machine: Machine) -> Machine:
        """The machine with its end: the cloud's word, else when it was seen gone or the meter closed."""
        guesses = [when for when in (self._gone.get(machine.id), self._closed) if when is not None]
        if machine.ended is not None or machine.billed_from is None or not guesses:
            return machine
        ended = max(machine.billed_from, min(guesses))
        return dataclasses.replace(machine, ended=ended, state=State.gone)


def _begun(machine: Machine, when: float | None) -> Machine:
    if when is None or machine.billed_from is not None or machine.state is State.gone:
        return machine
    return dataclasses.replace(machine, billed_from=when)


def _moments(machine: Machine) -> list[float]:
    """The times that a machine says have passed."""
    return [moment for moment in (machine.billed_from, machine.ended) if moment is not None]


def _both(before: Machine, old: Rate, machine: Machine, new: Rate) -> tuple[Machine, Rate]:
    """What two looks at one machine say together.

    A known rate counts before an unknown one, then the dearer: a machine that is gone no longer shows the
    address it was billed for.
    """
    together = dataclasses.replace(
        machine,
        state=before.state if before.state is State.gone else machine.state,
        kind=machine.kind or before.kind,
        billed_from=machine.billed_from if before.billed_from is None else before.billed_from,
        ended=before.ended if machine.ended is None else machine.ended,
    )
    return together, max(old, new, key=lambda rate: (not rate.unknown, rate.per_hour))


def billed_seconds(machine: Machine, rate: Rate, now: float) -> int:
    """Whole seconds that a machine bills until `now`: begun seconds count, and the minimum does."""
    if machine.billed_from is None or now < machine.billed_from:
        return 0
    until = now if machine.ended is None else max(machine.billed_from, min(now, machine.ended))
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
        spent=_total(line.spent for line in lines),
        per_hour=_total(line.per_hour for line in lines),
        lines=lines,
        parts=dict(parts),
        left_out=_once(word for _, rate in seen for word in rate.left_out),
        notes=_once(note for _, rate in seen for note in rate.notes),
        since=min((m.billed_from for m, _ in seen if m.billed_from is not None), default=None),
        until=now,
        unknown=_once(word for line in lines for word in line.unknown),
        sources=_once(rate.source for _, rate in seen if rate.source is not None),
    )


def _line(role: str, market: str, kind: str, group: list[tuple[Machine, Rate]], now: float) -> Line:
    seconds = [billed_seconds(machine, rate, now) for machine, rate in group]
    billing = [rate for machine, rate in group if bills(machine, now)]
    billed = [(rate, s) for (_, rate), s in zip(group, seconds, strict=True) if s]
    return Line(
        role=role,
        market=market,
        kind=kind,
        machines=len(group),
        billing=len(billing),
        seconds=sum(seconds),
        spent=_total(None if _priceless(rate) else rate.per_second * s for rate, s in billed),
        per_hour=_total(None if _priceless(rate) else rate.per_hour for rate in billing),
        unknown=_once(word for _, rate in group for word in rate.unknown),
    )


def _priceless(rate: Rate) -> bool:
    return bool(rate.unknown) and not rate.per_hour


def _total(amounts: Iterable[float | None]) -> float | None:
    """The sum of what is known; None when there is something and nothing of it is known."""
    every = list(amounts)
    known = [value for value in every if value is not None]
    return math.fsum(known) if any(known) or len(known) == len(every) else None


def _once(things: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(things))


HEADINGS = ("machines", "kind", "billed", "now", "an hour", "spent")
TEXT_COLUMNS = 80
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ccc; white-space: nowrap }}
</style>
<body>{body}</body>
</html>
"""


def checked_path(path: str | os.PathLike[str], option: str = "path") -> Path:
    """The file of a receipt, whose ending says how it is written.

    Raises
    ------
    ConfigError
        When it does not.
    """
    file = Path(path).expanduser()
    if file.suffix not in ENDINGS:
        raise ConfigError(f"{option}={str(path)!r} must end with one of {', '.join(ENDINGS)}.")
    return file


def dollars(value: float) -> str:
    """An amount for people: cents, or as many digits as a small one needs."""
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def amount(value: float | None, unknown: Iterable[str] = ()) -> str:
    """An amount for people, of which something may have no known price."""
    if value is None:
        return "unknown"
    return f"at least {dollars(value)}" if value and any(unknown) else dollars(value)


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
        amount(line.per_hour, line.unknown),
        amount(line.spent, line.unknown),
    )


def remarks(bill: Bill) -> list[str]:
    """What stands under the total."""
    said = list(bill.notes)
    shares = sorted(bill.parts.items(), key=lambda part: -part[1])
    if len(shares) > 1:
        said.insert(0, "For " + ", ".join(f"{name} {dollars(share)}" for name, share in shares) + ".")
    if bill.unknown:
        said.insert(0, f"Its price is unknown, so it is not in it: {', '.join(bill.unknown)}.")
    if bill.left_out:
        said.append(f"Not in it: {', '.join(bill.left_out)}.")
    if bill.budget is not None:
        said.append(f"Of a budget of {dollars(bill.budget)}, {bill._left} are left.")  # noqa: SLF001  its words
    if bill.before:
        said.append(
            f"Before this manager came, the cluster had cost {dollars(bill.before)} that is not in it."
        )
    for source in bill.sources:
        said.append(f"By the prices of {source.name} of {source.date}{source.url and f': {source.url}'}")
        said += filter(None, [source.stale(bill.until)])
    return said


def period(bill: Bill) -> str:
    """From when until when it is, by the cloud's clock; empty when nothing has billed."""
    return "" if bill.since is None else f"From {_moment(bill.since)} to {_moment(bill.until)}."


def clock_time(when: float) -> str:
    """A time of day for people, by the cloud's clock."""
    return f"{dt.datetime.fromtimestamp(when, dt.UTC):%H:%M:%S} UTC"


def _moment(when: float) -> str:
    return f"{dt.datetime.fromtimestamp(when, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def receipt(bill: Bill, title: str = "Bill") -> RenderableType:
    """A bill as a table for a terminal, with what it leaves out under the total."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, title_justify="left", caption_justify="left", show_footer=True, box=SIMPLE_HEAD
    )
    table.caption = Text("\n".join([*filter(None, [period(bill)]), *remarks(bill)]))
    footers = ["total", "", "", "", amount(bill.per_hour, bill.unknown), bill.total]
    for heading, footer in zip(HEADINGS, footers, strict=True):
        number = heading in {"billed", "now", "an hour", "spent"}
        table.add_column(heading, footer, justify="right" if number else "left", no_wrap=heading != "kind")
    for line in bill.lines:
        table.add_row(*cells(line))
    return table
