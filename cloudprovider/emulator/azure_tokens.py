"""The directory of the embedded Azure: who there is, and the tokens they act with.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cloudprovider.emulator import jwt
from cloudprovider.emulator.azure_wire import CLIENT, PERSON, SECRET, TENANT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.account import Account

Answer = tuple[int, dict[str, str], bytes]

LIFE_S = 3600.0
MACHINE_LIFE_S = 24 * 3600.0
#: https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/managed-identity-best-practice-recommendations
RENEWED_S = 12 * 3600.0
MANAGER = ("https://management.azure.com", "https://management.core.windows.net")
VAULTS = "https://vault.azure.net"
GRANT = "client_credentials"


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


class Directory:
    """Service principals and their tokens; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud: its clock and its lock.
    endpoint
        Base address of the authority, which is also the audience of Resource Manager's tokens.
    """

    def __init__(self, account: Account, endpoint: str) -> None:
        self._account, self._endpoint = account, endpoint
        self._key, self._kid = jwt.own_key()
        person = Principal(object_id=PERSON, client_id=CLIENT)
        self._principals = {PERSON: person}
        self._born = {PERSON: 0.0}
        self._secrets = {CLIENT: (person, SECRET)}
        self._of_machines: dict[tuple[str, str], tuple[str, float]] = {}

    @property
    def now(self) -> float:
        """The time by the cloud's clock."""
        return time.time() + self._account.faults.ahead_s

    def add(self, resource_id: str) -> Principal:
        """The service principal of a new managed identity."""
        made = Principal(object_id=str(uuid.uuid4()), client_id=str(uuid.uuid4()), resource_id=resource_id)
        self._principals[made.object_id] = made
        self._born[made.object_id] = time.time()
        return made

    def remove(self, object_id: str) -> None:
        """Forget a service principal; its tokens are nobody's from now on."""
        self._principals.pop(object_id, None)

    def get(self, object_id: str) -> Principal | None:
        """A principal; None when there is none."""
        return self._principals.get(object_id)

    def find(self, client_id: str) -> Principal | None:
        """The application of this id; None when there is none."""
        return self._secrets.get(client_id, (None, ""))[0]

    def born(self, object_id: str) -> float | None:
        """When a principal was made; None when there is none."""
        return self._born.get(object_id) if object_id in self._principals else None

    def register(self, client_id: str, secret: str) -> Principal:
        """Another application that may sign in, and may do nothing yet."""
        made = Principal(object_id=str(uuid.uuid4()), client_id=client_id)
        with self._account.lock:
            self._principals[made.object_id] = made
            self._born[made.object_id] = time.time()
            self._secrets[client_id] = (made, secret)
        return made

    # -- tokens ----------------------------------------------------------------------------------------

    def token(self, principal: Principal, audience: str, life_s: float = LIFE_S) -> str:
        """A token of a principal for a resource."""
        now = int(self.now)
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now,
            "exp": now + int(life_s),
            "appid": principal.client_id,
            "appidacr": "2" if principal.resource_id else "1",
            "idp": f"https://sts.windows.net/{TENANT}/",
            "idtyp": "app",
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": TENANT,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
            **({"xms_mirid": principal.resource_id} if principal.resource_id else {}),
        }
        return jwt.signed(claims, self._key, self._kid)

    def machine_token(self, principal: Principal, audience: str) -> dict[str, Any]:
        """What a machine's metadata service answers: the same token until half its life is over."""
        key = (principal.object_id, audience)
        with self._account.lock:
            token, ends = self._of_machines.get(key, ("", 0.0))
            if ends - self.now < RENEWED_S:
                token, ends = self.token(principal, audience, MACHINE_LIFE_S), self.now + MACHINE_LIFE_S
                self._of_machines[key] = token, ends
        left_s = int(ends - self.now)
        return {
            "access_token": token,
            "client_id": principal.client_id,
            "expires_in": str(left_s),
            "expires_on": str(int(ends)),
            "ext_expires_in": str(left_s),
            "not_before": str(int(ends - MACHINE_LIFE_S)),
            "resource": audience,
            "token_type": "Bearer",
        }

    def who(self, token: str) -> Principal | None:
        """Whose a token is, and what for; None when it is nobody's, or over."""
        try:
            _, claims = jwt.parts(token)
            signed = jwt.is_signed(token, self._key.public_key())
        except ValueError:
            return None
        known = self._principals.get(str(claims.get("oid")))
        if not signed or known is None or not claims["nbf"] <= self.now + 1 or self.now >= claims["exp"]:
            return None
        return replace(known, audience=claims["aud"].rstrip("/"))

    def is_manager(self, audience: str) -> bool:
        """Whether tokens for this resource are Resource Manager's."""
        return audience.rstrip("/") in (*MANAGER, self._endpoint)

    # -- what is asked of the authority ----------------------------------------------------------------

    def answer(self, method: str, path: str, body: bytes) -> Answer | None:
        """Answer what is asked of the authority; None when it is nothing of it."""
        parts = urlsplit(path)
        segments = [part for part in parts.path.split("/") if part]
        rest = "/".join(segments[1:])
        if (method, rest) == ("GET", "discovery/instance"):
            return _answered(200, self._instance())
        if method == "GET" and rest in (
            "v2.0/.well-known/openid-configuration",
            ".well-known/openid-configuration",
        ):
            return self._in_tenant(segments[0], {}) or _answered(200, self._configuration(segments[0]))
        if (method, rest) == ("GET", "discovery/v2.0/keys"):
            return _answered(200, {"keys": [self._public_key()]})
        if method == "POST" and rest in ("oauth2/v2.0/token", "oauth2/token"):
            form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
            return self._in_tenant(segments[0], form) or self._granted(form)
        return None

    def _instance(self) -> dict[str, Any]:
        host = self._endpoint.removeprefix("https://")
        return {
            "tenant_discovery_endpoint": f"{self._endpoint}/{TENANT}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }

    def _configuration(self, tenant: str) -> dict[str, Any]:
        base = f"{self._endpoint}/{tenant}"
        return {
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "end_session_endpoint": f"{base}/oauth2/v2.0/logout",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "issuer": f"{self._endpoint}/{TENANT}/v2.0",
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def _public_key(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": self._kid,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }

    def _in_tenant(self, tenant: str, form: Mapping[str, str]) -> Answer | None:
        """A refusal unless there is such a directory."""
        del form
        if tenant.lower() == TENANT:
            return None
        text = f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID."
        return _refused(400, "invalid_request", 90002, text)

    def _granted(self, form: Mapping[str, str]) -> Answer:
        if form.get("grant_type") != GRANT:
            return _refused(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{form.get('grant_type')}'.",
            )
        client = form.get("client_id", "")
        principal, secret = self._secrets.get(client, (None, ""))
        if principal is None:
            text = f"Application with identifier '{client}' was not found in the directory '{TENANT}'."
            return _refused(400, "unauthorized_client", 700016, text)
        if not secrets.compare_digest(form.get("client_secret", "").encode(), secret.encode()):
            text = "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID."
            return _refused(401, "invalid_client", 7000215, text)
        scope = form.get("scope", "")
        audience = scope.removesuffix("/.default") if scope else form.get("resource", "")
        if not audience or (scope and audience == scope):
            text = f"The provided value for the input parameter 'scope' is not valid: '{scope}' must end in '/.default'."
            return _refused(400, "invalid_scope", 1002012, text)
        token = self.token(principal, audience.rstrip("/"))
        life_s = int(LIFE_S) - 1
        document = {
            "token_type": "Bearer",
            "expires_in": life_s,
            "ext_expires_in": life_s,
            "access_token": token,
        }
        return _answered(200, document)


def _number(value: int) -> str:
    content = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _refused(status: int, error: str, number: int, text: str) -> Answer:
    """https://learn.microsoft.com/entra/identity-platform/reference-error-codes ."""
    now, trace, correlation = dt.datetime.now(dt.UTC), str(uuid.uuid4()), str(uuid.uuid4())
    stamp = now.strftime("%Y-%m-%d %H:%M:%SZ")
    document = {
        "error": error,
        "error_description": f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}",
        "error_codes": [number],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }
    return _answered(status, document)


def _answered(status: int, document: dict[str, Any]) -> Answer:
    return status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode()
