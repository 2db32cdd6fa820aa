"""What the embedded Azure offers: sizes, images, and how much of each a subscription may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import azure_catalogue
from cloudprovider.emulator.azure_store import Resource, resource_id
from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_store import Store

__all__ = ["Image", "Offers"]

LOCATION = re.compile(r"location eq '([^']*)'")
IMAGE = "Microsoft.Compute/images"
VERSION = "2026.07.01"
#: Publisher, offer, SKU: architecture, generation, GiB of the OS disk, plan.
#: https://learn.microsoft.com/azure/virtual-machines/linux/endorsed-distros
MARKETPLACE = {
    ("Canonical", "ubuntu-24_04-lts", "server"): ("x64", "V2", 30, ""),
    ("Canonical", "ubuntu-24_04-lts", "server-gen1"): ("x64", "V1", 30, ""),
    ("Canonical", "ubuntu-24_04-lts", "server-arm64"): ("Arm64", "V2", 30, ""),
    ("Canonical", "ubuntu-24_04-lts", "minimal"): ("x64", "V2", 30, ""),
    ("Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-gen2"): ("x64", "V2", 30, ""),
    ("Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-arm64"): ("Arm64", "V2", 30, ""),
    ("Debian", "debian-12", "12-gen2"): ("x64", "V2", 30, ""),
    ("Debian", "debian-12", "12-arm64"): ("Arm64", "V2", 30, ""),
    ("MicrosoftCBLMariner", "azure-linux-3", "azure-linux-3-gen2"): ("x64", "V2", 30, ""),
    ("MicrosoftCBLMariner", "azure-linux-3", "azure-linux-3-arm64"): ("Arm64", "V2", 30, ""),
    ("microsoft-dsvm", "ubuntu-hpc", "2204"): ("x64", "V2", 64, ""),
    ("microsoft-dsvm", "ubuntu-hpc", "2404"): ("x64", "V2", 64, ""),
    ("microsoft-dsvm", "ubuntu-hpc", "2404-gb"): ("Arm64", "V2", 64, ""),
    ("kinvolk", "flatcar-container-linux-free", "stable-gen2"): ("x64", "V2", 30, "stable-gen2"),
}
NVIDIA = ("nvidia", "ngc_azure_17_11", "ngc-base-version-24_10_1_gen2")
MARKETPLACE[NVIDIA] = ("x64", "V2", 64, NVIDIA[2])


#: What is in an offer, where it is no plain Ubuntu.
SYSTEMS = {"azure-linux-3": "azure-linux", "ubuntu-hpc": "ubuntu-hpc"}
GALLERY = "Microsoft.Compute/galleries"
#: Images of one's own: how the SDK calls each type's operations, and its list's.
OWN = {
    "Images": (IMAGE, ("List", "ListByResourceGroup")),
    "Galleries": (GALLERY, ("List", "ListByResourceGroup")),
    "GalleryImages": (f"{GALLERY}/images", ("ListByGallery",)),
    "GalleryImageVersions": (f"{GALLERY}/images/versions", ("ListByGalleryImage",)),
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """What a machine boots from.

    Parameters
    ----------
    name
        What machines and people call it.
    architecture, generation
        `x64` or `Arm64`; `V1` or `V2`.
    size_gib
        Of the OS disk.
    plan
        The name of the plan that must come with an order; empty without one.
    version
        The exact one, where `latest` was asked for.
    system
        The operating system in it, of `guest_systems.SYSTEMS`.
    """

    name: str
    architecture: str = "x64"
    generation: str = "V2"
    size_gib: int = 30
    plan: str = ""
    version: str = ""
    system: str = "ubuntu"


class Offers:
    """Answers what is asked of sizes, images and usage."""

    def __init__(self, account: Account, store: Store) -> None:
        self._account = account
        self._store = store
        self.used: Callable[[str], Mapping[str, int]] = lambda _: {}

    def handlers(self) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        """What answers each operation."""
        yield "ResourceSkus.List", self._skus
        yield "Usage.List", self._usage
        yield "VirtualMachineImages.Get", self._image
        yield "VirtualMachineImages.List", self._versions
        yield "VirtualMachineImages.ListSkus", self._image_skus
        for name, (type, lists) in OWN.items():
            yield f"{name}.Get", self._own
            yield f"{name}.CreateOrUpdate", partial(self._add, type)
            for one in lists:
                yield f"{name}.{one}", partial(self._own_list, type)

    # -- sizes ---------------------------------------------------------------------------------------

    def _skus(self, request: Request) -> Reply:
        """Only by location; without one the answer is of all, and takes its time."""
        wanted = LOCATION.fullmatch(request.query.get("$filter", ""))
        places = [wanted[1].lower()] if wanted else list(azure_catalogue.locations())
        skus = [sku for place in places for sku in azure_catalogue.resource_skus(place)]
        return Reply(body={"value": [self._restricted(sku) for sku in skus]})

    def _restricted(self, sku: dict[str, Any]) -> dict[str, Any]:
        """A size with what the subscription may not have of it: a capacity of 0."""
        place = sku["locations"][0]
        if self._account.profile.capacity.get(f"{place}/{sku['name']}") != 0:
            return sku
        restriction = {
            "type": "Location",
            "values": [place],
            "restrictionInfo": {"locations": [place]},
            "reasonCode": "NotAvailableForSubscription",
        }
        return {**sku, "restrictions": [restriction]}

    def limit(self, usage: str) -> float:
        """How much of something the subscription may use in a region: `cores`, or a family of sizes."""
        limit = self._account.profile.quotas.get(usage, 1_000_000)
        fault = self._account.faults.market("quota", "spot" if usage == "lowPriorityCores" else "on-demand")
        return min(limit, fault.room) if fault else limit

    def _usage(self, request: Request) -> Reply:
        location = check_location(request.names["location"])
        used = self.used(location)
        families = {azure_catalogue.family(size) for size in azure_catalogue.sizes(location)}
        names = ["cores", "lowPriorityCores", "virtualMachines", *sorted(families)]
        told = [
            {
                "unit": "Count",
                "currentValue": used.get(name, 0),
                "limit": int(self.limit(name)),
                "name": {"value": name, "localizedValue": LOCALIZED.get(name, f"{name} vCPUs")},
            }
            for name in names
        ]
        return Reply(body={"value": told})

    # -- images --------------------------------------------------------------------------------------

    def _image(self, request: Request) -> Reply:
        where = [request.names[key] for key in ("publisher_name", "offer", "skus", "version")]
        if where[3].lower() == "latest":  # only orders know that word
            raise AzureError(404, "NotFound", "Artifact: VMImage was not found.")
        image = self._published(where)
        location = check_location(request.names["location"])
        own: dict[str, Any] = {
            "hyperVGeneration": image.generation,
            "architecture": image.architecture,
            "osDiskImage": {"operatingSystem": "Linux"},
            "dataDiskImages": [],
        }
        if image.plan:
            own["plan"] = {"publisher": where[0], "name": image.plan, "product": where[1]}
        body = {
            "id": image_id(location, where[:3], image.version),
            "name": image.version,
            "location": location,
        }
        return Reply(body={**body, "properties": own})

    def _published(self, where: Sequence[str]) -> Image:
        try:
            return self.marketplace(where)
        except AzureError as error:
            raise AzureError(404, "NotFound", "Artifact: VMImage was not found.") from error

    def _versions(self, request: Request) -> Reply:
        where = [request.names[key] for key in ("publisher_name", "offer", "skus")]
        location = check_location(request.names["location"])
        image = self._published([*where, "latest"])
        told = {"id": image_id(location, where, image.version), "name": image.version, "location": location}
        return Reply(body=[told])

    def _image_skus(self, request: Request) -> Reply:
        publisher, offer = request.names["publisher_name"], request.names["offer"]
        location = check_location(request.names["location"])
        found = [
            one
            for one in MARKETPLACE
            if (publisher.lower(), offer.lower()) == (one[0].lower(), one[1].lower())
        ]
        told = [{"id": image_id(location, one, ""), "name": one[2], "location": location} for one in found]
        return Reply(body=told)

    def _own(self, request: Request) -> Reply:
        return Reply(body=told(self._store.get(request.path)))

    def _own_list(self, type: str, request: Request) -> Reply:
        parent = request.path.rpartition("/")[0] if request.id.names else ""
        found = self._store.of(type, request.id.group)
        found = [one for one in found if one.id.lower().startswith(parent.lower())]
        return Reply(body={"value": [told(one) for one in found]})

    def _add(self, type: str, request: Request) -> Reply:
        id = resource_id(self._store.group(request.id.group).name, type, *request.id.names)
        if type.count("/") > 1:
            self._store.get(id.rpartition("/")[0].rpartition("/")[0])
        image = Resource(id=id, type=type, document=dict(request.body))
        image.properties["provisioningState"] = "Succeeded"
        self._store.add(image)
        return Reply(body=told(image), status=201)

    def marketplace(self, where: Sequence[str]) -> Image:
        """An image by publisher, offer, SKU and version; raises AzureError when there is none."""
        *wanted, version = (part.lower() for part in where)
        found = next((one for one in MARKETPLACE if [part.lower() for part in one] == wanted), None)
        if found is None or version not in ("latest", VERSION):
            text = (
                f"The platform image '{':'.join(where)}' is not available. Verify that all fields "
                "in the storage profile are correct. For more details about storage profile information, please "
                "refer to https://aka.ms/storageprofile"
            )
            raise AzureError(404, "PlatformImageNotFound", text, target="imageReference")
        architecture, generation, size, plan = MARKETPLACE[found]
        return Image(
            name=":".join((*found, VERSION)),
            architecture=architecture,
            generation=generation,
            size_gib=size,
            plan=plan,
            version=VERSION,
            system=SYSTEMS.get(found[1], "ubuntu"),
        )

    def image(self, reference: Mapping[str, Any]) -> Image:
        """The image that a document names; raises AzureError when there is none."""
        if id := reference.get("id"):
            return self._of_id(id)
        names = [str(reference.get(key, "")) for key in ("publisher", "offer", "sku", "version")]
        return self.marketplace(names)

    def _of_id(self, id: str) -> Image:
        """An image of one's own: a managed one, or one of a gallery, with or without a version."""
        found = self._store.find(id)
        if found is None:
            text = f"The gallery image {id} is not available or does not exist."
            raise AzureError(404, "GalleryImageNotFound" if "/galleries/" in id else "ImageNotFound", text)
        definition = self._store.find(id.partition("/versions/")[0]) or found
        own, plan = definition.properties, definition.properties.get("purchasePlan") or {}
        disks = found.properties.get("storageProfile") or {}
        disk = disks.get("osDiskImage") or disks.get("osDisk") or {}
        return Image(
            name=id,
            size_gib=int(disk.get("sizeInGB") or disk.get("diskSizeGB") or 30),
            architecture=own.get("architecture", "x64"),
            generation=own.get("hyperVGeneration", "V1" if found.type == IMAGE else "V2"),
            plan=plan.get("name", ""),
        )


LOCALIZED = {
    "cores": "Total Regional vCPUs",
    "lowPriorityCores": "Total Regional Low-priority vCPUs",
    "virtualMachines": "Virtual Machines",
}


def image_id(location: str, where: Sequence[str], version: str) -> str:
    """The id of a marketplace image, or of its SKU."""
    publisher, offer, sku = where
    start = f"/Subscriptions/{SUBSCRIPTION}/Providers/Microsoft.Compute/Locations/{location}"
    id = f"{start}/Publishers/{publisher}/ArtifactTypes/VMImage/Offers/{offer}/Skus/{sku}"
    return f"{id}/Versions/{version}" if version else id


def told(image: Resource) -> dict[str, Any]:
    """An image of one's own as the API tells it."""
    return {"id": image.id, "name": image.name, "type": image.type, **image.document}


def check_location(location: str) -> str:
    """A location by its name; raises AzureError when there is none."""
    name = location.replace(" ", "").lower()
    if name in azure_catalogue.locations():
        return name
    known = ",".join(azure_catalogue.locations())
    text = f"The provided location '{location}' is not available for resource. List of available regions is '{known}'."
    raise AzureError(400, "LocationNotAvailableForResourceType", text)
