"""What the metadata service of a machine answers, from what the cloud's API says of it. Pure documents.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate-response.html
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ecs_container", "ecs_task"]

CPU_UNITS = 1024  # of a vCPU
MIB = 1024  # of a GiB


def ecs_task(task: Mapping[str, Any], definition: Mapping[str, Any], *, subnet: str = "") -> dict[str, Any]:
    """What `${ECS_CONTAINER_METADATA_URI_V4}/task` answers.

    Parameters
    ----------
    task
        The task as DescribeTasks tells it.
    definition
        Its task definition as DescribeTaskDefinition tells it.
    subnet
        The CIDR block of its subnet.
    """
    document: dict[str, Any] = {
        "Cluster": task["clusterArn"],
        "TaskARN": task["taskArn"],
        "Family": definition["family"],
        "Revision": str(definition["revision"]),
        "DesiredStatus": task["desiredStatus"],
        "KnownStatus": task["lastStatus"],
        "Limits": {"CPU": int(task["cpu"]) / CPU_UNITS, "Memory": int(task["memory"])},
        "AvailabilityZone": task["availabilityZone"],
        "LaunchType": task.get("launchType", "FARGATE"),
        "ClockDrift": {"ClockErrorBound": 0.5, "ClockSynchronizationStatus": "SYNCHRONIZED"},
        "Containers": [
            ecs_container(task, definition, container["name"], subnet=subnet)
            for container in task["containers"]
        ],
    }
    if storage := task.get("ephemeralStorage"):
        document["EphemeralStorageMetrics"] = {"Utilized": 0, "Reserved": storage["sizeInGiB"] * MIB}
    for name, stamp in (("PullStartedAt", "pullStartedAt"), ("PullStoppedAt", "pullStoppedAt")):
        if stamp in task:
            document[name] = _time(task[stamp])
    return document


def ecs_container(
    task: Mapping[str, Any], definition: Mapping[str, Any], name: str, *, subnet: str = ""
) -> dict[str, Any]:
    """What `${ECS_CONTAINER_METADATA_URI_V4}` answers to one container of a task; see `ecs_task`."""
    container = next(c for c in task["containers"] if c["name"] == name)
    defined = next(c for c in definition["containerDefinitions"] if c["name"] == name)
    document: dict[str, Any] = {
        "DockerId": container.get("runtimeId", ""),
        "Name": name,
        "DockerName": name,
        "Image": container["image"],
        "ImageID": container.get("imageDigest", ""),
        "Labels": _labels(task, definition, name) | defined.get("dockerLabels", {}),
        "DesiredStatus": task["desiredStatus"],
        "KnownStatus": container.get("lastStatus", task["lastStatus"]),
        "Limits": _limits(container, defined),
        "Type": "NORMAL",
        "ContainerARN": container.get("containerArn", ""),
        "Networks": [_network(task, subnet)],
        "Snapshotter": "overlayfs",
    }
    for key, stamp in (("CreatedAt", "createdAt"), ("StartedAt", "startedAt")):
        if stamp in task:
            document[key] = _time(task[stamp])
    if log := defined.get("logConfiguration"):
        stream = f"{log.get('options', {}).get('awslogs-stream-prefix', '')}/{name}/{_id(task)}"
        document["LogDriver"] = log["logDriver"]
        document["LogOptions"] = {**log.get("options", {}), "awslogs-stream": stream}
        document["LogOptions"].pop("awslogs-stream-prefix", None)
    return document


def _labels(task: Mapping[str, Any], definition: Mapping[str, Any], name: str) -> dict[str, str]:
    return {
        "com.amazonaws.ecs.cluster": task["clusterArn"],
        "com.amazonaws.ecs.container-name": name,
        "com.amazonaws.ecs.task-arn": task["taskArn"],
        "com.amazonaws.ecs.task-definition-family": definition["family"],
        "com.amazonaws.ecs.task-definition-version": str(definition["revision"]),
    }


def _limits(container: Mapping[str, Any], defined: Mapping[str, Any]) -> dict[str, int]:
    """A container's own limits: CPU in shares (2 is Docker's least), memory in MiB when it has one."""
    limits = {"CPU": max(2, int(container.get("cpu") or defined.get("cpu") or 0))}
    if memory := container.get("memory") or defined.get("memory"):
        limits["Memory"] = int(memory)
    return limits


def _network(task: Mapping[str, Any], subnet: str) -> dict[str, Any]:
    details = {
        detail["name"]: detail["value"]
        for attachment in task.get("attachments", ())
        for detail in attachment.get("details", ())
    }
    network: dict[str, Any] = {
        "NetworkMode": "awsvpc",
        "IPv4Addresses": [details[n] for n in ("privateIPv4Address",) if n in details],
        "AttachmentIndex": 0,
        "MACAddress": details.get("macAddress", ""),
        "PrivateDNSName": details.get("privateDnsName", ""),
    }
    if subnet:
        block = ipaddress.ip_network(subnet)
        network |= {
            "IPv4SubnetCIDRBlock": str(block),
            # A VPC's router and resolver: the first and second address of the block.
            "SubnetGatewayIpv4Address": f"{block[1]}/{block.prefixlen}",
            "DomainNameServers": [str(block[2])],
        }
    return network


def _id(task: Mapping[str, Any]) -> str:
    return str(task["taskArn"]).rpartition("/")[2]


def _time(stamp: float) -> str:
    return dt.datetime.fromtimestamp(stamp, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
