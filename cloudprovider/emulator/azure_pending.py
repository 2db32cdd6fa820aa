"""Long-running operations: accepted first, done later, asked for in between.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["Operations", "Pending", "stamp"]


@dataclass(kw_only=True, eq=False)
class Pending:
    """One operation that was accepted.

    Parameters
    ----------
    id
        By which it is asked for.
    service, location
        Whose it is, and where.
    then
        Calls what makes its last answer, for who follows `Location`.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    service: str
    location: str
    then: Callable[[], Any] | None = None
    status: str = "InProgress"
    error: AzureError | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None

    def succeed(self) -> None:
        """It is done."""
        self._end("Succeeded")

    def fail(self, error: AzureError) -> None:
        """It failed after all."""
        self.error = error
        self._end("Failed")

    def _end(self, status: str) -> None:
        if self.ended is None:
            self.status, self.ended = status, time.time()

    def document(self) -> dict[str, Any]:
        """What is told of it."""
        told: dict[str, Any] = {"startTime": stamp(self.started), "status": self.status, "name": self.id}
        if self.ended is not None:
            told["endTime"] = stamp(self.ended)
        if self.error is not None:
            told["error"] = self.error.document()["error"]
        return told


class Operations:
    """The operations that were accepted.

    Parameters
    ----------
    account
        Of the emulated cloud.
    front
        Base address of the management API.
    """

    def __init__(self, account: Account, front: str) -> None:
        self._account = account
        self._front = front
        self._known: dict[str, Pending] = {}

    def begin(
        self,
        request: Request,
        location: str,
        *,
        status: int = 202,
        body: Any = None,
        then: Callable[[], Any] | None = None,
    ) -> tuple[Pending, Reply]:
        """Accept an operation: it, and how its acceptance is answered."""
        pending = Pending(service=request.service, location=location, then=then)
        self._known[pending.id] = pending
        version = request.query.get("api-version", "")
        base = f"{self._front}/subscriptions/{SUBSCRIPTION}"
        if request.service == "resources":  # groups tell a Location alone
            headers = {"Location": f"{base}/operationresults/{pending.id}?api-version={version}"}
        else:
            base += f"/providers/Microsoft.{request.service.capitalize()}/locations/{location}"
            headers = {
                "Azure-AsyncOperation": f"{base}/operations/{pending.id}?api-version={version}",
                "Location": f"{base}/operationResults/{pending.id}?api-version={version}",
            }
        return pending, Reply(body=body, status=status, headers={**headers, **self._pause()})

    def after(self, pending: Pending, delay_s: float, work: Callable[[], None]) -> None:
        """Do what an operation does, in a while; what it raises is its failure."""

        def act() -> None:
            try:
                work()
            except AzureError as error:
                pending.fail(error)
            else:
                pending.succeed()

        self._account.timers.after(delay_s, act)

    def status(self, id: str) -> Reply:
        """How an operation is: what `Azure-AsyncOperation` leads to."""
        pending = self._find(id)
        return Reply(body=pending.document(), headers={} if pending.ended else self._pause())

    def result(self, id: str) -> Reply:
        """What an operation has come to: what `Location` leads to."""
        pending = self._find(id)
        if pending.ended is None:
            return Reply(status=202, headers={"Location": self._again(pending), **self._pause()})
        if pending.error is not None:
            raise pending.error
        body = pending.then() if pending.then else None
        return Reply(body=body, status=200 if pending.service == "resources" or body is not None else 204)

    def _again(self, pending: Pending) -> str:
        if pending.service == "resources":
            return f"{self._front}/subscriptions/{SUBSCRIPTION}/operationresults/{pending.id}?api-version=2021-04-01"
        place = f"Microsoft.{pending.service.capitalize()}/locations/{pending.location}"
        return (
            f"{self._front}/subscriptions/{SUBSCRIPTION}/providers/{place}/operationResults/{pending.id}"
            "?api-version=2021-04-01"
        )

    def _find(self, id: str) -> Pending:
        if found := self._known.get(id):
            return found
        raise AzureError(404, "NotFound", f"The entity was not found: operation '{id}'.")

    @property
    def quick(self) -> bool:
        """Whether the cloud's time is so short that nobody is told to wait."""
        return self._account.profile.poll_s * self._account.timers.scale < 1

    def _pause(self) -> dict[str, str]:
        """How long to wait before asking; only whole seconds can be said."""
        seconds = self._account.profile.poll_s * self._account.timers.scale
        return {} if self.quick else {"Retry-After": f"{seconds:.0f}"}


def stamp(moment: float) -> str:
    """A time as Azure tells it."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat()
