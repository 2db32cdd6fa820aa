"""What a machine on Azure is told at its first boot: its custom data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._azure_config import AzureVMConfig

__all__ = ["MAX_CUSTOM_DATA", "boot_of", "check", "pack", "secret", "user_data"]

#: Before its base64: https://learn.microsoft.com/azure/virtual-machines/custom-data
MAX_CUSTOM_DATA = 65_535


def user_data(
    config: AzureVMConfig, identity: Identity, boot: Boot, *, client_id: str, gpus: int = 0
) -> bytes:
    """The custom data of one role's machines, before its base64; it may be gzip.

    Parameters
    ----------
    config, identity, boot
        What runs, and whose it is; `boot.secret` is what `secret` says.
    client_id
        Of the user-assigned identity that the machine deletes itself by and reads its secret by.
    gpus
        How many GPUs each machine has.

    Raises
    ------
    ConfigError
        When it is larger than Azure takes.
    """
    raise ConfigError("not written yet")


def secret(vault: str, cluster: str) -> str:
    """Where a cluster's machines find their secret: `keyvault:https://<vault>/secrets/dask-<cluster>-machine`.

    Parameters
    ----------
    vault
        The vault's URL, such as `https://dask-1234.vault.azure.net/`.
    cluster
        Its name.
    """
    return f"keyvault:{vault.rstrip('/')}/secrets/dask-{cluster}-machine"


def check(config: AzureVMConfig, boots: Sequence[Boot]) -> None:
    """Refuse what cannot boot, before any call."""


def pack(boot: Boot) -> tuple[str, bytes]:
    """Once a process, and slowly: call it beside the first API calls."""
    return "", b""


def boot_of(data: bytes) -> Boot:
    """The Boot in the custom data of a machine or scale set of ours."""
    raise ConfigError("not written yet")
