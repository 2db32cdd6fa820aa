"""Which Azure VM sizes a cluster runs on: named by the user, or chosen for what the user requires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Choice", "InstanceType", "choose_all", "quotas_of"]


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """What the resource SKUs say of one VM size.

    Parameters
    ----------
    name
        Such as `Standard_D4s_v5`.
    family
        Such as `standardDSv5Family`.
    vcpu, memory_gib
        What a machine of it has.
    architecture
        `x86_64` or `arm64`.
    gpus
        How many NVIDIA GPUs.
    generations
        `V1`, `V2`: of the hypervisor, which an image must have too.
    premium
        Whether it takes premium disks.
    ephemeral_gib
        By placement (`NvmeDisk`, `CacheDisk`, `ResourceDisk`), the largest ephemeral OS disk; empty when it has none.
    accelerated
        Whether its network interface may be accelerated.
    markets
        `on-demand`, `spot`.
    """

    name: str
    family: str
    vcpu: int
    memory_gib: float
    architecture: str
    gpus: int = 0
    generations: tuple[str, ...] = ("V2",)
    premium: bool = True
    ephemeral_gib: Mapping[str, int]
    accelerated: bool = True
    burstable: bool = False
    markets: tuple[str, ...] = ("on-demand",)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The sizes that one role's machines may have: all of one architecture, with the same number of GPUs."""

    types: tuple[InstanceType, ...]
    zones: Mapping[str, tuple[str, ...]]
    reason: str


def choose_all(azure: Any, config: Any) -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in one list of the location's SKUs."""
    raise NotImplementedError


def quotas_of(kind: InstanceType, market: str) -> dict[str, int]:
    """By name of usage.list, how many of its cores one machine of a size counts against it."""
    raise NotImplementedError
