"""Who this machine is: its cloud's id of it, and the address it binds."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METADATA", "Identity", "learn"]

#: Whose metadata service says who this machine is.
METADATA = "DASK_CLOUD_METADATA"
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
ECS = "ECS_CONTAINER_METADATA_URI_V4"
#: Without a metadata service: the machine's id, and the address it binds.
MACHINE = "DASK_CLOUD_MACHINE"
ADDRESS = "DASK_CLOUD_ADDRESS"

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Identity:
    """Who a machine is.

    Parameters
    ----------
    id
        The cloud's own name for it; its Dask workers are named `<id>` or `<id>-<k>`.
    address
        The private address that its scheduler or workers bind and advertise.
    """

    id: str
    address: str


def learn(environ: Mapping[str, str]) -> Identity:
    """Ask the metadata service that the environment points to; without one, believe the environment.

    Raises
    ------
    ValueError
        When neither says who this is.
    """
    if cloud := environ.get(METADATA):
        if cloud not in CLOUDS:
            raise ValueError(f"{METADATA}={cloud!r} is none that this runtime can ask: {', '.join(CLOUDS)}")
        return CLOUDS[cloud](environ)
    if environ.get(ECS):
        return of_ecs(_get(environ[ECS] + "/task"))
    if environ.get(MACHINE):
        return Identity(id=environ[MACHINE], address=environ.get(ADDRESS) or "127.0.0.1")
    raise ValueError(f"neither {METADATA}, {ECS} nor {MACHINE} is set")


def of_ec2(environ: Mapping[str, str]) -> Identity:
    """Ask the metadata service of an EC2 instance."""
    from cloudruntime.aws import Metadata

    service = Metadata(environ)
    address = service.need("meta-data/local-ipv4")
    return Identity(id=service.need("meta-data/instance-id"), address=address)


def of_gce(environ: Mapping[str, str]) -> Identity:
    """Ask the metadata service of a Compute Engine instance."""
    from cloudruntime import gce

    return Identity(*gce.identity(environ))


def of_azure(environ: Mapping[str, str]) -> Identity:
    """Ask the metadata service of an Azure virtual machine."""
    from cloudruntime import azure

    return Identity(*azure.identity(environ))


def of_ecs(task: Mapping[str, Any]) -> Identity:
    """Read the answer of ECS task metadata v4, `/task`."""
    addresses = [
        address
        for container in task.get("Containers", ())
        for network in container.get("Networks", ())
        for address in network.get("IPv4Addresses", ()) or network.get("IPv6Addresses", ())
    ]
    if not task.get("TaskARN") or not addresses:
        raise ValueError(f"the ECS metadata service names no task with an address: {json.dumps(task)[:300]}")
    return Identity(id=task["TaskARN"].rpartition("/")[2], address=addresses[0])


def _get(url: str) -> Any:
    """GET a JSON document from the metadata service, past any proxy."""
    if not url.startswith("http://"):
        raise ValueError(f"a metadata service speaks http, not {url!r}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except OSError as error:
        raise ValueError(f"the metadata service at {url} does not answer: {error}") from error


CLOUDS = {"ec2": of_ec2, "gce": of_gce, "azure": of_azure}
