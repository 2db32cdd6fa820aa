"""Options of `AzureVMCluster`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cloudprovider.config import listed
from cloudprovider.errors import ConfigError
from cloudprovider.providers._vm_config import VMConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AzureVMConfig"]

IMAGE_PARTS = 4
# https://learn.microsoft.com/azure/virtual-machines/disks-types
DISK_TYPES = ("Standard_LRS", "StandardSSD_LRS", "StandardSSD_ZRS", "Premium_LRS", "Premium_ZRS")
PLAN = frozenset({"name", "product", "publisher"})
#: Of a machine's properties those that are ours: `vm_args` may hold the rest.
OURS = frozenset(
    {
        "billingProfile",
        "diagnosticsProfile",
        "evictionPolicy",
        "hardwareProfile",
        "networkProfile",
        "osProfile",
        "priority",
        "storageProfile",
        "virtualMachineScaleSet",
    }
)


@dataclass(frozen=True, kw_only=True)
class AzureVMConfig(VMConfig):
    """Options of `AzureVMCluster`, beside those of `VMConfig` and `Config`.

    Parameters
    ----------
    subscription
        Id of the subscription. Default: `AZURE_SUBSCRIPTION_ID`, or the one that `az account show` shows.
    region
        Such as `westeurope`. Default: that of `resource_group`, or `AZURE_DEFAULTS_LOCATION`, or the one that
        `az config set defaults.location=` has set.
    zones
        Availability zones of the region, such as `["1", "2"]`; the scheduler is in the first.
        Default: none, so that machines may be wherever there is room.
    resource_group
        Name of a resource group of yours. Everything is in it, and machines of its clusters trust each other.
        Default: `dask-<region>`, made when it is not there.
    vnet, subnet
        Name or id of a virtual network, and the name of its subnet. Default: one that is made once.
    address_space
        Of the virtual network that is made.
    security_group
        Name or id of a network security group for every machine, in which they may talk to each other.
        Default: one that is shared by all clusters of the resource group.
    machine_identity
        Name or id of a user-assigned identity under which code on the machines runs.
        Default: one that is made once.
    scheduler_identity
        The same for the scheduler's machine of an `autonomous` cluster, whose manager orders and ends machines.
        Default: one that is made once, and may do that in the resource group alone.
    machine_image
        A machine image with cloud-init and a container engine: the id of one of yours, or
        `publisher:offer:sku:version` of the marketplace. Default: one with both, without a plan.
    plan
        `name`, `product` and `publisher` of a marketplace image's plan, where it has one; accept its terms first.
    disk_type
        Of the OS disk, where it is no ephemeral one.
    ephemeral_os_disk
        Keep the OS disk on the machine's own storage, where its size has room: faster, and free.
    ssh_key
        A public key that may log in as `dask` by SSH; no rule lets anyone reach the port. Default: none.
    bastion
        Name or id of an Azure Bastion that is there already, for `tunnel=True`. It must be of the Standard SKU
        with native client support. Default: the one in the machines' virtual network.
    vm_args
        Further properties of every machine, as the API spells them.
    """

    section: ClassVar[str] = "azure"
    # https://learn.microsoft.com/azure/virtual-machines/managed-disks-overview
    can_be_autonomous: ClassVar[bool] = True
    max_disk: ClassVar[int] = 4095

    subscription: str | None = None
    region: str | None = None
    zones: str | Sequence[str] | None = None
    resource_group: str | None = None
    vnet: str | None = None
    subnet: str | None = None
    address_space: str = "10.58.0.0/16"
    security_group: str | None = None
    machine_identity: str | None = None
    scheduler_identity: str | None = None
    machine_image: str | None = None
    plan: Mapping[str, str] = field(default_factory=dict)
    disk_type: str = "StandardSSD_LRS"
    ephemeral_os_disk: bool = True
    ssh_key: str | None = None
    bastion: str | None = None
    vm_args: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        self._check_image()
        self._check_network()
        if taken := sorted(OURS & set(self.vm_args)):
            raise ConfigError(f"vm_args has {', '.join(taken)}, which this project sets itself.")

    def _check_image(self) -> None:
        own = self.machine_image
        if own is not None and not own.startswith("/") and len(own.split(":")) != IMAGE_PARTS:
            raise ConfigError(
                f"machine_image={own!r} must be an image's id ('/subscriptions/...') or "
                "'publisher:offer:sku:version'."
            )
        if self.disk_type not in DISK_TYPES:
            raise ConfigError(f"disk_type={self.disk_type!r} must be one of {', '.join(DISK_TYPES)}.")
        if self.plan and (set(self.plan) != PLAN or own is None):
            raise ConfigError("plan= has name, product and publisher of the plan of a machine_image=.")
        if self.ssh_key is not None and not re.match(r"(ssh-|ecdsa-)\S+ \S+", self.ssh_key):
            raise ConfigError("ssh_key= must be a public key, such as 'ssh-ed25519 AAAA...'.")

    def _check_network(self) -> None:
        if self.subnet is not None and self.vnet is None:
            raise ConfigError(f"subnet={self.subnet!r} is a subnet's name: pass vnet= as well.")
        if self.bastion is not None and not self.tunnel:
            raise ConfigError("bastion= is what tunnel=True goes through: pass both.")
        for zone in listed(self.zones):
            if zone not in {"1", "2", "3"}:
                raise ConfigError(f"zones has {zone!r}: a region's availability zones are '1', '2' and '3'.")
