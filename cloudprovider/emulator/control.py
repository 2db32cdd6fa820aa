"""What an emulated cloud tells and does beside its API: for tests, for demos, and for its own machines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import records
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.inside import enter, leave
from cloudprovider.emulator.records import EmulatedMachine

if TYPE_CHECKING:
    from cloudprovider.emulator.aws import AWS
    from cloudprovider.emulator.cloud import Cloud
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.ecs_task import Task

#: What each method does to each thing under `/_cloud/`.
ACTIONS = {
    ("GET", "calls"): "_calls",
    ("GET", "machines"): "_machines",
    ("GET", "ledger"): "_ledger",
    ("GET", "leftovers"): "_leftovers",
    ("POST", "faults"): "_inject",
    ("DELETE", "faults"): "_clear",
    ("POST", "images"): "_add_image",
    ("POST", "reset"): "_reset",
    ("POST", "machines"): "_harm",
    ("POST", "container-instances"): "_add_container_instance",
    ("GET", "ecs"): "_metadata",
    ("GET", "sessions"): "_session",
    ("POST", "inside"): "_enter",
    ("DELETE", "inside"): "_leave",
}
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")


class Control:
    """Answers what is asked under `/_cloud/`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @property
    def _aws(self) -> AWS:
        return self._cloud.aws

    def answer(self, method: str, route: str, body: bytes, caller: str) -> Any:
        """A text or a document; raises LookupError for what there is not, ValueError for what cannot be."""
        name, _, rest = route.partition("/")
        if (method, name) == ("GET", "address"):
            return caller
        act = getattr(self, ACTIONS.get((method, name), ""), None)
        if act is None:
            raise LookupError(f"There is no {method} {route}.")
        return act(rest, json.loads(body) if body else {})

    def _calls(self, _: str, __: Any) -> Any:
        return [records.document(call) for call in list(self._aws.calls)]

    def _machines(self, _: str, __: Any) -> Any:
        instances = [instance_machine(one) for one in self._aws.ec2.instances.all()]
        return [records.document(one) for one in [*map(machine, self._aws.ecs.tasks()), *instances]]

    def _ledger(self, _: str, __: Any) -> Any:
        return [records.document(entry) for entry in self._aws.account.ledger.entries()]

    def _leftovers(self, _: str, __: Any) -> Any:
        from cloudprovider.emulator.leftovers import leftovers

        with self._aws.account.lock:
            return leftovers(list(self._aws.ecs.tasks()))

    def _inject(self, _: str, given: dict[str, Any]) -> Any:
        return dataclasses.asdict(self._aws.account.faults.add(**given))

    def _clear(self, rest: str, _: Any) -> Any:
        self._aws.account.faults.clear(int(rest) if rest else None)
        return {}

    def _add_image(self, _: str, given: dict[str, Any]) -> Any:
        self._aws.account.images.add(**given)
        return {}

    def _add_container_instance(self, _: str, given: dict[str, Any]) -> Any:
        return {"id": self._aws.ecs.instances.add(**given)}

    def _session(self, rest: str, _: Any) -> Any:
        """Where whoever takes up a session is to connect from: the network of its machine."""
        return {"network": self._aws.account.network.path(self._aws.sessions.machine(rest))}

    def _enter(self, _: str, given: dict[str, Any]) -> Any:
        return enter(self._aws.account, **given)

    def _leave(self, rest: str, given: dict[str, Any]) -> Any:
        leave(self._aws.account, rest, **given)
        return {}

    def _reset(self, _: str, given: dict[str, Any]) -> Any:
        self._cloud.reset(**given)
        return {}

    def _harm(self, rest: str, given: dict[str, Any]) -> Any:
        id, _, what = rest.rpartition("/")
        cloud: Any = self._aws.ec2.instances if id.startswith("i-") else self._aws.ecs
        act = {"interrupt": cloud.life.interrupt, "kill": cloud.life.kill}[what]
        act(cloud.find(id), **given)
        return {}

    def registry(self, route: str) -> bytes | None:
        """The index of an image; None when the registry has it not."""
        if not (match := MANIFEST.fullmatch(route)):
            return b"{}" if route == "/v2/" else None
        repository, tag = match.groups()
        images = self._aws.account.images
        for image in images:
            path, _, own = image.name.rpartition(":")
            if own == tag and (path == repository or path.partition("/")[2] == repository):
                return json.dumps(image.index()).encode()
        return None

    def _metadata(self, rest: str, _: Any) -> dict[str, Any]:
        from cloudprovider.emulator import metadata

        kind, id, *more = rest.split("/")
        task = self._aws.ecs.find(id)
        if kind == "credentials":
            return credentials(task)
        document, definition, subnet = described(task)
        if more == ["task"]:
            return metadata.ecs_task(document, definition, subnet=subnet)
        return metadata.ecs_container(document, definition, task.containers[0].name, subnet=subnet)


def machine(task: Task) -> EmulatedMachine:
    """A task as a machine of the emulated cloud."""
    processes = [container.process for container in task.containers if container.process is not None]
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


def credentials(task: Task) -> dict[str, Any]:
    """What a machine gets when it asks for its role's credentials."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
    return {
        "RoleArn": task.task_role,
        "AccessKeyId": f"ASIA{task.id[:16].upper()}",
        "SecretAccessKey": "emulated",
        "Token": "emulated",
        "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
