"""Machines that have a notice: what they hold moves to those that stay, the dearest first.

distributed's `retire_workers` copies all keys at once in no order, fills receivers beyond their memory, gives
up tasks that could still end, and puts a worker back to work when nobody can take its data now; a machine
with a notice dies all the same. So what comes next is decided here; distributed's own
`request_acquire_replicas` has it copied, and its transitions move the tasks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask.config
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.scheduler import WorkerStatusPlugin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distributed import Scheduler
    from distributed.scheduler import TaskState, WorkerState

__all__ = ["Leaver", "Leavers", "machine_of"]

logger = logging.getLogger("distributed.scheduler")

#: Seconds between two passes, at least; a pass never takes more than a part of the scheduler's time.
TICK_S, PART = 0.1, 0.2
#: Copies under way from one machine: of so many seconds at the known bandwidth, and so many bytes and keys.
AHEAD_S, AHEAD_BYTES, AHEAD_KEYS = 2.0, 2**26, 500
#: Seconds after which a copy is asked for again, beside what it takes.
AGAIN_S = 5.0
#: A worker that was told to pause says in its next heartbeat what it still runs; so long it may be silent.
HEARD_S, SILENT_S = 0.5, 5.0
#: Seconds for which a machine stays that seems empty: data that a client was scattering to it has no entry yet.
STAY_S = 2.0
#: Results that had no other home are named up to this number; machines that have left are remembered so.
NAMED, REMEMBERED = 20, 1000
#: Bytes that a worker without a memory limit takes; a number, so that the emptiest is still known.
NO_LIMIT = 2.0**50
#: Seconds that a task of an unknown kind counts for, as in Dask.
UNKNOWN_S = 0.5


def machine_of(name: object, machines: Iterable[str]) -> str | None:
    """Which of these machines a worker belongs to: they are named `<id>` or `<id>-<k>`."""
    base, _, number = str(name).rpartition("-")
    if str(name) in machines:
        return str(name)
    return base if number.isdecimal() and base in machines else None


@dataclass
class Leaver:
    """A machine that has a notice.

    Parameters
    ----------
    machine, reason
        Which, and why.
    deadline
        When its time is over; monotonic seconds.
    since
        When the notice came; seconds since the epoch.
    paused
        Of each of its workers, when it was told to take no more tasks; seconds since the epoch.
    homeless
        Results that no machine holds that stays, as of the last pass.
    state
        `draining`, then `drained`, or `late`: the time was over first, or `gone`: it died first.
    moved, moved_bytes
        Results that were copied to machines that stay.
    lost
        Results that had no other home at the end, by key; True for those that cannot be computed again.
    """

    machine: str
    reason: str
    deadline: float
    since: float = field(default_factory=time.time)
    paused: dict[str, float] = field(default_factory=dict)
    homeless: list[TaskState] = field(default_factory=list)
    state: str = "draining"
    moved: int = 0
    moved_bytes: int = 0
    lost: dict[str, bool] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left_s(self) -> float:
        """Seconds of its time that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def record(self) -> dict[str, Any]:
        """What a manager wants to know, as JSON."""
        return {
            "reason": self.reason,
            "since": self.since,
            "within_s": self.left_s,
            "state": self.state,
            "moved": self.moved,
            "moved_bytes": self.moved_bytes,
            "lost": list(self.lost)[:NAMED],
            "lost_count": len(self.lost),
            "lost_for_good": sum(self.lost.values()),
        }


class Leavers:
    """Empties the machines of one scheduler that have a notice, many at a time.

    Parameters
    ----------
    scheduler
        Whose workers they are.
    stay_s
        Seconds for which a machine that has workers stays at least, unless it has fewer.
    """

    def __init__(self, scheduler: Scheduler, stay_s: float = STAY_S) -> None:
        self.scheduler = scheduler
        self.stay_s = stay_s
        self.known: dict[str, Leaver] = {}
        self._asked: dict[TaskState, tuple[WorkerState, Leaver, float]] = {}
        self._costs: dict[TaskState, float] = {}
        self._staying: set[WorkerState] = set()
        self._draining: asyncio.Task[None] | None = None

    def notice(self, machine: str, reason: str, within_s: float) -> Leaver:
        """Begin to empty a machine; of several notices the shortest counts."""
        deadline = time.monotonic() + within_s
        leaver = self.known.get(machine)
        if leaver is None:
            leaver = self.known[machine] = Leaver(machine, reason, deadline)
            for old in [m for m, one in self.known.items() if one.over.is_set()][:-REMEMBERED]:
                del self.known[old]
        elif not leaver.over.is_set() and deadline < leaver.deadline:
            leaver.reason, leaver.deadline = reason, deadline
        else:
            return leaver
        logger.info("Machine %s leaves within %.0f s: %s", machine, within_s, reason)
        self._tell(leaver)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.ensure_future(self._drain())
        return leaver

    def stop(self) -> None:
        """Empty no more."""
        if self._draining is not None:
            self._draining.cancel()

    def records(self) -> dict[str, dict[str, Any]]:
        """What a manager wants to know of each."""
        return {machine: leaver.record() for machine, leaver in self.known.items()}

    # -- one pass --------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        while leaving := {m: leaver for m, leaver in self.known.items() if not leaver.over.is_set()}:
            begun = time.monotonic()
            try:
                self._pass(leaving)
            except Exception:
                logger.exception("A pass over machines that leave failed; the next one comes")
            await asyncio.sleep(max(TICK_S, (time.monotonic() - begun) / PART))
        self._asked.clear()
        self._costs.clear()

    def _pass(self, leaving: Mapping[str, Leaver]) -> None:
        workers: dict[str, list[WorkerState]] = {machine: [] for machine in leaving}
        for ws in self.scheduler.workers.values():
            if (machine := machine_of(ws.name, leaving)) is not None:
                workers[machine].append(ws)
        self._staying = {ws for ws in self.scheduler.workers.values() if self._stays(ws)}
        for machine, leaver in leaving.items():
            for ws in workers[machine]:
                self._pause(leaver, ws)
                self._reschedule(leaver, ws)
            if workers[machine]:
                keys = {ts for ws in workers[machine] for ts in ws.has_what}
                leaver.homeless = [ts for ts in keys if self._staying.isdisjoint(ts.who_has or ())]
        self._note_arrivals()
        self._copy([leaver for machine, leaver in leaving.items() if workers[machine]])
        for machine, leaver in leaving.items():
            self._judge(leaver, workers[machine])

    def _pause(self, leaver: Leaver, ws: WorkerState) -> None:
        """Have a worker take no more tasks, as `retire_workers` does."""
        if ws.status != Status.running:
            leaver.paused.setdefault(ws.address, time.time())
            return
        leaver.paused[ws.address] = time.time()
        stimulus = f"cloud-leaving-{time.time()}"
        self.scheduler.handle_worker_status_change(Status.closing_gracefully, ws, stimulus)
        self.scheduler.worker_send(
            ws.address,
            {"op": "worker-status-change", "status": ws.status.name, "stimulus_id": stimulus},
        )

    def _reschedule(self, leaver: Leaver, ws: WorkerState) -> None:
        """Give tasks to others that have not begun, or that will not end in the time that is left."""
        now, paused = time.time(), leaver.paused[ws.address]
        if ws.last_seen < paused + HEARD_S and now < paused + SILENT_S:
            return
        late = [ts for ts in ws.processing if not self._will_end(leaver, ws, ts, now - ws.last_seen)]
        self._release(late)

    def _will_end(self, leaver: Leaver, ws: WorkerState, ts: TaskState, silent_s: float) -> bool:
        if ts in ws.long_running:
            return True
        if ts not in ws.executing:
            return False
        average = ts.prefix.duration_average
        return bool(average < 0 or average - ws.executing[ts] - silent_s <= leaver.left_s)

    def _release(self, tasks: Iterable[TaskState]) -> None:
        """Have tasks run elsewhere, as distributed does when their worker has gone."""
        if tasks := list(tasks):
            stimulus = f"cloud-leaving-{time.time()}"
            self.scheduler.transitions({ts.key: "released" for ts in tasks}, stimulus_id=stimulus)

    def _stays(self, ws: WorkerState) -> bool:
        """Whether a worker is none that leaves, for whatever reason."""
        return ws.status in (Status.running, Status.paused) and machine_of(ws.name, self.known) is None

    def _note_arrivals(self) -> None:
        """Count copies that have come, and give up those that have not in their time."""
        now = time.monotonic()
        for ts, (ws, leaver, until) in list(self._asked.items()):
            if ws in (ts.who_has or ()):
                leaver.moved += 1
                leaver.moved_bytes += ts.nbytes
            elif ts.state == "memory" and ws.status == Status.running and now < until:
                continue
            del self._asked[ts]

    def _judge(self, leaver: Leaver, workers: list[WorkerState]) -> None:
        """End a drain that has nothing left to do, or no time, or no machine."""
        fresh = time.time() < max(leaver.paused.values(), default=0.0) + self.stay_s and leaver.left_s
        if workers and (leaver.homeless or fresh or any(ws.processing for ws in workers)):
            if leaver.left_s:
                return
            self._release(ts for ws in workers for ts in list(ws.processing))
            self._end(leaver, "late", leaver.homeless)
        elif workers or not leaver.homeless:
            self._end(leaver, "drained", ())
        else:
            self._end(leaver, "gone", [ts for ts in leaver.homeless if not ts.who_has])

    def _end(self, leaver: Leaver, state: str, lost: Iterable[TaskState]) -> None:
        leaver.state = state
        leaver.lost = {str(ts.key): not _again(ts) for ts in lost}
        leaver.homeless = []
        said = leaver.record()
        if leaver.lost:
            logger.warning(
                "Machine %s had the only copy of %d results at its end, %d of which cannot be computed again: %s",
                *(leaver.machine, len(leaver.lost), said["lost_for_good"], ", ".join(said["lost"])),
            )
        logger.info("Machine %s is %s: %d results moved", leaver.machine, state, leaver.moved)
        self._tell(leaver)
        leaver.over.set()

    def _tell(self, leaver: Leaver) -> None:
        """Tell managers, and whoever listens to events."""
        said = leaver.record()
        self.scheduler.log_event("cloud-leaving", {"machine": leaver.machine, **said})
        tell(self.scheduler, leaving={leaver.machine: said})

    # -- what goes first, and where to -----------------------------------------------------------------

    def _copy(self, leavers: Iterable[Leaver]) -> None:
        """Ask for copies, the most valuable first, of those who have the most room."""
        room = {ws: _limit(ws) - ws.memory.optimistic for ws in self.scheduler.running & self._staying}
        for ts, (ws, _, _) in self._asked.items():
            if ws in room:
                room[ws] -= ts.nbytes
        for leaver in leavers:
            flying = [ts for ts, (_, whose, _) in self._asked.items() if whose is leaver]
            keys, size = len(flying), sum(ts.nbytes for ts in flying)
            most = max(AHEAD_BYTES, AHEAD_S * self.scheduler.bandwidth)
            for ts in sorted(leaver.homeless, key=lambda ts: self._rank(ts, leaver)):
                ws = max(room, key=room.__getitem__, default=None)
                if ws is None or keys >= AHEAD_KEYS:
                    break
                if ts.actor or ts in self._asked or room[ws] < ts.nbytes:
                    continue
                keys, size = keys + 1, size + ts.nbytes
                if keys > 1 and size > most:
                    break
                room[ws] -= ts.nbytes
                self._ask(ts, ws, leaver)

    def _ask(self, ts: TaskState, ws: WorkerState, leaver: Leaver) -> None:
        """Ask a worker for a copy; one a message: those of one message it takes in an order of its own."""
        within_s = AGAIN_S + AHEAD_S + 2 * ts.nbytes / self.scheduler.bandwidth
        self._asked[ts] = ws, leaver, time.monotonic() + within_s
        stimulus = f"cloud-leaving-{time.time()}"
        self.scheduler.request_acquire_replicas(ws.address, [ts.key], stimulus_id=stimulus)

    def _rank(self, ts: TaskState, leaver: Leaver) -> tuple[bool, int, bool, float]:
        """What is too large for the time last; then the least replicated, what is lost for good, the dearest."""
        return (
            ts.nbytes > leaver.left_s * self.scheduler.bandwidth,
            len(ts.who_has or ()),
            _again(ts),
            -self._cost_s(ts) / max(1, ts.nbytes),
        )

    def _cost_s(self, wanted: TaskState) -> float:
        """Seconds that it takes to compute a task again, with those of its inputs that are not there either."""
        stack, costs = [wanted], self._costs
        while stack:
            ts = stack[-1]
            absent = [dep for dep in ts.dependencies if not dep.who_has]
            if unknown := [dep for dep in absent if dep not in costs]:
                stack += unknown
                continue
            average = ts.prefix.duration_average
            costs[ts] = (average if average >= 0 else UNKNOWN_S) + sum(costs[dep] for dep in absent)
            stack.pop()
        return costs[wanted]


def tell(scheduler: Scheduler, **facts: Any) -> None:
    """Tell managers, by the line on which they hear of workers."""
    for plugin in scheduler.plugins.values():
        if isinstance(plugin, WorkerStatusPlugin):
            with suppress(CommClosedError):
                plugin.bcomm.send(["add", {"workers": {}, **facts}])


def _again(ts: TaskState) -> bool:
    """Whether a result can be computed again: not when it was scattered, nor when an input is forgotten."""
    return bool(ts.run_spec) and not ts.has_lost_dependencies


def _limit(ws: WorkerState) -> float:
    """Bytes up to which a worker takes data: above it distributed would pause it."""
    share = dask.config.get("distributed.worker.memory.pause") or 1.0
    return float(ws.memory_limit * share) if ws.memory_limit else NO_LIMIT
