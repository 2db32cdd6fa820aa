"""Which image Compute Engine machines boot: Container-Optimized OS, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

__all__ = ["MachineImage", "find_all"]


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """An image that machines boot from.

    Parameters
    ----------
    id
        `projects/P/global/images/NAME`.
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


def find_all(gcp: Any, config: Any, architectures: Collection[str]) -> dict[str, MachineImage]:
    """The image of each architecture, in a call each, side by side."""
    raise NotImplementedError
