"""When to order machines and when to let them go, where each second is billed: the policy, pure.

`decide` takes a `Situation` (what is left to do, which machines there are, what they cost) and `Rules`
(what the user wants), and returns a `Decision`. It reads no clock and does no I/O, so that it can be
simulated and tested with any state; `cloudprovider.adapt` gathers the state of a real cluster and does
what is decided.

* A machine is ordered when at least `Rules.share` of the seconds it will bill are work: the boot bills,
  and so does the rest of the billing minimum.
* An idle machine goes at the end of what is paid for: its billing minimum, and a short patience after
  its last task. It waits longer only where that costs less than to order it again: while much work waits
  for the last tasks of a stage, and where the last pauses were shorter than that (`Experience.pauses_s`).
* A machine that does not bill yet is taken back when the work will be over before it arrives.
* Never below what the data needs: whoever stays has room for what those hold who go, and the last
  machine that holds something stays.
* Never outside the minimum and the maximum, and never nothing while there is work.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["Decision", "Experience", "Known", "Rules", "Situation", "Work", "decide"]

#: A machine that is late is expected after this share of a boot.
LATE = 0.1
#: A boot that took longer was a clock that jumped.
LONGEST_BOOT_S = 3600.0
#: What ordering a machine again costs, in boots: its own seconds, and those of whoever waits for it.
AGAIN = 3.0
#: How many pauses are remembered of each level, and how long a pause is at least.
PAUSES, SHORT_S = 8, 2.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the user wants.

    Parameters
    ----------
    minimum, maximum
        Machines; `maximum` may be `math.inf`.
    share
        A machine is ordered when at least this share of the seconds it will bill are work.
    target_s
        Instead of `share`: a machine is ordered when it will have at least this many seconds of work.
    patience_s
        Seconds that a machine may idle before it goes, when nothing is paid for beyond them.
    waiting
        How much of the work counts that waits for other work: not all of it will run side by side.
    fill
        Share of the memory that data may fill before a machine is ordered for it.
    room
        Share of the memory that data may fill when machines go; less than `fill`, so that none
        is ordered right after.
    keep_paid
        Whether an idle machine stays until its billing minimum is over.
    """

    minimum: int = 0
    maximum: float = math.inf
    share: float = 0.3
    target_s: float | None = None
    patience_s: float = 5.0
    waiting: float = 0.5
    fill: float = 0.6
    room: float = 0.5
    keep_paid: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"The minimum must be between 0 and the maximum, not {self.minimum}.")


@dataclass(frozen=True, kw_only=True)
class Known:
    """One machine, as the policy sees it. Times are seconds of one clock that never goes back.

    Parameters
    ----------
    id
        Of the machine.
    ordered
        When it was ordered.
    arrived
        Whether Dask sees it.
    billed_from
        Since when it bills; None while it does not.
    idle_since
        Since when it has had nothing to do; None while it has, and before it arrives.
    nbytes, memory
        Bytes of data that it holds, and that it has room for; 0 means that the room is not known.
    pinned
        Whether it holds what cannot move: an actor, or a task that has seceded.
    per_second
        US dollars.
    """

    id: str
    ordered: float = 0.0
    arrived: bool = False
    billed_from: float | None = None
    idle_since: float | None = None
    nbytes: int = 0
    memory: int = 0
    pinned: bool = False
    per_second: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do, in tasks and in seconds of one thread.

    Parameters
    ----------
    ready, ready_s
        Tasks that run or could run now, and the seconds they still need.
    movable
        Those of them that have not begun: only they gain by another machine.
    waiting, waiting_s
        Tasks that wait for other tasks.
    """

    ready: int = 0
    ready_s: float = 0.0
    movable: int = 0
    waiting: int = 0
    waiting_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that a decision depends on.

    Parameters
    ----------
    now
        Seconds of the clock of `Known`.
    work
        What is left to do.
    machines
        Those that are ordered and not gone.
    threads
        Of one machine.
    boot_s
        Seconds from the order of a machine until Dask sees it.
    unbilled_s
        Seconds from the order until it bills.
    minimum_s
        Seconds that bill even when it lives for less.
    pauses_s
        For the first machine, the second, ...: how long it is worth waiting for work when it idles, as
        the last pauses have taught; 0 for those of which nothing is known.
    """

    now: float
    work: Work = field(default_factory=Work)
    machines: tuple[Known, ...] = ()
    threads: int = 1
    boot_s: float = 60.0
    unbilled_s: float = 0.0
    minimum_s: float = 0.0
    pauses_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many machines there should be, which go now, and why."""

    target: int
    leave: tuple[str, ...] = ()
    reason: str = ""


def decide(situation: Situation, rules: Rules) -> Decision:
    """What to do now: order, let go, or neither; never both at once."""
    machines = situation.machines
    if (over := len(machines) - rules.maximum) > 0:
        leave = _least_useful(machines)[: math.ceil(over)]
        return Decision(target=len(machines) - len(leave), leave=leave, reason="above the maximum")
    if leave := _leaving(situation, rules):
        return Decision(target=len(machines) - len(leave), leave=leave, reason="idle and paid up")
    wishes = {
        "below the minimum": rules.minimum - len(machines),
        "nothing is there to do the work": int(_any_work(situation.work) and not machines),
        "data needs room": _for_data(situation, rules.fill) - len(machines),
        "the work pays for it": _paying(situation, rules),
    }
    reason = max(wishes, key=lambda reason: wishes[reason])
    extra = min(max(0, wishes[reason]), rules.maximum - len(machines))
    return Decision(target=len(machines) + int(extra), reason=reason if extra else "")


def paid_until(machine: Known, situation: Situation, rules: Rules, level: int) -> float:
    """When an idle machine may go: at the end of what is paid for, and of the patience with it.

    `level` is its rank among those that are here: what the pauses taught of the third counts for
    whichever would leave two behind.
    """
    since = situation.now if machine.idle_since is None else machine.idle_since
    patient = since + _patience(situation, rules, level)
    if not rules.keep_paid or machine.billed_from is None:
        return patient
    return max(patient, machine.billed_from + situation.minimum_s)


# -- who goes ------------------------------------------------------------------------------------------


def _leaving(situation: Situation, rules: Rules) -> tuple[str, ...]:
    """Machines that go now, of those that may."""
    machines = situation.machines
    floor = max(rules.minimum, _for_data(situation, rules.room), int(_any_work(situation.work)))
    count = len(machines) - floor
    if count <= 0:
        return ()
    chosen = [machine for machine in machines if _comes_too_late(machine, situation)]
    chosen = sorted(chosen, key=lambda machine: -machine.ordered)[:count]  # the youngest first
    level = sum(machine.arrived for machine in machines)
    for machine in sorted(machines, key=lambda m: (-m.per_second, m.nbytes)):  # who costs most, holds least
        if len(chosen) == count:
            break
        if _may_go(machine, situation, rules, level) and _has_room(situation, [*chosen, machine], rules):
            chosen.append(machine)
            level -= 1
    return tuple(machine.id for machine in chosen)


def _may_go(machine: Known, situation: Situation, rules: Rules, level: int) -> bool:
    if not machine.arrived or machine.idle_since is None or machine.pinned:
        return False
    return situation.now >= paid_until(machine, situation, rules, level)


def _comes_too_late(machine: Known, situation: Situation) -> bool:
    """Whether a machine does not bill yet, and the work will be over before it comes."""
    age = situation.now - machine.ordered
    if machine.arrived or machine.billed_from is not None or age > situation.unbilled_s:
        return False
    others = [m for m in situation.machines if m is not machine]
    here = [m for m in others if m.arrived]
    if _any_work(situation.work) and not here:
        return False
    left = situation.work.ready_s + situation.work.waiting_s
    ends = _finish(left, [_eta(m, situation) for m in others], situation.threads)
    return ends <= _eta(machine, situation)


def _patience(situation: Situation, rules: Rules, level: int) -> float:
    """How long to wait for an idle machine's next task: at most as long as ordering it again would cost."""
    work = situation.work
    learned = situation.pauses_s[level - 1] if 0 < level <= len(situation.pauses_s) else 0.0
    patience = max(rules.patience_s, learned)
    here = max(1, sum(machine.arrived for machine in situation.machines))
    each = rules.waiting * work.waiting_s / (here * situation.threads)
    if work.waiting > work.ready and each >= _needed(situation, rules):
        return max(patience, situation.boot_s - situation.unbilled_s)
    return patience


def _has_room(situation: Situation, going: Sequence[Known], rules: Rules) -> bool:
    """Whether those that stay and are here have room for what these hold."""
    if not any(machine.nbytes for machine in going):
        return True
    leaving = {machine.id for machine in going}
    staying = [m for m in situation.machines if m.arrived and m.id not in leaving]
    if not staying:
        return False
    if any(m.memory <= 0 for m in staying):
        return True
    total = sum(m.nbytes for m in (*staying, *going))
    return total <= rules.room * sum(m.memory for m in staying)


def _least_useful(machines: Iterable[Known]) -> tuple[str, ...]:
    """Those not here first, the youngest before; then the idle; then who holds the least; pinned last."""

    def use(machine: Known) -> tuple[bool, bool, bool, int, float]:
        return machine.pinned, machine.arrived, machine.idle_since is None, machine.nbytes, -machine.ordered

    return tuple(machine.id for machine in sorted(machines, key=use))


# -- how many come -------------------------------------------------------------------------------------


def _paying(situation: Situation, rules: Rules) -> int:
    """How many more machines the work that is left pays for."""
    machines, threads, boot = situation.machines, situation.threads, situation.boot_s
    if any(machine.arrived and machine.idle_since is not None for machine in machines):
        return 0  # what is left is not for machines like these, or they are about to get it
    work = situation.work
    left = work.ready_s + rules.waiting * work.waiting_s
    etas = [_eta(machine, situation) for machine in machines]
    needed = _needed(situation, rules)
    high = min(_width(situation, rules, etas), rules.maximum - len(machines))
    low = 0
    while low < high:  # the most of which each still has enough to do
        count = math.ceil((low + high) / 2)
        ends = _finish(left, [*etas, *[boot] * count], threads)
        if ends - boot >= needed:
            low = count
        else:
            high = count - 1
    return low


def _needed(situation: Situation, rules: Rules) -> float:
    """Seconds of work that pay for a machine.

    It bills `max(minimum, boot + work)` seconds, of which `share` or more shall be work.
    """
    if rules.target_s is not None:
        return rules.target_s
    boot = max(0.0, situation.boot_s - situation.unbilled_s)
    share = rules.share
    within = share * situation.minimum_s
    return within if within <= situation.minimum_s - boot else share * boot / (1 - share)


def _width(situation: Situation, rules: Rules, etas: Iterable[float]) -> int:
    """How many more machines could find a task to do when they arrive."""
    work, boot = situation.work, situation.boot_s
    if not work.movable:
        return 0
    each = work.ready_s / max(1, work.ready)
    coming = sum(eta > 0 for eta in etas) * situation.threads
    done = situation.threads * sum(max(0.0, boot - eta) for eta in etas) / each if each else math.inf
    left = min(work.movable, work.movable + rules.waiting * work.waiting - done) - coming
    return math.ceil(max(0.0, left) / situation.threads)


def _finish(work_s: float, etas: Sequence[float], threads: int) -> float:
    """When work that can be split at will is done by machines that arrive at these times."""
    each = work_s / threads
    begun = 0.0  # the sum of the arrival times of those that take part
    for count, eta in enumerate(ordered := sorted(etas), 1):
        begun += eta
        end = (each + begun) / count
        if count == len(ordered) or end <= ordered[count]:
            return end
    return math.inf if each else 0.0


def _eta(machine: Known, situation: Situation) -> float:
    """In how many seconds a machine arrives."""
    if machine.arrived:
        return 0.0
    return max(machine.ordered + situation.boot_s - situation.now, LATE * situation.boot_s)


def _for_data(situation: Situation, fill: float) -> int:
    """How many machines have room for the data; one, where the room is not known."""
    data = sum(machine.nbytes for machine in situation.machines)
    rooms = [machine.memory for machine in situation.machines if machine.memory > 0]
    if not data:
        return 0
    return math.ceil(data * len(rooms) / (fill * sum(rooms))) if rooms else 1


def _any_work(work: Work) -> bool:
    return bool(work.ready or work.waiting)


# -- what this cluster's machines have taught ------------------------------------------------------------


class Experience:
    """How long machines take here: the median of the last ones, and before that what the provider says.

    Parameters
    ----------
    boot_s
        Seconds from an order to the arrival, until machines have shown it.
    last
        How many machines are remembered.
    """

    def __init__(self, boot_s: float, last: int = 20) -> None:
        self._default_s = boot_s
        self._ordered: dict[str, float] = {}
        self._boots: deque[float] = deque(maxlen=last)
        self._unbilled: deque[float] = deque(maxlen=last)
        self._busy: list[float] = []
        self._pauses: list[deque[float]] = []

    @property
    def boot_s(self) -> float:
        """Seconds from the order of a machine until Dask sees it."""
        return median(self._boots) if self._boots else self._default_s

    @property
    def unbilled_s(self) -> float:
        """Seconds from the order of a machine until it bills; 0 while that is not known."""
        return median(self._unbilled) if self._unbilled else 0.0

    @property
    def pauses_s(self) -> tuple[float, ...]:
        """For the first machine, the second, ...: the patience that would have cost least in its last pauses.

        A pause costs its seconds while the machine waits, and a boot when it did not wait long enough.
        """
        return tuple(_best_patience(pauses, AGAIN * self.boot_s) for pauses in self._pauses)

    def busy(self, count: int, when: float) -> None:
        """So many machines are at work now; times are of one clock that never goes back."""
        while len(self._busy) < count:
            self._busy.append(when)
            self._pauses.append(deque(maxlen=PAUSES))
        for level in range(count):
            if (pause := when - self._busy[level]) > SHORT_S:
                self._pauses[level].append(pause)
            self._busy[level] = when

    def ordered(self, id: str, when: float) -> None:
        """A machine was ordered."""
        self._ordered[id] = when

    def arrived(self, id: str, when: float) -> None:
        """Dask saw a machine; one whose order was not seen teaches nothing, nor does a clock that jumped."""
        began = self._ordered.pop(id, None)
        if began is not None and 0 <= when - began <= LONGEST_BOOT_S:
            self._boots.append(when - began)

    def gone(self, id: str) -> None:
        """A machine is gone, whether it had arrived or not."""
        self._ordered.pop(id, None)

    def billed(self, after_s: float) -> None:
        """A machine billed from so many seconds after its order."""
        if 0 <= after_s <= LONGEST_BOOT_S:
            self._unbilled.append(after_s)


def _best_patience(pauses: Collection[float], again_s: float) -> float:
    """How long waiting would have cost least, if the pauses to come are as the last were, or endless."""
    endless = 1  # what has been seen twice is believed, what has been seen once is not

    def cost(patience: float) -> float:
        waited = sum(pause if pause <= patience else patience + again_s for pause in pauses)
        return waited + endless * patience

    return min((0.0, *(pause + SHORT_S for pause in pauses if pause < again_s)), key=cost)
