"""What a cluster's scheduler says of its use. Only this and a manager speak Dask, and import it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from distributed.core import rpc

from cloudprovider import access
from cloudprovider.cli.text import counted
from cloudprovider.errors import AccessError
from cloudprovider.provider import contact
from cloudprovider.security import client_security

if TYPE_CHECKING:
    from cloudprovider.provider import Machine, Provider

__all__ = ["use_of"]

#: Seconds a scheduler may take to be reached, and to answer.
REACH_S = 10.0


def use_of(provider: Provider, scheduler: Machine) -> str:
    """What a cluster is in use for, in words; empty when it is not.

    Raises
    ------
    CloudError, OSError
        When its scheduler cannot be asked.
    """
    secret = provider.attach().client
    config = provider.config
    with ExitStack() as stack:
        if config.tunnel:
            tunnel = provider.tunnel(scheduler)
            stack.callback(tunnel.close)
            tunnel.open(REACH_S)
            address = "{}:{}".format(*tunnel.address)
        else:
            host = scheduler.public_address if config.public else scheduler.private_address
            if host is None:
                raise AccessError("Its scheduler has no address yet.")
            address = contact(host)
        status = asyncio.run(_status(f"tls://{address}", client_security(secret)))
    return in_words(status)


def in_words(status: dict[str, Any]) -> str:
    """What a scheduler's `cloud_status` says of clients and work."""
    clients = len(status["clients"])
    said = [counted(clients, "client")] if clients else []
    said += ["has work"] if status["working"] else []
    return ", ".join(said)


async def _status(address: str, security: Any) -> dict[str, Any]:
    await access.reach(address, security, within=REACH_S)
    scheduler = rpc(address, connection_args=security.get_connection_args("client"))
    try:
        answer: dict[str, Any] = await asyncio.wait_for(scheduler.cloud_status(), REACH_S)
    finally:
        await scheduler.close_rpc()
    return answer
