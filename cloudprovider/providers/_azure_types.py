"""Which VM sizes of Azure a cluster runs on: named by the user, or chosen for what they require.

One list of a location's SKUs says what both roles may be of: Azure lists them by location and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import prices
from cloudprovider.errors import ConfigError
from cloudprovider.providers._azure import default_region
from cloudprovider.providers._machine_types import (
    Catalogue,
    Choice,
    MachineType,
    ranked_zones,
    tabled,
    wishes_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloudprovider.providers._azure import Azure
    from cloudprovider.providers._azure_config import AzureVMConfig

__all__ = ["AZURE", "Choice", "InstanceType", "choose_all", "parsed", "quotas_of", "ranked_zones"]

ARCHITECTURES = {"x64": "x86_64", "Arm64": "arm64"}
#: Where an ephemeral OS disk may be, best first, and which capability says how much room there is, in how many bytes.
# https://learn.microsoft.com/azure/virtual-machines/ephemeral-os-disks
PLACEMENTS = {
    "NvmeDisk": ("NvmeSizePerDiskInMiB", 1 << 20),
    "CacheDisk": ("CachedDiskBytes", 1),
    "ResourceDisk": ("MaxResourceVolumeMB", 1 << 20),
}
#: GPUs that are not NVIDIA's, by what sizes with them are called.
# https://learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated
OTHERS = re.compile(r"NV\d+as_v4|NG\d+|.*_(MI\d+X|V620|V710)_|NP\d+")
#: Sizes for confidential machines only, which take other images and security settings.
# https://learn.microsoft.com/azure/confidential-computing/virtual-machine-options
CONFIDENTIAL = re.compile(r"(DC|EC|NCC)\d+")
#: The usage that all of a region's machines on the spot market count against, and that of those on demand.
# https://learn.microsoft.com/azure/quotas/per-vm-quota-requests
SPOT, CORES = "lowPriorityCores", "cores"
# https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-sku-not-available
OPEN = "Ask Azure's support to open it for you, or name another size or region."


@dataclass(frozen=True, kw_only=True)
class InstanceType(MachineType):
    """What the resource SKUs say of one VM size.

    Parameters
    ----------
    family
        The usage that its cores count against, such as `standardDSv5Family`.
    generations
        `V1`, `V2`: of the hypervisor, which an image must have too.
    controllers
        `SCSI`, `NVMe`: how its machines see disks; empty when the SKU does not say.
    premium
        Whether it takes premium disks.
    ephemeral_gib
        By placement (`NvmeDisk`, `CacheDisk`, `ResourceDisk`), best first, the GiB that an ephemeral OS disk may have.
    accelerated
        Whether its network interface may be accelerated.
    confidential
        Whether it is for confidential machines.
    """

    family: str = ""
    generations: tuple[str, ...] = ("V2",)
    controllers: tuple[str, ...] = ()
    premium: bool = True
    ephemeral_gib: Mapping[str, int] = field(default_factory=dict)
    accelerated: bool = True
    confidential: bool = False

    @property
    def fit(self) -> bool:
        """Whether a requirement may be answered with it."""
        return not self.confidential and "V2" in self.generations

    def placement(self, gib: float) -> str | None:
        """Where an ephemeral OS disk of so many GiB may be; None where it has no room."""
        return next((place for place, room in self.ephemeral_gib.items() if room >= gib), None)


def _generation(name: str) -> int:
    """The version at the end of a size's name."""
    found = re.search(r"_v(\d+)$", name)
    return int(found[1]) if found else 1


def _is_burstable(name: str) -> bool:
    return name.startswith("Standard_B")


AZURE = Catalogue(
    cloud="Azure",
    word="size",
    known="eastus",
    price=prices.azure_price,
    sizes=partial(tabled, "azure"),
    generation=_generation,
    burstable=_is_burstable,
    zonal=False,
    elsewhere="pass zones= there, or none",
)


def choose_all(azure: Azure, config: AzureVMConfig, region: str = "") -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in one list of the location's SKUs.

    A size's zones are empty where its region has none, or none for the subscription: machines without a zone may
    still be of it.

    Parameters
    ----------
    azure
        The session.
    config
        Names of sizes, or what the machines shall have; and the zones to look in.
    region
        Where. Default: what the options say, or else the environment.

    Raises
    ------
    ConfigError
        For an unknown size (with the nearest), one that the subscription may not use or that is not offered in
        `zones=`, mixed architectures or numbers of GPUs in one list, or a requirement that nothing fits.
    """
    where = region or config.region or default_region()
    found = azure.pages("compute", "resource_skus.list", filter=f"location eq '{where}'")
    skus = [sku for sku in found if sku["resourceType"] == "virtualMachines"]
    return settled(config, where, skus)


def settled(config: AzureVMConfig, region: str, skus: Iterable[Mapping[str, Any]]) -> dict[str, Choice]:
    """The Choice of each role among a location's SKUs."""
    by_name = {sku["name"]: sku for sku in skus}
    refused = {name: refusal(sku) for name, sku in by_name.items() if refusal(sku)}
    for wish in wishes_of(config):
        for name in set(wish.named) & refused.keys():
            raise ConfigError(
                f"{wish.option}={name!r}: your subscription may not use it in {region} ({refused[name]}). {OPEN}"
            )
    kinds = {name: parsed(sku) for name, sku in by_name.items() if name not in refused}
    choices = AZURE.settled(config, region, kinds, {name: zones_of(by_name[name]) for name in kinds})
    if config.disk_type.startswith("Premium"):
        _check_premium(choices)
    return choices


def _check_premium(choices: Mapping[str, Choice]) -> None:
    """Refuse sizes that take no premium disks; those of the price table all do."""
    for choice in choices.values():
        for size in choice.types:
            if not size.premium:
                raise ConfigError(
                    f"{choice.wish.option}={size.name!r} takes no premium disks: pass disk_type='StandardSSD_LRS', or "
                    "name another size."
                )


def refusal(sku: Mapping[str, Any]) -> str:
    """Why a subscription may have no machine of a SKU anywhere in its location; empty when it may."""
    found = [one for one in sku.get("restrictions") or () if one.get("type") == "Location"]
    return str(found[0].get("reasonCode", "no reason given")) if found else ""


def zones_of(sku: Mapping[str, Any]) -> tuple[str, ...]:
    """The zones where a subscription may have machines of a SKU."""
    offered = {zone for place in sku.get("locationInfo") or () for zone in place.get("zones") or ()}
    closed = {
        zone
        for one in sku.get("restrictions") or ()
        if one.get("type") == "Zone"
        for zone in (one.get("restrictionInfo") or {}).get("zones") or ()
    }
    return tuple(sorted(offered - closed))


def quotas_of(kind: InstanceType, market: str) -> dict[str, int]:
    """By name of usage.list, how many of its cores one machine of a size takes."""
    names = [SPOT] if market == "spot" else [CORES, kind.family]
    return dict.fromkeys(names, kind.vcpu)


def parsed(sku: Mapping[str, Any]) -> InstanceType:
    """Read one VM size of a list of SKUs."""
    can = {one["name"]: one["value"] for one in sku.get("capabilities") or ()}
    name = sku["name"].removeprefix("Standard_")
    gpus = 0 if OTHERS.match(name) else int(can.get("GPUs", 0))
    card = re.search(r"_([A-Z]+\d+)", name)
    return InstanceType(
        name=sku["name"],
        vcpu=int(can.get("vCPUsAvailable") or can["vCPUs"]),
        memory_gib=float(can["MemoryGB"]),
        architecture=ARCHITECTURES.get(can.get("CpuArchitectureType", ""), ""),
        gpus=gpus,
        gpu_name=card[1] if gpus and card else "",
        burstable=_is_burstable(sku["name"]),
        markets=("on-demand", "spot") if _true(can, "LowPriorityCapable") else ("on-demand",),
        family=sku.get("family", ""),
        generations=tuple(can.get("HyperVGenerations", "V1").split(",")),
        controllers=tuple(filter(None, can.get("DiskControllerTypes", "").replace(" ", "").split(","))),
        premium=_true(can, "PremiumIO"),
        ephemeral_gib=_ephemeral(can),
        accelerated=_true(can, "AcceleratedNetworkingEnabled"),
        confidential=CONFIDENTIAL.match(name) is not None,
    )


def _ephemeral(can: Mapping[str, str]) -> dict[str, int]:
    """How large an ephemeral OS disk may be, by placement."""
    if not _true(can, "EphemeralOSDiskSupported"):
        return {}
    said = can.get("SupportedEphemeralOSDiskPlacements", "CacheDisk,ResourceDisk").split(",")
    room = {
        place: int(can.get(capability, 0)) * unit // (1 << 30)
        for place, (capability, unit) in PLACEMENTS.items()
        if place in said
    }
    return {place: gib for place, gib in room.items() if gib}


def _true(can: Mapping[str, str], capability: str) -> bool:
    return can.get(capability, "").lower() == "true"
