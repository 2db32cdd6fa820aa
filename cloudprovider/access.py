"""The way from here to a cluster: our own address, the first connection, and connections that last.

The pages are in `dashboard`, tunnels in `tunnel`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import math
import ssl
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from cloudprovider.config import setting
from cloudprovider.errors import AccessError
from cloudprovider.sockets import keep_open

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["admitted", "own_address", "patient", "reach", "stay_patient"]

logger = logging.getLogger("cloudprovider")

#: A public service that answers with the address of whoever asks, as plain text.
ECHO = "https://checkip.amazonaws.com"
#: One attempt to connect; a packet that a rule drops is never answered.
ATTEMPT_S = 5.0
#: What listens may be busy with its own start.
SHAKE_S = 20.0
#: The other end went away during the handshake: a scheduler that ends, or a tunnel whose far end is not up.
HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


def own_address(timeout: float = 5.0) -> str:
    """The public address that this machine's connections come from.

    Asks `cloud.address-url`, by default a public echo service, and never through an HTTP proxy:
    Dask's connections do not pass one either.

    Parameters
    ----------
    timeout
        Seconds to wait for the answer.

    Raises
    ------
    AccessError
        When nobody answers, or the answer is no address.
    """
    url = str(setting("address-url", default=ECHO))
    advice = "Pass allow_from='203.0.113.7/32' (your own public address), or set cloud.address-url."
    if not url.startswith(("https://", "http://")):
        raise AccessError(f"cloud.address-url is {url!r}, which is no http address. {advice}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            text = answer.read(200).decode("ascii", "replace").strip()
    except OSError as error:
        raise AccessError(
            f"Your public address could not be learned from {url}: {getattr(error, 'reason', error)}. {advice}"
        ) from error
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise AccessError(f"{url} answered {text[:60]!r}, which is no address. {advice}") from None


async def reach(
    address: str,
    security: Any,
    *,
    within: float,
    allowed: Collection[str] = (),
    running: Callable[[], bool] = lambda: False,
    silence: float = 60.0,
) -> None:
    """Wait until the scheduler at `address` answers this client.

    Parameters
    ----------
    address
        Such as `tls://203.0.113.5:8786`.
    security
        The client's `distributed.Security`.
    within
        Seconds until it must have answered.
    allowed
        CIDR blocks that the cluster's rules admit; empty when nobody knows them.
    running
        Whether the cloud says that the machine runs.
    silence
        Seconds after which a running machine from which no packet came is given up:
        a rule or a route is missing, and waiting will not change it.

    Raises
    ------
    AccessError
        Says whether nobody listens there, or a rule or a route is missing, or the keys are others.
    """
    deadline = time.monotonic() + within
    began, heard = math.inf, -math.inf  # when a running machine fell silent, and when it last was not
    met = "silence"
    while True:
        try:
            await _knock(address, security, min(ATTEMPT_S, max(0.1, deadline - time.monotonic())))
        except OSError as error:
            reason, failure = why(error), error
        else:
            return
        now = time.monotonic()
        if reason != "silence":
            heard, met = now, reason
        if reason != "silence" or not running():
            began = math.inf
        elif not math.isfinite(began):
            began = now - ATTEMPT_S
        if reason == "keys" or now >= deadline or now - began >= silence:
            break
        await asyncio.sleep(min(0.25, max(0.0, deadline - now)))
    if now - heard < 2 * ATTEMPT_S:
        reason = met  # the last attempt was cut short, or its answer was late
    own = await asyncio.to_thread(_own_address_or_none) if reason == "silence" and allowed else None
    raise unreachable(address, reason, allowed=allowed, own=own) from failure


async def _knock(address: str, security: Any, within: float) -> None:
    """Connect, shake hands as Dask does, and hang up.

    Dask's `connect` tries again by itself and tells only of its last attempt, so the first step is our own.
    """
    from distributed.comm import connect
    from distributed.comm.addressing import parse_host_port

    arguments = security.get_connection_args("client")
    host, port = parse_host_port(address.partition("://")[2])
    async with asyncio.timeout(within):
        _, writer = await asyncio.open_connection(host, port, ssl=arguments.get("ssl_context"))
        writer.transport.abort()
    async with asyncio.timeout(SHAKE_S):
        comm = await connect(address, timeout=SHAKE_S, **arguments)
        await comm.close()


def why(error: BaseException) -> str:
    """What an attempt to connect met: `keys`, `refused`, `route` or `silence`."""
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, HUNG_UP) for cause in causes):
        return "keys"
    if any(isinstance(cause, ConnectionError) for cause in causes):
        return "refused"
    if any(isinstance(cause, OSError) and cause.errno in UNREACHABLE for cause in causes):
        return "route"
    if any("Closed" in type(cause).__name__ for cause in causes):
        return "refused"  # it took the connection and ended it
    return "silence"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it was raised from, and the socket's own errors that tornado carries along."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "real_error", None) or error.__context__


def unreachable(
    address: str, reason: str, *, allowed: Collection[str] = (), own: str | None = None
) -> AccessError:
    """The error that says which rule, route or key is missing between here and `address`."""
    where = address.removeprefix("tls://")
    if reason == "keys":
        return AccessError(
            f"What answers at {where} has keys of another cluster. "
            "Find the cluster again by its name (from_name), or look whether its address has changed."
        )
    if reason == "refused":
        return AccessError(
            f"The machine at {where} answers, but no scheduler listens there: it is not up yet, or has ended. "
            "Its logs say which (get_logs, or `dask cloud logs`)."
        )
    if reason == "route":
        return AccessError(
            f"This machine has no route to {where}. Check its network or VPN; "
            "a private address needs tunnel=True, or a network that leads there."
        )
    return AccessError(f"Nothing comes back from {where}. {_missing_rule(where, allowed, own)}")


def _missing_rule(where: str, allowed: Collection[str], own: str | None) -> str:
    address = _address(where)
    if address is not None and address.is_private:
        return (
            "It is a private address: pass tunnel=True, or connect from a network that leads there "
            "and is in allow_from."
        )
    rules = ", ".join(sorted(allowed))
    if own is None:
        admits = f"Its rules admit {rules}" if rules else "Its rules may not admit you"
        return f"{admits}; call cluster.allow() to admit the address you have now."
    if not admitted(own, allowed):
        return (
            f"Your address is {own} now, but its rules admit only {rules}. "
            "Call cluster.allow(), or from_name, to admit the address you have now."
        )
    port = where.rpartition(":")[2]
    return (
        f"Its rules admit your address {own}, so something else is in the way: a network that lets nothing "
        f"out to port {port}, or a subnet without a route to an internet gateway. Try another network, or tunnel=True."
    )


def _address(where: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host of `host:port` when it is an address."""
    try:
        return ipaddress.ip_address(where.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def admitted(address: str, blocks: Collection[str]) -> bool:
    """Whether an address lies in one of some CIDR blocks."""
    networks = (ipaddress.ip_network(block, strict=False) for block in blocks)
    return any(ipaddress.ip_address(address) in network for network in networks)


def _own_address_or_none() -> str | None:
    try:
        return own_address()
    except AccessError as error:
        logger.debug("%s", error)
        return None


def patient(comm: Any, seconds: float) -> bool:
    """Let an established Dask connection survive `seconds` without network; False when it cannot be.

    `distributed.comm.timeouts.tcp` (30 seconds) sets the same for every connection of the process;
    this is for one. The other end needs it too.
    """
    stream = getattr(comm, "stream", None)
    if stream is None or stream.closed():
        return False
    return keep_open(stream.socket, seconds)


def stay_patient(cluster: Any, seconds: float) -> int:
    """Make every connection of a cluster, and of the clients attached to it, patient; how many are.

    Dask opens connections as it needs them, so this is to be called now and then.
    """
    return sum(patient(comm, seconds) for comm in _comms(cluster))


def _comms(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    yield from getattr(getattr(cluster, "scheduler_comm", None), "comms", ())
    yield getattr(cluster, "_watch_worker_status_comm", None)
    # A WeakSet of every client of this process.
    for client in [c for c in list(Client._instances) if c.cluster is cluster]:  # noqa: SLF001
        yield getattr(client.scheduler_comm, "comm", None)
        for pool in (client.rpc.available, client.rpc.occupied):
            for comms in list(pool.values()):
                yield from list(comms)
