"""Azure's requests as the emulated services see them, and the errors they answer.

https://learn.microsoft.com/azure/azure-resource-manager/management/common-deployment-errors
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The one subscription of an emulated account, the directory it trusts, and whom `environ` is for: its owner.
SUBSCRIPTION = "5b0f8a9e-3c1d-4e57-9a64-d0c5e1a7f001"
TENANT = "5b0f8a9e-3c1d-4e57-9a64-d0c5e1a7f002"
CLIENT = "5b0f8a9e-3c1d-4e57-9a64-d0c5e1a7f003"
PERSON = "5b0f8a9e-3c1d-4e57-9a64-d0c5e1a7f004"
SECRET = "emulated"  # noqa: S105  (it opens this emulator alone)
#: What an api-version looks like, and the oldest that anything answers.
VERSION = re.compile(r"\d{4}-\d\d-\d\d(-preview)?")
OLDEST = "2015-05-01-preview"


class AzureError(Exception):
    """What a call is refused with.

    Parameters
    ----------
    status
        Of HTTP.
    code, message
        As Azure says them.
    target
        The field it is about.
    details, inner
        `details` and `innererror` of the answer.
    headers
        Of the answer, such as `Retry-After` or `WWW-Authenticate`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        details: Sequence[Mapping[str, Any]] = (),
        inner: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.target = status, code, message, target
        self.details, self.inner, self.headers = details, inner, dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target:
            error["target"] = self.target
        if self.details:
            error["details"] = list(self.details)
        if self.inner:
            error["innererror"] = dict(self.inner)
        return {"error": error}


@dataclass(kw_only=True)
class Request:
    """One call of Azure Resource Manager, or of a vault.

    Parameters
    ----------
    method, path
        Such as `PUT` and `/subscriptions/…/providers/Microsoft.Compute/virtualMachines/NAME`.
    query
        `api-version` and others.
    headers
        By their lower-case names.
    body
        The document; None is none.
    caller
        The address it comes from.
    service, operation
        What faults and calls name: the service's short name and the SDK's operation, such as `compute` and
        `VirtualMachines.CreateOrUpdate`.
    names
        What varies in its path, in the SDK's words: `resource_group_name`, `vm_name`.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    caller: str = ""
    service: str = "unknown"
    operation: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """Of the Authorization header; empty when there is none."""
        return self.headers.get("authorization", "").removeprefix("Bearer ").strip()

    @property
    def id(self) -> ResourceId:
        """What its path names."""
        return ResourceId.of(self.path)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a call is answered: a document, or nothing."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ResourceId:
    """What a path of Azure Resource Manager names: https://learn.microsoft.com/rest/api/resources/#resource-id .

    Parameters
    ----------
    scope
        What comes before the last `/providers/`: a subscription, a group, another resource; as written.
    type
        Such as `Microsoft.Compute/virtualMachines/extensions`; empty when there is no provider.
    names
        One of each part of the type; one less when the path names a collection or an action.
    """

    scope: str
    type: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> ResourceId:
        """Read a path."""
        scope, found, rest = path.rstrip("/").rpartition("/providers/")
        if not found:
            return cls(scope=path.rstrip("/"), type="", names=())
        namespace, *parts = rest.split("/")
        return cls(scope=scope, type="/".join((namespace, *parts[::2])), names=tuple(parts[1::2]))

    @property
    def subscription(self) -> str:
        """Empty when the scope has none."""
        return self._after("subscriptions")

    @property
    def group(self) -> str:
        """The resource group; empty when the scope has none."""
        return self._after("resourcegroups")

    def _after(self, word: str) -> str:
        parts = self.scope.split("/")
        lower = [part.lower() for part in parts]
        at = lower.index(word) + 1 if word in lower else len(parts)
        return parts[at] if at < len(parts) else ""


def read(method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str = "") -> Request:
    """The call that a request is; raises AzureError when its JSON is broken."""
    parts = urlsplit(path)
    try:
        content = json.loads(body) if body.strip() else None
    except ValueError as error:
        message = f"The request content was invalid and could not be deserialized: '{error}'."
        raise AzureError(400, "InvalidRequestContent", message) from error
    return Request(
        method=method,
        path=unquote(parts.path),
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers={name.lower(): value for name, value in headers.items()},
        body=content,
        caller=caller,
    )


def written(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """An answer as it is sent."""
    fields = {
        "Cache-Control": "no-cache",
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-correlation-request-id": str(uuid.uuid4()),
        **reply.headers,
    }
    if reply.body is None:
        return reply.status, fields, b""
    fields["Content-Type"] = "application/json; charset=utf-8"
    return reply.status, fields, json.dumps(reply.body).encode()


def check_body(request: Request, kind: Any) -> None:
    """Refuse what a model class of Azure's SDK does not allow as the body of a request."""
    from cloudprovider.emulator import azure_flat_models, azure_models

    check = azure_models if azure_models.is_model(kind) else azure_flat_models
    for problem in check.problems(kind, {} if request.body is None else request.body):
        code = "InvalidRequestContent" if problem.what == "unknown" else "InvalidParameter"
        raise AzureError(400, code, problem.text, target=problem.path)


def check_version(request: Request, newest: str) -> None:
    """Refuse an api-version that there is not."""
    given = request.query.get("api-version", "")
    if not given:
        text = "The api-version query parameter (?api-version=) is required for all requests."
        raise AzureError(400, "MissingApiVersionParameter", text)
    if not VERSION.fullmatch(given) or not OLDEST <= given <= newest:
        raise AzureError(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{given}' is invalid. The supported versions are '{newest}' and older.",
        )


def group_missing(name: str) -> AzureError:
    """What is said of a resource group that there is not."""
    return AzureError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
