"""The Dask process of a scheduler's machine: distributed's own Scheduler, with leases.

Operations that it adds to the Scheduler's, for managers and machines (`await scheduler_comm.<op>()`):

`cloud_renew(manager=..., who=..., budget=..., wish=..., standby=...)`
    A manager is there: renews the lease as a connected client does, and leads if nobody else does. Who leads
    says for how long the budget pays for the machines there are, `{"usd", "spent", "per_s", "left_s"}`, and how
    many there should be, `{"target": n}` or `{"minimum": a, "maximum": b}`, in Dask workers. A manager that stands
    by (it runs on this machine) renews no lease, and leads only while nobody else does. Returns `cloud_status()`.
`cloud_status()`
    Leases, clients, ended workers, versions, in `lead` which manager decides, in `wish` how many workers it
    wants, in `standby_s` how long ago the one on this machine was heard, in `leaving` the machines with a notice,
    and in `work` what is left to do and on whom, as JSON.
`cloud_end(reason=...)`
    End the cluster: workers first, then the scheduler. Returns at once.
`cloud_forget(name=...)`
    The cloud says that this machine is gone: its tasks are computed again without waiting for a time-out.
`cloud_futures()`
    How many results go with the clients that are connected, because nothing else wants them.
`cloud_hear(machine=...)`
    A worker's machine asks for a sign of life, and which workers of its own are known.
`cloud_leave(machine=..., reason=..., logs=...)`
    A worker's machine says why it ends, and what Dask said last on it.
`cloud_tell(view=..., program=...)`
    A manager tells what it knows, for the page *Cloud* of the dashboard; see `cloudruntime.page`, which may have to
    come along as `program`. Returns whether the page is there.
`cloud_leaving(machine=..., reason=..., within_s=...)`
    A worker's machine has a notice: it is emptied and gets no more tasks, and managers hear of it at once.
    Returns what became of it when it is empty, or its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
import types
from collections import deque
from typing import TYPE_CHECKING, Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import WorkerStatusPlugin

from cloudruntime import versions
from cloudruntime.channel import Channel
from cloudruntime.exits import Exit
from cloudruntime.leaving import Leavers, machine_of, tell
from cloudruntime.tls import security
from cloudruntime.watchdog import Facts
from cloudruntime.work import work

if TYPE_CHECKING:
    import socket

    from cloudruntime.child import Site

__all__ = ["serve"]

logger = logging.getLogger("distributed.scheduler")

REPORT_S = 1.0
#: How long workers get to close by themselves, and then by their nannies.
CLOSE_S, KILL_S = 2.0, 8.0
#: How long the scheduler may then take to close, whatever its pages and plugins do.
SHUT_S = 10.0
#: A manager that has not been heard for this long leads no more.
LEAD_S = 60.0


@dataclasses.dataclass(frozen=True)
class Lead:
    """The manager that decides; others only look."""

    manager: str
    who: str
    said: float
    comm: Any
    standby: bool = False
    #: Counts who has led.
    term: int = 1

    @property
    def over(self) -> bool:
        """Whether another may lead."""
        return self.comm.closed() or time.monotonic() - self.said > LEAD_S

    def record(self) -> dict[str, Any]:
        """What managers want to know of it, as JSON."""
        said_s = time.monotonic() - self.said
        facts = {"manager": self.manager, "who": self.who, "term": self.term, "standby": self.standby}
        return {**facts, "said_s": said_s}


class Idleness:
    """How long there has been nothing to do, whatever happens to the time of day, by which distributed goes."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._begun = 0.0

    def seconds(self, since: float | None) -> float:
        """Seconds since distributed first said that there is nothing to do since then; None is that there is."""
        now = time.monotonic()
        if since is None or since != self._since:
            self._since, self._begun = since, now
        return now - self._begun


class Leases(SchedulerPlugin):  # type: ignore[misc]
    """Answers for the cluster's lease, and ends its workers before the scheduler."""

    name = "dask-cloud-leases"

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reason = Exit.asked.name
        self.renewed: float | None = None
        self.lead: Lead | None = None
        self.budget: tuple[dict[str, float], float] | None = None  # and when it was said
        self.wish: dict[str, Any] | None = None
        self.stood_by: float | None = None
        self.left: deque[dict[str, Any]] = deque(maxlen=1000)
        self.words: deque[tuple[str, str]] = deque(maxlen=50)
        self.page: Any = None
        self.started = time.time()
        self.idleness = Idleness()
        self.over = asyncio.Event()

    async def start(self, scheduler: Scheduler) -> None:
        """Add the cloud's operations to the scheduler's."""
        self.scheduler = scheduler
        self.leavers = Leavers(scheduler)
        scheduler.services["front"] = _Elsewhere(self.site.front_port)
        scheduler.handlers.update(
            cloud_end=self.cloud_end,
            cloud_forget=self.cloud_forget,
            cloud_futures=self.cloud_futures,
            cloud_hear=self.cloud_hear,
            cloud_leave=self.cloud_leave,
            cloud_leaving=self.cloud_leaving,
            cloud_renew=self.cloud_renew,
            cloud_status=self.cloud_status,
            subscribe_worker_status=self.subscribe_worker_status,
            cloud_tell=self.cloud_tell,
        )
        self._show()

    async def before_close(self) -> None:
        """End the workers while the scheduler still answers; nannies end what does not end itself."""
        scheduler = self.scheduler
        self.leavers.stop()
        asyncio.get_running_loop().call_later(CLOSE_S + KILL_S + SHUT_S, self.over.set)
        for address in list(scheduler.workers):
            scheduler.worker_send(address, {"op": "close", "reason": f"cloud-end {self.reason}"})
        await self._no_workers(CLOSE_S)
        if scheduler.workers:
            told = scheduler.broadcast(
                msg={"op": "cloud_end", "reason": self.reason}, nanny=True, on_error="ignore"
            )
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(told, KILL_S / 2)
            await self._no_workers(KILL_S / 2)

    async def cloud_end(self, reason: str = Exit.asked.name) -> str:
        """End the cluster."""
        self.reason = reason
        asyncio.get_running_loop().call_later(0.05, self._end)  # after the answer has left
        return "OK"

    async def cloud_forget(self, name: str) -> list[str]:
        """Remove the workers of a machine that is gone; return their addresses."""
        gone = [ws.address for ws in self._workers(name)]
        for address in gone:
            await self.scheduler.remove_worker(
                address, stimulus_id=f"cloud-forget-{time.time()}", expected=True, close=False
            )
        return gone

    async def cloud_futures(self) -> int:
        """How many results nothing but connected people's clients want."""
        known = self.scheduler.clients  # a client that goes leaves here before its connection does
        people = {known[client] for client in self.clients() if client in known}
        wanted = {task for client in people for task in client.wants_what}
        return sum(task.who_wants <= people for task in wanted)

    async def cloud_hear(self, machine: str) -> dict[str, Any]:
        """What this scheduler knows of a worker's machine."""
        return {"workers": {str(ws.name): ws.services.get("dashboard") for ws in self._workers(machine)}}

    async def cloud_leave(self, machine: str, reason: str, logs: str = "") -> str:
        """Note why a worker's machine ends, and its last words; the log keeps it when this scheduler is gone."""
        logger.info("Machine %s left: %s", machine, reason)
        self.left.append({"machine": machine, "reason": reason, "time": time.time()})
        self.words.append((machine, logs))
        return "OK"

    async def cloud_leaving(self, machine: str, reason: str, within_s: float) -> dict[str, Any]:
        """Empty a worker's machine that will die, or is to; return what became of it."""
        leaver = self.leavers.notice(machine, reason, within_s)
        await leaver.over.wait()
        return leaver.record()

    async def cloud_renew(
        self,
        comm: Any,
        *,
        manager: str = "",
        who: str = "",
        budget: dict[str, float] | None = None,
        wish: dict[str, Any] | None = None,
        standby: bool = False,
    ) -> dict[str, Any]:
        """Renew the lease as a connected client does, and the lead if it is free or this manager's."""
        now, before = time.monotonic(), self.lead
        if standby:
            self.stood_by = now
        else:
            self.renewed = now
        if manager and self._may_lead(manager, standby=standby):
            leads = before is not None and before.manager == manager
            term = before.term + (not leads) if before else 1
            self.lead = Lead(manager, who, now, comm, standby, term)
            if not leads:
                tell(self.scheduler, lead=self.lead.record())
            # Whoever has just taken the lead goes on with what was said before.
            if budget and (leads or self.budget is None):
                self.budget = budget, now
            if wish and (leads or self.wish is None):
                self.wish = wish
        return await self.cloud_status()

    def _may_lead(self, manager: str, *, standby: bool) -> bool:
        lead = self.lead
        if lead is None:  # who made the cluster may still be on its way
            return not standby or time.time() - self.started > LEAD_S
        return lead.manager == manager or lead.over or (lead.standby and not standby)

    async def cloud_status(self) -> dict[str, Any]:
        """What a manager, or a person, wants to know of the lease."""
        return {
            "cluster": self.site.boot.cluster,
            "machine": self.site.identity.id,
            "started": self.started,
            "leases": dataclasses.asdict(self.site.boot.leases),
            **dataclasses.asdict(self.facts()),
            "clients": self.clients(),
            "lead": None if self.lead is None or self.lead.over else self.lead.record(),
            "budget": self.paying(),
            "wish": self.wish,
            "standby_s": None if self.stood_by is None else time.monotonic() - self.stood_by,
            "left": list(self.left),
            "leaving": self.leavers.records(),
            "work": work(self.scheduler),
            "versions": versions.installed(self.site.boot.versions),
        }

    async def cloud_tell(self, view: dict[str, Any], program: str = "") -> bool:
        """Show what a manager knows; return whether there is a page for it."""
        if self.page is None and program:
            self._show(program)
        if self.page is not None:
            self.page.tell(view)
        return self.page is not None

    def _show(self, program: str = "") -> None:
        """Have the page, which no boot brings; whatever is wrong with it, the scheduler goes on without."""
        try:
            if program:
                module = types.ModuleType("cloudruntime.page")
                exec(program, module.__dict__)  # noqa: S102  (a client's, which may run anything here)
            else:
                from cloudruntime import page as module
            self.page = module.Page(self)
        except Exception as error:  # noqa: BLE001
            logger.info("No page of the cloud: %s", error)

    def subscribe_worker_status(self, comm: Any) -> dict[str, Any]:
        """Let one more manager hear of workers: distributed's own would let the last one hear alone."""
        known, plugins = self.scheduler.subscribe_worker_status(comm), self.scheduler.plugins
        plugin = plugins.pop(WorkerStatusPlugin.name)
        plugin.name = f"{WorkerStatusPlugin.name}-{id(plugin)}"
        plugins[plugin.name] = plugin
        return known  # type: ignore[no-any-return]

    def clients(self) -> list[str]:
        """Connected clients that are people's: not workers', not the scheduler's own bookkeeping."""
        return [client for client in self.scheduler.client_comms if not client.startswith("Client-worker-")]

    def facts(self) -> Facts:
        """What the supervisor decides by."""
        scheduler = self.scheduler
        return Facts(
            clients=len(self.clients()),
            working=bool(
                scheduler.queued
                or scheduler.unrunnable
                or any(ws.processing for ws in scheduler.workers.values())
            ),
            idle_s=self.idleness.seconds(scheduler.check_idle()),
            renewed_s=None if self.renewed is None else time.monotonic() - self.renewed,
            budget_s=budget["left_s"] if (budget := self.paying()) else None,
        )

    def paying(self) -> dict[str, float] | None:
        """The budget as it must be by now, if every machine that was ordered still bills; None without one."""
        if self.budget is None:
            return None
        said, when = self.budget
        since = time.monotonic() - when
        spent = said["spent"] + said["per_s"] * since
        return {**said, "spent": spent, "left_s": said["left_s"] - since}

    def pages(self) -> list[int]:
        """Ports of the pages of workers that share this machine's address."""
        here = self.site.identity.address
        return [
            ws.services["dashboard"]
            for ws in self.scheduler.workers.values()
            if ws.host == here and "dashboard" in ws.services
        ]

    def _workers(self, machine: str) -> list[Any]:
        """The workers of a machine."""
        return [ws for ws in self.scheduler.workers.values() if machine_of(ws.name, (machine,)) is not None]

    def _end(self) -> None:
        self.ending = asyncio.ensure_future(self.scheduler.close(reason=f"cloud-end {self.reason}"))

    async def _no_workers(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while self.scheduler.workers and time.monotonic() < deadline:  # noqa: ASYNC110  (no event to wait for)
            await asyncio.sleep(0.05)


class _Elsewhere:
    """A service of this machine that another process runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def stop(self) -> None:
        """Nothing: the supervisor stops it."""


async def serve(site: Site, sock: socket.socket) -> None:
    """Run the scheduler until it is told to end, and tell the supervisor how it goes."""
    channel = await Channel.over(sock)
    leases = Leases(site)
    try:
        scheduler = await _started(site, leases)
    except Exception as error:  # noqa: BLE001  (whatever it is, the last log line says it)
        channel.say(ended=Exit.failed.name, detail=f"the scheduler did not start: {_cause(error)}")
        await channel.close()
        return
    channel.say(started=scheduler.address, dashboard=scheduler.services["dashboard"].port)
    tasks = [asyncio.ensure_future(_report(leases, channel)), asyncio.ensure_future(_obey(leases, channel))]
    ends = [asyncio.ensure_future(end) for end in (scheduler.finished(), leases.over.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, *ends):
        task.cancel()
    channel.say(ended=leases.reason)
    await channel.close()


async def _started(site: Site, leases: Leases) -> Scheduler:
    options = {
        "host": site.identity.address,
        "port": site.port,
        "protocol": site.protocol,
        "security": security(site.keys),
        "dashboard": True,
        "dashboard_address": "127.0.0.1:0",
        "plugins": [leases],
        **site.boot.options,
    }
    return await Scheduler(**options)


async def _report(leases: Leases, channel: Channel) -> None:
    """Say every second what the supervisor decides by."""
    while True:
        channel.say(facts=dataclasses.asdict(leases.facts()), pages=leases.pages())
        await asyncio.sleep(REPORT_S)


async def _obey(leases: Leases, channel: Channel) -> None:
    """Do what the supervisor says; without a supervisor there is no machine."""
    order = await channel.hear()
    leases.reason = order["end"] if order else Exit.failed.name
    await leases.scheduler.close(reason=f"cloud-end {leases.reason}")


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
