"""What every Google Cloud provider needs: credentials, one client a service, and operations."""

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

from cloudprovider.errors import CloudError, ConfigError, translated
from cloudprovider.providers._gcp_errors import OperationError, code, is_fine, is_passing, refusal, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["GCP", "code"]

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
        found = self._wanted or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if not found and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):  # whose file says it
            found = _property("core", "project")
        found = found or self._credentials()[1]
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
        found = self._region or os.environ.get("CLOUDSDK_COMPUTE_REGION")
        found = found or _region_of(os.environ.get("CLOUDSDK_COMPUTE_ZONE"))
        found = found or _property("compute", "region") or _region_of(_property("compute", "zone"))
        if not found:
            raise ConfigError(
                "No region: pass region='europe-west1' or the like, or set CLOUDSDK_COMPUTE_REGION, or run "
                "`gcloud config set compute/region europe-west1`."
            )
        return found

    @property
    def who(self) -> str:
        """Who calls, as far as the credentials say: an account's email, or else what kind they are of."""
        found = self._credentials()[0]
        email = getattr(found, "service_account_email", "") or getattr(found, "account", "")
        return str(email or f"somebody with {type(found).__module__} credentials")

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
                if is_fine(error, fine):
                    return None
                raise

    def pages(self, client: str, method: str, /, *, fields: str = "", **request: Any) -> list[Any]:
        """The pages of a call that lists something, with these fields alone if any are named."""
        # https://cloud.google.com/apis/docs/system-parameters
        only = [("x-goog-fieldmask", fields)] if fields else []
        with translated(self._translate):
            ask = getattr(self.client(client), method)
            answer = ask(
                request={"project": self.project, **request},
                retry=self._patience(),
                timeout=ANSWER_S,
                metadata=only,
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
            operation = self._look(operation, "wait", WAIT_S)
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

    def _look(self, operation: Any, method: str, within_s: float) -> Any:
        """What an operation's zone, region or project says of it now."""
        project, scope, name = _place(operation)
        kind, _, where = scope.partition("/")
        kind = kind.removesuffix("s")
        place = {kind: where} if where else {}
        return self.call(
            f"{kind}_operations", method, within_s=within_s, project=project, operation=name, **place
        )

    def done_so_far(self, operation: Any) -> Any:
        """The operation as it is now, without waiting for it.

        Raises
        ------
        CloudError
            When it has come to nothing.
        """
        operation = self._look(operation, "get", ANSWER_S)
        if operation.error.errors:
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
        error = refusal(what, code, message, self._where, self._policy)
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
                if is_fine(error, fine):
                    return {}
                raise
            return answer

    def told(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """The pages of one of Compute Engine's lists, in JSON: to import its client takes a second.

        Parameters
        ----------
        path
            Behind the project's, such as `aggregated/instances`.
        **query
            Of the address, such as `filter` and `fields`.
        """
        pages: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while not pages or more["pageToken"]:
            pages.append(self.ask("compute", "GET", f"projects/{self.project}/{path}", **query, **more))
            more = {"pageToken": pages[-1].get("nextPageToken")}
        return pages

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
                predicate=is_passing, initial=0.3, maximum=10.0, timeout=RETRY_S, on_error=_heed
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


def _region_of(zone: str | None) -> str | None:
    return zone.rpartition("-")[0] if zone else None


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


def _heed(error: Exception) -> None:
    """Pause for as long as a refusal asks."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with contextlib.suppress(TypeError, ValueError):
        time.sleep(min(float(headers.get("Retry-After", "")), LONGEST_PAUSE_S))
