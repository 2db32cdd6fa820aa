"""Which resources a description is asked for, and in which pages.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
"""

from __future__ import annotations

import base64
import binascii
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.ec2_errors import invalid
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SMALLEST = 5  # MaxResults of DescribeInstances

#: What each filter looks at.
LOOKS: Mapping[str, Callable[[Any], Any]] = {
    "architecture": lambda one: one.architecture,
    "availability-zone": lambda one: one.availability_zone,
    "client-token": lambda one: one.client_token,
    "dns-name": lambda one: one.public_dns_name,
    "iam-instance-profile.arn": lambda one: (one.iam_instance_profile or {}).get("Arn"),
    "iam-instance-profile.id": lambda one: (one.iam_instance_profile or {}).get("Id"),
    "image-id": lambda one: one.image_id,
    "instance-id": lambda one: one.id,
    "instance-lifecycle": lambda one: one.lifecycle,
    "instance-state-code": lambda one: one.state_code,
    "instance-state-name": lambda one: one.state,
    "instance-type": lambda one: one.instance_type,
    "instance.group-id": lambda one: [group.id for group in one.security_groups],
    "instance.group-name": lambda one: [group.name for group in one.security_groups],
    "ip-address": lambda one: one.public_ip,
    "key-name": lambda one: one.key_name,
    "network-interface.network-interface-id": lambda one: [nic.id for nic in one.nics.values()],
    "network-interface.subnet-id": lambda one: [nic.subnet.id for nic in one.nics.values()],
    "owner-id": lambda one: one.owner_id,
    "private-dns-name": lambda one: one.private_dns_name,
    "private-ip-address": lambda one: one.private_ip,
    "reason": lambda one: one._reason,
    "reservation-id": lambda one: one.reservation_id,
    "root-device-name": lambda one: one.root_device_name,
    "root-device-type": lambda one: one.root_device_type,
    "spot-instance-request-id": lambda one: one.spot_request,
    "state-reason-code": lambda one: one.state_reason.code,
    "subnet-id": lambda one: [nic.subnet.id for nic in one.nics.values()],
    "virtualization-type": lambda one: one.virtualization_type,
    "vpc-id": lambda one: [nic.subnet.vpc_id for nic in one.nics.values()],
}


def matches(one: Any, filters: Sequence[Mapping[str, Any]], looks: Mapping[str, Any] = LOOKS) -> bool:
    """Whether a resource passes all filters, each by one of its values; `*` and `?` are wild."""
    return all(_passes(one, given, looks) for given in filters)


def _passes(one: Any, given: Mapping[str, Any], looks: Mapping[str, Any]) -> bool:
    name, wanted = given["Name"], given.get("Values") or []
    if name.startswith("tag:"):
        has = [one.tags[name[4:]]] if name[4:] in one.tags else []
    elif name == "tag-key":
        has = list(one.tags)
    elif name in looks:
        value = looks[name](one)
        has = value if isinstance(value, list) else [] if value is None else [value]
    else:
        raise invalid(f"The filter '{name}' is invalid")
    return any(fnmatchcase(str(value), pattern.replace("[", "[[]")) for value in has for pattern in wanted)


def page(
    found: list[Any], given: Mapping[str, Any], smallest: int = SMALLEST
) -> tuple[list[Any], str | None]:
    """A page of what was found, and what asks for the next one."""
    after = _read(given["NextToken"]) if given.get("NextToken") else 0
    most = given.get("MaxResults")
    if most is None:
        return found[after:], None
    if most < smallest:
        raise invalid(
            f"Value ( {most} ) for parameter maxResults is invalid. Expecting a value greater than {smallest}."
        )
    end = after + most
    token = base64.b64encode(f"after {end}".encode()).decode() if end < len(found) else None
    return found[after:end], token


def _read(token: str) -> int:
    try:
        word, _, number = base64.b64decode(token, validate=True).decode().partition(" ")
        if word == "after":
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise AWSError("InvalidNextToken", "The token is invalid.")
