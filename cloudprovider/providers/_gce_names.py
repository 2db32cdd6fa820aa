"""What a cluster's resources on Google Cloud are called: functions of its name, so that any process finds them."""

from __future__ import annotations

import re
import secrets
import string

__all__ = [
    "ACCOUNT",
    "MACHINE_ROLE",
    "ROLES",
    "SCHEDULER_ACCOUNT",
    "SCHEDULER_ROLE",
    "SEEING_ROLE",
    "TAG",
    "cluster_of",
    "firewall",
    "is_machine_of",
    "landing_firewalls",
    "machine_names",
    "scheduler",
    "secret",
]

ROLES = ("scheduler", "worker")
#: The network tag of every machine: those that have it may talk to each other.
TAG = "dask-machine"
#: The service account of every machine: https://cloud.google.com/iam/docs/service-accounts-create
ACCOUNT = "dask-machine"
#: The custom role with which it may read secrets, write logs, and end machines.
MACHINE_ROLE = "daskMachine"
#: The same of the schedulers' machines of autonomous clusters, which order and end machines, and see others.
SCHEDULER_ACCOUNT, SCHEDULER_ROLE, SEEING_ROLE = "dask-scheduler", "daskScheduler", "daskSchedulerSees"
#: Characters of a worker's name that chance draws: a label's, with no cluster's name before them.
ALPHABET, DRAWN = string.ascii_lowercase + string.digits, 6


def scheduler(cluster: str) -> str:
    """The scheduler's machine."""
    return f"dask-{cluster}-scheduler"


def machine_names(cluster: str, role: str, count: int) -> list[str]:
    """Names of machines to order, none of them twice."""
    if role == "scheduler" and count == 1:
        return [scheduler(cluster)]
    names: dict[str, None] = {}
    while len(names) < count:
        drawn = "".join(secrets.choice(ALPHABET) for _ in range(DRAWN))
        names[f"dask-{cluster}-w-{drawn}"] = None
    return list(names)


def is_machine_of(cluster: str, name: str) -> bool:
    """Whether a machine of this name would be the cluster's."""
    worker = rf"dask-{cluster}-w-[a-z0-9]{{{DRAWN}}}"
    return name == scheduler(cluster) or re.fullmatch(worker, name) is not None


def secret(cluster: str, whose: str) -> str:
    """One of the two secrets, `machine` or `client`."""
    return f"dask-{cluster}-{whose}"


def firewall(cluster: str) -> str:
    """The rule that lets people reach the scheduler, and the network tag of its machine."""
    return f"dask-{cluster}-scheduler"


def landing_firewalls(network: str) -> tuple[str, str]:
    """The rules of a network's machines: that they may reach each other, and that nobody else may."""
    return tuple(f"dask-landing-{what}-{network}"[:63].rstrip("-") for what in ("within", "closed"))  # type: ignore[return-value]


def cluster_of(name: str) -> str | None:
    """Whose a firewall rule is, by its name; None when it is no cluster's."""
    match = re.fullmatch(r"dask-([a-z][a-z0-9-]*)-scheduler", name)
    return match.group(1) if match else None
