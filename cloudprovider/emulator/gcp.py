"""The embedded Google Cloud: Compute Engine and the services beside it, as slow and as strict as Google's are."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gce_request, gcp_fields, gcp_wire
from cloudprovider.emulator.gce import Compute
from cloudprovider.emulator.gce_guests import overrides
from cloudprovider.emulator.gce_permissions import VERBS
from cloudprovider.emulator.gcp_leftovers import leftovers
from cloudprovider.emulator.gcp_services import GCPServices
from cloudprovider.emulator.gcp_wire import NUMBER, PROJECT, UNIVERSE, GCPError
from cloudprovider.emulator.profiles import Bucket
from cloudprovider.emulator.records import Call, EmulatedMachine
from cloudprovider.emulator.server import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.control import Action
    from cloudprovider.emulator.gce_machine import LiveInstance
    from cloudprovider.emulator.gcp_wire import Request
    from cloudprovider.emulator.server import Answer, Aside

logger = logging.getLogger(__name__)

REGION = "us-central1"
#: Each service at a path of its own, but Compute Engine, whose path has its name.
SERVICES = ("cloudresourcemanager", "iam", "logging", "secretmanager", "serviceusage")
JSON = {"Content-Type": "application/json; charset=UTF-8"}


class GCP:
    """Answers the API of one project; see `cloudprovider.emulator.cloud.API`."""

    tls = None

    def __init__(self, account: Account) -> None:
        self.account = account
        self.services = GCPServices(account)
        self.compute = Compute(account, self.services)
        self.calls: list[Call] = []
        self.asides: Mapping[str, Aside] = {"gce": self.compute.metadata.answer}
        self.actions: Mapping[tuple[str, str], Action] = {
            ("POST", "services"): self._disable,
            ("POST", "logins"): self._login,
        }
        self._buckets: dict[tuple[str, str], Bucket] = {}
        key = account.room.folder / "person.json"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_text(json.dumps(self.services.tokens.key_file()), encoding="utf-8")
        self._key = key

    def warm(self) -> None:
        """Make the first calls as quick as the later ones."""
        for path in ("/compute/v1/projects/p", "/secretmanager/v1/projects/p/secrets"):
            self._read("GET", path, {}, b"")

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._key),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_CLOUD_UNIVERSE_DOMAIN": UNIVERSE,
            "CLOUDSDK_COMPUTE_REGION": REGION,
            "CLOUDSDK_CONFIG": str(self._key.parent / "gcloud"),
            "NO_GCE_CHECK": "true",
            **overrides(self.account.endpoint),
        }

    # -- what it is asked ----------------------------------------------------------------------------

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Answer one request, and remember it."""
        del caller
        start = time.time()
        service, operation, error = "unknown", path.partition("?")[0], ""
        try:
            if path == "/token":
                service, operation = "oauth2", "token"
                return self.services.tokens.answer(body)
            request = self._read(method, path, headers, body)
            service, operation = request.service, request.operation
            self._wait(request)
            lowered = {name.lower(): value for name, value in headers.items()}
            return self._answered(request, lowered.get(gcp_fields.HEADER, ""))
        except NoAnswer:
            error = "NoAnswer"
            raise
        except GCPError as refusal:
            error = refusal.reason or refusal.code
            return _refusal(refusal)
        except NotImplementedError:
            error = "NotImplemented"
            message = f"The emulated Google Cloud has no {service}:{operation}."
            return _refusal(GCPError(501, message, reason="notImplemented"))
        except Exception as bug:
            logger.exception("The emulated cloud failed at %s:%s", service, operation)
            error = "EmulatorBug"
            return _refusal(GCPError(500, repr(bug), reason="backendError"))
        finally:
            needs = self.services.recorder.told()
            self.calls.append(
                Call(service=service, operation=operation, start=start, end=time.time(), error=error, **needs)
            )

    @staticmethod
    def _read(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
        first, _, rest = path.lstrip("/").partition("/")
        if first in SERVICES:
            # Each project's policy is Resource Manager's and Identity and Access Management's alike.
            return gcp_wire.read(method, f"/{rest}", headers, body, (first,))
        return gcp_wire.read(method, path, headers, body, ("compute",))

    def _wait(self, request: Request) -> None:
        profile = self.account.profile
        name = f"{request.service}:{request.operation}"
        time.sleep(profile.latencies.get(name, profile.latency_s) * self.account.timers.scale)

    def _answered(self, request: Request, fields: str) -> Answer:
        faults = self.account.faults
        self._refuse_by_faults(request)
        (gce_request if request.service == "compute" else gcp_wire).check(request)
        principal = self.services.check(request)
        if not self._in_time(request):
            raise _too_many(request)
        after = faults.hit("error-after-effect", request)
        lost = faults.hit("lost-answer", request)
        if request.service == "compute":
            document = self.compute.answer(gce_request.Call.of(request, principal))
        else:
            handler = self.services.handler(request)
            if handler is None:
                raise NotImplementedError
            with self.account.lock:
                document = handler(request)
        if after:
            raise GCPError(503, "Internal error. Please try again or contact Google Support.", reason="backendError")  # fmt: skip
        if lost:
            raise NoAnswer
        return self._checked(request, document, fields or request.asked("fields"))

    def _refuse_by_faults(self, request: Request) -> None:
        faults = self.account.faults
        if faults.hit("expired-credentials", request):
            raise GCPError(401, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.", reason="authError")  # fmt: skip
        if request.service == "compute" and faults.hit("denied", request):  # the others name what is denied
            raise _denied(request)
        if faults.hit("throttle", request):
            raise _too_many(request)
        if fault := faults.hit("error", request):
            reason = fault.code or "backendError"
            raise GCPError(fault.status, fault.message or "Backend Error", reason=reason)

    def _in_time(self, request: Request) -> bool:
        """Whether the rates of the profile leave room for a call, in its region."""
        zone = request.arguments.get("zone", "")
        region = request.arguments.get("region") or zone.rpartition("-")[0]
        name, scale = f"{request.service}:{request.operation}", self.account.timers.scale
        return all(
            self._buckets.setdefault((region, key), Bucket(rate, scale)).take()
            for key, rate in self.account.profile.rates(name)
        )

    @staticmethod
    def _checked(request: Request, document: Any, fields: str) -> Answer:
        document = {} if document is None else document
        if found := request.method.answer_problems(document):
            name = f"{request.service}:{request.operation}"
            raise ValueError(f"The answer to {name} is not what Google describes: {found[0]}")
        try:
            told = gcp_fields.chosen(document, fields) if fields else document
        except gcp_fields.FieldsError as error:
            raise GCPError(
                400, f"Invalid field selection {fields}: {error}.", reason="invalidParameter"
            ) from error
        return 200, JSON, json.dumps(told).encode()

    # -- what it tells beside ------------------------------------------------------------------------

    def _disable(self, rest: str, _: dict[str, Any]) -> Any:
        """Let an API be one that the project has not enabled."""
        self.services.disable(f"{rest}.googleapis.com")
        return {}

    def _login(self, rest: str, given: dict[str, Any]) -> Any:
        """Make a service account that has the permissions of roles, or give one those; what names its key."""
        email = self.services.iam.login(rest, [json.loads(role) for role in given["policies"]])
        file = self._key.with_name(f"{rest}.json")
        if not self.services.tokens.key_ids(email):
            file.touch(mode=0o600)
            file.write_text(json.dumps(self.services.tokens.shared_key(email)), encoding="utf-8")
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the ones that ended a while ago included."""
        return [_machine(one) for one in self.compute.instances.remembered()]

    def leftovers(self) -> list[str]:
        """What the project has beside its landing."""
        return leftovers(self)

    def interrupt(self, id: str, **given: Any) -> None:
        """Take a Spot VM back, with notice."""
        if given:
            raise ValueError("Compute Engine has no notice of less than a preemption.")
        self.compute.life.interrupt(self.compute.instances.named(id))

    def kill(self, id: str) -> None:
        """Let the computer under a machine fail, without notice."""
        self.compute.life.kill(self.compute.instances.named(id))

    def end(self) -> None:
        """End every machine, and let nothing happen later."""
        self.account.timers.close()
        self.compute.life.end(self.compute.instances.all())


def _machine(one: LiveInstance) -> EmulatedMachine:
    pids = one.guest.pids if one.guest is not None else []
    image = one.order.disks[0].image or {}
    return EmulatedMachine(
        id=one.id,
        state=one.state,
        kind=one.type,
        market=one.market,
        zone=one.zone,
        image=str(image.get("name", "")),
        address=one.address,
        pid=pids[0] if pids else None,
        reason=one.reason,
        tags=dict(one.labels),
    )


def _refusal(error: GCPError) -> Answer:
    # https://cloud.google.com/apis/design/errors#handling_errors
    wait = {"Retry-After": "1"} if error.status == 429 else {}  # noqa: PLR2004
    return error.status, {**JSON, **wait}, json.dumps(error.document()).encode()


def _too_many(request: Request) -> GCPError:
    """https://cloud.google.com/compute/docs/api-rate-limits: compute refuses with 403, the others with 429."""
    service = f"{request.service}.googleapis.com"
    message = (
        f"Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service '{service}' for "
        f"consumer 'project_number:{NUMBER}'."
    )
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "RATE_LIMIT_EXCEEDED",
        "domain": "googleapis.com",
        "metadata": {"service": service, "consumer": f"projects/{NUMBER}"},
    }
    status = 403 if request.service == "compute" else 429
    return GCPError(status, message, reason="rateLimitExceeded", details=[detail])


def _denied(request: Request) -> GCPError:
    collection, _, verb = request.operation.partition(".")
    permission = f"{request.service}.{collection}.{VERBS.get(verb, verb)}"
    resource = "/".join(f"{key}s/{value}" for key, value in request.arguments.items())
    return GCPError(403, f"Required '{permission}' permission for '{resource}'", reason="forbidden")
