"""Signed tokens (RFC 7519), as both Google and Azure use them: RS256 only."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import secrets
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEME = (padding.PKCS1v15(), hashes.SHA256())


def made_key() -> rsa.RSAPrivateKey:
    """A new key to sign with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def own_key() -> tuple[rsa.RSAPrivateKey, str]:
    """The key of this process and its id: an emulated cloud that is reset keeps it, for making one takes a while."""
    return made_key(), secrets.token_hex(20)


def signed(claims: Mapping[str, Any], key: rsa.RSAPrivateKey, kid: str) -> str:
    """A token that says these things."""
    head = {"alg": "RS256", "typ": "JWT", "kid": kid}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{_encoded(key.sign(text.encode(), *SCHEME))}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, nothing of them proven; raises ValueError when it is no such token."""
    try:
        head, claims, _ = (_decoded(part) for part in token.split("."))
        read = json.loads(head), json.loads(claims)
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("This is no signed token.") from error
    if not all(isinstance(part, dict) for part in read):
        raise ValueError("This is no signed token.")
    return read


def is_signed(token: str, key: rsa.RSAPublicKey) -> bool:
    """Whether the owner of this key made it."""
    text, _, signature = token.rpartition(".")
    try:
        key.verify(_decoded(signature), text.encode(), *SCHEME)
    except (InvalidSignature, binascii.Error):
        return False
    return parts(token)[0].get("alg") == "RS256"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
