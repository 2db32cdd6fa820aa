"""The services beside Azure's compute and network: the directory, identities, roles and key vaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_wire import Request

Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who acts: a service principal of the directory.

    Parameters
    ----------
    object_id
        What role assignments name.
    client_id
        Of the application or managed identity.
    resource_id
        Of the managed identity; empty for a person or an application.
    audience
        What the token is for, such as `https://management.azure.com`; empty when it is not a token's.
    """

    object_id: str
    client_id: str
    resource_id: str = ""
    audience: str = ""


class AzureServices:
    """Tokens, managed identities, role assignments and vaults of one subscription; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud.
    endpoint
        Base address of its HTTPS front, which is also the audience of Azure Resource Manager's tokens.
    """

    def __init__(self, account: Account, endpoint: str) -> None:
        self.account, self.endpoint = account, endpoint

    # -- what the HTTPS front passes on ----------------------------------------------------------------

    def login(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer what is asked of the authority (`/TENANT/oauth2/…`, discovery); None when it is nothing of it."""
        raise NotImplementedError

    def vault(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer what is asked of a vault's data plane; None when the host is no vault's."""
        raise NotImplementedError

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call of Azure Resource Manager, as status and document; None when it is another's.

        It sets `request.service` and `request.operation`.
        """
        raise NotImplementedError

    # -- who may do what -------------------------------------------------------------------------------

    def who(self, token: str) -> Principal | None:
        """Whose a token is; None when it is nobody's, or over."""
        raise NotImplementedError

    def require(self, request: Request, action: str, scope: str) -> Principal:
        """Who makes a call; raises AzureError unless they may do this on a scope."""
        raise NotImplementedError

    def may(self, principal: Principal, action: str, scope: str, *, data: bool = False) -> str:
        """Empty when it is allowed, else what Azure says.

        Parameters
        ----------
        principal
            Who acts.
        action
            Such as `Microsoft.Compute/virtualMachines/delete`.
        scope
            The resource's id.
        data
            Whether it is a data action, such as `Microsoft.KeyVault/vaults/secrets/getSecret/action`.
        """
        raise NotImplementedError

    # -- managed identities ----------------------------------------------------------------------------

    def identity(self, resource_id: str) -> Principal | None:
        """The user-assigned identity of this id; None when there is none: what a machine is to run as."""
        raise NotImplementedError

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
        """
        raise NotImplementedError

    def forget_group(self, scope: str) -> None:
        """Remove what a resource group held: identities, vaults, the assignments on both."""
        raise NotImplementedError
