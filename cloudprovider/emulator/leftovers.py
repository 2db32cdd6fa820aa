"""What an account still has that costs or clutters, beside what it keeps on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.tags import LANDING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudprovider.emulator.ecs_task import Task


def leftovers(tasks: Sequence[Task]) -> list[str]:
    """Everything but the landing and what every account has: one line each, `service: name`."""
    live = [f"ecs task: {task.id} {task.last_status}" for task in tasks if not task.stopped]
    return sorted([*live, *_of_ecs(), *_of_ec2(), *_of_stores(), *_of_iam(), *_of_logs()])


def _landing(tags: Any) -> bool:
    if isinstance(tags, dict):
        return LANDING in tags
    return any(LANDING in (tag.get("key"), tag.get("Key")) for tag in tags or [])


def _regions(backends: Any) -> Iterator[Any]:
    yield from list(backends[ACCOUNT].values()) if ACCOUNT in list(backends) else []


def _of_ecs() -> Iterator[str]:
    from moto.ecs import ecs_backends

    for backend in _regions(ecs_backends):
        for cluster in backend.clusters.values():
            if cluster.status == "ACTIVE" and not _landing(cluster.tags):
                yield f"ecs cluster: {cluster.name}"
        for revisions in backend.task_definitions.values():
            for definition in revisions.values():
                if not _landing(definition.tags):
                    yield f"ecs task definition: {definition.family}:{definition.revision} {definition.status}"
        for service in backend.services.values():
            yield f"ecs service: {service.name}"


def _of_ec2() -> Iterator[str]:
    from moto.ec2 import ec2_backends

    for backend in _regions(ec2_backends):
        for groups in backend.groups.values():
            for group in groups.values():
                if group.name != "default" and not _landing(group.get_tags()):
                    yield f"ec2 security group: {group.id} {group.name}"
        for reservation in backend.reservations.values():
            for instance in reservation.instances:
                if instance.state != "terminated":
                    yield f"ec2 instance: {instance.id} {instance.state}"
        yield from (
            f"ec2 network interface: {one.id} {one.private_ip_address}" for one in backend.enis.values()
        )
        yield from (f"ec2 volume: {volume.id}" for volume in backend.volumes.values())
        yield from (f"ec2 launch template: {template.id}" for template in backend.launch_templates.values())
        yield from (f"ec2 elastic address: {address.public_ip}" for address in backend.addresses)


def _of_stores() -> Iterator[str]:
    from moto.secretsmanager import secretsmanager_backends
    from moto.ssm import ssm_backends

    for backend in _regions(ssm_backends):
        for name in list(backend._parameters):
            if not name.startswith("/aws/"):
                yield f"ssm parameter: {name}"
    for backend in _regions(secretsmanager_backends):
        for secret in backend.secrets.values():
            yield f"secret: {secret.name}"


def _of_iam() -> Iterator[str]:
    from moto.iam import iam_backends

    for backend in _regions(iam_backends):
        for role in backend.roles.values():
            if not role.path.startswith("/aws-service-role/") and not _landing(role.tags):
                yield f"iam role: {role.name}"
        for profile in backend.instance_profiles.values():
            if not _landing(profile.tags):
                yield f"iam instance profile: {profile.name}"


def _of_logs() -> Iterator[str]:
    from moto.logs import logs_backends

    for backend in _regions(logs_backends):
        for group in backend.groups.values():
            tags = backend.list_tags_for_resource(group.arn)
            if not _landing(tags):
                yield f"log group: {group.name}"
