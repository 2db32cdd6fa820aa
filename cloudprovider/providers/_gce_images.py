"""Which image Compute Engine machines boot: Container-Optimized OS, or the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Collection

    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gcp import GCP

__all__ = ["MachineImage", "find_all"]

#: The newest Container-Optimized OS by architecture; it has the installer of NVIDIA's driver.
# https://cloud.google.com/container-optimized-os/docs/concepts/versioning
FAMILIES = {
    "x86_64": "projects/cos-cloud/global/images/family/cos-stable",
    "arm64": "projects/cos-cloud/global/images/family/cos-arm64-stable",
}
#: How images and their families are written: https://cloud.google.com/compute/docs/images
NAME = re.compile(
    r"(?:https://.*/)?(?:projects/(?P<project>[^/]+)/)?global/images/(?P<family>family/)?(?P<name>[^/]+)"
)
#: What no new machine may boot from.
OBSOLETE = frozenset({"OBSOLETE", "DELETED"})
ARCHITECTURES = {"X86_64": "x86_64", "ARM64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image that machines boot from.

    Parameters
    ----------
    id
        `projects/P/global/images/NAME`: never a family, so that all machines of a cluster boot the same.
    root_size_gib
        The size that its boot disk has at the least.
    architecture
        `x86_64` or `arm64`.
    name
        What its owner calls it.
    own
        Whether it is the user's.
    """

    id: str
    root_size_gib: int
    architecture: str
    name: str = ""
    own: bool = False


def find_all(gcp: GCP, config: GCPConfig, architectures: Collection[str]) -> dict[str, MachineImage]:
    """The image of each architecture, in a call for each, side by side.

    Raises
    ------
    ConfigError
        When `machine_image=` is not there, not ready, or cannot boot these machines; says what is wrong.
    """
    wanted = {one: config.machine_image or FAMILIES[one] for one in architectures}
    texts = sorted(set(wanted.values()))
    found = dict(zip(texts, side_by_side(partial(_got, gcp, config, text) for text in texts), strict=True))
    return {one: _checked(found[text], one, config) for one, text in wanted.items()}


def _got(gcp: GCP, config: GCPConfig, text: str) -> Any:
    """The image of a name, or the newest of a family."""
    named = NAME.fullmatch(text)
    if named is None:
        raise ConfigError(
            f"machine_image={text!r} is no image: write 'projects/P/global/images/NAME', or '.../family/NAME'."
        )
    project, name = named["project"] or gcp.project, named["name"]
    if named["family"]:
        image = gcp.call("images", "get_from_family", fine={404}, project=project, family=name)
    else:
        image = gcp.call("images", "get", fine={404}, project=project, image=name)
    if image is None:
        what = f"family {name!r} with an image" if named["family"] else f"image {name!r}"
        option = f"machine_image={text!r}: " if config.machine_image else ""
        raise ConfigError(
            f"{option}project {project} has no {what}. `gcloud compute images list --project "
            f"{project}` shows those there are."
        )
    return image


def _checked(image: Any, architecture: str, config: GCPConfig) -> MachineImage:
    """Read an image, and refuse one that cannot boot."""
    project = re.search(r"projects/([^/]+)/", image.self_link)
    id = f"projects/{project[1]}/global/images/{image.name}" if project else image.self_link
    what = f"machine_image={config.machine_image!r} ({image.name})" if config.machine_image else image.name
    for_ = ARCHITECTURES.get(image.architecture, "x86_64")
    checks = {
        f"it is {image.status or 'in an unknown state'}, not READY": image.status == "READY",
        f"it is for {for_}, they are {architecture}": for_ == architecture,
        f"it is {image.deprecated.state}": image.deprecated.state not in OBSOLETE,
    }
    if wrong := [why for why, fine in checks.items() if not fine]:
        raise ConfigError(f"{what} cannot boot these machines: {', and '.join(wrong)}.")
    return MachineImage(
        id=id,
        root_size_gib=int(image.disk_size_gb),
        architecture=architecture,
        name=image.name,
        own=bool(config.machine_image),
    )
