"""Google's requests as the emulated services see them, and the errors they answer.

https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from cloudprovider.emulator import discovery_documents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.emulator.discovery_documents import Method, Problem

#: The one project of an emulated account, and its number.
PROJECT = "dask-emulated"
NUMBER = "123456789012"
#: Where it is in place of googleapis.com: https://google.aip.dev/auth/4115
UNIVERSE = "dask-cloud.localhost"
#: Whom the key file of `environ` is for: the project's owner.
PERSON = f"person@{PROJECT}.iam.gserviceaccount.com"
#: https://cloud.google.com/compute/docs/access/service-accounts#default_service_account
DEFAULT_ACCOUNT = f"{NUMBER}-compute@developer.gserviceaccount.com"

#: What each HTTP status is in the terms of google.rpc.Code.
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class GCPError(Exception):
    """What a call is refused with.

    Parameters
    ----------
    status
        Of HTTP.
    message
        As Google says it.
    reason
        The word that compute puts into `errors[].reason`, such as `notFound`.
    code
        Of google.rpc.Code; by default what the status is called.
    details
        Such as one `google.rpc.ErrorInfo`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason
        self.code = code or STATUSES.get(status, "UNKNOWN")
        self.details = details

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        error: dict[str, Any] = {"code": self.status, "message": self.message, "status": self.code}
        if self.reason:
            error["errors"] = [{"message": self.message, "domain": "global", "reason": self.reason}]
        if self.details:
            error["details"] = list(self.details)
        return {"error": error}


@dataclass(kw_only=True)
class Request:
    """One call of an API that Google describes.

    Parameters
    ----------
    method
        Which.
    arguments
        What its path says, by the names in the description.
    query, body
        As checked by `check`.
    token
        Of the Authorization header; empty when there is none.
    """

    method: Method
    arguments: Mapping[str, str]
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Any = None
    token: str = ""

    @property
    def service(self) -> str:
        """Such as `secretmanager`: what faults and calls name."""
        return self.method.service

    @property
    def operation(self) -> str:
        """Such as `secrets.create`: what faults and calls name."""
        return self.method.operation

    def asked(self, name: str, default: str = "") -> str:
        """One parameter of the query."""
        return self.query.get(name, [default])[-1]


def read(
    method: str, path: str, headers: Mapping[str, str], body: bytes, services: Sequence[str] = ()
) -> Request:
    """The call that a request is; raises GCPError when there is no such method or its JSON is broken."""
    parts = urlsplit(path)
    found = discovery_documents.find(
        method, unquote(parts.path), services or tuple(discovery_documents.VERSIONS)
    )
    if found is None:
        raise GCPError(
            404, f"The requested URL {parts.path} was not found on this server.", reason="notFound"
        )
    try:
        content = json.loads(body) if body.strip() else None
    except ValueError as error:
        raise GCPError(400, f"Invalid JSON payload received. {error}", reason="parseError") from error
    token = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
    return Request(
        method=found[0],
        arguments=found[1],
        query=parse_qs(parts.query, keep_blank_values=True),
        body=content,
        token=token.removeprefix("Bearer ").strip(),
    )


def check(request: Request) -> None:
    """Refuse what Google's description does not allow."""
    if found := request.method.query_problems(request.query):
        raise _refused(found, "Cannot bind query parameter")
    if found := request.method.body_problems(request.body):
        raise _refused(found, "")


def _refused(found: Sequence[Problem], where: str) -> GCPError:
    texts = [
        f"Unknown name \"{one.value}\": {where}. Field '{one.value}' could not be found in request message."
        if where and one.kind == "unknown"
        else str(one)
        for one in found
    ]
    violations = [{"field": one.field, "description": text} for one, text in zip(found, texts, strict=True)]
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
    message = "\n".join(
        f"Invalid JSON payload received. {text}" if "Unknown" in text else text for text in texts
    )
    return GCPError(400, message, reason="invalid", details=[detail])
