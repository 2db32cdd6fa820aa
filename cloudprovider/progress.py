"""Progress of a start: live in a terminal or a notebook, else as log lines."""

from __future__ import annotations

import html
import logging
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloudprovider.events import Phase
from cloudprovider.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, RenderableType

    from cloudprovider.events import Event, Events
    from cloudprovider.timeline import Timeline

__all__ = ["say", "shown"]

logger = logging.getLogger("cloudprovider.progress")

#: One live display at a time: two would draw over each other.
_live = threading.Lock()
#: Seconds between two looks at the events.
TICK = 0.2
LOGGED = frozenset(
    {Phase.access, Phase.landing, Phase.secrets, Phase.ordered, Phase.placed, Phase.refused, Phase.lost}
    | {Phase.notice, Phase.connected}
)


class Progress:
    """What a start looks like at this moment, as text.

    Parameters
    ----------
    events
        Of the cluster that starts; what has happened before counts too.
    title
        What starts, such as `FargateCluster 'x'`.
    clock
        Seconds since the epoch.
    """

    def __init__(self, events: Events, title: str, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._title = title
        self._clock = clock
        self._began = clock()

    @property
    def timeline(self) -> Timeline:
        """Its steps until now."""
        return timeline(self._events)

    @property
    def elapsed(self) -> float:
        """Seconds since it began to be shown, or since the first event before that."""
        began = self.timeline.began
        return self._clock() - (self._began if began is None else min(began, self._began))

    def rows(self) -> list[tuple[bool, str, str]]:
        """Each step: whether it is done, its name, and how long or how many."""
        so_far = self.timeline
        rows = []
        for step in so_far.steps:
            took = f"{(self._clock() if step.end is None else step.end) - step.start:.1f} s"
            counts = f"{so_far.arrived} of {so_far.wanted}" if step.name == "workers' boot" else ""
            what = self.pools() if step.name == "workers' order" else counts
            rows.append((step.end is not None, step.name, f"{what}, {took}" if what else took))
        return rows

    def pools(self) -> str:
        """Where the workers' machines come from, and how many of each."""
        ordered: Counter[str] = Counter()
        for event in self._events.of(Phase.ordered):
            ordered.update(event.facts.get("pools", {}))
        return ", ".join(f"{count} {pool}" for pool, count in ordered.most_common())

    def headline(self) -> str:
        """One line: what starts, and since when."""
        return f"{self._title} starts: {self.elapsed:.1f} s"

    def final(self, error: BaseException | None = None) -> str:
        """The last line: how many came, in how long."""
        so_far, elapsed = self.timeline, self.elapsed
        if error is not None:
            return f"{self._title}: {type(error).__name__} after {elapsed:.1f} s"
        if so_far.wanted:
            pools = self.pools()
            return (
                f"{self._title}: {so_far.arrived} of {so_far.wanted} workers in {elapsed:.1f} s"
                f"{f' ({pools})' if pools else ''}"
            )
        return f"{self._title}: scheduler in {elapsed:.1f} s"

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        steps = Table.grid(padding=(0, 1))
        for done, name, detail in self.rows():
            steps.add_row(" ", "[green]✓[/]" if done else "[cyan]…[/]", Text(name), Text(detail, "dim"))
        spinner = Spinner("dots", Text(self.headline()))
        spinner.start_time = 0.0  # a new one each time it is drawn: let it turn by the clock
        return Group(spinner, steps)

    def html(self) -> str:
        """The same for a notebook."""
        rows = "".join(
            f"<tr><td>{'✓' if done else '…'}</td><td>{html.escape(name)}</td><td>{html.escape(detail)}</td></tr>"
            for done, name, detail in self.rows()
        )
        return f"<div>{html.escape(self.headline())}</div><table><tbody>{rows}</tbody></table>"

    def folded(self) -> str:
        """Its timeline, to be opened in a notebook."""
        drawn = self.timeline._repr_html_()
        return f"<details><summary>Timeline</summary>{drawn}</details>"


@contextmanager
def shown(
    events: Events,
    visible: bool | None = None,  # noqa: FBT001  (the Config's own word, and the second thing to say)
    *,
    title: str = "Cluster",
    console: Console | None = None,
) -> Iterator[Progress]:
    """Show the progress of a start while the block runs, and one last line after it.

    Parameters
    ----------
    events
        Of the cluster that starts.
    visible
        True shows it even where no one may look: then as plain lines on stderr. False shows nothing.
        Default: in a terminal or a notebook; elsewhere it is logged, by `cloudprovider.progress`.
    title
        What starts, such as `FargateCluster 'x'`.
    console
        Where to draw, default a terminal on stderr.

    Notes
    -----
    It draws from a thread of its own, so that a loop that is busy does not stop it, and it takes no
    output away: what the program prints stands above it.
    """
    progress = Progress(events, title)
    if visible is False:
        yield progress
        return
    with _display(events, progress, console, visible=visible) as last:
        try:
            yield progress
        except BaseException as error:
            last.append(progress.final(error))
            raise
        last.append(progress.final())


def say(line: str, *, visible: bool | None = None) -> None:
    """Say one line to whom progress is shown: on stderr, or to the log where no one may look."""
    from rich.console import Console

    console = Console(stderr=True)
    if visible or (visible is None and console.is_terminal):
        _printer(console)(line)
    else:
        logger.info("%s", line)


@contextmanager
def _display(
    events: Events, progress: Progress, console: Console | None, *, visible: bool | None
) -> Iterator[list[str]]:
    """The best display there is here; what stands in the list it yields is said when it has ended."""
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    notebook = _in_a_notebook()
    seen = notebook or (console.is_terminal and not console.is_dumb_terminal)
    alone = seen and _live.acquire(blocking=False)
    try:
        if not alone:
            say = _printer(console) if visible or seen else logger.info
            display = _lines(events, say)
        else:
            display = _notebook(progress) if notebook else _terminal(progress, console)
        with display as last:
            yield last
    finally:
        if alone:
            _live.release()


def _in_a_notebook() -> bool:
    """Whether a kernel runs this program, and not a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _terminal(progress: Progress, console: Console) -> Iterator[list[str]]:
    from rich.live import Live

    last: list[str] = []
    live = Live(
        progress,
        console=console,
        transient=True,
        refresh_per_second=1 / TICK,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe still goes there
        redirect_stderr=sys.stderr.isatty(),
    )
    try:
        with live:
            yield last
    finally:
        for line in last:
            _printer(console)(line)


@contextmanager
def _notebook(progress: Progress) -> Iterator[list[str]]:
    last: list[str] = []
    show = _output(progress.html())
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(TICK):
            show(progress.html())

    ticking = threading.Thread(target=tick, name="dask-cloud-progress", daemon=True)
    ticking.start()
    try:
        yield last
    finally:
        stop.set()
        ticking.join()
        for line in last:
            show(f"<div>{html.escape(line)}</div>{progress.folded()}")


def _output(text: str) -> Callable[[str], None]:
    """Show HTML in this cell; returns what replaces it, from any thread."""
    from IPython.display import display

    try:
        from ipywidgets import HTML
    except ImportError:
        from IPython.display import HTML

        handle = display(HTML(text), display_id=True)
        return lambda text: handle.update(HTML(text))
    widget = HTML(text)
    display(widget)
    return lambda text: setattr(widget, "value", text)


@contextmanager
def _lines(events: Events, say: Callable[[str], None]) -> Iterator[list[str]]:
    last: list[str] = []

    def hear(event: Event) -> None:
        if _worth_a_line(event):
            say(event.message)

    stop = events.listen(hear)
    try:
        yield last
    finally:
        stop()
        for line in last:
            say(line)


def _worth_a_line(event: Event) -> bool:
    """Of many arrivals every tenth part is told."""
    if event.phase is not Phase.arrived:
        return event.phase in LOGGED
    count, total = event.facts.get("count", 1), max(event.facts.get("total", 1), 1)
    return bool(count >= total or count * 10 // total > (count - 1) * 10 // total)
