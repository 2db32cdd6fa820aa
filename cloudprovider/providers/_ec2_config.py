"""Options of `EC2Cluster`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cloudprovider.config import Spot, gibibytes
from cloudprovider.errors import ConfigError
from cloudprovider.providers._aws_config import AWSConfig, check_architecture, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EC2Config"]

BOOTS = ("container", "uv")
MAX_DISK = (
    65536  # GiB of a gp3 volume: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
)
#: What of a machine is ours: `instance_args` and `launch_template_args` may hold the rest.
OURS = frozenset(
    {
        "ClientToken",
        "DryRun",
        "IamInstanceProfile",
        "ImageId",
        "InstanceInitiatedShutdownBehavior",
        "InstanceMarketOptions",
        "InstanceRequirements",
        "InstanceType",
        "KeyName",
        "LaunchTemplate",
        "MaxCount",
        "MetadataOptions",
        "MinCount",
        "NetworkInterfaces",
        "SecurityGroupIds",
        "SecurityGroups",
        "SubnetId",
        "TagSpecifications",
        "UserData",
    }
)


@dataclass(frozen=True, kw_only=True)
class EC2Config(AWSConfig):
    """Options of `EC2Cluster`, beside those of `AWSConfig` and `Config`.

    Parameters
    ----------
    instance_type
        Type of the workers' machines, such as `m7i.xlarge`, or several in order of preference.
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
        Run workers on spare capacity, which AWS may take back with two minutes' notice. `"fallback"` orders
        on demand what spot refuses. The scheduler is always on demand.
    ami
        Id of a machine image of yours, with systemd, cloud-init and a container engine.
        Default: the newest ECS-optimised Amazon Linux 2023 of the machines' architecture.
    disk_size
        GiB of each machine's root volume. Default: what the machine image has.
    key_name
        Name of a key pair of yours that may log in by SSH; no rule lets anyone reach the port. Default: none.
    role
        Name or ARN of an instance profile of yours, under whose role code on the machines runs.
    boot
        `container` runs `image`; `uv` runs no container but an environment that uv makes of `lock` on the
        machine, with the client's minor version of Python.
    lock
        For `boot="uv"`: path of a `requirements.txt` whose packages are all pinned by `==`, or of a
        `pylock.toml` or `uv.lock`. Default: the packages of the client's environment, all of them from an index.
    user_data
        Further user data for every machine: a script, or cloud-init's.
    ssm_access
        Let AWS Systems Manager reach every machine, for shells and the like.
    launch_template_args, instance_args
        Further arguments of the workers' launch template and of the scheduler's RunInstances.
    launch_burst, launch_rate
        How many machines your account may launch at once, and how many a second after that.
    """

    section: ClassVar[str] = "ec2"
    service: ClassVar[str] = "ec2"

    instance_type: str | Sequence[str] | None = None
    cpu: float | None = None
    memory: str | float | None = None
    gpu: int | None = None
    architecture: str | None = None
    scheduler_instance_type: str | Sequence[str] | None = None
    scheduler_cpu: float = 2
    scheduler_memory: str | float = "4 GiB"
    spot: Spot = False
    ami: str | None = None
    disk_size: int | None = None
    key_name: str | None = None
    boot: str = "container"
    lock: str | None = None
    user_data: str | None = None
    ssm_access: bool = False
    launch_template_args: Mapping[str, Any] = field(default_factory=dict)
    instance_args: Mapping[str, Any] = field(default_factory=dict)
    # https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
    launch_burst: float = 1000
    launch_rate: float = 2

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        if self.spot not in {True, False, "fallback"}:
            raise ConfigError(f"spot={self.spot!r} must be True, False or 'fallback'.")
        if self.architecture is not None:
            check_architecture(self.architecture)
        self._check_size()
        self._check_boot()
        for option in ("launch_template_args", "instance_args"):
            if taken := sorted(OURS & set(getattr(self, option))):
                raise ConfigError(f"{option} has {', '.join(taken)}, which this project sets itself.")

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
        if self.disk_size is not None and not 1 <= self.disk_size <= MAX_DISK:
            raise ConfigError(f"disk_size={self.disk_size!r} must be 1 to {MAX_DISK} GiB.")

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

    @property
    def reached_by_ssm(self) -> tuple[str, ...]:
        """The roles of machines that AWS Systems Manager may reach."""
        if self.ssm_access:
            return ("scheduler", "worker")
        return ("scheduler",) if self.tunnel else ()
