"""Why a machine ended, in a sentence: by what the cloud says, and what the machine said last.

The log of a dead machine stays in the cloud's log service for `log_retention_days`, where it has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudprovider.bill import duration
from cloudprovider.provider import State

if TYPE_CHECKING:
    from cloudprovider.provider import Machine

__all__ = ["Why", "why"]

#: How the runtime's last line begins.
LAST = re.compile(r"dask-cloud-runtime: ended: (.+)")
#: What more than one cloud and kernel say of it: https://docs.kernel.org/admin-guide/mm/concepts.html#oom-killer
MEMORY = re.compile(r"out ?of ?memory|oom.?kill|exceeded \d+% memory budget", re.IGNORECASE)
#: Reasons that are ours: a fleet's for what it returned, and what providers tell their cloud of it.
RETURNED = re.compile(r"released|returned by another manager|dask [a-z0-9-]+ gave it back\b.*")
#: Reasons that say nothing beside another.
EMPTY = re.compile(r"Essential container in task exited; (?=.)")


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why a machine ended; its text is a sentence.

    Parameters
    ----------
    machine
        As it was last seen.
    cause
        Why, or that it has not ended.
    logs
        Its last lines; empty when there are none, or none any more.
    """

    machine: Machine
    cause: str
    logs: str = field(default="", repr=False)

    def __str__(self) -> str:
        machine = self.machine
        what = ", ".join(filter(None, (machine.kind, machine.market, machine.zone)))
        name = f"{machine.role.capitalize()} {machine.id} ({what})"
        if machine.state is not State.gone:
            return f"{name} {self.cause}."
        began = machine.billed_from or machine.created
        lived = f" after {duration(machine.ended - began)}" if machine.ended and began else ""
        return f"{name} ended{lived}: {self.cause}."


def why(machine: Machine, logs: str) -> Why:
    """Read a machine's end from what the cloud says of it and from its last lines."""
    if machine.state is not State.gone:
        cause = (
            "has not ended: it runs" if machine.state is State.running else "has not ended: it is starting"
        )
    else:
        cause = _cause(EMPTY.sub("", machine.reason.strip().rstrip(".")), logs)
    return Why(machine=machine, cause=cause, logs=logs)


def _cause(reason: str, logs: str) -> str:
    said = LAST.findall(logs)
    if RETURNED.fullmatch(reason):
        return "it was not needed any more"
    if MEMORY.search(reason) or (not said and MEMORY.search(logs)):
        return f"it ran out of memory ({reason or 'as its log says'}); workers with more memory would do"
    causes = [reason] if reason else []
    if said and said[-1] not in reason:
        causes.append(f"it said {said[-1]!r}")
    return "; ".join(causes) or "neither the cloud nor its log says why"
