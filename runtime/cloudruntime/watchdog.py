"""When a machine must end: pure decisions, from what was seen and the time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudruntime.exits import Exit

if TYPE_CHECKING:
    from cloudruntime.boot import Leases

__all__ = ["SILENCE_S", "Facts", "SchedulerLife", "WorkerLife"]

#: A Dask process that has said nothing for this long runs user code that holds the interpreter lock.
SILENCE_S = 10.0
#: How long a scheduler process may take to say its first word, when `no_client` is shorter.
START_S = 120.0


@dataclass(frozen=True)
class Facts:
    """What the scheduler process says of itself.

    Parameters
    ----------
    clients
        How many clients are connected; those of workers do not count.
    working
        Whether any task is queued, unrunnable or being computed.
    idle_s
        Seconds since there was work.
    renewed_s
        Seconds since a manager renewed the lease; None when none ever did.
    budget_s
        Seconds that the budget still pays for; None where there is none.
    """

    clients: int = 0
    working: bool = False
    idle_s: float = 0.0
    renewed_s: float | None = None
    budget_s: float | None = None


@dataclass(frozen=True)
class WorkerLife:
    """The lease of a worker's machine: a scheduler that answers renews it.

    Parameters
    ----------
    leases
        How long without renewal.
    answered
        When a scheduler last answered, or the start; monotonic seconds.
    """

    leases: Leases
    answered: float

    def heard(self, now: float) -> WorkerLife:
        """The scheduler has answered."""
        return dataclasses.replace(self, answered=max(self.answered, now))

    def due(self, now: float, epoch: float) -> Exit | None:
        """Why the machine must end now; None while it may live.

        Parameters
        ----------
        now
            Monotonic seconds.
        epoch
            Seconds since the epoch.
        """
        if _expired(self.leases, epoch):
            return Exit.expired
        return Exit.scheduler_lost if now - self.answered >= self.leases.scheduler_lost else None


@dataclass(frozen=True)
class SchedulerLife:
    """The lease of the scheduler's machine: a connected client, a manager or running work renews it.

    Parameters
    ----------
    leases
        How long without renewal.
    attended
        When a client was last connected, or a manager renewed the lease; monotonic seconds, like the next two.
    busy
        When there was last work.
    reported
        When the scheduler process last said anything; None until its first word.
    working
        Whether there was work at the last report.
    paid
        Until when the budget pays; None where there is none.
    """

    leases: Leases
    attended: float
    busy: float
    reported: float | None = None
    working: bool = False
    paid: float | None = None

    @classmethod
    def begun(cls, leases: Leases, now: float) -> SchedulerLife:
        """The life of a scheduler that starts now; its leases count from its first word."""
        paid = None if leases.budget is None else now + leases.budget
        return cls(leases=leases, attended=now, busy=now, paid=paid)

    def heard(self, facts: Facts, now: float) -> SchedulerLife:
        """The scheduler process has reported."""
        attended = [self.attended]
        attended += [now] if facts.clients or self.reported is None else []
        attended += [now - facts.renewed_s] if facts.renewed_s is not None else []
        busy = now if facts.working or self._silent(now) else now - facts.idle_s
        return dataclasses.replace(
            self,
            reported=now,
            attended=max(attended),
            busy=max(self.busy, busy),
            working=facts.working,
            paid=self.paid if facts.budget_s is None else now + facts.budget_s,
        )

    def due(self, now: float, epoch: float) -> Exit | None:
        """Why the machine must end now; None while it may live. Times as for `WorkerLife.due`."""
        if _expired(self.leases, epoch):
            return Exit.expired
        if self.paid is not None and now >= self.paid:
            return Exit.budget
        if self.reported is None:
            return Exit.failed if now - self.busy >= max(self.leases.no_client, START_S) else None
        if self.working or self._silent(now):  # silence is work: code that holds the interpreter lock
            return Exit.no_client_work if now - self.attended >= self.leases.no_client_work else None
        if now - self.busy >= self.leases.idle:
            return Exit.idle
        return Exit.no_client if now - max(self.attended, self.busy) >= self.leases.no_client else None

    def _silent(self, now: float) -> bool:
        return self.reported is None or now - self.reported > SILENCE_S


def _expired(leases: Leases, epoch: float) -> bool:
    return leases.expires is not None and epoch >= leases.expires
