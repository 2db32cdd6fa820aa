"""The embedded Azure: Resource Manager with its compute and networks, as slow and as strict as Azure is.

https://learn.microsoft.com/rest/api/azure/ describes what all its operations have in common.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cloudprovider.emulator import azure_leftovers, azure_operations
from cloudprovider.emulator.azure_bills import minimum_s
from cloudprovider.emulator.azure_groups import TAGS, Groups
from cloudprovider.emulator.azure_imds import Metadata
from cloudprovider.emulator.azure_limits import Limits
from cloudprovider.emulator.azure_machines import Machines
from cloudprovider.emulator.azure_networks import Networks
from cloudprovider.emulator.azure_offers import Offers
from cloudprovider.emulator.azure_pending import Operations
from cloudprovider.emulator.azure_rights import Rights
from cloudprovider.emulator.azure_scalesets import ScaleSets
from cloudprovider.emulator.azure_services import AzureServices
from cloudprovider.emulator.azure_store import Store
from cloudprovider.emulator.azure_tls import identity
from cloudprovider.emulator.azure_wire import (
    CLIENT,
    SECRET,
    SUBSCRIPTION,
    TENANT,
    AzureError,
    Reply,
    Request,
    check_version,
    read,
    written,
)
from cloudprovider.emulator.records import Call
from cloudprovider.emulator.server import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_operations import Operation
    from cloudprovider.emulator.control import Action
    from cloudprovider.emulator.records import EmulatedMachine
    from cloudprovider.emulator.server import Answer, Aside

logger = logging.getLogger(__name__)

POLL = re.compile(
    r"/subscriptions/[^/]+(?:/providers/Microsoft\.(?P<service>\w+)/locations/[^/]+)?"
    r"/(?P<what>operations|operationresults)/(?P<id>[0-9a-f-]+)",
    re.IGNORECASE,
)
#: Where the serial console of a machine is read, as boot diagnostics say.
BLOB = re.compile(r"/bootdiagnostics/([^/]+)/([^/]+)\.serialconsole\.log\?sig=([^&]+)")
#: Where the person works, as `az config set defaults.location=` has it.
LOCATION = "westeurope"
TAGS_VERSION = "2025-04-01"
TAG_OPERATIONS = {
    "GET": "GetAtScope",
    "PUT": "CreateOrUpdateAtScope",
    "PATCH": "UpdateAtScope",
    "DELETE": "DeleteAtScope",
}


class Azure:
    """Answers the API of one subscription; see `cloudprovider.emulator.cloud.API`."""

    def __init__(self, account: Account) -> None:
        self.account = account
        account.ledger.minimum_s = minimum_s()
        self.tls = identity().context
        self.front = account.endpoint.replace("http:", "https:", 1)
        self.services = AzureServices(account, self.front)
        self.store = Store()
        self.services.has_group = lambda name: name.lower() in self.store.groups
        self.calls: list[Call] = self.services.calls
        self.actions: Mapping[tuple[str, str], Action] = {("POST", "logins"): self._login}
        self._pending = Operations(account, self.front)
        self._rights = Rights(account, self.services)
        self._limits = Limits(account)
        networks = Networks(account, self.store, self._pending, self._rights)
        offers = Offers(account, self.store)
        self._machines = Machines(self, networks, offers, self._pending, self._rights)
        scale_sets = ScaleSets(self._machines, self._pending)
        groups = Groups(account, self.store, self._pending, self._machines, self.services)
        self._tags = groups.tags
        self.asides: Mapping[str, Aside] = {
            "azure": Metadata(self._machines, self.services, self.front).answer
        }
        self._handlers: dict[str, Callable[[Request], Reply]] = {}
        for one in (groups, networks, offers, self._machines, scale_sets):
            self._handlers.update(one.handlers())
        self.registered = groups.registered

    # -- what the cloud is asked beside its API ------------------------------------------------------

    def warm(self) -> None:
        """Make the first calls as quick as the later ones."""
        azure_operations.operations()

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        bundle = str(identity().bundle(self.account.room.folder))
        return {
            "ARM_METADATA_HOSTNAME": self.front.removeprefix("https://"),
            "AZURE_AUTHORITY_HOST": self.front,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
            "AZURE_DEFAULTS_LOCATION": LOCATION,
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_TENANT_ID": TENANT,
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
        }

    def _login(self, rest: str, given: dict[str, Any]) -> Any:
        """Make an application that may do what roles allow, or let one do that; its credentials."""
        client, secret = str(uuid.uuid5(uuid.NAMESPACE_DNS, rest)), SECRET
        principal = self.services.directory.find(client) or self.services.directory.register(client, secret)
        roles = [json.loads(text) for text in given["policies"]]
        permissions = {
            kind: sorted({one for role in roles for one in role.get(kind, ())})
            for kind in ("Actions", "DataActions")
        }
        self.services.roles.login(principal.object_id, permissions)
        return {"AZURE_CLIENT_ID": client, "AZURE_CLIENT_SECRET": secret}

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the ones that ended a while ago included."""
        return self._machines.records()

    def leftovers(self) -> list[str]:
        """What the subscription has beside its landing."""
        return azure_leftovers.leftovers(self.store, self.services)

    def interrupt(self, id: str, **given: Any) -> None:
        """Take a spot machine back, with notice."""
        self._machines.life.interrupt(self._machines.named(id), **given)

    def kill(self, id: str) -> None:
        """Let a machine's host fail, without notice."""
        self._machines.life.kill(self._machines.named(id))

    def end(self) -> None:
        """End every machine, and let nothing happen later."""
        self.account.timers.close()
        self._machines.end()
        self.services.end()

    # -- its API -------------------------------------------------------------------------------------

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Answer one request, and remember it."""
        if answer := self._beside(method, path, headers, body):
            return answer
        start, error = time.time(), ""
        request = Request(method=method, path=path)
        try:
            request = read(method, path, headers, body, caller)
            reply = self._answered(request)
            return written(reply)
        except NoAnswer:
            error = "NoAnswer"
            raise
        except AzureError as refusal:
            error = refusal.code
            return written(Reply(body=refusal.document(), status=refusal.status, headers=refusal.headers))
        except Exception as bug:
            logger.exception("The emulated cloud failed at %s %s", request.service, request.operation)
            error = "EmulatorBug"
            return written(Reply(body=AzureError(500, error, repr(bug)).document(), status=500))
        finally:
            call = Call(
                service=request.service,
                operation=request.operation,
                start=start,
                end=time.time(),
                error=error,
                **self.services.roles.recorder.told(),
            )
            self.calls.append(call)

    def _beside(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """What is no call of Resource Manager: sign-in, vaults, and the endpoints of this cloud."""
        if path.partition("?")[0].rstrip("/") == "/metadata/endpoints":
            return written(Reply(body=self._endpoints()))
        if found := BLOB.match(path):
            return self._console(*(unquote(part) for part in found.groups()))
        return self.services.login(method, path, headers, body)

    def _console(self, group: str, name: str, signature: str) -> Answer:
        """What a machine's serial console said, which goes with the machine."""
        try:
            text = self._machines.console(group, name, signature)
        except LookupError:
            return 404, {"Content-Type": "text/plain"}, b""
        return (200 if text is not None else 403), {"Content-Type": "text/plain"}, (text or "").encode()

    def _endpoints(self) -> dict[str, Any]:
        """The endpoints of a cloud, as `ARM_METADATA_HOSTNAME` names where they are told.

        https://github.com/hashicorp/go-azure-sdk/blob/main/sdk/environments/from_endpoint.go
        """
        return {
            "name": "EmbeddedAzure",
            "resourceManager": f"{self.front}/",
            "authentication": {
                "loginEndpoint": self.front,
                "audiences": [f"{self.front}/", self.front],
                "tenant": "common",
                "identityProvider": "AAD",
            },
        }

    def _answered(self, request: Request) -> Reply:
        caller = self._rights.authenticated(request).object_id
        if poll := POLL.fullmatch(request.path):
            return self._polled(request, poll, caller)
        handler, operation = self.services.handler(request), None
        if handler is None and request.path.lower().endswith(TAGS):
            request.service, request.operation = "resources", f"Tags.{TAG_OPERATIONS[request.method]}"
            check_version(request, TAGS_VERSION)
            self._rights.require(request)
        elif handler is None:
            operation = self._routed(request)
        self._wait(request)
        with self.account.lock:
            location = self._location(request)
        self._refused(request)
        remaining = self._limits.take(request, location, caller)
        faults = self.account.faults
        after = faults.hit("error-after-effect", request)
        lost = faults.hit("lost-answer", request)
        with self.account.lock:
            if handler is not None:
                status, document = handler(request)
                reply = Reply(body=document, status=status)
            else:
                reply = self._acted(request, operation)
        if after:
            raise AzureError(500, "InternalServerError", "The server encountered an internal error.")
        if lost:
            raise NoAnswer
        return Reply(body=reply.body, status=reply.status, headers={**remaining, **reply.headers})

    def _routed(self, request: Request) -> Operation:
        """The operation that a request is, of those that Azure's SDK knows."""
        found = azure_operations.find(request.method, request.path)
        if found is None:
            raise unknown(request)
        operation, names = found
        request.service, request.operation, request.names = operation.service, operation.name, names
        check_version(request, operation.version)
        if (asked := names.get("subscription_id", SUBSCRIPTION)) != SUBSCRIPTION:
            text = f"The subscription '{asked}' could not be found."
            raise AzureError(404, "SubscriptionNotFound", text)
        return operation

    def _polled(self, request: Request, poll: re.Match[str], caller: str) -> Reply:
        request.service = (poll["service"] or "resources").lower()
        request.operation = "Operations.Get"
        self._wait(request)
        self._refused(request)
        self._rights.require(request)
        remaining = self._limits.take(request, "", caller)
        with self.account.lock:
            done = poll["what"].lower() == "operationresults"
            reply = self._pending.result(poll["id"]) if done else self._pending.status(poll["id"])
        return Reply(body=reply.body, status=reply.status, headers={**remaining, **reply.headers})

    def _wait(self, request: Request) -> None:
        profile = self.account.profile
        latency_s = profile.latencies.get(f"{request.service}:{request.operation}", profile.latency_s)
        time.sleep(latency_s * self.account.timers.scale)

    def _refused(self, request: Request) -> None:
        """Raise what a call is refused with by fault, before it has any effect."""
        faults = self.account.faults
        if faults.hit("expired-credentials", request):
            text = "The access token expiry UTC time is earlier than current UTC time."
            raise AzureError(401, "ExpiredAuthenticationToken", text)
        self._rights.refuse(request)
        if faults.hit("throttle", request):
            raise self._limits.throttled(request)
        if fault := faults.hit("error", request):
            raise AzureError(fault.status, fault.code or "InternalServerError", fault.message)

    def _location(self, request: Request) -> str:
        """Where what a call is about is: rates are of each region."""
        if found := self.store.find(request.path):
            return found.location
        body = request.body if isinstance(request.body, dict) else {}
        return str(body.get("location") or request.names.get("location", ""))

    def _acted(self, request: Request, operation: Operation | None) -> Reply:
        if operation is None:
            return self._tags(request)
        self._rights.require(request)
        if request.service in ("compute", "network") and request.service not in self.registered:
            raise unregistered(request.service)
        if (group := request.names.get("resource_group_name")) and request.service != "resources":
            self.store.group(group)
        handler = self._handlers.get(operation.name)
        if handler is None:
            text = f"The emulated Azure has no {operation.service}:{operation.name}."
            raise AzureError(501, "NotImplemented", text)
        azure_operations.check(operation, request.body)
        reply = handler(request)
        azure_operations.check_answer(operation, reply)
        return reply


def unknown(request: Request) -> AzureError:
    """What is said of a path that no operation has."""
    namespace, _, kind = request.id.type.partition("/")
    if not namespace:
        return AzureError(404, "NotFound", f"No HTTP resource was found that matches '{request.path}'.")
    text = f"The resource type '{kind}' could not be found in the namespace '{namespace}'."
    return AzureError(404, "InvalidResourceType", f"{text} It has no {request.method} there.")


def unregistered(service: str) -> AzureError:
    """What is said when the subscription does not use a provider yet.

    https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-register-resource-provider
    """
    return AzureError(
        409,
        "MissingSubscriptionRegistration",
        f"The subscription is not registered to use namespace 'Microsoft.{service.capitalize()}'. See "
        "https://aka.ms/rps-not-found for how to register subscriptions.",
    )
