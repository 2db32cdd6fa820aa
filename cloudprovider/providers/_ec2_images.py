"""Which machine image EC2 machines boot: the ECS-optimised Amazon Linux 2023, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers.ec2 import EC2Config

__all__ = ["MachineImage", "find"]


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image machines boot from.

    Parameters
    ----------
    id
        Such as `ami-0abc...`.
    root_device
        The name of its root device, such as `/dev/xvda`.
    root_size_gib
        The size its root device has at the least.
    architecture
        `x86_64` or `arm64`.
    name
        What its owner calls it.
    """

    id: str
    root_device: str
    root_size_gib: int
    architecture: str
    name: str = ""


def find(aws: AWS, config: EC2Config, architecture: str, gpu: bool) -> MachineImage:  # noqa: FBT001  (a fact)
    """The image for machines of this architecture, in at most two calls.

    Raises
    ------
    ConfigError
        When `ami=` is not there, not available, or cannot boot these machines; says what is wrong.
    """
    raise NotImplementedError
