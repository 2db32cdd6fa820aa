"""What a machine on Compute Engine is told at its first boot: its user data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloudprovider import templates
from cloudprovider.providers import _vm_boot
from cloudprovider.providers._vm_boot import boot_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gce_config import GCPConfig

__all__ = [
    "LOG",
    "MAX_USER_DATA",
    "METADATA",
    "boot_of",
    "check",
    "log_filter",
    "pack",
    "secret",
    "user_data",
]

#: Of one metadata value, which is text: https://cloud.google.com/compute/docs/metadata/setting-custom-metadata
MAX_USER_DATA = 262_144
LIMIT = _vm_boot.Limit(who="Compute Engine", most=MAX_USER_DATA, zipped=False)
#: What a machine's metadata has beside its user data. What is on its serial console stays in Cloud Logging when the
#: machine is gone: https://cloud.google.com/compute/docs/troubleshooting/viewing-serial-port-output
#: Updates are for machines that live longer: https://cloud.google.com/container-optimized-os/docs/concepts/auto-update
METADATA = {"cos-update-strategy": "update_disabled", "serial-port-logging-enable": "true"}
#: Logs in Cloud Logging, under `projects/PROJECT/logs/`: of containers, and of the serial console.
LOG = "gcplogs-docker-driver"  # https://docs.docker.com/engine/logging/drivers/gcplogs/
CONSOLE = "serialconsole.googleapis.com%2Fserial_port_1_output"
#: What is Compute Engine's own of every machine.
VALUES = {
    "cloud": "gce",
    # Names of local SSDs: https://cloud.google.com/compute/docs/disks/disk-symlinks
    "disks": "/dev/disk/by-id/google-local-*",
    "ending": "/bin/sh /etc/dask-cloud-end",
    "home": "/var/lib/dask-cloud-uv/environment",
    "logging": "--log-driver gcplogs --log-opt mode=non-blocking --log-opt max-buffer-size=4m",
    "masked": "update-engine.service",
    "mkfs": "mkfs.ext4 -qF",
}
#: Where Container-Optimized OS has the driver of GPUs, and images of NVIDIA's look for it.
# https://cloud.google.com/container-optimized-os/docs/how-to/run-gpus
DRIVER, LIBRARIES = "/var/lib/nvidia", "/usr/local/nvidia"


def user_data(
    config: GCPConfig, identity: Identity, boot: Boot, *, gpus: int = 0, cos: bool = True, plan: str = ""
) -> bytes:
    """The user data of one role's machines: ASCII, for the metadata key `user-data`.

    The machine learns its name, zone and project from its metadata service.

    Parameters
    ----------
    config, identity, boot
        What runs, and whose it is; `boot.secret` is what `secret` says.
    gpus
        How many GPUs each machine has.
    cos
        Whether its image is Container-Optimized OS, where the driver of GPUs is still to be installed.
    plan
        Of the cluster, for the manager beside an autonomous scheduler.

    Raises
    ------
    ConfigError
        When it is larger than a metadata value may be.
    """
    values = {
        **VALUES,
        "devices": _devices(boot, gpus) if cos else f"--gpus {gpus}" if gpus else "",
        "end": _vm_boot.zipped(templates.script("end-gce")),
    }
    extras = ["cloud-init-gce.yaml", *(["cloud-init-gce-gpus.yaml"] if gpus and cos else [])]
    if boot.autonomous:
        values |= _vm_boot.managed(config, identity, VALUES["logging"], {_vm_boot.PLAN: plan})
        extras.append(_vm_boot.MANAGER)
    order = _vm_boot.Order(
        config=config, identity=identity, boot=boot, runtime=pack(boot), values=values, extras=extras
    )
    return _vm_boot.told(order, LIMIT)


def secret(project: str, cluster: str) -> str:
    """Where a cluster's machines find their secret."""
    return f"gcp-secret:projects/{project}/secrets/dask-{cluster}-machine"


def check(config: GCPConfig, boots: Sequence[Boot]) -> None:
    """Refuse what cannot boot, before any call: user data of another kind than cloud-init's, or too much of it."""
    for whose, boot in _vm_boot.samples(boots):
        user_data(config, whose, boot, gpus=8)


#: Once a process, and slow: call it beside the first API calls.
pack = partial(_vm_boot.pack, cloud="gce")


def log_filter(project: str, name: str) -> str:
    """The filter of `entries:list` for what a machine's container wrote, and its console where there was none.

    The text of an entry is its `jsonPayload.message`, or its `textPayload` on the console.
    """
    logs = " OR ".join(f'"projects/{project}/logs/{log}"' for log in (LOG, CONSOLE))
    whose = f'jsonPayload.instance.name="{name}" OR labels."compute.googleapis.com/resource_name"="{name}"'
    return f"logName=({logs}) AND ({whose})"


def _devices(boot: Boot, gpus: int) -> str:
    """Options of `docker run` that give a container all GPUs, where no toolkit of NVIDIA's does."""
    if not gpus:
        return ""
    names = [*(f"nvidia{number}" for number in range(gpus)), "nvidiactl", "nvidia-uvm"]
    folders = [f"-v {DRIVER}/{name}:{LIBRARIES}/{name}" for name in ("bin", "lib64")]
    found = [f"--device /dev/{name}" for name in names] + folders
    if "LD_LIBRARY_PATH" not in boot.environment:
        found.append(f"-e LD_LIBRARY_PATH={LIBRARIES}/lib64")
    return " ".join(found)
