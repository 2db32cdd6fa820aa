"""What a machine is ordered as: read from a document, with all that Azure refuses refused.

https://learn.microsoft.com/rest/api/compute/virtual-machines/create-or-update
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import azure_catalogue
from cloudprovider.emulator.azure_offers import check_location
from cloudprovider.emulator.azure_wire import AzureError, ResourceId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.azure_offers import Image, Offers
    from cloudprovider.emulator.azure_services import AzureServices

__all__ = ["Order", "order"]

#: https://learn.microsoft.com/azure/virtual-machines/custom-data: 64 KB, before base64
CUSTOM_DATA_CHARACTERS = 87380
#: https://learn.microsoft.com/azure/virtual-machines/linux/faq
TAKEN_NAMES = frozenset(
    (
        *(
            "administrator",
            "admin",
            "user",
            "user1",
            "test",
            "user2",
            "test1",
            "user3",
            "admin1",
            "1",
            "123",
            "a",
        ),
        *(
            "actuser",
            "adm",
            "admin2",
            "aspnet",
            "backup",
            "console",
            "david",
            "guest",
            "john",
            "owner",
            "root",
        ),
        *("server", "sql", "support", "support_388945a0", "sys", "test2", "test3", "user4", "user5"),
    )
)
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Order:
    """One machine, as ordered.

    Parameters
    ----------
    location, zone
        Where; an empty zone is anywhere.
    size
        As Azure spells it.
    market
        `on-demand` or `spot`.
    image
        What it boots from.
    custom_data
        As its owner sent it, base64 taken off.
    disk_gib, disk_kind
        Of its OS disk; `disk_kind` is empty for an ephemeral one.
    identities
        Ids of the identities it runs under.
    evicts
        `Delete` or `Deallocate`.
    """

    location: str
    zone: str
    size: str
    market: str
    image: Image
    custom_data: bytes
    disk_gib: int
    disk_kind: str
    identities: tuple[str, ...]
    evicts: str

    @property
    def vcpus(self) -> int:
        """Of its size."""
        return int(azure_catalogue.capabilities(self.size)["vCPUs"])

    @property
    def gpus(self) -> int:
        """Of its size."""
        return int(azure_catalogue.capabilities(self.size).get("GPUs", 0))

    @property
    def family(self) -> str:
        """Whose quota it counts against."""
        return "lowPriorityCores" if self.market == "spot" else azure_catalogue.family(self.size)


def order(document: Mapping[str, Any], offers: Offers, services: AzureServices, id: str) -> Order:
    """What a machine's document orders; raises AzureError when Azure would not take it."""
    own = document.get("properties") or {}
    location = check_location(document["location"])
    size = _size((own.get("hardwareProfile") or {}).get("vmSize", ""), location)
    image = _image(own, document, offers, size)
    disk_gib, disk_kind = _disk(own, size, image)
    return Order(
        location=location,
        zone=_zone(document.get("zones") or [], location, id),
        size=size,
        market=_market(own, size),
        image=image,
        custom_data=_custom_data(own),
        disk_gib=disk_gib,
        disk_kind=disk_kind,
        identities=_identities(document, services, id),
        evicts=own.get("evictionPolicy", "Deallocate"),
    )


def invalid(message: str, target: str) -> AzureError:
    """What is said of most that is wrong."""
    return AzureError(400, "InvalidParameter", message, target=target)


def missing(name: str) -> AzureError:
    """What is said of what is not there."""
    return invalid(f"Required parameter '{name}' is missing (null).", name)


def _size(given: str, location: str) -> str:
    if not given:
        raise missing("hardwareProfile.vmSize")
    known = _known(location)
    if given.lower() not in known:
        some = ", ".join(list(known.values())[:5])
        text = f"The value {given} provided for the VM size is not valid. The valid sizes in the current region are: {some}."
        raise invalid(text, "vmSize")
    return known[given.lower()]


@functools.cache
def _known(location: str) -> dict[str, str]:
    """The sizes of a location, by their names in lower case."""
    return {name.lower(): name for name in azure_catalogue.sizes(location)}


def _zone(zones: list[str], location: str, id: str) -> str:
    if not zones:
        return ""
    if wrong := [zone for zone in zones if zone not in azure_catalogue.locations()[location]]:
        text = (
            f"The zone(s) '{','.join(wrong)}' for resource '{id.partition('/providers/')[2]}' is not supported. "
            f"The supported zones for location '{location}' are "
            f"'{','.join(azure_catalogue.locations()[location])}'."
        )
        raise AzureError(400, "InvalidAvailabilityZone", text)
    return zones[0]


def _market(own: Mapping[str, Any], size: str) -> str:
    spot = own.get("priority", "Regular").lower() in ("spot", "low")
    if not spot and ("evictionPolicy" in own or "billingProfile" in own):
        text = "Eviction policy can be set only on Azure Spot Virtual Machines."
        raise AzureError(409, "OperationNotAllowed", text, target="evictionPolicy")
    if spot and azure_catalogue.capabilities(size).get("LowPriorityCapable") != "True":
        text = f"Azure Spot Virtual Machine is not supported for VM size {size}."
        raise AzureError(400, "AzureSpotIsNotSupportedForThisVMSize", text)
    return "spot" if spot else "on-demand"


def _image(own: Mapping[str, Any], document: Mapping[str, Any], offers: Offers, size: str) -> Image:
    reference = (own.get("storageProfile") or {}).get("imageReference")
    if not reference:
        raise missing("storageProfile.imageReference")
    image, able = offers.image(reference), azure_catalogue.capabilities(size)
    if image.plan and (document.get("plan") or {}).get("name") != image.plan:
        text = (
            "Creating a virtual machine from Marketplace image or a custom image sourced from a Marketplace image "
            f"requires Plan information in the request. VM: '{image.name}'."
        )
        raise AzureError(400, "VMMarketplaceInvalidInput", text)
    wanted = able.get("CpuArchitectureType", "x64")
    if image.architecture != wanted:
        text = (
            f"Cannot create a VM of size '{size}' because this VM size only supports a CPU Architecture of '{wanted}', "
            f"but an image or disk with CPU Architecture '{image.architecture}' was given. Please check that the CPU "
            "Architecture of the image or disk is compatible with that of the VM size."
        )
        raise AzureError(400, "BadRequest", text)
    if image.generation not in able.get("HyperVGenerations", "V1,V2").split(","):
        text = f"The selected VM size '{size}' cannot boot Hypervisor Generation '{image.generation[1:]}'."
        raise AzureError(400, "BadRequest", text)
    return image


def _disk(own: Mapping[str, Any], size: str, image: Image) -> tuple[int, str]:
    """GiB and kind of the OS disk; the kind of an ephemeral one is empty."""
    disk = (own.get("storageProfile") or {}).get("osDisk") or {}
    gib = int(disk.get("diskSizeGB") or image.size_gib)
    if gib < image.size_gib:
        text = (
            f"The specified disk size {gib} GB is smaller than the size of the corresponding disk in the VM image: "
            f"{image.size_gib} GB. This is not allowed. Please choose equal or greater size or do not specify an "
            "explicit size."
        )
        raise invalid(text, "osDisk.diskSizeGB")
    if not (differing := disk.get("diffDiskSettings")):
        return gib, (disk.get("managedDisk") or {}).get("storageAccountType", "Standard_LRS")
    if disk.get("caching") != "ReadOnly":
        text = "OS disk of Ephemeral VM must have caching set to 'ReadOnly'."
        raise invalid(text, "osDisk.caching")
    placement = differing.get("placement", "CacheDisk")
    room = _ephemeral(size, placement)
    if gib > room:
        text = (
            f"OS disk of Ephemeral VM with size greater than {room} GB is not allowed for VM size {size} when the "
            f"DiffDiskPlacement is {placement}."
        )
        raise invalid(text, "osDisk.diskSizeGB")
    return gib, ""


def _ephemeral(size: str, placement: str) -> int:
    """GiB of an ephemeral OS disk at most.

    https://learn.microsoft.com/azure/virtual-machines/ephemeral-os-disks
    """
    able = azure_catalogue.capabilities(size)
    if able.get("EphemeralOSDiskSupported") != "True":
        return 0
    match placement:
        case "CacheDisk":
            return int(able.get("CachedDiskBytes", 0)) // GIB
        case "ResourceDisk":
            return int(able.get("MaxResourceVolumeMB", 0)) // 1024
    return int(able.get("NvmeDiskSizeInMiB", 0)) // 1024


def _custom_data(own: Mapping[str, Any]) -> bytes:
    system = own.get("osProfile")
    if system is None:
        raise missing("osProfile")
    for name in ("computerName", "adminUsername"):
        if not system.get(name):
            raise missing(f"osProfile.{name}")
    if not HOST.fullmatch(system["computerName"]):
        raise invalid(
            "Linux host name cannot exceed 64 characters in length or contain the special characters.",
            "computerName",
        )
    if system["adminUsername"].lower() in TAKEN_NAMES:
        text = "The Admin Username specified is not allowed. For more information about disallowed usernames, see https://aka.ms/vmosprofile"
        raise invalid(text, "adminUsername")
    linux = system.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys")
    if not keys and not system.get("adminPassword"):
        text = (
            "Authentication using either SSH or by user name and password must be enabled in Linux profile."
        )
        raise invalid(text, "linuxConfiguration")
    if linux.get("disablePasswordAuthentication") and not keys:
        text = "At least one SSH public key must be provided when password authentication is disabled."
        raise invalid(text, "linuxConfiguration.ssh.publicKeys")
    for key in keys or ():
        if key.get("path") != f"/home/{system['adminUsername']}/.ssh/authorized_keys":
            text = "The path of a public key must be /home/<adminUsername>/.ssh/authorized_keys."
            raise invalid(text, "linuxConfiguration.ssh.publicKeys.path")
    return _decoded(system.get("customData") or "")


def _decoded(text: str) -> bytes:
    try:
        if len(text) <= CUSTOM_DATA_CHARACTERS:
            return base64.b64decode(text, validate=True)
    except binascii.Error:
        pass
    message = (
        "Custom data in OSProfile must be in Base64 encoding and with a maximum length of "
        f"{CUSTOM_DATA_CHARACTERS} characters."
    )
    raise invalid(message, "customData")


def _identities(document: Mapping[str, Any], services: AzureServices, id: str) -> tuple[str, ...]:
    ids = tuple((document.get("identity") or {}).get("userAssignedIdentities") or ())
    for one in ids:
        if services.identity(one) is None:
            text = (
                f"Identity operation for resource '{id}' failed with error 'Failed to perform resource identity "
                f"operation. Status: 'NotFound'. The user-assigned identity '{ResourceId.of(one).names[-1:] or one}' "
                f"was not found: {one}.'."
            )
            raise AzureError(400, "FailedIdentityOperation", text)
    return ids
