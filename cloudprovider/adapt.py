"""Adaptive scaling of a real cluster: gathers what the policy decides by, and does what it decides.

The decisions are `cloudprovider.adaptive`'s; here is what they need of Dask, the fleet and the clock.
"""
# ruff: noqa: SLF001  (the cluster's own other half: it reads the cluster's names and wakes its loop)

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed.deploy.adaptive import Adaptive

from cloudprovider.adaptive import Decision, Experience, Known, Rules, Situation, Work, decide
from cloudprovider.config import seconds
from cloudprovider.errors import CloudError, ConfigError
from cloudprovider.events import Event, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudprovider.bill import Rate
    from cloudprovider.cluster import CloudCluster
    from cloudprovider.provider import Machine

__all__ = ["CloudAdaptive"]

logger = logging.getLogger("cloudprovider")

#: Seconds between two questions to the cloud since when machines bill.
ASK_S = 5.0
#: Seconds before a machine is asked to go again that could not, because of what it holds.
KEPT_S = 60.0


@dataclass
class _Track:
    """What is remembered of one machine, on a clock that never goes back."""

    ordered: float
    arrived: float | None = None
    billed_from: float | None = None
    idle_since: float | None = None
    kept_until: float = field(default=-math.inf)


class CloudAdaptive(Adaptive):  # type: ignore[misc]  # distributed is untyped
    """Scales a cluster by its work, its machines' boot times and their prices; `cluster.adapt()` makes it.

    Parameters
    ----------
    cluster
        A `CloudCluster`.
    interval
        Time between two decisions; default: Dask's `distributed.adaptive.interval`.
    minimum, maximum
        Workers there are at least and at most. Defaults: Dask's `distributed.adaptive.minimum` and
        `.maximum`. With several workers a machine, machines come and go whole within these bounds.
    wait_count
        An idle machine goes after this many intervals without work, and not before the end of what is
        paid for. Default: after 5 seconds, or longer where the last pauses were short.
    target_duration
        A machine is ordered when it would still find this much time's work on its arrival. Default: when
        at least a part of what it will cost is work, by its boot time and its billing minimum.
    keep_paid
        Whether an idle machine stays until its billing minimum is over (60 seconds on Fargate), for work
        that may come. `False` gives it back early, which saves nothing but frees quota for others.

    Raises
    ------
    ConfigError
        For other keywords, and for a minimum and a maximum that no number of machines can keep.

    Examples
    --------
    >>> cluster.adapt(minimum=0, maximum=100)  # doctest: +SKIP
    """

    def __init__(
        self,
        cluster: CloudCluster,
        interval: Any = None,
        minimum: int | None = None,
        maximum: float | None = None,
        wait_count: int | None = None,
        target_duration: Any = None,
        *,
        keep_paid: bool = True,
        **others: Any,
    ) -> None:
        self._unlisten: Callable[[], None] = _nothing
        self.state = "inactive"
        minimum, maximum = _bounds(minimum, maximum)
        _in_machines(minimum, maximum, cluster.estate.workers_per_machine)
        _refuse_others(others)
        if wait_count is not None and (not isinstance(wait_count, int) or wait_count < 1):
            raise ConfigError(f"wait_count={wait_count!r} must be a whole number, 1 or more.")
        target_s = None if target_duration is None else seconds(target_duration, "target_duration")
        super().__init__(cluster, interval, minimum, maximum, wait_count, target_duration)
        self._patience_s = None if wait_count is None else wait_count * float(self.interval or 0.0)
        self._target_s, self._keep_paid = target_s, keep_paid
        self.rules = self._rules()
        self.experience = Experience(cluster.provider.boot_s)
        self._tracks: dict[str, _Track] = {}
        self._rates: dict[tuple[str, str], Rate] = {}
        self._looked = False
        self._asked = -math.inf
        self._complaint = ""
        self._adapting = False
        self._quota: tuple[float, asyncio.Future[int]] | None = None
        learn = _Learner(self.experience)
        for event in cluster.events:
            learn(event)
        self._unlisten = cluster.events.listen(learn)

    def stop(self, reason: str = "unknown") -> None:
        """Stop adapting; the machines stay."""
        self._unlisten()
        super().stop(reason)

    async def target(self) -> int:
        """How many workers there should be now."""
        decision = decide(await self._situation(), self._rules())
        return decision.target * self._per_machine

    async def adapt(self) -> None:
        """Look, decide, act; an unreachable scheduler or cloud is tried again at the next interval."""
        if self._adapting:
            return
        self._adapting = True
        try:
            await self._adapt()
        except (CloudError, OSError) as error:
            if str(error) != self._complaint:
                logger.warning("Adaptive scaling waits for the next turn: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""
        finally:
            self._adapting = False

    async def check_quota(self) -> None:
        """Say so when the maximum is above the account's quota, once for each maximum, and keep to the quota.

        Raises
        ------
        QuotaError
            When the quota has no room for a single machine.
        """
        most = self._rules().maximum
        if math.isinf(most):
            return
        if self._quota is None or self._quota[0] != most or _failed(self._quota[1]):
            call = self.cluster._call(self.cluster.estate.check_quota, int(most))
            self._quota = most, asyncio.ensure_future(call)
        await asyncio.shield(self._quota[1])

    async def _adapt(self) -> None:
        await self.check_quota()
        self.rules = self._within_quota(self._rules())  # the user may have changed minimum and maximum
        decision = decide(await self._situation(), self.rules)
        await self._act(decision)

    def _within_quota(self, rules: Rules) -> Rules:
        """The rules with no more machines than the account may run; those that run already may stay."""
        if self._quota is None or self._quota[0] != rules.maximum:
            return rules
        most = min(rules.maximum, max(self._quota[1].result(), len(self.cluster.fleet.staying)))
        return dataclasses.replace(rules, minimum=min(rules.minimum, int(most)), maximum=most)

    async def _act(self, decision: Decision) -> None:
        fleet = self.cluster.fleet
        if decision.leave:
            self._note(decision, "down")
            names = [name for id in decision.leave for name in self.cluster._names(id)]
            await self.cluster.scale_down(names)
            for id in fleet.machines.keys() & set(decision.leave):
                self._tracks[id].kept_until = time.monotonic() + KEPT_S
        elif decision.target != fleet.target:
            # Not `scale`: a new wish of the user's ends the fleet's pause after a refusal, ours does not.
            self._note(decision, "up" if decision.target > len(fleet.staying) else "same")
            fleet.target = decision.target
            self.cluster._waker.set()

    def _note(self, decision: Decision, status: str) -> None:
        said = {"status": status, "n": decision.target * self._per_machine, "reason": decision.reason}
        self.log.append((time.time(), said))
        logger.debug("Adaptive scaling: %s", said)

    # -- what there is ---------------------------------------------------------------------------------

    @property
    def _per_machine(self) -> int:
        return int(self.cluster.estate.workers_per_machine)

    def _rules(self) -> Rules:
        least, most = _in_machines(self.minimum, self.maximum, self._per_machine)
        patience = {} if self._patience_s is None else {"patience_s": self._patience_s}
        return Rules(
            minimum=least, maximum=most, target_s=self._target_s, keep_paid=self._keep_paid, **patience
        )

    async def _situation(self) -> Situation:
        status = await self.scheduler.cloud_status()
        said = status.get("work") or await self._guess()
        machines = self.cluster.fleet.staying  # who has a notice is replaced, and does no more
        workers = self._by_machine(said["workers"], machines)
        now = time.monotonic()
        self._track(machines, workers, now)
        await self._ask_since_when(machines)
        busy = sum(any(worker["processing"] for worker in here) for here in workers.values())
        self.experience.busy(busy, now)
        return Situation(
            now=now,
            work=Work(**{key: said[key] for key in ("ready", "ready_s", "movable", "waiting", "waiting_s")}),
            machines=tuple(self._known(m, workers.get(m.id, ()), now) for m in machines.values()),
            threads=self._threads(workers.values()),
            boot_s=self.experience.boot_s,
            unbilled_s=self.experience.unbilled_s,
            minimum_s=self._minimum_s(machines.values()),
            pauses_s=self.experience.pauses_s if self._patience_s is None else (),
        )

    async def _guess(self) -> dict[str, Any]:
        """The same of a scheduler whose image has an older runtime, by distributed's own operations."""
        identity = await self.scheduler.identity()
        workers = {str(w["name"]): _worker(w) for w in identity["workers"].values()}
        each = self._target_s or 15.0
        target = await self.scheduler.adaptive_target(target_duration=each)
        threads = sum(w["nthreads"] for w in workers.values()) / len(workers) if workers else 1
        ready = max(math.ceil(target * threads), sum(w["processing"] for w in workers.values()))
        begun = sum(min(w["processing"], w["nthreads"]) for w in workers.values())
        busy = any(w["processing"] for w in workers.values())
        ready = ready if busy or target > len(workers) else 0
        return {
            "ready": ready,
            "ready_s": ready * each,
            "movable": max(0, ready - begun),
            "waiting": 0,
            "waiting_s": 0.0,
            "workers": workers,
        }

    def _by_machine(
        self, workers: Mapping[str, Mapping[str, Any]], machines: Mapping[str, Machine]
    ) -> dict[str, list[Mapping[str, Any]]]:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for name, worker in workers.items():
            if (machine := self.cluster._machine_of(name)) in machines:
                found.setdefault(machine, []).append(worker)
        return found

    def _track(self, machines: Mapping[str, Machine], workers: Mapping[str, Any], now: float) -> None:
        """Bring what is remembered of machines up to this moment."""
        for id in self._tracks.keys() - machines.keys():
            del self._tracks[id]
        for id, machine in machines.items():
            track = self._tracks.get(id)
            if track is None:
                # What was there before us says its age by the clock; what comes later begins now.
                age = 0.0 if self._looked else max(0.0, self.cluster.provider.now() - machine.created)
                track = self._tracks[id] = _Track(ordered=now - age)
            if track.billed_from is None and machine.billed_from is not None:
                # Both times are the cloud's, so that its clock and ours need not agree.
                after_s = max(0.0, machine.billed_from - machine.created)
                track.billed_from = track.ordered + after_s
                self.experience.billed(after_s)
            here = workers.get(id, ())
            if here and track.arrived is None:
                track.arrived = now
            idle = bool(here) and not any(worker["processing"] for worker in here)
            track.idle_since = (track.idle_since or now) if idle else None
        self._looked = True

    async def _ask_since_when(self, machines: Mapping[str, Machine]) -> None:
        """Have the cloud asked since when idle machines bill that came before it was looked at."""
        now = time.monotonic()
        unknown = any(self._tracks[id].idle_since and m.billed_from is None for id, m in machines.items())
        if unknown and now - self._asked >= ASK_S:
            self._asked = now
            await self.cluster._call(self.cluster.estate.look_at_unbilled)

    def _known(self, machine: Machine, workers: Iterable[Mapping[str, Any]], now: float) -> Known:
        track = self._tracks[machine.id]
        return Known(
            id=machine.id,
            ordered=track.ordered,
            arrived=bool(workers),
            # A machine that is here bills; unless the cloud says since when, count from its arrival.
            billed_from=track.arrived if track.billed_from is None else track.billed_from,
            idle_since=track.idle_since,
            nbytes=sum(worker["nbytes"] for worker in workers),
            memory=sum(worker["memory"] for worker in workers),
            pinned=now < track.kept_until or any(worker["pinned"] for worker in workers),
            per_second=self._rate(machine).per_second,
        )

    def _rate(self, machine: Machine) -> Rate:
        key = machine.kind, machine.market
        if key not in self._rates:
            self._rates[key] = self.cluster.provider.rate(machine)
        return self._rates[key]

    def _minimum_s(self, machines: Iterable[Machine]) -> float:
        """The billing minimum of the machines there are, or of the scheduler's while there are none."""
        some = list(machines) or [self.cluster.scheduler_machine]
        return float(max(self._rate(machine).minimum_s for machine in some))

    def _threads(self, workers: Iterable[Iterable[Mapping[str, Any]]]) -> int:
        """Threads of a machine: of those here, on average, or as they are ordered."""
        counts = [sum(worker["nthreads"] for worker in machine) for machine in workers]
        if counts:
            return int(max(1, round(sum(counts) / len(counts))))
        boot = self.cluster.provider.boot("worker")
        return int(max(1, boot.processes * (boot.nthreads or 1)))


class _Learner:
    """Tells an Experience of a cluster's events."""

    def __init__(self, experience: Experience) -> None:
        self.experience = experience

    def __call__(self, event: Event) -> None:
        if event.phase is Phase.ordered:
            for id in event.facts.get("ids", ()):
                self.experience.ordered(id, event.time)
        elif event.phase is Phase.arrived and event.machine:
            self.experience.arrived(event.machine, event.time)
        elif event.phase is Phase.lost and event.machine:
            self.experience.gone(event.machine)
        elif event.phase is Phase.released:
            for id in event.facts.get("ids", ()):
                self.experience.gone(id)


def _failed(told: asyncio.Future[int]) -> bool:
    return told.done() and (told.cancelled() or told.exception() is not None)


def _bounds(minimum: int | None, maximum: float | None) -> tuple[int, float]:
    import dask.config

    least = dask.config.get("distributed.adaptive.minimum") if minimum is None else minimum
    most = dask.config.get("distributed.adaptive.maximum") if maximum is None else maximum
    most = math.inf if most is None else most
    if not isinstance(least, int) or least < 0:
        raise ConfigError(f"adapt(minimum={least!r}): it must be a whole number, 0 or more.")
    if not (isinstance(most, int) or math.isinf(most)) or most < 0:
        raise ConfigError(f"adapt(maximum={most!r}): it must be a whole number, or math.inf.")
    if least > most:
        raise ConfigError(f"adapt(minimum={least}, maximum={most}): the minimum is above the maximum.")
    return least, most


def _in_machines(minimum: int, maximum: float, per_machine: int) -> tuple[int, float]:
    """The same bounds in whole machines."""
    least = -(-minimum // per_machine)
    most = maximum if math.isinf(maximum) else maximum // per_machine
    if least > most:
        raise ConfigError(
            f"adapt(minimum={minimum}, maximum={maximum}): machines here have {per_machine} workers each, "
            "and no number of them is within these bounds."
        )
    return least, most


def _refuse_others(others: Mapping[str, Any]) -> None:
    if others:
        raise ConfigError(
            f"adapt() has no option {', '.join(map(repr, sorted(others)))}: machines here come and go whole, "
            "by what they cost. Pass Adaptive=distributed.Adaptive for Dask's own way and its options."
        )


def _worker(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler's identity says of a worker, as the runtime would."""
    metrics = said.get("metrics", {})
    counts = metrics.get("task_counts", {})
    processing = sum(counts.get(state, 0) for state in ("executing", "long-running", "ready", "waiting"))
    return {
        "processing": processing,
        "nthreads": said["nthreads"],
        "nbytes": metrics.get("managed_bytes", 0),
        "memory": said.get("memory_limit") or 0,
        "pinned": "long-running" in counts,
    }


def _nothing() -> None:
    """Stop nothing: there is no listener yet."""
