"""The Dask process of a worker's machine: distributed's own Nannies, that wait for their scheduler.

Nannies run no user code, so this process always has time for the lease and for the drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import dask.system
from distributed import Nanny
from distributed.comm import connect
from distributed.core import rpc

from cloudruntime import gpus
from cloudruntime.channel import Channel
from cloudruntime.exits import Exit
from cloudruntime.tls import security

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Sequence

    from cloudruntime.child import Site

__all__ = ["serve"]

logger = logging.getLogger("distributed.nanny")

#: How the scheduler says why it closes a worker.
CLOUD_END = "cloud-end "
#: Why a worker closes when the connection to its scheduler broke: it may try again.
BROKEN = "worker-handle-scheduler-connection-broken"
#: How long one look for the scheduler takes, and how long the pauses between looks become.
LOOK_S, PAUSE_S = 2.0, 1.0
#: How often the scheduler is asked for a sign of life, at most.
BEAT_S = 15.0
#: How long a nanny gives its worker to close before it kills it.
CLOSE_S = 3.0
#: Lines of the log that a machine leaves with its scheduler, and characters of one.
LINES, WIDTH = 30, 300
#: A worker that cannot start although the scheduler answers is tried this often.
STARTS = 3


class MachineNanny(Nanny):  # type: ignore[misc]
    """A Nanny that remembers why it ends, and that the scheduler can end past a busy worker."""

    def __init__(self, *args: Any, machine: Machine, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.why = ""
        self.machine = machine
        self.handlers["cloud_end"] = self.cloud_end

    def close_gracefully(self, reason: str = "nanny-close-gracefully") -> None:
        """The worker closes, and says why."""
        self.why = reason
        super().close_gracefully(reason=reason)
        if reason.startswith(CLOUD_END):
            self.machine.end(reason.removeprefix(CLOUD_END))

    async def cloud_end(self, reason: str) -> str:
        """The scheduler ends the cluster."""
        self.why = CLOUD_END + reason
        self.machine.end(reason)
        return "OK"


class Machine:
    """The workers of one machine.

    Parameters
    ----------
    site
        What the supervisor knows.
    channel
        The line to the supervisor.
    """

    def __init__(self, site: Site, channel: Channel) -> None:
        self.site = site
        self.channel = channel
        self.security = security(site.keys)
        self.nannies: dict[str, MachineNanny] = {}
        self.reason = ""
        self.detail = ""
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._answered = False
        self._args = self.security.get_connection_args("worker")
        self._scheduler = rpc(site.boot.scheduler, connection_args=self._args)

    @property
    def names(self) -> list[str]:
        """What the workers of this machine are called."""
        id, count = self.site.identity.id, self.site.boot.processes
        return [id] if count == 1 else [f"{id}-{k}" for k in range(count)]

    def end(self, reason: str, detail: str = "") -> None:
        """Stop all that runs here; the first reason counts."""
        if not self._ended.is_set():
            self.reason, self.detail = reason, detail
            self._ended.set()

    async def run(self) -> None:
        """Keep the workers up until something ends this machine, then say what."""
        keepers = [asyncio.ensure_future(self._keep(name)) for name in self.names]
        others = [asyncio.ensure_future(task) for task in (self._beat(), self._obey())]
        all_done = asyncio.ensure_future(asyncio.wait(keepers))
        ended = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait({all_done, ended}, return_when=asyncio.FIRST_COMPLETED)
        if all_done.done():
            self._judge(keepers)
        for task in (*keepers, *others, all_done, ended):
            task.cancel()
        closing = [
            asyncio.ensure_future(nanny.close(timeout=CLOSE_S, reason=self.reason))
            for nanny in self.nannies.values()
        ]
        if closing:
            await asyncio.wait(closing, timeout=4 * CLOSE_S)
        told = any(nanny.why.startswith(CLOUD_END) for nanny in self.nannies.values())
        if self._answered and not told:
            leaving = self._scheduler.cloud_leave(
                machine=self.site.identity.id, reason=self.reason, logs=self._last_words()
            )
            await self._ask(leaving, LOOK_S)
        await self._scheduler.close_rpc()
        self.channel.say(ended=self.reason, detail=self.detail)
        await self.channel.close()

    def _last_words(self) -> str:
        """What the nannies have logged last: who has no log service finds it with the scheduler."""
        nanny = next(iter(self.nannies.values()), None)  # their process has one log, newest first
        logs = nanny.get_logs(n=LINES) if nanny else []
        return "\n".join(line[:WIDTH] for _, line in reversed(logs))

    def _judge(self, keepers: Sequence[asyncio.Future[str]]) -> None:
        """What the ends of all workers mean for the machine."""
        errors = [keeper.exception() for keeper in keepers if keeper.exception()]
        if errors:
            self.end(Exit.failed.name, f"a worker did not start: {_cause(errors[0])}")
            return
        self.end(Exit.asked.name, keepers[0].result())

    async def _keep(self, name: str) -> str:
        """Run one worker, again and again while only its connection breaks; return why it ended."""
        failures = 0
        while True:
            await self._reach()
            nanny = self.nannies[name] = MachineNanny(
                self.site.boot.scheduler, machine=self, **self._options(name)
            )
            try:
                await nanny
            except Exception:
                failures += 1
                await nanny.close(timeout=CLOSE_S, reason="cloud-start-failed")
                if failures == STARTS:
                    raise
                logger.warning("Worker %s did not start, trying again", name, exc_info=True)
                await asyncio.sleep(PAUSE_S)
                continue
            failures = 0
            self.channel.say(started=nanny.worker_address)
            self._changed.set()
            await nanny.finished()
            if nanny.why != BROKEN:
                return nanny.why
            logger.info("Worker %s lost its scheduler, looking for it again", name)
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._scheduler.cloud_forget(name=name), LOOK_S)

    def _options(self, name: str) -> dict[str, Any]:
        boot = self.site.boot
        share = max(1, dask.system.CPU_COUNT // boot.processes)
        return {
            "name": name,
            "nthreads": boot.nthreads or share,
            "memory_limit": boot.memory_limit or "auto",
            "host": self.site.identity.address,
            "protocol": self.site.protocol,
            "security": self.security,
            "dashboard": True,
            "dashboard_address": "127.0.0.1:0",
            **gpus.options(self.names.index(name), boot.processes),
            **boot.options,
        }

    async def _reach(self) -> None:
        """Return once the scheduler answers; only the lease ends the wait."""
        pause_s = 0.05
        while not await self._answers():
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_S, 2 * pause_s)
        self.channel.say(answered=True)

    async def _answers(self) -> bool:
        try:
            comm = await connect(self.site.boot.scheduler, timeout=LOOK_S, **self._args)
        except (OSError, asyncio.TimeoutError):
            return False
        comm.abort()
        return True

    async def _beat(self) -> None:
        """Pass on the scheduler's signs of life, and where this machine's pages are."""
        beat_s = max(0.2, min(BEAT_S, self.site.boot.leases.scheduler_lost / 4))
        while True:
            known = await self._ask(
                self._scheduler.cloud_hear(machine=self.site.identity.id),
                self.site.boot.leases.scheduler_lost,
            )
            if known is not None:
                pages = [port for port in known.get("workers", {}).values() if port]
                self.channel.say(answered=True, pages=pages)
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), beat_s)

    async def _obey(self) -> None:
        """Do what the supervisor says; without a supervisor there is no machine."""
        leaving: asyncio.Future[None] | None = None
        while (order := await self.channel.hear()) is not None:
            if leaving is not None:
                leaving.cancel()  # a later order leaves less time
            leaving = asyncio.ensure_future(self._leave(order))
        self.end(Exit.failed.name, "the supervisor is gone")

    async def _leave(self, order: dict[str, Any]) -> None:
        if "drain" in order:
            await self._drain(order.get("reason", order["end"]), order["drain"])
        self.end(order["end"], self.detail)

    async def _drain(self, reason: str, within_s: float) -> None:
        """Have the scheduler empty this machine, as long as there is time and a scheduler."""
        id, deadline = self.site.identity.id, time.monotonic() + within_s
        self.detail = "not drained: the scheduler does not answer"
        while (left_s := deadline - time.monotonic()) > 0:
            if await self._ask(self._scheduler.cloud_hear(machine=id), LOOK_S) is None:
                return
            leaving = self._scheduler.cloud_leaving(machine=id, reason=reason, within_s=left_s)
            if became := await self._ask(leaving, left_s + LOOK_S):
                self.detail = "drained" if became["state"] == "drained" else _not_drained(became)
                return

    async def _ask(self, question: Awaitable[Any], within_s: float) -> dict[str, Any] | None:
        """An answer of the scheduler's; None when there is none in time."""
        try:
            answer = await asyncio.wait_for(question, within_s) or {}
        except (OSError, asyncio.TimeoutError):
            self._answered = False
            return None
        self._answered = True
        return answer


async def serve(site: Site, sock: socket.socket) -> None:
    """Run this machine's workers until something ends them, and tell the supervisor how it goes."""
    await Machine(site, await Channel.over(sock)).run()


def _not_drained(became: dict[str, Any]) -> str:
    if not became["lost_count"]:
        return "not drained: tasks did not end in time"
    some = ", ".join(became["lost"]) + (", ..." if became["lost_count"] > len(became["lost"]) else "")
    return f"not drained: nowhere to go, or no time, for {became['lost_count']} results: {some}"


def _cause(error: BaseException | None) -> str:
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
