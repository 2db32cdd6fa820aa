"""What a cluster's resources on ECS are called: functions of its name, so that any process finds them."""

from __future__ import annotations

import re

from cloudprovider.providers._aws_names import ROLES

__all__ = ["cluster_of", "family", "log_prefix", "log_stream"]

#: The containers of a task: Dask's, and beside an autonomous cluster's scheduler its manager's.
CONTAINER, MANAGER = "dask", "manager"


def family(cluster: str, role: str, group: str = "default") -> str:
    """The family of a role's task definitions. No cluster's name has the `_` before a group."""
    return f"dask-{cluster}-{role}" + ("" if group == "default" else f"_{group}")


def cluster_of(family: str) -> str | None:
    """Whose a family is; None when it is no cluster's."""
    match = re.fullmatch(rf"dask-([a-z][a-z0-9-]*)-({'|'.join(ROLES)})(_.+)?", family)
    return match.group(1) if match else None


def log_prefix(cluster: str) -> str:
    """The first part of the names of all log streams."""
    return f"dask-{cluster}"


def log_stream(cluster: str, id: str, container: str = CONTAINER) -> str:
    """The log stream of one machine's container, as the awslogs driver names it."""
    return f"{log_prefix(cluster)}/{container}/{id}"
