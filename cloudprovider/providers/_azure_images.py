"""Which image Azure machines boot: a marketplace's, a gallery's, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

__all__ = ["MachineImage", "find_all"]


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image that machines boot from.

    Parameters
    ----------
    reference
        The `imageReference` of an order.
    plan
        The `plan` of an order; empty when the image has none.
    root_size_gib
        The size that its OS disk has at the least.
    architecture
        `x86_64` or `arm64`.
    generation
        `V1` or `V2`.
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
    azure: Any, config: Any, kinds: Collection[tuple[str, bool]]
) -> dict[tuple[str, bool], MachineImage]:
    """The image of each kind of machine: architecture, and whether it has GPUs."""
    raise NotImplementedError
