"""A `distributed` Cluster whose workers are the machines of a fleet: who is here, how many there should be, who goes."""

from __future__ import annotations

import asyncio
import inspect
import logging
import operator
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from cloudprovider.errors import CloudError, ConfigError, QuotaError
from cloudprovider.events import Phase
from cloudprovider.watching import WatchingCluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from cloudprovider.estate import Estate
    from cloudprovider.fleet import Fleet
    from cloudprovider.notices import Notices
    from cloudprovider.provider import Machine

__all__ = ["ScalingCluster"]

logger = logging.getLogger("cloudprovider")


class ScalingCluster(WatchingCluster):
    """A Cluster that keeps its fleet at its target, and lets nobody go who has not been emptied."""

    estate: Estate
    notices: Notices
    _ended: CloudError | None
    _calls: set[asyncio.Future[Any]]
    _arrivals: frozenset[str]
    _reconciling: asyncio.Lock | None
    _wake: asyncio.Event | None

    # -- one pass of the fleet -----------------------------------------------------------------------------

    async def _reconcile(self) -> CloudError | None:
        """One pass of the fleet; returns why it got fewer machines than are missing."""
        if self._ended or self.status in (Status.closing, Status.closed):
            return self._ended
        async with self._lock:
            gone = set(self.fleet.ended)
            refusal: CloudError | None = await self._call(
                self.estate.reconcile, self._arrived(), dict(self.notices.leaving)
            )
            lost = set(self.fleet.ended) - gone
            await self._forget(lost)
            return refusal

    async def _forget(self, lost: Collection[str]) -> None:
        """Tell the scheduler at once which workers the cloud says are gone."""
        for machine in self._arrived().intersection(lost):
            with suppress(OSError):
                await self.scheduler_comm.cloud_forget(name=machine)

    async def _take_the_lead(self) -> None:
        """Return when this manager decides; raise when another one does."""

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the provider in a thread; closing waits for the calls that are under way."""
        call = asyncio.ensure_future(asyncio.to_thread(function, *args))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    # -- who is here ---------------------------------------------------------------------------------------

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":  # the scheduler says on the same line which machines have a notice
            self.notices.hear(msg.pop("leaving", {}))
        super()._update_worker_status(op, msg)
        self._note_arrivals()
        if self._wake is not None:
            self._wake.set()

    def _note_arrivals(self) -> None:
        arrived, machines = self._arrived(), self.fleet.machines
        known, self._arrivals = self._arrivals, frozenset(arrived)
        wanted, there = self.fleet.target, len((arrived & known) - self.fleet.leaving.keys())
        for count, id in enumerate(sorted(arrived - known), there + 1):
            message = f"{count} of {wanted} machines are here."
            facts = {"market": machines[id].market, "zone": machines[id].zone} if id in machines else {}
            self.events.emit(Phase.arrived, message, machine=id, count=count, total=wanted, **facts)

    def _arrived(self) -> set[str]:
        return {self._machine_of(name) for name in self.observed}

    def _machine_of(self, worker: str) -> str:
        """The machine of a Dask worker: its name, or what is before its last `-<k>`."""
        name = str(worker)
        return name if name in self.fleet.machines else name.rpartition("-")[0] or name

    # -- scaling: what Adaptive, the widget and the user call ----------------------------------------------

    def scale(self, n: int) -> Awaitable[None] | None:
        """Order or return machines until there are `n` workers.

        Parameters
        ----------
        n
            Dask workers. With several a machine, machines are ordered and returned whole.

        Raises
        ------
        CloudError
            When another manager of the cluster leads: the message says who. When the cloud refuses some or all
            of the order; what it did start is kept. Called synchronously, this returns when the cloud has
            accepted or refused. An order that is above the
            account's quota is cut to it, which a `CloudWarning` says before, and refused when not one machine
            would fit.
        """
        if not isinstance(n, int) or n < 0:
            raise ConfigError(f"scale({n!r}): the number of workers must be a whole number, 0 or more.")
        if self.status in (Status.closing, Status.closed):
            raise CloudError(f"{self._where} is {self.status.name} and cannot scale.")
        scaled: Awaitable[None] | None = self.sync(self._scale, n)
        return asyncio.ensure_future(scaled) if inspect.iscoroutine(scaled) else scaled

    async def _scale(self, n: int) -> None:
        if self._ended:
            raise self._ended
        await self._take_the_lead()
        fleet, wanted = self.fleet, self.estate.machines_for(n)
        if wanted > (there := len(fleet.staying)):
            wanted = max(there, await self._call(self.estate.check_quota, wanted))
        fleet.ask(wanted)
        if fleet.missing < 0:
            await self._return_surplus()
        elif refusal := await self._reconcile():
            raise refusal

    async def _return_surplus(self) -> None:
        if (surplus := -self.fleet.missing) > 0:
            await self._release(await self._least_useful(surplus))

    def adapt(self, Adaptive: Any = None, **options: Any) -> Any:  # noqa: N803  (distributed's own name)
        """Scale by the work there is, and by what machines cost here.

        Parameters
        ----------
        Adaptive
            A class of your own in place of `cloudprovider.adapt.CloudAdaptive`.
        **options
            Of that class: `minimum`, `maximum`, `interval`, `wait_count`, `target_duration`, `keep_paid`.

        Raises
        ------
        CloudError
            When another manager of the cluster leads: the message says who.
        ConfigError
            For a wrong option, before anything scales.
        QuotaError
            When the account's quota has no room for a single machine. A maximum above it is a `CloudWarning`.
        """
        from cloudprovider.adapt import CloudAdaptive

        if not self.asynchronous:
            self.sync(self._take_the_lead)  # else its first turn says who leads
        chosen = Adaptive or CloudAdaptive
        # Dask keeps options from call to call; another class has others, and wrong ones are not kept.
        before = dict(self._adaptive_options) if isinstance(self._adaptive, chosen) else {}
        self._adaptive_options: dict[str, Any] = dict(before)
        try:
            adaptive = super().adapt(Adaptive=chosen, **options)
        except ConfigError:
            self._adaptive_options = before
            raise
        if isinstance(adaptive, CloudAdaptive) and not self.asynchronous:
            try:
                self.sync(adaptive.check_quota)  # else its first turn does
            except QuotaError:
                adaptive.stop()
                raise
        return adaptive

    async def scale_down(self, workers: Collection[str]) -> None:
        """Return the machines of these workers, drained first; names that are not ours are left alone.

        Parameters
        ----------
        workers
            Names of Dask workers.
        """
        await self._take_the_lead()
        fleet, staying = self.fleet, self.fleet.staying
        machines = {self._machine_of(name) for name in workers} & staying.keys()
        fleet.ask(max(0, min(fleet.target, len(staying)) - len(machines)))
        await self._release(machines)

    async def _least_useful(self, count: int) -> list[str]:
        """Machines that have not arrived first, then those Dask calls idle and that hold the least."""
        fleet = self.fleet  # those that have a notice go anyway
        victims = fleet.not_arrived()[:count]
        if len(victims) < count:
            per_machine = self.estate.workers_per_machine
            # Several workers a machine close together: they share its address.
            key = pickle.dumps(operator.attrgetter("host")) if per_machine > 1 else None
            # Dask may name a machine that arrived a moment ago, and that we chose as one that had not.
            names = await self.scheduler_comm.workers_to_close(
                n=(count + len(fleet.leaving)) * per_machine, key=key, attribute="name"
            )
            chosen = dict.fromkeys(self._machine_of(name) for name in names)
            others = [m for m in chosen if m in fleet.staying and m not in victims]
            victims += others[: count - len(victims)]
        rest = [m for m in fleet.staying if m not in victims]
        return (victims + rest)[:count]

    async def _release(self, machines: Collection[str]) -> None:
        """Drain, then delete; a machine whose data has nowhere to go is kept."""
        async with self._lock:
            safe = await self._drain(set(machines))
            await self._call(self.fleet.release, safe)
        if kept := set(machines) & set(self.fleet.machines):
            self.fleet.target = max(self.fleet.target, len(self.fleet.staying))
            self.events.emit(
                Phase.kept,
                f"Kept {len(kept)} of {len(machines)} machines: they hold the last copy of data that has "
                "nowhere else to go. Release the futures, or call close() to end it all.",
                ids=sorted(kept),
            )
            logger.warning("%s", self.events.of(Phase.kept)[-1].message)

    async def _drain(self, machines: set[str]) -> set[str]:
        """Move the data of these machines' workers elsewhere; returns the machines that are free to go."""
        names = [name for name in self.observed if self._machine_of(name) in machines]
        if names:
            await self.scheduler_comm.retire_workers(names=names, remove=True, close_workers=True)
            present = (await self.scheduler_comm.identity())["workers"].values()
            kept = {self._machine_of(w["name"]) for w in present}
            machines = machines - kept
            self.events.emit(Phase.drained, f"Drained {len(machines)} machines.", ids=sorted(machines))
        return machines

    def _names(self, machine: str) -> list[str]:
        if self.estate.workers_per_machine == 1:
            return [machine]
        return [f"{machine}-{k}" for k in range(self.estate.workers_per_machine)]

    @property
    def workers(self) -> dict[str, Machine]:
        """Machine by Dask worker name, of all that are ordered and not gone."""
        live = self.estate.machines.items()
        return {name: machine for id, machine in live for name in self._names(id)}

    @property
    def requested(self) -> set[str]:
        """Names of the workers that the cloud has accepted."""
        return set(self.workers)

    @property
    def plan(self) -> set[str]:
        """Names of the workers there should be; those not ordered yet have names of their own."""
        staying = self.fleet.staying if self.estate.machines else {}
        planned = [f"planned-{k}" for k in range(self.estate.missing)]
        return {name for machine in [*staying, *planned] for name in self._names(machine)}

    @property
    def fleet(self) -> Fleet:
        """Its workers' machines."""
        return self.estate.fleet

    @property
    def _where(self) -> str:
        return self.estate.where

    @property
    def _lock(self) -> asyncio.Lock:
        if self._reconciling is None:
            raise CloudError(f"{self._where} has not started.")
        return self._reconciling

    @property
    def _waker(self) -> asyncio.Event:
        if self._wake is None:
            raise CloudError(f"{self._where} has not started.")
        return self._wake
