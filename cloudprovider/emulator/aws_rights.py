"""Whether who calls AWS may: what the call needs, held against their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import aws_along, aws_policy, roles
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.aws_needs import action, needs
from cloudprovider.emulator.aws_policy import Need, Unevaluated
from cloudprovider.emulator.refusals import Denied, denied
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudprovider.emulator.principals import Caller
    from cloudprovider.emulator.wire import Request

__all__ = ["Rights", "check"]

CREATE_LINKED = "iam:CreateServiceLinkedRole"
#: What services say when they may not make the role that they need, in whose name they are asked.
#: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_LINKED = {
    "ecs": (
        "InvalidParameterException",
        "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
    ),
    "ec2": (
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "The provided credentials do not have permission to create the service-linked role for {service}.",
    ),
}
#: What EC2 calls the services whose roles it makes.
CALLED = {"spot.amazonaws.com": "EC2 Spot Instances", "ec2fleet.amazonaws.com": "EC2 Fleet"}


class Rights:
    """Holds the calls of one account's users and roles against their policies; and makes the roles of services."""

    def __init__(self) -> None:
        self._linked: set[str] = set()

    def check(self, request: Request, caller: Caller | None) -> Sequence[Need]:
        """All that a call needs; nothing when it is the account's own, which may do everything.

        Raises
        ------
        AWSError
            When the caller may not make it.
        """
        if caller is None:
            self._linked |= {thing.name for thing in aws_along.linked(request)}
            return ()
        if not caller.limits and aws_policy.everything(caller.policies):
            found = _evident(request)
        else:
            found = check(request, caller.policies, caller.limits, caller.arn)
        return [*found, *self._link(request, caller)]

    def _link(self, request: Request, caller: Caller) -> Iterable[Need]:
        """The roles that services make of themselves at this call, in the name of who calls."""
        for thing in aws_along.linked(request):
            if thing.name in self._linked or _is_there(thing.name):
                continue
            need = Need(
                action=CREATE_LINKED,
                resource=f"arn:aws:iam::{ACCOUNT}:role/{thing.name}",
                context=thing.facts,
            )
            if not aws_policy.allows(caller.policies, need):
                code, message = NO_LINKED[request.service]
                service = CALLED.get(str(thing.facts["iam:awsservicename"]), "")
                status = 403 if request.service == "ec2" else 400
                raise Denied(code, message.format(service=service), status, need)
            self._linked.add(thing.name)
            yield need


def _is_there(name: str) -> bool:
    return roles.find(ACCOUNT, name.rpartition("/")[2]) is not None


def _evident(request: Request) -> Sequence[Need]:
    """What a call of an administrator needs, as far as that is known: it is allowed in any case."""
    try:
        return [*needs(request)]
    except (Unevaluated, AWSError):
        return [Need(action=action(request))]


def check(
    request: Request, policies: Sequence[Any], limits: Sequence[Any] = (), who: str = ""
) -> Sequence[Need]:
    """All that a call needs; an AWSError when policies do not allow something of it, or cannot be held to it."""
    try:
        found = [*needs(request)]
        for need in found:
            for documents, kind in ((policies, "identity-based"), (limits, "session")):
                said = aws_policy.verdict(documents, need) if documents or kind != "session" else "Allow"
                if said != "Allow":
                    raise denied(request, need, who, kind=kind, explicit=said == "Deny")
    except Unevaluated as error:
        raise AWSError("EmulatorCannotTell", str(error), 501) from error
    return found
