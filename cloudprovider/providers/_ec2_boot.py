"""What an EC2 machine is told at its first boot: its user data."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import json
import re
from typing import TYPE_CHECKING

from cloudruntime.boot import Boot

from cloudprovider import templates
from cloudprovider.config import seconds
from cloudprovider.errors import ConfigError
from cloudprovider.images import OFFICIAL, carries_runtime
from cloudprovider.provider import Identity
from cloudprovider.providers import _uv_lock
from cloudprovider.providers._aws_landing import LOG_GROUP
from cloudprovider.providers._aws_names import ROLES, parameter
from cloudprovider.providers._cloud_init import merged, ours
from cloudprovider.providers._ec2_names import log_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
NOTHING = "", b""
RUNTIME = "/run/dask-cloud/runtime"
INSTANCE_ID = "`cat /var/lib/cloud/data/instance-id`"
# Which names instance store volumes have: https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
DISKS = "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_*"


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
    runtime = pack(boot)
    values = {
        "cloud": "ec2",
        "cluster": identity.name,
        "devices": f"--gpus {gpus}" if gpus else "",
        "disks": DISKS,
        "expires": str(identity.expires),
        "image": _uv_lock.UV if config.boot == "uv" else boot.image,
        "lease": str(max(1, round(seconds(config.start_timeout, "start_timeout")))),
        "logging": _logging(identity.name, region, log_group),
    }
    lock = _uv_lock.read(config.lock) if config.boot == "uv" else ""
    data = _whole(values, boot, runtime, config.user_data, lock)
    if len(data) > MAX_USER_DATA:
        bare = dataclasses.replace(boot, environment={})
        without = {
            "user_data=": _whole(values, boot, runtime, None, lock),
            "environment=": _whole(values, bare, runtime, config.user_data, lock),
            "lock=": _whole(values, boot, runtime, config.user_data, lock and "\n"),
            "the runtime": _whole(values, boot, NOTHING, config.user_data, lock),
        }
        raise _too_large(len(data), {what: len(data) - len(rest) for what, rest in without.items()})
    return data


def _whole(
    values: Mapping[str, str], boot: Boot, runtime: tuple[str, bytes], own: str | None, lock: str
) -> bytes:
    program, packed = runtime
    variables, rest = _split(boot)
    values = {
        **values,
        "boot": _zipped(rest.dumps()),
        "environment": _zipped("".join(f"{name}={value}\n" for name, value in variables.items())),
        "lock": _zipped(lock),
        "packed": _base64(packed),
        "program": RUNTIME if program else "-m cloudruntime",
        "python": boot.versions.get("python", ""),
        "runtime": _zipped(program),
    }
    names = ["cloud-init-uv.yaml", "cloud-init.yaml"] if lock else ["cloud-init.yaml"]
    texts = [_bare(templates.render(name, **values)) for name in names]
    whole = functools.reduce(merged, [own, *texts] if own else texts)
    # cloud-init unpacks it: https://docs.cloud-init.io/en/latest/explanation/format.html
    return gzip.compress(whole.encode(), mtime=0)


def _too_large(size: int, parts: Mapping[str, int]) -> ConfigError:
    of = ", ".join(f"{part} bytes of {what}" for what, part in parts.items() if part > 0)
    advice = "Make user_data= and environment= smaller: what is large belongs into the image or a bucket."
    if parts["lock="] > 0:
        advice += (
            " A pylock.toml or uv.lock takes fewer bytes than requirements with the hashes of every file."
        )
    elif parts["the runtime"] > 0:
        advice += f" An image that carries the runtime, such as one called {OFFICIAL}, saves its part."
    return ConfigError(
        f"The user data would be {size} bytes, of which {of}: EC2 takes {MAX_USER_DATA}. {advice}"
    )


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
    for boot in boots:
        addressed = dataclasses.replace(boot, scheduler=boot.scheduler or "tls://255.255.255.255:8786")
        name, expires = boot.cluster, boot.leases.expires or 1
        whose = Identity(name=name, owner="", created=0, expires=expires)
        log_group = config.log_group or LOG_GROUP
        user_data(config, whose, addressed, region="ap-southeast-10", log_group=log_group, gpus=1)


def boot_of(data: bytes) -> Boot:
    """The Boot in the user data of a machine or launch template of ours."""
    import yaml

    document = yaml.safe_load(ours(gzip.decompress(data).decode()))
    files = {file["path"]: file["content"] for file in document["write_files"]}
    boot, lines = (
        gzip.decompress(base64.b64decode(files[f"/run/dask-cloud/{name}"])).decode()
        for name in ("boot", "environment")
    )
    variables = dict(line.split("=", 1) for line in lines.split("\n") if line)
    found = Boot.loads(boot)
    return dataclasses.replace(found, environment={**variables, **found.environment})


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


def _zipped(text: str) -> str:
    return _base64(gzip.compress(text.encode(), mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pack(boot: Boot) -> tuple[str, bytes]:
    """Once a process: the program that unpacks the runtime, and the runtime, for an image that does not carry it."""
    if carries_runtime(boot.image):
        return "", b""
    from cloudruntime.packing import early, unpack

    return unpack("r=open(__file__+'.bz2','rb').read()"), early(boot)
