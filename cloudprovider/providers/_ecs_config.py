"""Options of `FargateCluster` and `ECSCluster`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cloudprovider.config import Spot, gibibytes
from cloudprovider.errors import ConfigError
from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._aws_config import AWSConfig
from cloudprovider.providers._vm_config import check_architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity

__all__ = ["GB", "SIZES", "ECSConfig", "FargateConfig", "TaskConfig", "config_for", "nearest_sizes"]

GB = 1024
#: Fargate's sizes: CPU units -> MiB of memory. The 8 and 16 vCPU sizes need platform version 1.4.0.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
SIZES = {
    256: (512, 1 * GB, 2 * GB),
    512: range(1 * GB, 4 * GB + 1, GB),
    1024: range(2 * GB, 8 * GB + 1, GB),
    2048: range(4 * GB, 16 * GB + 1, GB),
    4096: range(8 * GB, 30 * GB + 1, GB),
    8192: range(16 * GB, 60 * GB + 1, 4 * GB),
    16384: range(32 * GB, 120 * GB + 1, 8 * GB),
}
#: RunTask arguments that are ours; `task_args` may hold the others.
OURS = frozenset(
    {
        "cluster",
        "taskDefinition",
        "count",
        "clientToken",
        "startedBy",
        "tags",
        "overrides",
        "networkConfiguration",
    }
)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(AWSConfig):
    """What Fargate and a cluster's own capacity have in common.

    Parameters
    ----------
    ecs_cluster
        Name or ARN of an ECS cluster of yours, which is then never made. Default: `dask`.
    execution_role
        Name or ARN of a role of yours that starts machines: it pulls images and reads the machine secret.
    worker_cpu, scheduler_cpu
        vCPUs of each machine.
    worker_memory, scheduler_memory
        Memory of each machine; a bare number is GiB.
    architecture
        `x86_64` or `arm64`; the image must have it.
    repository_credentials
        ARN of a secret in AWS Secrets Manager with the login of a private registry. The default execution
        role reads those whose name starts with `dask/`.
    volumes
        EFS file systems by where machines see them: `{"/data": "fs-0123"}`, or `"fs-0123/fsap-4567"` through an
        access point. Each zone needs a mount target whose security group admits the machines' (port 2049).
    task_args
        Further arguments of RunTask.
    task_definition_args
        Further arguments of RegisterTaskDefinition; `containerDefinitions` may hold one, for our container.
    launch_burst, launch_rate
        How many machines your account may launch at once, and how many a second after that.
    """

    service: ClassVar[str] = "ecs"
    compatibility: ClassVar[str] = "EC2"

    ecs_cluster: str | None = None
    execution_role: str | None = None
    worker_cpu: float = 2
    worker_memory: str | float = "8 GiB"
    scheduler_cpu: float = 1
    scheduler_memory: str | float = "4 GiB"
    architecture: str = "x86_64"
    repository_credentials: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    task_args: Mapping[str, Any] = field(default_factory=dict)
    task_definition_args: Mapping[str, Any] = field(default_factory=dict)
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
    launch_burst: float = 100
    launch_rate: float = 20

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        check_architecture(self.architecture)
        if taken := sorted(OURS & set(self.task_args)):
            raise ConfigError(f"task_args has {', '.join(taken)}, which this project sets itself.")
        credentials = self.repository_credentials
        if credentials and self.execution_role is None and ":secret:dask/" not in credentials:
            raise ConfigError(
                "The default execution role reads only secrets whose name starts with 'dask/': rename the "
                "secret of repository_credentials=, or pass an execution_role= of yours that may read it."
            )
        for path, volume in self.volumes.items():
            if not wire.MOUNT.fullmatch(path) or not wire.VOLUME.fullmatch(volume):
                raise ConfigError(
                    f"volumes={{{path!r}: {volume!r}}} must be like {{'/data': 'fs-0123'}}, or "
                    "'fs-0123/fsap-4567' through an access point."
                )
        for role in ("worker", "scheduler"):
            self.size(role)

    def size(self, role: str) -> tuple[int, int]:
        """CPU units and MiB of memory of a role's machines."""
        cpu, memory = getattr(self, f"{role}_cpu"), getattr(self, f"{role}_memory")
        size = round(cpu * GB), round(gibibytes(memory, f"{role}_memory") * GB)
        if min(size) <= 0:
            raise ConfigError(f"{role}_cpu={cpu!r} and {role}_memory={memory!r} must be more than nothing.")
        return size

    def gpus(self, role: str) -> int:  # noqa: ARG002  (only a worker on container instances may have some)
        """GPUs of a role's machines."""
        return 0

    def boot_for(self, role: str, identity: Identity) -> Boot:
        """What a machine of that role runs, with the threads and memory that were ordered for it."""
        boot = super().boot_for(role, identity)
        if role != "worker":
            return boot
        cpu, memory = self.size(role)
        processes = self.workers_per_machine or self.gpus(role) or 1
        return dataclasses.replace(
            boot,
            processes=processes,
            nthreads=boot.nthreads or max(1, cpu // GB // processes),
            memory_limit=boot.memory_limit or f"{memory // processes} MiB",
        )

    def markets(self, role: str) -> tuple[str, ...]:  # noqa: ARG002  (Fargate's depend on the role)
        """The markets to order from, first choice first."""
        return ("on-demand",)

    def capacity(self, market: str) -> dict[str, Any]:
        """The part of a RunTask call that says which capacity runs the tasks."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FargateConfig(TaskConfig):
    """Options of `FargateCluster`, beside those of `TaskConfig`, `AWSConfig` and `Config`.

    Parameters
    ----------
    spot
        Run workers on spare capacity, which AWS may take back with two minutes' notice. `"fallback"` orders
        on demand what spot refuses. The scheduler is always on demand.
    ephemeral_storage
        GiB of disk of each worker, 21 to 200. Default: the 20 that are included.
    """

    section: ClassVar[str] = "fargate"
    compatibility: ClassVar[str] = "FARGATE"

    spot: Spot = False
    ephemeral_storage: int | None = None

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        if self.spot not in {True, False, "fallback"}:
            raise ConfigError(f"spot={self.spot!r} must be True, False or 'fallback'.")
        storage = self.ephemeral_storage
        if storage is not None and not 21 <= storage <= 200:  # noqa: PLR2004  (API_EphemeralStorage)
            raise ConfigError(f"ephemeral_storage={storage!r} must be 21 to 200 GiB; 20 are included.")

    def size(self, role: str) -> tuple[int, int]:
        """CPU units and MiB of memory of a role's machines.

        Raises
        ------
        ConfigError
            When Fargate has no such size; names the nearest that it has.
        """
        cpu, memory = super().size(role)
        if memory not in SIZES.get(cpu, ()):
            raise ConfigError(
                f"Fargate has no size of {_size(cpu, memory)} ({role}_cpu, {role}_memory). The nearest: "
                f"{'; '.join(_size(*near) for near in nearest_sizes(cpu, memory))}."
            )
        return cpu, memory

    def markets(self, role: str) -> tuple[str, ...]:
        """The markets to order from, first choice first."""
        if role != "worker" or not self.spot:
            return ("on-demand",)
        return ("spot", "on-demand") if self.spot == "fallback" else ("spot",)

    def capacity(self, market: str) -> dict[str, Any]:
        """The part of a RunTask call that says which capacity runs the tasks."""
        if market == "spot":
            return {"capacityProviderStrategy": [{"capacityProvider": wire.SPOT, "weight": 1}]}
        return {"launchType": "FARGATE"}


@dataclass(frozen=True, kw_only=True)
class ECSConfig(TaskConfig):
    """Options of `ECSCluster`, beside those of `TaskConfig`, `AWSConfig` and `Config`.

    It is an ECS cluster of yours, with container instances of its own.

    Parameters
    ----------
    capacity_provider
        Name of the capacity provider that starts container instances. Default: those that are there.
    worker_gpu
        GPUs of each worker's machine, which then runs one Dask worker a GPU.
    """

    section: ClassVar[str] = "ecs"

    # Tasks on container instances can have no public address.
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html
    public: bool = False
    capacity_provider: str | None = None
    worker_gpu: int = 0

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        if self.ecs_cluster is None:
            raise ConfigError("ECSCluster needs ecs_cluster=, one of yours; FargateCluster needs none.")
        if self.public:
            raise ConfigError("public=True: tasks on container instances can have no public address.")
        if self.worker_gpu != int(self.worker_gpu) or self.worker_gpu < 0:
            raise ConfigError(f"worker_gpu={self.worker_gpu!r} must be a whole number: ECS gives whole GPUs.")

    def gpus(self, role: str) -> int:
        """GPUs of a role's machines."""
        return self.worker_gpu if role == "worker" else 0

    def capacity(self, market: str) -> dict[str, Any]:  # noqa: ARG002  (the capacity provider knows)
        """The part of a RunTask call that says which capacity runs the tasks."""
        if self.capacity_provider:
            return {"capacityProviderStrategy": [{"capacityProvider": self.capacity_provider, "weight": 1}]}
        return {"launchType": "EC2"}


def config_for(config: TaskConfig, definition: Mapping[str, Any]) -> TaskConfig:
    """The same options for the capacity that a task definition is for, which who looks for it may not know."""
    kind = ECSConfig if "EC2" in definition["requiresCompatibilities"] else FargateConfig
    if isinstance(config, kind):
        return config
    known = {field.name for field in dataclasses.fields(kind)}
    given = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in known}
    return kind(**given)


def _size(cpu: int, memory: int) -> str:
    return f"{cpu / GB:g} vCPU with {memory / GB:g} GiB"


def nearest_sizes(cpu: int, memory: int, count: int = 3) -> list[tuple[int, int]]:
    """The sizes Fargate has that differ least, by factors, from one that it has not."""
    pairs = [(units, mib) for units, some in SIZES.items() for mib in some]
    distance = {pair: abs(math.log2(pair[0] / cpu)) + abs(math.log2(pair[1] / memory)) for pair in pairs}
    return sorted(pairs, key=lambda pair: (distance[pair], pair))[:count]
