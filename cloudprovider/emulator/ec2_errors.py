"""What EC2 says when it refuses.

https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-errors.html (formerly errors-overview.html)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def invalid(message: str) -> AWSError:
    """A parameter has a value that cannot be."""
    return AWSError("InvalidParameterValue", message)


def combination(message: str) -> AWSError:
    """Parameters that cannot be used together."""
    return AWSError("InvalidParameterCombination", message)


def missing(name: str) -> AWSError:
    """A parameter that must be there."""
    return AWSError("MissingParameter", f"The request must contain the parameter {name}")


def no_instances(ids: Collection[str]) -> AWSError:
    """Ids that no instance has."""
    if malformed := next((id for id in ids if not id.startswith("i-")), ""):
        return AWSError("InvalidInstanceID.Malformed", f'Invalid id: "{malformed}"')
    plural, verb = ("s", "do") if len(ids) > 1 else ("", "does")
    return AWSError(
        "InvalidInstanceID.NotFound", f"The instance ID{plural} '{', '.join(ids)}' {verb} not exist"
    )


def insufficient(kind: str, zone: str, others: Iterable[str]) -> AWSError:
    """There is no on-demand capacity; EC2 counts it as a failure of its own."""
    elsewhere = ", ".join(others)
    way = f" or choosing {elsewhere}" if elsewhere else ""
    return AWSError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). "
        "Our system will be working on provisioning additional capacity. You can currently get "
        f"{kind} capacity by not specifying an Availability Zone in your request{way}.",
        500,
    )


def insufficient_spot() -> AWSError:
    """There is no spot capacity."""
    message = "There is no Spot capacity available that matches your request."
    return AWSError("InsufficientInstanceCapacity", message, 500)


def vcpu_limit(limit: float) -> AWSError:
    """The vCPU quota of on-demand instances is used up."""
    return AWSError(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the "
        "instance bucket that the specified instance type belongs to. Please visit "
        "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
    )


def spot_limit() -> AWSError:
    """The vCPU quota of spot instances is used up."""
    return AWSError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")


def not_offered(kind: str, zone: str, others: Iterable[str]) -> AWSError:
    """The type is not there in this zone."""
    elsewhere = ", ".join(others)
    way = f" or choosing {elsewhere}" if elsewhere else ""
    return AWSError(
        "Unsupported",
        f"Your requested instance type ({kind}) is not supported in your requested Availability Zone ({zone}). "
        f"Please retry your request by not specifying an Availability Zone{way}.",
    )
