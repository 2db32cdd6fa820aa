"""The services beside Compute Engine: which there are, whether they are enabled, and who answers for each."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from cloudprovider import tags
from cloudprovider.emulator.gcp_iam import IAM
from cloudprovider.emulator.gcp_logging import Logging
from cloudprovider.emulator.gcp_policies import WITH_CONDITIONS, canonical
from cloudprovider.emulator.gcp_secrets import SecretManager
from cloudprovider.emulator.gcp_tokens import CLOUD_PLATFORM
from cloudprovider.emulator.gcp_wire import NUMBER, PERSON, PROJECT, UNIVERSE, GCPError
from cloudprovider.emulator.records import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_tokens import Principal
    from cloudprovider.emulator.gcp_wire import Request

#: What each is called, and whether a new project has it.
SERVICES = {
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
    "compute.googleapis.com": "Compute Engine API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
    "iap.googleapis.com": "Cloud Identity-Aware Proxy API",
    "logging.googleapis.com": "Cloud Logging API",
    "secretmanager.googleapis.com": "Secret Manager API",
    "serviceusage.googleapis.com": "Service Usage API",
}
METHODS = {
    "serviceusage.services.get": ("_get", "services.get"),
    "serviceusage.services.list": ("_list", "services.list"),
    "serviceusage.services.batchGet": ("_batch_get", "services.get"),
    "serviceusage.services.enable": ("_enable", "services.enable"),
    "serviceusage.services.batchEnable": ("_batch_enable", "services.enable"),
    "serviceusage.services.disable": ("_disable", "services.disable"),
    "serviceusage.operations.get": ("_operation", ""),
}
#: Each more specific refusal that a service has; the others speak of a permission and a resource.
REFUSALS = {
    "compute": "Required '{permission}' permission for '{resource}'",
    "secretmanager": "Permission '{permission}' denied for resource '{resource}' (or it may not exist).",
    "serviceusage": "Permission denied to use the service. Help Token: {permission}",
    "": "Permission '{permission}' denied on resource '//{service}.googleapis.com/{resource}' (or it may not exist).",
}
INFO = "type.googleapis.com/google.rpc.ErrorInfo"
CREDENTIALS = (
    "Request {} authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


class GCPServices:
    """Secret Manager, IAM, Resource Manager, Logging and Service Usage of one project; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud; its `endpoint` is where tokens are fetched.

    Attributes
    ----------
    tokens
        `key_file()`, `answer(body)` of `POST /token`, `token(email, scopes)` of machines, `who(token)`.
    iam, secrets, logging
        What each service keeps: `iam.has_account(email)`, `secrets.all()`, `logging.of_container(…)`.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._enabled = dict.fromkeys(SERVICES, True)
        self._operations: dict[str, dict[str, Any]] = {}
        self.recorder = Recorder()
        self.iam = IAM(account, self.require)
        self.tokens = self.iam.tokens
        self.secrets = SecretManager(account, self.require, self.iam.policies)
        self.logging = Logging(account, self.require)

    def handler(self, request: Request) -> Callable[[Request], Any] | None:
        """What answers a call that has been read and checked; None when it is compute's, or nobody's."""
        id = request.method.id
        if id in METHODS:
            return self._usage
        return self.secrets.handler(id) or self.iam.handler(id) or self.logging.handler(id)

    # -- who may do what -------------------------------------------------------------------------------

    def principal(self, request: Request) -> Principal:
        """Who makes a call; raises GCPError when the token is nobody's, or does not do for this method."""
        if not request.token:
            raise _unknown("is missing required", "CREDENTIALS_MISSING", request)
        who = self.tokens.who(request.token)
        hosts = (f"{request.service}.googleapis.com", f"{request.service}.{UNIVERSE}", self._host)
        if who is None or (who.audience and who.audience not in hosts):
            raise _unknown("had invalid", "ACCESS_TOKEN_EXPIRED", request)
        if request.method.scopes and not who.scopes & {*request.method.scopes, CLOUD_PLATFORM}:
            metadata = {"service": f"{request.service}.googleapis.com", "method": request.method.id}
            raise GCPError(
                403,
                "Request had insufficient authentication scopes.",
                reason="insufficientPermissions",
                details=[_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com", metadata)],
            )
        return who

    @property
    def _host(self) -> str:
        return self._account.endpoint.partition("//")[2]

    def check(self, request: Request) -> Principal:
        """Who makes a call; raises GCPError when nobody may make it, or its API is disabled in the project."""
        who = self.principal(request)
        service = f"{request.service}.googleapis.com"
        if not self._enabled.get(service):
            raise _disabled(service)
        return who

    def require(self, request: Request, permission: str, resource: str, *, type: str = "") -> None:
        """Raise GCPError unless who makes the call may do this on a resource."""
        who = self.principal(request)
        why = self.may(who, permission, resource, type=type)
        self.recorder.heard(permission, resource, denied=bool(why), own=who.email == PERSON)
        if request.service != "compute" and self._account.faults.hit("denied", request):
            why = _refusal(permission, resource)
        if why:
            metadata = {"permission": permission, "resource": resource}
            detail = _info("IAM_PERMISSION_DENIED", f"{request.service}.googleapis.com", metadata)
            raise GCPError(403, why, reason="forbidden", details=[detail])

    def may(self, principal: Principal, permission: str, resource: str, *, type: str = "") -> str:
        """Empty when it is allowed, else what Google says.

        Parameters
        ----------
        principal
            Who acts.
        permission
            Such as `compute.instances.delete`.
        resource
            Its name: `projects/P/zones/Z/instances/NAME`, `projects/P/secrets/NAME/versions/1`.
        type
            As conditions see it, such as `compute.googleapis.com/Instance`; empty when the resource has no
            attributes for conditions.
        """
        attributes = {}
        if not type and resource.count("/") == 1:
            type = "cloudresourcemanager.googleapis.com/Project"
        if type:
            attributes = {"resource.type": type, "resource.service": type.partition("/")[0]}
            attributes["resource.name"] = _seen(resource, type)
        mine = f"{canonical(resource)}/".startswith(f"projects/{PROJECT}/")
        allowed = mine and self._leaves(principal, permission)
        if allowed and self.iam.policies.allows(principal.member, permission, resource, attributes):
            return ""
        return _refusal(permission, resource)

    def _leaves(self, principal: Principal, permission: str) -> bool:
        """Whether the roles that a fault holds the person to have a permission; machines have their own roles."""
        roles = [fault.allowed for fault in self._account.faults.of("policy")]
        if principal.email != PERSON:
            return True
        return all(any(permission in role["includedPermissions"] for role in allowed) for allowed in roles)

    def leftovers(self) -> list[str]:
        """What somebody has made and not removed, one line each: secrets, and bindings that speak of a cluster.

        Service accounts and roles, which can carry no labels, are the landing.
        """
        secrets = [one for one in self.secrets.all() if tags.LANDING not in one.get("labels", {})]
        policy = self.iam.policies.get(f"projects/{PROJECT}", WITH_CONDITIONS)
        conditions = [one["condition"] for one in policy.get("bindings", ()) if "condition" in one]
        return [
            *(f"secret: {one['name'].rpartition('/')[2]}" for one in secrets),
            *(f"binding: {one['title']}" for one in conditions if tags.CLUSTER in one.get("description", "")),
        ]

    # -- Service Usage ---------------------------------------------------------------------------------

    def disable(self, service: str) -> None:
        """Let a service be one that the project has not enabled."""
        self._enabled[service] = False

    def _usage(self, request: Request) -> Any:
        act, permission = METHODS[request.method.id]
        if permission:
            project = f"{request.arguments['v1Id']}/{request.arguments['v1Id1']}"
            self.require(request, f"serviceusage.{permission}", project)
        return getattr(self, act)(request)

    def _named(self, service: str) -> str:
        if service not in self._enabled:
            message = f"Not found or permission denied for service(s): {service}."
            raise GCPError(
                403,
                message,
                details=[
                    _info(
                        "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
                        "serviceusage.googleapis.com",
                        {"services": service},
                    )
                ],
            )
        return service

    def _shown(self, service: str) -> dict[str, Any]:
        return {
            "name": f"projects/{NUMBER}/services/{service}",
            "parent": f"projects/{NUMBER}",
            "config": {"name": service, "title": SERVICES[service]},
            "state": "ENABLED" if self._enabled[service] else "DISABLED",
        }

    def _get(self, request: Request) -> Any:
        return self._shown(self._named(request.arguments["servicesId"]))

    def _list(self, request: Request) -> Any:
        wanted = request.asked("filter").removeprefix("state:")
        if wanted not in ("", "ENABLED", "DISABLED"):
            raise GCPError(400, f"Invalid filter {request.asked('filter')!r}.")
        shown = [self._shown(service) for service in SERVICES]
        return {"services": [one for one in shown if wanted in ("", one["state"])]}

    def _batch_get(self, request: Request) -> Any:
        names = [name.rpartition("/")[2] for name in request.query.get("names", ())]
        return {"services": [self._shown(self._named(name)) for name in names]}

    def _enable(self, request: Request) -> Any:
        service = self._named(request.arguments["servicesId"])
        self._enabled[service] = True
        return self._done("EnableServiceResponse", {"service": self._shown(service)})

    def _batch_enable(self, request: Request) -> Any:
        names = [self._named(name) for name in (request.body or {}).get("serviceIds", ())]
        self._enabled.update(dict.fromkeys(names, True))
        return self._done("BatchEnableServicesResponse", {"services": [self._shown(name) for name in names]})

    def _disable(self, request: Request) -> Any:
        service = self._named(request.arguments["servicesId"])
        self._enabled[service] = False
        return self._done("DisableServiceResponse", {"service": self._shown(service)})

    def _done(self, kind: str, response: dict[str, Any]) -> dict[str, Any]:
        name = f"operations/acat.p2-{NUMBER}-{secrets.token_hex(16)}"
        typed = {"@type": f"type.googleapis.com/google.api.serviceusage.v1.{kind}", **response}
        self._operations[name] = operation = {"name": name, "done": True, "response": typed}
        return operation

    def _operation(self, request: Request) -> Any:
        name = f"operations/{request.arguments['operationsId']}"
        if name not in self._operations:
            raise GCPError(404, f"Operation {name} not found.")
        return self._operations[name]


def _refusal(permission: str, resource: str) -> str:
    service = permission.partition(".")[0].replace("resourcemanager", "cloudresourcemanager")
    text = REFUSALS.get(service, REFUSALS[""])
    return text.format(permission=permission, resource=resource, service=service)


def _seen(resource: str, type: str) -> str:
    """A resource's name as conditions see it: with the project's number in Secret Manager's.

    https://cloud.google.com/iam/docs/conditions-resource-attributes#resource-name
    """
    name, numbered = canonical(resource), type.startswith("secretmanager.")
    return name.replace(f"projects/{PROJECT}", f"projects/{NUMBER}", 1) if numbered else name


def _info(reason: str, domain: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {"@type": INFO, "reason": reason, "domain": domain, "metadata": metadata}


def _unknown(what: str, reason: str, request: Request) -> GCPError:
    metadata = {"service": f"{request.service}.googleapis.com", "method": request.method.id}
    detail = _info(reason, "googleapis.com", metadata)
    return GCPError(401, CREDENTIALS.format(what), reason="authError", details=[detail])


def _disabled(service: str) -> GCPError:
    url = f"https://console.developers.google.com/apis/api/{service}/overview?project={NUMBER}"
    message = (
        f"{SERVICES[service]} has not been used in project {NUMBER} before or it is disabled. Enable it by visiting "
        f"{url} then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our "
        "systems and retry."
    )
    metadata = {
        "consumer": f"projects/{NUMBER}",
        "service": service,
        "serviceTitle": SERVICES[service],
        "containerInfo": NUMBER,
        "activationUrl": url,
    }
    link = {"description": "Google developers console API activation", "url": url}
    help = {"@type": "type.googleapis.com/google.rpc.Help", "links": [link]}
    details = [_info("SERVICE_DISABLED", "googleapis.com", metadata), help]
    return GCPError(403, message, reason="accessNotConfigured", details=details)
