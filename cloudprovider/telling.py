"""A `distributed` Cluster that tells its scheduler what only managers know, so that its dashboard shows it.

It is told beside the passes of the fleet, never within one, and what goes wrong with it goes wrong alone: a
scheduler whose runtime is older is told nothing, and one whose boot did not bring the page gets it here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudruntime.exits import Ended, Exit
from distributed.core import Status

from cloudprovider import view as views
from cloudprovider.errors import CloudError
from cloudprovider.scaling import ScalingCluster
from cloudprovider.timeline import timeline

if TYPE_CHECKING:
    from cloudprovider.lead import Lead
    from cloudprovider.timeline import Timeline

__all__ = ["TellingCluster"]

logger = logging.getLogger("cloudprovider")

#: Seconds between two looks for something to tell.
TELL_S = 3.0


class TellingCluster(ScalingCluster):
    """A Cluster whose manager tells, while it leads, what it knows of machines."""

    _lead: Lead
    _start_over: Timeline | None = None

    async def _keep_telling(self) -> None:
        """Tell when there is news; stop where nobody listens."""
        obituaries = views.Obituaries(self.estate, self._noticed)
        told: dict[str, Any] | None = None
        complaint = ""
        while self.status == Status.running:
            try:
                if not (self.sees and self._lead.ours):
                    told = None  # whoever leads then tells something else
                else:
                    known = await self._call(self._known, obituaries)
                    if known["words"] or views.news(known) != told:
                        told = views.news({**known, "words": []})
                        if not await self._tell(known):
                            return
            except (CloudError, OSError) as error:
                logger.debug("The scheduler was not told what there is: %s", error)
                told = None
            except Exception as error:  # a page is no reason to trouble anybody
                if str(error) != complaint:
                    logger.exception("The scheduler could not be told what there is")
                told, complaint = None, str(error)
            await asyncio.sleep(TELL_S)

    def _noticed(self, machine: str) -> str:
        notice = self.notices.leaving.get(machine)
        return notice.reason if notice else ""

    async def _heard_of(self, machine: str) -> str:
        """Why a machine left, as it told its scheduler; another manager may have led then."""
        heard = self._noticed(machine)
        if self.sees:
            with suppress(OSError):
                left = (await self.scheduler_comm.cloud_status())["left"]
                words = [said["reason"] for said in left if said["machine"] == machine][-1:]
                heard = "; ".join(filter(None, [heard, *map(_in_words, words)]))
        return heard

    def _known(self, obituaries: views.Obituaries) -> dict[str, Any]:
        start = self._start_over or timeline(self.events)
        if start.ended is not None:
            self._start_over = start
        known = views.view(self.estate, start)
        with suppress(CloudError):  # the cloud may be out of reach; what we know is still worth telling
            known["words"] = obituaries.read()
        return known

    async def _tell(self, known: dict[str, Any]) -> bool:
        """Tell the scheduler; whether there is anybody to tell."""
        there = await self.scheduler_comm.cloud_tell(view=known)
        if there is not False:  # an older one has no such operation, and answers None
            return bool(there)
        program = (resources.files("cloudruntime") / "page.py").read_text(encoding="utf-8")
        return bool(await self.scheduler_comm.cloud_tell(view=known, program=program))


def _in_words(reason: str) -> str:
    return str(Ended(Exit[reason])) if reason in Exit.__members__ else reason
