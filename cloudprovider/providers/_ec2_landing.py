"""What an AWS account needs once for Dask on EC2, which costs nothing at rest: found, or made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.providers import _aws_landing as shared
from cloudprovider.providers._aws_landing import Network, Role
from cloudprovider.providers._aws_names import ROLES
from cloudprovider.providers._aws_wire import MARK, ec2_tags
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["MACHINE", "MANAGED", "NAMES", "TRUST", "Landing", "Profile", "find_or_make"]

TRUST = "policies/aws-ec2-trust.json"
#: The roles of machines, each in an instance profile of its name: the usual, and one that SSM may reach.
MACHINE = Role(name="dask-machine", trust=TRUST, policy="policies/aws-ec2-machine.json")
MANAGED = Role(name="dask-machine-ssm", trust=TRUST, policy="policies/aws-ec2-machine-ssm.json")
NAMES = frozenset({MACHINE.name, MANAGED.name})
#: An instance profile as EC2 wants it: its `Name` or its `Arn`.
Profile = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What clusters share in an account and region.

    Parameters
    ----------
    log_group
        Name of the log group.
    network
        Where machines get their addresses.
    groups
        Ids of the security groups in which machines may talk to each other.
    profiles
        By role, the instance profile.
    fresh
        Whether a profile was made so recently that EC2 may not know it.
    """

    log_group: str
    network: Network
    groups: tuple[str, ...]
    profiles: Mapping[str, Profile]
    fresh: bool = False

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The landing that a document says."""
        groups = tuple(said["groups"])
        return cls(**{**said, "network": Network.loads(said["network"]), "groups": groups, "fresh": False})


def find_or_make(aws: AWS, config: EC2Config) -> Landing:
    """The landing: one round of calls where it is there, four the first time in an account."""
    log_group = config.log_group or shared.LOG_GROUP
    ours = {role: MANAGED if role in config.reached_by_ssm else MACHINE for role in ROLES}
    given = {"worker": config.role, "scheduler": config.scheduler_role or config.role}
    wanted = tuple(dict.fromkeys(ours[role] for role in ROLES if not given[role]))
    named = {role: given[role] or ours[role].name for role in ROLES}
    (network, groups), _, *fresh = side_by_side(
        [
            partial(shared.network_and_groups, aws, config),
            partial(shared.log_group, aws, config),
            *(partial(_profile, aws, role, log_group) for role in wanted),
        ]
    )
    return Landing(
        log_group=log_group,
        network=network,
        groups=groups,
        profiles={role: {"Arn" if name.startswith("arn:") else "Name": name} for role, name in named.items()},
        fresh=any(fresh),
    )


def _profile(aws: AWS, role: Role, log_group: str) -> bool:
    """Find or make a role and its instance profile; whether it is new."""
    request = {"InstanceProfileName": role.name}
    found = aws.call("iam", "get_instance_profile", fine=["NoSuchEntity"], **request)
    profile = found.get("InstanceProfile", {})
    if profile.get("Roles") and not shared.is_young(aws, profile["CreateDate"]):
        return False
    shared.role(aws, role.name, role, log_group)
    if not profile:
        tags = ec2_tags(MARK)
        aws.call("iam", "create_instance_profile", fine=["EntityAlreadyExists"], Tags=tags, **request)
    if not profile.get("Roles"):
        # A profile holds one role: who comes second is told that there is one.
        full = ["LimitExceeded", "EntityAlreadyExists"]
        aws.call("iam", "add_role_to_instance_profile", fine=full, RoleName=role.name, **request)
    return True
