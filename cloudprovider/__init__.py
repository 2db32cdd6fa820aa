"""A Dask cluster on any cloud, from a laptop: one boot deep, billed per second, nothing left behind.

Names are imported when they are first used, and a cloud's SDK at its first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> (module, extra that brings what it needs).
NAMES: dict[str, tuple[str, str | None]] = {
    "FargateCluster": ("cloudprovider.clusters", "aws"),
    "ECSCluster": ("cloudprovider.clusters", "aws"),
    "EC2Cluster": ("cloudprovider.clusters", "aws"),
    "GCPCluster": ("cloudprovider.clusters", "gcp"),
    "AzureVMCluster": ("cloudprovider.clusters", "azure"),
    "ProcessCluster": ("cloudprovider.clusters", None),
    "Emulator": ("cloudprovider.emulator", "emulator"),
    "CloudCluster": ("cloudprovider.cluster", None),
    "CloudError": ("cloudprovider.errors", None),
    "ConfigError": ("cloudprovider.errors", None),
    "CredentialsError": ("cloudprovider.errors", None),
    "CapacityError": ("cloudprovider.errors", None),
    "QuotaError": ("cloudprovider.errors", None),
    "BootError": ("cloudprovider.errors", None),
    "AccessError": ("cloudprovider.errors", None),
    "CloudWarning": ("cloudprovider.errors", None),
}

__all__ = [
    "AccessError",
    "AzureVMCluster",
    "BootError",
    "CapacityError",
    "CloudCluster",
    "CloudError",
    "CloudWarning",
    "ConfigError",
    "CredentialsError",
    "EC2Cluster",
    "ECSCluster",
    "Emulator",
    "FargateCluster",
    "GCPCluster",
    "ProcessCluster",
    "QuotaError",
    "__version__",
]

if TYPE_CHECKING:
    from cloudprovider.cluster import CloudCluster
    from cloudprovider.clusters import (
        AzureVMCluster,
        EC2Cluster,
        ECSCluster,
        FargateCluster,
        GCPCluster,
        ProcessCluster,
    )
    from cloudprovider.emulator import Emulator
    from cloudprovider.errors import (
        AccessError,
        BootError,
        CapacityError,
        CloudError,
        CloudWarning,
        ConfigError,
        CredentialsError,
        QuotaError,
    )


def __getattr__(name: str) -> Any:
    try:
        module, extra = NAMES[name]
    except KeyError:
        raise AttributeError(f"module 'cloudprovider' has no attribute {name!r}") from None
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("cloudprovider"):
            raise
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'dask-cloud[{extra}]'."
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
