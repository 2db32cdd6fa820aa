"""Compute Engine's calls about instances, but for those that make many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_bulk import Bulk
from cloudprovider.emulator.gce_capacity import stockout
from cloudprovider.emulator.gce_links import BASE, Place, check_labels, check_name, fingerprint, invalid
from cloudprovider.emulator.gce_lists import aggregated, listed
from cloudprovider.emulator.gce_machine import LiveInstance
from cloudprovider.emulator.gce_offers import all_zones, check_zone
from cloudprovider.emulator.gce_operations import Failure, Operation
from cloudprovider.emulator.gce_orders import check_known, check_metadata
from cloudprovider.emulator.gcp_wire import GCPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_capacity import Capacity
    from cloudprovider.emulator.gce_disks import Disks
    from cloudprovider.emulator.gce_life import InstanceLife
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_networks import Networks
    from cloudprovider.emulator.gce_operations import Operations
    from cloudprovider.emulator.gce_orders import Order, Orders
    from cloudprovider.emulator.gce_request import Call

REMEMBERED_S = 3600.0  # how long the emulator tells of machines that are gone
MOST_REMEMBERED = 5000
CONSOLE_BYTES = 1024 * 1024  # "up to 1 MB": instances.getSerialPortOutput
PORTS = 4


class Instances:
    """The instances of one account."""

    def __init__(
        self,
        account: Account,
        operations: Operations,
        networks: Networks,
        disks: Disks,
        capacity: Capacity,
        orders: Orders,
        life: InstanceLife,
    ) -> None:
        self._account, self._operations = account, operations
        self._networks, self._disks = networks, disks
        self.capacity, self.orders, self.life = capacity, orders, life
        self._known: dict[Place, LiveInstance] = {}
        self._by_id: dict[str, LiveInstance] = {}
        self._gone: list[tuple[float, LiveInstance]] = []
        capacity.instances = lambda: list(self._known.values())
        life.gone = self._forget
        bulk = Bulk(self, operations)
        self.handlers: dict[str, Callable[[Call], Any]] = {
            "instances.insert": self.insert,
            "instances.bulkInsert": bulk.zonal,
            "regionInstances.bulkInsert": bulk.regional,
            "instances.get": self.get,
            "instances.list": self.list,
            "instances.aggregatedList": self.aggregated,
            "instances.delete": self.delete,
            "instances.start": self.start,
            "instances.stop": self.stop,
            "instances.reset": self.reset,
            "instances.setLabels": self.set_labels,
            "instances.setMetadata": self.set_metadata,
            "instances.setTags": self.set_tags,
            "instances.setScheduling": self.set_scheduling,
            "instances.setDeletionProtection": self.set_protection,
            "instances.simulateMaintenanceEvent": self.simulate_maintenance,
            "instances.getSerialPortOutput": self.console,
        }

    # -- all of them ---------------------------------------------------------------------------------

    def all(self) -> list[LiveInstance]:
        """Every instance that there is."""
        return list(self._known.values())

    def remembered(self) -> list[LiveInstance]:
        """Every instance, those included that were deleted within the last hour."""
        since = time.time() - REMEMBERED_S
        return [one for moment, one in self._gone if moment > since] + self.all()

    def at(self, where: Place) -> LiveInstance:
        """The instance of a place."""
        return self._known[where]

    def named(self, id: str) -> LiveInstance:
        """The instance that the emulator calls so.

        Raises
        ------
        LookupError
            When there is none.
        """
        if id in self._by_id:
            return self._by_id[id]
        raise LookupError(f"There is no machine {id}.")

    def _forget(self, instance: LiveInstance) -> None:
        self._known.pop(instance.where, None)
        self._by_id.pop(instance.id, None)
        self._gone = [*self._gone[-MOST_REMEMBERED:], (time.time(), instance)]

    def _find(self, request: Call) -> LiveInstance:
        where = request.place("instances", request.arguments["instance"])
        found = self._known.get(where)
        if found is None or not self._visible(found):
            raise where.missing()
        return found

    def _visible(self, one: LiveInstance) -> bool:
        age = time.time() - one.created
        return all(age >= fault.seconds for fault in self._account.faults.of("stale"))

    # -- making them ---------------------------------------------------------------------------------

    def insert(self, request: Call) -> Document:
        """instances.insert: accepted at once, made or not made a while later."""
        check_zone(request.project, request.arguments["zone"])
        check_known({name: request.asked(name) for name in ("sourceInstanceTemplate", "sourceMachineImage")})
        where = request.place("instances", request.given.get("name", ""))
        check_name("resource.name", where.name)
        zone = request.arguments["zone"]
        order = self.orders.read(request.given, request.project, zone)

        def work() -> Operation:
            self.check_free(where, order)
            operation = self._operations.begin("insert", where, request.principal.email)
            if failure := self.refusal(order, zone, request.project):
                self._operations.soon(operation, _failing(failure))
                return operation
            self.capacity.take(order, zone)
            self.make(where, order, operation)
            return operation

        return self._operations.once(request, work)

    def check_free(self, where: Place, order: Order) -> None:
        """Refuse an instance, or a disk, of a name that there is."""
        if where in self._known:
            raise where.taken()
        for disk in order.disks:
            place = Place(where.project, where.scope, "disks", disk.name or where.name)
            if disk.source is None and self._disks.has(place):
                raise place.taken()

    def refusal(self, order: Order, zone: str, project: str) -> Failure | None:
        """Why one more instance cannot be made; None when it can."""
        count, metric = self.capacity.within_quota(order, zone)
        if count < 1:
            return self.capacity.over_quota(metric, zone)
        if self.capacity.room(order, zone) < 1:
            return stockout(order, zone, project)
        if not order.interface.get("networkIP") and self._networks.free(order.subnetwork) < 1:
            text = f"IP space of '{order.subnetwork.path}' is exhausted.  Insufficient free IP addresses."
            return Failure("IP_SPACE_EXHAUSTED", text, 400)
        return None

    def make(self, where: Place, order: Order, operation: Operation) -> LiveInstance:
        """Make an instance for which there is room, and begin its life."""
        taken = where.name in self._by_id
        id = f"{where.name}.{where.scope.partition('/')[2]}" if taken else where.name
        instance = LiveInstance(where, order, id, self._networks.network_of(order.subnetwork))
        instance.inside = self._account.room.engine != "none"
        instance.address = self._networks.take(
            order.subnetwork, where.path, order.interface.get("networkIP", "")
        )
        instance.disks = [(self._disks.made(disk, where), disk) for disk in order.disks]
        operation.document["targetId"] = instance.number
        self._known[where] = self._by_id[id] = instance
        self.life.begin(instance, operation)
        return instance

    # -- telling them --------------------------------------------------------------------------------

    def get(self, request: Call) -> Document:
        """One of them."""
        return self._find(request).describe()

    def list(self, request: Call) -> Document:
        """Those of a zone."""
        check_zone(request.project, request.arguments["zone"])
        found = [one for at, one in self._known.items() if at.scope == request.scope and self._visible(one)]
        return listed(request, "instance", [one.describe() for one in found])

    def aggregated(self, request: Call) -> Document:
        """Those of all zones."""
        scopes: dict[str, list[Document]] = {f"zones/{zone}": [] for zone in all_zones()}
        for where, one in self._known.items():
            if where.project == request.project and self._visible(one):
                scopes[where.scope].append(one.describe())
        silent = {f"zones/{fault.zone}" for fault in self._account.faults.of("unreachable")}
        return aggregated(request, "instance", "instances", scopes, silent)

    def console(self, request: Call) -> Document:
        """What one's serial console said."""
        instance = self._find(request)
        port = int(request.asked("port") or 1)
        if not 1 <= port <= PORTS:
            raise invalid("port", port, f"Values must be within the range: [1, {PORTS}]")
        text = "\r\n".join(instance.console) + "\r\n" if instance.console and port == 1 else ""
        start = int(request.asked("start") or 0)
        contents = text[start:][-CONSOLE_BYTES:]
        return {
            "kind": "compute#serialPortOutput",
            "contents": contents,
            "start": str(len(text) - len(contents)),
            "next": str(len(text)),
            "selfLink": f"{BASE}{instance.where.path}/serialPort",
        }

    # -- changing them -------------------------------------------------------------------------------

    def _change(self, request: Call, kind: str, act: Callable[[LiveInstance], None]) -> Document:
        """Change one at once; the operation is done soon."""
        instance = self._find(request)

        def work() -> Operation:
            act(instance)
            operation = self._begin(kind, instance, request)
            self._operations.soon(operation)
            return operation

        return self._operations.once(request, work)

    def _switch(self, request: Call, kind: str, act: Callable[[LiveInstance, Operation], None]) -> Document:
        """Switch one on or off; the operation is done when that is."""

        def work() -> Operation:
            instance = self._find(request)
            operation = self._begin(kind, instance, request)
            act(instance, operation)
            return operation

        return self._operations.once(request, work)

    def _begin(self, kind: str, instance: LiveInstance, request: Call) -> Operation:
        return self._operations.begin(kind, instance.where, request.principal.email, targetId=instance.number)

    def delete(self, request: Call) -> Document:
        """Delete one, and the disks that go with it."""

        def act(instance: LiveInstance, operation: Operation) -> None:
            if instance.protected:
                raise invalid("resource.deletionProtection", "true", "Resource cannot be deleted if it's protected against deletion.")  # fmt: skip
            self.life.delete(instance, operation)

        return self._switch(request, "delete", act)

    def start(self, request: Call) -> Document:
        """Start one that is stopped."""

        def act(instance: LiveInstance, operation: Operation) -> None:
            if instance.state == "STOPPING":
                raise _not_ready(instance)
            if instance.state != "TERMINATED":
                operation.finish()
                return
            failure = self.refusal(instance.order, instance.zone, instance.where.project)
            if failure and failure.code != "IP_SPACE_EXHAUSTED":
                self._operations.soon(operation, _failing(failure))
                return
            self.capacity.take(instance.order, instance.zone)
            self.life.begin(instance, operation)

        return self._switch(request, "start", act)

    def stop(self, request: Call) -> Document:
        """Stop one."""
        return self._switch(request, "stop", self.life.stop)

    def reset(self, request: Call) -> Document:
        """Cut one's power for a moment."""
        return self._change(request, "reset", self.life.reset)

    def set_labels(self, request: Call) -> Document:
        """Give one other labels, if those that are known are those there are."""
        given = request.given
        check_labels("resource.labels", given.get("labels") or {})

        def act(instance: LiveInstance) -> None:
            if given.get("labelFingerprint") != instance.label_fingerprint:
                raise GCPError(
                    412,
                    "Labels fingerprint either invalid or resource labels have changed",
                    reason="conditionNotMet",
                )
            instance.labels, instance.label_fingerprint = dict(given.get("labels") or {}), fingerprint()

        return self._change(request, "setLabels", act)

    def set_metadata(self, request: Call) -> Document:
        """Give one other metadata, if those that are known are those there are."""
        given = request.given
        check_metadata(given)

        def act(instance: LiveInstance) -> None:
            _check_fingerprint(given, instance.metadata)
            instance.metadata = {"items": given.get("items") or [], "fingerprint": fingerprint()}
            instance.touch()

        return self._change(request, "setMetadata", act)

    def set_tags(self, request: Call) -> Document:
        """Give one other network tags."""
        given = request.given

        def act(instance: LiveInstance) -> None:
            _check_fingerprint(given, instance.tags)
            instance.tags = {"items": given.get("items") or [], "fingerprint": fingerprint()}

        return self._change(request, "setTags", act)

    def set_scheduling(self, request: Call) -> Document:
        """Schedule one that is stopped otherwise.

        https://cloud.google.com/compute/docs/instances/set-vm-host-options
        """
        given = request.given

        def act(instance: LiveInstance) -> None:
            harmless = set(given) <= {"automaticRestart", "onHostMaintenance"}
            if instance.state != "TERMINATED" and not harmless:
                raise GCPError(
                    400,
                    f"Instance '{instance.name}' must be stopped before scheduling can be updated.",
                    reason="badRequest",
                )
            instance.scheduling = {**instance.scheduling, **given}

        return self._change(request, "setScheduling", act)

    def set_protection(self, request: Call) -> Document:
        """Let one be deleted, or not."""

        def act(instance: LiveInstance) -> None:
            instance.protected = request.asked("deletionProtection", "true") == "true"

        where = request.place("instances", request.arguments["resource"])
        request = type(request)(
            **{**vars(request), "arguments": {**request.arguments, "instance": where.name}}
        )
        return self._change(request, "setDeletionProtection", act)

    def simulate_maintenance(self, request: Call) -> Document:
        """Let the computer under one be maintained; a Spot VM is then preempted.

        https://cloud.google.com/compute/docs/instances/simulating-host-maintenance
        """
        return self._change(request, "simulateMaintenanceEvent", self.life.maintain)


def _failing(failure: Failure) -> Callable[[], None]:
    def fail() -> None:
        raise failure

    return fail


def _check_fingerprint(given: Document, known: Document) -> None:
    if given.get("fingerprint") != known["fingerprint"]:
        raise GCPError(412, "Supplied fingerprint does not match current metadata fingerprint.", reason="conditionNotMet")  # fmt: skip


def _not_ready(instance: LiveInstance) -> GCPError:
    return GCPError(400, f"The resource '{instance.where.path}' is not ready", reason="resourceNotReady")
