"""Who acts on the embedded Google Cloud: keys, the tokens they are exchanged for, and the tokens of machines.

https://developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization

from cloudprovider.emulator import jwt
from cloudprovider.emulator.gcp_wire import NUMBER, PERSON, PROJECT, UNIVERSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.asymmetric import rsa

    from cloudprovider.emulator.account import Account

Answer = tuple[int, dict[str, str], bytes]

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE_S = 3600.0
RENEWED_S = 300.0  # a metadata server tells the same token until five minutes before its end
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
UNREASONABLE = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whose token it is.

    Parameters
    ----------
    email
        Of the service account.
    scopes
        What the token may be used for, as URLs.
    audience
        The host it may be used for alone; empty is any.
    """

    email: str
    scopes: frozenset[str]
    audience: str = ""

    @property
    def member(self) -> str:
        """As policies name it."""
        return f"serviceAccount:{self.email}"


@dataclass(frozen=True)
class _Key:
    id: str
    email: str
    private: rsa.RSAPrivateKey


class Tokens:
    """The keys and tokens of one emulated project; thread-safe.

    Parameters
    ----------
    account
        Whose endpoint is where keys are exchanged for tokens.
    has_account
        Whether there is a service account of this email.
    """

    def __init__(self, account: Account, has_account: Callable[[str], bool]) -> None:
        self._account, self._has_account = account, has_account
        self._keys: dict[str, _Key] = {}
        self._tokens: dict[str, tuple[Principal, float]] = {}
        self._of_machines: dict[tuple[str, frozenset[str]], str] = {}

    @property
    def _now(self) -> float:
        return time.time() + self._account.faults.ahead_s

    def key_file(self) -> dict[str, Any]:
        """The JSON key of the project's owner: what GOOGLE_APPLICATION_CREDENTIALS names."""
        private, id = jwt.own_key()
        return self._kept(_Key(id, PERSON, private))

    def made_key(self, email: str) -> dict[str, Any]:
        """Another key of a service account, as the file that is downloaded."""
        return self._kept(_Key(secrets.token_hex(20), email, jwt.made_key()))

    def shared_key(self, email: str) -> dict[str, Any]:
        """A key of a service account that is made at once: the owner's own numbers, under another id."""
        private, _ = jwt.own_key()
        return self._kept(_Key(secrets.token_hex(20), email, private))

    def _kept(self, key: _Key) -> dict[str, Any]:
        """The file of a key, which is known from now on.

        Its universe is the emulator's own: with Google's, google-auth would ask Google about the account.
        """
        with self._account.lock:
            self._keys[key.id] = key
        pem = key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": key.id,
            "private_key": pem.decode(),
            "client_email": key.email,
            "client_id": NUMBER + "000000000",
            "auth_uri": f"{self._account.endpoint}/o/oauth2/auth",
            "token_uri": f"{self._account.endpoint}/token",
            "universe_domain": UNIVERSE,
        }

    def key_ids(self, email: str) -> list[str]:
        """The keys of a service account."""
        with self._account.lock:
            return [key.id for key in self._keys.values() if key.email == email]

    def forget_key(self, id: str) -> None:
        """Let a key open nothing any more."""
        with self._account.lock:
            self._keys.pop(id, None)

    def answer(self, body: bytes) -> Answer:
        """Answer `POST /token`: a signed assertion for a token."""
        form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if form.get("grant_type") != GRANT:
            return _refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        try:
            claims = self._proven(form.get("assertion", ""))
        except ValueError as error:
            return _refused("invalid_grant", str(error))
        known = ("https://oauth2.googleapis.com/token", f"{self._account.endpoint}/token")
        if claims.get("aud") not in known:
            return _refused("invalid_grant", "Invalid JWT: Failed audience check.")
        scopes = str(claims.get("scope", "")).split()
        if not scopes:
            return _refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = self._issued(Principal(email=claims["iss"], scopes=frozenset(scopes)))
        return _answered(200, {"access_token": token, "expires_in": int(LIFE_S) - 1, "token_type": "Bearer"})

    def _proven(self, assertion: str) -> dict[str, Any]:
        """What a signed token says; raises ValueError with what Google says when it is none."""
        try:
            head, claims = jwt.parts(assertion)
        except ValueError as error:
            raise ValueError("Invalid JWT: Failed to parse the JWT.") from error
        key = self._keys.get(str(head.get("kid", "")))
        if key is None or key.email != claims.get("iss") or not self._has_account(key.email):
            raise ValueError("Invalid grant: account not found")
        if not jwt.is_signed(assertion, key.private.public_key()):
            raise ValueError("Invalid JWT Signature.")
        if not _is_reasonable(claims.get("iat"), claims.get("exp"), self._now):
            raise ValueError(UNREASONABLE)
        return claims

    def _issued(self, principal: Principal) -> str:
        token = f"ya29.c.{secrets.token_urlsafe(48)}"
        with self._account.lock:
            self._tokens[token] = (principal, self._now + LIFE_S)
        return token

    def token(self, email: str, scopes: Iterable[str]) -> dict[str, Any]:
        """What a metadata server tells of a machine's account: `access_token`, `expires_in`, `token_type`."""
        principal = Principal(email=email, scopes=frozenset(scopes))
        with self._account.lock:
            token = self._of_machines.get((email, principal.scopes), "")
            if not token or self._tokens[token][1] - self._now < RENEWED_S:
                token = self._of_machines[email, principal.scopes] = self._issued(principal)
            left_s = self._tokens[token][1] - self._now
        return {"access_token": token, "expires_in": int(left_s), "token_type": "Bearer"}

    def who(self, token: str) -> Principal | None:
        """Whose a token is; None when it is nobody's, or over."""
        found = self._tokens.get(token)
        if found is not None:
            principal, ends = found
            return principal if ends > self._now and self._has_account(principal.email) else None
        return self._self_signed(token)

    def _self_signed(self, token: str) -> Principal | None:
        """Who signed a token themselves: https://google.aip.dev/auth/4111 ."""
        try:
            claims = self._proven(token)
        except ValueError:
            return None
        scopes, audience = str(claims.get("scope", "")).split(), str(claims.get("aud", ""))
        if claims.get("sub") != claims["iss"] or not (scopes or audience):
            return None
        return Principal(
            email=claims["iss"],
            scopes=frozenset(scopes) if scopes else frozenset({CLOUD_PLATFORM}),
            audience="" if scopes else urlsplit(audience).netloc,
        )


def _is_reasonable(issued: Any, ends: Any, now: float) -> bool:
    if not (isinstance(issued, int | float) and isinstance(ends, int | float)):
        return False
    return ends - issued <= LIFE_S and issued - RENEWED_S <= now < ends


def downloaded(key: dict[str, Any]) -> str:
    """A key file as IAM answers it."""
    return base64.b64encode(json.dumps(key, indent=2).encode()).decode()


def _refused(error: str, description: str) -> Answer:
    return _answered(400, {"error": error, "error_description": description})


def _answered(status: int, document: dict[str, Any]) -> Answer:
    return status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode()
