"""Running clusters, for the command line and tools that speak Dask's protocol (`dask_cluster_discovery`)."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloudprovider.provider import Machine

__all__ = ["CLOUDS", "Cloud", "cluster_class", "discover", "machines", "provider"]


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where one provider's classes are.

    Parameters
    ----------
    cluster
        Name of the cluster class in `cloudprovider`; it needs `distributed`.
    module, config, provider
        Where the other two are, which do not.
    """

    cluster: str
    module: str
    config: str
    provider: str


#: By what the command line calls a provider.
CLOUDS = {
    "fargate": Cloud(
        cluster="FargateCluster",
        module="cloudprovider.providers.ecs",
        config="FargateConfig",
        provider="ECSProvider",
    ),
    "ec2": Cloud(
        cluster="EC2Cluster",
        module="cloudprovider.providers.ec2",
        config="EC2Config",
        provider="EC2Provider",
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


def provider(cloud: str, name: str | None = None, **options: Any) -> Any:
    """A provider that can list and sweep, without a cluster of its own; it imports no `distributed`."""
    row = CLOUDS[cloud]
    module = importlib.import_module(row.module)
    config = getattr(module, row.config).of(name=name, **options)
    return getattr(module, row.provider)(config, config.identity())


def machines(cloud: str, **options: Any) -> list[Machine]:
    """Live machines of every cluster in a cloud."""
    return list(provider(cloud, **options).list(None))


async def discover() -> AsyncIterator[tuple[str, Any]]:
    """Yield the name and the class of each running cluster; a cloud without credentials has none."""
    for cloud in CLOUDS:
        try:
            found = await asyncio.to_thread(machines, cloud)
        except (CloudError, ImportError):
            continue
        for name in sorted({machine.cluster for machine in found}):
            yield name, cluster_class(cloud)
