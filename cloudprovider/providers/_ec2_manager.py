"""The manager beside the scheduler of an autonomous cluster on EC2: a second unit of its machine, and its role."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from cloudprovider.providers import _aws_names as names
from cloudprovider.providers import _aws_roles as roles
from cloudprovider.providers import _ec2_landing as land

if TYPE_CHECKING:
    from cloudprovider.provider import Identity
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["make_role", "with_role"]


def with_role(aws: AWS, identity: Identity, landing: land.Landing) -> land.Landing:
    """The landing with the role that `make_role` makes for this cluster's scheduler."""
    own = {"Name": names.role(identity.name, aws.region)}
    return dataclasses.replace(landing, profiles={**landing.profiles, "scheduler": own}, fresh=True)


def make_role(aws: AWS, config: EC2Config, identity: Identity, landing: land.Landing) -> None:
    """Make the role of this cluster's scheduler, with its instance profile.

    Raises
    ------
    CredentialsError
        When the caller may not make roles.
    """
    worker = _role_of(aws, landing.profiles["worker"])
    parts: list[tuple[str, tuple[str, ...]]] = [("aws-ec2-autonomous", ())]
    if "scheduler" in config.reached_by_ssm:
        parts.append(("aws-ec2-machine-ssm", ("SystemsManager",)))
    policy = partial(
        roles.document,
        parts,
        account=worker.split(":")[4],
        log_group=landing.log_group,
        machine_role=worker,
        partition=aws.partition,
        region=aws.region,
    )
    wanted = "an instance profile whose role ec2.amazonaws.com may take,"
    roles.managed(aws, config, identity, policy, land.TRUST, wanted)
    roles.put_in_profile(aws, config, identity)


def _role_of(aws: AWS, profile: land.Profile) -> str:
    """The ARN of the role that workers' machines run under: the landing's, or one in a profile of the user's."""
    if (name := profile.get("Name", "")) in land.NAMES:
        return str(aws.call("iam", "get_role", RoleName=name)["Role"]["Arn"])
    name = name or profile["Arn"].rpartition("/")[2]
    found = aws.call("iam", "get_instance_profile", InstanceProfileName=name)["InstanceProfile"]["Roles"]
    return str(found[0]["Arn"])
