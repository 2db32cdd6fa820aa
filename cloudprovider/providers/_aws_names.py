"""What a cluster's resources on AWS are called, whatever its machines are: functions of its name."""

from __future__ import annotations

import re

__all__ = ["ROLES", "cluster_of_parameter", "parameter", "parameter_path", "role", "scheduler_group"]

ROLES = ("scheduler", "worker")


def parameter_path(cluster: str) -> str:
    """The path of all of a cluster's parameters."""
    return f"/dask/{cluster}"


def parameter(cluster: str, whose: str) -> str:
    """The parameter that holds one of the two secrets, `machine` or `client`, or what a service keeps."""
    return f"{parameter_path(cluster)}/{whose}"


def cluster_of_parameter(name: str) -> str | None:
    """Whose a parameter is; None when it is no cluster's."""
    match = re.fullmatch(r"/dask/([a-z][a-z0-9-]*)/.+", name)
    return match.group(1) if match else None


def role(cluster: str, region: str) -> str:
    """The role of an autonomous cluster's own, and its instance profile: IAM has them in no region."""
    return f"dask-{cluster}-{region}"


def scheduler_group(cluster: str) -> str:
    """The security group of the scheduler alone."""
    return f"dask-{cluster}-scheduler"
