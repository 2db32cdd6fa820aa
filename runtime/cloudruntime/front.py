"""The TLS front: the one door to a machine's pages, which listen on its loopback.

Who comes in must show a certificate of the cluster's own authority. The name that he asks for (TLS
SNI) says where to; what flows is passed on byte by byte, without a look at it:

no name, `dashboard`
    The page of this machine's scheduler or first worker.
`jupyter`
    Jupyter, beside the scheduler.
`port-40123`
    The page of this machine's worker that listens there.
`machine-10-0-0-5`, `machine-10-0-0-5.port-40123`
    The same, of another machine of the cluster, by its front; the scheduler's front knows the way.
    Whatever follows that in the name is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudruntime.tls import context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudruntime.secrets import Keys

__all__ = ["Front", "Route", "bind", "route"]

#: Where every machine's front listens, unless its environment says otherwise.
PORT = 8787

HANDSHAKE_S = 10.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Route:
    """Where a connection goes.

    Parameters
    ----------
    host, port
        The address.
    name
        The name to ask for, by TLS; None for a page on this machine's loopback.
    """

    host: str
    port: int
    name: str | None = None


def route(name: str, *, here: str, pages: Mapping[str, int], hops: bool) -> Route | None:
    """Where the name that a client asks for leads; None when it leads nowhere.

    Parameters
    ----------
    name
        What the client asked for.
    here
        This machine's address.
    pages
        Ports of pages on this machine's loopback, by name.
    hops
        Whether this front leads to other machines' fronts.
    """
    label, _, rest = name.partition(".")
    if not label.startswith("machine-"):
        port = pages.get(label or "dashboard")
        return Route(host="127.0.0.1", port=port) if port else None
    page = rest.partition(".")[0]
    page = page if page.startswith("port-") else "dashboard"
    address = _address(label.removeprefix("machine-"))
    if address is None or not hops:
        return None
    if address == here:
        return route(page, here=here, pages=pages, hops=False)
    return Route(host=address, port=PORT, name=page)


def _address(dashed: str) -> str | None:
    """The private address that `10-0-0-5` or `fd00--5` means; None when it is none."""
    for sign in (".", ":"):
        try:
            address = ipaddress.ip_address(dashed.replace("-", sign))
        except ValueError:
            continue
        # link-local is where metadata services live
        return str(address) if address.is_private and not address.is_link_local else None
    return None


def bind(address: str, port: int) -> socket.socket:
    """A socket that listens where the front will be.

    Raises
    ------
    OSError
        When it cannot be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


class Front:
    """The door of one machine.

    Parameters
    ----------
    keys
        This machine's keys.
    sock
        Where it listens.
    here
        This machine's address.
    pages
        Says the ports of the pages on this machine's loopback, by name.
    hops
        Whether it leads to other machines' fronts.
    """

    def __init__(
        self,
        keys: Keys,
        sock: socket.socket,
        *,
        here: str,
        pages: Callable[[], Mapping[str, int]],
        hops: bool,
    ) -> None:
        self._sock = sock
        self._here = here
        self._pages = pages
        self._hops = hops
        self._outward = context(keys, ssl.Purpose.SERVER_AUTH)
        self._inward = context(keys, ssl.Purpose.CLIENT_AUTH)
        self._inward.sni_callback = self._asked
        self._names: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()

    async def open(self) -> asyncio.Server:
        """Let clients in."""
        return await asyncio.start_server(
            self._serve, sock=self._sock, ssl=self._inward, ssl_handshake_timeout=HANDSHAKE_S
        )

    def _asked(self, connection: object, name: str | None, _context: ssl.SSLContext) -> None:
        self._names[connection] = (name or "").lower()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = self._names.get(writer.get_extra_info("ssl_object"), "")
        way = route(name, here=self._here, pages=self._pages(), hops=self._hops)
        try:
            if way is None:
                await _refuse(writer, f"This machine serves no page called {name or 'dashboard'!r}.")
                return
            try:
                page = await asyncio.wait_for(self._connect(way), HANDSHAKE_S)
            except (OSError, asyncio.TimeoutError) as error:
                await _refuse(writer, f"{name or 'dashboard'} does not answer: {type(error).__name__}.")
                return
            await _relay((reader, writer), page)
        except OSError:
            pass  # either side may vanish at any time
        finally:
            writer.close()

    async def _connect(self, way: Route) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if way.name is None:
            return await asyncio.open_connection(way.host, way.port)
        return await asyncio.open_connection(way.host, way.port, ssl=self._outward, server_hostname=way.name)


async def _relay(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    page: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass on what either says until one has said all; what was said is still delivered."""
    pumps = {
        asyncio.ensure_future(_pump(client[0], page[1])),
        asyncio.ensure_future(_pump(page[0], client[1])),
    }
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        page[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, why: str) -> None:
    """Say why in the words of a browser, which is what comes here."""
    body = f"{why}\n".encode()
    head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()
