"""What a cluster's resources on EC2 are called: functions of its name, so that any process finds them."""

from __future__ import annotations

__all__ = ["MANAGER", "PLAN", "log_stream", "machine_name", "plan_part", "template"]

#: The folder, among a cluster's parameters, that says how its machines are made.
PLAN = "ec2"
#: The part of a scheduler's machine that is an autonomous cluster's manager.
MANAGER = "manager"


def template(cluster: str) -> str:
    """The launch template of the workers."""
    return f"dask-{cluster}"


def machine_name(cluster: str, role: str) -> str:
    """What the console shows of a machine."""
    return f"dask-{cluster}-{role}"


def plan_part(part: int) -> str:
    """One parameter of the plan, which may need several."""
    return f"{PLAN}/{part}"


def log_stream(cluster: str, id: str, part: str = "") -> str:
    """The log stream of one machine, or of a part of it."""
    return f"{cluster}/{id}" + (f"/{part}" if part else "")
