"""What Google's predefined roles allow, as far as those who start machines need them, and a project's own roles.

https://cloud.google.com/iam/docs/roles-permissions
"""

from __future__ import annotations

import re
import secrets
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gcp_wire import PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import RLock

SEEN = ("resourcemanager.projects.get", "resourcemanager.projects.list")
USED = ("serviceusage.quotas.get", "serviceusage.services.get", "serviceusage.services.list")
READ = ("*.get", "*.list", "*.getIamPolicy", "*.aggregatedList", "compute.instances.getSerialPortOutput")
NETWORKS = tuple(
    f"compute.{kind}.*"
    for kind in ("addresses", "globalAddresses", "networks", "routers", "routes", "subnetworks")
)
#: Permissions as patterns; one that begins with `!` takes away what those before it gave.
PREDEFINED: dict[str, tuple[str, ...]] = {
    "roles/owner": ("*",),
    "roles/editor": ("*", "!*.setIamPolicy", "!iam.roles.*", "!secretmanager.versions.access"),
    "roles/viewer": (*READ, "!secretmanager.versions.access"),
    "roles/compute.admin": ("compute.*", *SEEN, *USED),
    "roles/compute.instanceAdmin.v1": (
        *(f"compute.{kind}.*" for kind in ("instances", "disks", "images", "instanceTemplates", "snapshots")),
        *("compute.addresses.use", "compute.subnetworks.use", "compute.subnetworks.useExternalIp"),
        *("compute.*.get", "compute.*.list", "compute.networks.use", "compute.networks.useExternalIp"),
        *SEEN,
        *USED,
        "!compute.instances.setIamPolicy",
    ),
    "roles/compute.networkAdmin": (
        *NETWORKS,
        *(
            "compute.firewalls.get",
            "compute.firewalls.list",
            "compute.instances.get",
            "compute.instances.list",
        ),
        *SEEN,
        *USED,
        "!*.setIamPolicy",
    ),
    "roles/compute.networkUser": (
        *("compute.networks.get", "compute.networks.list", "compute.networks.use"),
        *("compute.networks.useExternalIp", "compute.subnetworks.get", "compute.subnetworks.list"),
        *("compute.subnetworks.use", "compute.subnetworks.useExternalIp", "compute.firewalls.get"),
        *("compute.firewalls.list", *SEEN, *USED),
    ),
    "roles/compute.securityAdmin": (
        *("compute.firewalls.*", "compute.firewallPolicies.*", "compute.sslCertificates.*"),
        *("compute.networks.get", "compute.networks.list", "compute.networks.updatePolicy"),
        *SEEN,
        *USED,
    ),
    "roles/compute.viewer": ("compute.*.get", "compute.*.list", *READ[-1:], *SEEN, *USED),
    "roles/compute.osLogin": ("compute.instances.get", "compute.instances.list", "compute.instances.osLogin"),
    "roles/compute.osAdminLogin": (
        *("compute.instances.get", "compute.instances.list"),
        *("compute.instances.osAdminLogin", "compute.instances.osLogin"),
    ),
    "roles/iam.serviceAccountUser": (
        *("iam.serviceAccounts.actAs", "iam.serviceAccounts.get", "iam.serviceAccounts.list", *SEEN),
    ),
    "roles/iam.serviceAccountAdmin": ("iam.serviceAccounts.*", "!iam.serviceAccounts.actAs", *SEEN),
    "roles/iam.serviceAccountCreator": (
        *("iam.serviceAccounts.create", "iam.serviceAccounts.get", "iam.serviceAccounts.list", *SEEN),
    ),
    "roles/iam.serviceAccountKeyAdmin": (
        *("iam.serviceAccountKeys.*", "iam.serviceAccounts.get", "iam.serviceAccounts.list", *SEEN),
    ),
    "roles/iam.roleAdmin": ("iam.roles.*", *SEEN, "resourcemanager.projects.getIamPolicy"),
    "roles/iap.tunnelResourceAccessor": ("iap.tunnelInstances.accessViaIAP",),
    "roles/logging.admin": ("logging.*", *SEEN),
    "roles/logging.configWriter": ("logging.buckets.*", "logging.sinks.*", *SEEN),
    "roles/logging.logWriter": ("logging.logEntries.create", "logging.logEntries.route"),
    "roles/logging.viewer": (
        *(
            "logging.buckets.get",
            "logging.buckets.list",
            "logging.logEntries.list",
            "logging.logs.list",
            *SEEN,
        ),
    ),
    "roles/monitoring.metricWriter": ("monitoring.timeSeries.create", "monitoring.metricDescriptors.create"),
    "roles/resourcemanager.projectIamAdmin": (*SEEN, "resourcemanager.projects.*IamPolicy"),
    "roles/secretmanager.admin": ("secretmanager.*", *SEEN),
    "roles/secretmanager.secretAccessor": ("secretmanager.versions.access", *SEEN),
    "roles/secretmanager.secretVersionAdder": ("secretmanager.versions.add", *SEEN),
    "roles/secretmanager.viewer": (
        *("secretmanager.secrets.get", "secretmanager.secrets.list", "secretmanager.secrets.getIamPolicy"),
        *("secretmanager.versions.get", "secretmanager.versions.list", *SEEN),
    ),
    "roles/serviceusage.serviceUsageAdmin": ("serviceusage.services.*", "serviceusage.operations.*", *SEEN),
    "roles/serviceusage.serviceUsageConsumer": (*USED, "serviceusage.services.use"),
}
ROLE_ID = re.compile(r"[A-Za-z0-9_.]{3,64}")
PERMISSION = re.compile(r"[a-z][a-z0-9-]*\.[A-Za-z][A-Za-z0-9]*\.[A-Za-z][A-Za-z0-9]*")


class Roles:
    """The roles that a project can bind; its own are made and changed here.

    Parameters
    ----------
    lock
        Held for each change.
    """

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._own: dict[str, dict[str, Any]] = {}

    def allows(self, role: str, permission: str) -> bool:
        """Whether a role has a permission."""
        if role in PREDEFINED:
            allowed = False
            for pattern in PREDEFINED[role]:
                if fnmatchcase(permission, pattern.removeprefix("!")):
                    allowed = not pattern.startswith("!")
            return allowed
        own = self._own.get(role, {})
        return not own.get("deleted") and permission in own.get("includedPermissions", ())

    def has(self, role: str) -> bool:
        """Whether a role can be bound."""
        return role in PREDEFINED or (role in self._own and not self._own[role].get("deleted"))

    def own(self) -> list[dict[str, Any]]:
        """The project's own, the deleted ones included."""
        return [dict(role) for role in self._own.values()]

    def create(self, id: str, role: dict[str, Any]) -> dict[str, Any]:
        """Make a role."""
        name = f"projects/{PROJECT}/roles/{id}"
        if not ROLE_ID.fullmatch(id):
            raise GCPError(400, f"The role_id {id} must match the regular expression '{ROLE_ID.pattern}'.")
        with self._lock:
            if self._own.get(name, {}).get("deleted"):
                message = f"You can't create a role with role_id ({id}) where there is an existing role with that role_id in a deleted state."
                raise GCPError(400, message, code="FAILED_PRECONDITION")
            if name in self._own:
                raise GCPError(409, f"A role named {id} in projects/{PROJECT} already exists.")
            self._own[name] = made = {"stage": "ALPHA", **_checked(role), "name": name, "etag": _etag()}
            return dict(made)

    def get(self, name: str) -> dict[str, Any]:
        """A role, as `projects/P/roles/ID` or `roles/ID`."""
        if name in PREDEFINED:
            return {"name": name, "title": name.partition("/")[2], "stage": "GA", "etag": "AA=="}
        if name not in self._own:
            raise GCPError(404, f"The role named {name} was not found.")
        return dict(self._own[name])

    def patch(self, name: str, role: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
        """Change these fields of a role; all that are given when none is named."""
        with self._lock:
            was = self.get(name)
            if was.get("deleted"):
                raise GCPError(400, f"The role {name} is deleted.", code="FAILED_PRECONDITION")
            if role.get("etag", was["etag"]) != was["etag"]:
                raise GCPError(409, "There were concurrent role changes.", code="ABORTED")
            changed = {key: value for key, value in _checked(role).items() if not fields or key in fields}
            self._own[name] = {**was, **changed, "etag": _etag()}
            return dict(self._own[name])

    def delete(self, name: str, *, deleted: bool = True) -> dict[str, Any]:
        """Delete a role, which it stays for seven days; or not."""
        with self._lock:
            role = self.get(name)
            if bool(role.pop("deleted", False)) is deleted:
                state = "already deleted" if deleted else "not deleted"
                raise GCPError(400, f"The role {name} is {state}.", code="FAILED_PRECONDITION")
            self._own[name] = {**role, "etag": _etag(), **({"deleted": True} if deleted else {})}
            return dict(self._own[name])


def _checked(role: dict[str, Any]) -> dict[str, Any]:
    for permission in role.get("includedPermissions", ()):
        if not PERMISSION.fullmatch(permission):
            raise GCPError(400, f"Permission {permission} is not valid.")
    return {key: role[key] for key in ("title", "description", "includedPermissions", "stage") if key in role}


def _etag() -> str:
    return f"BwX{secrets.token_hex(4)}="
