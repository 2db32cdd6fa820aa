"""Which second of a start went where, read from its events.

What the events say, by phase and facts:

* `access` and `landing` begin a step; the step lasts until the next one begins.
* `ordered` with `role="scheduler"` begins its boot; `placed` and `connected` are the end of one.
* `ordered` with `role="worker"` says that a batch was accepted, `arrived` that Dask sees a machine;
  their fact `total` is how many are wanted.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.events import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from cloudprovider.events import Event

__all__ = ["Step", "Timeline", "timeline"]

#: A step's name, the mark that begins it, and the marks of which the first ends it.
STEPS = (
    ("your address", "access", ("landing", "secrets", "scheduler ordered")),
    ("landing", "landing", ("secrets", "scheduler ordered")),
    ("secrets", "secrets", ("scheduler ordered",)),
    ("scheduler's address", "scheduler ordered", ("scheduler placed",)),
    ("scheduler's boot", "scheduler placed", ("scheduler arrived", "connected")),
    ("connection", "scheduler arrived", ("connected",)),
    ("workers' order", "workers wanted", ("workers ordered",)),
    ("workers' boot", "workers accepted", ("workers arrived",)),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a start.

    Parameters
    ----------
    start, end
        Seconds since the epoch; `end` is None while it is under way.
    """

    name: str
    start: float
    end: float | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Timeline:
    """Which second of a start went where.

    Parameters
    ----------
    began, ended
        Seconds since the epoch: the first event, and the end of the last step; `ended` is None while
        a step is under way.
    steps
        In the order in which they began. They overlap: workers boot beside their scheduler.
    wanted, arrived
        Worker machines that the start asked for, and those that Dask saw.
    connected
        Whether the scheduler has answered.
    notices
        Machines that the cloud wanted back before the start was over.
    """

    began: float | None = None
    ended: float | None = None
    steps: tuple[Step, ...] = ()
    wanted: int = 0
    arrived: int = 0
    connected: bool = False
    notices: int = 0

    @property
    def seconds(self) -> float | None:
        """How long the start took; None while it is under way."""
        return None if self.began is None or self.ended is None else self.ended - self.began

    def __repr__(self) -> str:
        took = "under way" if self.seconds is None else f"{self.seconds:.1f} s"
        taken = f", {self.notices} with a notice" if self.notices else ""
        return f"<Timeline: {took}, {self.arrived} of {self.wanted} workers{taken}>"

    def __rich__(self) -> RenderableType:
        return table(self)

    def as_json(self) -> dict[str, Any]:
        """The timeline for programs, in seconds since it began."""
        began = self.began or 0.0
        return {
            "began": self.began,
            "seconds": self.seconds,
            "wanted": self.wanted,
            "arrived": self.arrived,
            "notices": self.notices,
            "steps": [
                {
                    "name": step.name,
                    "start": step.start - began,
                    "end": None if step.end is None else step.end - began,
                    "seconds": None if step.end is None else step.end - step.start,
                }
                for step in self.steps
            ],
        }

    def _repr_html_(self) -> str:
        rows = "".join(_html_row(self, step) for step in self.steps)
        return f"<table><tbody>{rows}</tbody></table><p>{html.escape(repr(self)[1:-1])}</p>"


def timeline(events: Iterable[Event]) -> Timeline:
    """The timeline of the first start that these events tell of."""
    log = list(_until_closing(events))
    if not log:
        return Timeline()
    marks = _marks(log)
    steps = tuple(sorted(_steps(marks), key=lambda step: step.start))
    ends = [step.end for step in steps]
    arrivals = _arrivals(log)
    ended = max((end for end in ends if end is not None), default=None) if None not in ends else None
    return Timeline(
        began=log[0].time,
        ended=ended,
        steps=steps,
        wanted=_wanted(log),
        arrived=max((_count(event) for event in arrivals), default=0),
        connected="connected" in marks,
        notices=sum(ended is None or notice.time <= ended for notice in _of(log, Phase.notice)),
    )


def _until_closing(events: Iterable[Event]) -> Iterable[Event]:
    for event in events:
        if event.phase is Phase.closing:
            return
        yield event


def _of(log: Sequence[Event], phase: Phase, role: str | None = None) -> list[Event]:
    return [e for e in log if e.phase is phase and (role is None or e.facts.get("role", "worker") == role)]


def _count(event: Event) -> int:
    return int(event.facts.get("count", 1))


def _wanted(log: Sequence[Event]) -> int:
    """How many worker machines the start asked for: the total of its first order."""
    for event in _of(log, Phase.ordered, "worker") + _of(log, Phase.refused):
        return int(event.facts.get("total", event.facts.get("count", 0)))
    return 0


def _arrivals(log: Sequence[Event]) -> list[Event]:
    """The arrivals of workers, until as many were there as the start asked for."""
    arrivals = []
    for event in _of(log, Phase.arrived, "worker"):
        arrivals.append(event)
        if _count(event) >= _wanted(log):
            break
    return arrivals


def _marks(log: Sequence[Event]) -> dict[str, float]:
    """The moments that steps begin and end at."""
    orders, arrivals, wanted = _of(log, Phase.ordered, "worker"), _arrivals(log), _wanted(log)
    if arrivals and _count(arrivals[-1]) >= wanted:
        orders = [order for order in orders if order.time <= arrivals[-1].time] or orders[:1]
    found = {
        "access": _of(log, Phase.access),
        "landing": _of(log, Phase.landing),
        "secrets": _of(log, Phase.secrets),
        "scheduler ordered": _of(log, Phase.ordered, "scheduler"),
        "scheduler placed": _of(log, Phase.placed, "scheduler"),
        "scheduler arrived": _of(log, Phase.arrived, "scheduler"),
        "connected": _of(log, Phase.connected),
        "workers wanted": _of(log, Phase.placed, "scheduler") if orders else [],
        "workers accepted": orders,
        "workers ordered": orders[-1:],
        "workers arrived": arrivals[-1:] if arrivals and _count(arrivals[-1]) >= wanted else [],
    }
    return {name: events[0].time for name, events in found.items() if events}


def _steps(marks: dict[str, float]) -> Iterable[Step]:
    for name, begins, ends in STEPS:
        if begins in marks:
            start = marks[begins]
            later = [marks[mark] for mark in ends if marks.get(mark, -1.0) >= start]
            yield Step(name=name, start=start, end=min(later, default=None))


WIDTH = 30


def _share(whole: Timeline, step: Step) -> tuple[float, float]:
    """Where a step begins and ends, as shares of the whole."""
    began = whole.began or 0.0
    last = max((s.end or s.start for s in whole.steps), default=began)
    length = max(last - began, 1e-9)
    end = last if step.end is None else step.end
    return (step.start - began) / length, (end - began) / length


def _took(step: Step) -> str:
    return "…" if step.end is None else f"{step.end - step.start:.1f} s"


def table(timeline: Timeline) -> RenderableType:
    """A timeline as a table for a terminal, with a bar a step."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    total = "" if timeline.seconds is None else f"{timeline.seconds:.1f} s"
    drawn = Table(box=SIMPLE_HEAD, show_footer=True)
    drawn.add_column("step", "whole start", no_wrap=True)
    drawn.add_column("from", justify="right", no_wrap=True)
    drawn.add_column("took", total, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    for step in timeline.steps:
        start, end = (round(share * WIDTH) for share in _share(timeline, step))
        bar = " " * start + "━" * max(end - start, 1)
        drawn.add_row(step.name, f"{step.start - (timeline.began or 0.0):.1f} s", _took(step), bar)
    return drawn


def _html_row(timeline: Timeline, step: Step) -> str:
    start, end = _share(timeline, step)
    bar = (
        f'<div style="margin-left:{start:.1%};width:{max(end - start, 0.005):.1%};'
        'height:0.8em;background:currentColor;opacity:0.5"></div>'
    )
    name = html.escape(step.name)
    return f'<tr><td>{name}</td><td>{_took(step)}</td><td style="width:20em">{bar}</td></tr>'
