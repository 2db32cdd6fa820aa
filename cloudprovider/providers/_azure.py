"""What a provider on Azure needs: credentials, one client a service, operations that are watched, and errors."""

from __future__ import annotations

import base64
import configparser
import contextlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CloudError, ConfigError, translated
from cloudprovider.providers._azure_errors import codes, translate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["Azure", "Endpoints", "Operation", "canonical", "default_region", "tags_of"]

#: By what we call a service: the module of its SDK, and its client.
CLIENTS = {
    "authorization": ("azure.mgmt.authorization", "AuthorizationManagementClient"),
    "compute": ("azure.mgmt.compute", "ComputeManagementClient"),
    "keyvault": ("azure.mgmt.keyvault", "KeyVaultManagementClient"),
    "msi": ("azure.mgmt.msi", "ManagedServiceIdentityClient"),
    "network": ("azure.mgmt.network", "NetworkManagementClient"),
    "resources": ("azure.mgmt.resource.resources", "ResourceManagementClient"),
}
#: Where a cloud says where its services are; the same that Terraform's azurerm asks.
METADATA = "/metadata/endpoints?api-version=2022-09-01"
#: Seconds between the first two looks, and between any two, at an operation that does not say when to look again; the
#: SDK's default is 30.
FIRST_POLL_S, POLL_S = 0.2, 1.5
#: Seconds by which two clocks may seem to differ that are the same: an answer's date has whole ones.
SAME_CLOCK_S = 5.0
NO_CONTENT = 204
#: How often and how long the SDK asks again; it does what Retry-After says.
RETRIES = {
    "retry_total": 8,
    "retry_backoff_factor": 0.4,
    "retry_backoff_max": 20,
    "connection_timeout": 10,
    "read_timeout": 60,
}


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a cloud's services are.

    Parameters
    ----------
    manager
        Azure Resource Manager.
    audience
        Whom its tokens are for.
    authority
        Who gives them; empty for what `azure-identity` takes by itself.
    private
        Whether it is none of Microsoft's public clouds, whose directory nobody else knows.
    """

    manager: str = "https://management.azure.com"
    audience: str = "https://management.azure.com"
    authority: str = ""
    private: bool = False

    @classmethod
    def read(cls, answer: Any) -> Endpoints:
        """The endpoints that a cloud's own description says."""
        said = answer[0] if isinstance(answer, list) else answer
        login = said["authentication"]
        return cls(
            manager=said["resourceManager"].rstrip("/"),
            audience=login["audiences"][0].rstrip("/"),
            authority=login["loginEndpoint"].rstrip("/"),
            private=True,
        )


class Azure:
    """One subscription's services. Thread-safe; clients are made once.

    Parameters
    ----------
    subscription
        Its id; None for what the environment or the Azure CLI says.
    clock
        Our own clock, in seconds since the epoch.
    """

    def __init__(self, subscription: str | None = None, clock: Any = time.time) -> None:
        self._wanted = subscription
        self._clock = clock
        self._ahead_s = 0.0
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()

    @cached_property
    def subscription(self) -> str:
        """The id of the subscription."""
        found = self._wanted or os.environ.get("AZURE_SUBSCRIPTION_ID") or _default_subscription()
        if not found:
            raise ConfigError(
                "No Azure subscription: pass subscription=, set AZURE_SUBSCRIPTION_ID, or run `az login`."
            )
        return found

    @cached_property
    def endpoints(self) -> Endpoints:
        """Where the services are: of the public cloud, unless ARM_METADATA_HOSTNAME says another."""
        host = os.environ.get("ARM_METADATA_HOSTNAME")
        if not host:
            return Endpoints()
        with self.translated():
            from azure.core import PipelineClient
            from azure.core.rest import HttpRequest

            with PipelineClient(f"https://{host}") as client:
                answer = client.send_request(HttpRequest("GET", f"https://{host}{METADATA}"))
                answer.raise_for_status()
                return Endpoints.read(answer.json())

    @cached_property
    def credential(self) -> Any:
        """What the SDK finds by itself: environment, workload or managed identity, the Azure CLI."""
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise ConfigError("Azure needs its SDK: pip install 'dask-cloud[azure]'.") from error
        where: dict[str, Any] = {}
        if self.endpoints.private:
            where = {"authority": self.endpoints.authority, "disable_instance_discovery": True}
        with self.translated():
            return DefaultAzureCredential(**where)

    @property
    def who(self) -> tuple[str, str]:
        """The object id of whoever calls, and what role assignments call its kind."""
        # Only who acts for a person has scopes.
        return str(self._claims["oid"]), "User" if "scp" in self._claims else "ServicePrincipal"

    @property
    def tenant(self) -> str:
        """The directory in which whoever calls is known."""
        return str(self._claims["tid"])

    @cached_property
    def _claims(self) -> dict[str, Any]:
        """What the caller's token says."""
        with self.translated():
            token = self.credential.get_token(f"{self.endpoints.audience}/.default").token
        part = token.split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))

    def now(self) -> float:
        """The time by Azure's clock, as far as its last answer tells: ours may be wrong, or jump."""
        return float(self._clock() + self._ahead_s)

    # -- calls -----------------------------------------------------------------------------------------

    def client(self, service: str) -> Any:
        """The client of a service, made once."""
        with self._lock:
            if service not in self._clients:
                import importlib

                module, name = CLIENTS[service]
                made = getattr(importlib.import_module(module), name)
                self._clients[service] = made(
                    self.credential,
                    self.subscription,
                    base_url=self.endpoints.manager,
                    credential_scopes=[f"{self.endpoints.audience}/.default"],
                    **self._options(),
                )
            return self._clients[service]

    def secrets(self, vault: str) -> Any:
        """The client of a vault's secrets, made once."""
        with self._lock:
            if vault not in self._clients:
                from azure.keyvault.secrets import SecretClient

                self._clients[vault] = SecretClient(vault, self.credential, **self._options())
            return self._clients[vault]

    def call(
        self, service: str, operation: str, /, *values: Any, fine: Collection[str] = (), **request: Any
    ) -> dict[str, Any]:
        """One call, with its errors translated; its answer in the API's own words.

        Parameters
        ----------
        service, operation
            Such as `network` and `virtual_networks.get`.
        *values, **request
            As the SDK wants them.
        fine
            Error codes that are no error: the answer is then empty.
        """
        with self.translated():
            try:
                return plain(self._method(service, operation)(*values, **request))
            except Exception as error:
                if not set(fine).isdisjoint(codes(error)):
                    return {}
                raise

    def pages(
        self, service: str, operation: str, /, *values: Any, fine: Collection[str] = (), **request: Any
    ) -> list[dict[str, Any]]:
        """All that a call lists, page by page."""
        with self.translated():
            try:
                return [plain(one) for one in self._method(service, operation)(*values, **request)]
            except Exception as error:
                if not set(fine).isdisjoint(codes(error)):
                    return []
                raise

    def begin(
        self, service: str, operation: str, /, *values: Any, fine: Collection[str] = (), **request: Any
    ) -> Operation | None:
        """Start a long operation; None when it was refused with a code that is `fine`."""
        with self.translated():
            polling = _watched()
            try:
                self._method(service, operation)(*values, polling=polling, **request)
            except Exception as error:
                if not set(fine).isdisjoint(codes(error)):
                    return None
                raise
            return Operation(self, polling, operation)

    def make(
        self,
        service: str,
        operation: str,
        /,
        *values: Any,
        within_s: float = 300.0,
        fine: Collection[str] = (),
        **request: Any,
    ) -> dict[str, Any]:
        """A long operation from its start to its end; what it has made, or an empty answer where it was fine."""
        begun = self.begin(service, operation, *values, fine=fine, **request)
        return begun.wait(within_s) if begun else {}

    def fetch(self, url: str) -> str:
        """The text behind an address that carries its own right; empty when there is none."""
        with self.translated():
            from azure.core import PipelineClient
            from azure.core.rest import HttpRequest

            with PipelineClient(url, **RETRIES) as client:
                answer = client.send_request(HttpRequest("GET", url))
            if answer.status_code == 404:  # noqa: PLR2004  (as HTTP says that there is none)
                return ""
            answer.raise_for_status()
            return str(answer.text())

    def translated(self) -> contextlib.AbstractContextManager[None]:
        """Raise what errors of the SDK mean here."""
        return translated(lambda error: translate(error, self._wanted or ""))

    def _method(self, service: str, operation: str) -> Any:
        found = self.client(service)
        for name in operation.split("."):
            found = getattr(found, name)
        return found

    def _options(self) -> dict[str, Any]:
        from cloudprovider import __version__

        return {**RETRIES, "user_agent": f"dask-cloud/{__version__}", "raw_response_hook": self._hear}

    def _hear(self, answer: Any) -> None:
        """Compare our clock with the answer's date, which has whole seconds and took a while to come."""
        said = answer.http_response.headers.get("Date")
        with contextlib.suppress(TypeError, ValueError):
            ahead_s = parsedate_to_datetime(said).timestamp() + 0.5 - self._clock()
            self._ahead_s = ahead_s if abs(ahead_s) > SAME_CLOCK_S else 0.0


class Operation:
    """A long operation that was accepted. Nothing looks at it unless it is asked.

    Parameters
    ----------
    azure
        Whose it is.
    polling
        The SDK's own way to look at it.
    what
        What it does, for messages.
    """

    def __init__(self, azure: Azure, polling: Any, what: str) -> None:
        self.azure, self.what = azure, what
        self._polling = polling
        self._next = 0.0

    @property
    def accepted(self) -> dict[str, Any]:
        """What the call answered at once."""
        return _document(self._polling.first)

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do: what was to be deleted is not there."""
        return bool(self._polling.first.status_code == NO_CONTENT)

    def over(self) -> bool:
        """Whether it has ended, as one look says; no look comes sooner than Azure wants it.

        Raises
        ------
        CloudError
            When it failed after all.
        """
        if self._polling.over:
            return True
        if time.monotonic() < self._next:
            return False
        with self.azure.translated():
            self._polling.look()
        self._next = time.monotonic() + self._polling.delay
        return bool(self._polling.over)

    def wait(self, within_s: float) -> dict[str, Any]:
        """Look until it has ended; what the cloud says of what it made."""
        deadline = time.monotonic() + within_s
        while not self.over():
            if time.monotonic() > deadline:
                raise CloudError(f"Azure has not ended {self.what} in {within_s:g} s.")
            time.sleep(max(0.05, min(self._next - time.monotonic(), deadline - time.monotonic())))
        with self.azure.translated():
            return dict(self._polling.made())


def _watched() -> Any:
    """The SDK's polling, which looks only when it is asked to, and in the caller's thread.

    Its own threads could not start any more when the interpreter exits, and that is when clusters close.
    """
    from azure.core.exceptions import HttpResponseError
    from azure.core.polling.base_polling import BadStatus
    from azure.mgmt.core.exceptions import ARMErrorFormat
    from azure.mgmt.core.polling.arm_polling import ARMPolling

    class Watched(ARMPolling):  # type: ignore[misc]  # (the SDK's classes are imported lazily)
        def __init__(self) -> None:
            super().__init__(timeout=FIRST_POLL_S)
            self._timeout: float = FIRST_POLL_S

        def finished(self) -> bool:
            return True  # so that the SDK starts no thread

        @property
        def first(self) -> Any:
            return self._initial_response.http_response

        @property
        def delay(self) -> float:
            return float(self._extract_delay())

        @property
        def over(self) -> bool:
            return self.status().lower() in {"succeeded", "failed", "canceled"}

        def look(self) -> None:
            self._timeout = min(2 * self._timeout, POLL_S)
            try:
                self.update_status()
                lost = self.status().lower() in {"failed", "canceled"}
            except BadStatus:  # it says nothing of why
                lost = True
            if lost:
                response = self._pipeline_response.http_response
                raise HttpResponseError(response=response, error_format=ARMErrorFormat)

        def made(self) -> dict[str, Any]:
            url = self._operation.get_final_get_url(self._pipeline_response)
            answer = self.request_status(url) if url else self._pipeline_response
            return _document(answer.http_response)

    return Watched()


def _document(response: Any) -> dict[str, Any]:
    """The document of an answer; empty when it has none."""
    text = response.text() if callable(response.text) else response.text
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def plain(model: Any) -> dict[str, Any]:
    """An answer of the SDK's in the API's own words, whichever generation its model is of."""
    if model is None:
        return {}
    if hasattr(model, "serialize"):
        return dict(model.serialize(keep_readonly=True))
    return dict(model.as_dict())


def tags_of(resource: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a resource in an answer."""
    return dict(resource.get("tags") or {})


def _settings() -> Path:
    return Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")


def _default_subscription() -> str:
    """The Azure CLI's default subscription; empty when there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        profile = json.loads((_settings() / "azureProfile.json").read_text(encoding="utf-8-sig"))
        some: Iterable[Any] = profile["subscriptions"]
        return next((str(one["id"]) for one in some if one.get("isDefault")), "")
    return ""


def default_region() -> str:
    """The Azure CLI's default location; empty when there is none."""
    if found := os.environ.get("AZURE_DEFAULTS_LOCATION"):
        return found
    parser = configparser.ConfigParser()
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(_settings() / "config", encoding="utf-8")
    return parser.get("defaults", "location", fallback="")


def canonical(region: str) -> str:
    """A location by its name, which people also write as it is displayed: `West Europe`."""
    return re.sub(r"\s+", "", region).lower()
