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
from cloudprovider.emulator.aws_needs import action, needs
from cloudprovider.emulator.aws_policy import Need, Unevaluated
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from cloudprovider.emulator.wire import Request

#: What a service calls a call that is not allowed; the others say AccessDeniedException.
CODES = {
    "ec2": ("UnauthorizedOperation", 403),
    "iam": ("AccessDenied", 403),
    "sts": ("AccessDenied", 403),
}
#: The account itself: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_root-user.html
PERSON = f"arn:aws:iam::{ACCOUNT}:root"


class Denied(AWSError):  # noqa: N818  (as AWS calls it)
    """The refusal of what a caller's policies do not allow."""

    def __init__(self, code: str, message: str, status: int, need: Need) -> None:
        super().__init__(code, message, status)
        self.need = need


def denied(
    request: Request,
    need: Need | None = None,
    who: str = "",
    *,
    kind: str = "identity-based",
    explicit: bool = False,
) -> Denied:
    """What the service says to who may not make a call, or may not do what it takes along.

    Parameters
    ----------
    request
        The call.
    need
        What is not allowed. Default: the call's own action.
    who
        Who calls. Default: the account.
    kind
        Of the policy that does not allow it: `identity-based` or `session`.
    explicit
        Whether a statement denies it.
    """
    need = need or _first(request)
    who = who or PERSON
    code, status = CODES.get(request.service, ("AccessDeniedException", 400))
    where = f" on resource: {need.resource}" if need.resource != "*" else ""
    why = f"because no {kind} policy allows the {need.action} action"
    if explicit:
        why = f"with an explicit deny in {'an' if kind[0] == 'i' else 'a'} {kind} policy"
    message = f"User: {who} is not authorized to perform: {need.action}{where} {why}"
    if request.service == "ec2":
        message = (
            f"You are not authorized to perform this operation. {message}. "
            f"Encoded authorization failure message: {_encoded(need, who, explicit=explicit)}"
        )
    return Denied(code, message, status, need)


def _first(request: Request) -> Need:
    try:
        return next(needs(request), Need(action=action(request)))
    except (Unevaluated, AWSError):
        return Need(action=action(request))


def _encoded(need: Need, who: str, *, explicit: bool) -> str:
    conditions = [
        {
            "key": key,
            "values": {"items": [{"value": one} for one in (value if isinstance(value, list) else [value])]},
        }
        for key, value in sorted(need.context.items())
    ]
    document = {
        "allowed": False,
        "explicitDeny": explicit,
        "matchedStatements": {"items": []},
        "failures": {"items": []},
        "context": {
            "principal": {"id": who.rpartition("/")[2], "arn": who},
            "action": need.action,
            "resource": need.resource,
            "conditions": {"items": conditions},
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
