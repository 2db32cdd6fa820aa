"""What stands before the services of an embedded cloud when they are tested without its machines."""

from __future__ import annotations

import contextlib
import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import azure_tls, azure_wire, gcp_wire, profiles
from cloudprovider.emulator.account import Account
from cloudprovider.emulator.azure_services import AzureServices
from cloudprovider.emulator.faults import Faults
from cloudprovider.emulator.gcp_services import GCPServices
from cloudprovider.emulator.ledger import Ledger
from cloudprovider.emulator.network import connect
from cloudprovider.emulator.server import Server
from cloudprovider.emulator.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterator


class Front:
    """Answers what `respond` says, and keeps the account."""

    asides: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    actions: dict[Any, Any] = {}  # noqa: RUF012
    tls: Any = None

    def __init__(self, network: Any, endpoint: str) -> None:
        self.account = Account(
            profile=profiles.profile("instant", {}),
            timers=Timers(1.0),
            faults=Faults(),
            ledger=Ledger(),
            room=None,
            images=None,
            network=network,
            endpoint=endpoint,
        )
        self.url = endpoint

    def inject(self, kind: str, **figures: Any) -> Any:
        """Make something go wrong."""
        return self.account.faults.add(kind=kind, **figures)


class GCPFront(Front):
    """The services beside Compute Engine."""

    def __init__(self, network: Any, endpoint: str) -> None:
        super().__init__(network, endpoint)
        self.services = GCPServices(self.account)

    def respond(self, method: str, path: str, headers: Any, body: bytes, caller: str) -> Any:
        """Answer one request; an answer that Google's description does not allow is a server error."""
        if path == "/token":
            return self.services.tokens.answer(body)
        try:
            request = gcp_wire.read(method, path, headers, body)
            self.services.check(request)
            gcp_wire.check(request)
            handler = self.services.handler(request)
            assert handler is not None, request.method.id
            status, document = 200, handler(request)
            if wrong := request.method.answer_problems(document):
                status, document = 500, {"error": {"message": str(wrong[0])}}
        except gcp_wire.GCPError as error:
            status, document = error.status, error.document()
        return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


class AzureFront(Front):
    """The services beside Azure's compute and network, with two resource groups."""

    def __init__(self, network: Any, endpoint: str) -> None:
        super().__init__(network, endpoint)
        self.tls = azure_tls.identity().context
        self.url = endpoint.replace("http:", "https:")
        self.services = AzureServices(self.account, self.url)
        self.services.has_group = {"one", "two"}.__contains__

    def respond(self, method: str, path: str, headers: Any, body: bytes, caller: str) -> Any:
        """Answer one request."""
        if answer := self.services.login(method, path, headers, body):
            return answer
        try:
            request = azure_wire.read(method, path, headers, body, caller)
            handler = self.services.handler(request)
            assert handler is not None, path
            with self.account.lock:
                status, document = handler(request)
            return azure_wire.written(azure_wire.Reply(body=document, status=status))
        except azure_wire.AzureError as error:
            reply = azure_wire.Reply(body=error.document(), status=error.status, headers=error.headers)
            return azure_wire.written(reply)


@contextlib.contextmanager
def served(kind: type[Front]) -> Iterator[Any]:
    """A front that answers until the block is over."""
    network = connect("loopback")
    server = Server(network.listen(0))
    front = kind(network, server.url)
    server.serve(front, SimpleNamespace())  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        front.account.timers.close()
        if isinstance(front, AzureFront):
            front.services.end()
        network.close()
