"""The machine's keys as Dask and Python's ssl want them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudruntime.secrets import Keys

__all__ = ["context", "security"]


def security(keys: Keys | None) -> Any:
    """The `distributed.Security` of every part of Dask on this machine."""
    from distributed.security import Security

    if keys is None:
        return Security()
    pairs = {
        f"tls_{role}_{part}": getattr(keys, part)
        for role in ("scheduler", "worker", "client")
        for part in ("cert", "key")
    }
    return Security(tls_ca_file=keys.ca, require_encryption=True, **pairs)


def context(keys: Keys, purpose: ssl.Purpose) -> ssl.SSLContext:
    """Mutual TLS under the cluster's own authority; names are not checked, since addresses change."""
    made = ssl.create_default_context(purpose, cafile=keys.ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(keys.cert, keys.key)
    return made
