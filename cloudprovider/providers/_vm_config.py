"""Options of every cluster of virtual machines, whosever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloudprovider.config import Config, Spot, gibibytes, listed
from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ARCHITECTURES", "VMConfig", "check_architecture"]

ARCHITECTURES = ("x86_64", "arm64")
BOOTS = ("container", "uv")


def check_architecture(architecture: str) -> None:
    """Refuse one that no cloud has machines of."""
    if architecture.lower() not in ARCHITECTURES:
        raise ConfigError(f"architecture={architecture!r} must be 'x86_64' or 'arm64'.")


@dataclass(frozen=True, kw_only=True)
class VMConfig(Config):
    """What every cluster of virtual machines has in common.

    Parameters
    ----------
    instance_type
        Type of the workers' machines, in the cloud's words, or several in order of preference.
        Default: the cheapest that has what is asked for.
    cpu, memory
        vCPUs and memory that a worker's machine has at least, when no type is named; a bare number is GiB.
        Default: 2 and 8 GiB, or what the machines with the GPUs have.
    gpu
        GPUs that a worker's machine has at least, when no type is named.
    architecture
        `x86_64` or `arm64`, when no type is named; the image must have it. Default: `x86_64`.
    scheduler_instance_type
        As `instance_type`, for the scheduler's machine.
    scheduler_cpu, scheduler_memory
        As `cpu` and `memory`, for the scheduler's machine.
    spot
        Run workers on spare capacity, which the cloud may take back at short notice: two minutes on AWS, half a
        minute on Google Cloud and Azure. `"fallback"` orders on demand what spot refuses. The scheduler is always
        on demand.
    disk_size
        GiB of each machine's root volume. Default: what the machine image has.
    boot
        `container` runs `image`; `uv` runs no container but an environment that uv makes of `lock` on the
        machine, with the client's minor version of Python.
    lock
        For `boot="uv"`: path of a `requirements.txt` whose packages are all pinned by `==`, or of a
        `pylock.toml` or `uv.lock`. Default: the packages of the client's environment, all of them from an index.
    user_data
        Further user data for every machine: a script, or cloud-init's.
    """

    #: GiB that a root volume may have.
    max_disk: ClassVar[int] = 65536

    instance_type: str | Sequence[str] | None = None
    cpu: float | None = None
    memory: str | float | None = None
    gpu: int | None = None
    architecture: str | None = None
    scheduler_instance_type: str | Sequence[str] | None = None
    scheduler_cpu: float = 2
    scheduler_memory: str | float = "4 GiB"
    spot: Spot = False
    disk_size: int | None = None
    boot: str = "container"
    lock: str | None = None
    user_data: str | None = None

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        if self.spot not in {True, False, "fallback"}:
            raise ConfigError(f"spot={self.spot!r} must be True, False or 'fallback'.")
        if self.architecture is not None:
            check_architecture(self.architecture)
        self._check_size()
        self._check_boot()

    def _check_size(self) -> None:
        asked = [name for name in ("cpu", "memory", "gpu") if getattr(self, name) is not None]
        if self.instance_type is not None and asked:
            raise ConfigError(
                f"instance_type={self.instance_type!r} says the size already: leave out {', '.join(asked)}."
            )
        for name in ("cpu", "gpu", "scheduler_cpu"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value!r} must be more than nothing.")
        for name in ("memory", "scheduler_memory"):
            if getattr(self, name) is not None:
                gibibytes(getattr(self, name), name)
        for name in ("instance_type", "scheduler_instance_type"):
            if getattr(self, name) is not None and not listed(getattr(self, name)):
                raise ConfigError(f"{name}=[] names no type.")
        if self.disk_size is not None and not 1 <= self.disk_size <= self.max_disk:
            raise ConfigError(f"disk_size={self.disk_size!r} must be 1 to {self.max_disk} GiB.")

    def _check_boot(self) -> None:
        if self.boot not in BOOTS:
            raise ConfigError(f"boot={self.boot!r} must be 'container' or 'uv'.")
        if self.boot == "uv" and self.image is not None:
            raise ConfigError("boot='uv' runs no container: leave out image=.")
        if self.boot != "uv" and self.lock is not None:
            raise ConfigError("lock= is what boot='uv' makes an environment of: pass both, or image=.")

    def markets(self, role: str) -> tuple[str, ...]:
        """The markets to order from, first choice first."""
        if role != "worker" or not self.spot:
            return ("on-demand",)
        return ("spot", "on-demand") if self.spot == "fallback" else ("spot",)
