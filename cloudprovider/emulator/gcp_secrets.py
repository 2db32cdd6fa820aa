"""The embedded Secret Manager: secrets that can expire, and their versions.

https://cloud.google.com/secret-manager/docs/reference/rest
"""

from __future__ import annotations

import base64
import datetime as dt
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gcp_filters
from cloudprovider.emulator.gcp_policies import canonical
from cloudprovider.emulator.gcp_wire import NUMBER, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_iam import Require
    from cloudprovider.emulator.gcp_policies import Policies
    from cloudprovider.emulator.gcp_wire import Request

TYPE = "secretmanager.googleapis.com"
NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64
MOST_BYTES = 64 * 1024
PAGE = 25000
SHORTEST = dt.timedelta(seconds=1)
METHODS = {
    "secrets.create": ("create", "secrets.create"),
    "secrets.get": ("get", "secrets.get"),
    "secrets.list": ("list", "secrets.list"),
    "secrets.patch": ("patch", "secrets.update"),
    "secrets.delete": ("delete", "secrets.delete"),
    "secrets.addVersion": ("add_version", "versions.add"),
    "secrets.getIamPolicy": ("get_policy", "secrets.getIamPolicy"),
    "secrets.setIamPolicy": ("set_policy", "secrets.setIamPolicy"),
    "secrets.testIamPermissions": ("test", ""),
    "secrets.versions.access": ("access", "versions.access"),
    "secrets.versions.get": ("get_version", "versions.get"),
    "secrets.versions.list": ("list_versions", "versions.list"),
    "secrets.versions.destroy": ("destroy_version", "versions.destroy"),
    "secrets.versions.disable": ("disable_version", "versions.disable"),
    "secrets.versions.enable": ("enable_version", "versions.enable"),
}


@dataclass
class _Secret:
    id: str
    document: dict[str, Any]
    versions: list[dict[str, Any]] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"projects/{NUMBER}/secrets/{self.id}"

    @property
    def resource(self) -> str:
        return canonical(self.name)


class SecretManager:
    """The secrets of one project; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud.
    require
        Refuses a call unless who makes it may: `(request, permission, resource, type=…)`.
    policies
        Where those of single secrets are.
    """

    def __init__(self, account: Account, require: Require, policies: Policies) -> None:
        self._account, self._require, self._policies = account, require, policies
        self._secrets: dict[str, _Secret] = {}

    def handler(self, id: str) -> Callable[[Request], Any] | None:
        """What answers a method; None when it is another service's."""
        name = id.removeprefix("secretmanager.projects.")
        return self._call if id != name and name in METHODS else None

    def all(self) -> list[dict[str, Any]]:
        """Every secret that has not expired, newest first."""
        return [dict(one.document) for one in self._live()]

    def _call(self, request: Request) -> Any:
        act, permission = METHODS[request.operation]
        resource = f"projects/{request.arguments['projectsId']}"
        kind = ""
        if id := request.arguments.get("secretsId"):
            resource, kind = f"{resource}/secrets/{id}", f"{TYPE}/Secret"
        if version := request.arguments.get("versionsId"):
            resource, kind = f"{resource}/versions/{version}", f"{TYPE}/SecretVersion"
        with self._account.lock:
            if permission:
                self._require(request, f"secretmanager.{permission}", resource, type=kind)
            return getattr(self, f"_{act}")(request)

    def _live(self) -> list[_Secret]:
        now = _stamp(self._now())
        for id, one in list(self._secrets.items()):
            if one.document.get("expireTime", "~") <= now:
                self._policies.forget(one.resource)
                del self._secrets[id]
        return list(reversed(self._secrets.values()))

    def _now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self._account.faults.ahead_s)

    def _find(self, request: Request) -> _Secret:
        self._live()
        id = request.arguments["secretsId"]
        if id not in self._secrets:
            raise GCPError(404, f"Secret [projects/{NUMBER}/secrets/{id}] not found.")
        return self._secrets[id]

    # -- secrets ---------------------------------------------------------------------------------------

    def _create(self, request: Request) -> Any:
        id, given = request.asked("secretId"), dict(request.body or {})
        if not NAME.fullmatch(id):
            raise GCPError(
                400, f"The provided secret id [{id}] does not match the expected format [{NAME.pattern}]."
            )
        replication = given.get("replication") or {}
        if len(replication) != 1:
            raise GCPError(
                400, "The Secret's replication policy must be specified: automatic or userManaged."
            )
        self._live()
        if id in self._secrets:
            raise GCPError(409, f"Secret [projects/{NUMBER}/secrets/{id}] already exists.")
        one = _Secret(id, {"replication": replication})
        one.document |= self._settings(given, ("labels", "annotations", "ttl", "expireTime"))
        one.document |= {"name": one.name, "createTime": _stamp(self._now()), "etag": _etag()}
        self._secrets[id] = one
        return dict(one.document)

    def _settings(self, given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        """The fields of a secret that its owner sets, an end in place of a time to live."""
        unknown = set(given) - {"labels", "annotations", "ttl", "expireTime", "replication", "etag", "name"}
        if unknown:
            raise GCPError(501, f"The emulated Secret Manager has no {', '.join(sorted(unknown))}.")
        _check_labels(given.get("labels") or {})
        settings = {name: given[name] for name in names if given.get(name) and name != "ttl"}
        if given.get("ttl") and given.get("expireTime"):
            raise GCPError(400, "Only one of ttl and expire_time can be set.")
        if ttl := given.get("ttl"):
            settings["expireTime"] = _stamp(self._now() + dt.timedelta(seconds=float(ttl[:-1])))
        if end := settings.get("expireTime"):
            settings["expireTime"] = _stamp(dt.datetime.fromisoformat(end))
            if settings["expireTime"] < _stamp(self._now() + SHORTEST):
                raise GCPError(400, "Secret expiration must be in the future.")
        return settings

    def _get(self, request: Request) -> Any:
        return dict(self._find(request).document)

    def _list(self, request: Request) -> Any:
        matches = _filter(request)
        every = self._live()
        found = [dict(one.document) for one in every if matches(_searched(one))]
        page = _paged(request, "secrets", found)
        return {**page, "totalSize": 0 if request.asked("filter") else len(every)}

    def _patch(self, request: Request) -> Any:
        one = self._find(request)
        names = tuple(filter(None, request.asked("updateMask").split(",")))
        wrong = sorted(set(names) - {"labels", "annotations", "ttl", "expireTime", "expire_time"})
        if not names or wrong:
            raise GCPError(400, f"The update_mask is empty or has unknown paths: {', '.join(wrong)}.")
        names = tuple("expireTime" if name == "expire_time" else name for name in names)
        settings = self._settings(dict(request.body or {}), names)
        for name in names:
            one.document.pop("expireTime" if name == "ttl" else name, None)
        one.document |= {**settings, "etag": _etag()}
        return dict(one.document)

    def _delete(self, request: Request) -> Any:
        one = self._find(request)
        if request.asked("etag", one.document["etag"]) != one.document["etag"]:
            raise GCPError(400, "The etag of the secret is another.", code="FAILED_PRECONDITION")
        del self._secrets[one.id]
        self._policies.forget(one.resource)
        return {}

    # -- policies --------------------------------------------------------------------------------------

    def _get_policy(self, request: Request) -> Any:
        version = int(request.asked("options.requestedPolicyVersion", "1"))
        return self._policies.get(self._find(request).resource, version)

    def _set_policy(self, request: Request) -> Any:
        return self._policies.set(self._find(request).resource, (request.body or {}).get("policy") or {})

    def _test(self, request: Request) -> Any:
        one, held = self._find(request), []
        for permission in (request.body or {}).get("permissions", ()):
            try:
                self._require(request, permission, one.resource, type=f"{TYPE}/Secret")
            except GCPError:
                continue
            held.append(permission)
        return {"permissions": held} if held else {}

    # -- versions --------------------------------------------------------------------------------------

    def _add_version(self, request: Request) -> Any:
        one, payload = self._find(request), (request.body or {}).get("payload") or {}
        data = base64.b64decode(payload.get("data", "").replace("-", "+").replace("_", "/"))
        if not 1 <= len(data) <= MOST_BYTES:
            raise GCPError(400, f"The secret payload must be between 1 byte and {MOST_BYTES} bytes.")
        checked, sum = "dataCrc32c" in payload, crc32c(data)
        if checked and int(payload["dataCrc32c"]) != sum:
            raise GCPError(400, "The checksum of the payload does not match.")
        made = {
            "name": f"{one.name}/versions/{len(one.versions) + 1}",
            "createTime": _stamp(self._now()),
            "state": "ENABLED",
            "replicationStatus": {"automatic": {}},
            "etag": _etag(),
            **({"clientSpecifiedPayloadChecksum": True} if checked else {}),
        }
        one.versions.append(made)
        one.payloads.append(data)
        one.sums.append(sum)
        return dict(made)

    def _version(self, request: Request) -> tuple[_Secret, int]:
        one, given = self._find(request), request.arguments["versionsId"]
        index = len(one.versions) if given == "latest" else int(given) if given.isdecimal() else 0
        if not 1 <= index <= len(one.versions):
            raise GCPError(404, f"Secret Version [{one.name}/versions/{given}] not found.")
        return one, index - 1

    def _access(self, request: Request) -> Any:
        one, index = self._version(request)
        version, data = one.versions[index], one.payloads[index]
        if version["state"] != "ENABLED":
            message = f"Secret Version [{version['name']}] is in {version['state']} state."
            raise GCPError(400, message, code="FAILED_PRECONDITION")
        payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(one.sums[index])}
        return {"name": version["name"], "payload": payload}

    def _get_version(self, request: Request) -> Any:
        one, index = self._version(request)
        return dict(one.versions[index])

    def _list_versions(self, request: Request) -> Any:
        one, matches = self._find(request), _filter(request)
        found = [dict(version) for version in reversed(one.versions) if matches(version)]
        return {
            **_paged(request, "versions", found),
            "totalSize": 0 if request.asked("filter") else len(found),
        }

    def _destroy_version(self, request: Request) -> Any:
        one, index = self._version(request)
        one.payloads[index] = b""
        return self._changed(one, index, "DESTROYED")

    def _disable_version(self, request: Request) -> Any:
        return self._changed(*self._version(request), "DISABLED")

    def _enable_version(self, request: Request) -> Any:
        return self._changed(*self._version(request), "ENABLED")

    def _changed(self, one: _Secret, index: int, state: str) -> Any:
        version = one.versions[index]
        if version["state"] == "DESTROYED":
            message = f"Secret Version [{version['name']}] is in DESTROYED state."
            raise GCPError(400, message, code="FAILED_PRECONDITION")
        more = {"destroyTime": _stamp(self._now())} if state == "DESTROYED" else {}
        version |= {"state": state, "etag": _etag(), **more}
        return dict(version)


def crc32c(data: bytes) -> int:
    """The checksum of payloads (Castagnoli's polynomial): https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4 ."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _check_labels(labels: dict[str, str]) -> None:
    if len(labels) > MOST_LABELS:
        raise GCPError(400, f"A secret has at most {MOST_LABELS} labels.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise GCPError(400, f"The label [{key}: {value}] does not match the expected format.")


def _searched(one: _Secret) -> dict[str, Any]:
    return {
        **one.document,
        "create_time": one.document["createTime"],
        "expire_time": one.document.get("expireTime"),
    }


def _filter(request: Request) -> gcp_filters.Filter:
    try:
        return gcp_filters.parsed(request.asked("filter"))
    except gcp_filters.FilterError as error:
        raise GCPError(400, f"The filter [{request.asked('filter')}] is invalid: {error}.") from error


def _paged(request: Request, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    size = min(int(request.asked("pageSize", "0")) or PAGE, PAGE)
    start = int(request.asked("pageToken") or 0)
    more = {"nextPageToken": str(start + size)} if start + size < len(found) else {}
    page = found[start : start + size]
    return {**({name: page} if page else {}), **more}


def _stamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _etag() -> str:
    return f'"{secrets.token_hex(7)}"'
