"""EFS file systems that tasks mount."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError

WRITE = "import os, pathlib; pathlib.Path(os.environ['SHARED'], 'said').write_text('hello')"
READ = "import os, pathlib; print(pathlib.Path(os.environ['SHARED'], 'said').read_text(), flush=True)"


@pytest.fixture
def efs(emulated_aws):
    return boto3.client("efs")


@pytest.fixture
def system(account, efs):
    """A file system with a mount target in every zone."""
    made = efs.create_file_system(CreationToken="one")["FileSystemId"]
    for subnet in account.subnets:
        efs.create_mount_target(FileSystemId=made, SubnetId=subnet)
    return made


def mounting(account, code, system, **efs):
    """A definition whose container finds a file system at /shared."""
    return account.define(
        code=code,
        container={
            "environment": [{"name": "SHARED", "value": "/shared"}],
            "mountPoints": [{"sourceVolume": "shared", "containerPath": "/shared"}],
        },
        volumes=[
            {
                "name": "shared",
                "efsVolumeConfiguration": {
                    "fileSystemId": system,
                    "transitEncryption": "ENABLED",
                    **efs,
                },
            }
        ],
    )


def ended(account, definition):
    """Run a task to its end; what it was, and the lines it wrote."""
    [arn] = account.run(definition)
    [task] = account.until([arn], "STOPPED")
    return task, account.lines(arn)


def test_tasks_share_a_file_system(account, system, efs):
    """What one task writes another reads, but not through an access point to another folder."""
    ended(account, mounting(account, WRITE, system))
    _, there = ended(account, mounting(account, READ, system))
    point = efs.create_access_point(FileSystemId=system, ClientToken="a", RootDirectory={"Path": "/team"})
    through = {"authorizationConfig": {"accessPointId": point["AccessPointId"]}}
    task, _ = ended(account, mounting(account, READ, system, **through))

    assert ["hello"] == there
    assert 1 == task["containers"][0]["exitCode"]


@pytest.mark.parametrize("gone", ["the system", "its mount targets"])
def test_what_cannot_be_mounted_ends_the_task(account, efs, gone):
    """A file system that is not there, or not in the task's zone, is why the task never starts."""
    made = efs.create_file_system(CreationToken="two")["FileSystemId"]
    [arn] = account.run(mounting(account, READ, "fs-0123" if gone == "the system" else made))
    [task] = account.until([arn], "STOPPED")

    assert "ResourceInitializationError: failed to invoke EFS utils" in task["stoppedReason"]
    assert "exitCode" not in task["containers"][0]


@pytest.mark.parametrize(
    ("efs_options", "said"),
    [
        ({"transitEncryption": "DISABLED", "authorizationConfig": {"iam": "ENABLED"}}, "ransit encryption"),
        ({"rootDirectory": "/a", "authorizationConfig": {"accessPointId": "fsap-1"}}, "root directory"),
    ],
)
def test_definitions_that_are_refused(account, efs_options, said):
    """An access point needs encryption in transit, and brings its own root."""
    with pytest.raises(ClientError, match=said):
        mounting(account, READ, "fs-0123", **efs_options)


def test_mount_point_needs_its_volume(account):
    """A container cannot mount what its definition does not name."""
    point = {"sourceVolume": "other", "containerPath": "/other"}
    with pytest.raises(ClientError, match="Unknown volume"):
        account.define(container={"mountPoints": [point]})
