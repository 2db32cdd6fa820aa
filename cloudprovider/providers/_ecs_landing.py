"""What an AWS account needs once for Dask on ECS, which costs nothing at rest: found, or made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cloudprovider.providers import _aws_landing as shared
from cloudprovider.providers._aws_landing import Network, Role
from cloudprovider.providers._aws_wire import MARK
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ecs_config import TaskConfig

__all__ = ["ECS_CLUSTER", "Landing", "ecs_tags", "find_or_make"]

#: What the landing's parts are called.
ECS_CLUSTER = "dask"
EXECUTION_ROLE, TASK_ROLE, TUNNEL_ROLE = "dask-execution", "dask-task", "dask-tunnel"
TRUST = "policies/aws-ecs-trust.json"
#: User code's role has no policy: whoever wants one attaches it.
ROLES = {
    role.name: role
    for role in (
        Role(name=EXECUTION_ROLE, trust=TRUST, policy="policies/aws-fargate-execution.json"),
        Role(name=TASK_ROLE, trust=TRUST),
        Role(name=TUNNEL_ROLE, trust=TRUST, policy="policies/aws-fargate-tunnel-role.json"),
    )
}


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
        ARN of the scheduler's role: the task role, one that may open a tunnel, or the cluster's own.
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
        network = Network.loads(said["network"])
        return cls(**{**said, "network": network, "groups": tuple(said["groups"])})


def ecs_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as ECS spells them."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def find_or_make(aws: AWS, config: TaskConfig) -> Landing:
    """The landing: one round of calls where it is there, three the first time in an account."""
    log_group = config.log_group or shared.LOG_GROUP
    usual = TUNNEL_ROLE if config.tunnel and not config.autonomous else TASK_ROLE
    roles = {
        "execution_role": config.execution_role or EXECUTION_ROLE,
        "task_role": config.role or TASK_ROLE,
        "scheduler_role": config.scheduler_role or config.role or usual,
    }
    given = {config.role, config.scheduler_role, config.execution_role}
    ours = {name: role for name, role in ROLES.items() if name not in given}
    wanted = list(dict.fromkeys(roles.values()))
    (network, groups), ecs_cluster, _, *arns = side_by_side(
        [
            partial(shared.network_and_groups, aws, config),
            partial(_ecs_cluster, aws, config),
            partial(shared.log_group, aws, config),
            *(partial(shared.role, aws, name, ours.get(name), log_group) for name in wanted),
        ]
    )
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
