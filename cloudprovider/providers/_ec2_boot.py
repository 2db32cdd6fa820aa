"""What an EC2 machine is told at its first boot: its user data."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from typing import TYPE_CHECKING

from cloudruntime.boot import Boot

from cloudprovider import templates
from cloudprovider.config import seconds
from cloudprovider.errors import ConfigError
from cloudprovider.images import carries_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudprovider.provider import Identity
    from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["MAX_USER_DATA", "boot_of", "check", "log_stream", "machine_secret", "pack", "user_data"]

# An advanced parameter: https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
MAX_SECRET = 8192
MAX_USER_DATA = 16_384  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
RUNTIME = "/run/dask-cloud/runtime"
INSTANCE_ID = "`cat /var/lib/cloud/data/instance-id`"
# Which names instance store volumes have: https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
DISKS = "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_*"


def log_stream(cluster: str, id: str) -> str:
    """The log stream of one machine."""
    return f"{cluster}/{id}"


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
    program, packed = pack(boot)
    variables, rest = _split(boot)
    text = templates.render(
        "cloud-init.yaml",
        boot=_base64(rest.dumps().encode()),
        cloud="ec2",
        cluster=identity.name,
        devices="--gpus all" if gpus else "",
        disks=DISKS,
        environment=_base64("".join(f"{name}={value}\n" for name, value in variables.items()).encode()),
        expires=str(identity.expires),
        image=boot.image,
        lease=str(max(1, round(seconds(config.start_timeout, "start_timeout")))),
        logging=_logging(identity.name, region, log_group),
        packed=_base64(packed),
        program=RUNTIME if program else "-m cloudruntime",
        runtime=_base64(program.encode()),
    )
    return _fitting(gzip.compress(_bare(text).encode(), mtime=0))


def machine_secret(secret: str, boots: Sequence[Boot]) -> str:
    """The machines' secret, with what of the runtime they need only then, where their image does not carry it.

    User data alone could not hold all of it. The parameter is read by every machine anyway, and has room.

    Raises
    ------
    ConfigError
        When the keys leave too little room.
    """
    if all(carries_runtime(boot.image) for boot in boots):
        return secret
    from cloudruntime.packing import late
    from cloudruntime.rest import REST

    text = json.dumps({**json.loads(secret), REST: late()})
    if len(text) > MAX_SECRET:
        raise ConfigError(
            f"security= has {len(secret)} bytes of keys, which leaves too little of a parameter's {MAX_SECRET} for "
            "the runtime. Use elliptic curve keys, or an image that carries the runtime."
        )
    return text


def check(config: EC2Config, boots: Sequence[Boot]) -> None:
    """Refuse what would not fit into user data, before any call."""


def boot_of(data: bytes) -> Boot:
    """The Boot in the user data of a machine or launch template of ours."""
    import yaml

    document = yaml.safe_load(gzip.decompress(data))
    files = {file["path"]: file["content"] for file in document["write_files"]}
    boot = Boot.loads(base64.b64decode(files["/run/dask-cloud/boot"]).decode())
    lines = base64.b64decode(files["/run/dask-cloud/environment"]).decode().split("\n")
    variables = dict(line.split("=", 1) for line in lines if line)
    return dataclasses.replace(boot, environment={**variables, **boot.environment})


def _split(boot: Boot) -> tuple[dict[str, str], Boot]:
    """Variables for the container, and a Boot with those that a line of `--env-file` cannot hold."""
    whole = {name: value for name, value in boot.environment.items() if value.isprintable()}
    rest = {name: value for name, value in boot.environment.items() if name not in whole}
    return whole, dataclasses.replace(boot, environment=rest)


def _logging(cluster: str, region: str, log_group: str) -> str:
    options = {
        "awslogs-region": region,
        "awslogs-group": log_group,
        "awslogs-stream": log_stream(cluster, INSTANCE_ID),
        "mode": "non-blocking",
        "max-buffer-size": "4m",
    }
    return " ".join(
        ["--log-driver awslogs", *(f"--log-opt {name}={value}" for name, value in options.items())]
    )


def _bare(text: str) -> str:
    """The same cloud-config without comments."""
    return re.sub(r"(?m)^ *# .*\n", "", text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pack(boot: Boot) -> tuple[str, bytes]:
    """Once a process: the program that unpacks the runtime, and the runtime, for an image that does not carry it."""
    if carries_runtime(boot.image):
        return "", b""
    from cloudruntime.packing import early, unpack

    return unpack(f"r=open({RUNTIME + '.bz2'!r},'rb').read()"), early(boot)


def _fitting(data: bytes) -> bytes:
    if len(data) > MAX_USER_DATA:
        raise ConfigError(f"The user data would be {len(data)} bytes: EC2 takes {MAX_USER_DATA}.")
    return data
