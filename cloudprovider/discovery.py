"""Running clusters, for tools that speak Dask's discovery protocol (`dask_cluster_discovery`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloudprovider.provider import Machine

__all__ = ["CLOUDS", "discover", "machines"]

#: What the command line calls a provider -> the name of its cluster class in `cloudprovider`.
CLOUDS = {"fargate": "FargateCluster", "ec2": "EC2Cluster", "local": "ProcessCluster"}


def cluster_class(cloud: str) -> Any:
    """The cluster class of a provider."""
    import cloudprovider

    return getattr(cloudprovider, CLOUDS[cloud])


def provider(cloud: str, name: str | None = None, **options: Any) -> Any:
    """A provider that can list and sweep, without a cluster of its own."""
    cls = cluster_class(cloud)
    config = cls.config_class.of(name=name, **options)
    return cls.provider_class(config, config.identity())


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
