"""The services beside Compute Engine: which there are, whether they are enabled, and who answers for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gcp_tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_tokens import Principal
    from cloudprovider.emulator.gcp_wire import Request


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
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.tokens = Tokens(account)

    def principal(self, request: Request) -> Principal:
        """Who makes a call; raises GCPError when the token is nobody's, its scopes do not do, or the API is disabled."""
        raise NotImplementedError

    def handler(self, request: Request) -> Callable[[Request], Any] | None:
        """What answers a call that has been read and checked; None when it is compute's, or nobody's."""
        raise NotImplementedError

    def require(self, request: Request, permission: str, resource: str, *, type: str = "") -> None:
        """Raise GCPError unless who makes the call may do this on a resource."""
        raise NotImplementedError

    def may(self, principal: Principal, permission: str, resource: str, *, type: str = "") -> str:
        """Empty when it is allowed, else what Google says.

        Parameters
        ----------
        principal
            Who acts.
        permission
            Such as `compute.instances.delete`.
        resource
            As conditions see it: `projects/P/zones/Z/instances/NAME`, `projects/NUMBER/secrets/NAME/versions/1`.
        type
            Such as `compute.googleapis.com/Instance`.
        """
        raise NotImplementedError

    def has_account(self, email: str) -> bool:
        """Whether there is such a service account: what a machine is to run as."""
        raise NotImplementedError

    def write_log(self, log: str, machine: str, zone: str, lines: list[str]) -> None:
        """Write lines as the agent of a machine does, such as Docker's `gcplogs`."""
        raise NotImplementedError
