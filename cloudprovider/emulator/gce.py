"""The embedded Compute Engine: version 1 of its API, strict by Google's own description of it.

https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_capacity import Capacity
from cloudprovider.emulator.gce_disks import Disks
from cloudprovider.emulator.gce_instances import Instances
from cloudprovider.emulator.gce_life import InstanceLife
from cloudprovider.emulator.gce_links import HOST_PROJECT
from cloudprovider.emulator.gce_metadata import Metadata
from cloudprovider.emulator.gce_networks import Networks
from cloudprovider.emulator.gce_offers import IMAGES, Offers
from cloudprovider.emulator.gce_operations import Operations
from cloudprovider.emulator.gce_orders import Orders
from cloudprovider.emulator.gce_permissions import is_foreign, needed
from cloudprovider.emulator.gcp_wire import PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_request import Call
    from cloudprovider.emulator.gcp_services import GCPServices

#: Calls that wait for others: they are answered without the account's lock.
WAITING = ("zoneOperations.wait", "regionOperations.wait", "globalOperations.wait")


class Compute:
    """Answers Compute Engine's calls."""

    def __init__(self, account: Account, services: GCPServices) -> None:
        self._account, self._services = account, services
        self.operations = Operations(account)
        self.networks = Networks(account, self.operations)
        self.disks = Disks(account, self.operations)
        capacity = Capacity(account)
        self.offers = Offers(capacity, self.operations)
        self.life = InstanceLife(account, self.operations, self.networks, self.disks, services)
        orders = Orders(self.networks, self.offers, services.iam.has_account, self.disks.find)
        self.instances = Instances(
            account, self.operations, self.networks, self.disks, capacity, orders, self.life
        )
        self.metadata = Metadata(self.instances, services)
        parts = (self.operations, self.networks, self.disks, self.offers, self.instances)
        self._handlers: dict[str, Callable[[Call], Any]] = {
            name: act for part in parts for name, act in part.handlers.items()
        }

    def answer(self, call: Call) -> Any:
        """What is answered; None is an answer without anything in it.

        Raises
        ------
        GCPError
            When the call is refused.
        NotImplementedError
            When the emulator does not have it.
        """
        self._check_project(call)
        act = self._handlers.get(call.operation)
        if act is None:
            raise NotImplementedError
        for permission, resource, kind in needed(call):
            if not is_foreign(resource):
                self._services.require(call, permission, resource, type=kind)
        if call.operation in WAITING:
            return act(call)
        with self._account.lock:
            return act(call)

    @staticmethod
    def _check_project(call: Call) -> None:
        """Refuse what is in nobody's project; others' images and networks may be looked at."""
        collection = call.operation.partition(".")[0]
        known = {
            "images": tuple(IMAGES),
            "networks": (HOST_PROJECT,),
            "subnetworks": (HOST_PROJECT,),
            "routers": (HOST_PROJECT,),
            "firewalls": (HOST_PROJECT,),
            "globalOperations": (HOST_PROJECT,),
        }
        if call.project != PROJECT and call.project not in known.get(collection, ()):
            raise GCPError(404, f"The resource 'projects/{call.project}' was not found", reason="notFound")
