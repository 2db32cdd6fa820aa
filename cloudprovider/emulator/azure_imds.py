"""The metadata service of Azure's machines, with their identities' tokens and their scheduled events.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError, ResourceId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.azure_machine import LiveVM
    from cloudprovider.emulator.azure_machines import Machines
    from cloudprovider.emulator.azure_services import AzureServices

__all__ = ["Metadata"]

#: What each service answers: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#supported-api-versions
VERSIONS = {
    "instance": ("2017-03-01", "2025-04-07"),
    "scheduledevents": ("2017-08-01", "2020-07-01"),
    "identity": ("2018-02-01", "2021-12-13"),
}
Answer = tuple[int, dict[str, str], bytes]


class Metadata:
    """Answers what machines ask of their metadata service."""

    def __init__(self, machines: Machines, services: AzureServices, front: str) -> None:
        self._machines = machines
        self._services = services
        self._front = front
        self._incarnations: dict[str, tuple[str, int]] = {}

    def answer(self, method: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request for `NAME/metadata/...`."""
        parts = urlsplit(route)
        name, _, path = parts.path.partition("/")
        query = {key.lower(): value for key, value in parse_qsl(parts.query)}
        lowered = {key.lower(): value for key, value in headers.items()}
        try:
            return self._answered(method, self._machine(name), path.rstrip("/"), query, lowered, body)
        except AzureError as refusal:
            return _json({"error": refusal.code, "error_description": refusal.message}, refusal.status)

    def _machine(self, name: str) -> LiveVM:
        try:
            return self._machines.named(name)
        except LookupError as error:
            raise AzureError(404, "Not found", "No machine has this address.") from error

    def _answered(
        self,
        method: str,
        machine: LiveVM,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        if headers.get("metadata", "").lower() != "true":
            return _json({"error": "Bad request. Required metadata header not specified"}, 400)
        if "x-forwarded-for" in headers:
            return _json({"error": "Bad request. X-Forwarded-For is not allowed"}, 400)
        root, _, rest = path.partition("/")
        service, _, inner = rest.partition("/")
        if root != "metadata" or service not in VERSIONS:
            return _json({"error": "Not found"}, 404)
        check_version(service, query.get("api-version", ""))
        with self._machines.account.lock:
            if service == "instance":
                return self._instance(machine, inner, query)
            if service == "scheduledevents":
                return self._events(method, machine, body)
            return self._token(machine, inner, query)

    # -- what there is -------------------------------------------------------------------------------

    def _instance(self, machine: LiveVM, path: str, query: Mapping[str, str]) -> Answer:
        node: Any = self._tree(machine)
        for part in [part for part in path.split("/") if part]:
            if isinstance(node, list):
                node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
            else:
                node = node.get(part) if isinstance(node, dict) else None
            if node is None:
                return _json({"error": "Not found"}, 404)
        if query.get("format", "json").lower() != "text":
            return _json(node)
        if isinstance(node, (dict, list)):
            names = node if isinstance(node, dict) else range(len(node))
            text = "\n".join(f"{name}/" for name in names)
        else:
            text = str(node)
        return 200, {"Content-Type": "text/plain; charset=utf-8"}, text.encode()

    def _tree(self, machine: LiveVM) -> dict[str, Any]:
        order, resource = machine.order, machine.resource
        own, known = resource.properties, ResourceId.of(resource.id)
        system = own["osProfile"]
        compute = {
            "azEnvironment": "EmbeddedAzure",
            "customData": "",
            "evictionPolicy": own.get("evictionPolicy", ""),
            "location": order.location,
            "name": machine.id,
            "osProfile": {"adminUsername": system["adminUsername"], "computerName": system["computerName"]},
            "osType": "Linux",
            "priority": own.get("priority", ""),
            "provider": "Microsoft.Compute",
            "resourceGroupName": known.group,
            "resourceId": resource.id,
            "subscriptionId": SUBSCRIPTION,
            "tags": ";".join(f"{key}:{value}" for key, value in resource.tags.items()),
            "tagsList": [{"name": key, "value": value} for key, value in resource.tags.items()],
            "userData": own.get("userData", ""),
            "version": order.image.version,
            "virtualMachineScaleSet": {"id": machine.scale_set},
            "vmId": machine.vm_id,
            "vmScaleSetName": machine.scale_set.rpartition("/")[2],
            "vmSize": order.size,
            "zone": order.zone,
        }
        return {
            "compute": compute,
            "network": {"interface": [_interface(one.properties) for one in machine.interfaces]},
        }

    def _token(self, machine: LiveVM, path: str, query: Mapping[str, str]) -> Answer:
        if path != "oauth2/token":
            return _json({"error": "Not found"}, 404)
        if not query.get("resource"):
            text = "Required audience parameter not specified"
            raise AzureError(400, "invalid_request", text)
        document = self._services.machine_token(
            list((machine.resource.document.get("identity") or {}).get("userAssignedIdentities") or ()),
            query["resource"],
            client_id=query.get("client_id", ""),
            object_id=query.get("object_id", ""),
            msi_res_id=query.get("msi_res_id", query.get("mi_res_id", "")),
        )
        return _json(document)

    # -- what is to happen ---------------------------------------------------------------------------

    def _events(self, method: str, machine: LiveVM, body: bytes) -> Answer:
        """Events of the machine, and of every other of its scale set: each says whose it is."""
        family = self._machines.of(machine.scale_set) if machine.scale_set else [machine]
        if method == "POST":
            return self._approve(family, body)
        events = [event for one in family for event in one.events]
        told = json.dumps(events)
        was, number = self._incarnations.get(machine.id, ("[]", 1))
        if told != was:
            number += 1
        self._incarnations[machine.id] = (told, number)
        return _json({"DocumentIncarnation": number, "Events": events})

    def _approve(self, family: list[LiveVM], body: bytes) -> Answer:
        try:
            wanted = [one["EventId"] for one in json.loads(body)["StartRequests"]]
        except (ValueError, KeyError, TypeError):
            return _json({"error": "Bad request. StartRequests are missing"}, 400)
        known = {event["EventId"]: one for one in family for event in one.events}
        if any(id not in known for id in wanted):
            return _json({"error": "Bad request. There is no such event"}, 400)
        for id in wanted:
            self._machines.life.approve(known[id], id)
        return 200, {"Content-Type": "application/json"}, b""


def _interface(own: dict[str, Any]) -> dict[str, Any]:
    addresses = []
    for one in own["ipConfigurations"]:
        inner = one["properties"]
        public = inner["privateIPAddress"] if "publicIPAddress" in inner else ""
        addresses.append({"privateIpAddress": inner["privateIPAddress"], "publicIpAddress": public})
    return {
        "ipv4": {"ipAddress": addresses, "subnet": [{"address": "127.0.0.0", "prefix": "8"}]},
        "ipv6": {"ipAddress": []},
        "macAddress": own["macAddress"].replace("-", ""),
    }


def check_version(service: str, given: str) -> None:
    """Refuse an api-version that a service of IMDS has not."""
    oldest, newest = VERSIONS[service]
    if not given:
        raise AzureError(400, "Bad request", f"api-version is missing. The newest is {newest}.")
    if not oldest <= given <= newest:
        raise AzureError(400, "Bad request", f"api-version {given} is not supported. The newest is {newest}.")


def _json(document: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode()
