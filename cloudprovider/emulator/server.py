"""The process that is an emulated cloud: its API and, under `/_cloud/`, what only an emulator can tell.

GET    /_cloud/address              the caller's address
GET    /_cloud/environ              what a process needs in its environment to use it
GET    /_cloud/calls|machines|ledger|leftovers
GET    /_cloud/faults               what goes wrong now
POST   /_cloud/faults               make something go wrong
DELETE /_cloud/faults[/ID]          let it be over
POST   /_cloud/machines/ID/interrupt|kill
POST   /_cloud/images               add an image
POST   /_cloud/reset                forget everything, with another profile or other figures if given
GET    /_cloud/ecs/v4/ID[/task]     a machine's metadata service
GET    /_cloud/ecs/credentials/ID   the credentials of its task role
GET    /_cloud/imds/ID/latest/...   the metadata service of an EC2 instance, with PUT for its tokens
GET    /_cloud/gce/ID/...           the metadata service of a GCE instance, also at computeMetadata/v1
GET    /_cloud/azure/ID/...         the metadata service of an Azure machine
GET    /v2/NAME/manifests/TAG       the registry of the images
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cloudprovider.emulator.cloud import API
    from cloudprovider.emulator.control import Control

logger = logging.getLogger(__name__)

#: Status, headers and body.
Answer = tuple[int, dict[str, str], bytes]
#: Answers a method, the rest of a path with its query, headers and a body.
Aside = Callable[[str, str, Mapping[str, str], bytes], Answer]

TLS_HANDSHAKE = b"\x16"  # the first byte of a connection by HTTPS

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class NoAnswer(Exception):  # noqa: N818  (it is an order, not an error)
    """The connection is to be closed without an answer."""


class Handler(BaseHTTPRequestHandler):
    """One connection; it stays open for many requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def setup(self) -> None:
        """Find out whether this is HTTPS, which some clouds also answer at the same port."""
        self._accepted = self.request
        tls = self.server.cloud.tls if self.server.cloud else None
        if tls and self.request.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
            self.request = tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        """Close what `setup` has wrapped: the server knows only what is within."""
        super().finish()
        if self.request is not self._accepted:
            self.request.close()

    def _answer(self) -> None:
        try:
            body = self._body()
            status, headers, content = self.server.respond(
                self.command, self.path, dict(self.headers.items()), body, self.client_address[0]
            )
        except NoAnswer:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().partition(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The time by the cloud's clock."""
        cloud = self.server.cloud
        ahead_s = cloud.account.faults.ahead_s if cloud else 0.0
        return super().date_time_string((time.time() if timestamp is None else timestamp) + ahead_s)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `calls` is the log."""

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer  # noqa: N815  (http.server's names)


class Server(ThreadingHTTPServer):
    """Answers on a socket that somebody has bound: passes each request to who answers it."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.cloud: API | None = None
        self.control: Control | None = None

    def serve(self, cloud: API, control: Control) -> None:
        """Let these answer."""
        self.cloud, self.control = cloud, control

    @property
    def url(self) -> str:
        """Base address."""
        return "http://{}:{}".format(*self.server_address[:2])

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Status, headers and body of an answer."""
        if self.cloud is None or self.control is None:
            return 503, {}, b""
        route = urlsplit(path).path
        if route == "/v2/" or "/manifests/" in route:
            found = self.control.registry(route)
            return (200 if found else 404), {"Content-Type": "application/json"}, found or b""
        if route.startswith("/_cloud/"):
            service, _, rest = path.removeprefix("/_cloud/").partition("/")
            if aside := self.cloud.asides.get(service):
                return aside(method, rest, headers, body)
            return self._controlled(self.control, method, route, body, caller)
        return self.cloud.respond(method, path, headers, body, caller)

    @staticmethod
    def _controlled(control: Control, method: str, route: str, body: bytes, caller: str) -> Answer:
        try:
            document = control.answer(method, route.removeprefix("/_cloud/"), body, caller)
        except (KeyError, LookupError) as error:
            return 404, {"Content-Type": "text/plain"}, str(error.args[0] if error.args else error).encode()
        except (ValueError, TypeError) as error:
            return 400, {"Content-Type": "text/plain"}, str(error).encode()
        except Exception as error:
            logger.exception("The emulated cloud failed at %s %s", method, route)
            return 500, {"Content-Type": "text/plain"}, repr(error).encode()
        if isinstance(document, str):
            return 200, {"Content-Type": "text/plain; charset=utf-8"}, document.encode()
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection; that a caller hangs up is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            logger.error("The connection of %s (%s) ended", client_address, request, exc_info=sys.exception())

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self.serve_forever, args=(0.05,), name="api", daemon=True).start()
