"""What people see: columns of plain text, the same in a terminal and in a file but for a bold line."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

__all__ = ["columns", "counted", "leases", "length", "strong", "wrapped"]

#: Characters in a line of prose.
WIDTH = 80
#: A Boot's leases, in words.
LEASES = {
    "idle": "without work",
    "no_client": "without client and work",
    "no_client_work": "with work but no client",
}


def columns(rows: Iterable[Sequence[str]], *, right: Collection[int] = (), indent: int = 0) -> list[str]:
    """Rows as lines whose columns are aligned; those of `right` at their right edge."""
    every = [[*row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = []
    for row in every:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def length(seconds: float) -> str:
    """A length of time in few characters."""
    whole = max(0, int(seconds))
    if whole < 60:  # noqa: PLR2004  (a minute)
        return f"{whole} s"
    minutes = whole // 60
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def leases(said: Mapping[str, Any], now: float) -> str:
    """After what a cluster ends, in a sentence.

    Parameters
    ----------
    said
        Seconds by a Boot's names for its leases.
    now
        Seconds since the epoch.
    """
    ends = [f"{length(said[name])} {words}" for name, words in LEASES.items() if name in said]
    ends += [f"{length(said['expires'] - now)} from now in any case"] if said.get("expires") else []
    return f"It ends after {', '.join(ends)}."


def counted(count: int, what: str) -> str:
    """A number of things in words."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def wrapped(sentences: Iterable[str], *, indent: int = 0) -> list[str]:
    """Each sentence as lines of prose; of an indented one the lines after the first stand further in."""
    first, more = " " * indent, " " * 2 * indent
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            sentence,
            WIDTH,
            initial_indent=first,
            subsequent_indent=more,
            break_long_words=False,  # who copies a link or an id wants it whole
            break_on_hyphens=False,
        )
    ]


def strong(line: str) -> str:
    """A line in bold where that is shown: click takes it away from what goes into a file or a pipe."""
    # https://no-color.org
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return line if plain else click.style(line, bold=True)
