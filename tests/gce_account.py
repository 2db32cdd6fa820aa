"""A project of the embedded Google Cloud, through Google's own client of Compute Engine."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import cached_property
from typing import Any

ZONE, REGION = "us-central1-a", "us-central1"
COS = "projects/cos-cloud/global/images/family/cos-stable"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


class Project:
    """The clients of one emulated cloud, each made when it is first asked for, and what tests do with them.

    Parameters
    ----------
    cloud
        The emulated cloud.
    """

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self._clients: dict[str, Any] = {}

    @cached_property
    def credentials(self) -> Any:
        """What google-auth finds in the environment, now."""
        import google.auth

        return google.auth.default(scopes=[PLATFORM])[0]

    @property
    def id(self) -> str:
        """The project."""
        return str(self.cloud.environ["GOOGLE_CLOUD_PROJECT"])

    def client(self, name: str) -> Any:
        """Such as `instances` or `zone_operations`."""
        from google.cloud import compute_v1

        if name not in self._clients:
            kind = getattr(compute_v1, "".join(part.title() for part in name.split("_")) + "Client")
            options = {"api_endpoint": self.cloud.endpoint}
            self._clients[name] = kind(credentials=self.credentials, client_options=options)
        return self._clients[name]

    def ask(self, client: str, method: str, **request: Any) -> Any:
        """One call, in the first zone where it wants a zone."""
        ask = getattr(self.client(client), method)
        return ask(request={"project": self.id, **request}, retry=None, timeout=60)

    def web(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        """A call with no client: the status, and the document of the answer."""
        if token is None:
            import google.auth.transport.requests

            self.credentials.refresh(google.auth.transport.requests.Request())
            token = self.credentials.token
        request = urllib.request.Request(
            f"{self.cloud.endpoint}{path.format(project=self.id)}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def metadata(self, machine: str, path: str, flavor: str | None = "Google", **query: str) -> Any:
        """What a machine's metadata server answers: a text, or the status of a refusal."""
        url = f"{self.cloud.endpoint}/_cloud/gce/{machine}/computeMetadata/v1/{path}"
        url += f"?{urllib.parse.urlencode(query)}" if query else ""
        request = urllib.request.Request(url, headers={"Metadata-Flavor": flavor} if flavor else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    # -- machines ------------------------------------------------------------------------------------

    def body(self, name: str = "", zone: str = ZONE, **changes: Any) -> dict[str, Any]:
        """An instance that Compute Engine takes; with no name the properties of a bulk."""
        kind = changes.pop("machine_type", "n2-standard-2")
        body: dict[str, Any] = {
            "machine_type": f"zones/{zone}/machineTypes/{kind}" if name else kind,
            "disks": [disk()],
            "network_interfaces": [{"network": "global/networks/default"}],
        }
        if name:
            body["name"] = name
        return {**body, **changes}

    def insert(self, name: str, zone: str = ZONE, request_id: str = "", **changes: Any) -> Any:
        """Order an instance; its operation."""
        once = {"request_id": request_id} if request_id else {}
        body = self.body(name, zone, **changes)
        return self.ask("instances", "insert_unary", zone=zone, instance_resource=body, **once)

    def bulk(self, count: int, zone: str = "", **changes: Any) -> Any:
        """Order many, in the zones of the region unless one is named; the operation."""
        own: dict[str, Any] = {
            key: changes.pop(key)
            for key in ("min_count", "name_pattern", "per_instance_properties", "location_policy")
            if key in changes
        }
        if "per_instance_properties" not in own:
            own = {"name_pattern": "w-###", **own}
        resource = {"count": count, "instance_properties": self.body(**changes), **own}
        client = "instances" if zone else "region_instances"
        where = {"zone": zone} if zone else {"region": REGION}
        return self.ask(client, "bulk_insert_unary", bulk_insert_instance_resource_resource=resource, **where)

    def done(self, operation: Any) -> Any:
        """The operation once it is done."""
        from google.cloud import compute_v1

        deadline = time.monotonic() + 60
        while operation.status != compute_v1.Operation.Status.DONE:
            assert time.monotonic() < deadline, operation
            if operation.zone:
                where = {"zone": operation.zone.rpartition("/")[2]}
                operation = self.ask("zone_operations", "wait", operation=operation.name, **where)
            elif operation.region:
                where = {"region": operation.region.rpartition("/")[2]}
                operation = self.ask("region_operations", "wait", operation=operation.name, **where)
            else:
                operation = self.ask("global_operations", "wait", operation=operation.name)
        return operation

    def run(self, name: str, **changes: Any) -> Any:
        """An instance that runs."""
        operation = self.done(self.insert(name, **changes))
        assert not operation.error.errors, operation
        return self.get(name, changes.get("zone", ZONE))

    def get(self, name: str, zone: str = ZONE) -> Any:
        """An instance as it is now."""
        return self.ask("instances", "get", zone=zone, instance=name)

    def names(self, filter: str = "", **request: Any) -> dict[str, list[str]]:
        """The instances by zone."""
        found: dict[str, list[str]] = {}
        for scope, some in self.ask("instances", "aggregated_list", filter=filter, **request):
            if some.instances:
                found.setdefault(scope.rpartition("/")[2], []).extend(one.name for one in some.instances)
        return found

    def delete(self, name: str, zone: str = ZONE) -> Any:
        """Let one be gone; the operation once it is."""
        return self.done(self.ask("instances", "delete_unary", zone=zone, instance=name))

    def wait(self, name: str, status: str, timeout_s: float = 60) -> Any:
        """The instance once it has a status."""
        deadline = time.monotonic() + timeout_s
        while (found := self.get(name)).status != status:
            assert time.monotonic() < deadline, found.status
            time.sleep(0.05)
        return found

    def console(self, name: str, wanted: str, timeout_s: float = 60) -> str:
        """The serial console, once it has a word."""
        deadline = time.monotonic() + timeout_s
        text = ""
        while wanted not in text:
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
            text = str(self.ask("instances", "get_serial_port_output", zone=ZONE, instance=name).contents)
        return text


def disk(size_gb: int = 10, kind: str = "pd-balanced", image: str = COS, **changes: Any) -> dict[str, Any]:
    """A boot disk that goes with its machine."""
    asked = {"source_image": image, "disk_size_gb": size_gb, "disk_type": f"zones/{ZONE}/diskTypes/{kind}"}
    return {"boot": True, "auto_delete": True, "initialize_params": asked, **changes}


def script(*commands: str) -> dict[str, Any]:
    """Metadata whose user data runs commands of a shell."""
    text = json.dumps({"runcmd": list(commands)}).join(("#cloud-config\n", "\n"))
    return {"items": [{"key": "user-data", "value": text}]}


def spot(**more: Any) -> dict[str, Any]:
    """How a Spot VM is scheduled."""
    return {"provisioning_model": "SPOT", **more}
