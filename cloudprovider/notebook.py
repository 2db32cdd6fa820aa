"""How a cluster looks in a notebook: with ipywidgets where they are, as plain HTML elsewhere."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.bill import Bill

__all__ = ["folded", "furnished", "row"]

CELL = '<td style="text-align: left;"><strong>{}:</strong> {}</td>'


def row(bill: Bill) -> str:
    """What it costs, as a row of the table in which Dask shows a cluster."""
    spent = bill.total if bill.left is None else f"{bill.total} of ${bill.budget:,.2f}"
    now = amount(bill.per_hour, bill.unknown)
    return f"<tr>{CELL.format('Spent', html.escape(spent))}{CELL.format('An hour', html.escape(now))}</tr>"


def folded(panes: Mapping[str, str]) -> str:
    """Panes that open one by one."""
    return "".join(
        f'<details style="margin-left: 48px;"><summary>{html.escape(title)}</summary>{pane}</details>'
        for title, pane in panes.items()
    )


def furnished(
    tab: Any, drawn: Callable[[], tuple[str, str, Mapping[str, str]]]
) -> tuple[Any, Callable[[], None]]:
    """Dask's widget with a tab for each pane and a line under all; and what draws it anew.

    Dask draws the first of its tabs every half second, which would close what a reader has opened in it: it has
    one here that changes only with the cluster.
    """
    from ipywidgets import HTML, VBox

    cluster, said, panes = drawn()
    theirs, *others = tab.children
    theirs.close()
    status, line = HTML(cluster), HTML(html.escape(said))
    boxes = {title: HTML(pane) for title, pane in panes.items()}
    tab.children = [status, *others, *boxes.values()]
    for number, title in enumerate(boxes, 1 + len(others)):
        tab.set_title(number, title)

    def redraw() -> None:
        cluster, said, panes = drawn()
        status.value, line.value = cluster, html.escape(said)
        for title, pane in panes.items():
            boxes[title].value = pane

    return VBox([tab, line]), redraw
