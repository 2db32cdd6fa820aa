"""EC2's calls about instances, answered by live ones; the rest is moto's, with what AWS refuses refused."""

from __future__ import annotations

import base64
import time
import uuid
from typing import TYPE_CHECKING, Any

from moto.ec2.models.instances import Reservation

from cloudprovider.emulator import ec2
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.ec2_capacity import Capacity
from cloudprovider.emulator.ec2_errors import (
    combination,
    insufficient,
    insufficient_spot,
    invalid,
    no_instances,
    not_offered,
)
from cloudprovider.emulator.ec2_filters import matches, page
from cloudprovider.emulator.ec2_life import InstanceLife
from cloudprovider.emulator.ec2_machine import LiveInstance
from cloudprovider.emulator.ec2_orders import order
from cloudprovider.emulator.wire import AWSError
from cloudprovider.emulator.wire_xml import Written, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ec2_orders import Order
    from cloudprovider.emulator.quotas import Quotas
    from cloudprovider.emulator.wire import Request

REMEMBERED_S = 3600.0  # "remains visible … for a short while": user guide, terminating-instances
CONSOLE_BYTES = 64 * 1024  # GetConsoleOutput
TOKEN_S = 24 * 3600.0

Document = dict[str, Any]


class Instances:
    """The instances of one account, in every region."""

    def __init__(self, account: Account, quotas: Quotas) -> None:
        self._account = account
        self.life = InstanceLife(account)
        self.capacity = Capacity(account, quotas)
        self._tokens: dict[tuple[str, str, str], tuple[float, str, Any]] = {}
        ec2.LiveEC2.launcher = staticmethod(self._launch_for_moto)

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {
            "RunInstances": self.run,
            "DescribeInstances": self.describe,
            "DescribeInstanceStatus": self.describe_status,
            "TerminateInstances": self.terminate,
            "StopInstances": self.stop,
            "StartInstances": self.start,
            "RebootInstances": self.reboot,
            "GetConsoleOutput": self.console,
        }.get(operation)

    # -- all of them ---------------------------------------------------------------------------------

    def all(self) -> Iterator[LiveInstance]:
        """Every live instance, in every region, and those that ended until an hour ago."""
        from moto.ec2 import ec2_backends

        for region in list(ec2_backends[ACCOUNT]):
            yield from self.of(region)

    def of(self, region: str) -> list[LiveInstance]:
        """The live instances of a region, oldest first."""
        return [one for one in known(region).values() if isinstance(one, LiveInstance)]

    def find(self, id: str) -> LiveInstance:
        """The instance of this id, in any region."""
        from moto.ec2 import ec2_backends

        for network in list(ec2_backends[ACCOUNT].values()):
            if isinstance(found := network.get_instance_by_id(id), LiveInstance):
                return found
        raise KeyError(f"There is no machine {id}.")

    # -- the operations ------------------------------------------------------------------------------

    def run(self, request: Request) -> Document:
        """RunInstances: as many as there is room for, between MinCount and MaxCount."""
        given = named(request)
        token = given.get("ClientToken", "")
        if known := self.remembered(request, token, given):
            return self._reservation(known)
        least, most = given["MinCount"], given["MaxCount"]
        if not 1 <= least <= most:
            raise invalid(f"Value ({most}) for parameter maxCount is invalid. It must be at least minCount.")
        wanted = order(backend(request.region), given, self.fresh_s())
        self.capacity.pace(request, most)
        if given.get("DryRun"):
            raise AWSError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        made = self.launch(request.region, wanted, least, most, token)
        self.remember(request, token, given, made)
        return self._reservation(made)

    def describe(self, request: Request) -> Document:
        """DescribeInstances: by id, by filter, in pages."""
        given = named(request)
        found = self.chosen(request.region, given)
        found, next_token = page(found, given)
        return {"Reservations": Written("".join(_reservations(found))), "NextToken": next_token}

    def describe_status(self, request: Request) -> Document:
        """DescribeInstanceStatus: of the running ones, unless all are asked for."""
        given = named(request)
        found = self.chosen(request.region, given)
        if not given.get("IncludeAllInstances"):
            found = [one for one in found if one.state == "running"]
        found, next_token = page(found, given)
        return {"InstanceStatuses": [_status(one) for one in found], "NextToken": next_token}

    def terminate(self, request: Request) -> Document:
        """TerminateInstances: all of them or, when one cannot be, none."""
        given = named(request)
        found = self._named(request, given)
        for one in found:
            if one.disable_api_termination:
                raise AWSError(
                    "OperationNotPermitted",
                    f"The instance '{one.id}' may not be terminated. Modify its 'disableApiTermination' "
                    "instance attribute and try again.",
                )
        force = bool(given.get("SkipOsShutdown"))
        return {
            "TerminatingInstances": [_change(one, _ended(self.life.terminate, one, force)) for one in found]
        }

    def stop(self, request: Request) -> Document:
        """StopInstances: those of a persistent market only."""
        given = named(request)
        found = self._named(request, given)
        for one in found:
            if one.market == "spot" and not one.persistent:
                raise AWSError(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{one.id}' because it is associated with a one-time Spot "
                    "Instance request. You can only stop Spot Instances associated with persistent Spot Instance "
                    "requests.",
                )
            if one.state in ("shutting-down", "terminated"):
                raise _wrong_state(one, "stopped")
        force = bool(given.get("Force") or given.get("SkipOsShutdown"))
        return {"StoppingInstances": [_change(one, _ended(self.life.stop, one, force)) for one in found]}

    def start(self, request: Request) -> Document:
        """StartInstances: those that are stopped."""
        found = self._named(request, named(request))
        for one in found:
            if one.state not in ("stopped", "pending", "running"):
                raise _wrong_state(one, "started")
        return {"StartingInstances": [_change(one, one.start()) for one in found]}

    def reboot(self, request: Request) -> Document:
        """RebootInstances."""
        for one in self._named(request, named(request)):
            one.reboot()
        return {}

    def console(self, request: Request) -> Document:
        """GetConsoleOutput: the last 64 KB of what the serial console said, in base64."""
        [one] = self._named(request, {"InstanceIds": [named(request)["InstanceId"]]})
        text = "\r\n".join(getattr(one, "console", [])).encode()[-CONSOLE_BYTES:]
        output = base64.b64encode(text).decode()
        return {"InstanceId": one.id, "Timestamp": _timestamp(), "Output": output}

    # -- how -----------------------------------------------------------------------------------------

    def fresh_s(self) -> float:
        """How old an instance profile must be before EC2 knows it."""
        return max((fault.seconds for fault in self._account.faults.of("role-propagation")), default=0.0)

    def room(self, region: str, wanted: Order) -> int:
        """How many instances of an order there is room for, in the zone where there is most."""
        network = backend(region)
        offered = ec2.zones_offering(region, wanted.type)
        there = self.of(region)
        zones = [one.availability_zone for one in _subnets(network, wanted)]
        rooms = [self.capacity.room(wanted, zone, there) for zone in zones if zone in offered]
        return max(rooms, default=0)

    def launch(
        self, region: str, wanted: Order, least: int, most: int, token: str = "", **facts: Any
    ) -> list[LiveInstance]:
        """Start between `least` and `most` instances of an order in one zone.

        Raises
        ------
        AWSError
            When there is no room for `least`.
        """
        network = backend(region)
        there = self.of(region)
        if least > self.capacity.within_quota(wanted, there):
            raise self.capacity.over_quota(wanted)
        most = min(most, self.capacity.within_quota(wanted, there))
        subnet, room = self._place(network, wanted, least, there)
        free = ec2.free_addresses(network, subnet.id) - self._held_addresses(network, subnet.id)
        if free < least:
            raise AWSError(
                "InsufficientFreeAddressesInSubnet",
                f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested number of "
                "instances.",
            )
        count = min(most, room, free)
        self.capacity.take(wanted, subnet.availability_zone, count)
        return self._make(network, wanted, subnet, count, token, facts)

    def _launch_for_moto(self, region: str, given: Mapping[str, Any], count: int) -> list[LiveInstance]:
        return self.launch(region, order(backend(region), given), count, count)

    def _make(
        self, network: Any, wanted: Order, subnet: Any, count: int, token: str, facts: Mapping[str, Any]
    ) -> list[LiveInstance]:
        reservation = Reservation(f"r-{uuid.uuid4().hex[:17]}", ACCOUNT)
        network.reservations[reservation.id] = reservation
        public = _is_public(wanted, subnet)
        tags = {**wanted.tags.get("instance", {}), **_own_tags(wanted, facts)}
        made = []
        for index in range(count):
            one = LiveInstance(network, wanted, reservation.id, index, token)
            one.attach(subnet, public=public)
            if tags:
                network.tags[one.id].update(tags)
            if one.spot_request and "spot-instances-request" in wanted.tags:
                network.tags[one.spot_request].update(wanted.tags["spot-instances-request"])
            reservation.instances.append(one)
            self.life.begin(one)
            made.append(one)
        known(network.region_name).update({one.id: one for one in made})
        return made

    def _place(
        self, network: Any, wanted: Order, least: int, there: Sequence[LiveInstance]
    ) -> tuple[Any, int]:
        """The subnet that an order goes to, and how many instances there is room for in its zone."""
        subnets = _subnets(network, wanted)
        offered = ec2.zones_offering(network.region_name, wanted.type)
        usable = [one for one in subnets if one.availability_zone in offered]
        if not usable:
            raise not_offered(wanted.type, subnets[0].availability_zone, sorted(offered))
        for subnet in usable:
            room = self.capacity.room(wanted, subnet.availability_zone, there)
            if room >= least:
                return subnet, room
        if wanted.market == "spot":
            raise insufficient_spot()
        zone = usable[0].availability_zone
        raise insufficient(wanted.type, zone, sorted(offered - {one.availability_zone for one in usable}))

    def _held_addresses(self, network: Any, subnet: str) -> int:
        held = 0
        for fault in self._account.faults.of("addresses"):
            if fault.subnet in ("", subnet):
                free = ec2.free_addresses(network, subnet)
                held = max(held, fault.held.setdefault(subnet, free - fault.room))
        return held

    def chosen(self, region: str, given: Mapping[str, Any]) -> list[Any]:
        """The instances that a description asks for."""
        ids = given.get("InstanceIds") or []
        if ids and "MaxResults" in given:
            raise combination("The parameter instancesSet cannot be used with the parameter maxResults")
        everything = {id: one for id, one in known(region).items() if self._visible(one)}
        if lacking := [id for id in ids if id not in everything]:
            raise no_instances(lacking)
        found = [everything[id] for id in dict.fromkeys(ids)] if ids else list(everything.values())
        filters = given.get("Filters") or []
        return [one for one in found if matches(one, filters)]

    def _named(self, request: Request, given: Mapping[str, Any]) -> list[Any]:
        everything = known(request.region)
        ids = list(dict.fromkeys(given["InstanceIds"]))
        lacking = [id for id in ids if id not in everything or not self._visible(everything[id])]
        if lacking:
            raise no_instances(lacking)
        self.capacity.pace(request, len(ids))
        return [everything[id] for id in ids]

    def _visible(self, one: Any) -> bool:
        age = time.time() - getattr(one, "created", 0.0)
        return all(age >= fault.seconds for fault in self._account.faults.of("stale"))

    def remembered(self, request: Request, token: str, given: Mapping[str, Any]) -> Any:
        """What was made by an earlier call of the same token; None when there was none."""
        found = self._tokens.get((request.region, request.operation, token)) if token else None
        if found is None or time.time() - found[0] > TOKEN_S:
            return None
        if found[1] != repr(given):
            raise AWSError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        return found[2]

    def remember(self, request: Request, token: str, given: Mapping[str, Any], made: Any) -> None:
        """Answer the same to who calls again by the same token."""
        if token:
            self._tokens[request.region, request.operation, token] = (time.time(), repr(given), made)

    @staticmethod
    def _reservation(made: Sequence[LiveInstance]) -> Document:
        return {
            "ReservationId": made[0].reservation_id,
            "OwnerId": ACCOUNT,
            "Groups": [],
            "Instances": [one.told() for one in made],
        }


def backend(region: str) -> Any:
    """Moto's EC2 of a region."""
    from moto.ec2 import ec2_backends

    return ec2_backends[ACCOUNT][region]


def known(region: str) -> dict[str, Any]:
    """The instances of a region by id, oldest first; those that ended an hour ago are forgotten."""
    network = backend(region)
    instances: dict[str, Any] = network.instances_by_id()
    forgotten = time.time() - REMEMBERED_S
    for id, one in list(instances.items()):
        if (getattr(one, "ended", None) or forgotten) < forgotten:
            network.forget(one)
            instances.pop(id, None)
    return instances


def _subnets(network: Any, wanted: Order) -> list[Any]:
    """Where an order may go, as it says or as EC2 chooses."""
    if wanted.subnet:
        found = ec2.subnet(network, wanted.subnet)
        if wanted.zone and found.availability_zone != wanted.zone:
            raise combination(
                f"The availability zone '{wanted.zone}' does not match that of subnet '{wanted.subnet}'."
            )
        _check_groups(network, wanted, found)
        return [found]
    zones = {zone.name for zone in network.describe_availability_zones()}
    if wanted.zone and wanted.zone not in zones:
        raise invalid(
            f"Invalid availability zone: [{wanted.zone}]. The valid zones are: {', '.join(sorted(zones))}"
        )
    default = network.get_default_subnets()
    found = [one for zone, one in sorted(default.items()) if wanted.zone in ("", zone)]
    if not found:
        raise AWSError("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
    _check_groups(network, wanted, found[0])
    return found


def _check_groups(network: Any, wanted: Order, subnet: Any) -> None:
    for id in wanted.groups:
        if network.get_security_group_from_id(id).vpc_id != subnet.vpc_id:
            raise AWSError(
                "InvalidParameter",
                f"Security group {id} and subnet {subnet.id} belong to different networks.",
            )


def _is_public(wanted: Order, subnet: Any) -> bool:
    interfaces = wanted.given.get("NetworkInterfaces") or []
    asked = [one["AssociatePublicIpAddress"] for one in interfaces if "AssociatePublicIpAddress" in one]
    return bool(asked[0]) if asked else bool(subnet.map_public_ip_on_launch)


def _own_tags(wanted: Order, facts: Mapping[str, Any]) -> dict[str, str]:
    """What EC2 itself tags."""
    tags = {}
    if wanted.template:
        tags["aws:ec2launchtemplate:id"] = wanted.template[0]
        tags["aws:ec2launchtemplate:version"] = str(wanted.template[1])
    if fleet := facts.get("fleet"):
        tags["aws:ec2:fleet-id"] = fleet
    return tags


def _reservations(found: Sequence[Any]) -> Iterator[str]:
    """Instances by their reservations, as DescribeInstances writes them."""
    by_reservation: dict[str, list[Any]] = {}
    for one in found:
        by_reservation.setdefault(one.reservation_id, []).append(one)
    for id, instances in by_reservation.items():
        inside = "".join(f"<item>{one.told()}</item>" for one in instances)
        yield (
            f"<item><reservationId>{id}</reservationId><ownerId>{ACCOUNT}</ownerId><groupSet/>"
            f"<instancesSet>{inside}</instancesSet></item>"
        )


def _status(one: Any) -> Document:
    healthy = {"Details": [{"Name": "reachability", "Status": "passed"}], "Status": "ok"}
    unknown = {"Status": "not-applicable"}
    status = healthy if one.state == "running" else unknown
    return {
        "AvailabilityZone": one.availability_zone,
        "InstanceId": one.id,
        "InstanceState": {"Code": one.state_code, "Name": one.state},
        "InstanceStatus": status,
        "SystemStatus": status,
    }


def _ended(how: Callable[..., Any], one: Any, force: bool) -> Any:  # noqa: FBT001  (as EC2 asks)
    return how(one, force=force)


def _change(one: Any, before: Any) -> Document:
    return {
        "InstanceId": one.id,
        "CurrentState": {"Code": one.state_code, "Name": one.state},
        "PreviousState": {"Code": before.code, "Name": before.name},
    }


def _wrong_state(one: Any, what: str) -> AWSError:
    return AWSError(
        "IncorrectInstanceState", f"The instance '{one.id}' is not in a state from which it can be {what}."
    )


def _timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
