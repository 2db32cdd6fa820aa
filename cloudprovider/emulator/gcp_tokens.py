"""Who acts on the embedded Google Cloud: keys, the tokens they are exchanged for, and the tokens of machines.

https://developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudprovider.emulator.account import Account

Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whose token it is.

    Parameters
    ----------
    email
        Of the service account.
    scopes
        What the token may be used for, as URLs.
    """

    email: str
    scopes: frozenset[str]

    @property
    def member(self) -> str:
        """As policies name it."""
        return f"serviceAccount:{self.email}"


class Tokens:
    """The keys and tokens of one emulated project; thread-safe.

    Parameters
    ----------
    account
        Whose endpoint is where keys are exchanged for tokens.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def key_file(self) -> dict[str, Any]:
        """The JSON key of the project's owner: what GOOGLE_APPLICATION_CREDENTIALS names."""
        raise NotImplementedError

    def answer(self, body: bytes) -> Answer:
        """Answer `POST /token`: a signed assertion for a token."""
        raise NotImplementedError

    def token(self, email: str, scopes: Iterable[str]) -> dict[str, Any]:
        """What a metadata server tells of a machine's account: `access_token`, `expires_in`, `token_type`."""
        raise NotImplementedError

    def who(self, token: str) -> Principal | None:
        """Whose a token is; None when it is nobody's, or over."""
        raise NotImplementedError
