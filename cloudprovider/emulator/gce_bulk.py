"""Many instances in one call, in one zone or in the zones of a region.

https://cloud.google.com/compute/docs/instances/multiple/about-bulk-creation
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-bulk-vm-creation
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gce_catalogue
from cloudprovider.emulator.gce_capacity import stockout
from cloudprovider.emulator.gce_links import Place, check_name, invalid
from cloudprovider.emulator.gce_offers import check_zone
from cloudprovider.emulator.gce_operations import Failure
from cloudprovider.emulator.gce_orders import check_known
from cloudprovider.emulator.gcp_wire import GCPError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudprovider.emulator.gce_instances import Instances
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_operations import Operation, Operations
    from cloudprovider.emulator.gce_orders import Order
    from cloudprovider.emulator.gce_request import Call

MOST = 1000
MOST_AT_ONCE = 10
HASHES = re.compile(r"[^#]*(#{1,18})[^#]*")
#: Fields of instances that a bulk of them takes only where it is for all alike.
ONE_OFFS = ("natIP", "networkIP")


@dataclass(kw_only=True)
class _Plan:
    """What one call is to make.

    Parameters
    ----------
    names
        Of all instances, in order.
    least
        How many there must be at the least.
    orders
        The order in each zone that may be.
    shape
        `ANY`, `ANY_SINGLE_ZONE` or `BALANCED`.
    most
        How many there may be in a zone, where that is limited.
    """

    names: list[str]
    least: int
    orders: Mapping[str, Order]
    shape: str
    most: Mapping[str, int]


class Bulk:
    """Makes many instances."""

    def __init__(self, instances: Instances, operations: Operations) -> None:
        self._instances, self._operations = instances, operations

    def zonal(self, request: Call) -> Document:
        """instances.bulkInsert."""
        zone = request.arguments["zone"]
        check_zone(request.project, zone)
        if request.given.get("locationPolicy"):
            raise invalid(
                "resource.locationPolicy", "", "Only regional bulk requests have a location policy."
            )
        return self._insert(request, [zone], "ANY_SINGLE_ZONE", {})

    def regional(self, request: Call) -> Document:
        """regionInstances.bulkInsert."""
        policy = request.given.get("locationPolicy") or {}
        zones = gce_catalogue.regions().get(request.arguments["region"])
        if zones is None:
            raise GCPError(404, f"The resource 'projects/{request.project}/{request.scope}' was not found", reason="notFound")  # fmt: skip
        allowed, most = _allowed(policy, zones)
        return self._insert(request, allowed, policy.get("targetShape", "ANY_SINGLE_ZONE"), most)

    def _insert(self, request: Call, zones: Sequence[str], shape: str, most: Mapping[str, int]) -> Document:
        check_known(request.given)
        orders = self._orders(request, zones)
        names = list(_names(request.given, self._taken(request)))
        least = int(request.given.get("minCount") or len(names))
        if not 1 <= least <= len(names):
            raise invalid("resource.minCount", least, "Must be between 1 and the count.")
        plan = _Plan(names=names, least=least, orders=orders, shape=shape, most=most)

        def work() -> Operation:
            for zone, order in orders.items():
                for name in names:
                    where = Place(request.project, f"zones/{zone}", "instances", name)
                    self._instances.check_free(where, order)
            if self._operations.running("bulkInsert") >= MOST_AT_ONCE:
                raise GCPError(403, f"At most {MOST_AT_ONCE} bulk operations may run at the same time.", reason="rateLimitExceeded")  # fmt: skip
            self._check_feasible(request, plan)
            return self._begin(request, plan)

        return self._operations.once(request, work)

    def _taken(self, request: Call) -> list[str]:
        return [one.name for one in self._instances.all() if one.where.project == request.project]

    def _orders(self, request: Call, zones: Sequence[str]) -> dict[str, Order]:
        """The order in each zone that has the type; refused as in the first when none has."""
        properties = request.given.get("instanceProperties") or {}
        _check_alike(properties)
        found, refused = {}, []
        for zone in zones:
            try:
                found[zone] = self._instances.orders.read(_zonal(properties, zone), request.project, zone)
            except GCPError as error:
                if "does not exist in zone" not in error.message and "acceleratorType" not in error.message:
                    raise
                refused.append(error)
        if refused and not found:
            raise refused[0]
        return found

    # -- where ---------------------------------------------------------------------------------------

    def _check_feasible(self, request: Call, plan: _Plan) -> None:
        """Refuse at once what cannot be begun at all: bulk requests are validated with capacity and quota."""
        capacity = self._instances.capacity
        zone, order = next(iter(plan.orders.items()))
        count, metric = capacity.within_quota(order, zone)
        if count < 1:
            raise GCPError(403, capacity.over_quota(metric, zone).message, reason="quotaExceeded")
        if not any(capacity.room(one, where) for where, one in plan.orders.items()):
            raise GCPError(
                503,
                f"The {'region' if 'region' in request.arguments else 'zone'} 'projects/{request.project}/"
                f"{request.scope}' does not have enough resources available to fulfill the request.",
                reason="insufficientCapacity",
            )

    def _shares(self, plan: _Plan) -> dict[str, int]:
        """How many instances each zone gets, by the shape that was asked for."""
        rooms = {
            zone: min(self._instances.capacity.room(order, zone), plan.most.get(zone, len(plan.names)))
            for zone, order in plan.orders.items()
        }
        wanted = len(plan.names)
        if plan.shape == "ANY_SINGLE_ZONE":
            best = max(rooms, key=lambda zone: min(rooms[zone], wanted))
            return {best: wanted}
        if plan.shape == "ANY":
            shares: dict[str, int] = {}
            for zone in sorted(rooms, key=lambda zone: -rooms[zone]):
                shares[zone] = min(rooms[zone], wanted - sum(shares.values()))
        else:
            shares = _balanced(rooms, wanted)
        missing = wanted - sum(shares.values())
        fullest = next(iter(shares))
        return {**shares, fullest: shares[fullest] + missing}

    # -- making them ---------------------------------------------------------------------------------

    def _begin(self, request: Call, plan: _Plan) -> Operation:
        """Make what there is room for; an insert of its own tells of each instance."""
        group = str(uuid.uuid4())
        user = request.principal.email
        target = Place(request.project, request.scope, "instances", "")
        operation = self._operations.begin("bulkInsert", target, user, operationGroupId=group)
        operation.document["targetLink"] = target.link.partition("/instances/")[0]
        names = iter(plan.names)
        made: list[tuple[Place, Operation]] = []
        failures: list[Failure] = []
        places: dict[str, Document] = {}
        for zone, count in self._shares(plan).items():
            done, failed = self._make(request, plan.orders[zone], zone, [next(names) for _ in range(count)], group)  # fmt: skip
            made += done
            failures += failed
            places[f"zones/{zone}"] = _status(count, len(done), len(failed))
        operation.document["instancesBulkInsertOperationMetadata"] = {"perLocationStatus": places}
        if len(made) < plan.least:
            self._roll_back(operation, plan, made, failures, places)
        else:
            self._finish_with(operation, [one for _, one in made], places)
        return operation

    def _make(
        self, request: Call, order: Order, zone: str, names: Sequence[str], group: str
    ) -> tuple[list[tuple[Place, Operation]], list[Failure]]:
        """Make instances in a zone: those that were made, and why others were not."""
        capacity, made, failures = self._instances.capacity, [], []
        within, metric = capacity.within_quota(order, zone)
        room = capacity.room(order, zone)
        for number, name in enumerate(names):
            where = Place(request.project, f"zones/{zone}", "instances", name)
            operation = self._operations.begin("insert", where, request.principal.email, operationGroupId=group)  # fmt: skip
            failure = self._failure(order, zone, request.project, number, (within, metric, room))
            if failure is None:
                try:
                    self._instances.make(where, order, operation)
                    made.append((where, operation))
                    continue
                except Failure as error:  # no address
                    failure = error
            failures.append(failure)
            operation.finish(failure)
        capacity.take(order, zone, len(made))
        return made, failures

    def _failure(
        self, order: Order, zone: str, project: str, number: int, limits: tuple[int, str, int]
    ) -> Failure | None:
        within, metric, room = limits
        if number >= within:
            return self._instances.capacity.over_quota(metric, zone)
        return stockout(order, zone, project) if number >= room else None

    def _finish_with(
        self, operation: Operation, parts: Sequence[Operation], places: dict[str, Document]
    ) -> None:
        """It is done when all of its instances run."""

        def look() -> None:
            if all(one.over.is_set() for one in parts):
                for place in places.values():
                    place["status"] = "DONE"
                operation.finish()
            else:
                self._operations.later(look)

        self._operations.later(look)

    def _roll_back(
        self,
        operation: Operation,
        plan: _Plan,
        made: Sequence[tuple[Place, Operation]],
        failures: Sequence[Failure],
        places: dict[str, Document],
    ) -> None:
        """Too few could be made: none is kept."""
        life = self._instances.life
        deletions = []
        for where, _ in made:
            instance = self._instances.at(where)
            deletion = self._operations.begin("delete", where, operation.document["user"])
            deletions.append(deletion)
            life.delete(instance, deletion)
        for place in places.values():
            place["status"], place["deletedVmCount"] = "ROLLING_BACK", place["createdVmCount"]
        causes = {one.code: one for one in failures}
        summary = Failure(
            "VM_MIN_COUNT_NOT_REACHED",
            f"Requested minimum count of {plan.least} VMs could not be created.",
            failures[0].status,
        )

        def look() -> None:
            if all(one.over.is_set() for one in deletions):
                operation.finish(summary, *causes.values())
            else:
                self._operations.later(look)

        self._operations.later(look)


def _allowed(policy: Document, zones: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The zones of a region that a policy leaves, and how many instances each may get."""
    places = policy.get("locations") or {}
    for name in places:
        if name.rpartition("/")[2] not in zones or not name.startswith("zones/"):
            raise invalid("resource.locationPolicy.locations", name, "Must be a zone of the region, as zones/ZONE.")  # fmt: skip
    chosen = {name.rpartition("/")[2]: one for name, one in places.items()}
    denied = {zone for zone, one in chosen.items() if one.get("preference") == "DENY"}
    allowed = [zone for zone, one in chosen.items() if one.get("preference") == "ALLOW"]
    most = {
        zone: one["constraints"]["maxCount"]
        for zone, one in chosen.items()
        if "maxCount" in (one.get("constraints") or {})
    }
    # Zones that are not listed are allowed too, after those that are.
    left = [*allowed, *(zone for zone in zones if zone not in denied and zone not in allowed)]
    if not left:
        raise invalid("resource.locationPolicy.locations", "", "At least one zone must be allowed.")
    return left, most


def _names(given: Document, taken: Sequence[str]) -> Iterator[str]:
    """The names of the instances: as given, or by the pattern."""
    count, pattern = int(given.get("count") or 0), given.get("namePattern", "")
    own: Mapping[str, Any] = given.get("perInstanceProperties") or {}
    if bool(pattern) == bool(own):
        raise invalid("resource.namePattern", pattern, "Exactly one of namePattern and perInstanceProperties must be set.")  # fmt: skip
    if own and not count:
        count = len(own)
    if not 1 <= count <= MOST:
        raise invalid("resource.count", count, f"Must be between 1 and {MOST}.")
    if own:
        if len(own) != count:
            raise invalid("resource.perInstanceProperties", len(own), "Must have as many entries as count says.")  # fmt: skip
        for name in own:
            check_name("resource.perInstanceProperties", name)
        yield from own
        return
    match = HASHES.fullmatch(pattern)
    if match is None:
        raise invalid("resource.namePattern", pattern, "Must contain one sequence of '#'.")
    head, digits, tail = pattern.partition(match[1])
    check_name("resource.namePattern", f"{head}{'0' * len(digits)}{tail}")
    like = re.compile(rf"{re.escape(head)}(\d{{{len(digits)}}}){re.escape(tail)}")
    first = 1 + max((int(found[1]) for name in taken if (found := like.fullmatch(name))), default=0)
    for number in range(first, first + count):
        yield f"{head}{number:0{len(digits)}d}{tail}"


def _check_alike(properties: Document) -> None:
    """Refuse what cannot be the same for several instances."""
    for interface in properties.get("networkInterfaces") or []:
        for part in (interface, *(interface.get("accessConfigs") or [])):
            for field in ONE_OFFS:
                if part.get(field):
                    raise invalid(f"resource.instanceProperties.networkInterfaces[0].{field}", part[field], "Not supported in bulk requests.")  # fmt: skip
    for disk in properties.get("disks") or []:
        if disk.get("source"):
            raise invalid("resource.instanceProperties.disks[0].source", disk["source"], "Not supported in bulk requests.")  # fmt: skip
    kind = properties.get("machineType", "")
    if "/" in kind:
        raise invalid("resource.instanceProperties.machineType", kind, "Must be the name of a machine type, not a URL.")  # fmt: skip


def _zonal(properties: Document, zone: str) -> Document:
    """The properties as those of an instance in a zone: types of machines and disks are told by their names."""
    kind = properties.get("machineType", "")
    return {**properties, "machineType": f"zones/{zone}/machineTypes/{kind}"}


def _balanced(rooms: Mapping[str, int], wanted: int) -> dict[str, int]:
    """As evenly as the zones have room."""
    shares = dict.fromkeys(rooms, 0)
    while sum(shares.values()) < wanted:
        open_ones = [zone for zone in rooms if shares[zone] < rooms[zone]]
        if not open_ones:
            break
        shares[min(open_ones, key=lambda zone: shares[zone])] += 1
    return shares


def _status(target: int, created: int, failed: int) -> Document:
    return {
        "targetVmCount": target,
        "createdVmCount": created,
        "failedToCreateVmCount": failed,
        "deletedVmCount": 0,
        "status": "CREATING",
    }
