"""Which EC2 instance types a cluster runs on: named by the user, or chosen for what the user requires."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers.ec2 import EC2Config

__all__ = ["Choice", "InstanceType", "choose_all", "quota_code", "ranked_zones"]


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """What DescribeInstanceTypes says of one type.

    Parameters
    ----------
    name
        Such as `m7i.xlarge`.
    vcpu, memory_gib
        What a machine of it has.
    architecture
        `x86_64` or `arm64`.
    gpus, gpu_name, gpu_memory_gib
        How many, which, and the memory of one; 0, empty and 0 when it has none.
    disks_gib
        The size of each of its instance-store disks; empty when it has none.
    nvme
        Whether those are NVMe.
    burstable
        Whether it is of a T family, whose processors slow down, or bill more, under steady work.
    markets
        `on-demand`, `spot`.
    efa
        Whether it has an Elastic Fabric Adapter.
    """

    name: str
    vcpu: int
    memory_gib: float
    architecture: str
    gpus: int = 0
    gpu_name: str = ""
    gpu_memory_gib: float = 0.0
    disks_gib: tuple[int, ...] = ()
    nvme: bool = False
    burstable: bool = False
    markets: tuple[str, ...] = ("on-demand",)
    efa: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The types one role's machines may have: all of one architecture, with the same number of GPUs.

    Parameters
    ----------
    types
        In order of preference: the user's own, or cheapest first.
    zones
        By type's name, the zones of the region that offer it.
    reason
        What was chosen and why, for the user.
    """

    types: tuple[InstanceType, ...]
    zones: Mapping[str, tuple[str, ...]]
    reason: str

    @property
    def architecture(self) -> str:
        """`x86_64` or `arm64`."""
        return self.types[0].architecture

    @property
    def gpus(self) -> int:
        """GPUs of each machine."""
        return self.types[0].gpus

    def within(self, zones: Collection[str]) -> Choice:
        """The same without what none of these zones offers.

        Raises
        ------
        ConfigError
            When nothing is left; says which zones offer what.
        """
        kept = tuple(kind for kind in self.types if set(self.zones[kind.name]) & set(zones))
        return dataclasses.replace(self, types=kept)


def choose_all(aws: AWS, config: EC2Config) -> dict[str, Choice]:
    """The Choice of each role (`scheduler`, `worker`), in two calls side by side.

    Raises
    ------
    ConfigError
        For an unknown type (with the nearest), one that is not offered in `zones=`, mixed architectures or
        numbers of GPUs, or a requirement that nothing fits.
    """
    raise NotImplementedError


def ranked_zones(choices: Mapping[str, Choice], zones: Collection[str]) -> tuple[str, ...]:
    """Those of the zones that can host every role, the one that offers most worker types first."""
    raise NotImplementedError


def quota_code(instance_type: str, market: str) -> str | None:
    """The code, in Service Quotas' `ec2`, of the limit on vCPUs that machines of this type count against."""
    raise NotImplementedError


def parsed(answer: Mapping[str, Any]) -> InstanceType:
    """Read one type of a DescribeInstanceTypes answer."""
    gpus = answer.get("GpuInfo", {}).get("Gpus", ())
    storage = answer.get("InstanceStorageInfo", {})
    return InstanceType(
        name=answer["InstanceType"],
        vcpu=answer["VCpuInfo"]["DefaultVCpus"],
        memory_gib=answer["MemoryInfo"]["SizeInMiB"] / 1024,
        architecture=_architecture(answer["ProcessorInfo"].get("SupportedArchitectures", ())),
        gpus=sum(gpu.get("Count", 0) for gpu in gpus),
        gpu_name=" ".join(filter(None, (gpus[0].get("Manufacturer"), gpus[0].get("Name")))) if gpus else "",
        gpu_memory_gib=gpus[0].get("MemoryInfo", {}).get("SizeInMiB", 0) / 1024 if gpus else 0.0,
        disks_gib=tuple(disk["SizeInGB"] for disk in storage.get("Disks", ()) for _ in range(disk["Count"])),
        nvme=storage.get("NvmeSupport") in {"required", "supported"},
        burstable=answer.get("BurstablePerformanceSupported", False),
        markets=tuple(answer.get("SupportedUsageClasses", ("on-demand",))),
        efa=answer.get("NetworkInfo", {}).get("EfaSupported", False),
    )


def _architecture(supported: Collection[str]) -> str:
    return next((name for name in ("x86_64", "arm64") if name in supported), "")
