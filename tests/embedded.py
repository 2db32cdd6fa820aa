"""What tests of clusters on the embedded AWS share."""

from __future__ import annotations

from contract import until

#: The smallest machines, and no progress.
SMALL = {
    "progress": False,
    "worker_cpu": 0.25,
    "worker_memory": "0.5 GiB",
    "scheduler_cpu": 0.25,
    "scheduler_memory": "0.5 GiB",
}


def running(cloud) -> list:
    """Machines that have not stopped."""
    return [machine for machine in cloud.machines() if machine.state != "STOPPED"]


def nothing_left(cloud) -> bool:
    """Whether the cloud has nothing beside its landing, soon: network interfaces take their time to go."""
    return until(lambda: not cloud.leftovers(), 30, "nothing is left")
