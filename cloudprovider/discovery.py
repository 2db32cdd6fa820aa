"""Running clusters, for the command line and tools that speak Dask's protocol (`dask_cluster_discovery`)."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider import credentials
from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloudprovider.provider import Machine

__all__ = [
    "CLOUDS",
    "Cloud",
    "cluster_class",
    "config_class",
    "configured",
    "discover",
    "machines",
    "provider",
]


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where one provider's classes are.

    Parameters
    ----------
    cluster
        Name of the cluster class in `cloudprovider`; it needs `distributed`.
    module, config, provider
        Where the other two are, which do not.
    vendor
        Whose credentials it takes, by the names of `cloudprovider.credentials`; empty where it takes none.
    """

    cluster: str
    module: str
    config: str
    provider: str
    vendor: str = ""


#: In whose name every cluster is listed.
NOBODY = "nobody"

#: By what the command line calls a provider.
CLOUDS = {
    "fargate": Cloud(
        cluster="FargateCluster",
        module="cloudprovider.providers.ecs",
        config="FargateConfig",
        provider="ECSProvider",
        vendor="aws",
    ),
    "ecs": Cloud(
        cluster="ECSCluster",
        module="cloudprovider.providers.ecs",
        config="ECSConfig",
        provider="ECSProvider",
        vendor="aws",
    ),
    "ec2": Cloud(
        cluster="EC2Cluster",
        module="cloudprovider.providers.ec2",
        config="EC2Config",
        provider="EC2Provider",
        vendor="aws",
    ),
    "gcp": Cloud(
        cluster="GCPCluster",
        module="cloudprovider.providers.gce",
        config="GCPConfig",
        provider="GCEProvider",
        vendor="gcp",
    ),
    "azure": Cloud(
        cluster="AzureVMCluster",
        module="cloudprovider.providers.azure",
        config="AzureVMConfig",
        provider="AzureProvider",
        vendor="azure",
    ),
    "local": Cloud(
        cluster="ProcessCluster",
        module="cloudprovider.providers.local",
        config="LocalConfig",
        provider="LocalProvider",
    ),
}


def cluster_class(cloud: str) -> Any:
    """The cluster class of a provider."""
    import cloudprovider

    return getattr(cloudprovider, CLOUDS[cloud].cluster)


def config_class(cloud: str) -> Any:
    """The Config of a provider, which needs no `distributed`."""
    row = CLOUDS[cloud]
    return getattr(importlib.import_module(row.module), row.config)


def configured() -> tuple[str, ...]:
    """The clouds that can be asked: those that take no credentials, or whose credentials may be here."""
    return tuple(name for name, row in CLOUDS.items() if not row.vendor or credentials.configured(row.vendor))


def provider(cloud: str, name: str = NOBODY, **options: Any) -> Any:
    """A provider that can list and sweep, without a cluster of its own; it imports no `distributed`."""
    row = CLOUDS[cloud]
    config = config_class(cloud).named(name, **options)
    return getattr(importlib.import_module(row.module), row.provider)(config, config.identity())


def machines(cloud: str, **options: Any) -> list[Machine]:
    """Live machines of every cluster in a cloud."""
    return list(provider(cloud, **options).list(None))


async def discover() -> AsyncIterator[tuple[str, Any]]:
    """Yield the name and the class of each running cluster; a cloud without credentials has none."""
    for cloud in configured():
        try:
            found = await asyncio.to_thread(machines, cloud)
        except (CloudError, ImportError):
            continue
        for name in sorted({machine.cluster for machine in found}):
            yield name, cluster_class(cloud)
