"""What ECS remembers, where moto remembers it otherwise: clusters and the revisions of definitions."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from moto.ecs import ecs_backends
from moto.ecs.models import EC2ContainerServiceBackend

if TYPE_CHECKING:
    from collections.abc import Mapping


class LiveECS(EC2ContainerServiceBackend):  # type: ignore[misc]
    """moto's ECS, whose tasks are live ones and are kept by `cloudprovider.emulator.ecs`."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.revisions: defaultdict[str, int] = defaultdict(int)

    def create_cluster(self, cluster_name: str, *arguments: Any, **options: Any) -> Any:
        """Make a cluster, or find the one there is: CreateCluster is idempotent."""
        cluster = self.clusters.get(cluster_name)
        if cluster is not None and cluster.status == "ACTIVE":
            return cluster
        return super().create_cluster(cluster_name, *arguments, **options)

    def register_task_definition(self, family: str, *arguments: Any, **options: Any) -> Any:
        """Register the next revision; the numbers of deleted ones are never used again.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-definition-state.html
        """
        definition = super().register_task_definition(family, *arguments, **options)
        self.revisions[family] += 1
        revision = self.revisions[family]
        if definition.revision != revision:
            of_family = self.task_definitions[family]
            of_family[revision] = of_family.pop(definition.revision)
            definition.revision = revision
            definition.arn = f"{definition.arn.rpartition(':')[0]}:{revision}"
        return definition

    def count(self) -> None:
        """Let each cluster say how many tasks and container instances it has."""
        for cluster in self.clusters.values():
            states = [task.last_status for task in self.tasks.get(cluster.name, {}).values()]
            cluster.running_tasks_count = states.count("RUNNING")
            cluster.pending_tasks_count = states.count("PROVISIONING") + states.count("PENDING")
            instances = self.container_instances.get(cluster.name, {}).values()
            cluster.registered_container_instances_count = sum(one.status != "INACTIVE" for one in instances)

    def definitions(self, parameters: Mapping[str, Any]) -> list[str]:
        """The ARNs of the definitions that ListTaskDefinitions is asked for, in its order."""
        family, status = parameters.get("familyPrefix"), parameters.get("status", "ACTIVE")
        found = [
            definition.arn
            for name in sorted(self.task_definitions)
            if family in (None, name)
            for _, definition in sorted(self.task_definitions[name].items())
            if definition.status == status
        ]
        return found[::-1] if parameters.get("sort") == "DESC" else found

    def families(self, parameters: Mapping[str, Any]) -> list[str]:
        """The families that ListTaskDefinitionFamilies is asked for: by prefix, and by what they still have."""
        prefix, wanted = parameters.get("familyPrefix", ""), parameters.get("status", "ALL")
        found = []
        for name in sorted(self.task_definitions):
            states = {definition.status for definition in self.task_definitions[name].values()}
            status = "ACTIVE" if "ACTIVE" in states else "INACTIVE"
            if name.startswith(prefix) and states and wanted in ("ALL", status):
                found.append(name)
        return found


LiveECS.__module__ = EC2ContainerServiceBackend.__module__  # moto finds its URLs through the module's name


def install() -> None:
    """Make moto's ECS live in this process."""
    ecs_backends.clear()
    ecs_backends.backend = LiveECS
