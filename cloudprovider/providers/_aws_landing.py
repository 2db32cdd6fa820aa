"""What an AWS account needs once for Dask on ECS, which costs nothing at rest: found, or made.

Whoever comes second finds what the first made; whoever comes at the same second is told that it exists
already, which is fine. What the user names is used as it is and never made.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider import templates
from cloudprovider.errors import CapacityError, CloudError, ConfigError
from cloudprovider.providers._aws import side_by_side
from cloudprovider.providers._aws_config import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers.ecs import TaskConfig

__all__ = ["ECS_CLUSTER", "GROUP", "LOG_GROUP", "Landing", "Network", "ec2_tags", "ecs_tags", "find_or_make"]

#: What the landing's parts are called.
ECS_CLUSTER = "dask"
LOG_GROUP = "/dask"
GROUP = "dask-landing"
EXECUTION_ROLE, TASK_ROLE, TUNNEL_ROLE = "dask-execution", "dask-task", "dask-tunnel"
#: The roles' inline policies; user code's role has none: whoever wants one attaches it.
POLICIES = {
    EXECUTION_ROLE: "policies/aws-fargate-execution.json",
    TUNNEL_ROLE: "policies/aws-fargate-tunnel-role.json",
}
MARK = {ledger.LANDING: "dask"}
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
        Ids of its subnets, one machine each in any of them.
    """

    vpc: str
    subnets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What clusters share in an account and region.

    Parameters
    ----------
    ecs_cluster
        Name or ARN of the ECS cluster.
    execution_role, task_role
        ARNs: what starts a machine, and what user code on it may do.
    scheduler_role
        ARN of the scheduler's role: the task role, or one that may open a tunnel.
    log_group
        Name of the log group.
    network
        Where machines get their addresses.
    groups
        Ids of the security groups in which machines may talk to each other.
    fresh
        Whether a role was made so recently that AWS may not know it everywhere.
    """

    ecs_cluster: str
    execution_role: str
    task_role: str
    scheduler_role: str
    log_group: str
    network: Network
    groups: tuple[str, ...]
    fresh: bool = False

    def dumps(self) -> str:
        """The landing as one line of JSON."""
        return json.dumps(
            dataclasses.asdict(dataclasses.replace(self, fresh=False)), separators=(",", ":"), sort_keys=True
        )

    @classmethod
    def loads(cls, text: str) -> Landing:
        """The landing that a line of JSON says."""
        said = json.loads(text)
        network = Network(vpc=said["network"]["vpc"], subnets=tuple(said["network"]["subnets"]))
        return cls(**{**said, "network": network, "groups": tuple(said["groups"])})


def ecs_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as ECS spells them."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def ec2_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2, IAM and SSM spell them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def group_request(name: str, vpc: str, description: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The CreateSecurityGroup call that makes a group with its tags."""
    return {
        "GroupName": name,
        "Description": description,
        "VpcId": vpc,
        "TagSpecifications": [{"ResourceType": "security-group", "Tags": ec2_tags(tags)}],
    }


def role_request(name: str) -> dict[str, Any]:
    """The CreateRole call of one of the landing's roles."""
    return {
        "RoleName": name,
        "AssumeRolePolicyDocument": templates.render("policies/aws-ecs-trust.json"),
        "Description": "Dask on ECS; made once for the account",
        "Tags": ec2_tags(MARK),
    }


def network_of(subnets: Sequence[dict[str, Any]], config: TaskConfig, region: str) -> Network:
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
    return Network(vpc=vpcs[0], subnets=tuple(sorted(subnet["SubnetId"] for subnet in free)))


def _no_subnets(config: TaskConfig, region: str) -> CloudError:
    zones = f" in zones {', '.join(listed(config.zones))}" if config.zones else ""
    if config.subnets is not None:
        return ConfigError(f"None of subnets={listed(config.subnets)} is{zones or ' there'} in {region}.")
    if config.vpc is not None:
        return ConfigError(f"VPC {config.vpc} has no subnets{zones} in {region}. Pass subnets= or zones=.")
    return ConfigError(
        f"There is no default VPC with subnets{zones} in {region}. Make one with `aws ec2 create-default-vpc`, "
        "or pass vpc= or subnets= of yours, or another region=."
    )


def subnets_request(config: TaskConfig) -> dict[str, Any]:
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


def find_or_make(aws: AWS, config: TaskConfig) -> Landing:
    """The landing: one round of calls where it is there, three the first time in an account."""
    log_group = config.log_group or LOG_GROUP
    roles = {
        "execution_role": config.execution_role or EXECUTION_ROLE,
        "task_role": config.role or TASK_ROLE,
        "scheduler_role": config.role or (TUNNEL_ROLE if config.tunnel else TASK_ROLE),
    }
    made = {EXECUTION_ROLE, TASK_ROLE, TUNNEL_ROLE} - {config.role, config.execution_role}
    wanted = list(dict.fromkeys(roles.values()))
    network_and_groups, ecs_cluster, _, *arns = side_by_side(
        [
            lambda: _network_and_groups(aws, config),
            lambda: _ecs_cluster(aws, config),
            lambda: _log_group(aws, config, log_group),
            *((lambda name=name: _role(aws, name, log_group, make=name in made)) for name in wanted),
        ]
    )
    network, groups = network_and_groups
    by_name = dict(zip(wanted, (arn for arn, _ in arns), strict=True))
    return Landing(
        ecs_cluster=ecs_cluster,
        log_group=log_group,
        network=network,
        groups=groups,
        fresh=any(fresh for _, fresh in arns),
        **{part: by_name[name] for part, name in roles.items()},
    )


def _ecs_cluster(aws: AWS, config: TaskConfig) -> str:
    if config.ecs_cluster is not None:
        return config.ecs_cluster
    [found] = aws.call("ecs", "describe_clusters", clusters=[ECS_CLUSTER])["clusters"] or [{}]
    if found.get("status") != "ACTIVE":
        # A second CreateCluster answers with the first one's cluster.
        aws.call(
            "ecs",
            "create_cluster",
            clusterName=ECS_CLUSTER,
            capacityProviders=["FARGATE", "FARGATE_SPOT"],
            defaultCapacityProviderStrategy=[{"capacityProvider": "FARGATE", "weight": 1}],
            tags=ecs_tags(MARK),
        )
    return ECS_CLUSTER


def _log_group(aws: AWS, config: TaskConfig, name: str) -> None:
    if config.log_group is not None:
        return
    answer = aws.call("logs", "describe_log_groups", logGroupNamePrefix=name)
    if any(group["logGroupName"] == name for group in answer["logGroups"]):
        return
    aws.call(
        "logs", "create_log_group", logGroupName=name, tags=MARK, fine=["ResourceAlreadyExistsException"]
    )
    aws.call("logs", "put_retention_policy", logGroupName=name, retentionInDays=config.log_retention_days)


def _role(aws: AWS, name: str, log_group: str, *, make: bool) -> tuple[str, bool]:
    """The ARN of a role, made when it is ours and not there; and whether it is new."""
    if name.startswith("arn:"):
        return name, False
    found = aws.call("iam", "get_role", RoleName=name, fine=["NoSuchEntity"] if make else ())
    if not found:
        found = aws.call("iam", "create_role", fine=["EntityAlreadyExists"], **role_request(name))
        found = found or aws.call("iam", "get_role", RoleName=name)
    role = found["Role"]
    fresh = time.time() - role["CreateDate"].timestamp() < YOUNG_S
    if make and fresh and name in POLICIES:
        text = templates.render(POLICIES[name], partition=aws.partition, account="*", log_group=log_group)
        aws.call("iam", "put_role_policy", RoleName=name, PolicyName=name, PolicyDocument=text)
    return str(role["Arn"]), fresh


def _network_and_groups(aws: AWS, config: TaskConfig) -> tuple[Network, tuple[str, ...]]:
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
