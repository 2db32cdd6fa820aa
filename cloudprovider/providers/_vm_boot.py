"""What a virtual machine is told at its first boot, on any cloud: templates filled, merged and measured."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cloudruntime.boot import Boot

from cloudprovider import autonomous, templates
from cloudprovider.config import seconds
from cloudprovider.errors import ConfigError
from cloudprovider.images import OFFICIAL, carries_runtime, manager_image
from cloudprovider.provider import Identity
from cloudprovider.providers import _uv_lock
from cloudprovider.providers._cloud_init import merged, ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudprovider.providers._vm_config import VMConfig

__all__ = [
    "MANAGER",
    "PLAN",
    "Limit",
    "Order",
    "boot_of",
    "image_of_manager",
    "managed",
    "pack",
    "samples",
    "settled",
    "told",
    "unpacking",
    "zipped",
]

RUNTIME = "/run/dask-cloud/runtime"
#: Nothing of a runtime: the image carries it.
NOTHING = "", b""
#: What is added where a manager runs beside the scheduler.
MANAGER = "cloud-init-manager.yaml"
#: Environment variable that tells such a manager its cluster's plan, where the stored one is for people alone.
PLAN = "DASK_CLOUD_PLAN"
#: What uv makes lies here, unless a cloud's machines may not execute it.
HOME = "/opt/dask-cloud"
#: As long as a scheduler's address can be.
ADDRESSED = "tls://255.255.255.255:8786"
C = TypeVar("C", bound="VMConfig")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How much a cloud takes.

    Parameters
    ----------
    who
        The cloud, in an error's words.
    most
        Bytes.
    zipped
        Whether it may be gzip as a whole, which cloud-init unpacks.
    """

    who: str
    most: int
    zipped: bool = True


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the machines of one role are told.

    Parameters
    ----------
    config, identity, boot
        What runs, and whose it is.
    runtime
        What `pack` made.
    values
        What is filled into those holes of the templates that are the cloud's own.
    extras
        Further templates, each before the others that it adds to.
    """

    config: VMConfig
    identity: Identity
    boot: Boot
    runtime: tuple[str, bytes]
    values: Mapping[str, str]
    extras: Sequence[str] = ()


def told(order: Order, limit: Limit) -> bytes:
    """The user data of one role's machines.

    Raises
    ------
    ConfigError
        When it is larger than the cloud takes, or the user's own cannot be added to.
    """
    lock = _uv_lock.read(order.config.lock) if order.config.boot == "uv" else ""
    own = order.config.user_data
    data = _whole(order, limit, own, lock)
    if len(data) > limit.most:
        bare = dataclasses.replace(order, boot=dataclasses.replace(order.boot, environment={}))
        without = {
            "user_data=": _whole(order, limit, None, lock),
            "environment=": _whole(bare, limit, own, lock),
            "lock=": _whole(order, limit, own, lock and "\n"),
            "the runtime": _whole(dataclasses.replace(order, runtime=NOTHING), limit, own, lock),
        }
        sizes = {what: len(data) - len(rest) for what, rest in without.items()}
        raise _too_large(limit, len(data), sizes)
    return data


def _whole(order: Order, limit: Limit, own: str | None, lock: str) -> bytes:
    names = [*order.extras, *(["cloud-init-uv.yaml"] if lock else []), "cloud-init.yaml"]
    values = _values(order, lock)
    texts = [_bare(templates.render(name, **values)) for name in names]
    whole = functools.reduce(merged, [own, *texts] if own else texts).encode()
    # cloud-init unpacks it: https://docs.cloud-init.io/en/latest/explanation/format.html
    return gzip.compress(whole, mtime=0) if limit.zipped else whole


def _values(order: Order, lock: str) -> dict[str, str]:
    """What is filled into every hole."""
    program, packed = order.runtime
    variables, rest = _split(order.boot)
    timeout_s = seconds(order.config.start_timeout, "start_timeout")
    return {
        "boot": zipped(rest.dumps()),
        "cluster": order.identity.name,
        "environment": zipped("".join(f"{name}={value}\n" for name, value in variables.items())),
        "expires": str(order.identity.expires),
        "home": HOME,
        "image": _uv_lock.UV if order.config.boot == "uv" else order.boot.image,
        "lease": str(max(1, round(timeout_s))),
        "lock": zipped(lock),
        "packed": base64.b64encode(packed).decode(),
        "program": RUNTIME if program else "-m cloudruntime",
        "python": order.boot.versions.get("python", ""),
        "runtime": zipped(program),
        **order.values,
    }


def _too_large(limit: Limit, size: int, parts: Mapping[str, int]) -> ConfigError:
    of = ", ".join(f"{part} bytes of {what}" for what, part in parts.items() if part > 0)
    advice = "Make user_data= and environment= smaller: what is large belongs into the image or a bucket."
    if parts["lock="] > 0:
        advice += (
            " A pylock.toml or uv.lock takes fewer bytes than requirements with the hashes of every file."
        )
    elif parts["the runtime"] > 0:
        advice += f" An image that carries the runtime, such as one called {OFFICIAL}, saves its part."
    return ConfigError(
        f"The user data would be {size} bytes, of which {of}: {limit.who} takes {limit.most}. {advice}"
    )


def settled(config: C) -> C:
    """The options with what the lock says for where it is, as another process will read them."""
    return dataclasses.replace(config, lock=_uv_lock.read(config.lock)) if config.boot == "uv" else config


def managed(
    config: VMConfig, identity: Identity, logging: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """What fills the holes of `cloud-init-manager.yaml`: what the manager beside an autonomous scheduler is told.

    Parameters
    ----------
    config, identity
        The cluster's, with what the provider settled.
    logging
        Options of `docker run` that say where its log goes.
    environment
        What it is told beside its mandate, such as the plan of its cluster.
    """
    lines = {autonomous.MANDATE: autonomous.mandate(config, identity), **environment}
    return {
        "manager": zipped("".join(f"{name}={value}\n" for name, value in lines.items())),
        "manager_image": image_of_manager(config),
        "manager_logging": logging,
    }


def image_of_manager(config: VMConfig) -> str:
    """The image that the manager beside a scheduler runs in."""
    return config.manager_image or manager_image()


def samples(boots: Sequence[Boot]) -> Iterator[tuple[Identity, Boot]]:
    """Boots as they may be once they have their longest addresses, each with whose it is: for checks before any call."""
    for boot in boots:
        addressed = dataclasses.replace(boot, scheduler=boot.scheduler or ADDRESSED)
        yield Identity(name=boot.cluster, owner="", created=0, expires=boot.leases.expires or 1), addressed


def pack(boot: Boot, cloud: str) -> tuple[str, bytes]:
    """Once a process: the program that unpacks the runtime, and the runtime, for an image that does not carry it."""
    if carries_runtime(boot.image):
        return NOTHING
    from cloudruntime.packing import whole

    return unpacking(), whole(boot, cloud)


def unpacking() -> str:
    """The program that unpacks the runtime that lies beside it."""
    from cloudruntime.packing import unpack

    return unpack("r=open(__file__+'.bz2','rb').read()")


def boot_of(data: bytes) -> Boot:
    """The Boot in the user data of a machine, or of what machines are made like."""
    import yaml

    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    files = {file["path"]: file["content"] for file in yaml.safe_load(ours(text))["write_files"]}
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


def _bare(text: str) -> str:
    """The same cloud-config without comments."""
    return re.sub(r"(?m)^ *# .*\n", "", text)


def zipped(text: str) -> str:
    """A text for a hole that `gz+b64` unpacks."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
