"""The operating systems of emulated machines: what of each can be told apart from within."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENGINE_UNITS", "SYSTEMS", "OperatingSystem"]

#: What a container engine brings.
ENGINE_UNITS = ("containerd.service", "docker.service", "docker.socket")
CLOUD_INIT_UNITS = ("cloud-config.service", "cloud-final.service", "cloud-init.service")


@dataclass(frozen=True, kw_only=True)
class OperatingSystem:
    """What a machine image has.

    Parameters
    ----------
    title
        What it calls itself.
    id, version
        As in `/etc/os-release`.
    kernel
        Its release.
    distro, platform, datasource
        What cloud-init calls the distribution, the cloud, and where its data is from.
    cloud_init
        Its version of cloud-init.
    units
        Units that it has beside those of cloud-init.
    packages
        The package manager by which an engine can be installed; empty when there is none.
    gpus
        Whether its engine knows `--gpus`, and the driver is there.
    disk
        The name of its local disks, with their number.
    forgets
        Folders that are empty at each boot, beside those that are in memory everywhere.
    """

    title: str
    id: str
    version: str
    kernel: str
    distro: str
    platform: str
    datasource: str
    cloud_init: str = "22.2.2"
    units: tuple[str, ...] = ENGINE_UNITS
    packages: str = ""
    gpus: bool = True
    disk: str = ""
    forgets: tuple[str, ...] = ()

    @property
    def image_units(self) -> tuple[str, ...]:
        """All that it comes with."""
        return (*self.units, *CLOUD_INIT_UNITS)

    @property
    def release(self) -> bytes:
        """`/etc/os-release`."""
        fields = {"NAME": self.title, "VERSION": self.version, "ID": self.id, "VERSION_ID": self.version}
        lines = {**fields, "PRETTY_NAME": f"{self.title} {self.version}"}
        return "".join(f'{name}="{value}"\n' for name, value in lines.items()).encode()


SYSTEMS = {
    "amazon-linux": OperatingSystem(
        title="Amazon Linux",
        id="amzn",
        version="2023",
        kernel="6.1.158-178.288.amzn2023",
        distro="amazon",
        platform="ec2",
        datasource="DataSourceEc2",
        units=("amazon-ssm-agent.service", *ENGINE_UNITS),
        disk="by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS{:017X}",
    ),
    # https://cloud.google.com/container-optimized-os/docs/concepts/disks-and-filesystem
    "cos": OperatingSystem(
        title="Container-Optimized OS",
        id="cos",
        version="125",
        kernel="6.12.55+",
        distro="cos",
        platform="gce",
        datasource="DataSourceGCELocal",
        cloud_init="23.4",
        units=("update-engine.service", *ENGINE_UNITS),
        gpus=False,
        disk="by-id/google-local-nvme-ssd-{}",
        forgets=("etc", "var/lib/cloud"),
    ),
    "azure-linux": OperatingSystem(
        title="Microsoft Azure Linux",
        id="azurelinux",
        version="3.0",
        kernel="6.6.126.1-1.azl3",
        distro="azurelinux",
        platform="azure",
        datasource="DataSourceAzure",
        cloud_init="24.3.1",
        units=(),
        packages="tdnf",
        gpus=False,
        disk="azure/local/by-serial/{}",
    ),
    # Ubuntu with NVIDIA's driver and toolkit: https://github.com/Azure/azhpc-images
    "ubuntu-hpc": OperatingSystem(
        title="Ubuntu",
        id="ubuntu",
        version="22.04",
        kernel="6.8.0-1041-azure",
        distro="ubuntu",
        platform="azure",
        datasource="DataSourceAzure",
        cloud_init="25.2",
        units=("apt-daily.timer", "apt-daily-upgrade.timer", *ENGINE_UNITS),
        packages="apt-get",
        disk="azure/local/by-serial/{}",
    ),
    "ubuntu": OperatingSystem(
        title="Ubuntu",
        id="ubuntu",
        version="24.04",
        kernel="6.14.0-1017-azure",
        distro="ubuntu",
        platform="azure",
        datasource="DataSourceAzure",
        cloud_init="25.2",
        units=("apt-daily.timer", "apt-daily-upgrade.timer"),
        packages="apt-get",
        gpus=False,
        disk="azure/local/by-serial/{}",
    ),
}
