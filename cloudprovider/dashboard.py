"""A cluster's pages on `http://127.0.0.1:PORT`, for the user who holds its keys.

Nothing plain is reachable on a machine: its dashboard and its Jupyter sit behind a front that wants a
certificate and tells pages apart by the name asked for in TLS. What is here speaks HTTP to the user's
browser and mutual TLS to the scheduler's front; every request is relayed as a stream.

A connection to the front belongs to one connection of the browser and ends with it, so that what happens
when either side goes away is what would happen without a proxy.

Other web pages in the same browser can send requests here too. They are kept out as Jupyter and Bokeh
keep them out: only a loopback name is served (against DNS rebinding), and only pages of the same origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpclient import TCPClient

from cloudprovider.config import setting
from cloudprovider.security import client_security

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Coroutine

__all__ = ["Pages", "serve_pages"]

logger = logging.getLogger("cloudprovider")
T = TypeVar("T")

CONNECT_S = 15.0
NO_LIMIT = 1 << 50  # a notebook that is saved, or a file that is fetched, may be large
CHUNK = 1 << 16
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Headers that speak of one connection, not of the message: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
HOP_BY_HOP = (
    "Connection",
    "Expect",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
WORKER_PAGE = re.compile(r"(/proxy/(\d+)/([^/?]+))(/[^?]*)?(\?.*)?")


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where a request goes: the name to ask for in TLS, the path there, and what was cut off before it."""

    name: str
    path: str
    prefix: str = ""


def route(target: str) -> Route:
    """Which page of which machine a request's target means."""
    if target == "/jupyter" or target.startswith(("/jupyter/", "/jupyter?")):
        return Route(name="jupyter", path=target)
    if match := WORKER_PAGE.fullmatch(target):
        prefix, port, host, path, query = match.groups()
        with contextlib.suppress(ValueError):
            address = str(ipaddress.ip_address(unquote(host).strip("[]")))
            label = re.sub(r"[.:]", "-", address)
            return Route(
                name=f"machine-{label}.port-{port}", path=(path or "/") + (query or ""), prefix=prefix
            )
    return Route(name="dashboard", path=target)


async def serve_pages(front: str, secret: str | Any, *, port: int = 0) -> Pages:
    """Serve a cluster's pages on this machine's loopback.

    Parameters
    ----------
    front
        `host:port` of the scheduler's front, or of a tunnel to it.
    secret
        The cluster's client secret (JSON), or a `distributed.Security`.
    port
        Where to serve; 0 means any.

    Raises
    ------
    OSError
        When the port is taken.
    """
    security = client_security(secret) if isinstance(secret, str) else secret
    pages = Pages(front, security.get_connection_args("client")["ssl_context"])
    pages.listen(port)
    return pages


class Pages:
    """A cluster's pages, served on loopback until `close`.

    Parameters
    ----------
    front
        `host:port` of the scheduler's front; may be changed while serving.
    context
        The client's side of mutual TLS.
    """

    def __init__(self, front: str, context: ssl.SSLContext) -> None:
        self.front = front
        self.port = 0
        self._context = context
        self._server = _Server(self, max_body_size=NO_LIMIT, chunk_size=CHUNK)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        """The root of all pages."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def link(self) -> str:
        """Where the user finds the dashboard, as `distributed.dashboard.link` says."""
        import dask.config

        template = str(dask.config.get("distributed.dashboard.link"))
        return template.format(**{**os.environ, "scheme": "http", "host": "127.0.0.1", "port": self.port})

    def listen(self, port: int) -> None:
        """Start to serve, in the running loop."""
        sockets = bind_sockets(port, address="127.0.0.1")
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop serving and end every connection."""
        self._server.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close_all_connections()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` beside the others, at most until `close`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(self, name: str) -> IOStream:
        """A TLS connection to the page of this name at the front."""
        host, _, port = self.front.rpartition(":")
        stream = await TCPClient().connect(host.strip("[]"), int(port), timeout=CONNECT_S)
        # Certificates carry no host names: whose a machine is, its cluster's own authority says.
        secured = stream.start_tls(False, ssl_options=self._context, server_hostname=name)
        return await asyncio.wait_for(secured, CONNECT_S)

    def foreign(self, method: str, headers: HTTPHeaders) -> str | None:
        """Why a request is not the user's own, or None when it is."""
        host = headers.get("Host", "")
        if not self._is_ours(host):
            return f"This server is not called {host!r}; set cloud.dashboard-hosts when it should be."
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"Pages of {origin} may not read or change what is here."
        site = headers.get("Sec-Fetch-Site", "none")
        navigates = method in {"GET", "HEAD"} and headers.get("Sec-Fetch-Mode") == "navigate"
        if site in {"cross-site", "same-site"} and not navigates:
            return "Pages of other sites may only link to what is here."
        return None

    def as_local(self, headers: HTTPHeaders) -> HTTPHeaders:
        """The headers of a request, as if the browser were here: Jupyter serves no other name."""
        if urlsplit(f"//{headers['Host']}").hostname in LOOPBACK:
            return headers
        local = headers.copy()
        local["Host"] = urlsplit(self.url).netloc
        if "Origin" in local:
            local["Origin"] = self.url
        return local

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname
        if name in LOOPBACK or "JUPYTERHUB_SERVICE_PREFIX" in os.environ:
            # On a hub the browser is elsewhere, and what reaches this port has passed the hub's log-in.
            return True
        return name in {urlsplit(self.link).hostname, *setting("dashboard-hosts", default=())} - {None}


class _Server(HTTPServer):
    """Gives each connection of a browser its own `_Visit`."""

    def initialize(self, pages: Pages, **options: Any) -> None:  # type: ignore[override]
        super().initialize(self, **options)  # its own delegate: see start_request
        self._pages = pages
        self._visits: dict[int, _Visit] = {}

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        visit = self._visits.setdefault(id(server_conn), _Visit(self._pages))
        return _Request(visit, request_conn)

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        if visit := self._visits.pop(id(server_conn), None):
            visit.end()


class _Visit:
    """One connection of a browser, and the connection to the front that belongs to it."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.requests = 0
        self._name = ""
        self._stream: IOStream | None = None

    async def connect(self, name: str) -> tuple[IOStream, bool]:
        """A connection to this page, and whether it has served before."""
        self.requests += 1
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.set_close_callback(None)
            if self._name == name and not stream.closed():
                return stream, True
            stream.close()
        self._name = name
        connecting = self.pages.spawn(self.pages.connect(name))
        await asyncio.wait({connecting})
        if connecting.cancelled():
            raise TimeoutError("closed")
        return connecting.result(), False

    def keep(self, stream: IOStream, browser: IOStream) -> None:
        """Keep a connection for the browser's next request; if it ends before, so does the browser's."""
        self._stream = stream
        stream.set_close_callback(browser.close)

    def end(self) -> None:
        """Close what is kept."""
        if self._stream is not None:
            self._stream.set_close_callback(None)
            self._stream.close()


class _Request(HTTPMessageDelegate):
    """One request of a browser, relayed as it comes."""

    def __init__(self, visit: _Visit, browser: HTTP1Connection) -> None:
        self._visit = visit
        self._browser = browser
        self._front: HTTP1Connection | None = None
        self._method = ""

    async def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        pages, self._method = self._visit.pages, start_line.method
        if reason := pages.foreign(self._method, headers):
            self._answer(403, "Forbidden", reason)
            return
        if "Transfer-Encoding" in headers and self._method not in {"POST", "PUT", "PATCH"}:
            self._answer(501, "Not Implemented", f"{self._method} takes no body in chunks.")
            return
        where = route(start_line.path)
        headers = pages.as_local(headers)
        try:
            stream, reused = await self._visit.connect(where.name)
        except (OSError, StreamClosedError, TimeoutError) as error:
            self._answer(502, "Bad Gateway", f"{where.name} at {pages.front} does not answer: {error}")
            return
        if headers.get("Upgrade", "").lower() == "websocket":
            self._hand_over(stream, where, headers)
        else:
            self._ask(stream, where, headers, reused=reused)

    def _hand_over(self, front: IOStream, where: Route, headers: HTTPHeaders) -> None:
        """Join both connections: a websocket is bytes in both directions, until either ends."""
        browser = self._browser.detach()
        lines = [f"GET {where.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.get_all())]
        head = "\r\n".join([*lines, "", ""]).encode("latin1")
        self._visit.pages.spawn(_both_ways(browser, front, head))

    def _ask(self, stream: IOStream, where: Route, headers: HTTPHeaders, *, reused: bool) -> None:
        parameters = HTTP1ConnectionParameters(chunk_size=CHUNK, max_body_size=NO_LIMIT)
        self._front = HTTP1Connection(stream, True, parameters)
        self._browser.set_close_callback(stream.close)
        first = RequestStartLine(self._method, where.path, "HTTP/1.1")
        self._front.write_headers(first, end_to_end(headers))
        self._visit.pages.spawn(self._relay(self._front, _Response(self._browser, where), reused=reused))

    async def _relay(self, front: HTTP1Connection, response: _Response, *, reused: bool) -> None:
        """Relay the answer, and keep the connection if there can be another request on it."""
        browser, number, stream = self._browser.stream, self._visit.requests, front.stream
        keep = False
        try:
            with contextlib.suppress(StreamClosedError):
                await front.read_response(response)
            keep = response.complete and not response.last and number == self._visit.requests
            keep = keep and not stream.closed() and not browser.closed()
        finally:
            if keep:
                self._visit.keep(stream, browser)
            else:
                stream.close()
        if response.complete or browser.closed():
            return
        if response.begun or reused:  # a browser asks again when a connection it had kept ends unanswered
            browser.close()
        else:
            self._answer(502, "Bad Gateway", "The cluster ended the connection without an answer.")

    def _answer(self, code: int, reason: str, text: str) -> None:
        """Answer the request ourselves."""
        body = f"{text}\n".encode()
        headers = HTTPHeaders({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
        with contextlib.suppress(StreamClosedError):
            first = ResponseStartLine("HTTP/1.1", code, reason)
            self._browser.write_headers(first, headers, None if self._method == "HEAD" else body)
            self._browser.finish()

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return _written(self._front, chunk) if self._front is not None else None

    def finish(self) -> None:
        if self._front is not None:
            self._front.finish()

    def on_connection_close(self) -> None:
        if self._front is not None:
            self._front.close()


class _Response(HTTPMessageDelegate):
    """The answer of the front, relayed as it comes."""

    def __init__(self, browser: HTTP1Connection, where: Route) -> None:
        self._browser = browser
        self._where = where
        self.begun = False
        self.complete = False
        self.last = False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        if start_line.code < 200:  # noqa: PLR2004  (1xx: the real answer follows)
            return
        self.begun = True
        self.last = headers.get("Connection", "").lower() == "close" or start_line.version != "HTTP/1.1"
        headers = end_to_end(headers)
        location = headers.get("Location", "")
        if location.startswith("/") and not location.startswith("//"):
            headers["Location"] = self._where.prefix + location
        first = ResponseStartLine("HTTP/1.1", start_line.code, start_line.reason)
        self._browser.write_headers(first, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None]:
        return _written(self._browser, chunk)

    def finish(self) -> None:
        if self.begun:
            self.complete = True
            with contextlib.suppress(StreamClosedError):
                self._browser.finish()


async def _written(connection: HTTP1Connection, chunk: bytes) -> None:
    """Write as fast as the other side reads; that it has gone is noticed elsewhere."""
    with contextlib.suppress(StreamClosedError):
        await connection.write(chunk)


async def _both_ways(browser: IOStream, front: IOStream, head: bytes) -> None:
    async def pump(source: IOStream, sink: IOStream) -> None:
        with contextlib.suppress(StreamClosedError):
            while True:
                await sink.write(await source.read_bytes(CHUNK, partial=True))

    async def upwards() -> None:
        with contextlib.suppress(StreamClosedError):
            await front.write(head)
        await pump(browser, front)

    directions = [asyncio.ensure_future(upwards()), asyncio.ensure_future(pump(front, browser))]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        browser.close()
        front.close()
        await asyncio.gather(*directions, return_exceptions=True)


def end_to_end(headers: HTTPHeaders) -> HTTPHeaders:
    """A copy of a message's headers without those that speak of one connection."""
    named = {name.strip().title() for name in headers.get("Connection", "").split(",")}
    kept = HTTPHeaders()
    for name, value in headers.get_all():
        if name.title() not in named and name not in HOP_BY_HOP:
            kept.add(name, value)
    return kept
