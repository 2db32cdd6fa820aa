"""A `distributed` Cluster that says what it costs: in its repr, in a notebook, and in a receipt when it is over.

What is drawn is what is known: no call of the cloud stands behind it. `cost()` asks.
"""

from __future__ import annotations

import dataclasses
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import clock_time
from cloudprovider.events import Phase
from cloudprovider.scaling import ScalingCluster
from cloudprovider.timeline import Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.bill import Bill
    from cloudprovider.budget import Budget

__all__ = ["PayingCluster"]

logger = logging.getLogger("cloudprovider")

#: Seconds between two drawings of what is shown in a notebook.
DRAW_S = 2.0
LEFT = "The cluster was left running: what it costs from then on is not in it."


class PayingCluster(ScalingCluster):
    """A Cluster whose machines bill."""

    _budget: Budget | None
    _redraw: Callable[[], None] | None = None
    _started: Timeline | None = None

    def cost(self) -> Bill:
        """What the cluster has cost until now, by the provider's dated price table; after `close()`, its receipt.

        The cloud is asked since when machines bill, and until when.

        Returns
        -------
        Bill
            Spent, per hour, by role, kind and market; billing minimums, public addresses and storage
            included; what it leaves out is listed in it. `text()`, `json()` and `html()` write it, and
            `save("receipt.html")` does by the ending of a file.
        """
        return self._billed(self.estate.cost())

    def _billed(self, bill: Bill, *notes: str) -> Bill:
        """A bill with whose it is, and what is left of the budget."""
        budget = self._budget
        return dataclasses.replace(
            bill,
            title=f"{'Receipt' if self.estate.removed else 'Bill'} of {self._where}",
            notes=(*bill.notes, *notes),
            budget=budget.usd if budget else None,
            before=budget.before if budget else 0.0,
        )

    # -- what is drawn -----------------------------------------------------------------------------------

    @property
    def _worth(self) -> Bill | None:
        """What is known of its cost, without a call; None where nothing costs anything."""
        bill = self._billed(self.estate.known())
        return bill if bill.spent != 0 or bill.per_hour != 0 or bill.budget else None

    def __repr__(self) -> str:
        said: str = super().__repr__()
        bill = self._worth
        return (
            said if bill is None else f"{said.removesuffix(')')}, {bill.summary} at {clock_time(bill.until)})"
        )

    def _repr_html_(self, cluster_status: str | None = None) -> str:
        from cloudprovider.notebook import folded, row

        bill = self._worth
        status = cluster_status if bill is None else row(bill) + (cluster_status or "")
        drawn: str = super()._repr_html_(cluster_status=status)
        return drawn + folded(self._panes(bill))

    def _panes(self, bill: Bill | None) -> dict[str, str]:
        """What is shown beside the cluster itself, by its title."""
        if self._started is None or self._started.ended is None:
            self._started = timeline(self.events)
        costs = "Nothing here bills." if bill is None else bill._repr_html_()
        return {"Cost": costs, "Start": self._started._repr_html_()}

    def _drawn(self) -> tuple[str, str, dict[str, str]]:
        """For the widget: the cluster, one line on what it costs, and the panes beside it."""
        bill = self._worth
        line = "" if bill is None else f"{bill.summary}, as of {clock_time(bill.until)}"
        return super()._repr_html_(), line, self._panes(bill)

    def _widget(self) -> Any:
        """Dask's own widget, with tabs of ours and a line on what it costs, drawn anew every other second."""
        known = getattr(self, "_cached_widget", None)
        widget = super()._widget()
        if widget is None or widget is known:
            return widget
        from cloudprovider.notebook import furnished

        self._cached_widget, self._redraw = furnished(widget, self._drawn)
        self.loop.add_callback(self._keep_drawing)
        return self._cached_widget

    def _keep_drawing(self) -> None:
        from tornado.ioloop import PeriodicCallback

        drawing = PeriodicCallback(self._draw, DRAW_S * 1000)
        self.periodic_callbacks["cloud-repr"] = drawing
        drawing.start()

    def _draw(self) -> None:
        if self._redraw is not None:
            self._redraw()

    # -- the end -------------------------------------------------------------------------------------------

    @contextmanager
    def _keeping_receipt(self) -> Iterator[None]:
        """Draw and write the receipt of what ends in the block, also when it ends by an error."""
        try:
            yield
        except BaseException as error:
            self._keep_receipt(f"Closing did not end well, and machines may still bill: {error}")
            raise
        self._keep_receipt("" if self.estate.removed else LEFT)

    def _keep_receipt(self, note: str) -> None:
        self._draw()
        if not (wanted := self.estate.config.receipt) or not self.estate.begun:
            return
        bill = self._billed(self.estate.known(), *filter(None, [note]))
        try:
            kept = bill.save(wanted.replace("{name}", self.estate.identity.name))
        except OSError as error:
            logger.warning("The receipt of %s was not written: %s", self._where, error)
        else:
            self.events.emit(Phase.closing, f"The receipt is in {kept}.", receipt=str(kept))
