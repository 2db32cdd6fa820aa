"""The first process of a machine: it outlives Dask, so that it can say why Dask ended.

It imports neither Dask nor user code: nothing that holds the interpreter lock holds this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from cloudruntime import child
from cloudruntime.channel import Channel
from cloudruntime.exits import Ended, Exit
from cloudruntime.front import Front
from cloudruntime.watchdog import Facts, SchedulerLife, WorkerLife

if TYPE_CHECKING:
    import socket

    from cloudruntime.child import Child, Site
    from cloudruntime.jupyter import Jupyter
    from cloudruntime.notices import Notice

__all__ = ["Supervisor", "renew", "say", "supervise"]

TICK_S = 0.25
#: How long Dask may take to end, drain apart, before it is killed.
END_S = 30.0
#: Seconds that the cloud gives a machine between SIGTERM and SIGKILL.
STOP = "DASK_CLOUD_STOP_S"
STOP_S = 120.0
#: What of them the machine uses, so that it can still say why it ended.
LAST_WORD = 0.9
#: What of them is left for the end after the drain.
MARGIN_S = 20.0
#: File that the machine's own timer looks at: it ends the machine when nobody has touched it for long.
LEASE = "DASK_CLOUD_LEASE"
RENEW_S = 5.0


def say(message: str) -> None:
    """A line in the machine's log."""
    sys.stderr.write(f"dask-cloud-runtime: {message}\n")
    sys.stderr.flush()


def renew(lease: str) -> None:
    """Let the machine live on; nothing where it has no timer."""
    if lease:
        try:
            os.utime(lease)
        except OSError as error:
            say(f"the lease cannot be renewed: {error}")


class Supervisor:
    """Watches one Dask process.

    Parameters
    ----------
    site
        What the machine is.
    dask
        Its Dask process, just started.
    door
        Where its TLS front listens; None when it has none.
    """

    def __init__(self, site: Site, dask: Child, door: socket.socket | None) -> None:
        now = time.monotonic()
        leases = site.boot.leases
        self.site = site
        self.dask = dask
        self.door = door
        self.life: SchedulerLife | WorkerLife = (
            SchedulerLife.begun(leases, now)
            if site.boot.role == "scheduler"
            else WorkerLife(leases=leases, answered=now)
        )
        self.pages: dict[str, int] = {}
        self.ended: Ended | None = None
        self._cause: Ended | None = None
        self._deadline = float("inf")
        self._renewed = float("-inf")
        self._stop_s = float(os.environ.get(STOP) or STOP_S) * LAST_WORD
        self._wake = asyncio.Event()
        self._jupyter: Jupyter | None = None
        self._side: list[asyncio.Future[None]] = []

    async def watch(self) -> Ended:
        """Wait for the end of Dask, or bring it about; return why."""
        self.channel = await Channel.over(self.dask.sock)
        self._listen_to_the_cloud()
        if self.site.boot.role == "worker":  # a scheduler is never on a market that takes it back
            from cloudruntime import notices

            self._side.append(asyncio.ensure_future(notices.watch(os.environ, self._heed)))
        front = await self._open_front()
        hearing = asyncio.ensure_future(self._hear())
        while (code := self.dask.poll()) is None:
            self._tick(time.monotonic(), time.time())
            self._wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_S)
            _reap({self.dask.pid, self._jupyter.pid if self._jupyter else None})
        await asyncio.wait({hearing}, timeout=1)
        for task in (hearing, *self._side):
            task.cancel()
            await asyncio.wait({task})
        if front is not None:
            front.close()
        return self._verdict(code)

    async def _open_front(self) -> asyncio.Server | None:
        """Open the door to this machine's pages; there is none without keys."""
        if self.door is None or self.site.keys is None:
            return None
        front = Front(
            self.site.keys,
            self.door,
            here=self.site.identity.address,
            pages=lambda: self.pages,
            hops=self.site.boot.role == "scheduler",
        )
        return await front.open()

    def _listen_to_the_cloud(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows has no such thing
                loop.add_signal_handler(signum, self._interrupted, signum)
        if hasattr(signal, "SIGCHLD"):
            loop.add_signal_handler(signal.SIGCHLD, self._wake.set)

    def _interrupted(self, signum: int) -> None:
        """The cloud, or a person, wants this machine to stop."""
        cause = Ended(Exit.interrupted, signal.Signals(signum).name)
        if self.site.boot.role == "worker":
            self._leave(cause, self._stop_s)
        elif self._cause is None and self.ended is None:
            say(f"{cause.detail}: ending the cluster")
            self._order(cause, min(self._stop_s, END_S))

    def _heed(self, notice: Notice) -> None:
        """The cloud will take this machine, or may: an end is never so near that nothing can be saved."""
        self._leave(Ended(Exit.interrupted, notice.words), max(notice.left_s * LAST_WORD, 1.0))

    def _leave(self, cause: Ended, within_s: float) -> None:
        """Empty this worker's machine, then end it; of several reasons the one that leaves the least time counts."""
        if self.ended is not None or time.monotonic() + within_s >= self._deadline:
            return
        say(f"{cause.detail}: draining")
        self._order(cause, within_s, drain=max(within_s - MARGIN_S, within_s / 2), reason=cause.detail)

    def _order(self, cause: Ended, within_s: float, **how: Any) -> None:
        """Have Dask end itself; after the deadline it is killed."""
        self._cause = cause
        self._deadline = time.monotonic() + within_s
        self.channel.say(end=cause.exit.name, **how)

    def _tick(self, now: float, epoch: float) -> None:
        if now >= self._deadline:
            say("Dask does not end by itself: killing it")
            self.dask.kill()
            self._deadline, self._renewed = float("inf"), float("inf")
        elif self._cause is None and (due := self.life.due(now, epoch)) is not None:
            self._order(Ended(due), min(self._stop_s, END_S))
        if now - self._renewed >= RENEW_S:
            self._renewed = now
            renew(os.environ.get(LEASE, ""))

    async def _hear(self) -> None:
        """Take in what the Dask process says."""
        while (message := await self.channel.hear()) is not None:
            now = time.monotonic()
            if "facts" in message and isinstance(self.life, SchedulerLife):
                self.life = self.life.heard(Facts(**message["facts"]), now)
            if "answered" in message and isinstance(self.life, WorkerLife):
                self.life = self.life.heard(now)
            if "pages" in message:
                self._note_pages(message["pages"])
            if "started" in message:
                self._started(message)
            if "ended" in message:
                self.ended = _as_said(message["ended"], message.get("detail", ""))
        self._wake.set()

    def _started(self, message: dict[str, Any]) -> None:
        say(f"{self.site.boot.role} {self.site.identity.id} at {message['started']}")
        if "dashboard" in message:
            self.pages["dashboard"] = message["dashboard"]
        if self.site.boot.jupyter and self.site.keys is not None and self._jupyter is None:
            from cloudruntime.jupyter import Jupyter

            self._jupyter = Jupyter(self.site, self.site.keys, self.pages, say)
            self._side.append(asyncio.ensure_future(self._jupyter.run(message["started"])))

    def _note_pages(self, ports: list[int]) -> None:
        """Workers' pages, by their ports; on a worker's machine the first is also the dashboard."""
        for name in [name for name in self.pages if name.startswith("port-")]:
            del self.pages[name]
        self.pages.update({f"port-{port}": port for port in ports})
        if self.site.boot.role == "worker" and ports:
            self.pages["dashboard"] = ports[0]

    def _verdict(self, code: int) -> Ended:
        """Why Dask ended: as we told it to, as it says itself, or as its exit code tells."""
        if self._cause is not None:
            said = self.ended.detail if self.ended else ""
            return Ended(self._cause.exit, ", ".join(filter(None, [self._cause.detail, said])))
        if self.ended is not None:
            return self.ended
        if code < 0:
            hint = ": out of memory?" if -code == getattr(signal, "SIGKILL", 9) else ""
            return Ended(Exit.failed, f"the Dask process was killed by signal {-code}{hint}")
        return Ended(Exit.failed, f"the Dask process ended with code {code}; its error is above")


def _as_said(reason: str, detail: str) -> Ended:
    """The end that the Dask process names; a manager may give a reason in words of its own."""
    if reason in Exit.__members__:
        return Ended(Exit[reason], detail)
    return Ended(Exit.asked, ", ".join(filter(None, [reason, detail])))


def supervise(site: Site, door: socket.socket | None = None) -> Ended:
    """Run this machine until it ends; return why."""
    dask = child.start(
        site, door, fork=child.CAN_FORK
    )  # before there is an event loop that a fork would inherit

    async def watch() -> Ended:
        return await Supervisor(site, dask, door).watch()

    try:
        return asyncio.run(watch())
    finally:
        dask.kill()


def _reap(mine: set[int | None]) -> None:
    """The first process of a container inherits its orphans, and must bury them."""
    if not hasattr(os, "waitid"):
        return
    with contextlib.suppress(ChildProcessError):
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid in mine:
                return  # who started it wants to know its exit code
            os.waitpid(dead.si_pid, 0)
