"""The services beside Azure's compute and network: the directory, identities, roles and key vaults."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from cloudprovider import tags
from cloudprovider.emulator import azure_answers, azure_identities, azure_keyvault, azure_roles
from cloudprovider.emulator.azure_doors import Doors, parent
from cloudprovider.emulator.azure_identities import Identities
from cloudprovider.emulator.azure_keyvault import Vaults
from cloudprovider.emulator.azure_permissions import Permissions
from cloudprovider.emulator.azure_rights import action, denied
from cloudprovider.emulator.azure_roles import Roles
from cloudprovider.emulator.azure_tls import identity
from cloudprovider.emulator.azure_tokens import VAULTS, Directory, Principal
from cloudprovider.emulator.azure_wire import (
    TENANT,
    AzureError,
    Reply,
    Request,
    check_version,
    read,
    written,
)
from cloudprovider.emulator.records import Call
from cloudprovider.emulator.server import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_keyvault import Vault
    from cloudprovider.emulator.server import Answer

__all__ = ["AzureServices", "Principal"]

logger = logging.getLogger(__name__)

#: The newest api-version of each provider, and of the data plane of vaults.
VERSIONS = {
    "managedidentity": azure_identities.VERSION,
    "authorization": azure_roles.VERSION,
    "keyvault": azure_keyvault.VERSION,
}
DATA_VERSIONS = frozenset({*(f"7.{minor}" for minor in range(7)), "2016-10-01", "2025-07-01", "2026-04-01"})


class AzureServices:
    """Tokens, managed identities, role assignments and vaults of one subscription; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud.
    endpoint
        Base address of its HTTPS front, which is also the audience of Azure Resource Manager's tokens.

    Attributes
    ----------
    directory, identities, roles, vaults
        What each keeps.
    calls
        What vaults were asked, oldest first.
    has_group
        Whether there is such a resource group; set by who keeps them.
    """

    def __init__(self, account: Account, endpoint: str) -> None:
        self.account, self.endpoint = account, endpoint
        self.calls: list[Call] = []
        self.has_group: Callable[[str], bool] = lambda _: True
        self.directory = Directory(account, endpoint)
        self.identities = Identities(self.directory, self._has_group)
        self.roles = Roles(account, self.directory, self.require)
        self._permissions = Permissions(account, self.roles, self.require, self._has_group)
        self._doors = Doors(account, identity().context, self._at_door)
        self.vaults = Vaults(lambda: self.directory.now, self._has_group, self._doors, self.roles.forget)

    def _has_group(self, name: str) -> bool:
        return self.has_group(name)

    def end(self) -> None:
        """Answer at no vault any more."""
        self._doors.end()

    # -- what the HTTPS front passes on ----------------------------------------------------------------

    def login(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer what is asked of the authority (`/TENANT/oauth2/…`, discovery); None when it is nothing of it."""
        del headers
        return self.directory.answer(method, path, body)

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call of Azure Resource Manager, as status and document; None when it is another's.

        It sets `request.service` and `request.operation`.
        """
        # Each of these is about a scope of its own.
        own = self.roles.handler(request) or self._permissions.handler(request)
        found = own or self.identities.handler(request) or self.vaults.handler(request)
        if found is None:
            return None

        def answered(one: Request) -> tuple[int, Any]:
            check_version(one, VERSIONS[one.service])
            if own is None:
                self.require(one, *action(one))
            status, document = found(one)
            azure_answers.check(document)
            return status, document

        return answered

    # -- who may do what -------------------------------------------------------------------------------

    def who(self, token: str) -> Principal | None:
        """Whose a token of Resource Manager is; None when it is nobody's, over, or for something else."""
        found = self.directory.who(token)
        return found if found and self.directory.is_manager(found.audience) else None

    def require(self, request: Request, needed: str, scope: str) -> Principal:
        """Who makes a call; raises AzureError unless they may do this on a scope."""
        if not request.token:
            text = "Authentication failed. The 'Authorization' header is missing."
            raise AzureError(401, "AuthenticationFailed", text, headers={"WWW-Authenticate": "Bearer"})
        principal = self.who(request.token)
        if principal is None:
            raise AzureError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if self.may(principal, needed, scope):
            raise denied(principal, needed, scope)
        return principal

    def may(self, principal: Principal, needed: str, scope: str, *, data: bool = False) -> str:
        """Empty when it is allowed, else what Azure says.

        Parameters
        ----------
        principal
            Who acts.
        needed
            Such as `Microsoft.Compute/virtualMachines/delete`.
        scope
            The resource's id.
        data
            Whether it is a data action, such as `Microsoft.KeyVault/vaults/secrets/getSecret/action`.
        """
        if self.roles.allows(principal.object_id, needed, scope, data=data):
            return ""
        return denied(principal, needed, scope).message

    # -- managed identities ----------------------------------------------------------------------------

    def identity(self, resource_id: str) -> Principal | None:
        """The user-assigned identity of this id; None when there is none: what a machine is to run as."""
        return self.identities.find(resource_id)

    def machine_token(
        self,
        identities: list[str],
        resource: str,
        *,
        client_id: str = "",
        object_id: str = "",
        msi_res_id: str = "",
    ) -> dict[str, Any]:
        """What IMDS answers at `/metadata/identity/oauth2/token` to a machine with these identities.

        Raises AzureError when it has none, or not this one, or several and none is named.
        https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
        """
        known = [one for one in map(self.identity, identities) if one is not None]
        wanted = {("client_id", client_id), ("object_id", object_id), ("resource_id", msi_res_id)}
        if named := [(fact, value.lower()) for fact, value in wanted if value]:
            known = [
                one for one in known if any(getattr(one, fact).lower() == value for fact, value in named)
            ]
        if not resource:
            raise AzureError(400, "invalid_request", "Required query variable 'resource' is missing")
        if not known:
            raise AzureError(400, "invalid_request", "Identity not found")
        if len(known) > 1:
            text = "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"
            raise AzureError(400, "invalid_request", text)
        return self.directory.machine_token(known[0], resource)

    # -- what there is ---------------------------------------------------------------------------------

    def resources(self) -> list[dict[str, Any]]:
        """Every identity and vault, as Resource Manager answers them."""
        with self.account.lock:
            return [*self.identities.all(), *(vault.document for vault in self.vaults.all())]

    def leftovers(self) -> list[str]:
        """What somebody has made beside a landing and not removed, one line each."""
        with self.account.lock:
            made = [one for one in self.resources() if tags.LANDING not in one["tags"]]
            secrets = [name for vault in self.vaults.all() for name in vault.secrets.names()]
        return [*(f"{one['type']}: {one['name']}" for one in made), *(f"secret: {name}" for name in secrets)]

    def forget_group(self, scope: str) -> None:
        """Remove what a resource group held: identities, vaults, the assignments on all in it."""
        with self.account.lock:
            self.identities.forget(scope)
            self.vaults.forget(scope)
            self.roles.forget(scope)

    # -- vaults ----------------------------------------------------------------------------------------

    def _at_door(
        self, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str
    ) -> Answer:
        """Answer one request at a vault, and remember it."""
        start, error = time.time(), ""
        request = Request(method=method, path=path)
        try:
            request = read(method, path, headers, body, caller)
            reply = self._of_vault(address, request)
            return written(reply)
        except NoAnswer:
            error = "NoAnswer"
            raise
        except AzureError as refusal:
            error = refusal.code
            return written(Reply(body=refusal.document(), status=refusal.status, headers=refusal.headers))
        except Exception as bug:
            logger.exception("The emulated Key Vault failed at %s", request.operation)
            error = "EmulatorBug"
            return written(Reply(body=AzureError(500, error, repr(bug)).document(), status=500))
        finally:
            call = Call(
                service="keyvault",
                operation=request.operation,
                start=start,
                end=time.time(),
                error=error,
                **self.roles.recorder.told(),
            )
            self.calls.append(call)

    def _of_vault(self, address: str, request: Request) -> Reply:
        request.service = "keyvault"
        with self.account.lock:
            vault = self.vaults.at(address)
        if vault is None:
            raise NoAnswer  # there is no such host
        operation, needed, names = vault.secrets.route(request)
        request.operation = "".join(word.capitalize() for word in operation.split("_"))
        if (version := request.query.get("api-version", "")) not in DATA_VERSIONS:
            raise AzureError(400, "BadParameter", f"The specified version ({version}) is not recognized.")
        profile, faults = self.account.profile, self.account.faults
        name = f"keyvault:{request.operation}"
        time.sleep(profile.latencies.get(name, profile.latency_s) * self.account.timers.scale)
        principal = self._at_vault(address, request)
        scope = "/".join((vault.id, *(("secrets", names[0]) if names else ())))
        if faults.hit("denied", request) or not self.roles.allows(
            principal.object_id, needed, scope, data=True
        ):
            raise _forbidden(principal, needed, scope, vault)
        if faults.hit("throttle", request):
            text = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
            raise AzureError(429, "Throttled", text, headers={"Retry-After": "1"})
        if fault := faults.hit("error", request):
            raise AzureError(fault.status, fault.code or "InternalServerError", fault.message)
        after, lost = faults.hit("error-after-effect", request), faults.hit("lost-answer", request)
        with self.account.lock:
            status, document = vault.secrets.act(operation, request, names)
        azure_answers.check_secrets(operation, document)
        if after:
            raise AzureError(500, "InternalServerError", "An internal error has occurred.")
        if lost:
            raise NoAnswer
        return Reply(body=document, status=status)

    def _at_vault(self, address: str, request: Request) -> Principal:
        """Who makes a call; else the challenge says whose tokens it takes.

        https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses
        """
        resource = parent(address)
        principal = self.directory.who(request.token) if request.token else None
        if (
            principal is None
            or principal.audience not in (resource, VAULTS)
            or self.account.faults.hit("expired-credentials", request)
        ):
            challenge = f'Bearer authorization="{self.endpoint}/{TENANT}", resource="{resource}"'
            text = "[BearerReadAccessTokenFailed] Error when validating JWT token."
            if not request.token:
                text = "AKV10000: Request is missing a Bearer or PoP token."
            raise AzureError(401, "Unauthorized", text, headers={"WWW-Authenticate": challenge})
        return principal


def _forbidden(principal: Principal, needed: str, scope: str, vault: Vault) -> AzureError:
    text = (
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role "
        "definitions were changed recently, please observe propagation time.\r\n"
        f"Caller: appid={principal.client_id};oid={principal.object_id};iss=https://sts.windows.net/{TENANT}/\r\n"
        f"Action: '{needed}'\r\nResource: '{scope.lower()}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n"
        f"DecisionReason: null \r\nVault: {vault.document['name']};location={vault.document['location']}\r\n"
    )
    return AzureError(403, "Forbidden", text, inner={"code": "ForbiddenByRbac"})
