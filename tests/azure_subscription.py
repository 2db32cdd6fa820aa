"""A subscription of the embedded Azure: its SDK's clients, and documents of what is ordered."""

from __future__ import annotations

import base64
import copy
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from contract import until

LOCATION, GROUP = "westeurope", "dask"
SIZE = "Standard_D2s_v5"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFuIGVtdWxhdGVkIGtleSBvZiBub2JvZHk="
IMAGE = {
    "publisher": "Canonical",
    "offer": "ubuntu-24_04-lts",
    "sku": "server",
    "version": "latest",
}


@functools.cache
def connection(front: str) -> RequestsTransport:
    """One for all clients of a process: to read the authorities it trusts takes longer than most tests."""
    del front
    return RequestsTransport(session=requests.Session(), session_owner=False)


@dataclass
class Subscription:
    """Clients of the shared emulated Azure, and a group with a network.

    Parameters
    ----------
    cloud
        The emulator's handle.
    resources, network, compute
        The SDK's clients.
    id
        Of the subscription.
    """

    cloud: Any
    resources: Any
    network: Any
    compute: Any
    id: str
    subnet: str = ""
    rules: str = ""

    @classmethod
    def of(cls, cloud: Any, **options: Any) -> Subscription:
        """Make clients as anyone would: by the environment."""
        environ = cloud.environ
        front = f"https://{environ['ARM_METADATA_HOSTNAME']}"
        transport = connection(front)
        credential = DefaultAzureCredential(
            authority=front, disable_instance_discovery=True, transport=transport
        )
        given = {
            "transport": transport,
            "base_url": front,
            "credential_scopes": [f"{front}/.default"],
            "polling_interval": 0.1,
            "retry_total": 0,
            **options,
        }
        id = environ["AZURE_SUBSCRIPTION_ID"]
        return cls(
            cloud,
            ResourceManagementClient(credential, id, **given),
            NetworkManagementClient(credential, id, **given),
            ComputeManagementClient(credential, id, **given),
            id,
        )

    def prepare(self) -> Subscription:
        """Make a group, a network with a subnet, and a group of rules."""
        self.resources.resource_groups.create_or_update(GROUP, {"location": LOCATION})
        subnet = {
            "name": "default",
            "properties": {"addressPrefix": "10.58.0.0/17", "defaultOutboundAccess": True},
        }
        space = {"addressSpace": {"addressPrefixes": ["10.58.0.0/16"]}, "subnets": [subnet]}
        network = {"location": LOCATION, "properties": space}
        made = self.network.virtual_networks.begin_create_or_update(GROUP, "net", network).result()
        self.subnet = made.subnets[0].id
        rules = {"location": LOCATION, "properties": {}}
        self.rules = (
            self.network.network_security_groups.begin_create_or_update(GROUP, "rules", rules).result().id
        )
        return self

    def path(self, *parts: str) -> str:
        """The id of something in the group."""
        return f"/subscriptions/{self.id}/resourceGroups/{GROUP}/providers/{'/'.join(parts)}"

    # -- documents -----------------------------------------------------------------------------------

    def interface(self, *, public: bool = False) -> dict[str, Any]:
        """An interface that is made with its machine, and goes with it."""
        configuration: dict[str, Any] = {"subnet": {"id": self.subnet}}
        if public:
            address = {
                "name": "public",
                "properties": {"deleteOption": "Delete"},
                "sku": {"name": "Standard"},
            }
            configuration["publicIPAddressConfiguration"] = address
        return {
            "name": "nic",
            "properties": {
                "primary": True,
                "deleteOption": "Delete",
                "networkSecurityGroup": {"id": self.rules},
                "ipConfigurations": [{"name": "ip", "properties": configuration}],
            },
        }

    def profile(self, script: str = "", *, public: bool = False) -> dict[str, Any]:
        """What machines and scale sets have alike."""
        keys = [{"path": "/home/dask/.ssh/authorized_keys", "keyData": KEY}]
        return {
            "storageProfile": {
                "imageReference": dict(IMAGE),
                "osDisk": {
                    "createOption": "FromImage",
                    "deleteOption": "Delete",
                    "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
                },
            },
            "osProfile": {
                "adminUsername": "dask",
                "customData": base64.b64encode(custom_data(script)).decode(),
                "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": keys}},
            },
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
            "networkProfile": {
                "networkApiVersion": "2020-11-01",
                "networkInterfaceConfigurations": [self.interface(public=public)],
            },
        }

    def machine(self, name: str, script: str = "", *, public: bool = False) -> dict[str, Any]:
        """A machine's document."""
        own = self.profile(script, public=public)
        own["osProfile"]["computerName"] = name
        own["hardwareProfile"] = {"vmSize": SIZE}
        return {"location": LOCATION, "tags": {"dask-cluster": "c"}, "properties": own}

    def scale_set(self, count: int, script: str = "", *, public: bool = False) -> dict[str, Any]:
        """A scale set's document."""
        profile = self.profile(script, public=public)
        profile["osProfile"]["computerNamePrefix"] = "dask-"
        return {
            "location": LOCATION,
            "tags": {"dask-cluster": "c"},
            "sku": {"name": SIZE, "capacity": count},
            "properties": {
                "orchestrationMode": "Flexible",
                "platformFaultDomainCount": 1,
                "virtualMachineProfile": profile,
            },
        }

    # -- orders --------------------------------------------------------------------------------------

    def order(self, name: str = "one", script: str = "", *, public: bool = False, **changes: Any) -> Any:
        """Order a machine, its document changed as `changes` say, and wait until it is there."""
        document = changed(self.machine(name, script, public=public), changes)
        return self.compute.virtual_machines.begin_create_or_update(GROUP, name, document).result()

    def order_set(self, name: str = "many", count: int = 2, script: str = "", **changes: Any) -> Any:
        """Order a scale set, and wait until it is there."""
        document = changed(self.scale_set(count, script), changes)
        sets = self.compute.virtual_machine_scale_sets
        return sets.begin_create_or_update(GROUP, name, document).result()

    def names(self, scale_set: str = "many") -> list[str]:
        """The machines of a scale set."""
        machines = self.compute.virtual_machine_scale_set_vms.list(GROUP, scale_set)
        return sorted(machine.instance_id for machine in machines)

    def power(self, name: str = "one") -> str:
        """What a machine does."""
        view = self.compute.virtual_machines.instance_view(GROUP, name)
        return next(one.code.partition("/")[2] for one in view.statuses if one.code.startswith("Power"))

    def becomes(self, power: str, name: str = "one") -> bool:
        """Whether a machine does something, soon."""
        return bool(until(lambda: self.power(name) == power, 30, f"{name} is {power}"))

    def is_gone(self, name: str = "one") -> bool:
        """Whether there is no such machine, soon."""
        machines = self.compute.virtual_machines
        return bool(until(lambda: name not in {one.name for one in machines.list(GROUP)}, 30, f"{name} goes"))

    def console(self, name: str = "one") -> str:
        """What a machine's serial console said."""
        told = self.compute.virtual_machines.retrieve_boot_diagnostics_data(GROUP, name)
        return requests.get(told.serial_console_log_blob_uri, timeout=10).text

    def bills(self) -> dict[str, float]:
        """How many seconds each kind of thing was billed until now."""
        found: dict[str, float] = {}
        for entry in self.cloud.ledger:
            found[entry.kind] = found.get(entry.kind, 0.0) + entry.seconds
        return found


def custom_data(script: str) -> bytes:
    """A script, or what is for cloud-init already."""
    return (script if script.startswith("#") else f"#!/bin/sh\n{script}\n").encode()


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A document with other values, by paths such as `properties__osProfile__adminUsername`; None takes away."""
    made = copy.deepcopy(document)
    for path, value in changes.items():
        node, (*outer, last) = made, path.split("__")
        for name in outer:
            node = node.setdefault(name, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return made


def refused(call: Any, *values: Any, **given: Any) -> HttpResponseError:
    """What a call, or the operation that it began, is refused with."""
    with pytest.raises(HttpResponseError) as caught:
        answer = call(*values, **given)
        if hasattr(answer, "result"):
            answer.result()
        elif hasattr(answer, "__next__"):
            list(answer)
    return caught.value


def code(call: Any, *values: Any, **given: Any) -> tuple[int | None, str | None]:
    """The status and the code that a call is refused with."""
    error = refused(call, *values, **given)
    return error.status_code, error.error.code if error.error else None
