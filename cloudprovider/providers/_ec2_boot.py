"""What an EC2 machine is told at its first boot: its user data."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError
from cloudprovider.images import carries_runtime
from cloudprovider.providers import _ec2_names as names
from cloudprovider.providers import _vm_boot
from cloudprovider.providers._aws_landing import LOG_GROUP
from cloudprovider.providers._aws_names import ROLES, parameter
from cloudprovider.providers._ec2_names import log_stream
from cloudprovider.providers._vm_boot import boot_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = [
    "MAX_USER_DATA",
    "MORE",
    "boot_of",
    "check",
    "log_stream",
    "pack",
    "secret",
    "secrets",
    "user_data",
]

# An advanced parameter: https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
MAX_SECRET = 8192
#: What only machines of a role read beside their secret; their role may read what ends as it does.
MORE = {role: f"{role}/machine" for role in ROLES}
MAX_USER_DATA = 16_384  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
LIMIT = _vm_boot.Limit(who="EC2", most=MAX_USER_DATA)
INSTANCE_ID = "`cat /var/lib/cloud/data/instance-id`"
#: What is EC2's own of every machine.
VALUES = {
    "cloud": "ec2",
    # Which names instance store volumes have: https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
    "disks": "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_*",
    "ending": "shutdown -h now",  # which terminates
    "masked": "--now, ecs.service, amazon-ecs-volume-plugin.service",
    "mkfs": "mkfs.xfs -qK",
}


def user_data(
    config: EC2Config, identity: Identity, boot: Boot, *, region: str, log_group: str, gpus: int = 0
) -> bytes:
    """The user data of one role's machines, as RunInstances wants it before its base64.

    Parameters
    ----------
    config, identity, boot
        What runs, and whose it is.
    region, log_group
        Where its log goes.
    gpus
        How many GPUs each machine has.

    Raises
    ------
    ConfigError
        When it is larger than EC2 takes.
    """
    values = {
        **VALUES,
        "devices": f"--gpus {gpus}" if gpus else "",
        "logging": _logging(log_stream(identity.name, INSTANCE_ID), region, log_group),
    }
    if boot.autonomous:
        values |= _manager(config, identity, region, log_group)
    order = _vm_boot.Order(
        config=config,
        identity=identity,
        boot=boot,
        runtime=pack(boot),
        values=values,
        extras=[_vm_boot.MANAGER] if boot.autonomous else (),
    )
    return _vm_boot.told(order, LIMIT)


def _manager(config: EC2Config, identity: Identity, region: str, log_group: str) -> dict[str, str]:
    """What the manager beside a scheduler is told; its Boot is the scheduler's, in the same file."""
    logging = _logging(log_stream(identity.name, INSTANCE_ID, names.MANAGER), region, log_group)
    told = dataclasses.replace(config, region=region)
    return _vm_boot.managed(told, identity, logging, {"AWS_DEFAULT_REGION": region})


def secrets(machine: str, boots: Sequence[Boot]) -> dict[str, str]:
    """What is stored for machines, by the last part of its parameter's name: their secret, and more.

    Where their image does not carry the runtime, user data alone could not hold it. Each machine reads its
    secret anyway: the rest of the runtime comes in the same call.

    Raises
    ------
    ConfigError
        When the keys leave too little room.
    """
    if all(carries_runtime(boot.image) for boot in boots):
        return {"machine": machine}
    from cloudruntime.packing import late
    from cloudruntime.rest import REST

    text = json.dumps({**json.loads(machine), REST: late("machine")})
    if len(text) > MAX_SECRET:
        raise ConfigError(
            f"security= has {len(machine)} bytes of keys, which leaves too little of a parameter's {MAX_SECRET} "
            "for the runtime. Use elliptic curve keys, or an image that carries the runtime."
        )
    more = {role: json.dumps({f"{REST}-{role}": late(role)}) for role in ROLES}
    return {"machine": text, **{MORE[role]: text for role, text in more.items()}}


def secret(boot: Boot) -> str:
    """Where a boot's machines find what `secrets` says is stored."""
    whose = ["machine"] if carries_runtime(boot.image) else ["machine", MORE[boot.role]]
    return "ssm:" + ",".join(parameter(boot.cluster, one) for one in whose)


def check(config: EC2Config, boots: Sequence[Boot]) -> None:
    """Refuse what cannot boot, before any call: user data of another kind than cloud-init's, or too much of it."""
    log_group = config.log_group or LOG_GROUP
    for whose, boot in _vm_boot.samples(boots):
        user_data(config, whose, boot, region="ap-southeast-10", log_group=log_group, gpus=1)


def _logging(stream: str, region: str, log_group: str) -> str:
    options = {
        "awslogs-region": region,
        "awslogs-group": log_group,
        "awslogs-stream": stream,
        "mode": "non-blocking",
        "max-buffer-size": "4m",
    }
    return " ".join(
        ["--log-driver awslogs", *(f"--log-opt {name}={value}" for name, value in options.items())]
    )


def pack(boot: Boot) -> tuple[str, bytes]:
    """Once a process: the program that unpacks the runtime, and what of the runtime comes first."""
    if carries_runtime(boot.image):
        return _vm_boot.NOTHING
    from cloudruntime.packing import early

    return _vm_boot.unpacking(), early(boot)
