"""Which Compute Engine machine types a cluster runs on: named by the user, or chosen for what the user requires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Choice", "InstanceType", "choose_all", "quotas_of"]


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """What machineTypes.list says of one type, and the accelerators that go with it.

    Parameters
    ----------
    name
        Such as `n2-standard-4`.
    vcpu, memory_gib
        What a machine of it has.
    architecture
        `x86_64` or `arm64`.
    gpus, gpu_name
        How many NVIDIA GPUs, and which (`nvidia-l4`).
    attached
        Whether those are `guestAccelerators` of the order; of an accelerator-optimised type they are part.
    burstable
        Whether it has a part of a processor.
    """

    name: str
    vcpu: int
    memory_gib: float
    architecture: str
    gpus: int = 0
    gpu_name: str = ""
    attached: bool = False
    burstable: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The types that one role's machines may have: all of one architecture, with the same number of GPUs."""

    types: tuple[InstanceType, ...]
    zones: Mapping[str, tuple[str, ...]]
    reason: str


def choose_all(gcp: Any, config: Any) -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in a call a zone, side by side."""
    raise NotImplementedError


def quotas_of(kind: InstanceType, market: str) -> dict[str, float]:
    """By metric of regions.get's `quotas`, how much one machine of a type counts against it."""
    raise NotImplementedError
