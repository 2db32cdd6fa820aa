"""What the networks of Google Cloud and Azure offer one machine, over loopback HTTP: who it is, tokens, its secret, its end."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
PROJECT, ZONE = "a-project-1", "europe-west1-b"
EMAIL = f"dask-machine@{PROJECT}.iam.gserviceaccount.com"
GROUP = "/subscriptions/9f2c/resourceGroups/dask-westeurope"


class MachineService:
    """A loopback server of one machine.

    Attributes
    ----------
    id, address
        The machine's.
    secrets
        What is stored, by name.
    tokens
        Tokens that were handed out, and what for.
    refusals
        What the cloud's API answers before it answers rightly: status and message.
    asked
        What was asked, in order: method and path.
    deleted
        Called when the machine is deleted, if it is to end.
    """

    def __init__(self, id: str, address: str) -> None:
        self.id = id
        self.address = address
        self.secrets: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.refusals: list[tuple[int, str]] = []
        self.asked: list[str] = []
        self.deleted: Callable[[], None] = lambda: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.place = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """What the machine's programs are told."""
        raise NotImplementedError

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Any:
        """Status, and text or a document; a third says headers."""
        raise NotImplementedError

    def times(self, what: str) -> int:
        """How often something was asked whose method and path contain a text."""
        return sum(what in one for one in self.asked)

    def _token(self, audience: str) -> dict[str, Any]:
        token = secrets.token_hex(8)
        self.tokens[token] = audience
        return {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def _bearer(self, headers: Any) -> str:
        """What the token of a request is for; empty when it has none of ours."""
        return self.tokens.get(str(headers["Authorization"]).removeprefix("Bearer "), "")

    def _end(self) -> None:
        """Delete the machine, some time after the answer."""
        timer = threading.Timer(0.1, self.deleted)
        timer.daemon = True
        timer.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                service.asked.append(f"{self.command} {parts.path}")
                status, said, *more = service.answer(self.command, parts.path, query, self.headers, body)
                data = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_DELETE = do_PATCH = do_POST = do_GET  # noqa: N815  (as the base class names them)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class GCEService(MachineService):
    """Compute Engine's metadata service, Compute Engine itself, and Secret Manager."""

    def __init__(self, id: str = "dask-it-w-abc123", address: str = "127.0.0.1") -> None:
        super().__init__(id, address)
        self.data = {
            "instance/name": id,
            "instance/zone": f"projects/1234567890/zones/{ZONE}",
            "instance/network-interfaces/0/ip": address,
            "instance/service-accounts/default/email": EMAIL,
            "instance/preempted": "FALSE",
            "instance/maintenance-event": "NONE",
            "project/project-id": PROJECT,
        }

    @property
    def environ(self) -> dict[str, str]:
        """What the machine's programs are told."""
        return {
            "GCE_METADATA_HOST": self.place,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"http://{self.place}/compute/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"http://{self.place}/",
        }

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Any:
        """As Google's services do."""
        if path.startswith("/computeMetadata/v1/"):
            if headers["Metadata-Flavor"] != "Google":
                return 403, "Missing Metadata-Flavor:Google header."
            return self._metadata(path.removeprefix("/computeMetadata/v1/"))
        if self._bearer(headers) != "google":
            return _google(401, "Request had invalid authentication credentials.")
        if self.refusals:
            return _google(*self.refusals.pop(0))
        return self._api(method, path)

    def _metadata(self, name: str) -> Any:
        if name == "instance/service-accounts/default/token":
            return 200, self._token("google")
        return (200, self.data[name]) if name in self.data else (404, "Not Found")

    def _api(self, method: str, path: str) -> Any:
        if method == "GET" and (match := re.fullmatch(r"/v1/(.+)/versions/latest:access", path)):
            if match[1] not in self.secrets:
                return _google(404, f"Secret [{match[1]}] not found or has no versions.")
            data = base64.b64encode(self.secrets[match[1]].encode()).decode()
            return 200, {"name": f"{match[1]}/versions/1", "payload": {"data": data}}
        if (method, path) == ("DELETE", f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{self.id}"):
            self._end()
            return 200, {"kind": "compute#operation", "status": "RUNNING"}
        return _google(404, f"no {path}")


class AzureService(MachineService):
    """Azure's instance metadata service, its resource manager, and a key vault."""

    def __init__(self, id: str = "dask-it-w-abc_12345678", address: str = "127.0.0.1") -> None:
        super().__init__(id, address)
        self.resource = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{id}"
        self.events: list[dict[str, Any]] = []
        self.tags: dict[str, str] = {}

    @property
    def environ(self) -> dict[str, str]:
        """What the machine's programs are told."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": f"http://{self.place}/imds"}

    @property
    def manager(self) -> str:
        """Where its resource manager is."""
        return f"http://{self.place}"

    def announce(self, kind: str, within_s: float, resources: list[str] | None = None, **more: str) -> str:
        """Announce an event; its id."""
        event = {
            "EventId": secrets.token_hex(8),
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": resources or [self.id],
            "EventStatus": "Scheduled",
            "NotBefore": formatdate(time.time() + within_s, usegmt=True),
            "EventSource": "Platform",
        }
        self.events.append({**event, **more})
        return str(event["EventId"])

    def answer(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Any:
        """As Azure's services do."""
        if path.startswith("/imds/metadata/"):
            if headers["Metadata"] != "true" or "api-version" not in query:
                return 400, {"error": "Bad request. Required metadata header or api-version not specified"}
            return self._metadata(method, path.removeprefix("/imds/metadata/"), query, body)
        if path.startswith("/secrets/"):
            return self._vault(path.removeprefix("/secrets/"), headers)
        if self._bearer(headers) != f"{self.manager}/":
            return _azure(401, "AuthenticationFailed")
        return self._manage(method, path, query, body)

    def _manage(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        if method == "PATCH" and path == f"{self.resource}/providers/Microsoft.Resources/tags/default":
            self.tags |= json.loads(body)["properties"]["tags"]
            return 200, {}
        if self.refusals:
            return _azure(*self.refusals.pop(0))
        if (method, path, query.get("forceDeletion")) == ("DELETE", self.resource, "true"):
            self._end()
            return 202, ""
        return _azure(404, f"no {path}")

    def _metadata(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        if path == "scheduledevents":
            return self._scheduled(method, body)
        if path == "identity/oauth2/token":
            if query.get("client_id", CLIENT_ID) != CLIENT_ID:
                return 400, {"error": "invalid_request", "error_description": "Identity not found"}
            return 200, self._token(query["resource"])
        if path == "instance/compute/resourceId" and query["format"] == "text":
            return 200, self.resource
        if path == "instance":
            interface = {"ipv4": {"ipAddress": [{"privateIpAddress": self.address, "publicIpAddress": ""}]}}
            return 200, {
                "compute": {"name": self.id, "resourceId": self.resource},
                "network": {"interface": [interface]},
            }
        return 404, {"error": "Not found"}

    def _scheduled(self, method: str, body: bytes) -> Any:
        if method == "GET":
            return 200, {"DocumentIncarnation": 1, "Events": self.events}
        started = {one["EventId"] for one in json.loads(body)["StartRequests"]}
        self.events = [one for one in self.events if one["EventId"] not in started]
        return 200, ""

    def _vault(self, name: str, headers: Any) -> Any:
        if self._bearer(headers) != "https://vault.azure.net":
            challenge = 'Bearer authorization="https://login.microsoftonline.com/x", resource="https://vault.azure.net"'
            return *_azure(401, "AKV10000: Request is missing a Bearer or PoP token."), {
                "WWW-Authenticate": challenge
            }
        if self.refusals:
            return _azure(*self.refusals.pop(0))
        if name not in self.secrets:
            return _azure(404, f"A secret with (name/id) {name} was not found in this key vault.")
        return 200, {"value": self.secrets[name], "id": f"https://v/secrets/{name}/1"}


def _google(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "message": message}}


def _azure(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": "Said", "message": message}}
