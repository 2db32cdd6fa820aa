"""The spot market: requests, which live beside their instances, and prices.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2
from cloudprovider.emulator.ec2_filters import matches, page
from cloudprovider.emulator.ec2_instances import backend
from cloudprovider.emulator.ec2_machine import PRODUCT
from cloudprovider.emulator.ec2_prices import spot_price
from cloudprovider.emulator.wire import AWSError
from cloudprovider.emulator.wire_xml import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.ec2_instances import Instances
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.wire import Request

LOOKS: Mapping[str, Callable[[Any], Any]] = {
    "instance-id": lambda one: one.instance.id,
    "launched-availability-zone": lambda one: one.instance.availability_zone,
    "spot-instance-request-id": lambda one: one.id,
    "state": lambda one: one.state,
    "status-code": lambda one: one.status[0],
    "type": lambda one: one.kind,
}
#: How a request stands when its instance has ended, by why it has.
ENDED = {
    "Server.SpotInstanceTermination": (
        "instance-terminated-no-capacity",
        "Your Spot Instance was terminated because there is no Spot capacity available.",
    ),
    "Client.InstanceInitiatedShutdown": (
        "instance-terminated-by-user",
        "Your Spot Instance was terminated by user-initiated shutdown.",
    ),
}
BY_USER = ("instance-terminated-by-user", "Your Spot Instance was terminated by user-initiated termination.")
FULFILLED = ("fulfilled", "Your Spot request is fulfilled.")
NOTICED = ("marked-for-termination", "Your Spot Instance is marked for termination.")
CANCELLED = (
    "request-canceled-and-instance-running",
    "Your Spot request is canceled, but your instance is still running.",
)

Document = dict[str, Any]


class SpotRequest:
    """A spot request as it stands, seen through its instance."""

    def __init__(self, instance: LiveInstance) -> None:
        self.instance = instance
        self.id = instance.spot_request
        self.tags = instance.ec2_backend.tags.get(self.id, {})
        self.kind = "persistent" if instance.persistent else "one-time"

    @property
    def state(self) -> str:
        """`active`, `cancelled` or `closed`."""
        if self.instance.spot_cancelled:
            return "cancelled"
        return "closed" if self.instance.state in ("shutting-down", "terminated") else "active"

    @property
    def status(self) -> tuple[str, str]:
        """Code and message."""
        if self.state == "closed":
            return ENDED.get(self.instance.state_reason.code, BY_USER)
        if self.state == "cancelled":
            return CANCELLED
        return NOTICED if self.instance.notice else FULFILLED

    def told(self) -> Document:
        """The request as DescribeSpotInstanceRequests tells it."""
        one = self.instance
        code, message = self.status
        return {
            "SpotInstanceRequestId": self.id,
            "InstanceId": one.id,
            "State": self.state,
            "Status": {"Code": code, "Message": message, "UpdateTime": one.launch_time},
            "Type": self.kind,
            "CreateTime": one.launch_time,
            "LaunchedAvailabilityZone": one.availability_zone,
            "ProductDescription": PRODUCT,
            "InstanceInterruptionBehavior": "terminate",
            "LaunchSpecification": {
                "ImageId": one.image_id,
                "InstanceType": one.instance_type,
                "KeyName": one.key_name,
                "SecurityGroups": [
                    {"GroupId": group.id, "GroupName": group.name} for group in one.security_groups
                ],
            },
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }


class Spot:
    """The spot market of one account."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {
            "DescribeSpotInstanceRequests": self.describe,
            "CancelSpotInstanceRequests": self.cancel,
            "DescribeSpotPriceHistory": self.prices,
        }.get(operation)

    def describe(self, request: Request) -> Document:
        """DescribeSpotInstanceRequests: by id, by filter, in pages."""
        given = named(request)
        known = self._known(request.region)
        ids = given.get("SpotInstanceRequestIds")
        found = _chosen(known, ids) if ids else list(known.values())
        found = [one for one in found if matches(one, given.get("Filters") or [], LOOKS)]
        found, next_token = page(found, given)
        return {"SpotInstanceRequests": [one.told() for one in found], "NextToken": next_token}

    def cancel(self, request: Request) -> Document:
        """CancelSpotInstanceRequests: their instances live on."""
        found = _chosen(self._known(request.region), named(request)["SpotInstanceRequestIds"])
        for one in found:
            if one.state == "active":
                one.instance.spot_cancelled = True
        told = [{"SpotInstanceRequestId": one.id, "State": one.state} for one in found]
        return {"CancelledSpotInstanceRequests": told}

    def prices(self, request: Request) -> Document:
        """DescribeSpotPriceHistory: what each type costs in each zone; it never changes here."""
        given = named(request)
        network = backend(request.region)
        filters = {one["Name"]: one.get("Values") or [] for one in given.get("Filters") or []}
        kinds = given.get("InstanceTypes") or filters.get("instance-type") or ec2.offered(request.region)
        zones = [zone.name for zone in network.describe_availability_zones()]
        wanted = filters.get("availability-zone") or [given.get("AvailabilityZone") or ""]
        products = given.get("ProductDescriptions") or filters.get("product-description") or [PRODUCT]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        found = [
            {
                "AvailabilityZone": zone,
                "InstanceType": kind,
                "ProductDescription": PRODUCT,
                "SpotPrice": f"{price:.6f}",
                "Timestamp": stamp,
            }
            for kind in kinds
            for zone in zones
            if PRODUCT in products
            and (zone in wanted or "" in wanted)
            and zone in ec2.zones_offering(request.region, kind)
            and not math.isnan(price := spot_price(request.region, kind, zone))
        ]
        found, next_token = page(found, given, smallest=1)
        return {"SpotPriceHistory": found, "NextToken": next_token or ""}

    def _known(self, region: str) -> dict[str, SpotRequest]:
        return {one.spot_request: SpotRequest(one) for one in self._instances.of(region) if one.spot_request}


def _chosen(known: Mapping[str, SpotRequest], ids: list[str]) -> list[SpotRequest]:
    if lacking := [id for id in ids if id not in known]:
        raise AWSError(
            "InvalidSpotInstanceRequestID.NotFound",
            f"The spot instance request ID '{lacking[0]}' does not exist",
        )
    return [known[id] for id in ids]
