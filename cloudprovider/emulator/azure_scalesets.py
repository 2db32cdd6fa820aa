"""Scale sets whose machines are machines like any: orchestration mode Flexible.

https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-orchestration-modes
"""

from __future__ import annotations

import copy
import itertools
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_life import PREEMPTED
from cloudprovider.emulator.azure_machine import MACHINE
from cloudprovider.emulator.azure_networks import matched
from cloudprovider.emulator.azure_orders import invalid, missing, order
from cloudprovider.emulator.azure_pages import paged
from cloudprovider.emulator.azure_store import Resource, resource_id
from cloudprovider.emulator.azure_wire import AzureError, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.azure_machine import LiveVM
    from cloudprovider.emulator.azure_machines import Machines
    from cloudprovider.emulator.azure_pending import Operations, Pending
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["SCALE_SET", "ScaleSets"]

SCALE_SET = "Microsoft.Compute/virtualMachineScaleSets"
LARGEST = 1000  # https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-orchestration-modes
#: What of a scale set's document is kept.
KEPT = ("location", "tags", "zones", "identity", "plan", "sku", "properties")
#: What of its profile is its machines' as well.
SHARED = (
    "priority",
    "evictionPolicy",
    "billingProfile",
    "diagnosticsProfile",
    "securityProfile",
    "licenseType",
    "userData",
)
OK, CREATED, ACCEPTED = 200, 201, 202
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Document = dict[str, Any]


class ScaleSets:
    """Answers what is asked of scale sets."""

    def __init__(self, machines: Machines, pending: Operations) -> None:
        self._machines = machines
        self._account, self._store = machines.account, machines.store
        self._pending = pending
        self._numbers = itertools.count(1)

    def handlers(self) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        """What answers each operation."""
        group = "VirtualMachineScaleSets"
        yield f"{group}.CreateOrUpdate", self._put
        yield f"{group}.Update", self._patch
        yield f"{group}.ScaleOut", self._scale_out
        yield f"{group}.Get", lambda request: Reply(body=self._told(self._store.get(request.path)))
        for name in ("List", "ListAll", "ListByLocation"):
            yield f"{group}.{name}", self._list
        yield f"{group}.Delete", self._delete
        yield f"{group}.DeleteInstances", self._delete_instances
        yield "VirtualMachineScaleSetVMs.List", self._list_machines

    # -- the operations ------------------------------------------------------------------------------

    def _put(self, request: Request) -> Reply:
        known = self._store.find(request.path)
        matched(request, known)
        group = self._store.group(request.id.group).name
        id = resource_id(group, SCALE_SET, *request.id.names)
        document = copy.deepcopy({key: request.body[key] for key in KEPT if key in request.body})
        made = Resource(id=id, type=SCALE_SET, document=document)
        if known:
            made.created, made.document["uniqueId"] = known.created, known.document["uniqueId"]
        check(made)
        made.document.setdefault("uniqueId", str(uuid.uuid4()))
        sku = document.get("sku")
        if sku is not None:
            sku.setdefault("tier", "Standard")
        return self._scaled(request, made, status=OK if known else CREATED)

    def _patch(self, request: Request) -> Reply:
        known = self._store.get(request.path)
        matched(request, known)
        body = request.body or {}
        changed = {**known.document, **{key: copy.deepcopy(body[key]) for key in body if key != "properties"}}
        changed["sku"] = {**(known.document.get("sku") or {}), **(body.get("sku") or {})}
        changed["properties"] = merged(known.properties, body.get("properties") or {})
        made = Resource(id=known.id, type=SCALE_SET, document=changed, created=known.created)
        check(made)
        return self._scaled(request, made, status=OK)

    def _scale_out(self, request: Request) -> Reply:
        """Add machines, in one zone if it is named."""
        known = self._store.get(request.path.rpartition("/")[0])
        count, zone = request.body["capacity"], (request.body.get("properties") or {}).get("zone", "")
        sku = known.document["sku"]
        sku["capacity"] = len(self._machines.of(known.id)) + count
        return self._scaled(request, known, status=ACCEPTED, zone=zone)

    def _scaled(self, request: Request, made: Resource, *, status: int, zone: str = "") -> Reply:
        """Make as many machines as the scale set is to have more than it has; fewer are Azure's choice."""
        have = self._machines.of(made.id)
        sku = made.document.get("sku") or {}
        missing_ones = sku.get("capacity", len(have)) - len(have)
        if missing_ones > 0:
            self._check_orders(request, made, missing_ones, zone)
        self._store.add(made)
        made.properties["provisioningState"] = "Updating" if have or status != CREATED else "Creating"
        machines, error = self._machines_of(request, made, missing_ones, zone)
        location = self._location(made)
        body = self._told(made) if status != ACCEPTED else None
        pending, reply = self._pending.begin(
            request, location, status=status, body=body, then=lambda: self._told(made)
        )
        surplus = have[missing_ones:] if missing_ones < 0 else []
        growth = Growth(made, pending, len(machines) + len(surplus), error)
        growth.follow(machines, surplus, self._machines)
        if not machines and not surplus:
            self._account.timers.after(0, growth.end)
        return reply

    @staticmethod
    def _location(made: Resource) -> str:
        return made.location.replace(" ", "").lower()

    def _list(self, request: Request) -> Reply:
        location = request.names.get("location", "").lower()
        found = [
            self._told(one)
            for one in self._store.of(SCALE_SET, request.id.group)
            if location in ("", self._location(one))
        ]
        return paged(self._machines.azure.front, request, found)

    def _delete(self, request: Request) -> Reply:
        known = self._store.find(request.path)
        if known is None:
            return Reply(status=204)
        force = request.query.get("forceDeletion", "").lower() == "true"
        pending, reply = self._pending.begin(request, self._location(known))
        machines = self._machines.of(known.id)
        known.properties["provisioningState"] = "Deleting"

        def over() -> None:
            self._store.remove(known)
            pending.succeed()

        countdown = Countdown(len(machines), over)
        for machine in machines:
            self._machines.life.delete(machine, countdown, force=force)
        if not machines:
            self._account.timers.after(self._account.profile.release_s, over)
        return reply

    def _delete_instances(self, request: Request) -> Reply:
        """One call for many: machines that are not there are no error."""
        known = self._store.get(request.path.rpartition("/")[0])
        wanted = {name.lower() for name in request.body["instanceIds"]}
        force = request.query.get("forceDeletion", "").lower() == "true"
        machines = [one for one in self._machines.of(known.id) if "*" in wanted or one.id.lower() in wanted]
        pending, reply = self._pending.begin(request, self._location(known))
        countdown = Countdown(len(machines), pending.succeed)
        for machine in machines:
            self._machines.life.delete(machine, countdown, force=force)
        if not machines:
            self._pending.after(pending, 0, lambda: None)
        return reply

    def _list_machines(self, request: Request) -> Reply:
        known = self._store.get(request.path.rpartition("/")[0])
        found = []
        for machine in self._machines.of(known.id):
            told = machine.told(view="instanceview" in request.query.get("$expand", "").lower())
            own = {key: told["properties"][key] for key in VM_KEPT if key in told["properties"]}
            document = {
                key: value for key, value in told.items() if key in ("location", "tags", "zones", "plan")
            }
            found.append(
                {
                    "id": f"{known.id}/virtualMachines/{machine.id}",
                    "name": machine.id,
                    "type": f"{SCALE_SET}/virtualMachines",
                    "instanceId": machine.id,
                    "sku": {"name": machine.order.size, "tier": "Standard"},
                    **document,
                    "properties": own,
                }
            )
        return paged(self._machines.azure.front, request, found)

    # -- machines ------------------------------------------------------------------------------------

    def _check_orders(self, request: Request, made: Resource, count: int, zone: str) -> None:
        """Refuse at once what Azure refuses before it accepts."""
        id = resource_id(made.group, MACHINE, f"{made.name}_00000000")
        document = self._document(made, "check", zone)
        wanted = order(document, self._machines.offers, self._machines.azure.services, id)
        rights = self._machines.rights
        for identity in wanted.identities:
            rights.linked(request, "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", identity)
        profile = made.properties["virtualMachineProfile"].get("networkProfile") or {}
        if not profile.get("networkInterfaceConfigurations"):
            raise missing("networkProfile")
        if not profile.get("networkApiVersion"):
            raise missing("networkProfile.networkApiVersion")
        self._machines.capacity.check_quota(wanted, count)

    def _machines_of(
        self, request: Request, made: Resource, count: int, zone: str
    ) -> tuple[list[LiveVM], AzureError | None]:
        """So many machines more, or as many as there is place for, and why there are no more."""
        machines: list[LiveVM] = []
        for _ in range(count):
            try:
                machines.append(self._machine(request, made, zone))
            except AzureError as error:
                return machines, error
        return machines, None

    def _machine(self, request: Request, made: Resource, zone: str) -> LiveVM:
        """One more machine of a scale set."""
        suffix = f"{self._account.chance.getrandbits(32):08x}"
        id = resource_id(made.group, MACHINE, f"{made.name}_{suffix}")
        document = self._document(made, base36(next(self._numbers)), zone)
        machines = self._machines
        wanted = order(document, machines.offers, machines.azure.services, id)
        machine = machines.make(request, id, document, wanted, machines.capacity.refusal(wanted, id))
        machines.life.begin(machine)
        return machine

    def _document(self, made: Resource, number: str, zone: str) -> Document:
        """The document of a machine that is as its scale set says; it bears its tags."""
        profile = copy.deepcopy(made.properties["virtualMachineProfile"])
        system, sku = profile.get("osProfile") or {}, made.document["sku"]
        prefix = system.pop("computerNamePrefix", None) or made.name
        storage = profile.get("storageProfile") or {}
        if disk := storage.get("osDisk"):
            disk.setdefault("deleteOption", "Delete")
        zones = [zone] if zone else made.document.get("zones") or []
        if len(zones) > 1:
            zones = [self._account.chance.choice(zones)]
        own: Document = {
            "hardwareProfile": {"vmSize": sku.get("name", "")},
            "storageProfile": storage,
            "osProfile": {**system, "computerName": f"{prefix}{number}"} if system else None,
            "networkProfile": profile.get("networkProfile"),
            "virtualMachineScaleSet": {"id": made.id},
            **{name: profile[name] for name in SHARED if name in profile},
        }
        document: Document = {
            "location": made.location,
            "tags": dict(made.tags),
            "properties": {key: value for key, value in own.items() if value is not None},
        }
        if zones:
            document["zones"] = zones
        for name in ("identity", "plan"):
            if name in made.document:
                document[name] = copy.deepcopy(made.document[name])
        return document

    def _told(self, made: Resource) -> Document:
        document = {
            key: value for key, value in made.document.items() if key not in ("uniqueId", "properties")
        }
        own = copy.deepcopy(made.properties)
        own["uniqueId"] = made.document["uniqueId"]
        system = (own.get("virtualMachineProfile") or {}).get("osProfile") or {}
        for name in ("customData", "adminPassword"):
            system.pop(name, None)
        return {
            "id": made.id,
            "name": made.name,
            "type": made.type,
            "etag": f'"{made.etag}"',
            **document,
            "properties": own,
        }


#: What of a machine's properties a scale set's list of machines tells as well.
VM_KEPT = (
    "hardwareProfile",
    "storageProfile",
    "osProfile",
    "provisioningState",
    "vmId",
    "timeCreated",
    "instanceView",
)


class Countdown:
    """Calls something when it has been called often enough."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left = count
        self._then = then

    def __call__(self) -> None:
        """One more is done."""
        self._left -= 1
        if self._left == 0:
            self._then()


class Growth:
    """A scale set on its way to another capacity: what comes stays, and one that does not come is a failure."""

    def __init__(self, made: Resource, pending: Pending, count: int, error: AzureError | None) -> None:
        self._made, self._pending = made, pending
        self._errors = [error] if error else []
        self._countdown = Countdown(count, self.end)

    def follow(self, machines: list[LiveVM], surplus: list[LiveVM], all_machines: Machines) -> None:
        """Wait for machines that come, and for machines that go."""
        for machine in machines:
            machine.settled = self._settled
        for machine in surplus:
            all_machines.life.delete(machine, self._countdown)

    def _settled(self, error: AzureError | None) -> None:
        if error and error.code != PREEMPTED:  # deleted on its way: nobody misses it
            self._errors.append(error)
        self._countdown()

    def end(self) -> None:
        """All has come that will."""
        if not self._errors:
            self._made.properties["provisioningState"] = "Succeeded"
            self._pending.succeed()
            return
        self._made.properties["provisioningState"] = "Failed"
        self._pending.fail(self._errors[0])


def check(made: Resource) -> None:
    """Refuse a scale set that is not to be had here, or anywhere."""
    own, sku = made.properties, made.document.get("sku") or {}
    if own.get("orchestrationMode") != "Flexible":
        text = "The emulated Azure has scale sets of orchestrationMode Flexible only."
        raise AzureError(501, "NotImplemented", text)
    if own.get("platformFaultDomainCount") is None:
        raise missing("platformFaultDomainCount")
    if own.get("singlePlacementGroup"):
        text = "singlePlacementGroup must be false for a scale set of orchestrationMode Flexible."
        raise invalid(text, "singlePlacementGroup")
    if sku.get("capacity", 0) > LARGEST:
        text = (
            f"The capacity {sku['capacity']} is more than the {LARGEST} machines that a scale set may have."
        )
        raise invalid(text, "sku.capacity")
    if sku.get("capacity") and "virtualMachineProfile" not in own:
        raise missing("virtualMachineProfile")


def merged(old: Document, new: Document) -> Document:
    """A document with what another changes of it."""
    found = dict(old)
    for key, value in new.items():
        inner = isinstance(value, dict) and isinstance(old.get(key), dict)
        found[key] = merged(old[key], value) if inner else copy.deepcopy(value)
    return found


def base36(number: int) -> str:
    """Six digits, as the names of a scale set's computers end in."""
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 36)
        digits = ALPHABET[digit] + digits
    return digits
