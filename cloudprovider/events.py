"""What happened, with time, machine and phase: it feeds progress, logs, the timeline and the bill."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Event", "Events", "Phase"]

logger = logging.getLogger("cloudprovider")


class Phase(enum.StrEnum):
    """What an event is about, in the order of a cluster's life."""

    landing = enum.auto()
    secrets = enum.auto()
    quota = enum.auto()
    ordered = enum.auto()
    placed = enum.auto()
    arrived = enum.auto()
    connected = enum.auto()
    network = enum.auto()
    refused = enum.auto()
    notice = enum.auto()
    lost = enum.auto()
    drained = enum.auto()
    kept = enum.auto()
    released = enum.auto()
    access = enum.auto()
    closing = enum.auto()
    closed = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    Parameters
    ----------
    phase
        What it is about.
    message
        A sentence for people.
    time
        Seconds since the epoch.
    machine
        The machine's id, when it is about one.
    facts
        What a program may want to know: counts, market, zone, role.
    """

    phase: Phase
    message: str
    time: float = field(default_factory=time.time)
    machine: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Events:
    """The events of one cluster, newest last, and those who want to hear of them. Thread-safe."""

    def __init__(self, limit: int = 100_000) -> None:
        self._log: deque[Event] = deque(maxlen=limit)
        self._listeners: list[Callable[[Event], None]] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Event]:
        with self._lock:
            return iter(list(self._log))

    def __len__(self) -> int:
        return len(self._log)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; returns what stops it."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop

    def emit(self, phase: Phase, message: str, *, machine: str | None = None, **facts: Any) -> Event:
        """Record that something happened now. A listener that fails is logged, and stops nobody."""
        event = Event(phase=phase, message=message, machine=machine, facts=facts)
        with self._lock:
            self._log.append(event)
            listeners = list(self._listeners)
        logger.debug("%s: %s", event.phase, message)
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # whoever watches must not stop what is watched
                logger.exception("A listener failed on %s", event.phase)
        return event

    def of(self, *phases: Phase) -> list[Event]:
        """The events of these phases, oldest first."""
        return [event for event in self if event.phase in phases]
