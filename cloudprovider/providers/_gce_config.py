"""Options of `GCPCluster`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cloudprovider.config import listed
from cloudprovider.errors import ConfigError
from cloudprovider.providers._vm_config import VMConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["GCPConfig"]

# https://cloud.google.com/resource-manager/docs/creating-managing-projects
PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z]([a-z0-9-]{4,28}[a-z0-9])")
# https://cloud.google.com/compute/docs/labeling-resources
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
#: What of a machine is ours: `instance_args` may hold the rest.
OURS = frozenset(
    {
        "disks",
        "labels",
        "machine_type",
        "metadata",
        "name",
        "network_interfaces",
        "scheduling",
        "service_accounts",
        "tags",
    }
)


@dataclass(frozen=True, kw_only=True)
class GCPConfig(VMConfig):
    """Options of `GCPCluster`, beside those of `VMConfig` and `Config`.

    Parameters
    ----------
    project
        Id of the project. Default: what the environment, the credentials and gcloud's configuration say.
    region
        Such as `europe-west1`. Default: what the environment and gcloud's configuration say.
    zones
        Zones of the region in which machines may be. Default: the scheduler in any, its workers beside it.
    network
        Name of the VPC network. Default: `default`.
    subnetwork
        Name of the subnetwork in the region. Default: the network's own there.
    host_project
        Id of the project whose shared VPC network it is. Default: this project.
    service_account
        Email of a service account of yours under which code on the machines runs; no roles are given to it.
        Default: one that is made once for the project and may do little.
    scheduler_service_account
        Email of a service account of yours for the scheduler's machine of an `autonomous` cluster, whose manager orders
        and ends machines; no roles are given to it. Default: one that is made once for the project, and may do that for
        this cluster's machines alone.
    machine_image
        Image of yours, or its family, with systemd, cloud-init and a container engine, as
        `projects/P/global/images/NAME` or `projects/P/global/images/family/NAME`.
        Default: Container-Optimized OS.
    gpu_type
        Name of an accelerator, such as `nvidia-tesla-t4`, that `gpu` counts. Default: the cheapest there is.
    disk_type
        Type of each machine's boot disk. Default: `pd-balanced`, or `hyperdisk-balanced` where types need it.
    os_login
        Let people log in by SSH as their roles say (OS Login); no rule lets anyone reach the port.
    instance_args
        Further fields of every machine, as google-cloud-compute's `InstanceProperties` calls them.
    """

    section: ClassVar[str] = "gcp"
    # https://cloud.google.com/compute/docs/disks/persistent-disks
    can_be_autonomous: ClassVar[bool] = True
    max_disk: ClassVar[int] = 65536

    project: str | None = None
    region: str | None = None
    zones: str | Sequence[str] | None = None
    network: str = "default"
    subnetwork: str | None = None
    host_project: str | None = None
    service_account: str | None = None
    scheduler_service_account: str | None = None
    machine_image: str | None = None
    gpu_type: str | None = None
    disk_type: str | None = None
    os_login: bool = True
    instance_args: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        for option in ("project", "host_project"):
            named = getattr(self, option)
            if named is not None and not PROJECT.fullmatch(str(named)):
                raise ConfigError(
                    f"{option}={named!r} is no project's id: `gcloud projects list` shows it, beside its name and number."
                )
        self._check_accounts()
        if self.gpu_type is not None and not self.gpu:
            raise ConfigError(f"gpu_type={self.gpu_type!r} is what gpu= counts: pass both.")
        if taken := sorted(OURS & set(self.instance_args)):
            raise ConfigError(f"instance_args has {', '.join(taken)}, which this project sets itself.")
        for key, value in self.tags.items():
            if not (LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(str(value))):
                raise ConfigError(
                    f"tags has {key!r}: {value!r}, which is no label: use a-z, 0-9, '_' and '-', up to 63 of them, and "
                    "let the key begin with a letter."
                )
        self._check_zones()
        if any(":" in source for source in self.sources()):
            raise ConfigError(f"allow_from={self.allow_from!r}: machines have IPv4 addresses only.")

    def _check_accounts(self) -> None:
        for option in ("service_account", "scheduler_service_account"):
            email = getattr(self, option)
            if email is not None and "@" not in email:
                raise ConfigError(f"{option}={email!r} must be its email address.")
        if self.autonomous and self.service_account and not self.scheduler_service_account:
            raise ConfigError(
                "autonomous=True lets the scheduler's machine start others under service_account=, on which no roles are "
                "given here: pass scheduler_service_account=, one that may. "
                "`dask cloud policy gcp-scheduler` prints what it needs."
            )

    def _check_zones(self) -> None:
        zones = listed(self.zones)
        for zone in zones:
            if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]+", zone):
                raise ConfigError(f"zones has {zone!r}, which is no zone's name: write 'europe-west1-b'.")
            if self.region is not None and zone.rpartition("-")[0] != self.region:
                raise ConfigError(f"zones has {zone!r}, which is not in region={self.region!r}.")
        if len({zone.rpartition("-")[0] for zone in zones}) > 1:
            raise ConfigError(f"zones={zones} are in several regions: a cluster is in one.")

    @property
    def place(self) -> str | None:
        """The region that options say, by its name or by a zone's; None where they do not."""
        zones = listed(self.zones)
        return self.region or (zones[0].rpartition("-")[0] if zones else None)
