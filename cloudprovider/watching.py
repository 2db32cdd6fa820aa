"""`distributed`'s Cluster, whose view of its scheduler outlives the connection that it came by.

When the network is away for longer than `network_timeout`, both ends give the connection up. The machines
go on; what the scheduler keeps for clients that are gone is what was published, and what was given to
`fire_and_forget`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed.deploy.cluster import Cluster
from distributed.objects import SchedulerInfo

from cloudprovider.events import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cloudprovider.events import Events

__all__ = ["WatchingCluster"]

logger = logging.getLogger("cloudprovider")


class WatchingCluster(Cluster):  # type: ignore[misc]  # distributed is untyped
    """A Cluster that looks again when the connection to its scheduler breaks."""

    events: Events

    @property
    def sees(self) -> bool:
        """Whether what the scheduler sees reaches us."""
        comm = self._watch_worker_status_comm
        return comm is not None and not comm.closed()

    async def keep_watch(self, reach: Callable[[], Awaitable[None]]) -> None:
        """Make the connection anew whenever it breaks, and say what survived, until `reach` raises.

        Parameters
        ----------
        reach
            Returns when the scheduler answers; raises when it never will.
        """
        while True:
            await asyncio.wait({self._watch_worker_status_task})
            broke = time.time()
            self._say("The connection to the scheduler broke; machines go on, and it is made again.")
            while not self.sees:
                await reach()
                with suppress(OSError):  # it broke again
                    await self._subscribe()
                    datasets = tuple(await self.scheduler_comm.publish_list())
                    workers = len(self.scheduler_info["workers"])
                    self._say(
                        back(time.time() - broke, workers, datasets), workers=workers, datasets=datasets
                    )

    async def _subscribe(self) -> None:
        comm = await self.scheduler_comm.live_comm()
        comm.name = "Cluster worker status"
        await comm.write({"op": "subscribe_worker_status"})
        self.scheduler_info = SchedulerInfo(await comm.read())
        self._watch_worker_status_comm = comm
        self._watch_worker_status_task = asyncio.ensure_future(self._watch_worker_status(comm))
        self._update_worker_status("add", {"workers": {}})  # who came or went while nobody looked

    def _say(self, message: str, **facts: Any) -> None:
        self.events.emit(Phase.network, message, **facts)
        logger.warning("%s", message)


def back(away: float, workers: int, datasets: Sequence[str]) -> str:
    """What a user wants to know when the connection is back."""
    published = ", ".join(map(str, datasets)) or "there are none"
    return (
        f"The connection to the scheduler is back after {away:.0f} s. What survived: the workers ({workers}), "
        f"published datasets ({published}), and work given to fire_and_forget. What did not: results that only "
        "futures of a disconnected client held; submit those again. A client that gave up meanwhile is replaced "
        "by cluster.get_client()."
    )
