"""What an AWS account needs once for Dask, which costs nothing at rest: found, or made.

Whoever comes second finds what the first made; whoever comes at the same second is told that it exists
already, which is fine. What the user names is used as it is and never made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloudprovider import templates
from cloudprovider.config import listed
from cloudprovider.errors import CapacityError, CloudError, ConfigError
from cloudprovider.providers._aws_wire import MARK, ec2_tags, group_request
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_config import AWSConfig

__all__ = ["GROUP", "LOG_GROUP", "Network", "Role", "log_group", "network_and_groups", "role"]

LOG_GROUP = "/dask"
GROUP = "dask-landing"
#: A role this young may still lack the policy that its maker is about to give it.
YOUNG_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where machines get their addresses.

    Parameters
    ----------
    vpc
        Id of the VPC.
    subnets
        Ids of its subnets, any of which a machine may be in.
    roomiest
        Of each zone, the subnet that has most addresses left.
    """

    vpc: str
    subnets: tuple[str, ...]
    roomiest: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The network that a document says."""
        return cls(**{**said, "subnets": tuple(said["subnets"])})


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role of the landing's.

    Parameters
    ----------
    name
        What it is called.
    trust, policy
        The templates of who may take it, and of what it may do; without a policy it may do nothing.
    """

    name: str
    trust: str
    policy: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """The CreateRole call."""
        return {
            "RoleName": self.name,
            "AssumeRolePolicyDocument": templates.render(self.trust),
            "Description": "For Dask; made once for the account",
            "Tags": ec2_tags(MARK),
        }


def network_of(subnets: Sequence[dict[str, Any]], config: AWSConfig, region: str) -> Network:
    """Choose among the subnets of a DescribeSubnets answer.

    Raises
    ------
    CloudError
        When none is left, or they are in several VPCs.
    """
    if not subnets:
        raise _no_subnets(config, region)
    free = [subnet for subnet in subnets if subnet.get("AvailableIpAddressCount", 1) > 0]
    if not free:
        raise CapacityError(
            f"No subnet of {', '.join(s['SubnetId'] for s in subnets)} in {region} has a free address. "
            "Pass subnets= larger ones, or end what uses them."
        )
    vpcs = sorted({subnet["VpcId"] for subnet in free})
    if len(vpcs) > 1:
        raise ConfigError(f"subnets= are in several VPCs ({', '.join(vpcs)}): machines could not talk.")
    if config.subnets is None:
        # A VPC of one's own often has both kinds: machines with public addresses go where those are usual.
        free = [s for s in free if s.get("MapPublicIpOnLaunch") == config.public] or free
    free.sort(key=lambda subnet: (subnet.get("AvailableIpAddressCount", 1), subnet["SubnetId"]))
    return Network(
        vpc=vpcs[0],
        subnets=tuple(sorted(subnet["SubnetId"] for subnet in free)),
        roomiest={subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in free},
    )


def _no_subnets(config: AWSConfig, region: str) -> CloudError:
    zones = f" in zones {', '.join(listed(config.zones))}" if config.zones else ""
    if config.subnets is not None:
        return ConfigError(f"None of subnets={listed(config.subnets)} is{zones or ' there'} in {region}.")
    if config.vpc is not None:
        return ConfigError(f"VPC {config.vpc} has no subnets{zones} in {region}. Pass subnets= or zones=.")
    return ConfigError(
        f"There is no default VPC with subnets{zones} in {region}. Make one with `aws ec2 create-default-vpc`, "
        "or pass vpc= or subnets= of yours, or another region=."
    )


def subnets_request(config: AWSConfig) -> dict[str, Any]:
    """The DescribeSubnets call that finds where machines may be."""
    filters = []
    if config.zones:
        filters.append({"Name": "availability-zone", "Values": listed(config.zones)})
    if config.subnets is not None:
        filters.append({"Name": "subnet-id", "Values": listed(config.subnets)})
    elif config.vpc is not None:
        filters.append({"Name": "vpc-id", "Values": [config.vpc]})
    else:
        filters.append({"Name": "default-for-az", "Values": ["true"]})
    return {"Filters": filters}


def log_group(aws: AWS, config: AWSConfig) -> str:
    """The name of the log group, made when it is ours and not there."""
    if config.log_group is not None:
        return config.log_group
    answer = aws.call("logs", "describe_log_groups", logGroupNamePrefix=LOG_GROUP)
    if not any(group["logGroupName"] == LOG_GROUP for group in answer["logGroups"]):
        made = {"logGroupName": LOG_GROUP, "tags": MARK}
        aws.call("logs", "create_log_group", fine=["ResourceAlreadyExistsException"], **made)
        days = config.log_retention_days
        aws.call("logs", "put_retention_policy", logGroupName=LOG_GROUP, retentionInDays=days)
    return LOG_GROUP


def role(aws: AWS, name: str, ours: Role | None, log_group: str) -> tuple[str, bool]:
    """The ARN of a role, made when it is ours and not there; and whether it is new."""
    if name.startswith("arn:"):
        return name, False
    found = aws.call("iam", "get_role", RoleName=name, fine=["NoSuchEntity"] if ours else ())
    was_there = bool(found)
    if not found and ours:
        found = aws.call("iam", "create_role", fine=["EntityAlreadyExists"], **ours.request)
        found = found or aws.call("iam", "get_role", RoleName=name)
    fresh = is_young(aws, found["Role"]["CreateDate"])
    if ours and ours.policy and fresh:
        text = templates.render(ours.policy, partition=aws.partition, account="*", log_group=log_group)
        # Who may not, and finds it, is somebody else than its maker, who is about to.
        fine = ["AccessDenied"] if was_there else []
        aws.call("iam", "put_role_policy", fine=fine, RoleName=name, PolicyName=name, PolicyDocument=text)
    return str(found["Role"]["Arn"]), fresh


def is_young(aws: AWS, born: datetime) -> bool:
    """Whether what IAM has was made so recently, by its own clock, that not all of AWS may know it."""
    return aws.now() - born.timestamp() < YOUNG_S


def network_and_groups(aws: AWS, config: AWSConfig) -> tuple[Network, tuple[str, ...]]:
    """Where machines get their addresses, and the groups in which they may talk to each other."""

    def subnets() -> list[dict[str, Any]]:
        return list(aws.call("ec2", "describe_subnets", **subnets_request(config))["Subnets"])

    def groups() -> list[dict[str, Any]]:
        if config.security_groups is not None:
            return []
        return _groups(aws, GROUP)

    found, shared = side_by_side([subnets, groups])
    network = network_of(found, config, aws.region)
    if config.security_groups is not None:
        return network, tuple(listed(config.security_groups))
    return network, (_shared_group(aws, network.vpc, shared),)


def _groups(aws: AWS, name: str) -> list[dict[str, Any]]:
    filters = [{"Name": "group-name", "Values": [name]}]
    return list(aws.call("ec2", "describe_security_groups", Filters=filters)["SecurityGroups"])


def _shared_group(aws: AWS, vpc: str, found: Sequence[dict[str, Any]]) -> str:
    """The group whose members may talk to each other, and with nobody else."""
    mine = next((group for group in found if group["VpcId"] == vpc), None)
    if mine is None:
        request = group_request(GROUP, vpc, "Machines of Dask clusters may talk to each other", MARK)
        mine = aws.call("ec2", "create_security_group", fine=["InvalidGroup.Duplicate"], **request)
        mine = mine or next(group for group in _groups(aws, GROUP) if group["VpcId"] == vpc)
    group = str(mine["GroupId"])
    if not mine.get("IpPermissions"):
        aws.call(
            "ec2",
            "authorize_security_group_ingress",
            fine=["InvalidPermission.Duplicate"],
            GroupId=group,
            IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}],
        )
    return group
