"""What keeps a cluster on AWS Fargate, or on an ECS cluster of the user's, from starting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.doctor import ok, problem
from cloudprovider.providers import _ecs_landing as land
from cloudprovider.providers._aws_doctor import Doctor
from cloudprovider.providers._aws_landing import LOG_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudprovider.doctor import Finding

__all__ = ["ECSDoctor"]


class ECSDoctor(Doctor):
    """Looks at an account for clusters whose machines are tasks."""

    policy = "aws-fargate"
    table = "fargate"

    @property
    def fargate(self) -> bool:
        """Whether tasks run on no machines of the user's."""
        return bool(self.config.compatibility == "FARGATE")

    def more(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """Quotas on Fargate, container instances elsewhere."""
        if self.fargate:
            return [("quotas", partial(self.quotas, self._limits))]
        return [("capacity", self.capacity)]

    def _limits(self, config: Any, _: str) -> Any:
        return type(self.provider)(config, self.provider.identity).quotas()

    def capacity(self) -> Iterator[Finding]:
        """Whether the ECS cluster has container instances to run tasks on."""
        name, region = self.config.ecs_cluster, self.aws.region
        [found] = self.aws.call("ecs", "describe_clusters", clusters=[name])["clusters"] or [{}]
        if found.get("status") != "ACTIVE":
            yield problem(
                "capacity",
                f"There is no ECS cluster {name!r} in {region}.",
                "`aws ecs list-clusters` lists them: pass ecs_cluster= of those, or use FargateCluster.",
            )
            return
        count = found.get("registeredContainerInstancesCount", 0)
        if not count and not self.config.capacity_provider:
            yield problem(
                "capacity",
                f"ECS cluster {name} has no container instance, and no capacity provider is named.",
                "Start instances that join it, or pass capacity_provider=.",
            )
            return
        yield ok("capacity", f"ECS cluster {name} has {count} container instances.")

    def parts(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """The parts of the landing, and whether each is there."""
        yield from super().parts()
        config = self.config
        if config.ecs_cluster is None:
            yield f"ECS cluster {land.ECS_CLUSTER}", self._has_cluster
        roles = [] if config.execution_role else [land.EXECUTION_ROLE]
        if not config.role:
            roles += [land.TASK_ROLE, *([land.TUNNEL_ROLE] if config.tunnel else [])]
        for role in roles:
            yield f"role {role}", partial(self.has_role, role)

    def roles(self) -> Mapping[str, str | None]:
        """By the name of a role of ours, the one of the user's instead; None where none is needed."""
        config, ours = self.config, (land.TASK_ROLE, land.TUNNEL_ROLE)
        named = dict.fromkeys(ours, config.role) if config.role else {}
        unused = {} if config.role or config.tunnel else {land.TUNNEL_ROLE: None}
        execution = {land.EXECUTION_ROLE: config.execution_role} if config.execution_role else {}
        return {**named, **unused, **execution}

    def _has_cluster(self) -> bool:
        found = self.aws.call("ecs", "describe_clusters", clusters=[land.ECS_CLUSTER])["clusters"]
        return any(one["status"] == "ACTIVE" for one in found)

    def text(self, name: str) -> str:
        """A policy of ours for this account and region, as JSON."""
        from cloudprovider.providers.ecs import policy

        where = self.config.ecs_cluster or land.ECS_CLUSTER
        return policy(
            name,
            account=self.account,
            region=self.aws.region,
            partition=self.aws.partition,
            ecs_cluster=where.rpartition("/")[2],
            log_group=self.config.log_group or LOG_GROUP,
        )
