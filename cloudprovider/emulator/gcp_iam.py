"""The embedded IAM and Resource Manager: service accounts, their keys, roles, and policies.

https://cloud.google.com/iam/docs/reference/rest https://cloud.google.com/resource-manager/reference/rest
"""

from __future__ import annotations

import base64
import datetime as dt
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gcp_policies import WITH_CONDITIONS, Policies
from cloudprovider.emulator.gcp_roles import Roles
from cloudprovider.emulator.gcp_tokens import Tokens, downloaded
from cloudprovider.emulator.gcp_wire import DEFAULT_ACCOUNT, NUMBER, PERSON, PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_wire import Request

    Require = Callable[..., None]

ACCOUNT_ID = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])")
ID_LENGTHS = range(6, 31)
PAGE = 100
#: What is answered, and the permission that it takes, on the project or on the resource that the path names.
PROJECT_METHODS = {
    "iam.projects.serviceAccounts.create": ("create_account", "iam.serviceAccounts.create"),
    "iam.projects.serviceAccounts.list": ("list_accounts", "iam.serviceAccounts.list"),
    "iam.projects.roles.create": ("create_role", "iam.roles.create"),
    "iam.projects.roles.list": ("list_roles", "iam.roles.list"),
    "iam.projects.roles.get": ("get_role", "iam.roles.get"),
    "iam.projects.roles.patch": ("patch_role", "iam.roles.update"),
    "iam.projects.roles.delete": ("delete_role", "iam.roles.delete"),
    "iam.projects.roles.undelete": ("undelete_role", "iam.roles.undelete"),
    "iam.roles.get": ("get_predefined", ""),
    "cloudresourcemanager.projects.get": ("get_project", "resourcemanager.projects.get"),
    "cloudresourcemanager.projects.getIamPolicy": ("get_policy", "resourcemanager.projects.getIamPolicy"),
    "cloudresourcemanager.projects.setIamPolicy": ("set_policy", "resourcemanager.projects.setIamPolicy"),
    "cloudresourcemanager.projects.testIamPermissions": ("test", ""),
}
ACCOUNT_METHODS = {
    "iam.projects.serviceAccounts.get": ("get_account", "iam.serviceAccounts.get"),
    "iam.projects.serviceAccounts.delete": ("delete_account", "iam.serviceAccounts.delete"),
    "iam.projects.serviceAccounts.getIamPolicy": ("get_policy", "iam.serviceAccounts.getIamPolicy"),
    "iam.projects.serviceAccounts.setIamPolicy": ("set_policy", "iam.serviceAccounts.setIamPolicy"),
    "iam.projects.serviceAccounts.testIamPermissions": ("test", ""),
    "iam.projects.serviceAccounts.keys.create": ("create_key", "iam.serviceAccountKeys.create"),
    "iam.projects.serviceAccounts.keys.list": ("list_keys", "iam.serviceAccountKeys.list"),
    "iam.projects.serviceAccounts.keys.delete": ("delete_key", "iam.serviceAccountKeys.delete"),
}


class IAM:
    """Service accounts, roles and policies of one project; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud.
    require
        Refuses a call unless who makes it may: `(request, permission, resource)`.
    """

    def __init__(self, account: Account, require: Require) -> None:
        self._account, self._require = account, require
        self._accounts = {email: _service_account(email, name) for email, name in _FIRST.items()}
        self._born: dict[str, float] = {}
        self._people = {*_FIRST}
        self.roles = Roles(account.lock)
        self.policies = Policies(account, self.roles, self.has_account)
        self.tokens = Tokens(account, self._accounts.__contains__)

    def handler(self, id: str) -> Callable[[Request], Any] | None:
        """What answers a method; None when it is another service's."""
        if id not in PROJECT_METHODS and id not in ACCOUNT_METHODS:
            return None
        return self._project_call if id in PROJECT_METHODS else self._account_call

    def _project_call(self, request: Request) -> Any:
        act, permission = PROJECT_METHODS[request.method.id]
        project = request.arguments.get("projectsId") or request.arguments.get("resource") or PROJECT
        resource = f"projects/{project}"
        if permission:
            self._require(request, permission, resource)
        return getattr(self, f"_{act}")(request, f"projects/{PROJECT}")

    def _account_call(self, request: Request) -> Any:
        act, permission = ACCOUNT_METHODS[request.method.id]
        given = request.arguments["serviceAccountsId"]
        email = next((e for e, one in self._accounts.items() if given in (e, one["uniqueId"])), given)
        resource = f"projects/{PROJECT}/serviceAccounts/{email}"
        project = request.arguments["projectsId"]
        if permission:
            self._require(
                request,
                permission,
                resource if project == "-" else f"projects/{project}/serviceAccounts/{email}",
            )
        if email not in self._accounts:
            raise GCPError(404, f"Unknown service account: {given}.")
        return getattr(self, f"_{act}")(request, resource)

    def login(self, name: str, roles: list[dict[str, Any]]) -> str:
        """Let a service account have the permissions of these roles and no others; its email."""
        email, project = f"{name}@{PROJECT}.iam.gserviceaccount.com", f"projects/{PROJECT}"
        permissions = sorted({one for role in roles for one in role["includedPermissions"]})
        id = f"login.{name.replace('-', '_')}"
        with self._account.lock:
            self._accounts.setdefault(email, _service_account(email, name))
            self._people.add(email)
            if self.roles.has(f"{project}/roles/{id}"):
                self.roles.patch(f"{project}/roles/{id}", {"includedPermissions": permissions}, ())
            else:
                made = self.roles.create(id, {"title": name, "includedPermissions": permissions})
                policy = self.policies.get(project, WITH_CONDITIONS)
                binding = {"role": made["name"], "members": [f"serviceAccount:{email}"]}
                bindings = [*policy["bindings"], binding]
                self.policies.set(project, {**policy, "bindings": bindings, "version": WITH_CONDITIONS})
        return email

    # -- service accounts ------------------------------------------------------------------------------

    def has_account(self, email: str) -> bool:
        """Whether there is such an account, as other services see it: a while after it was made."""
        delay_s = max((fault.seconds for fault in self._account.faults.of("role-propagation")), default=0.0)
        return email in self._accounts and self._born.get(email, 0.0) <= time.time() - delay_s

    def accounts(self) -> list[str]:
        """The emails of those that somebody made."""
        with self._account.lock:
            return [email for email in self._accounts if email not in self._people]

    def described(self, email: str) -> str:
        """What is said of an account."""
        return str(self._accounts[email].get("description", ""))

    def _create_account(self, request: Request, _: str) -> Any:
        id = str((request.body or {}).get("accountId", ""))
        if not ACCOUNT_ID.fullmatch(id) or len(id) not in ID_LENGTHS:
            message = (
                "Service account IDs must be between 6 and 30 characters long and match " + ACCOUNT_ID.pattern
            )
            raise GCPError(400, message)
        email, given = f"{id}@{PROJECT}.iam.gserviceaccount.com", request.body.get("serviceAccount", {})
        with self._account.lock:
            if email in self._accounts:
                raise GCPError(409, f"Service account {id} already exists within project projects/{PROJECT}.")
            self._accounts[email] = made = _service_account(email, given.get("displayName", ""))
            made.update({key: given[key] for key in ("description",) if given.get(key)})
            self._born[email] = time.time()
        return dict(made)

    def _get_account(self, _: Request, resource: str) -> Any:
        return dict(self._accounts[resource.rpartition("/")[2]])

    def _list_accounts(self, request: Request, _: str) -> Any:
        size, start = int(request.asked("pageSize", "20")), int(request.asked("pageToken") or 0)
        with self._account.lock:
            every = [dict(one) for one in self._accounts.values()]
        end = start + min(size or 20, PAGE)
        more = {"nextPageToken": str(end)} if end < len(every) else {}
        return {"accounts": every[start:end], **more}

    def _delete_account(self, _: Request, resource: str) -> Any:
        email = resource.rpartition("/")[2]
        with self._account.lock:
            self._accounts.pop(email, None)
            for key in self.tokens.key_ids(email):
                self.tokens.forget_key(key)
            self.policies.forget(resource)
        return {}

    def _create_key(self, _: Request, resource: str) -> Any:
        email = resource.rpartition("/")[2]
        key = self.tokens.made_key(email)
        return {**_key(email, key["private_key_id"]), "privateKeyData": downloaded(key)}

    def _list_keys(self, _: Request, resource: str) -> Any:
        email = resource.rpartition("/")[2]
        return {"keys": [_key(email, id) for id in self.tokens.key_ids(email)]}

    def _delete_key(self, request: Request, resource: str) -> Any:
        id = request.arguments["keysId"]
        if id not in self.tokens.key_ids(resource.rpartition("/")[2]):
            raise GCPError(404, f"Service account key {id} does not exist.")
        self.tokens.forget_key(id)
        return {}

    # -- roles -----------------------------------------------------------------------------------------

    def _create_role(self, request: Request, _: str) -> Any:
        body = request.body or {}
        return self.roles.create(str(body.get("roleId", "")), body.get("role", {}))

    def _list_roles(self, request: Request, _: str) -> Any:
        shown = [
            role
            for role in self.roles.own()
            if request.asked("showDeleted") == "true" or not role.get("deleted")
        ]
        if request.asked("view") != "FULL":
            for role in shown:
                role.pop("includedPermissions", None)
        return {"roles": shown} if shown else {}

    def _get_role(self, request: Request, project: str) -> Any:
        return self.roles.get(f"{project}/roles/{request.arguments['rolesId']}")

    def _get_predefined(self, request: Request, _: str) -> Any:
        return self.roles.get(f"roles/{request.arguments['rolesId']}")

    def _patch_role(self, request: Request, project: str) -> Any:
        fields = [one for one in request.asked("updateMask").split(",") if one]
        return self.roles.patch(f"{project}/roles/{request.arguments['rolesId']}", request.body or {}, fields)

    def _delete_role(self, request: Request, project: str) -> Any:
        return self.roles.delete(f"{project}/roles/{request.arguments['rolesId']}")

    def _undelete_role(self, request: Request, project: str) -> Any:
        return self.roles.delete(f"{project}/roles/{request.arguments['rolesId']}", deleted=False)

    # -- projects and policies -------------------------------------------------------------------------

    def _get_project(self, request: Request, name: str) -> Any:
        born = "2026-01-01T00:00:00Z"
        if request.method.path.startswith("v1/"):
            return {
                "projectId": PROJECT,
                "projectNumber": NUMBER,
                "lifecycleState": "ACTIVE",
                "name": PROJECT,
                "createTime": born,
            }
        times = {"createTime": born, "updateTime": born}
        return {
            "name": f"projects/{NUMBER}",
            "projectId": name[9:],
            "state": "ACTIVE",
            "displayName": PROJECT,
            **times,
        }

    def _get_policy(self, request: Request, resource: str) -> Any:
        options = (request.body or {}).get("options", {})
        version = options.get("requestedPolicyVersion") or int(
            request.asked("options.requestedPolicyVersion", "1")
        )
        return self.policies.get(resource, version)

    def _set_policy(self, request: Request, resource: str) -> Any:
        return self.policies.set(resource, (request.body or {}).get("policy") or {})

    def _test(self, request: Request, resource: str) -> Any:
        held = []
        for permission in (request.body or {}).get("permissions", ()):
            try:
                self._require(request, permission, resource)
            except GCPError:
                continue
            held.append(permission)
        return {"permissions": held} if held else {}


_FIRST = {PERSON: "Who owns the project", DEFAULT_ACCOUNT: "Compute Engine default service account"}


def _service_account(email: str, display: str) -> dict[str, Any]:
    id = "1" + "".join(secrets.choice("0123456789") for _ in range(20))
    return {
        "name": f"projects/{PROJECT}/serviceAccounts/{email}",
        "projectId": PROJECT,
        "uniqueId": id,
        "email": email,
        **({"displayName": display} if display else {}),
        "etag": base64.b64encode(secrets.token_bytes(8)).decode(),
        "oauth2ClientId": id,
    }


def _key(email: str, id: str) -> dict[str, Any]:
    return {
        "name": f"projects/{PROJECT}/serviceAccounts/{email}/keys/{id}",
        "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "validAfterTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "USER_MANAGED",
    }
