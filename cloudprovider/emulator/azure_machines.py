"""Azure's calls about virtual machines and their disks."""

from __future__ import annotations

import copy
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_capacity import Capacity
from cloudprovider.emulator.azure_life import Life
from cloudprovider.emulator.azure_machine import MACHINE, LiveVM
from cloudprovider.emulator.azure_networks import INTERFACE, matched
from cloudprovider.emulator.azure_orders import invalid, missing, order
from cloudprovider.emulator.azure_pages import paged
from cloudprovider.emulator.azure_pending import stamp
from cloudprovider.emulator.azure_store import Resource, resource_id
from cloudprovider.emulator.azure_wire import AzureError, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.azure import Azure
    from cloudprovider.emulator.azure_networks import Networks
    from cloudprovider.emulator.azure_offers import Offers
    from cloudprovider.emulator.azure_orders import Order
    from cloudprovider.emulator.azure_pending import Operations
    from cloudprovider.emulator.azure_rights import Rights
    from cloudprovider.emulator.records import EmulatedMachine

__all__ = ["DISK", "Machines"]

DISK = "Microsoft.Compute/disks"
OF_SCALE_SET = re.compile(r"'?virtualMachineScaleSet/id'?\s+eq\s+'?([^'\s]+)'?", re.IGNORECASE)
REMEMBERED_S = 3600.0
Document = dict[str, Any]


class Machines:
    """The machines of a subscription."""

    def __init__(
        self, azure: Azure, networks: Networks, offers: Offers, pending: Operations, rights: Rights
    ) -> None:
        self.azure, self.account, self.store = azure, azure.account, azure.store
        self.networks, self.offers, self.rights = networks, offers, rights
        self._pending = pending
        self._machines: dict[str, LiveVM] = {}
        self._ended: list[LiveVM] = []
        self.life = Life(self.account, self._removed, self._leads)
        self.capacity = Capacity(self.account, offers, self.all)
        offers.used = self.capacity.used

    def handlers(self) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        """What answers each operation."""
        group = "VirtualMachines"
        yield f"{group}.CreateOrUpdate", self._put
        yield f"{group}.Update", self._patch
        yield f"{group}.Get", self._get
        yield f"{group}.InstanceView", lambda request: Reply(body=self.found(request).view())
        for name in ("List", "ListAll", "ListByLocation"):
            yield f"{group}.{name}", self._list
        yield f"{group}.Delete", self._delete
        yield f"{group}.Deallocate", self._deallocate
        yield f"{group}.PowerOff", self._power_off
        yield f"{group}.Start", self._start
        yield f"{group}.Restart", self._restart
        yield f"{group}.SimulateEviction", self._evict
        yield f"{group}.RetrieveBootDiagnosticsData", self._diagnostics
        yield "Disks.Get", lambda request: Reply(body=disk_told(self.store.get(request.path)))
        for name in ("List", "ListByResourceGroup"):
            yield f"Disks.{name}", self._disks
        yield "Disks.Delete", self._delete_disk

    # -- all of them ---------------------------------------------------------------------------------

    def all(self) -> list[LiveVM]:
        """Every machine that is, oldest first."""
        return list(self._machines.values())

    def of(self, scale_set: str) -> list[LiveVM]:
        """The machines of a scale set."""
        return [one for one in self.all() if one.scale_set.lower() == scale_set.lower()]

    def named(self, name: str) -> LiveVM:
        """The machine of a name or id."""
        for one in self.all():
            if name.lower() in (one.id.lower(), one.resource.id.lower()):
                return one
        raise LookupError(f"There is no machine {name}.")

    def find(self, id: str) -> LiveVM | None:
        """The machine of an id; None when there is none."""
        return self._machines.get(id.lower())

    def found(self, request: Request) -> LiveVM:
        """The machine that a call is about: its path, or the path without the action."""
        id = request.path
        if request.method == "POST" or len(request.id.names) < request.id.type.count("/"):
            id = id.rpartition("/")[0]
        resource = self.store.get(id)
        return self._machines[resource.id.lower()]

    def records(self) -> list[EmulatedMachine]:
        """As the emulator's handle tells them, the ones that ended within the hour included."""
        since = time.time() - REMEMBERED_S
        return [one.record() for one in [*self._ended, *self.all()] if (one.ended or since) >= since]

    def end(self) -> None:
        """End all that runs in machines."""
        self.life.end(self.all())

    # -- the operations ------------------------------------------------------------------------------

    def _put(self, request: Request) -> Reply:
        known = self.store.find(request.path)
        matched(request, known)
        group = self.store.group(request.id.group).name
        id = resource_id(group, MACHINE, *request.id.names)
        if known:
            return self._updated(request, self._machines[id.lower()])
        wanted = order(request.body, self.offers, self.azure.services, id)
        if member := (request.body["properties"].get("virtualMachineScaleSet") or {}).get("id"):
            self.store.referenced(member, id)
        for identity in wanted.identities:
            self.rights.linked(
                request, "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", identity
            )
        self.capacity.check_quota(wanted, 1)
        refusal = self.capacity.refusal(wanted, id)
        if refusal and refusal.code == "SkuNotAvailable":
            raise refusal
        machine = self.make(request, id, request.body, wanted, refusal)
        pending, reply = self._pending.begin(
            request, wanted.location, status=201, body=machine.told(), then=machine.told
        )
        machine.settled = lambda error: pending.fail(error) if error else pending.succeed()
        self._count(machine.scale_set)
        self.life.begin(machine)
        return reply

    def _patch(self, request: Request) -> Reply:
        return self._updated(request, self.found(request))

    def _updated(self, request: Request, machine: LiveVM) -> Reply:
        """Change tags and identities; what else a machine is does not change while it is there."""
        body = request.body or {}
        size = (body.get("properties") or {}).get("hardwareProfile", {}).get("vmSize", machine.order.size)
        if size.lower() != machine.order.size.lower():
            raise AzureError(501, "NotImplemented", "Machines of the emulated Azure keep their size.")
        for name in ("tags", "identity"):
            if name in body:
                machine.resource.document[name] = copy.deepcopy(body[name])
        machine.resource.changed()
        pending, reply = self._pending.begin(
            request, machine.order.location, status=200, body=machine.told(), then=machine.told
        )
        self._pending.after(pending, 0, lambda: None)
        return reply

    def _get(self, request: Request) -> Reply:
        view = request.query.get("$expand", "").lower() == "instanceview"
        return Reply(body=self.found(request).told(view=view))

    def _list(self, request: Request) -> Reply:
        group, location = request.id.group.lower(), request.names.get("location", "").lower()
        found = [
            one
            for one in self._shown()
            if group in ("", one.resource.group.lower()) and location in ("", one.order.location)
        ]
        if wanted := request.query.get("$filter"):
            scale_set = OF_SCALE_SET.fullmatch(wanted.strip())
            if scale_set is None:
                raise AzureError(
                    400, "BadRequest", f"The filter '{wanted}' is not supported.", target="$filter"
                )
            found = [one for one in found if one.scale_set.lower() == scale_set[1].lower()]
        wishes = (request.query.get("$expand", ""), request.query.get("statusOnly", ""))
        view = bool({"instanceview", "true"} & {wish.lower() for wish in wishes})
        return paged(self.azure.front, request, [one.told(view=view) for one in found])

    def _shown(self) -> list[LiveVM]:
        """The machines that lists show already."""
        late = max((fault.seconds for fault in self.account.faults.of("stale")), default=0.0)
        edge = time.time() - late
        return [one for one in self.all() if not late or one.resource.created <= edge]

    def _delete(self, request: Request) -> Reply:
        machine = self.find(request.path)
        if machine is None:
            return Reply(status=204)
        force = request.query.get("forceDeletion", "").lower() == "true"
        pending, reply = self._pending.begin(request, machine.order.location)
        self.life.delete(machine, pending.succeed, force=force)
        return reply

    def _deallocate(self, request: Request) -> Reply:
        machine = self.found(request)
        if (
            not machine.order.disk_kind
        ):  # https://learn.microsoft.com/azure/virtual-machines/ephemeral-os-disks
            text = "This operation is not supported for VMs with ephemeral OS disks."
            raise AzureError(409, "OperationNotAllowed", text)
        pending, reply = self._pending.begin(request, machine.order.location)
        self.life.deallocate(machine, pending.succeed)
        return reply

    def _power_off(self, request: Request) -> Reply:
        machine = self.found(request)
        force = request.query.get("skipShutdown", "").lower() == "true"
        pending, reply = self._pending.begin(request, machine.order.location)
        self.life.stop(machine, pending.succeed, force=force)
        return reply

    def _start(self, request: Request) -> Reply:
        machine = self.found(request)
        if machine.power == "deallocated":
            self.capacity.check_quota(machine.order, 1)
            if refusal := self.capacity.refusal(machine.order, machine.resource.id):
                raise refusal
        pending, reply = self._pending.begin(request, machine.order.location)
        self.life.start(machine, pending.succeed)
        return reply

    def _restart(self, request: Request) -> Reply:
        machine = self.found(request)
        pending, reply = self._pending.begin(request, machine.order.location)
        self.life.restart(machine, pending.succeed)
        return reply

    def _evict(self, request: Request) -> Reply:
        """https://learn.microsoft.com/rest/api/compute/virtual-machines/simulate-eviction: within 30 minutes."""
        machine = self.found(request)
        if machine.order.market != "spot":
            text = "Simulate eviction is only supported for Azure Spot Virtual Machines."
            raise AzureError(409, "OperationNotAllowed", text)
        self.life.interrupt(machine)
        return Reply(status=204)

    def _diagnostics(self, request: Request) -> Reply:
        machine = self.found(request)
        if not machine.diagnosed:
            text = "Boot diagnostics with managed storage is not enabled for this virtual machine."
            raise AzureError(409, "OperationNotAllowed", text)
        blob = f"{self.azure.front}/bootdiagnostics/{machine.resource.group}/{machine.id}.serialconsole.log"
        return Reply(body={"serialConsoleLogBlobUri": f"{blob}?sig={machine.vm_id}"})

    def console(self, group: str, name: str, signature: str) -> str | None:
        """What the serial console of a machine said; None without the right signature, LookupError when it is gone."""
        machine = self.find(resource_id(group, MACHINE, name))
        if machine is None:
            raise LookupError(name)
        if not machine.diagnosed or machine.vm_id != signature:
            return None
        return "".join(f"{line}\r\n" for line in list(machine.console))

    # -- disks ---------------------------------------------------------------------------------------

    def _disks(self, request: Request) -> Reply:
        found = self.store.of(DISK, request.id.group)
        return paged(self.azure.front, request, [disk_told(one) for one in found])

    def _delete_disk(self, request: Request) -> Reply:
        disk = self.store.find(request.path)
        if disk is None:
            return Reply(status=204)
        if owner := disk.document.get("managedBy"):
            text = f"Disk {disk.name} is attached to VM {owner}."
            raise AzureError(409, "OperationNotAllowed", text)
        pending, reply = self._pending.begin(request, disk.location)
        self.remove_disk(disk)
        self._pending.after(pending, 0, lambda: None)
        return reply

    def remove_disk(self, disk: Resource) -> None:
        """A disk is gone, and bills no more."""
        machine, kind = disk.document.get("payer", ("", ""))
        self.account.ledger.stop(machine, time.time(), kind)
        self.store.remove(disk)

    # -- how they come and go ------------------------------------------------------------------------

    def make(
        self, request: Request, id: str, document: Document, wanted: Order, refusal: AzureError | None
    ) -> LiveVM:
        """Make a machine's interfaces, disk and itself; its life has yet to begin."""
        resource = Resource(
            id=id,
            type=MACHINE,
            document=copy.deepcopy({key: document[key] for key in KEPT if key in document}),
        )
        own = resource.properties
        own["hardwareProfile"]["vmSize"] = wanted.size
        interfaces = self._interfaces(request, resource)
        for interface in interfaces:
            interface.properties["virtualMachine"] = {"id": id}
        disk = self._disk(resource, wanted)
        diagnostics = (own.get("diagnosticsProfile") or {}).get("bootDiagnostics") or {}
        machine = LiveVM(
            resource=resource,
            order=wanted,
            interfaces=interfaces,
            disk=disk,
            scale_set=(own.get("virtualMachineScaleSet") or {}).get("id", ""),
            diagnosed=bool(diagnostics.get("enabled")) and "storageUri" not in diagnostics,
            refusal=refusal,
        )
        self.store.add(resource)
        self._machines[id.lower()] = machine
        return machine

    def _interfaces(self, request: Request, resource: Resource) -> list[Resource]:
        """The interfaces that a machine names, or has made for it."""
        profile = resource.properties.get("networkProfile") or {}
        if profile.get("networkInterfaceConfigurations"):
            if not profile.get("networkApiVersion"):
                raise missing("networkProfile.networkApiVersion")
            wanted = profile.pop("networkInterfaceConfigurations")
            made = [self._configured(request, resource, one) for one in wanted]
            profile["networkInterfaces"] = [
                {
                    "id": interface.id,
                    "properties": {
                        "primary": number == 0,
                        "deleteOption": one["properties"].get("deleteOption", "Delete"),
                    },
                }
                for number, (interface, one) in enumerate(zip(made, wanted, strict=True))
            ]
            return made
        if not profile.get("networkInterfaces"):
            raise missing("networkProfile")
        found = []
        for one in profile["networkInterfaces"]:
            interface = self.store.referenced(one["id"], resource.id)
            self.rights.linked(request, f"{INTERFACE}/join/action", interface.id)
            if user := interface.properties.get("virtualMachine"):
                text = f"Network Interface {interface.id} is used by existing resource {user['id']}."
                raise AzureError(400, "NicInUse", text)
            if interface.location != resource.location:
                text = "The network interface and the virtual machine must be in the same location."
                raise invalid(text, "networkProfile")
            found.append(interface)
        return found

    def _configured(self, request: Request, resource: Resource, given: Document) -> Resource:
        """An interface, and its public address, as a machine's document describes them."""
        own, suffix = given["properties"], uuid.uuid4().hex[:8]
        configurations, publics = [], []
        for one in own["ipConfigurations"]:
            inner = one["properties"]
            configuration: Document = {"subnet": {"id": inner["subnet"]["id"]}}
            if address := inner.get("publicIPAddressConfiguration"):
                public = self._public(request, resource, address, suffix)
                publics.append(public)
                configuration["publicIPAddress"] = {"id": public.id}
            configurations.append({"name": one["name"], "properties": configuration})
        document: Document = {
            "location": resource.location,
            "properties": {"ipConfigurations": configurations},
        }
        if tags := given.get("tags"):
            document["tags"] = dict(tags)
        if group := own.get("networkSecurityGroup"):
            document["properties"]["networkSecurityGroup"] = {"id": group["id"]}
        names = (f"{given['name']}-{suffix}",)
        try:
            return self.networks.put(within(request, resource), INTERFACE, names, document)
        except AzureError:
            for one in publics:
                self.networks.remove(one)
            raise

    def _public(self, request: Request, resource: Resource, given: Document, suffix: str) -> Resource:
        document: Document = {
            "location": resource.location,
            "sku": {"name": (given.get("sku") or {}).get("name", "Standard"), "tier": "Regional"},
            "properties": {
                "deleteOption": (given.get("properties") or {}).get("deleteOption", "Delete"),
                "publicIPAllocationMethod": "Static",
            },
            "payer": resource.name,
        }
        if tags := given.get("tags"):
            document["tags"] = dict(tags)
        type = "Microsoft.Network/publicIPAddresses"
        names = (f"{given['name']}-{suffix}",)
        return self.networks.put(within(request, resource), type, names, document)

    def _disk(self, resource: Resource, wanted: Order) -> Resource | None:
        """The OS disk; it is born with the machine's tags.

        https://github.com/hashicorp/terraform-provider-azurerm/issues/8162
        """
        profile = resource.properties["storageProfile"]
        told = profile.setdefault("osDisk", {"createOption": "FromImage"})
        if told.get("createOption") != "FromImage":
            raise AzureError(501, "NotImplemented", "Machines of the emulated Azure boot from an image.")
        told.setdefault("name", f"{resource.name}_OsDisk_1_{uuid.uuid4().hex}")
        told |= {"osType": "Linux", "diskSizeGB": wanted.disk_gib}
        told.setdefault("caching", "ReadWrite")
        told.setdefault("deleteOption", "Detach")
        if wanted.image.version:
            profile["imageReference"]["exactVersion"] = wanted.image.version
        if not wanted.disk_kind:
            return None
        id = resource_id(resource.group, DISK, told["name"])
        told["managedDisk"] = {"id": id, "storageAccountType": wanted.disk_kind}
        document: Document = {
            "location": resource.location,
            "sku": {"name": wanted.disk_kind},
            "managedBy": resource.id,
            "tags": dict(resource.tags),
            "properties": {
                "osType": "Linux",
                "diskSizeGB": wanted.disk_gib,
                "diskState": "Attached",
                "provisioningState": "Succeeded",
                "creationData": {"createOption": "FromImage"},
                "timeCreated": stamp(time.time()),
            },
        }
        if wanted.zone:
            document["zones"] = [wanted.zone]
        disk = Resource(id=id, type=DISK, document=document)
        self.store.add(disk)
        return disk

    def _removed(self, machine: LiveVM) -> None:
        """A machine is deleted: what goes with it goes, what does not is free."""
        own = machine.resource.properties
        self._machines.pop(machine.resource.id.lower(), None)
        self._ended.append(machine)
        self.store.remove(machine.resource)
        for reference in own["networkProfile"]["networkInterfaces"]:
            interface = self.store.find(reference["id"])
            if interface is None:
                continue
            interface.properties.pop("virtualMachine", None)
            if (reference.get("properties") or {}).get("deleteOption") == "Delete":
                self._remove_interface(interface)
        if machine.disk is not None:
            machine.disk.document.pop("managedBy", None)
            machine.disk.properties["diskState"] = "Unattached"
            if own["storageProfile"]["osDisk"]["deleteOption"] == "Delete":
                self.remove_disk(machine.disk)
        self._count(machine.scale_set)

    def _count(self, scale_set: str) -> None:
        """The capacity of a scale set is how many machines it has."""
        found = self.store.find(scale_set) if scale_set else None
        if found and "capacity" in (found.document.get("sku") or {}):
            found.document["sku"]["capacity"] = len(self.of(scale_set))

    def _remove_interface(self, interface: Resource) -> None:
        public = [
            self.store.find(one["properties"]["publicIPAddress"]["id"])
            for one in interface.properties["ipConfigurations"]
            if "publicIPAddress" in one["properties"]
        ]
        self.networks.remove(interface)
        for address in public:
            if address is not None and address.properties.get("deleteOption") == "Delete":
                self.networks.remove(address)

    def _leads(self, machine: LiveVM) -> bool:
        """Whether a machine has a way to the internet: a public address, a NAT gateway, or default access.

        New subnets have the last only where they say so:
        https://learn.microsoft.com/azure/virtual-network/ip-services/default-outbound-access
        """
        own = machine.interfaces[0].properties["ipConfigurations"][0]["properties"]
        subnet = self.store.find(own["subnet"]["id"])
        if "publicIPAddress" in own or subnet is None:
            return True
        return bool(subnet.properties.get("natGateway") or subnet.properties.get("defaultOutboundAccess"))


#: What of a machine's document is kept.
KEPT = ("location", "tags", "zones", "identity", "plan", "properties")


def within(request: Request, resource: Resource) -> Request:
    """The same call, about the group of a machine that it makes."""
    path = resource.id
    return Request(
        method=request.method,
        path=path,
        query=request.query,
        headers=request.headers,
        service=request.service,
        operation=request.operation,
    )


def disk_told(disk: Resource) -> Document:
    """A disk as the API tells it."""
    document = {key: value for key, value in disk.document.items() if key != "payer"}
    return {"id": disk.id, "name": disk.name, "type": disk.type, **document}
