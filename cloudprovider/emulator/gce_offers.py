"""What the embedded Compute Engine has to offer: zones, regions, machine types, accelerators, disks, images.

https://cloud.google.com/compute/docs/images/os-details
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gce_catalogue
from cloudprovider.emulator.gce_links import BASE, Place, check_name, fingerprint, invalid, place, region_of
from cloudprovider.emulator.gce_lists import aggregated, listed
from cloudprovider.emulator.gcp_wire import DEFAULT_ACCOUNT, PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.gce_capacity import Capacity
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_operations import Operation, Operations
    from cloudprovider.emulator.gce_request import Call

#: Public images by project and family: name, architecture, and the size of their disk in GB.
IMAGES: Mapping[str, Mapping[str, tuple[str, str, int]]] = {
    "cos-cloud": {
        "cos-stable": ("cos-stable-125-19216-104-74", "X86_64", 10),
        "cos-arm64-stable": ("cos-arm64-stable-125-19216-104-74", "ARM64", 10),
        "cos-121-lts": ("cos-121-18867-294-77", "X86_64", 10),
        "cos-arm64-121-lts": ("cos-arm64-121-18867-294-77", "ARM64", 10),
    },
    "debian-cloud": {
        "debian-12": ("debian-12-bookworm-v20261110", "X86_64", 10),
        "debian-12-arm64": ("debian-12-bookworm-arm64-v20261110", "ARM64", 10),
    },
    "ubuntu-os-cloud": {
        "ubuntu-2404-lts-amd64": ("ubuntu-2404-noble-amd64-v20261112", "X86_64", 10),
        "ubuntu-2404-lts-arm64": ("ubuntu-2404-noble-arm64-v20261112", "ARM64", 10),
        "ubuntu-accelerator-2404-amd64-with-nvidia-580": (
            "ubuntu-accelerator-2404-amd64-with-nvidia-580-v20261112",
            "X86_64",
            10,
        ),
    },
}
#: Types of disks, and their sizes in GB when none is asked for.
DISKS = {
    "hyperdisk-balanced": 100,
    "local-ssd": 375,
    "pd-balanced": 100,
    "pd-extreme": 1000,
    "pd-ssd": 100,
    "pd-standard": 500,
}


class Offers:
    """What there is to order, and the images of one's own."""

    def __init__(self, capacity: Capacity, operations: Operations) -> None:
        self._capacity, self._operations = capacity, operations
        self._images: dict[Place, Document] = {}
        for project, families in IMAGES.items():
            for family, (name, architecture, size) in families.items():
                where = Place(project, "global", "images", name)
                own = {"family": family, "architecture": architecture, "diskSizeGb": str(size)}
                self._images[where] = where.new("image") | own | _image_facts()
        self.handlers: dict[str, Callable[[Call], Any]] = {
            "projects.get": self.project,
            "regions.get": self.region,
            "regions.list": self.regions,
            "zones.get": self.zone,
            "zones.list": self.zones,
            "machineTypes.get": self.machine_type,
            "machineTypes.list": self.machine_types,
            "machineTypes.aggregatedList": self.all_machine_types,
            "acceleratorTypes.get": self.accelerator_type,
            "acceleratorTypes.list": self.accelerator_types,
            "acceleratorTypes.aggregatedList": self.all_accelerator_types,
            "diskTypes.get": self.disk_type,
            "diskTypes.list": self.disk_types,
            "images.get": self.image,
            "images.list": self.images,
            "images.getFromFamily": self.newest_image,
            "images.insert": self.insert_image,
            "images.delete": self.delete_image,
        }

    # -- where ---------------------------------------------------------------------------------------

    def project(self, request: Call) -> Document:
        """The project, with the quotas that count everywhere."""
        name = request.project
        return {
            "kind": "compute#project",
            "id": "5820573049129477",
            "creationTimestamp": "2026-01-05T03:00:00.000-08:00",
            "name": name,
            "selfLink": f"{BASE}projects/{name}",
            "defaultServiceAccount": DEFAULT_ACCOUNT,
            "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
            "defaultNetworkTier": "PREMIUM",
            "vmDnsSetting": "ZONAL_ONLY",
            "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": "Y29tbW9u"},
            "quotas": self._capacity.quotas(""),
        }

    def region(self, request: Call) -> Document:
        """One region, with its quotas."""
        name = request.arguments["region"]
        if name not in gce_catalogue.regions():
            raise _nowhere(request.project, "regions", name)
        return self._region(request.project, name)

    def regions(self, request: Call) -> Document:
        """All of them."""
        return listed(
            request, "region", [self._region(request.project, one) for one in gce_catalogue.regions()]
        )

    def _region(self, project: str, name: str) -> Document:
        base = f"{BASE}projects/{project}/"
        return {
            "kind": "compute#region",
            "id": str(1000 + list(gce_catalogue.regions()).index(name)),
            "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
            "name": name,
            "description": name,
            "status": "UP",
            "zones": [f"{base}zones/{zone}" for zone in gce_catalogue.regions()[name]],
            "quotas": self._capacity.quotas(name),
            "selfLink": f"{base}regions/{name}",
            "supportsPzs": False,
        }

    def zone(self, request: Call) -> Document:
        """One zone."""
        return _zone(request.project, _known_zone(request))

    def zones(self, request: Call) -> Document:
        """All of them."""
        return listed(request, "zone", [_zone(request.project, one) for one in all_zones()])

    # -- machines and disks --------------------------------------------------------------------------

    def machine_type(self, request: Call) -> Document:
        """One machine type of a zone."""
        zone, name = _known_zone(request), request.arguments["machineType"]
        if found := _typed(request.project, zone, "machineTypes", name):
            return found
        raise request.place("machineTypes", name).missing()

    def machine_types(self, request: Call) -> Document:
        """Those of a zone."""
        return listed(
            request, "machineType", _all_typed(request.project, _known_zone(request), "machineTypes")
        )

    def all_machine_types(self, request: Call) -> Document:
        """Those of all zones."""
        return _aggregated_types(request, "machineType", "machineTypes")

    def accelerator_type(self, request: Call) -> Document:
        """One accelerator of a zone."""
        zone, name = _known_zone(request), request.arguments["acceleratorType"]
        if found := _typed(request.project, zone, "acceleratorTypes", name):
            return found
        raise request.place("acceleratorTypes", name).missing()

    def accelerator_types(self, request: Call) -> Document:
        """Those of a zone."""
        found = _all_typed(request.project, _known_zone(request), "acceleratorTypes")
        return listed(request, "acceleratorType", found)

    def all_accelerator_types(self, request: Call) -> Document:
        """Those of all zones."""
        return _aggregated_types(request, "acceleratorType", "acceleratorTypes")

    def disk_type(self, request: Call) -> Document:
        """One type of disks."""
        zone, name = _known_zone(request), request.arguments["diskType"]
        if name not in DISKS:
            raise request.place("diskTypes", name).missing()
        return _disk_type(request.project, zone, name)

    def disk_types(self, request: Call) -> Document:
        """All of them."""
        zone = _known_zone(request)
        return listed(request, "diskType", [_disk_type(request.project, zone, name) for name in DISKS])

    # -- images --------------------------------------------------------------------------------------

    def image(self, request: Call) -> Document:
        """One image."""
        where = request.place("images", request.arguments["image"])
        if where not in self._images:
            raise where.missing()
        return self._images[where]

    def images(self, request: Call) -> Document:
        """Those of a project."""
        return listed(
            request, "image", [one for at, one in self._images.items() if at.project == request.project]
        )

    def newest_image(self, request: Call) -> Document:
        """The newest image of a family."""
        family = Place(request.project, "global", "images", f"family/{request.arguments['family']}")
        return self._newest(family)

    def _newest(self, family: Place) -> Document:
        wanted = family.name.removeprefix("family/")
        found = [
            one
            for at, one in self._images.items()
            if at.project == family.project and one.get("family") == wanted and "deprecated" not in one
        ]
        if not found:
            raise family.missing()
        return found[-1]

    def booted(self, text: str, project: str) -> Document:
        """The image that a disk is made from.

        Raises
        ------
        GCPError
            When there is none of this name or family.
        """
        try:
            where = place(text, "images", project, "global")
        except ValueError as error:
            raise invalid(
                "resource.disks[0].initializeParams.sourceImage", text, "The URL is malformed."
            ) from error
        if where.name.startswith("family/"):
            return self._newest(where)
        if where not in self._images:
            raise where.missing()
        return self._images[where]

    def insert_image(self, request: Call) -> Document:
        """A new image, from another one."""
        where = request.place("images", request.given.get("name", ""))
        check_name("resource.name", where.name)
        source = self.booted(request.given.get("sourceImage", ""), request.project)

        def work() -> Operation:
            if where in self._images:
                raise where.taken()
            facts = {key: source[key] for key in ("architecture", "diskSizeGb")}
            self._images[where] = where.new("image") | facts | _image_facts() | request.given
            operation = self._operations.begin("insert", where, request.principal.email)
            self._operations.soon(operation)
            return operation

        return self._operations.once(request, work)

    def delete_image(self, request: Call) -> Document:
        """Delete an image of one's own."""
        where = request.place("images", request.arguments["image"])

        def work() -> Operation:
            self.image(request)
            operation = self._operations.begin("delete", where, request.principal.email)
            self._operations.soon(operation, lambda: _drop(self._images, where))
            return operation

        return self._operations.once(request, work)

    def own(self) -> list[Document]:
        """The project's own images."""
        return [one for at, one in self._images.items() if at.project == PROJECT]


def all_zones() -> list[str]:
    """Every zone."""
    return [zone for zones in gce_catalogue.regions().values() for zone in zones]


def check_zone(project: str, zone: str) -> None:
    """Refuse a zone that there is not."""
    if zone not in gce_catalogue.regions().get(region_of(zone), ()):
        raise _nowhere(project, "zones", zone)


def _known_zone(request: Call) -> str:
    check_zone(request.project, request.arguments["zone"])
    return request.arguments["zone"]


def _nowhere(project: str, kind: str, name: str) -> GCPError:
    return GCPError(404, f"The resource 'projects/{project}/{kind}/{name}' was not found", reason="notFound")


def _zone(project: str, name: str) -> Document:
    base = f"{BASE}projects/{project}/"
    return {
        "kind": "compute#zone",
        "id": str(2000 + all_zones().index(name)),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": name,
        "status": "UP",
        "region": f"{base}regions/{region_of(name)}",
        "selfLink": f"{base}zones/{name}",
        "availableCpuPlatforms": sorted(set(gce_catalogue.PLATFORMS.values())),
        "supportsPzs": False,
    }


def _typed(project: str, zone: str, collection: str, name: str) -> Document | None:
    find = gce_catalogue.machine_type if collection == "machineTypes" else gce_catalogue.accelerator_type
    found = find(zone, name)
    if found is None:
        return None
    link = Place(project, f"zones/{zone}", collection, name).link
    where = f"{BASE}projects/{project}/zones/{zone}" if collection == "acceleratorTypes" else zone
    return {**found, "selfLink": link, "zone": where}


def _all_typed(project: str, zone: str, collection: str) -> list[Document]:
    names = (
        gce_catalogue.machine_types(zone)
        if collection == "machineTypes"
        else gce_catalogue.accelerator_types(zone)
    )
    found = (_typed(project, zone, collection, name) for name in names)
    return [one for one in found if one is not None]


def _aggregated_types(request: Call, kind: str, collection: str) -> Document:
    scopes = {f"zones/{zone}": _all_typed(request.project, zone, collection) for zone in all_zones()}
    return aggregated(request, kind, collection, scopes)


def _disk_type(project: str, zone: str, name: str) -> Document:
    return {
        "kind": "compute#diskType",
        "id": str(30000 + list(DISKS).index(name)),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": name,
        "validDiskSize": "10GB-65536GB",
        "defaultDiskSizeGb": str(DISKS[name]),
        "zone": f"{BASE}projects/{project}/zones/{zone}",
        "selfLink": Place(project, f"zones/{zone}", "diskTypes", name).link,
    }


def _image_facts() -> Document:
    return {
        "status": "READY",
        "sourceType": "RAW",
        "archiveSizeBytes": "1073741824",
        "storageLocations": ["us"],
        "labelFingerprint": fingerprint(),
    }


def _drop(images: dict[Place, Document], where: Place) -> None:
    images.pop(where, None)
