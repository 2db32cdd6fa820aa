"""What can be made to go wrong in an emulated cloud, on request and repeatably."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KINDS", "Asked", "Fault", "Faults"]


class Asked(Protocol):
    """A call, as faults know it: such as `ecs` and `RunTask`, or `compute` and `instances.insert`."""

    @property
    def service(self) -> str:
        """Of the cloud."""

    @property
    def operation(self) -> str:
        """Of the service."""


#: Each kind of fault: what it does.
KINDS = {
    "throttle": "refuses calls with the service's throttling error",
    "error": "refuses calls with `code` and `message`, before they have any effect",
    "error-after-effect": "does what the call asks, then answers a server error",
    "lost-answer": "does what the call asks, then closes the connection without an answer",
    "denied": "refuses calls as not authorized",
    "expired-credentials": "refuses every call as its credentials have expired",
    "capacity": "has room for only `room` more machines of `market`, for virtual machines also of `zone` and `type`",
    "quota": "allows only `room` vCPUs of `market` in use at once",
    "image-pull": "cannot pull images whose name matches `image`",
    "policy": "refuses calls that the policy documents `allowed` do not allow, with all they take along",
    "addresses": "leaves only `room` free addresses in subnet `subnet`",
    "stale": "shows machines in lists and descriptions only `seconds` after they were made",
    "clock-skew": "has a clock that is `seconds` ahead of its callers'",
    "unreachable": "has no answer for the machines of `zone`, on Google Cloud",
    "role-propagation": "lets a role be used only `seconds` after it was made",
}


@dataclass(kw_only=True)
class Fault:
    """One thing that goes wrong.

    Parameters
    ----------
    kind
        One of `KINDS`.
    operation
        Which calls it concerns: `RunTask`, `ecs:RunTask`, `ecs:*`; empty means all.
    every
        It hits each `every`-th of the calls it concerns.
    times
        How often it hits; None means without end.
    code, message, status
        Of the error that is answered, where the kind does not say.
    room, market, zone, type, subnet, image, seconds, allowed
        See `KINDS`; an empty market, zone, type, subnet or image means any.
    """

    kind: str
    operation: str = ""
    every: int = 1
    times: int | None = None
    code: str = ""
    message: str = ""
    status: int = 400
    room: int = 0
    market: str = ""
    zone: str = ""
    type: str = ""
    subnet: str = ""
    image: str = ""
    seconds: float = 0.0
    allowed: Sequence[Mapping[str, Any]] = ()
    id: int = 0
    seen: int = 0
    held: dict[str, int] = field(default_factory=dict)  # addresses it keeps from each subnet

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = difflib.get_close_matches(self.kind, KINDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f": use one of {', '.join(KINDS)}."
            raise ValueError(f"There is no fault '{self.kind}'{hint}")
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1.")

    def concerns(self, request: Asked) -> bool:
        """Whether it is about this call at all."""
        name = f"{request.service}:{request.operation}"
        wanted = self.operation or "*"
        return fnmatchcase(name, wanted if ":" in wanted or wanted == "*" else f"*:{wanted}")


class Faults:
    """The faults that are on; thread-safe."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, **what: Any) -> Fault:
        """Make something go wrong from now on."""
        unknown = set(what) - {field.name for field in dataclasses.fields(Fault)}
        if unknown:
            raise ValueError(f"A fault has no '{', '.join(sorted(unknown))}'.")
        with self._lock:
            fault = Fault(**what, id=next(self._ids))
            self._faults[fault.id] = fault
            return fault

    def clear(self, id: int | None = None) -> None:
        """Let one fault, or all, be over."""
        with self._lock:
            if id is None:
                self._faults.clear()
            else:
                self._faults.pop(id, None)

    def all(self) -> list[Fault]:
        """Those that are on, oldest first."""
        with self._lock:
            return list(self._faults.values())

    def of(self, kind: str) -> list[Fault]:
        """The faults of one kind, oldest first."""
        with self._lock:
            return [fault for fault in self._faults.values() if fault.kind == kind]

    def hit(self, kind: str, request: Asked) -> Fault | None:
        """The fault of this kind that hits this call, if one does."""
        with self._lock:
            for fault in list(self._faults.values()):
                if fault.kind != kind or not fault.concerns(request):
                    continue
                fault.seen += 1
                if fault.seen % fault.every == 0 and self._spend(fault):
                    return fault
        return None

    def _spend(self, fault: Fault) -> bool:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._faults.pop(fault.id, None)
        return True

    @property
    def ahead_s(self) -> float:
        """How far the cloud's clock is ahead."""
        return max((fault.seconds for fault in self.of("clock-skew")), key=abs, default=0.0)

    def market(self, kind: str, market: str) -> Fault | None:
        """The fault of this kind that concerns a market anywhere, if one does."""
        return next(
            (f for f in self.of(kind) if f.market in ("", market) and not f.zone and not f.type), None
        )
