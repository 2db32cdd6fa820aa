"""Where machines in networks of their own find what a cloud answers them: metadata, and its API.

Each is known by the address that it asks from, as on the real services' link-local addresses.
"""

from __future__ import annotations

import re
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2 as routes
from cloudprovider.emulator.server import Handler, NoAnswer
from cloudprovider.emulator.wire import CREDENTIAL

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.cloud import API
    from cloudprovider.emulator.firewall import Port
    from cloudprovider.emulator.server import Server

__all__ = ["Door", "at_api", "at_instance", "at_task"]

Answer = tuple[int, dict[str, str], bytes]
NOT_FOUND: Answer = (404, {"Content-Type": "text/plain"}, b"404 - Not Found")
#: The paths of the tasks' service, and what they are here.
TASK_PATHS = {"/v4/": "/_cloud/ecs/v4/", "/v2/credentials/": "/_cloud/ecs/credentials/"}


class Door(ThreadingHTTPServer):
    """Answers machines on a socket that somebody else has bound, at the clock of the server behind it."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, behind: Server, respond: Callable[..., Answer]) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.behind, self.respond = behind, respond
        threading.Thread(target=self.serve_forever, args=(0.2,), name="door", daemon=True).start()

    @property
    def cloud(self) -> API | None:
        """The cloud that answers."""
        return self.behind.cloud

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As the server behind it does."""
        self.behind.handle_error(request, client_address)

    def end(self) -> None:
        """Answer no more."""
        self.shutdown()
        self.server_close()


def at_instance(server: Server, owner: Callable[[str], str]) -> Callable[..., Answer]:
    """What answers at the instances' metadata service; tasks of Fargate have none."""

    def respond(method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        machine = owner(caller)
        if not machine.startswith("i-"):
            return NOT_FOUND
        return server.respond(method, f"/_cloud/imds/{machine}{path}", headers, body, caller)

    return respond


def at_task(server: Server, owner: Callable[[str], str]) -> Callable[..., Answer]:
    """What answers at the tasks' metadata service: to each what is its own."""

    def respond(method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        machine = owner(caller)
        for prefix, here in TASK_PATHS.items():
            rest = path.removeprefix(prefix)
            if rest != path and machine and re.split("[-/]", rest)[0] == machine:
                return server.respond(method, here + rest, headers, body, caller)
        return NOT_FOUND

    return respond


def at_api(server: Server, ec2: Any, find: Callable[[str], tuple[Port, str] | None]) -> Callable[..., Answer]:
    """What answers at the API's address: all services by a way out, else those with an endpoint in the VPC."""

    def respond(method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        if (found := find(caller)) is None:
            raise NoAnswer
        port, subnet = found
        if not port.seen_as and not routes.has_way_out(ec2, subnet, public=False):
            signed = CREDENTIAL.search(headers.get("Authorization", ""))
            if not signed or signed.group(3) not in routes.endpoints(ec2, subnet):
                raise NoAnswer
        return server.respond(method, path, headers, body, port.seen_as or caller)

    return respond
