"""The insides of EC2 instances: booted, stopped, heard; and what instances and their goods cost."""

from __future__ import annotations

import base64
import functools
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2, roles
from cloudprovider.emulator.ec2_prices import instance_price, volume_price
from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.ledger import ipv4_hourly
from cloudprovider.emulator.vms import Insides, pull_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.guest import Guest

NO_GROUP = "api error ResourceNotFoundException: The specified log group does not exist."
POLL_S = 5.0  # how often a machine looks for notices


class Guests(Insides["LiveInstance"]):
    """The insides of EC2 instances."""

    def attach(self, machine: LiveInstance) -> None:
        """Bring an instance into its network."""
        self._network(machine)

    def leave(self, machine: LiveInstance) -> None:
        """Take its interfaces out of the network."""
        for interface in machine.nics.values():
            self._account.network.detach(interface)

    def _network(self, instance: LiveInstance) -> str:
        return self._account.network.attach(instance.ec2_backend, instance.nics[0], instance.id)

    def made(self, machine: LiveInstance) -> Guest:
        """The inside of an instance."""
        account, facts, instance = self._account, machine.order.facts, machine
        gpus = sum(one["Count"] for one in facts.get("GpuInfo", {}).get("Gpus", []))
        disks = sum(one["Count"] for one in facts.get("InstanceStorageInfo", {}).get("Disks", []))
        kind = Kind(
            name=instance.instance_type,
            architecture=instance.architecture,
            gpus=gpus,
            disks=disks,
            region=instance.region_name,
            zone=str(instance.availability_zone),
            image=instance.image_id,
            ecs_agent=instance.order.image.is_ecs,
        )
        return self.guest(
            instance,
            self._network(instance),
            address=instance.address,
            kind=kind,
            user_data=base64.b64decode(instance.order.user_data),
            environ={
                **account.network.ec2_environ(account.endpoint, instance.id),
                "AWS_ENDPOINT_URL": account.endpoint,  # how the emulated cloud is reached from within it
                "DASK_CLOUD_POLL_S": f"{max(0.2, POLL_S * account.timers.scale):g}",  # a notice is as short as its time
            },
            logs=functools.partial(self._log, instance),
            open_log=functools.partial(self._open_log, instance),
            reach=functools.partial(self._reach, instance),
        )

    # -- what its containers need of the cloud -------------------------------------------------------

    def _open_log(self, instance: LiveInstance, group: str, stream: str, create: bool) -> str:  # noqa: FBT001  (as it is asked)
        """Why a container's log stream cannot be opened; empty when it is."""
        backend = logs_backend(instance)
        arn = f"arn:aws:logs:{instance.region_name}:{instance.owner_id}:log-group:{group}"
        with self._account.lock:
            if group not in backend.groups and not create:
                return NO_GROUP
            needed = [("logs:CreateLogGroup", arn)] if group not in backend.groups else []
            for action, resource in [*needed, ("logs:CreateLogStream", f"{arn}:log-stream:{stream}")]:
                if why := self._forbidden(instance, action, resource):
                    return why
            if group not in backend.groups:
                backend.create_log_group(group, {})
            if stream not in backend.groups[group].streams:
                backend.create_log_stream(group, stream)
        return ""

    def _forbidden(self, instance: LiveInstance, action: str, resource: str) -> str:
        """Why the instance's role may not do something; empty when it may."""
        profile = instance.order.profile
        if profile is None or not profile.roles:
            return (
                "get identity: get credentials: failed to refresh cached credentials, no EC2 IMDS role found"
            )
        role = profile.roles[0]
        if roles.allows(roles.policies(role), action, resource):
            return ""
        who = f"arn:aws:sts::{instance.owner_id}:assumed-role/{role.name}/{instance.id}"
        return (
            f"api error AccessDeniedException: User: {who} is not authorized to perform: {action} on resource: "
            f"{resource} because no identity-based policy allows the {action} action"
        )

    def _reach(self, instance: LiveInstance, image: str) -> str:
        """Why an image's registry does not hand it out; empty when it does."""
        registry = image.partition("/")[0]
        url = f"https://{registry}/v2/"
        network, subnet = instance.ec2_backend, str(instance.subnet_id)
        way = ec2.has_way_out(network, subnet, public=bool(instance.public_ip))
        if not way and "ecr.dkr" not in ec2.endpoints(network, subnet):
            return f'Get "{url}": net/http: request canceled while waiting for connection (Client.Timeout exceeded)'
        return pull_failure(self._account, image)

    def _log(self, instance: LiveInstance, group: str, stream: str, line: str) -> None:
        """Take a line of a container under the `awslogs` driver."""
        backend = logs_backend(instance)
        event = {"timestamp": int(time.time() * 1000), "message": line or " "}
        with self._account.lock:
            if group in backend.groups and stream in backend.groups[group].streams:
                backend.put_log_events(group, stream, [event])

    # -- what it costs -------------------------------------------------------------------------------

    @staticmethod
    def hourly(instance: LiveInstance) -> float:
        """What the instance itself costs an hour; NaN when the price list has no price."""
        zone = str(instance.availability_zone)
        return instance_price(instance.region_name, instance.instance_type, zone, instance.market)

    @staticmethod
    def goods(instance: LiveInstance) -> Iterator[tuple[str, float]]:
        """What an instance's volumes and public address are, and cost an hour."""
        for one in instance.block_device_mapping.values():
            hourly = volume_price(instance.region_name, one.volume_type, one.size)
            yield f"{one.volume_type} {one.size} GiB", hourly
        if instance.public_ip:
            yield "public IPv4", ipv4_hourly()


def logs_backend(instance: LiveInstance) -> Any:
    """Moto's CloudWatch Logs of an instance's region."""
    from moto.logs import logs_backends

    return logs_backends[instance.owner_id][instance.region_name]
