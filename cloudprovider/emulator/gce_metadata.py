"""The metadata server of instances: who a machine is, what it was told, and when it is taken away.

https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cloudprovider.emulator import gce_catalogue
from cloudprovider.emulator.gce_machine import LIVE
from cloudprovider.emulator.gcp_wire import NUMBER, PROJECT, UNIVERSE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.gce_instances import Instances
    from cloudprovider.emulator.gce_machine import LiveInstance
    from cloudprovider.emulator.gcp_services import GCPServices
    from cloudprovider.emulator.server import Answer

FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
LONGEST_WAIT_S = 600.0

#: What is not there has no text; what is there may be computed when it is asked for.
Tree = dict[str, Any]


class Metadata:
    """Answers what instances ask of their metadata server, at `ID/computeMetadata/v1/…`."""

    def __init__(self, instances: Instances, services: GCPServices) -> None:
        self._instances, self._services = instances, services

    def answer(self, method: str, rest: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        del body
        parts = urlsplit(rest)
        id, _, path = parts.path.partition("/")
        try:
            instance = self._instances.named(id)
        except LookupError:
            return _said(404, "")
        if instance.state not in LIVE:
            return _said(503, "")
        if not path.strip("/"):  # by this Google's libraries know that they are on an instance
            return _said(200, "computeMetadata/\n")
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return _refused(method, path, headers) or self._asked(
            instance, path.removeprefix("computeMetadata/v1"), query
        )

    def _asked(self, instance: LiveInstance, path: str, query: Mapping[str, str]) -> Answer:
        first = self._found(instance, path, query)
        if query.get("wait_for_change") != "true":
            return first
        last = query.get("last_etag", _etag(first[2]))
        until = time.monotonic() + min(float(query.get("timeout_sec") or LONGEST_WAIT_S), LONGEST_WAIT_S)
        while _etag(first[2]) == last and time.monotonic() < until and instance.state in LIVE:
            with instance.changed:
                instance.changed.wait(min(1.0, until - time.monotonic()))
            first = self._found(instance, path, query)
        return first

    def _found(self, instance: LiveInstance, path: str, query: Mapping[str, str]) -> Answer:
        node: Any = self._tree(instance)
        kind = "application/text"
        for part in [part for part in path.split("/") if part]:
            if not isinstance(node, dict) or part not in node:
                return _said(404, "")
            node = node[part]
            if callable(node):
                node = node(query)
                kind = (
                    "application/json" if str(node).startswith("{") else kind
                )  # tokens are, and lists never
        if not isinstance(node, dict):
            text = json.dumps(node) if query.get("alt") == "json" or isinstance(node, list) else str(node)
            return _said(200, text, kind=kind, etag=True)
        if query.get("recursive") == "true":
            return _said(200, json.dumps(_whole(node)), kind="application/json", etag=True)
        if not path.endswith("/"):
            return (
                301,
                {**FLAVOR, "Location": f"http://metadata.google.internal/computeMetadata/v1{path}/"},
                b"",
            )
        return _said(200, "".join(f"{name}/\n" if _is_folder(one) else f"{name}\n" for name, one in sorted(node.items())), etag=True)  # fmt: skip

    # -- what there is -------------------------------------------------------------------------------

    def _tree(self, instance: LiveInstance) -> Tree:
        return {
            "instance": self._instance(instance),
            "oslogin": {},
            "project": {
                "attributes": {},
                "numeric-project-id": NUMBER,
                "project-id": PROJECT,
            },
            "universe": {"universe-domain": UNIVERSE},
        }

    def _instance(self, instance: LiveInstance) -> Tree:
        project, scheduling = f"projects/{NUMBER}", instance.scheduling
        document = instance.describe()
        host = f"{instance.name}.{instance.zone}.c.{PROJECT}.internal"
        return {
            "attributes": dict(instance.attributes),
            "cpu-platform": gce_catalogue.cpu_platform(instance.type),
            "description": instance.order.given.get("description", ""),
            "disks": {str(one["index"]): _disk(one) for one in document["disks"]},
            "hostname": host,
            "id": document["id"],
            "image": str((instance.order.disks[0].image or {}).get("selfLink", "")).partition("/v1/")[2],
            "machine-type": f"{project}/machineTypes/{instance.type}",
            "maintenance-event": instance.maintenance,
            "name": instance.name,
            "network-interfaces": {"0": _interface(instance)},
            "preempted": "TRUE" if instance.preempted else "FALSE",
            "scheduling": {
                "automatic-restart": str(scheduling["automaticRestart"]).upper(),
                "on-host-maintenance": scheduling["onHostMaintenance"],
                "preemptible": str(scheduling["preemptible"]).upper(),
            },
            "service-accounts": self._accounts(instance),
            "tags": list(instance.tags["items"]),
            "zone": f"{project}/zones/{instance.zone}",
        }

    def _accounts(self, instance: LiveInstance) -> Tree:
        email, scopes = instance.order.email, instance.order.scopes
        if not email:
            return {}
        account = {
            "aliases": "default",
            "email": email,
            "identity": lambda query: self._identity(instance, query),
            "scopes": "\n".join(scopes) + "\n",
            "token": lambda _: json.dumps(self._services.tokens.token(email, scopes)),
        }
        return {"default": account, email: account}

    def _identity(self, instance: LiveInstance, query: Mapping[str, str]) -> str:
        """A token that says who the machine is to others; nobody here takes it, so it is not signed."""
        now = int(time.time())
        claims = {
            "aud": query.get("audience", ""),
            "azp": NUMBER,
            "email": instance.order.email,
            "email_verified": True,
            "exp": now + 3600,
            "iat": now,
            "iss": "https://accounts.google.com",
            "sub": NUMBER,
        }
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        return ".".join([_encoded(json.dumps(one).encode()) for one in parts] + [""])


def _refused(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
    """What is answered to who does not ask as they should; None to who does."""
    lowered = {name.lower(): value for name, value in headers.items()}
    if not path.startswith("computeMetadata/v1"):
        return _said(404, "")
    if "x-forwarded-for" in lowered:  # a proxy that asks on behalf of others gets nothing
        return _said(403, "Request came from a proxy.")
    if lowered.get("metadata-flavor") != "Google":
        return _said(403, "Missing Metadata-Flavor:Google header.")
    return None if method == "GET" else _said(405, "")


def _is_folder(node: Any) -> bool:
    return isinstance(node, dict)


def _whole(node: Tree) -> Tree:
    """A folder with all that is in it, by names as JSON has them; folders of numbers are lists."""
    if node and all(name.isdigit() for name in node):
        return [_whole(one) for one in node.values()]  # type: ignore[return-value]
    return {
        name if "@" in name else _camel(name): _whole(one) if isinstance(one, dict) else _plain(name, one)
        for name, one in node.items()
        if not callable(one)
    }


def _plain(name: str, value: Any) -> Any:
    """A value as recursive answers tell it."""
    if name in ("id", "numeric-project-id"):
        return int(value)
    if name == "scopes":
        return value.split()
    return [value] if name == "aliases" else value


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(word.title() for word in others)


def _disk(disk: Mapping[str, Any]) -> Tree:
    return {
        "device-name": disk["deviceName"],
        "index": str(disk["index"]),
        "interface": disk["interface"],
        "mode": disk["mode"],
        "type": "PERSISTENT-BALANCED" if disk["type"] == "PERSISTENT" else "LOCAL-SSD",
    }


def _interface(instance: LiveInstance) -> Tree:
    found: Tree = {
        "access-configs": {},
        "ip": instance.address,
        "mac": "42:01:" + ":".join(f"{int(part):02x}" for part in instance.address.split(".")),
        "mtu": "1460",
        "network": f"projects/{NUMBER}/networks/{instance.network.rpartition('/')[2]}",
    }
    if instance.order.public:
        found["access-configs"] = {"0": {"external-ip": instance.public_address, "type": "ONE_TO_ONE_NAT"}}
    return found


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def _said(status: int, text: str, *, kind: str = "application/text", etag: bool = False) -> Answer:
    body = text.encode()
    headers = {**FLAVOR, "Content-Type": kind}
    return status, headers | ({"ETag": _etag(body)} if etag else {}), body
