"""The HTTPS of the embedded Azure: a certificate authority of its own, made at start."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Identity", "identity"]

LIFE = dt.timedelta(days=30)
NAMES = ("localhost", "*.localhost", "*.vault.localhost")


@dataclass(frozen=True)
class Identity:
    """What the HTTPS of this process shows, and what its callers trust.

    Parameters
    ----------
    context
        Of the server.
    authority
        The certificate authority's certificate, as PEM.
    """

    context: ssl.SSLContext
    authority: str

    def bundle(self, folder: Path) -> Path:
        """A file of all authorities that this computer trusts, and this one."""
        path = folder / "authorities.pem"
        if not path.exists():
            path.write_text(f"{_public()}\n{self.authority}", encoding="ascii")
        return path


@functools.cache
def identity() -> Identity:
    """The one of this process: an emulated cloud that is reset keeps it."""
    key, authority = _authority()
    own, certificate = _signed(key, authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(mode="wb", suffix=".pem") as file:
        for one in (certificate, authority):
            file.write(one.public_bytes(serialization.Encoding.PEM))
        file.write(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        context.load_cert_chain(file.name)
    return Identity(context, authority.public_bytes(serialization.Encoding.PEM).decode())


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Embedded Azure")])
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return key, builder.sign(key, hashes.SHA256())


def _signed(
    issuer_key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, NAMES)]
    issuing = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        _builder(name, issuer.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuing, critical=False)
        .add_extension(_usage(signs=False), critical=True)
    )
    return key, builder.sign(issuer_key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _public() -> str:
    """The authorities that a process of this computer trusts already."""
    try:
        import certifi
    except ImportError:
        path = ssl.get_default_verify_paths().cafile
        return Path(path).read_text(encoding="utf-8") if path else ""
    return certifi.contents()
