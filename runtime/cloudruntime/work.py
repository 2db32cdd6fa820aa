"""What is left to do, and on whom it is: what a manager decides by how many machines there should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["work"]

#: States of tasks that could run now, and of those that wait for others.
READY, WAITING = ("processing", "queued", "no-worker"), ("waiting",)
#: Those of tasks that have been computed.
DONE = ("memory", "released", "forgotten")
#: Seconds that a task counts for whose kind nobody has seen.
UNKNOWN_S = 2.0


def work(scheduler: Any) -> dict[str, Any]:
    """The work left in tasks and seconds of one thread, and what each worker does and holds.

    A task counts for the mean of its kind among the tasks that are there, which sways less than Dask's
    moving average; where none has ended, for that average from before, or for what Dask guesses but no
    less than `UNKNOWN_S`: machines that were not ordered at first cost a second boot.
    """
    live = [prefix for prefix in scheduler.task_prefixes.values() if len(prefix)]
    durations = {prefix.name: _duration(scheduler, prefix) for prefix in live}
    ready, ready_s = _tasks(live, durations, READY)
    waiting, waiting_s = _tasks(live, durations, WAITING)
    begun = sum(min(len(ws.processing), ws.nthreads) for ws in scheduler.workers.values())
    done_s = sum(
        min(seconds, durations[ts.prefix.name])
        for ws in scheduler.workers.values()
        for ts, seconds in ws.executing.items()
        if ts.state == "processing" and ts.prefix.name in durations
    )
    return {
        "ready": ready,
        "ready_s": max(0.0, ready_s - done_s),
        "movable": max(0, ready - begun),
        "waiting": waiting,
        "waiting_s": waiting_s,
        "workers": {str(ws.name): _worker(ws) for ws in scheduler.workers.values()},
    }


def _tasks(
    prefixes: Iterable[Any], durations: Mapping[str, float], states: tuple[str, ...]
) -> tuple[int, float]:
    counts = {prefix.name: sum(prefix.states.get(state, 0) for state in states) for prefix in prefixes}
    return sum(counts.values()), sum(count * durations[name] for name, count in counts.items())


def _duration(scheduler: Any, prefix: Any) -> float:
    done = sum(prefix.states.get(state, 0) for state in DONE)
    if done and prefix.duration:
        # Dask keeps the whole time of the tasks that are there, but its parts since ever.
        parts = prefix.all_durations
        return float(prefix.duration / done * parts.get("compute", 0.0) / sum(parts.values()))
    guess = float(scheduler._get_prefix_duration(prefix))  # noqa: SLF001  (distributed has no public name for it)
    return guess if prefix.duration_average >= 0 else max(guess, UNKNOWN_S)


def _worker(ws: Any) -> dict[str, Any]:
    return {
        "processing": len(ws.processing),
        "nthreads": ws.nthreads,
        "nbytes": ws.nbytes,
        "memory": ws.memory_limit or 0,
        "pinned": bool(ws.long_running or ws.actors),
    }
