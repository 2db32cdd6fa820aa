"""Which permissions a call of Compute Engine's needs, and on what.

https://cloud.google.com/compute/docs/access/iam-permissions
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.emulator.gce_links import HOST_PROJECT, Place, place, region_of
from cloudprovider.emulator.gcp_wire import DEFAULT_ACCOUNT, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_request import Call

#: What a verb's permission is called, where not like the verb.
VERBS = {
    "bulkInsert": "create",
    "insert": "create",
    "patch": "update",
    "aggregatedList": "list",
    "wait": "get",
    "getFromFamily": "getFromFamily",
    "simulateMaintenanceEvent": "simulateMaintenanceEvent",
}
#: What conditions call the resources: https://cloud.google.com/iam/docs/conditions-resource-attributes
TYPES = {
    "instances": "compute.googleapis.com/Instance",
    "disks": "compute.googleapis.com/Disk",
    "images": "compute.googleapis.com/Image",
}

Need = tuple[str, str, str]  # permission, resource, type for conditions


def needed(request: Call) -> Iterator[Need]:
    """Each permission that a call needs."""
    collection, _, verb = request.operation.partition(".")
    if verb == "bulkInsert":
        yield from _of_bulk(request)
        return
    permission = f"compute.{collection}.{VERBS.get(verb, verb)}"
    if collection == "projects":
        yield permission, f"projects/{request.project}", ""
        return
    name = _name(request, collection)
    if not name:
        yield permission, f"projects/{request.project}", ""
        return
    resource = request.place(collection.replace("zoneOperations", "operations"), name)
    yield permission, resource.path, TYPES.get(collection, "")
    if verb == "insert" and collection == "instances":
        yield from _of_instance(request.given, request.project, request.arguments["zone"], name)
    if verb == "insert" and collection == "firewalls":
        yield "compute.networks.updatePolicy", _network(request), ""


def _name(request: Call, collection: str) -> str:
    """The resource that a call is about; empty when it is about many."""
    if request.operation.endswith(".insert"):
        return str(request.given.get("name", ""))
    known = ("project", "zone", "region")
    named = [value for key, value in request.arguments.items() if key not in known]
    return f"family/{named[0]}" if named and collection == "images" and "family" in request.arguments else "".join(named[:1])  # fmt: skip


def _network(request: Call) -> str:
    text = request.given.get("network") or "global/networks/default"
    try:
        return place(text, "networks", request.project, "global").path
    except ValueError:
        return f"projects/{request.project}/global/networks/default"


def _of_bulk(request: Call) -> Iterator[Need]:
    zones = (
        [request.arguments["zone"]] if "zone" in request.arguments else [f"{request.arguments['region']}-a"]
    )
    properties = request.given.get("instanceProperties") or {}
    names = list(request.given.get("perInstanceProperties") or {}) or [request.given.get("namePattern", "")]
    for name in names:
        where = Place(request.project, f"zones/{zones[0]}", "instances", name)
        yield "compute.instances.create", where.path, TYPES["instances"]
    yield from _of_instance(properties, request.project, zones[0], names[0])


def _of_instance(given: Document, project: str, zone: str, name: str) -> Iterator[Need]:
    """What else an order of an instance takes along."""
    where = Place(project, f"zones/{zone}", "instances", name)
    kind = TYPES["instances"]
    if given.get("disks"):
        disk = Place(project, f"zones/{zone}", "disks", name).path
        yield "compute.disks.create", disk, TYPES["disks"]
        if any((one.get("initializeParams") or {}).get("labels") for one in given["disks"]):
            yield "compute.disks.setLabels", disk, TYPES["disks"]
    for one in (given.get("networkInterfaces") or [])[:1]:
        subnet = _subnetwork(one, project, zone)
        yield "compute.subnetworks.use", subnet.path, ""
        if one.get("accessConfigs"):
            yield "compute.subnetworks.useExternalIp", subnet.path, ""
    for field, verb in (("metadata", "setMetadata"), ("labels", "setLabels"), ("tags", "setTags")):
        if given.get(field):
            yield f"compute.instances.{verb}", where.path, kind
    for account in given.get("serviceAccounts") or []:
        yield "compute.instances.setServiceAccount", where.path, kind
        email = account.get("email") or "default"
        email = DEFAULT_ACCOUNT if email == "default" else email
        yield "iam.serviceAccounts.actAs", f"projects/{PROJECT}/serviceAccounts/{email}", ""


def _subnetwork(interface: Document, project: str, zone: str) -> Place:
    scope = f"regions/{region_of(zone)}"
    try:
        if interface.get("subnetwork"):
            return place(interface["subnetwork"], "subnetworks", project, scope)
        network = place(interface.get("network") or "default", "networks", project, "global")
    except ValueError:
        return Place(project, scope, "subnetworks", "default")
    return Place(network.project, scope, "subnetworks", network.name)


def is_foreign(resource: str) -> bool:
    """Whether a resource is of a project whose owners let everybody use it."""
    return resource.split("/")[1] == HOST_PROJECT or not resource.startswith(f"projects/{PROJECT}")
