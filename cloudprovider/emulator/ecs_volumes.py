"""The EFS file systems that tasks mount: each is a folder of this computer, which every task shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.ecs_boot import resource_failure
from cloudprovider.emulator.ecs_checks import client_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloudprovider.emulator.ecs_task import Container, Task

Volume = dict[str, Any]


def check(parameters: Mapping[str, Any]) -> None:
    """Refuse volumes that RegisterTaskDefinition refuses.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EFSVolumeConfiguration.html
    """
    volumes = {volume["name"]: volume for volume in parameters.get("volumes", [])}
    for container in parameters["containerDefinitions"]:
        for point in container.get("mountPoints", []):
            if point.get("sourceVolume") not in volumes:
                raise client_error(f"Unknown volume '{point.get('sourceVolume')}'.")
    for volume in volumes.values():
        efs = volume.get("efsVolumeConfiguration", {})
        secured = efs.get("authorizationConfig", {})
        if secured.get("accessPointId") and efs.get("rootDirectory", "/") != "/":
            raise client_error("The root directory must be omitted or set to / when an access point is used.")
        wanted = secured.get("accessPointId") or secured.get("iam") == "ENABLED"
        if wanted and efs.get("transitEncryption") != "ENABLED":
            raise client_error("Transit encryption must be enabled to use an access point or IAM.")


def mounts(task: Task, container: Container, root: Path) -> dict[str, str]:
    """Where a container sees its file systems, and which folder below `root` each of them is.

    Raises
    ------
    BootFailure
        When a task cannot mount one.
    """
    points = container.definition.get("mountPoints") or []
    volumes = {volume["name"]: volume for volume in _volumes(task)} if points else {}
    found = {}
    for point in points:
        efs = volumes[point["sourceVolume"]].get("efsVolumeConfiguration")
        if efs is not None:
            folder = root / _path(task, efs).lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            found[point["containerPath"]] = str(folder)
    return found


def _volumes(task: Task) -> list[Volume]:
    from moto.ecs import ecs_backends

    backend = ecs_backends[task.account][task.region]
    volumes: list[Volume] = backend.describe_task_definition(task.task_definition_arn).volumes
    return volumes


def _path(task: Task, efs: Mapping[str, Any]) -> str:
    """The folder of a file system, or of its access point, that a task may mount."""
    from moto.ec2 import ec2_backends
    from moto.efs import efs_backends

    id, point = efs["fileSystemId"], efs.get("authorizationConfig", {}).get("accessPointId")
    backend = efs_backends[task.account][task.region]
    system = backend.file_systems_by_id.get(id)
    subnet = ec2_backends[task.account][task.region].get_subnet(task.subnet)
    if system is None or not system.has_mount_target(subnet):
        raise _failed(
            f'Failed to resolve "{id}.efs.{task.region}.amazonaws.com" - check that your file system ID is '
            "correct, and ensure that the VPC has an EFS mount target for this file system ID."
        )
    if not point:
        return f"{id}/{efs.get('rootDirectory', '/').strip('/')}"
    access = backend.access_points.get(point)
    if access is None or access.file_system_id != id:
        raise _failed(f"mount.nfs4: access denied by server while mounting 127.0.0.1:/ ({point})")
    return f"{id}/{(access.root_directory or {}).get('Path', '/').strip('/')}"


def _failed(said: str) -> Exception:
    return resource_failure(
        "failed to invoke EFS utils commands to set up EFS volumes: stderr: "
        f"{said} : unsuccessful EFS utils command execution; code: 1"
    )
