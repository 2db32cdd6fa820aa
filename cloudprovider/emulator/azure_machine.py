"""One virtual machine of the embedded Azure, and how the API tells it."""

from __future__ import annotations

import copy
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_pending import stamp
from cloudprovider.emulator.records import EmulatedMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.azure_orders import Order
    from cloudprovider.emulator.azure_store import Resource
    from cloudprovider.emulator.azure_wire import AzureError

__all__ = ["MACHINE", "LiveVM"]

MACHINE = "Microsoft.Compute/virtualMachines"
#: https://learn.microsoft.com/azure/virtual-machines/states-billing
POWER = {
    "starting": "VM starting",
    "running": "VM running",
    "stopping": "VM stopping",
    "stopped": "VM stopped",
    "deallocating": "VM deallocating",
    "deallocated": "VM deallocated",
}
Document = dict[str, Any]


@dataclass(kw_only=True, eq=False)
class LiveVM:
    """A machine that was ordered.

    Parameters
    ----------
    resource
        What the API keeps of it.
    order
        What it is.
    interfaces
        Its network interfaces; the first has its address.
    disk
        Its OS disk; None for an ephemeral one.
    scale_set
        Id of the scale set it is of; empty when it is of none.
    diagnosed
        Whether its serial console is kept.
    settled
        Called once, when it is provisioned, or with why it is not.
    """

    resource: Resource
    order: Order
    interfaces: list[Resource]
    disk: Resource | None
    scale_set: str = ""
    diagnosed: bool = False
    settled: Callable[[AzureError | None], None] | None = None
    power: str = "starting"
    provisioning: str = "Creating"
    moment: object = field(default_factory=object)
    gone: list[Callable[[], None]] = field(default_factory=list)
    guest: Any = None
    inside: bool = True
    rebooting: bool = False
    refusal: AzureError | None = None
    events: list[Document] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    vm_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    ended: float | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Its name, by which its metadata service and its owner know it."""
        return self.resource.name

    @property
    def runs(self) -> bool:
        """Whether it is switched on."""
        return self.power == "running"

    @property
    def holds(self) -> bool:
        """Whether it has a place in the cloud, which it bills for and which counts for quotas."""
        return (
            self.ended is None and self.refusal is None and self.power not in ("deallocating", "deallocated")
        )

    @property
    def address(self) -> str:
        """Its private address."""
        return str(self.interfaces[0].properties["ipConfigurations"][0]["properties"]["privateIPAddress"])

    def enter(self, power: str) -> None:
        """It is in another state from now on."""
        self.power, self.moment = power, object()

    def settle(self, error: AzureError | None = None) -> None:
        """It is provisioned, or failed to be."""
        self.provisioning = "Failed" if error else "Succeeded"
        settled, self.settled = self.settled, None
        if settled:
            settled(error)

    # -- how the API tells it ------------------------------------------------------------------------

    def told(self, *, view: bool = False) -> Document:
        """As virtualMachines.get tells it."""
        resource = self.resource
        own = copy.deepcopy(resource.properties)
        system = own.get("osProfile") or {}
        for name in ("customData", "adminPassword"):
            system.pop(name, None)
        own["provisioningState"] = self.provisioning
        own["vmId"], own["timeCreated"] = self.vm_id, stamp(resource.created)
        if view:
            own["instanceView"] = self.view()
        document = {key: value for key, value in resource.document.items() if key != "properties"}
        if identity := document.get("identity"):
            document["identity"] = {
                **identity,
                "userAssignedIdentities": {id: {} for id in identity.get("userAssignedIdentities") or {}},
            }
        return {
            "id": resource.id,
            "name": resource.name,
            "type": resource.type,
            "etag": f'"{resource.etag}"',
            **document,
            "properties": own,
        }

    def view(self) -> Document:
        """Its instance view: what it does now."""
        now = stamp(time.time())
        level = "Error" if self.provisioning == "Failed" else "Info"
        status: Document = {
            "code": f"ProvisioningState/{self.provisioning.lower()}",
            "level": level,
            "displayStatus": f"Provisioning {self.provisioning.lower()}",
            "time": now,
        }
        if self.refusal:
            status["code"] += f"/{self.refusal.code}"
            status["message"] = self.refusal.message
        statuses = [status]
        if not self.refusal:
            statuses.append(
                {"code": f"PowerState/{self.power}", "level": "Info", "displayStatus": POWER[self.power]}
            )
        view: Document = {
            "computerName": self.resource.properties["osProfile"]["computerName"],
            "hyperVGeneration": self.order.image.generation,
            "statuses": statuses,
        }
        if self.runs:
            view |= {"osName": "linux", "osVersion": "1"}
        if self.diagnosed:
            view["bootDiagnostics"] = {}
        return view

    def record(self) -> EmulatedMachine:
        """As the emulator's handle tells it."""
        pids = self.guest.pids if self.guest is not None else []
        return EmulatedMachine(
            id=self.id,
            state="deleted" if self.ended else "failed" if self.refusal else self.power,
            kind=self.order.size,
            market=self.order.market,
            zone=self.order.zone,
            image=self.order.image.name,
            address="" if self.ended else self.address,
            pid=pids[0] if pids else None,
            reason=self.reason,
            tags=dict(self.resource.tags),
        )
