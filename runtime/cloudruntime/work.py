"""What is left to do, and on whom it is: what a manager decides by how many machines there should be."""

from __future__ import annotations

from typing import Any

__all__ = ["work"]

#: States of tasks that could run now, and of those that wait for others.
READY, WAITING = ("processing", "queued", "no-worker"), ("waiting",)
#: Those of tasks that have been computed.
DONE = ("memory", "released", "forgotten")


def work(scheduler: Any) -> dict[str, Any]:
    """The work left in tasks and seconds of one thread, and what each worker does and holds.

    A task counts for the mean of its kind among the tasks that are there, which sways less than Dask's
    moving average; where none has ended, for that average from before, for twice the time its longest
    has run, or for `distributed.scheduler.unknown-task-duration`.
    """
    ready, ready_s = _tasks(scheduler, READY)
    waiting, waiting_s = _tasks(scheduler, WAITING)
    begun = sum(min(len(ws.processing), ws.nthreads) for ws in scheduler.workers.values())
    done_s = sum(
        min(seconds, _duration(scheduler, ts.prefix))
        for ws in scheduler.workers.values()
        for ts, seconds in ws.executing.items()
        if ts.state == "processing"
    )
    return {
        "ready": ready,
        "ready_s": max(0.0, ready_s - done_s),
        "movable": max(0, ready - begun),
        "waiting": waiting,
        "waiting_s": waiting_s,
        "workers": {str(ws.name): _worker(ws) for ws in scheduler.workers.values()},
    }


def _tasks(scheduler: Any, states: tuple[str, ...]) -> tuple[int, float]:
    count, seconds = 0, 0.0
    for prefix in scheduler.task_prefixes.values():
        some = sum(prefix.states.get(state, 0) for state in states)
        count += some
        seconds += some * _duration(scheduler, prefix) if some else 0.0
    return count, seconds


def _duration(scheduler: Any, prefix: Any) -> float:
    done, seconds = 0, 0.0
    for group in prefix.groups:
        done += sum(group.states.get(state, 0) for state in DONE)
        seconds += group.all_durations.get("compute", 0.0)
    if done and seconds:
        return seconds / done
    return float(scheduler._get_prefix_duration(prefix))  # noqa: SLF001  (distributed has no public name for it)


def _worker(ws: Any) -> dict[str, Any]:
    return {
        "processing": len(ws.processing),
        "nthreads": ws.nthreads,
        "nbytes": ws.nbytes,
        "memory": ws.memory_limit or 0,
        "pinned": bool(ws.long_running or ws.actors),
    }
