"""What services say to who may not make a call, and what an encoded refusal of EC2 means.

https://docs.aws.amazon.com/STS/latest/APIReference/API_DecodeAuthorizationMessage.html
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.permissions import needed
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from cloudprovider.emulator.wire import Request

#: What a service calls a call that is not allowed; the others say AccessDeniedException.
CODES = {
    "ec2": ("UnauthorizedOperation", 403),
    "iam": ("AccessDenied", 403),
    "sts": ("AccessDenied", 403),
}
PERSON = f"arn:aws:sts::{ACCOUNT}:user/moto"


def denied(request: Request, action: str = "", resource: str = "", who: str = PERSON) -> AWSError:
    """What the service says to who may not make a call, or may not do what it takes along."""
    code, status = CODES.get(request.service, ("AccessDeniedException", 400))
    first = next(iter(needed(request)), (f"{request.service}:{request.operation}", "*"))
    action, resource = (action, resource) if action else first
    where = f" on resource: {resource}" if resource not in ("", "*") else ""
    why = f"because no identity-based policy allows the {action} action"
    message = f"User: {who} is not authorized to perform: {action}{where} {why}"
    if request.service == "ec2":
        encoded = _encoded(action, resource or "*", who)
        message = (
            f"You are not authorized to perform this operation. {message}. "
            f"Encoded authorization failure message: {encoded}"
        )
    return AWSError(code, message, status)


def _encoded(action: str, resource: str, who: str) -> str:
    document = {
        "allowed": False,
        "explicitDeny": False,
        "matchedStatements": {"items": []},
        "failures": {"items": []},
        "context": {
            "principal": {"id": who.rpartition("/")[2], "arn": who},
            "action": action,
            "resource": resource,
            "conditions": {"items": []},
        },
    }
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(document).encode())).decode()


def decoded(request: Request) -> dict[str, Any]:
    """DecodeAuthorizationMessage: which action, on what, was refused to whom."""
    text = (request.parameters or {})["EncodedMessage"]
    try:
        message = zlib.decompress(base64.urlsafe_b64decode(text)).decode()
    except (binascii.Error, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise AWSError("InvalidAuthorizationMessageException", "The message is invalid.") from error
    return {"DecodedMessage": message}
