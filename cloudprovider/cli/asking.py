"""What a cluster's scheduler says of itself. Only this and a manager speak Dask, and import it."""

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
    from collections.abc import Mapping

    from cloudprovider.provider import Machine, Provider

__all__ = ["in_words", "status_of"]

#: Seconds a scheduler may take to be reached, and to answer.
REACH_S = 10.0


def status_of(provider: Provider, scheduler: Machine, secret: str) -> dict[str, Any]:
    """What a scheduler says of its clients, work, leases and machines (`cloud_status`).

    Parameters
    ----------
    provider
        Attached to the cluster.
    scheduler
        Its scheduler's machine.
    secret
        The cluster's client secret.

    Raises
    ------
    CloudError, OSError
        When it cannot be asked.
    """
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
        return asyncio.run(_status(f"tls://{address}", client_security(secret)))


def in_words(status: Mapping[str, Any]) -> str:
    """What a scheduler's `cloud_status` says that its cluster is in use for; empty when it is not."""
    clients, lead = len(status["clients"]), status.get("lead") or {}
    said = [counted(clients, "client")] if clients else []
    said += ["has work"] if status["working"] else []
    # The manager on the scheduler's own machine leads while nobody else does: that is no use.
    said += [f"led by {lead['who']}"] if lead and not lead.get("standby") else []
    return ", ".join(said)


async def _status(address: str, security: Any) -> dict[str, Any]:
    await access.reach(address, security, within=REACH_S)
    scheduler = rpc(address, connection_args=security.get_connection_args("client"))
    try:
        answer: dict[str, Any] = await asyncio.wait_for(scheduler.cloud_status(), REACH_S)
    finally:
        await scheduler.close_rpc()
    return answer
