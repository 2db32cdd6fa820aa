"""What a machine on Azure is told at its first boot: its custom data."""

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
    from cloudprovider.providers._azure_config import AzureVMConfig

__all__ = ["ENDED", "MAX_CUSTOM_DATA", "boot_of", "check", "pack", "secret", "user_data"]

#: Before its base64: https://learn.microsoft.com/azure/virtual-machines/custom-data
MAX_CUSTOM_DATA = 65_535
LIMIT = _vm_boot.Limit(who="Azure", most=MAX_CUSTOM_DATA)
#: The tag that a machine gives itself on which Dask failed, with the last line of its log, some seconds before it
#: deletes itself.
ENDED = "dask-ended"
MANAGER = "https://management.azure.com"
#: What is Azure's own of every machine.
VALUES = {
    "cloud": "azure",
    # Names of local NVMe disks: https://learn.microsoft.com/azure/virtual-machines/linux/azure-virtual-machine-utilities
    "disks": "/dev/disk/azure/local/by-serial/*",
    # Its lines are in the unit's, and so on the serial console, which boot diagnostics keep.
    "logging": "--log-driver none",
    # Of Ubuntu: they hold the lock of its package manager.
    "masked": "apt-daily.timer, apt-daily-upgrade.timer",
    "mkfs": "mkfs.ext4 -qF",
}


def user_data(
    config: AzureVMConfig,
    identity: Identity,
    boot: Boot,
    *,
    client_id: str,
    manager: str = MANAGER,
    gpus: int = 0,
    plan: str = "",
) -> bytes:
    """The custom data of one role's machines, before its base64: gzip.

    Parameters
    ----------
    config, identity, boot
        What runs, and whose it is; `boot.secret` is what `secret` says.
    client_id
        Of the user-assigned identity by which the machine deletes itself.
    manager
        Where Azure Resource Manager is, as the machine's tokens are for it.
    gpus
        How many GPUs each machine has.
    plan
        Of the cluster, for the manager beside an autonomous scheduler.

    Raises
    ------
    ConfigError
        When it is larger than Azure takes.
    """
    values = {
        **VALUES,
        "devices": f"--gpus {gpus}" if gpus else "",
        "end": _vm_boot.zipped(templates.script("end-azure")),
        "ending": f"/bin/sh /etc/dask-cloud-end {manager.rstrip('/')} {client_id}",
    }
    extras = ["cloud-init-azure.yaml"]
    if boot.autonomous:
        told = {_vm_boot.PLAN: plan, "AZURE_CLIENT_ID": client_id}
        values |= _vm_boot.managed(config, identity, VALUES["logging"], told)
        extras.append(_vm_boot.MANAGER)
    order = _vm_boot.Order(
        config=config, identity=identity, boot=boot, runtime=pack(boot), values=values, extras=extras
    )
    return _vm_boot.told(order, LIMIT)


def secret(vault: str, cluster: str, client_id: str = "") -> str:
    """Where a cluster's machines find their secret.

    Parameters
    ----------
    vault
        The vault's URL, such as `https://dask-1234.vault.azure.net/`.
    cluster
        Its name.
    client_id
        Of the identity that reads it; needed where machines have several.
    """
    whose = f"?client_id={client_id}" if client_id else ""
    return f"keyvault:{vault.rstrip('/')}/secrets/dask-{cluster}-machine{whose}"


def check(config: AzureVMConfig, boots: Sequence[Boot]) -> None:
    """Refuse what cannot boot, before any call: custom data of another kind than cloud-init's, or too much of it."""
    for whose, boot in _vm_boot.samples(boots):
        user_data(config, whose, boot, client_id="00000000-0000-0000-0000-000000000000", gpus=8)


#: Once a process, and slow: call it beside the first API calls.
pack = partial(_vm_boot.pack, cloud="azure")
