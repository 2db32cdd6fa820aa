"""A `distributed` Cluster that one of its managers leads, and how the lead goes from one to another.

The scheduler keeps what has to outlive a manager: who leads, the budget, and of an autonomous cluster the
*wish*, which is how many workers whoever leads wants. Whoever takes the lead goes on with them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from cloudprovider import access
from cloudprovider.bill import duration
from cloudprovider.budget import Budget
from cloudprovider.config import seconds
from cloudprovider.errors import AccessError, CloudError, CloudWarning
from cloudprovider.events import Phase
from cloudprovider.scaling import ScalingCluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.config import Config
    from cloudprovider.lead import Lead

__all__ = ["BUSY_S", "LeadingCluster"]

logger = logging.getLogger("cloudprovider")

#: Seconds between passes while something is under way, and while nothing is.
BUSY_S, QUIET_S = 0.5, 2.0
#: Seconds between two renewals of the cluster's lease in the scheduler.
RENEW_S = 20.0
#: The same of a manager that stands by.
STAND_BY_S = 3.0
#: Seconds without a word of the manager that stands by after which it is missed.
MISSING_S = 180.0


class LeadingCluster(ScalingCluster):
    """A Cluster whose manager decides while it leads, tells what it wants, and follows while another one leads."""

    _adaptive: Any
    _attach: bool
    _lead: Lead
    _budget: Budget | None
    _inherited: bool
    _told: frozenset[str]
    _wished: Mapping[str, Any] | None
    _met: set[str]
    _renewed: float
    _heard: float
    _complaint: str
    _alone: bool = False
    _alone_since: float = math.inf

    @property
    def config(self) -> Config:
        """Its options, as they are now."""
        return self.estate.config

    # -- the manager's loop ------------------------------------------------------------------------------

    async def _manage(self) -> None:
        """Renew the lease; reconcile when woken, and every so often; survive whatever a pass raises."""
        while self.status == Status.running and self._ended is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._waker.wait(), BUSY_S if self.fleet.waiting else QUIET_S)
            self._waker.clear()
            if not self.sees:  # who does not see Dask decides nothing, and asks anew when it does
                self._renewed = -math.inf
                continue
            try:
                await self._pass()
                self._complain(None)
            except (CloudError, OSError) as error:
                self._complain(error)
            access.stay_patient(self, seconds(self.config.network_timeout, "network_timeout"))

    async def _pass(self) -> None:
        await self._renew()  # whoever slept, or was away, may lead no more
        if self._lead.ours:
            await self._meet_strangers()
            await self._reconcile()
            await self._renew()  # the budget is divided among the machines there are
        elif not self._lead.standby:
            self.fleet.watch(dict(self.notices.leaving))

    def _complain(self, error: Exception | None) -> None:
        """Say what a pass met, once while it stays the same."""
        said, self._complaint = self._complaint, str(error or "")
        if error is None or said == self._complaint:
            return
        logger.warning("%s", error)
        if isinstance(error, AccessError):
            self.events.emit(Phase.network, str(error))

    # -- what the scheduler is told, and tells ---------------------------------------------------------------

    async def _renew(self) -> None:
        """Renew the lease when it is time to, or when there is something to tell."""
        if self.scheduler_comm is None or not self._due:
            return
        self._renewed = asyncio.get_running_loop().time()
        status = await self.scheduler_comm.cloud_renew(**await self._news())
        self._heard = time.time()
        self.notices.hear(status.get("leaving", {}))
        await self._hear_of_the_lead(status)
        if self._lead.ours or not self._lead.standby:
            await self._call(self.estate.price)
        self._mind_the_standby(status.get("standby_s"))

    async def _news(self) -> dict[str, Any]:
        """What the scheduler is told; one with an older runtime is told nothing that it does not know."""
        lead = self._lead
        said: dict[str, Any] = {"manager": lead.manager, "who": lead.who, "budget": await self._paid()}
        if lead.standby:
            said["standby"] = True
        if self.config.autonomous and self._speaks:
            said["wish"] = self._wished = self._wish
        return said

    @property
    def _due(self) -> bool:
        pause = STAND_BY_S if self._lead.standby and not self._lead.ours else RENEW_S
        if asyncio.get_running_loop().time() - self._renewed > pause:
            return True
        if abs(time.time() - self._heard) > RENEW_S + pause:  # this computer was asleep
            return True
        if not self._speaks:
            return False
        news = self.config.autonomous and self._wished != self._wish
        return news or bool(self._budget and self._told != frozenset(self.fleet.machines))

    @property
    def _speaks(self) -> bool:
        """Whether this manager knows that it leads; who has just found the cluster hears first what was said."""
        return self._lead.ours and bool(self._lead.term or not self._attach)

    def _mind_the_standby(self, silent_s: float | None) -> None:
        """Say so, once, when nobody stands by on the scheduler's machine of a cluster that is to be autonomous."""
        now = asyncio.get_running_loop().time()
        if not self.config.autonomous or (silent_s is not None and silent_s < MISSING_S):
            self._alone_since = math.inf
        elif now < self._alone_since:
            self._alone_since = now
        elif now - self._alone_since > MISSING_S and not self._alone:
            self._alone = True
            message = (
                f"{self._where} is not autonomous: no manager has been heard of beside its scheduler for "
                f"{duration(MISSING_S)}. When this client goes, nobody scales or replaces its machines."
            )
            self.events.emit(Phase.access, message)
            logger.warning("%s", message)

    async def _paid(self) -> dict[str, float] | None:
        """What the scheduler is told of the budget; nothing by who has none, or does not lead."""
        if self._budget is None or not self._speaks:
            return None
        self._told = frozenset(self.fleet.machines)
        return self._budget.record(await self._call(self.estate.committed))

    @property
    def _wish(self) -> dict[str, Any]:
        """How many workers there should be, so that another manager can go on with it."""
        adaptive = self._adaptive
        if adaptive is None or adaptive.state not in {"starting", "running"}:
            return {"target": self.fleet.target * self.estate.workers_per_machine}
        options = {k: v for k, v in self._adaptive_options.items() if isinstance(v, str | int | float)}
        maximum = None if math.isinf(adaptive.maximum) else adaptive.maximum
        return {**options, "minimum": adaptive.minimum, "maximum": maximum}

    async def _hear_of_the_lead(self, status: Mapping[str, Any]) -> None:
        before, self._lead = self._lead, self._lead.told(status.get("lead"))
        if self._lead.ours and (not before.ours or self._lead.term != before.term):
            await self._take_over(before, status)
        elif not self._lead.ours and not self._lead.standby:
            await self._call(self.estate.follow)
        if before.holder != self._lead.holder:
            self.events.emit(Phase.access, f"{self._where} {self._lead}.")

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add" and (record := msg.pop("lead", None)):
            self._yield_to(record)
        super()._update_worker_status(op, msg)

    def _yield_to(self, record: Mapping[str, Any]) -> None:
        """Decide no more when another manager has taken the lead; one that stands by gives it back when asked."""
        led = self._lead.told(record)
        if self._lead.ours and not led.ours:
            self._lead = led
            self.events.emit(Phase.access, f"{self._where} {led}.")
            if led.standby:
                self._stop_adapting()
            else:
                self._renewed = -math.inf
                self._waker.set()

    # -- taking the lead -------------------------------------------------------------------------------------

    async def _take_the_lead(self) -> None:
        """Return when this manager decides.

        Raises
        ------
        CloudError
            When another one does; the message says who.
        """
        if not self._lead.ours:
            self._renewed = -math.inf
        await self._renew()
        if not self._lead.ours:
            raise self._lead.refusal(self._where)

    async def _take_over(self, before: Lead, status: Mapping[str, Any]) -> None:
        """Go on with what there is, what was spent and what was wished; who made it all knows that already."""
        if not before.term and not self._attach and self._lead.term == 1:
            return
        if not before.ours or before.term or self.config.autonomous:  # whoever led has changed what there is
            await self._call(self.estate.follow)
        await self._inherit(status.get("budget"))
        wish = status.get("wish")
        if wish is None and self._lead.standby:  # by its mandate it knows what the cluster was made with
            wish = {"target": self.config.n_workers}
        if self.config.autonomous and wish:
            await self._go_on(wish)

    async def _inherit(self, record: Mapping[str, Any] | None) -> None:
        """Keep a budget that another manager told; a new amount counts from what was spent."""
        if record:
            new = self._attach and not self._inherited and not self._lead.standby
            asked = self._budget.usd if self._budget and new else None
            self._inherited = True
            bill = await self._call(self.estate.committed)
            self._budget = Budget.found(record, bill, asked)
            if over := self._budget.over(bill):
                warnings.warn(f"{self._where} ends now: {over}", CloudWarning, stacklevel=2)
            self._renewed = -math.inf

    async def _go_on(self, wish: Mapping[str, Any]) -> None:
        """Want what the last manager wanted."""
        self._met = set()
        self.events.emit(Phase.access, f"{self._where} goes on with {wish}.")
        if "target" not in wish:
            if wish != self._wish:
                self.adapt(**wish)
            return
        self._stop_adapting()
        self.fleet.ask(self.estate.machines_for(wish["target"]))
        await self._return_surplus()

    async def _meet_strangers(self) -> None:
        """Keep machines that Dask sees and that a manager before us ordered in its last moment."""
        if not self.config.autonomous:
            return
        known = self.fleet.machines.keys() | self.fleet.ended.keys() | self._met
        # Of who is not known nobody knows whether its name is a machine's, or has the number of a process.
        names = [{name, name.rpartition("-")[0]} for name in map(str, self.observed)]
        if strangers := {name for both in names if not both & known for name in both}:
            self._met |= strangers  # the cloud is asked once
            await self._call(self.estate.meet, strangers)
            if self._adaptive is None:
                await self._return_surplus()

    def _stop_adapting(self) -> None:
        if self._adaptive is not None:
            self._adaptive.stop()
            self._adaptive = None

    # -- what makes a new wish -------------------------------------------------------------------------------

    async def _scale(self, n: int) -> None:
        if self.config.autonomous and not self._ended:  # there is one wish, and this is the last one
            await self._take_the_lead()
            self._stop_adapting()
        try:
            await super()._scale(n)
        finally:
            with suppress(CloudError, OSError):
                await self._renew()

    def adapt(self, Adaptive: Any = None, **options: Any) -> Any:  # noqa: N803  (distributed's own name)
        """Scale by the work there is; see `ScalingCluster.adapt`."""
        adaptive = super().adapt(Adaptive, **options)
        if self.asynchronous:
            self._waker.set()
        elif self.config.autonomous:
            self.sync(self._renew)
        return adaptive
