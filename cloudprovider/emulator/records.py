"""What an emulated cloud tells of itself: plain data, the same on both sides of its control API."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Call", "EmulatedMachine", "LedgerEntry", "Recorder"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the cloud's API, as the cloud saw it.

    Parameters
    ----------
    service
        Such as `ecs`.
    operation
        Such as `RunTask`.
    start, end
        Seconds since the epoch when the request had arrived and when its answer was ready.
    error
        The error code that was answered; empty when it succeeded.
    needs
        All that the caller's policies had to allow for it, each with its `action`, `resource` and `context`. Empty
        for calls of the account itself, which may do everything.
    denied
        The first that they did not allow; empty when they allowed all.
    """

    service: str
    operation: str
    start: float
    end: float
    error: str = ""
    needs: Sequence[Mapping[str, Any]] = ()
    denied: str = ""


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What one machine, or one thing that bills beside it, has cost until now.

    Parameters
    ----------
    machine
        The cloud's id of the machine.
    kind
        Size in the cloud's words, such as `1 vCPU, 4 GB`; `public IPv4` for its public address.
    market
        `on-demand` or `spot`.
    seconds
        How long it ran; what is billed has the cloud's minimum.
    price
        US dollars until now, billing minimum included; NaN when the price list has no price for it.
    """

    machine: str
    kind: str
    market: str
    seconds: float
    price: float


@dataclass(frozen=True, kw_only=True)
class EmulatedMachine:
    """One machine of an emulated cloud, seen from behind: what its API says, and the process it is.

    Parameters
    ----------
    id
        The cloud's id.
    state
        The cloud's own word, such as `PENDING` or `RUNNING`.
    kind, market, zone
        Size in the cloud's words, `on-demand` or `spot`, availability zone.
    image
        The container image it runs.
    address
        Its address; empty while the cloud has assigned none.
    pid
        The process it is on this computer; None when there is none now.
    exit_code
        Of its essential container; None while it runs.
    reason
        Why it stopped, in the cloud's words; empty while it runs.
    tags
        As ordered.
    """

    id: str
    state: str
    kind: str
    market: str
    zone: str
    image: str
    address: str = ""
    pid: int | None = None
    exit_code: int | None = None
    reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Recorder(threading.local):
    """What the calls of each thread need of their callers' rights, while they are answered."""

    def __init__(self) -> None:
        self._needs: list[dict[str, Any]] = []
        self._denied = ""

    def heard(self, action: str, resource: str, *, denied: bool, own: bool) -> None:
        """Note what a call needs, unless it is the account's own, which may do everything."""
        if own:
            return
        self._needs.append({"action": action, "resource": resource, "context": {}})
        if denied and not self._denied:
            self._denied = action

    def told(self) -> dict[str, Any]:
        """What the call that was just answered needed, as fields of its record; nothing is left of it here."""
        said = {"needs": self._needs, "denied": self._denied}
        self._needs, self._denied = [], ""
        return said


def document(record: Call | LedgerEntry | EmulatedMachine) -> dict[str, Any]:
    """The record as JSON can say it."""
    return dataclasses.asdict(record)
