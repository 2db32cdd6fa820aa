"""Keys of one cluster: a certificate authority that signs twice and is thrown away.

Keys are elliptic curve (P-256). Certificates outlive the cluster's hard end by a day, because
`distributed` does not reload them.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from cloudprovider.provider import Identity

__all__ = ["Secrets", "client_security", "make_secrets", "secrets_of"]

DAY = dt.timedelta(days=1)
#: Long before any cluster.
ALWAYS = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """A cluster's two secrets, each JSON of `ca`, `cert` and `key` (PEM) and of `token` (Jupyter's).

    Parameters
    ----------
    machine
        Read by the role that the machines start under. Empty when read back by `attach`.
    client
        Read only with people's credentials.
    """

    machine: str = field(default="", repr=False)
    client: str = field(default="", repr=False)


def make_secrets(identity: Identity) -> Secrets:
    """New keys for a cluster; nothing can sign a third certificate afterwards."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    until = dt.datetime.fromtimestamp(identity.expires, dt.UTC) + DAY
    authority = ec.generate_private_key(ec.SECP256R1())
    name = f"dask {identity.name}"
    root = _certificate(name, authority, issuer=name, signer=authority, until=until, authority=True)
    token = secrets.token_urlsafe(32)

    def bundle(role: str) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(f"{name} {role}", key, issuer=name, signer=authority, until=until)
        parts = {
            "ca": root.public_bytes(Encoding.PEM).decode(),
            "cert": signed.public_bytes(Encoding.PEM).decode(),
            "key": _pem(key),
            "token": token,
        }
        return json.dumps(parts, separators=(",", ":"))

    return Secrets(machine=bundle("machine"), client=bundle("client"))


def secrets_of(security: Any) -> Secrets:
    """The secrets of a cluster whose keys the user brings, as a `distributed.Security`.

    Its scheduler's certificate serves every machine.

    Raises
    ------
    ConfigError
        When it lacks a certificate or a key that a cluster needs.
    """
    needed = ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key", "tls_client_cert", "tls_client_key")
    missing = [name for name in needed if not getattr(security, name, None)]
    if missing:
        raise ConfigError(f"security= must have {', '.join(missing)}: every connection is mutual TLS.")
    token = secrets.token_urlsafe(32)

    def bundle(role: str) -> str:
        names = {"ca": "tls_ca_file", "cert": f"tls_{role}_cert", "key": f"tls_{role}_key"}
        parts = {part: _text(getattr(security, name), name) for part, name in names.items()}
        return json.dumps({**parts, "token": token}, separators=(",", ":"))

    return Secrets(machine=bundle("scheduler"), client=bundle("client"))


def _text(pem: str, name: str) -> str:
    """PEM, given as it is or as the path of a file, as `distributed.Security` takes both."""
    if "\n" in pem:
        return pem
    try:
        return Path(pem).read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"security={name}: {error}.") from error


def client_security(bundle: str) -> Any:
    """The `distributed.Security` of a client; keys stay in memory."""
    from distributed.security import Security

    parts = json.loads(bundle)
    return Security(
        require_encryption=True,
        tls_ca_file=parts["ca"],
        tls_client_cert=parts["cert"],
        tls_client_key=parts["key"],
    )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    until: dt.datetime,
    authority: bool = False,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    def common_name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(common_name(name))
        .issuer_name(common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ALWAYS)  # a clock, ours or a machine's, may be behind by any time
        .not_valid_after(until)
        .add_extension(
            x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
        )
        .add_extension(_usage(authority=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    """What a key may do; strict verifiers, which Python has by default since 3.13, want it said."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
