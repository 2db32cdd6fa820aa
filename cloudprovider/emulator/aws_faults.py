"""What AWS says when a fault hits a call."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cloudprovider.emulator.aws_rights import check
from cloudprovider.emulator.refusals import denied
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from cloudprovider.emulator.faults import Faults
    from cloudprovider.emulator.wire import Request

__all__ = ["refuse", "refuse_late", "server_error", "throttled"]

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


def refuse_late(faults: Faults, request: Request, signed: str) -> None:
    """Refuse a call that was signed more than five minutes from now, by the cloud's clock.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
    """
    if not signed:
        return
    now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=faults.ahead_s)
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


def refuse(faults: Faults, request: Request, *, person: bool = True) -> None:
    """Raise what a call is refused with, before it has any effect; a machine has policies of its own."""
    service = request.service
    if faults.hit("expired-credentials", request):
        raise AWSError(
            *EXPIRED.get(
                service,
                ("ExpiredTokenException", "The security token included in the request is expired", 400),
            )
        )
    if faults.hit("denied", request):
        raise denied(request)
    for policy in faults.of("policy") if person else ():
        check(request, policy.allowed)
    if faults.hit("throttle", request):
        raise throttled(request)
    if fault := faults.hit("error", request):
        raise AWSError(fault.code or "InternalFailure", fault.message, fault.status)


def throttled(request: Request) -> AWSError:
    """What the service says to who calls too often."""
    return AWSError(*THROTTLED.get(request.service, ("ThrottlingException", "Rate exceeded", 400)))


def server_error(request: Request) -> AWSError:
    """What the service says when it fails."""
    code, message = SERVER_ERRORS.get(
        request.service, ("InternalServerError", "An error occurred on the server side.")
    )
    return AWSError(code, message, 500)
