"""The operations of Compute Engine: what every change becomes, which is accepted first and done later.

https://cloud.google.com/compute/docs/api/how-tos/api-requests-responses#handling_api_responses
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_links import BASE, Place, invalid, number, stamp
from cloudprovider.emulator.gce_lists import aggregated, listed
from cloudprovider.emulator.gcp_wire import GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_request import Call

WAIT_S = 120.0  # "waits for no more than the 2 minutes": operations.wait
REMEMBERED_S = 3600.0
#: What HTTP calls the statuses of operations that failed.
WORDS = {400: "BAD REQUEST", 403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT", 503: "SERVICE UNAVAILABLE"}


class Failure(Exception):  # noqa: N818  (it is told in an operation, to nobody that is called)
    """Why an operation comes to nothing after it was accepted.

    Parameters
    ----------
    code, message
        Such as `QUOTA_EXCEEDED`, and what Google says.
    status
        The HTTP status that the operation tells.
    details
        `errorDetails` of the error.
    """

    def __init__(self, code: str, message: str, status: int, details: Sequence[Document] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.details = list(details)

    def document(self) -> Document:
        """As it stands in `error.errors`."""
        error: Document = {"code": self.code, "message": self.message}
        return error | ({"errorDetails": self.details} if self.details else {})


class Operation:
    """One operation. Its document changes until it is done."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.over = threading.Event()
        self.made = time.monotonic()

    def finish(self, *failures: Failure) -> None:
        """It is done: without failures well."""
        if self.over.is_set():
            return
        if failures:
            self.document |= {
                "error": {"errors": [one.document() for one in failures]},
                "httpErrorStatusCode": failures[0].status,
                "httpErrorMessage": WORDS.get(failures[0].status, "ERROR"),
            }
        self.document |= {"status": "DONE", "progress": 100, "endTime": stamp()}
        self.over.set()


class Operations:
    """All operations of one account; thread-safe with the account's lock."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._known: dict[str, Operation] = {}
        self._asked: dict[tuple[str, str], tuple[str, Operation]] = {}
        kinds = {"zoneOperations": "zones", "regionOperations": "regions", "globalOperations": "global"}
        self.handlers: dict[str, Callable[[Call], Any]] = {}
        for kind in kinds:
            self.handlers |= {
                f"{kind}.get": self.get,
                f"{kind}.wait": self.wait,
                f"{kind}.list": self.list,
                f"{kind}.delete": self.delete,
            }
        self.handlers["globalOperations.aggregatedList"] = self.aggregated_list

    # -- making them ---------------------------------------------------------------------------------

    def begin(self, kind: str, target: Place, user: str, *, scope: str = "", **facts: Any) -> Operation:
        """A new operation on a target; it runs until it is finished."""
        scope = scope or target.scope
        moment = f"{time.time_ns() // 1000000}-{uuid.uuid4().hex[:13]}-{uuid.uuid4().hex[:8]}-{uuid.uuid4().hex[:8]}"
        place = Place(target.project, scope, "operations", f"operation-{moment}")
        document = {
            "kind": "compute#operation",
            "id": number(),
            "name": place.name,
            "selfLink": place.link,
            "operationType": kind,
            "targetLink": target.link,
            "status": "RUNNING",
            "progress": 0,
            "user": user,
            "insertTime": stamp(),
            "startTime": stamp(),
            **_scope_links(place),
            **facts,
        }
        operation = Operation(document)
        self._forget_old()
        self._known[place.name] = operation
        return operation

    def soon(self, operation: Operation, work: Callable[[], None] | None = None) -> Document:
        """Finish an operation after a moment, when its work is done; answers it as it is now."""

        def act() -> None:
            with self._account.lock:
                try:
                    if work is not None:
                        work()
                except Failure as failure:
                    operation.finish(failure)
            operation.finish()

        self._account.timers.after(self._account.profile.address_s, act)
        return dict(operation.document)

    def running(self, kind: str) -> int:
        """How many of a kind are not done."""
        return sum(
            one.document["operationType"] == kind and not one.over.is_set() for one in self._known.values()
        )

    def later(self, work: Callable[[], None]) -> None:
        """Do something after a moment."""

        def act() -> None:
            with self._account.lock:
                work()

        self._account.timers.after(max(self._account.profile.address_s, 0.02), act)

    def _forget_old(self) -> None:
        while self._known and time.monotonic() - next(iter(self._known.values())).made > REMEMBERED_S:
            del self._known[next(iter(self._known))]

    # -- asking once ---------------------------------------------------------------------------------

    def once(self, request: Call, work: Callable[[], Operation | Document]) -> Document:
        """Do what a call asks, unless a call with the same `requestId` has: then its operation is the answer."""
        key, said = request.asked("requestId"), json.dumps([request.body, request.path], sort_keys=True)
        if key and not _is_uuid(key):
            raise invalid("requestId", key, "Must be a valid UUID, and not zero.")
        known = self._asked.get((request.operation, key)) if key else None
        if known is not None:
            if known[0] != said:
                raise GCPError(
                    409,
                    f"Request ID '{key}' was used before with another request.",
                    reason="duplicate",
                )
            return dict(known[1].document)
        made = work()
        operation = made if isinstance(made, Operation) else self._known[made["name"]]
        if key:
            operation.document["clientOperationId"] = key
            self._asked[request.operation, key] = (said, operation)
        return dict(operation.document)

    # -- telling them --------------------------------------------------------------------------------

    def _find(self, request: Call) -> Operation:
        name = request.arguments["operation"]
        place = Place(request.project, request.scope, "operations", name)
        found = self._known.get(name)
        if found is None or found.document["selfLink"] != place.link:
            raise place.missing()
        return found

    def get(self, request: Call) -> Document:
        """As it is now."""
        return dict(self._find(request).document)

    def wait(self, request: Call) -> Document:
        """When it is done, or after two minutes; called without the account's lock."""
        operation = self._find(request)
        operation.over.wait(WAIT_S)
        return dict(operation.document)

    def list(self, request: Call) -> Document:
        """Those of one zone, one region, or neither, newest first."""
        base = f"{BASE}projects/{request.project}/{request.scope}/operations/"
        found = [one.document for one in self._known.values() if one.document["selfLink"].startswith(base)]
        return listed(request, "operation", found[::-1])

    def aggregated_list(self, request: Call) -> Document:
        """All, by where they are."""
        scopes: dict[str, list[Document]] = {}
        for one in reversed(self._known.values()):
            scope = one.document["selfLink"].partition(f"projects/{request.project}/")[2]
            if scope:
                scopes.setdefault(scope.partition("/operations/")[0], []).append(one.document)
        return aggregated(request, "operation", "operations", scopes)

    def delete(self, request: Call) -> None:
        """Forget it."""
        self._find(request)
        del self._known[request.arguments["operation"]]


def _scope_links(place: Place) -> Mapping[str, str]:
    kind, _, name = place.scope.partition("/")
    base = f"{BASE}projects/{place.project}/"
    if kind == "zones":
        return {"zone": f"{base}zones/{name}"}
    return {"region": f"{base}regions/{name}"} if kind == "regions" else {}


def _is_uuid(text: str) -> bool:
    try:
        return uuid.UUID(text).int != 0
    except ValueError:
        return False
