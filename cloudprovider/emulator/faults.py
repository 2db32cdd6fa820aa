"""What can be made to go wrong in an emulated cloud, on request and repeatably."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import itertools
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.permissions import missing
from cloudprovider.emulator.refusals import denied
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.emulator.wire import Request

__all__ = ["KINDS", "Fault", "Faults"]

#: Each kind of fault: what it does.
KINDS = {
    "throttle": "refuses calls with the service's throttling error",
    "error": "refuses calls with `code` and `message`, before they have any effect",
    "error-after-effect": "does what the call asks, then answers a server error",
    "lost-answer": "does what the call asks, then closes the connection without an answer",
    "denied": "refuses calls as not authorized",
    "expired-credentials": "refuses every call as its credentials have expired",
    "capacity": "has room for only `room` more machines of `market`, on EC2 also of `zone` and `type`",
    "quota": "allows only `room` vCPUs of `market` in use at once",
    "image-pull": "cannot pull images whose name matches `image`",
    "policy": "refuses calls that the policy documents `allowed` do not allow, with all they take along",
    "addresses": "leaves only `room` free addresses in subnet `subnet`",
    "stale": "shows machines in lists and descriptions only `seconds` after they were made",
    "clock-skew": "has a clock that is `seconds` ahead of its callers'",
    "role-propagation": "lets a role be used only `seconds` after it was made",
}

#: What a service calls a call too many; the others say ThrottlingException.
THROTTLED = {
    "ec2": ("RequestLimitExceeded", "Request limit exceeded.", 503),
    "iam": ("Throttling", "Rate exceeded", 400),
    "sts": ("Throttling", "Rate exceeded", 400),
}
#: What a service calls an expired credential; the others say ExpiredTokenException.
EXPIRED = {
    "ec2": ("RequestExpired", "Request has expired.", 400),
    "iam": ("ExpiredToken", "The security token included in the request is expired", 403),
    "sts": ("ExpiredToken", "The security token included in the request is expired", 403),
}
#: How far a signature's time may be from the cloud's.
LATE = dt.timedelta(minutes=5)
STAMP = "%Y%m%dT%H%M%SZ"
SERVER_ERRORS = {
    "ecs": ("ServerException", "Service Unavailable. Please try again later."),
    "ec2": ("InternalError", "An internal error has occurred"),
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

    def concerns(self, request: Request) -> bool:
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

    def of(self, kind: str) -> list[Fault]:
        """The faults of one kind, oldest first."""
        with self._lock:
            return [fault for fault in self._faults.values() if fault.kind == kind]

    def hit(self, kind: str, request: Request) -> Fault | None:
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

    def refuse_late(self, request: Request, signed: str) -> None:
        """Refuse a call that was signed more than five minutes from now, by the cloud's clock.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
        """
        if not signed or not self.ahead_s:
            return
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead_s)
        moment = dt.datetime.strptime(signed, STAMP).replace(tzinfo=dt.UTC)
        if abs(now - moment) <= LATE:
            return
        if request.service == "ec2":
            raise AWSError("RequestExpired", "Request has expired.", 400)
        word, sign, edge = ("earlier", "-", now - LATE) if now > moment else ("later", "+", now + LATE)
        message = (
            f"Signature {'expired' if now > moment else 'not yet current'}: {signed} is now {word} than "
            f"{edge.strftime(STAMP)} ({now.strftime(STAMP)} {sign} 5 min.)"
        )
        query = request.service in ("iam", "sts")
        code, status = ("SignatureDoesNotMatch", 403) if query else ("InvalidSignatureException", 400)
        raise AWSError(code, message, status)

    def refuse(self, request: Request, *, person: bool = True) -> None:
        """Raise what a call is refused with, before it has any effect; a machine has policies of its own."""
        service = request.service
        if self.hit("expired-credentials", request):
            raise AWSError(
                *EXPIRED.get(
                    service,
                    ("ExpiredTokenException", "The security token included in the request is expired", 400),
                )
            )
        if self.hit("denied", request):
            raise denied(request)
        for policy in self.of("policy") if person else ():
            if lacking := missing(request, policy.allowed):
                raise denied(request, *lacking)
        if self.hit("throttle", request):
            raise throttled(request)
        if fault := self.hit("error", request):
            raise AWSError(fault.code or "InternalFailure", fault.message, fault.status)

    def market(self, kind: str, market: str) -> Fault | None:
        """The fault of this kind that concerns a market anywhere, if one does."""
        return next(
            (f for f in self.of(kind) if f.market in ("", market) and not f.zone and not f.type), None
        )


def throttled(request: Request) -> AWSError:
    """What the service says to who calls too often."""
    return AWSError(*THROTTLED.get(request.service, ("ThrottlingException", "Rate exceeded", 400)))


def server_error(request: Request) -> AWSError:
    """What the service says when it fails."""
    code, message = SERVER_ERRORS.get(
        request.service, ("InternalServerError", "An error occurred on the server side.")
    )
    return AWSError(code, message, 500)
