"""What the embedded AWS tells and does beside its API."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.inside import enter, leave
from cloudprovider.emulator.records import EmulatedMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.aws import AWS
    from cloudprovider.emulator.control import Action
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.ecs_task import Task


class AWSControl:
    """Answers what only an AWS is asked under `/_cloud/`."""

    def __init__(self, aws: AWS) -> None:
        self._aws = aws
        self.actions: Mapping[tuple[str, str], Action] = {
            ("POST", "container-instances"): self._add_container_instance,
            ("GET", "ecs"): self._metadata,
            ("GET", "sessions"): self._session,
            ("POST", "logins"): self._login,
            ("POST", "inside"): self._enter,
            ("DELETE", "inside"): self._leave,
        }

    def _add_container_instance(self, _: str, given: dict[str, Any]) -> Any:
        return {"id": self._aws.ecs.instances.add(**given)}

    def _login(self, rest: str, given: dict[str, Any]) -> Any:
        return self._aws.principals.login(given["policies"], rest)

    def _session(self, rest: str, _: Any) -> Any:
        """Where whoever takes up a session is to connect from: the network of its machine."""
        return {"network": self._aws.account.network.path(self._aws.sessions.machine(rest))}

    def _enter(self, _: str, given: dict[str, Any]) -> Any:
        return enter(self._aws.account, **given)

    def _leave(self, rest: str, given: dict[str, Any]) -> Any:
        leave(self._aws.account, rest, **given)
        return {}

    def _metadata(self, rest: str, _: Any) -> dict[str, Any]:
        from cloudprovider.emulator import metadata

        kind, id, *more = rest.split("/")
        task = self._aws.ecs.find(id.partition("-")[0])
        if kind == "credentials":
            return self._credentials(task)
        document, definition, subnet = described(task)
        if more == ["task"]:
            return metadata.ecs_task(document, definition, subnet=subnet)
        container = next(one for one in task.containers if one.runtime_id == id)
        return metadata.ecs_container(document, definition, container.name, subnet=subnet)

    def _credentials(self, task: Task) -> dict[str, Any]:
        """What a container gets when it asks for the credentials of its task's role."""
        role = roles.find(ACCOUNT, task.task_role)
        if role is None:
            raise KeyError(f"There is no role {task.task_role}.")
        session = self._aws.principals.session(role, task.id)
        until = dt.datetime.fromtimestamp(session.expires, dt.UTC)
        return {
            "RoleArn": task.task_role,
            "AccessKeyId": session.key,
            "SecretAccessKey": session.secret,
            "Token": session.token,
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def task_machine(task: Task) -> EmulatedMachine:
    """A task as a machine of the emulated cloud."""
    processes = [one.process for one in task.containers if one.essential and one.process is not None]
    codes = [container.exit_code for container in task.containers if container.essential]
    return EmulatedMachine(
        id=task.id,
        state=task.last_status,
        kind=str(task.size),
        market=task.market,
        zone=task.zone,
        image=task.containers[0].definition["image"],
        address=task.address,
        pid=(processes[0].pid or None) if processes else None,
        exit_code=codes[0] if codes else None,
        reason=task.stopped_reason,
        tags={tag["key"]: tag["value"] for tag in task.tags},
    )


def instance_machine(instance: LiveInstance) -> EmulatedMachine:
    """An EC2 instance as a machine of the emulated cloud."""
    pids = instance.guest.pids if instance.guest is not None else []
    return EmulatedMachine(
        id=instance.id,
        state=instance.state,
        kind=instance.instance_type,
        market=instance.market,
        zone=str(instance.availability_zone),
        image=instance.image_id,
        address=instance.private_ip or "",
        pid=pids[0] if pids else None,
        reason=instance.state_reason.message,
        tags=dict(instance.tags),
    )


def described(task: Task) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A task and its definition as the API tells them, and the block of its subnet."""
    from moto.ec2 import ec2_backends

    definition = {
        "family": task.family,
        "revision": int(task.task_definition_arn.rpartition(":")[2]),
        "containerDefinitions": [dict(container.definition) for container in task.containers],
    }
    subnet = ec2_backends[ACCOUNT][task.region].get_subnet(task.subnet)
    return task.describe(), definition, subnet.cidr_block
