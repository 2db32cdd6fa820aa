"""What every Google Cloud provider needs: credentials, one client a service, operations, and errors in one place."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import sys
import threading
import time
import uuid
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

__all__ = ["GCP", "OperationError", "because", "code", "translate"]

#: Seconds by which two clocks may seem to differ that are the same: an answer's date has whole ones.
SAME_CLOCK_S = 5.0
#: Of the caller: what it may do then is what its roles say.
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: Seconds that a call is tried again for, and that one answer may take; an operation is waited for two minutes.
# https://cloud.google.com/compute/docs/reference/rest/v1/zoneOperations/wait
RETRY_S, ANSWER_S, WAIT_S = 90.0, 60.0, 150.0
#: The least pause between two waits for an operation: a busy server answers at once that it is not done.
PAUSE_S = 0.5
#: The longest pause that we make because a server asks for it.
LONGEST_PAUSE_S = 60.0
WIDTH = 32

#: Where each service is, and how its endpoint is set: gcloud's property `api_endpoint_overrides/<service>`.
# https://cloud.google.com/sdk/gcloud/reference/topic/configurations
VERSIONS = {
    "cloudresourcemanager": "v1",
    "compute": "compute/v1",
    "iam": "v1",
    "logging": "v2",
    "secretmanager": "v1",
    "serviceusage": "v1",
}
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_{}"
#: Where an operation is, as its link says.
LINK = re.compile(r"projects/([^/]+)/(global|(?:zones|regions)/[^/]+)/operations/([^/]+)$")

POLICY = "`dask cloud policy {policy}` prints the rights that are needed."
RAISE = "Ask for more at https://console.cloud.google.com/iam-admin/quotas, or use fewer or smaller machines."
SLOWER = "Other callers share your project's rates: try again in a minute."
ELSEWHERE = "Try again later, or let it be in more zones= or of more types: instance_type= may be a list."
PROJECT = "Is project= (or GOOGLE_CLOUD_PROJECT) right, and is it yours? `gcloud projects list` shows those there are."
LOGIN = "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file."
ENABLE = "Enable it with `gcloud services enable {service} --project {project}`, and try again in a minute."

#: Error codes of compute, its operations, and the other services: what they become, and what to do next.
# https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation
ERRORS: dict[str, tuple[type[CloudError], str]] = {
    **dict.fromkeys(
        ("forbidden", "IAM_PERMISSION_DENIED", "PERMISSION_DENIED", "insufficientPermissions"),
        (CredentialsError, POLICY),
    ),
    **dict.fromkeys(("accessNotConfigured", "SERVICE_DISABLED"), (CredentialsError, ENABLE)),
    **dict.fromkeys(
        ("authError", "required", "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        (CredentialsError, f"Google does not know your credentials, or they have expired. {LOGIN}"),
    ),
    **dict.fromkeys(
        ("CONSUMER_INVALID", "USER_PROJECT_DENIED", "UNKNOWN_PROJECT", "projectNotFound"),
        (ConfigError, PROJECT),
    ),
    **dict.fromkeys(("BILLING_DISABLED", "billingNotEnabled"), (CredentialsError, "Enable billing for it.")),
    **dict.fromkeys(
        ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
        (QuotaError, SLOWER),
    ),
    **dict.fromkeys(
        ("QUOTA_EXCEEDED", "quotaExceeded", "limitExceeded", "RESOURCE_LIMIT_EXCEEDED"), (QuotaError, RAISE)
    ),
    # https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-availability
    **dict.fromkeys(
        (
            "RESOURCE_POOL_EXHAUSTED",
            "STOCKOUT",
            "VM_MIN_COUNT_NOT_REACHED",
            "ZONE_RESOURCE_POOL_EXHAUSTED",
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            "zoneResourcePoolExhausted",
        ),
        (CapacityError, ELSEWHERE),
    ),
    "IP_SPACE_EXHAUSTED": (CapacityError, "The subnetwork has no free addresses: pass subnetwork= a larger one."),
    "UNSUPPORTED_OPERATION": (ConfigError, "Not every zone has every type: pass other zones= or another type."),
    **dict.fromkeys(
        ("alreadyExists", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"),
        (CloudError, "Something else has that name: choose another name= for the cluster."),
    ),
}  # fmt: skip
#: What the texts of errors mean that share a code, most telling first.
TEXTS: tuple[tuple[str, type[CloudError], str], ...] = (
    (r"has not been used in project|api .* is disabled", CredentialsError, ENABLE),
    (r"billing (must be|account|has been|to be) ", CredentialsError, "Enable billing for the project."),
    (r"unknown project|the resource 'projects/[^/']+' was not found", ConfigError, PROJECT),
    (
        r"resource pool exhausted|does not have enough resources|currently unavailable|stockout",
        CapacityError,
        ELSEWHERE,
    ),
    (
        r"ip.space.*exhausted|no free (internal )?(ip )?addresses",
        CapacityError,
        "The subnetwork has no free addresses: pass subnetwork= a larger one.",
    ),
    (r"rate.?limit|requests per|queries per", QuotaError, SLOWER),
    (r"quota .*exceeded|exceeded .*quota", QuotaError, RAISE),
    (
        r"service ?account.*(not found|does not exist)|serviceAccounts?/[^ ]+ was not found",
        ConfigError,
        "Is service_account= right? A new one takes up to a minute to be known everywhere.",
    ),
    (r"(global/images/|image)[^ ]*' (was not found|is not ready)", ConfigError, "Is machine_image= right?"),
    (r"machineTypes?/[^ ]*' (was not found|does not exist)", ConfigError, "Not every zone has every type."),
    (
        r"(networks|subnetworks)/[^ ]*' (was not found|does not exist)",
        ConfigError,
        "Are network= and subnetwork= right, and in this region?",
    ),
)
#: A permission's name in a refusal: `compute.instances.create`.
PERMISSION = re.compile(r"'([a-z]+\.[A-Za-z]+\.[A-Za-z]+)'")
#: A service's name in a refusal: `compute.googleapis.com`.
SERVICE = re.compile(r"([a-z]+\.googleapis\.com)")
#: Words of codes that are the HTTP status's, where an answer has no code.
STATUS = {401: "UNAUTHENTICATED", 403: "forbidden", 404: "notFound", 409: "alreadyExists", 429: "rateLimitExceeded"}  # fmt: skip
#: HTTP answers after which the same request may be made again.
PASSING = frozenset({429, 500, 502, 503, 504})


class OperationError(Exception):
    """Why an operation came to nothing, in Google's words.

    Parameters
    ----------
    code
        Such as `ZONE_RESOURCE_POOL_EXHAUSTED`.
    message
        What Google says of it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class GCP:
    """One project and region, with one client a service. Thread-safe.

    Parameters
    ----------
    project
        Its id; None for what the environment and the credentials say.
    region
        Such as `europe-west1`; None for what the environment and gcloud's configuration say.
    policy
        The name of the role with the permissions that are needed.
    clock
        Ours, in seconds since the epoch.
    """

    def __init__(
        self,
        project: str | None = None,
        region: str | None = None,
        policy: str = "gcp",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._wanted = project
        self._region = region
        self._policy = policy
        self._clock = clock
        self._ahead_s = 0.0  # Google's clock of ours
        self._known: tuple[Any, str | None] | None = None  # credentials, and their project
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._retry: Any = None
        self._lock = threading.RLock()

    @property
    def project(self) -> str:
        """The project of every call.

        Raises
        ------
        ConfigError
            When nobody says.
        """
        found = (
            self._wanted or _configured("GOOGLE_CLOUD_PROJECT", "core", "project") or self._credentials()[1]
        )
        if not found:
            raise ConfigError(
                "No Google Cloud project: pass project='my-project', or set GOOGLE_CLOUD_PROJECT, or run "
                "`gcloud config set project my-project`."
            )
        return found

    @property
    def region(self) -> str:
        """The region of every call.

        Raises
        ------
        ConfigError
            When nobody says.
        """
        found = self._region or _configured("CLOUDSDK_COMPUTE_REGION", "compute", "region")
        if not found and (zone := _configured("CLOUDSDK_COMPUTE_ZONE", "compute", "zone")):
            found = zone.rpartition("-")[0]
        if not found:
            raise ConfigError(
                "No region: pass region='europe-west1' or the like, or set CLOUDSDK_COMPUTE_REGION, or run "
                "`gcloud config set compute/region europe-west1`."
            )
        return found

    @property
    def me(self) -> str:
        """Whose credentials these are, as policies say it; empty when they do not tell."""
        email = getattr(self._credentials()[0], "service_account_email", "")
        return f"serviceAccount:{email}" if "@" in str(email) else ""

    # -- Compute Engine --------------------------------------------------------------------------------

    def client(self, name: str) -> Any:
        """A client of Compute Engine's, such as `instances` or `zone_operations`, made once."""
        with self._lock:
            if name not in self._clients:
                with translated(self._translate):
                    self._clients[name] = self._new_client(name)
            return self._clients[name]

    def _new_client(self, name: str) -> Any:
        compute = _compute()
        kind = getattr(compute, "".join(part.title() for part in name.split("_")) + "Client")
        options = {"api_endpoint": _endpoint("compute").removesuffix("/compute/v1")}
        client = kind(credentials=self._credentials()[0], client_options=options)
        self._prepare(client.transport._session)  # noqa: SLF001  (the transport makes its own, for ten threads)
        return client

    def call(
        self,
        client: str,
        method: str,
        /,
        *,
        fine: Collection[int | str] = (),
        within_s: float = ANSWER_S,
        **request: Any,
    ) -> Any:
        """One call of Compute Engine's, with its errors translated.

        Parameters
        ----------
        client, method
            Such as `instances` and `get`.
        fine
            HTTP statuses and error codes that are no error: the answer is then None.
        within_s
            Seconds that one answer may take.
        **request
            The request's fields; `project` is ours unless it is given.
        """
        with translated(self._translate):
            ask = getattr(self.client(client), method)
            request = {"project": self.project, **request}
            try:
                return ask(request=request, retry=self._patience(), timeout=within_s)
            except Exception as error:
                if _is_fine(error, fine):
                    return None
                raise

    def pages(self, client: str, method: str, /, **request: Any) -> list[Any]:
        """The pages of a call that lists something."""
        with translated(self._translate):
            ask = getattr(self.client(client), method)
            answer = ask(
                request={"project": self.project, **request}, retry=self._patience(), timeout=ANSWER_S
            )
            return list(answer.pages)

    def items(self, client: str, method: str = "list", /, **request: Any) -> list[Any]:
        """All items of a call that lists something."""
        return [item for page in self.pages(client, method, **request) for item in page.items]

    def change(self, client: str, method: str, /, *, fine: Collection[int | str] = (), **request: Any) -> Any:
        """Begin a change, which is made once however often it is asked for; its operation, or None where fine."""
        return self.call(client, f"{method}_unary", fine=fine, request_id=str(uuid.uuid4()), **request)

    def ended(self, operation: Any, within_s: float) -> Any:
        """The operation once it is done, whatever it came to.

        Raises
        ------
        CloudError
            When it takes longer than so many seconds.
        """
        deadline = time.monotonic() + within_s
        while operation.status != _compute().Operation.Status.DONE:
            began = time.monotonic()
            if began >= deadline:
                raise CloudError(
                    f"Google Cloud accepted {operation.operation_type} on {_last(operation.target_link)} in "
                    f"{self.project} and has not done it within {within_s:g} s. It may still come: "
                    f"`gcloud compute operations describe {operation.self_link}` tells."
                )
            project, scope, name = _place(operation)
            kind, _, where = scope.partition("/")
            within = {kind.removesuffix("s"): where} if where else {}
            client = f"{kind.removesuffix('s')}_operations"
            operation = self.call(client, "wait", within_s=WAIT_S, project=project, operation=name, **within)
            if operation.status != _compute().Operation.Status.DONE:
                time.sleep(max(0.0, PAUSE_S - (time.monotonic() - began)))
        return operation

    def done(self, operation: Any, *, fine: Collection[int | str] = (), within_s: float = 120.0) -> Any:
        """The operation once it is done and has done what it should.

        Raises
        ------
        CloudError
            When it came to nothing, or takes too long.
        """
        if operation is None:
            return None
        operation = self.ended(operation, within_s)
        errors = [error for error in operation.error.errors if error.code not in fine]
        if errors:
            raise self.failure(operation)
        return operation

    def failure(self, operation: Any) -> CloudError:
        """Why an operation came to nothing: the first of its errors that says what to do."""
        found = [
            self.refusal(operation.operation_type, error.code, error.message or operation.http_error_message)
            for error in operation.error.errors
        ] or [self.refusal(operation.operation_type, "", "it gave no reason")]
        return next((error for error in found if type(error) is not CloudError), found[0])

    def refusal(self, what: str, code: str, message: str) -> CloudError:
        """What an error is that stands in an answer."""
        error = _refusal(what, code, message, self._where, self._policy)
        error.__cause__ = OperationError(code, message)
        return error

    # -- the other services ----------------------------------------------------------------------------

    def ask(
        self,
        service: str,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        fine: Collection[int | str] = (),
        **query: Any,
    ) -> dict[str, Any]:
        """One call of another service, in JSON, with its errors translated.

        Parameters
        ----------
        service, verb, path
            Such as `secretmanager`, `POST` and `projects/p/secrets`.
        body
            What is sent.
        fine
            HTTP statuses and error codes that are no error: the answer is then empty.
        **query
            Of the address.
        """
        with translated(self._translate):
            url = f"{_endpoint(service)}/{VERSIONS[service]}/{path}"
            try:
                answer: dict[str, Any] = self._patience()(self._once)(verb, url, body, query)
            except Exception as error:
                if _is_fine(error, fine):
                    return {}
                raise
            return answer

    def _once(self, verb: str, url: str, body: Mapping[str, Any] | None, query: Mapping[str, Any]) -> Any:
        from google.api_core import exceptions

        answer = self._web().request(verb, url, json=body, params=query, timeout=ANSWER_S)
        if answer.status_code >= 400:  # noqa: PLR2004  (what HTTP calls an error)
            make: Any = exceptions.from_http_response
            raise make(answer)
        return answer.json() if answer.content else {}

    def _web(self) -> Any:
        with self._lock:
            if self._session is None:
                from google.auth.transport import requests as transport

                make: Any = transport.AuthorizedSession
                self._session = make(self._credentials()[0])
                self._prepare(self._session)
            return self._session

    # -- what both share -------------------------------------------------------------------------------

    def now(self) -> float:
        """The time by Google's clock, as far as its last answer tells: ours may be wrong, or jump."""
        return self._clock() + self._ahead_s

    def _prepare(self, session: Any) -> None:
        """Have a session keep enough connections, and hear what time it is there."""
        from requests.adapters import HTTPAdapter

        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=WIDTH))
        session.hooks["response"].append(self._hear)

    def _hear(self, response: Any, **_: Any) -> None:
        """Compare our clock with the answer's date, which has whole seconds and took a while to come."""
        with contextlib.suppress(TypeError, ValueError):
            said = parsedate_to_datetime(response.headers.get("date"))
            ahead_s = said.timestamp() + 0.5 - self._clock()
            self._ahead_s = ahead_s if abs(ahead_s) > SAME_CLOCK_S else 0.0

    def _credentials(self) -> tuple[Any, str | None]:
        with self._lock:
            if self._known is None:
                with translated(self._translate):
                    self._known = _default()
            return self._known

    def _patience(self) -> Any:
        """How calls are made again: more slowly each time, and not before the server wants it."""
        if self._retry is None:
            from google.api_core.retry import Retry

            self._retry = Retry(
                predicate=_is_passing, initial=0.3, maximum=10.0, timeout=RETRY_S, on_error=_heed
            )
        return self._retry

    @property
    def _where(self) -> str:
        return f"{self._wanted or (self._known or ('', ''))[1] or os.environ.get('GOOGLE_CLOUD_PROJECT') or 'no project'}"

    def _translate(self, error: Exception) -> Exception | None:
        return translate(error, self._where, policy=self._policy)


def _default() -> tuple[Any, str | None]:
    """The user's credentials, wherever Google's own programs find them."""
    try:
        import google.auth
    except ImportError as error:
        raise ConfigError("Google Cloud needs its SDK: pip install 'dask-cloud[gcp]'.") from error
    credentials, project = google.auth.default(scopes=[SCOPE])
    return credentials, project


def _compute() -> Any:
    try:
        from google.cloud import compute_v1
    except ImportError as error:
        raise ConfigError("Google Cloud needs its SDK: pip install 'dask-cloud[gcp]'.") from error
    return compute_v1


def _endpoint(service: str) -> str:
    """Where a service answers, as gcloud would find it."""
    said = os.environ.get(OVERRIDE.format(service.upper())) or _property("api_endpoint_overrides", service)
    default = f"https://{service}.googleapis.com"
    return (said or default).rstrip("/").removesuffix(f"/{VERSIONS[service]}")


def _configured(variable: str, section: str, key: str) -> str | None:
    """What the environment says, or gcloud's configuration."""
    return os.environ.get(variable) or _property(section, key)


def _property(section: str, key: str) -> str | None:
    """A property of gcloud's active configuration: https://cloud.google.com/sdk/docs/configurations."""
    default = Path(os.environ.get("APPDATA", "")) if sys.platform == "win32" else Path.home() / ".config"
    folder = Path(os.environ.get("CLOUDSDK_CONFIG") or default / "gcloud")
    try:
        active = (
            os.environ.get("CLOUDSDK_ACTIVE_CONFIG_NAME") or (folder / "active_config").read_text().strip()
        )
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string((folder / "configurations" / f"config_{active}").read_text(encoding="utf-8"))
    except (OSError, configparser.Error):
        return None
    return parser.get(section, key, fallback=None)


def _place(operation: Any) -> tuple[str, str, str]:
    """An operation's project, its scope such as `zones/us-central1-a`, and its name."""
    found = LINK.search(operation.self_link)
    if found is None:
        raise CloudError(f"Google Cloud told of an operation nowhere: {operation.self_link!r}.")
    return found.group(1), found.group(2), found.group(3)


def _last(link: str) -> str:
    return link.rpartition("/")[2]


def _is_passing(error: Exception) -> bool:
    """Whether the same request may be made again: every change has a request id."""
    import requests
    from google.auth.exceptions import TransportError

    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.Timeout)):
        return True
    if isinstance(error, TransportError):
        return True
    kind, advice = ERRORS.get(code(error), (None, ""))
    if advice == SLOWER:
        return True
    return kind is None and getattr(error, "code", None) in PASSING


def _heed(error: Exception) -> None:
    """Pause for as long as a refusal asks."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with contextlib.suppress(TypeError, ValueError):
        time.sleep(min(float(headers.get("Retry-After", "")), LONGEST_PAUSE_S))


def code(error: BaseException | None) -> str:
    """The code of Google's error, or of the one that an error of ours was raised from."""
    if error is None:
        return ""
    if isinstance(error, OperationError):
        return error.code
    return next(_codes(error), "") or (code(error.__cause__) if isinstance(error, CloudError) else "")


def _codes(error: BaseException) -> Iterator[str]:
    """Google's codes of an error, the most telling first."""
    status = getattr(error, "code", None)
    if not isinstance(status, int):
        return
    said = [entry.get("reason") for entry in getattr(error, "errors", ()) if isinstance(entry, dict)]
    every = [str(one) for one in [getattr(error, "reason", None), *said] if one]
    yield from (one for one in every if one in ERRORS)
    yield from every
    yield STATUS.get(int(status), "")


def _is_fine(error: BaseException, fine: Collection[int | str]) -> bool:
    status = getattr(error, "code", None)
    return bool(fine) and (code(error) in fine or (isinstance(status, int) and int(status) in fine))


def translate(error: Exception, where: str, *, policy: str = "gcp") -> Exception | None:
    """What an error of Google's libraries is in our tree; None for what is none of theirs.

    Parameters
    ----------
    error, where
        What was raised, and in which project.
    policy
        The name of the role with the permissions that are needed.
    """
    if isinstance(error, CloudError):
        return error
    module = type(error).__module__
    if module.startswith("google.auth"):
        return _of_credentials(error, where)
    if module.startswith("google.api_core"):
        if type(error).__name__ == "RetryError":
            cause = getattr(error, "cause", None) or error.__cause__
            return (
                translate(cause, where, policy=policy)
                if isinstance(cause, Exception)
                else CloudError(str(error))
            )
        return _of_service(error, where, policy)
    if module.startswith(("requests", "urllib3")):
        return CloudError(f"Google Cloud could not be reached: {error}. Check your network.")
    return None


def _of_service(error: Any, where: str, policy: str) -> CloudError:
    """What a service's refusal is."""
    metadata = dict(getattr(error, "metadata", None) or {})
    message = str(getattr(error, "message", error))
    # The method and the address come first: https://github.com/googleapis/python-api-core
    what, _, said = (
        message.partition(": ")
        if re.match(r"(GET|POST|PUT|PATCH|DELETE) http", message)
        else ("", "", message)
    )
    verb, _, url = what.partition(" ")
    path = url.partition("?")[0].rpartition("/projects/")[2].partition("/")[2]
    return _refusal(
        f"{verb} {path}".strip() or "a call", code(error), said or message, where, policy, metadata
    )


def _refusal(
    what: str, code: str, said: str, where: str, policy: str, metadata: Mapping[str, str] | None = None
) -> CloudError:
    """A refusal by its code, or by its text where a code says little."""
    metadata = metadata or {}
    kind, advice = ERRORS.get(code, (CloudError, ""))
    if kind is CloudError or advice is POLICY:
        kind, advice = because(said) or (kind, advice)
    if advice is ENABLE:
        service = metadata.get("service") or (SERVICE.findall(said) or ["compute.googleapis.com"])[0]
        project = metadata.get("consumer", "").removeprefix("projects/") or where
        advice = ENABLE.format(service=service, project=where if project.isdecimal() else project)
        return CredentialsError(f"{service} is not enabled in project {where}: {_short(said)} {advice}")
    if advice is POLICY:
        named = metadata.get("permission") or next(iter(PERMISSION.findall(said)), "")
        right = f"lack {named}" if named else f"may not {what}"
        return CredentialsError(
            f"Your Google Cloud credentials {right} in project {where}: {_short(said)} {POLICY.format(policy=policy)}"
        )
    return kind(
        f"Google Cloud refused {what} in {where} ({code or 'no code'}): {_short(said)} {advice}".strip()
    )


def _short(message: str) -> str:
    """The message as a sentence."""
    said = " ".join(message.split())[:600]
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _of_credentials(error: Exception, where: str) -> CloudError:
    """What google-auth raises."""
    name, said = type(error).__name__, str(error)
    if name == "TransportError":
        return CloudError(f"Google Cloud could not be reached: {said}. Check your network.")
    if "reasonable timeframe" in said or "iat" in said.split():
        return CredentialsError(
            f"Google refused your credentials, for this computer's clock is wrong: set it right, best by NTP. {said}"
        )
    if name == "RefreshError":
        return CredentialsError(
            f"Your Google credentials for {where} are not accepted any more: {said}. {LOGIN}"
        )
    return CredentialsError(f"No usable Google Cloud credentials were found: {said} {LOGIN}")


def because(text: str) -> tuple[type[CloudError], str] | None:
    """What a reason in words means, and what to do next; None when nobody knows."""
    for pattern, kind, advice in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, advice
    return None
