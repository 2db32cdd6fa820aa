"""The cluster classes: what each cloud's Config and Provider make together.

Providers know nothing of Dask; only who holds a cluster, and imports this, needs `distributed`.
"""

from __future__ import annotations

from cloudprovider.cluster import CloudCluster
from cloudprovider.providers.azure import AzureProvider, AzureVMConfig
from cloudprovider.providers.ec2 import EC2Config, EC2Provider
from cloudprovider.providers.ecs import ECSConfig, ECSProvider, FargateConfig
from cloudprovider.providers.gce import GCEProvider, GCPConfig
from cloudprovider.providers.local import LocalConfig, LocalProvider

__all__ = ["AzureVMCluster", "EC2Cluster", "ECSCluster", "FargateCluster", "GCPCluster", "ProcessCluster"]


class FargateCluster(CloudCluster):
    """A Dask cluster on AWS Fargate: no machines of yours, billed by the second.

    Examples
    --------
    >>> from cloudprovider import FargateCluster
    >>> with FargateCluster(n_workers=10) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = FargateConfig
    provider_class = ECSProvider


class ECSCluster(CloudCluster):
    """A Dask cluster on an Amazon ECS cluster of yours, on its own container instances.

    Examples
    --------
    >>> from cloudprovider import ECSCluster
    >>> with ECSCluster(ecs_cluster="batch", tunnel=True, n_workers=10) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = ECSConfig
    provider_class = ECSProvider


class EC2Cluster(CloudCluster):
    """A Dask cluster on Amazon EC2: machines of any type, on demand or on spare capacity.

    Examples
    --------
    >>> from cloudprovider import EC2Cluster
    >>> with EC2Cluster(instance_type="m7i.xlarge", spot="fallback", n_workers=100) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = EC2Config
    provider_class = EC2Provider


class GCPCluster(CloudCluster):
    """A Dask cluster on Google Compute Engine: machines of any type, on demand or on spare capacity.

    Examples
    --------
    >>> from cloudprovider import GCPCluster
    >>> with GCPCluster(region="europe-west1", spot="fallback", n_workers=100) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = GCPConfig
    provider_class = GCEProvider


class AzureVMCluster(CloudCluster):
    """A Dask cluster on Azure virtual machines of any size, on demand or on spare capacity.

    Examples
    --------
    >>> from cloudprovider import AzureVMCluster
    >>> with AzureVMCluster(region="westeurope", spot="fallback", n_workers=100) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = AzureVMConfig
    provider_class = AzureProvider


class ProcessCluster(CloudCluster):
    """A cluster of processes on this computer, with everything a cloud's has but the cloud.

    Examples
    --------
    >>> from cloudprovider import ProcessCluster
    >>> with ProcessCluster(n_workers=2) as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """

    config_class = LocalConfig
    provider_class = LocalProvider
