"""What machines say that have a notice, as the scheduler passes it on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cloudprovider.events import Phase
from cloudprovider.fleet import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.events import Events

__all__ = ["Notices"]

logger = logging.getLogger("cloudprovider")


class Notices:
    """The notices of a cluster's machines, and what became of the data on them.

    Parameters
    ----------
    events
        Where it is recorded how they were emptied.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._records: dict[str, Mapping[str, Any]] = {}
        #: Machines that have a notice, or had one; of several the last, which left the least time.
        self.leaving: dict[str, Notice] = {}

    def hear(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what the scheduler says of machines, which may be what it has said before."""
        for machine, record in records.items():
            before = self._records.get(machine)
            self._records[machine] = record
            if before is None or before["reason"] != record["reason"]:
                self.leaving[machine] = Notice(reason=record["reason"], within_s=record["within_s"])
            # What ended before we heard of it is news to nobody.
            if before and before["state"] == "draining" != record["state"]:
                self._tell(machine, record)

    def _tell(self, machine: str, record: Mapping[str, Any]) -> None:
        lost = int(record["lost_count"])
        size = f"{record['moved_bytes'] / 1e6:.1f} MB"
        message = f"Emptied {machine}: {record['moved']} results ({size}) are elsewhere now."
        if lost:
            some = ", ".join(record["lost"]) + (", ..." if lost > len(record["lost"]) else "")
            message = (
                f"{machine} had the only copy of {lost} results at its end: {some}. Of them "
                f"{record['lost_for_good']} cannot be computed again; {record['moved']} ({size}) are elsewhere."
            )
            logger.warning("%s", message)
        facts = {key: record[key] for key in ("moved", "moved_bytes", "lost", "lost_count", "lost_for_good")}
        self._events.emit(Phase.drained, message, machine=machine, **facts)
