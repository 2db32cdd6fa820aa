"""What a machine on Compute Engine is told at its first boot: its user data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gce_config import GCPConfig

__all__ = ["LOG", "MAX_USER_DATA", "boot_of", "check", "log_filter", "pack", "secret", "user_data"]

#: Of one metadata value: https://cloud.google.com/compute/docs/metadata/setting-custom-metadata
MAX_USER_DATA = 262_144
#: Where containers' lines are in Cloud Logging, under `projects/PROJECT/logs/`.
LOG = "gcplogs-docker-driver"


def user_data(config: GCPConfig, identity: Identity, boot: Boot, *, gpus: int = 0) -> bytes:
    """The user data of one role's machines: ASCII, for the metadata key `user-data`.

    The machine learns its name, zone and project from its metadata service. `boot.secret` is what `secret` says.

    Raises
    ------
    ConfigError
        When it is larger than a metadata value may be.
    """
    raise ConfigError("not written yet")


def secret(project: str, cluster: str) -> str:
    """Where a cluster's machines find their secret: `gcp-secret:projects/P/secrets/dask-<cluster>-machine`."""
    return f"gcp-secret:projects/{project}/secrets/dask-{cluster}-machine"


def check(config: GCPConfig, boots: Sequence[Boot]) -> None:
    """Refuse what cannot boot, before any call."""


def pack(boot: Boot) -> tuple[str, bytes]:
    """Once a process, and slowly: call it beside the first API calls."""
    return "", b""


def boot_of(data: bytes) -> Boot:
    """The Boot in the user data of a machine or instance template of ours."""
    raise ConfigError("not written yet")


def log_filter(project: str, name: str) -> str:
    """The filter of `entries:list` for what one machine's container wrote."""
    raise ConfigError("not written yet")
