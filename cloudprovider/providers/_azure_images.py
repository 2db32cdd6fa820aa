"""Which image Azure machines boot: one of the marketplace without a plan, or the user's own."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError
from cloudprovider.providers._azure import default_region
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudprovider.providers._azure import Azure
    from cloudprovider.providers._azure_config import AzureVMConfig
    from cloudprovider.providers._azure_types import Choice

__all__ = ["MachineImage", "check_alike", "find_all"]

#: What is booted where the user has no image, by architecture and whether there are NVIDIA's GPUs: none has a plan.
# https://learn.microsoft.com/azure/azure-linux/how-to-deploy-azure-linux
# https://learn.microsoft.com/azure/virtual-machines/azure-hpc-vm-images
DEFAULTS = {
    ("x86_64", False): "MicrosoftCBLMariner:azure-linux-3:azure-linux-3-gen2:latest",
    ("arm64", False): "MicrosoftCBLMariner:azure-linux-3:azure-linux-3-arm64:latest",
    ("x86_64", True): "microsoft-dsvm:ubuntu-hpc:2204:latest",
}
#: GiB of an OS disk: the marketplace does not say, and a machine whose disk is too small is refused with the size.
# https://learn.microsoft.com/azure/virtual-machines/managed-disks-overview
ROOT_GIB, LARGER = 30, {"microsoft-dsvm": 64}
#: Ids of images of one's own, and of a gallery's, where the newest version is meant when none is named.
IMAGE = re.compile(
    r"(/subscriptions/[^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.Compute/images/([^/]+)",
    re.IGNORECASE,
)
GALLERY = re.compile(
    r"((/subscriptions/[^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.Compute/galleries/([^/]+)/images/([^/]+))"
    r"(/versions/[^/]+)?",
    re.IGNORECASE,
)
#: Versions of the API that ids are read with: https://learn.microsoft.com/rest/api/compute/
IMAGE_API, GALLERY_API = "2024-11-01", "2024-03-03"
ARCHITECTURES = {"x64": "x86_64", "Arm64": "arm64"}
NOT_THERE = (
    "GalleryImageNotFound", "ImageNotFound", "NotFound", "PlatformImageNotFound", "ResourceGroupNotFound",
    "ResourceNotFound", "ArtifactNotFound",
)  # fmt: skip
PLAN = ("name", "product", "publisher")


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image that machines boot from.

    Parameters
    ----------
    reference
        The `imageReference` of an order, with an exact version, so that all machines of a cluster boot the same.
    plan
        The `plan` of an order; empty when the image has none.
    root_size_gib
        The size that its OS disk has at the least.
    architecture
        `x86_64` or `arm64`.
    generation
        Of the hypervisor, `V1` or `V2`: the machines' sizes must have it.
    name
        What its owner calls it.
    own
        Whether it is the user's.
    """

    reference: Mapping[str, str]
    plan: Mapping[str, str]
    root_size_gib: int
    architecture: str
    generation: str = "V2"
    name: str = ""
    own: bool = False


def find_all(
    azure: Azure, config: AzureVMConfig, kinds: Collection[tuple[str, bool]], region: str = ""
) -> dict[tuple[str, bool], MachineImage]:
    """The image of each kind of machine: architecture, and whether it has GPUs; in two calls for each image.

    Raises
    ------
    ConfigError
        When `machine_image=` is not there, cannot boot these machines, or has a plan that `plan=` does not name.
    """
    where = region or config.region or default_region()
    wanted = {kind: config.machine_image or _default(kind) for kind in kinds}
    texts = sorted(set(wanted.values()))
    found = side_by_side(partial(_got, azure, config, where, text) for text in texts)
    images = dict(zip(texts, found, strict=True))
    return {kind: _checked(images[text], kind[0], config) for kind, text in wanted.items()}


def check_alike(choice: Choice, image: MachineImage) -> None:
    """Refuse sizes whose machines an image cannot boot.

    Raises
    ------
    ConfigError
        When one of them is not of the image's generation.
    """
    for size in choice.types:
        if image.generation not in size.generations:
            raise ConfigError(
                f"{size.name} boots images of generation {' or '.join(one[1:] for one in size.generations)}, and "
                f"{image.name} is of generation {image.generation[1:]}: name other sizes, or another machine_image=."
            )


def _default(kind: tuple[str, bool]) -> str:
    if kind in DEFAULTS:
        return DEFAULTS[kind]
    raise ConfigError(
        f"There is no image without a plan for {kind[0]} machines with GPUs. Pass machine_image= one of yours, with "
        "cloud-init, a container engine and NVIDIA's driver, or other sizes."
    )


def _got(azure: Azure, config: AzureVMConfig, region: str, text: str) -> MachineImage:
    """The image of a name."""
    if text.startswith("/"):
        return _of_id(azure, text)
    publisher, offer, sku, version = text.split(":")
    what = f"machine_image={text!r}" if config.machine_image else f"The image {text}"
    where = (region, publisher, offer, sku)
    if version == "latest":
        # The API has no image of this name, only machines do.
        found = azure.pages("compute", "virtual_machine_images.list", *where, fine=NOT_THERE)
        version = max((one["name"] for one in found), key=_numbers, default="")
    image = version and azure.call("compute", "virtual_machine_images.get", *where, version, fine=NOT_THERE)
    if not image:
        raise ConfigError(
            f"{what}: the marketplace has none in {region}. `az vm image list --all` shows those there are."
        )
    facts = image["properties"]
    return MachineImage(
        reference={"publisher": publisher, "offer": offer, "sku": sku, "version": version},
        plan={key: facts["plan"][key] for key in PLAN} if facts.get("plan") else {},
        root_size_gib=LARGER.get(publisher, ROOT_GIB),
        architecture=ARCHITECTURES.get(facts.get("architecture", "x64"), ""),
        generation=facts.get("hyperVGeneration", "V1"),
        name=f"{publisher}:{offer}:{sku}:{version}",
    )


def _of_id(azure: Azure, id: str) -> MachineImage:
    """An image of the user's: of a gallery, or alone."""
    if GALLERY.fullmatch(id):
        return _of_gallery(azure, id)
    image = _read(azure, id, IMAGE_API) if IMAGE.fullmatch(id) else {}
    if not image:
        raise ConfigError(
            f"machine_image={id!r}: there is no such image, or you may not see it. Its id is "
            "'/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/images/NAME', or '.../galleries/NAME/images/NAME'."
        )
    facts = image["properties"]
    disk = facts.get("storageProfile", {}).get("osDisk", {})
    return MachineImage(
        reference={"id": id},
        plan={},
        root_size_gib=disk.get("diskSizeGB") or ROOT_GIB,
        # Only images of galleries may be for ARM: https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries
        architecture="x86_64",
        generation=facts.get("hyperVGeneration", "V1"),
        name=image["name"],
    )


def _of_gallery(azure: Azure, id: str) -> MachineImage:
    """An image of a gallery, in the version that is named, or else the newest."""
    definition, *names, version = GALLERY.fullmatch(id).groups()  # type: ignore[union-attr]
    newest = _read(azure, id, GALLERY_API) if version else _newest(azure, id, *names)
    image = newest and _read(azure, definition, GALLERY_API)
    if not image or not newest:
        raise ConfigError(
            f"machine_image={id!r}: the gallery has no such image or version, or you may not see it."
        )
    facts, disk = image["properties"], newest["properties"].get("storageProfile", {}).get("osDiskImage", {})
    plan = facts.get("purchasePlan")
    return MachineImage(
        reference={"id": newest["id"]},
        plan={key: plan[key] for key in PLAN} if plan else {},
        root_size_gib=disk.get("sizeInGB") or ROOT_GIB,
        architecture=ARCHITECTURES.get(facts.get("architecture", "x64"), ""),
        generation=facts.get("hyperVGeneration", "V1"),
        name=f"{image['name']} {newest['name']}",
    )


def _newest(azure: Azure, id: str, subscription: str, group: str, gallery: str, image: str) -> dict[str, Any]:
    """The newest version of an image in a gallery of ours; empty when there is none."""
    if subscription.rpartition("/")[2].lower() != azure.subscription.lower():
        raise ConfigError(
            f"machine_image={id!r} is of another subscription: name its version, '.../versions/1.2.3'."
        )
    list_ = "gallery_image_versions.list_by_gallery_image"
    found = azure.pages("compute", list_, group, gallery, image, fine=NOT_THERE)
    return max(
        (one for one in found if not _left_out(one)), key=lambda one: _numbers(one["name"]), default={}
    )


def _left_out(version: Mapping[str, Any]) -> bool:
    """Whether a version is not what `latest` means."""
    return bool(version["properties"].get("publishingProfile", {}).get("excludeFromLatest"))


def _read(azure: Azure, id: str, version: str) -> dict[str, Any]:
    """A resource by its id, which may be of another subscription than ours; empty when it is not there."""
    return azure.call("resources", "resources.get_by_id", id, fine=NOT_THERE, api_version=version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _checked(image: MachineImage, architecture: str, config: AzureVMConfig) -> MachineImage:
    """Refuse an image that cannot boot."""
    if image.architecture != architecture:
        raise ConfigError(
            f"machine_image={config.machine_image!r} cannot boot these machines: it is for "
            f"{image.architecture or 'neither x86_64 nor arm64'}, they are {architecture}."
        )
    if image.plan != dict(config.plan):
        urn = f" --urn {image.name}" if ":" in image.name else ""
        what = f"has the plan {dict(image.plan)}" if image.plan else "has no plan"
        accept = f" `az vm image terms accept{urn}` accepts its terms." if image.plan else ""
        raise ConfigError(f"machine_image={config.machine_image!r} {what}: pass plan= so.{accept}")
    return dataclasses.replace(image, own=bool(config.machine_image))
