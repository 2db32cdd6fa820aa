"""Which machine image EC2 machines boot: the ECS-optimised Amazon Linux 2023, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["MachineImage", "find", "find_all", "recommended"]

#: What AWS recommends, by architecture and whether there are NVIDIA GPUs; of arm64 with GPUs it has none.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/retrieve-ecs-optimized_AMI.html
PARAMETERS = {
    ("x86_64", False): "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id",
    ("arm64", False): "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id",
    ("x86_64", True): "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id",
}
#: How EC2 says that there is no such image, or none for this account.
NO_IMAGE = ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable")


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image that machines boot from.

    Parameters
    ----------
    id
        Such as `ami-0abc...`.
    root_device
        The name of its root device, such as `/dev/xvda`.
    root_size_gib
        The size that its root device has at the least.
    architecture
        `x86_64` or `arm64`.
    name
        What its owner calls it.
    own
        Whether it is the user's.
    """

    id: str
    root_device: str
    root_size_gib: int
    architecture: str
    name: str = ""
    own: bool = False


def find(aws: AWS, config: EC2Config, architecture: str, gpu: bool) -> MachineImage:  # noqa: FBT001  (a fact)
    """The image for machines of this architecture, with or without GPUs, in at most two calls.

    Raises
    ------
    ConfigError
        When `ami=` is not there, not available, or cannot boot these machines; says what is wrong.
    """
    return find_all(aws, config, [(architecture, gpu)])[architecture, gpu]


def find_all(
    aws: AWS,
    config: EC2Config,
    kinds: Collection[tuple[str, bool]],
    known: Mapping[tuple[str, bool], str] | None = None,
) -> dict[tuple[str, bool], MachineImage]:
    """The image of each kind of machine, in two calls, or in one where `recommended` was asked before.

    Parameters
    ----------
    aws
        The session.
    config
        Whether there is an image of the user's.
    kinds
        Architecture, and whether they have GPUs.
    known
        What `recommended` said.

    Raises
    ------
    ConfigError
        When there is no such image, or it cannot boot these machines.
    """
    if config.ami:
        ids = dict.fromkeys(kinds, config.ami)
    else:
        names = recommended(aws) if known is None else known
        ids = {kind: _recommended(aws, names, kind) for kind in kinds}
    request = {"ImageIds": sorted(set(ids.values()))}
    answer = aws.call("ec2", "describe_images", fine=NO_IMAGE if config.ami else (), **request)
    found = {image["ImageId"]: image for image in answer.get("Images", ())}
    return {kind: _checked(found.get(id), id, kind[0], config, aws.region) for kind, id in ids.items()}


def recommended(aws: AWS) -> dict[tuple[str, bool], str]:
    """The ids of the images that AWS recommends, of every kind, in one call that needs to know no type."""
    answer = aws.call("ssm", "get_parameters", Names=[*PARAMETERS.values()])
    values = {parameter["Name"]: parameter["Value"] for parameter in answer["Parameters"]}
    return {kind: values[name] for kind, name in PARAMETERS.items() if name in values}


def _recommended(aws: AWS, names: Mapping[tuple[str, bool], str], kind: tuple[str, bool]) -> str:
    if kind in names:
        return names[kind]
    what = f"{kind[0]}{' machines with GPUs' if kind[1] else ''}"
    raise ConfigError(
        f"AWS has no ECS-optimised Amazon Linux 2023 for {what} in {aws.region}. Pass ami= one of yours, "
        "with systemd, cloud-init and a container engine, or other types."
    )


def _checked(
    image: Mapping[str, Any] | None, id: str, architecture: str, config: EC2Config, region: str
) -> MachineImage:
    """Read one image of a DescribeImages answer, and refuse one that cannot boot."""
    what = f"ami={id!r}" if config.ami else f"The image {id} that AWS recommends"
    if image is None:
        raise ConfigError(
            f"{what}: {region} has no image of that id that your account may use. An image is of one region; "
            "one of another account must be shared with yours."
        )
    if wrong := _wrong(image, architecture):
        raise ConfigError(f"{what} cannot boot these machines: {', and '.join(wrong)}.")
    return MachineImage(
        id=id,
        root_device=image["RootDeviceName"],
        root_size_gib=_root(image)["VolumeSize"],
        architecture=architecture,
        name=image.get("Name", ""),
        own=bool(config.ami),
    )


def _wrong(image: Mapping[str, Any], architecture: str) -> Sequence[str]:
    """Why machines of an architecture cannot boot from an image."""
    checks = {
        f"it is {image.get('State')}, not available": image.get("State") == "available",
        f"it is for {image.get('Architecture')}, they are {architecture}": image.get("Architecture")
        == architecture,
        "it is Windows": not image.get("Platform"),
        "it has no driver of the Elastic Network Adapter (ENA)": image.get("EnaSupport"),
        "it has no EBS volume to boot from": "VolumeSize" in _root(image),
    }
    return [why for why, fine in checks.items() if not fine]


def _root(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """The EBS volume that an image boots from; empty when it has none."""
    mappings = image.get("BlockDeviceMappings", ())
    return next(
        (m.get("Ebs", {}) for m in mappings if m.get("DeviceName") == image.get("RootDeviceName")), {}
    )
