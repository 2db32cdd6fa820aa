"""A target and a reconcile loop over one provider.

It knows nothing of Dask, sockets or notebooks, so that it runs in the client as well as on the
scheduler's machine. Whoever holds it says how many machines there should be (`ask`), which of them Dask
sees, which have a notice that they will be taken (`reconcile`), and which may go (`release`). Synchronous;
one pass at a time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudprovider.errors import BootError, CloudError
from cloudprovider.events import Events, Phase
from cloudprovider.provider import Machine, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Provider

__all__ = ["Fleet", "Notice"]

#: Seconds between looks while no more than this share of one look is on its way.
LOOK_S, FEW = 2.0, 0.5
#: Share of how long they have been looked for after which they are looked at again, and the longest pause.
AGAIN, LONGEST_LOOK_S = 0.5, 15.0
#: Boots in a row that may fail with no arrival between them.
TRIES = 3
#: Seconds of the first pause after a refusal, and of the longest.
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
#: Seconds in which a machine with a notice ends by itself once Dask no longer sees it.
PART_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a machine says that will be taken, or that the cloud says had better go.

    Parameters
    ----------
    reason
        In the cloud's own words, or the signal that the machine got.
    within_s
        Seconds that it had left to empty itself when it said so.
    """

    reason: str
    within_s: float


class Fleet:
    """Keeps `target` machines by comparing with what the cloud says.

    Parameters
    ----------
    provider
        Where the machines are.
    boot
        Makes the Boot of the next machine; called at each order, when the scheduler's address is known.
    events
        Where every decision is recorded.
    start_timeout_s
        Seconds after which a machine that runs but that Dask never saw is ended and replaced.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        provider: Provider,
        boot: Callable[[], Boot],
        events: Events,
        *,
        start_timeout_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.boot = boot
        self.events = events
        self.target = 0
        #: Live machines by id.
        self.machines: dict[str, Machine] = {}
        #: Machines that are gone, by id: the bill and the logs want them.
        self.ended: dict[str, Machine] = {}
        #: Of the live machines, those that have a notice: replaced already, and counted no more.
        self.leaving: dict[str, Notice] = {}
        #: Why the fleet has stopped ordering; None while it orders.
        self.failure: BootError | None = None
        self._seen: set[str] = set()
        self._missed: set[str] = set()
        self._ordered: dict[str, float] = {}
        self._failed_boots = 0
        self._refusals = 0
        self._not_before = 0.0
        self._next_look = self._last_look = self._looking_since = 0.0
        self._looking_for: set[str] = set()
        self._looked: dict[str, float] = {}
        self._parted: dict[str, float] = {}
        self._over: dict[str, float] = {}
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._stopping = threading.Event()
        self._pass = threading.Lock()

    # -- what others ask of it ---------------------------------------------------------------------

    def ask(self, target: int) -> None:
        """Want `target` machines from the next pass on; a new wish ends a pause."""
        self.target = target
        self._not_before = 0.0
        self._refusals = 0
        self._failed_boots = 0
        self.failure = None

    def adopt(self, machines: Iterable[Machine]) -> None:
        """Keep machines that another process ordered, and want as many as there are."""
        self._keep(machines)
        self.target = len(self.staying)

    def meet(self, machines: Iterable[Machine]) -> None:
        """Keep machines that another process ordered, beside those there are; the target stays."""
        with self._pass:
            self._keep(machines)

    def _keep(self, machines: Iterable[Machine]) -> None:
        for machine in machines:
            self.machines[machine.id] = machine
            self._ordered[machine.id] = self._clock()
            self.ended.pop(machine.id, None)

    def follow(self, machines: Iterable[Machine]) -> None:
        """Have the machines that another fleet keeps, and no others."""
        with self._pass:
            live = {machine.id: machine for machine in machines}
            for id in self.machines.keys() - live.keys():
                self._end(self.machines.pop(id), "returned by another manager")
            self.adopt(live.values())

    def watch(self, leaving: Mapping[str, Notice]) -> None:
        """Know who has a notice, where another fleet replaces them."""
        with self._pass:
            self.leaving = {id: notice for id, notice in leaving.items() if id in self.machines}
            self.target = len(self.staying)

    def stop(self) -> None:
        """Order nothing from now on, not even in a pass that is under way."""
        self._stopping.set()

    def settle(self) -> None:
        """Return when no pass is under way; `stop` first."""
        with self._pass:
            return

    @property
    def staying(self) -> dict[str, Machine]:
        """Live machines that have no notice."""
        machines = [*self.machines.items()]  # a pass in another thread may change them meanwhile
        return {id: machine for id, machine in machines if id not in self.leaving}

    @property
    def missing(self) -> int:
        """Machines still to order; negative when there are too many."""
        return self.target - len(self.machines) + len(self.leaving)

    @property
    def waiting(self) -> bool:
        """Whether machines are ordered or wanted that Dask has not seen, or some are about to go."""
        return bool(self.missing > 0 or self.leaving or self._unseen())

    def not_arrived(self) -> list[str]:
        """Machines that stay and that Dask has never seen, youngest first: their loss costs least."""
        unseen = [id for id in self.staying if id not in self._seen]
        return sorted(unseen, key=lambda id: -self._ordered.get(id, 0.0))

    # -- one pass ------------------------------------------------------------------------------------

    def reconcile(
        self, arrived: Collection[str], leaving: Mapping[str, Notice] | None = None
    ) -> CloudError | None:
        """Look, forget what is gone, order what is missing.

        Parameters
        ----------
        arrived
            Machines that Dask sees at this moment.
        leaving
            Machines that have a notice. It cannot be taken back: they are replaced in this pass, and end
            whether the cloud takes them or not.

        Returns
        -------
        CloudError or None
            Why this pass got fewer machines than are missing.
        """
        with self._pass:
            self._note(set(arrived))
            self._heed(leaving or {}, set(arrived))
            self._look()
            return self._order()

    def release(self, ids: Collection[str]) -> None:
        """End machines that are no longer needed; what they held must be safe already."""
        if not (known := [id for id in ids if id in self.machines]):
            return
        with self._pass:
            self.provider.delete(known)
            for id in known:
                if machine := self.machines.pop(id, None):
                    self._end(machine, "released")
        self.events.emit(Phase.released, f"Returned {_machines(len(known))}.", ids=known)

    def _note(self, arrived: set[str]) -> None:
        """Take in what Dask sees: who came, and whom it misses that it has seen before."""
        arrived &= self.machines.keys()
        new = arrived - self._seen
        self._missed = (self._seen & self.machines.keys()) - arrived
        self._seen |= new
        if new:
            self._failed_boots = self._refusals = 0
            self.failure = None

    def _heed(self, leaving: Mapping[str, Notice], arrived: set[str]) -> None:
        """Take in who has a notice, and end those that Dask let go of and that do not end by themselves."""
        for id in leaving.keys() & self.machines.keys():
            machine, notice = self.machines[id], leaving[id]
            if notice == self.leaving.get(id):
                continue
            self.leaving[id] = notice
            self._over[id] = self._clock() + notice.within_s
            self.events.emit(
                Phase.notice,
                f"{machine.role.capitalize()} {id} ({machine.market}) has a notice, {notice.reason}: "
                f"it has {notice.within_s:.0f} s to empty itself.",
                machine=id,
                seconds=notice.within_s,
                reason=notice.reason,
                market=machine.market,
                zone=machine.zone,
            )
        now = self._clock()
        self._parted = {id: self._parted.get(id, now) for id in self.leaving.keys() - arrived}
        overdue = [id for id, since in self._parted.items() if now - since > PART_S]
        if overdue:
            self.provider.delete(overdue)
        for id in overdue:
            self._lose(_replace(self.machines[id], State.gone, self.provider.now(), self.leaving[id].reason))

    def _unseen(self) -> list[str]:
        # A cloud may call a machine gone that still empties itself (ECS does): Dask knows better, for a while.
        now = self._clock()
        seen = {id for id in self._seen - self._missed if now < self._over.get(id, now + 1)}
        return [id for id in self.machines if id not in seen]

    def _look(self) -> None:
        """Describe machines that Dask does not see, a batch a look, longest not looked at first."""
        now = self._clock()
        unseen = self._unseen()
        # Large fleets are looked at in turn, and with fewer calls a machine than small ones.
        pause = LOOK_S * max(1.0, len(unseen) / (FEW * self.provider.look))
        if new := set(unseen) - self._looking_for:
            # Who vanished may be gone; who was ordered a moment ago boots.
            booting = min(self._ordered.get(id, now) for id in new) + pause
            soon = self._last_look + LOOK_S if new & self._missed else booting
            self._next_look = min(self._next_look, soon) if self._looking_for else soon
            self._looking_since = now
        self._looking_for = set(unseen)
        if not unseen or now < self._next_look:
            return
        batch = sorted(unseen, key=lambda id: self._looked.get(id, -1.0))[: self.provider.look]
        self._last_look = now
        self._next_look = now + max(pause, min(AGAIN * (now - self._looking_since), LONGEST_LOOK_S))
        self._looked.update(dict.fromkeys(batch, now))
        for machine in self.provider.describe(batch):
            if machine.id not in self.machines:
                continue
            if machine.state is State.gone:
                self._lose(machine)
            else:
                self.machines[machine.id] = machine
        for id in batch:
            late = id in self.machines and id not in self._seen
            if late and now - self._ordered.get(id, now) > self._start_timeout_s:
                self._give_up(self.machines[id])

    def _lose(self, machine: Machine) -> None:
        """Record that a machine is gone; one that Dask never saw counts as a failed boot."""
        del self.machines[machine.id]
        had_arrived, noticed = machine.id in self._seen, machine.id in self.leaving
        self._end(machine, machine.reason)
        why = machine.reason or "no reason given"
        if noticed:
            self.events.emit(
                Phase.released,
                f"{machine.role.capitalize()} {machine.id} left after its notice: {why}.",
                machine=machine.id,
                ids=[machine.id],
                reason=why,
            )
        elif had_arrived:
            self.events.emit(
                Phase.lost, f"Lost {machine.role} {machine.id}: {why}.", machine=machine.id, reason=why
            )
        else:
            self._fail_boot(machine, why)

    def _give_up(self, machine: Machine) -> None:
        """End a machine that runs but never reached the scheduler."""
        self.provider.delete([machine.id])
        del self.machines[machine.id]
        self._end(machine, "never arrived")
        self._fail_boot(machine, f"it ran for {self._start_timeout_s:.0f} s and never reached the scheduler")

    def _fail_boot(self, machine: Machine, why: str) -> None:
        self._failed_boots += 1
        self.events.emit(
            Phase.lost,
            f"{machine.role.capitalize()} {machine.id} ended before it arrived: {why}.",
            machine=machine.id,
            reason=why,
        )
        self._not_before = max(self._not_before, self._clock() + min(self._failed_boots, TRIES))
        if self._failed_boots >= TRIES:
            self._pause()
            self.failure = BootError(
                f"{self._failed_boots} machines in a row ended before Dask saw them; the last, "
                f"{machine.id}: {why}. No more are ordered for {self._not_before - self._clock():.0f} s, then "
                "one at a time. Mend the cause and scale() again.",
                self._last_logs(machine.id),
            )
            self.events.emit(Phase.refused, str(self.failure), machine=machine.id)

    def _last_logs(self, id: str) -> str:
        try:
            return self.provider.logs(id, 20)
        except CloudError as error:
            return f"(its log could not be read: {error})"

    def _end(self, machine: Machine, reason: str) -> None:
        ended = machine.ended or self.provider.now()
        self.ended[machine.id] = _replace(machine, State.gone, ended, machine.reason or reason)
        self._seen.discard(machine.id)
        self._missed.discard(machine.id)
        self.leaving.pop(machine.id, None)
        self._over.pop(machine.id, None)
        self._ordered.pop(machine.id, None)
        self._looked.pop(machine.id, None)

    def _pause(self) -> None:
        self._refusals += 1
        pause = min(PAUSE_S * 2 ** (self._refusals - 1), LONGEST_PAUSE_S)
        self._not_before = max(self._not_before, self._clock() + pause)

    def _order(self) -> CloudError | None:
        """Order what is missing in waves; keep what comes, and stop at the first refusal."""
        if self._clock() < self._not_before:
            return self.failure
        while self.missing > 0 and not self._stopping.is_set():
            # After a string of failed boots one machine goes ahead, lest an image that
            # cannot be pulled becomes a billing loop.
            count = 1 if self.failure else min(self.missing, self.provider.wave)
            try:
                created = self.provider.create(self.boot(), count)
            except CloudError as error:
                return self._refused(error, 0, count)
            now = self._clock()
            for machine in created.machines:
                self.machines[machine.id] = machine
                self._ordered[machine.id] = now
            if created.machines:
                self._ordered_event(created.machines)
            if created.refusal is not None or len(created.machines) < count:
                short = CloudError(f"The cloud made {len(created.machines)} of {count} machines.")
                return self._refused(created.refusal or short, len(created.machines), count)
            if self.failure:
                self._pause()
                return self.failure
        return None

    def _ordered_event(self, machines: Collection[Machine]) -> None:
        counts = Counter(_pool(machine) for machine in machines)
        pools = ", ".join(f"{count} {pool}" for pool, count in counts.most_common())
        self.events.emit(
            Phase.ordered,
            f"Ordered {_machines(len(machines))}: {pools}.",
            count=len(machines),
            total=self.target,
            role="worker",
            ids=[machine.id for machine in machines],
            markets={machine.id: machine.market for machine in machines},
            zones={machine.id: machine.zone for machine in machines},
            pools=dict(counts),
        )

    def _refused(self, error: CloudError, got: int, count: int) -> CloudError:
        self._pause()
        self.events.emit(Phase.refused, str(error), count=got, total=count)
        return error


def _replace(machine: Machine, state: State, ended: float, reason: str) -> Machine:
    import dataclasses

    return dataclasses.replace(machine, state=state, ended=ended, reason=reason)


def _pool(machine: Machine) -> str:
    """Where a machine comes from, as people say it: `spot m7i.xlarge in us-east-1a`."""
    where = f"in {machine.zone}" if machine.zone else ""
    return " ".join(filter(None, (machine.market, machine.kind, where)))


def _machines(count: int) -> str:
    return f"{count} machine{'' if count == 1 else 's'}"
