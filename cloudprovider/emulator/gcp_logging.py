"""The embedded Cloud Logging: entries, by filter, and how long the project's buckets keep them.

https://cloud.google.com/logging/docs/reference/v2/rest
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
from bisect import insort
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gcp_filters
from cloudprovider.emulator.gcp_policies import canonical
from cloudprovider.emulator.gcp_wire import PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_iam import Require
    from cloudprovider.emulator.gcp_wire import Request

METHODS = {
    "entries.list": "_list",
    "entries.write": "_write",
    "locations.buckets.get": "_get_bucket",
    "locations.buckets.patch": "_patch_bucket",
    "locations.buckets.list": "_list_buckets",
}
#: What every project has, and the days that it keeps entries: https://cloud.google.com/logging/quotas#logs_retention_periods
BUCKETS = {"_Default": 30, "_Required": 400}
LONGEST_DAYS = 3650
PAGE, MOST = 50, 1000
DOCKER, CONSOLE = "gcplogs-docker-driver", "serialconsole.googleapis.com%2Fserial_port_1_output"
PAYLOADS = ("textPayload", "jsonPayload", "protoPayload")


class Logging:
    """The log entries of one project; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud.
    require
        Refuses a call unless who makes it may: `(request, permission, resource)`.
    """

    def __init__(self, account: Account, require: Require) -> None:
        self._account, self._require = account, require
        self._entries: list[dict[str, Any]] = []
        # Not the account's: a machine writes while it holds its console, which the account's may wait for.
        self._lock = threading.Lock()
        self._days = dict(BUCKETS)

    def handler(self, id: str) -> Callable[[Request], Any] | None:
        """What answers a method; None when it is another service's."""
        name = METHODS.get(id.removeprefix("logging.").removeprefix("projects."))
        return getattr(self, name) if id.startswith("logging.") and name else None

    # -- entries ---------------------------------------------------------------------------------------

    def add(
        self,
        entries: Iterable[dict[str, Any]],
        *,
        log: str,
        resource: dict[str, Any],
        labels: dict[str, str] | None = None,
    ) -> None:
        """Keep entries, each with what it has not of itself: a time, an id, a log, a resource, labels."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with self._lock:
            for given in entries:
                entry = {
                    "logName": log,
                    "resource": resource,
                    "insertId": secrets.token_hex(8),
                    "timestamp": now,
                    **given,
                }
                entry["receiveTimestamp"] = now
                if all_labels := {**(labels or {}), **given.get("labels", {})}:
                    entry["labels"] = all_labels
                entry["resource"] = _placed(entry["resource"])
                insort(self._entries, entry, key=_order)

    def of_container(self, *, id: str, name: str, zone: str, container: str, lines: Iterable[str]) -> None:
        """Keep lines as Docker's driver `gcplogs` sends them.

        https://docs.docker.com/engine/logging/drivers/gcplogs/

        Parameters
        ----------
        id, name, zone
            Of the machine, as its metadata server tells them: `1234567890`, `dask-a-w-1`, `us-central1-a`.
        container
            Its name.
        lines
            Without their ends.
        """
        machine = {"zone": zone, "name": name, "id": id}
        self.add(
            (
                {
                    "jsonPayload": {
                        "instance": machine,
                        "container": {"name": f"/{container}"},
                        "message": line,
                    }
                }
                for line in lines
            ),
            log=f"projects/{PROJECT}/logs/{DOCKER}",
            resource={"type": "gce_instance", "labels": {"instance_id": id, "zone": zone}},
        )

    def of_console(self, *, id: str, name: str, zone: str, lines: Iterable[str]) -> None:
        """Keep lines of a machine's serial console.

        https://cloud.google.com/compute/docs/troubleshooting/viewing-serial-port-output

        Parameters
        ----------
        id, name, zone
            Of the machine, as its metadata server tells them.
        lines
            Without their ends.
        """
        self.add(
            ({"textPayload": line} for line in lines),
            log=f"projects/{PROJECT}/logs/{CONSOLE}",
            resource={"type": "gce_instance", "labels": {"instance_id": id, "zone": zone}},
            labels={"compute.googleapis.com/resource_name": name},
        )

    def _write(self, request: Request) -> Any:
        body = request.body or {}
        entries = body.get("entries") or []
        for log in {str(one.get("logName") or body.get("logName", "")) for one in entries} or {
            f"projects/{PROJECT}/logs/"
        }:
            parts = canonical(log).split("/")
            if len(parts) != len(("projects", PROJECT, "logs", "NAME")) or parts[2] != "logs":
                raise GCPError(
                    400, f"Invalid log name {log!r}: it must be projects/[PROJECT_ID]/logs/[LOG_ID]."
                )
            self._require(request, "logging.logEntries.create", "/".join(parts[:2]))
        for one in entries:
            if not (one.get("resource") or body.get("resource")):
                raise GCPError(400, "A monitored resource must be specified for each log entry.")
            if len([name for name in PAYLOADS if name in one]) > 1:
                raise GCPError(400, "A log entry has one payload.")
        if not body.get("dryRun"):
            self.add(
                entries,
                log=body.get("logName", ""),
                resource=body.get("resource", {}),
                labels=body.get("labels"),
            )
        return {}

    def _list(self, request: Request) -> Any:
        body = request.body or {}
        names = body.get("resourceNames") or []
        if not names:
            raise GCPError(400, "At least one resource name must be specified.")
        for name in names:
            self._require(request, "logging.logEntries.list", "/".join(canonical(name).split("/")[:2]))
        size, start = body.get("pageSize") or PAGE, int(body.get("pageToken") or 0)
        if size < 0 or body.get("orderBy", "timestamp asc") not in ("timestamp asc", "timestamp desc"):
            raise GCPError(
                400, "page_size must not be negative; order_by must be 'timestamp asc' or 'timestamp desc'."
            )
        try:
            matches = gcp_filters.parsed(body.get("filter", ""))
        except gcp_filters.FilterError as error:
            raise GCPError(400, f"Unparseable filter: {error}") from error
        oldest = self._oldest(body.get("filter", ""))
        with self._lock:
            found = [one for one in self._entries if one["timestamp"] >= oldest and matches(one)]
        if body.get("orderBy") == "timestamp desc":
            found.reverse()
        page = found[start : start + min(size, MOST)]
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(found) else {}
        return {**({"entries": page} if page else {}), **more}

    def _oldest(self, filter: str) -> str:
        """The last day is what is shown, unless a filter speaks of time; what is no more kept never is.

        https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
        """
        days = self._days["_Default"] if "timestamp" in filter else 1
        return (dt.datetime.now(dt.UTC) - dt.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    # -- buckets ---------------------------------------------------------------------------------------

    def _bucket(self, request: Request, permission: str) -> str:
        self._require(request, f"logging.buckets.{permission}", f"projects/{request.arguments['projectsId']}")
        if (id := request.arguments["bucketsId"]) not in self._days or request.arguments[
            "locationsId"
        ] != "global":
            raise GCPError(404, f"Bucket {id} does not exist.")
        return id

    def _get_bucket(self, request: Request) -> Any:
        return self._shown(self._bucket(request, "get"))

    def _list_buckets(self, request: Request) -> Any:
        self._require(request, "logging.buckets.list", f"projects/{request.arguments['projectsId']}")
        return {"buckets": [self._shown(id) for id in self._days]}

    def _patch_bucket(self, request: Request) -> Any:
        id = self._bucket(request, "update")
        if request.asked("updateMask") not in ("retentionDays", "retention_days"):
            raise GCPError(501, "The emulated Cloud Logging changes the retentionDays of a bucket alone.")
        days = (request.body or {}).get("retentionDays") or BUCKETS["_Default"]
        if id == "_Required":
            raise GCPError(400, "The bucket _Required cannot be modified.")
        if not 1 <= days <= LONGEST_DAYS:
            raise GCPError(400, f"retention_days must be between 1 and {LONGEST_DAYS}.")
        self._days[id] = days
        return self._shown(id)

    def _shown(self, id: str) -> dict[str, Any]:
        return {
            "name": f"projects/{PROJECT}/locations/global/buckets/{id}",
            "retentionDays": self._days[id],
            "lifecycleState": "ACTIVE",
            "locked": id == "_Required",
        }


def _order(entry: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(entry["timestamp"]).timestamp()


def _placed(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource with its project, which the service adds."""
    return {**resource, "labels": {"project_id": PROJECT, **resource.get("labels", {})}}
