"""Keys of one cluster."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
import time

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from distributed import Client, Scheduler, Worker
from distributed.comm import connect
from distributed.security import Security

from cloudprovider.provider import Identity
from cloudprovider.security import Secrets, client_security, make_secrets


def identity(name: str = "keys") -> Identity:
    now = int(time.time())
    return Identity(name=name, owner="me", created=now, expires=now + 3600)


def machine_security(secret: str) -> Security:
    """As a machine reads its secret."""
    parts = json.loads(secret)
    files = {"tls_ca_file": parts["ca"]}
    for role in ("scheduler", "worker", "client"):
        files |= {f"tls_{role}_cert": parts["cert"], f"tls_{role}_key": parts["key"]}
    return Security(require_encryption=True, **files)


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return make_secrets(identity())


def certificates(secrets: Secrets) -> list[x509.Certificate]:
    """The authority's, the machine's and the client's."""
    machine, client = json.loads(secrets.machine), json.loads(secrets.client)
    return [
        x509.load_pem_x509_certificate(text.encode())
        for text in (machine["ca"], machine["cert"], client["cert"])
    ]


def test_keys_are_elliptic_curve(secrets):
    """Both keys are P-256 and differ, which keeps the boot small; the authority's key is in neither secret."""
    keys = [
        load_pem_private_key(json.loads(bundle)["key"].encode(), None)
        for bundle in (secrets.machine, secrets.client)
    ]

    assert [True, True] == [isinstance(key.curve, ec.SECP256R1) for key in keys]
    public = [key.public_key() for key in keys]
    authority, machine, client = certificates(secrets)
    assert [machine.public_key(), client.public_key()] == public
    assert authority.public_key() not in public


def test_secrets_hold_the_same_authority_and_token(secrets):
    """Machine and client know each other by one authority, and Jupyter by one token; nothing else is stored."""
    machine, client = json.loads(secrets.machine), json.loads(secrets.client)

    assert {"ca", "cert", "key", "token"} == set(machine) == set(client)
    assert (machine["ca"], machine["token"]) == (client["ca"], client["token"])
    assert 43 == len(machine["token"])


def test_only_two_certificates_are_signed_and_none_can_sign(secrets):
    """What the authority signed is the machine's and the client's certificate, and neither may sign others."""
    authority, machine, client = certificates(secrets)

    machine.verify_directly_issued_by(authority)
    client.verify_directly_issued_by(authority)
    constraints = [
        c.extensions.get_extension_for_class(x509.BasicConstraints).value
        for c in (authority, machine, client)
    ]
    assert [(True, 0), (False, None), (False, None)] == [(c.ca, c.path_length) for c in constraints]


def test_clusters_have_authorities_of_their_own(secrets):
    """A second cluster, even of the same name, is signed by another key."""
    _, other, _ = certificates(make_secrets(identity()))
    authority, *_ = certificates(secrets)

    with pytest.raises((InvalidSignature, ValueError)):
        other.verify_directly_issued_by(authority)


def test_certificates_outlive_the_hard_end_by_a_day():
    """Dask does not reload certificates, so they last until `expires` and a day; a late clock is forgiven."""
    whose = identity()
    end = dt.datetime.fromtimestamp(whose.expires, dt.UTC) + dt.timedelta(days=1)

    for certificate in certificates(make_secrets(whose)):
        assert end == certificate.not_valid_after_utc
        assert dt.datetime.now(dt.UTC) - dt.timedelta(days=365) > certificate.not_valid_before_utc


def test_repr_shows_no_key(secrets):
    """Neither secret appears in a repr, a log line or a traceback's locals."""
    assert "Secrets()" == repr(secrets)
    assert "PRIVATE" not in f"{client_security(secrets.client)!r}"


def test_secrets_fit_the_stores(secrets):
    """Each secret fits a standard parameter of SSM, which holds 4,096 characters."""
    assert 4096 > max(len(secrets.machine), len(secrets.client))


def test_strict_verifiers_accept_the_keys(secrets, tmp_path):
    """Python's own strict rules (its default since 3.13) hold for both sides of a handshake."""
    contexts = []
    for bundle, side in (
        (secrets.machine, ssl.Purpose.CLIENT_AUTH),
        (secrets.client, ssl.Purpose.SERVER_AUTH),
    ):
        parts = json.loads(bundle)
        (tmp_path / "pem").write_text(parts["cert"] + parts["key"])
        context = ssl.create_default_context(side, cadata=parts["ca"])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tmp_path / "pem")
        contexts.append(context)
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = contexts[0].wrap_bio(here, there, server_side=True)
    client = contexts[1].wrap_bio(there, here)
    for side in (client, machine, client, machine):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()

    assert machine.getpeercert()["subject"] != client.getpeercert()["subject"]


@pytest.fixture
async def scheduler(secrets):
    """A scheduler with the machine's keys."""
    options = {
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "protocol": "tls://",
    }
    async with Scheduler(security=machine_security(secrets.machine), **options) as started:
        yield started


async def test_machine_and_client_compute_together(scheduler, secrets):
    """Scheduler and worker with the machine's secret, client with its own: a sum over mutual TLS."""
    async with (
        Worker(scheduler.address, security=machine_security(secrets.machine), nthreads=1),
        Client(scheduler.address, security=client_security(secrets.client), asynchronous=True) as client,
    ):
        assert 6 == await client.submit(sum, [1, 2, 3])
        assert scheduler.address.startswith("tls://")


async def test_no_certificate_is_refused(scheduler, secrets):
    """Who knows the authority but has no certificate cannot speak to the scheduler."""
    context = client_security(secrets.client).get_connection_args("client")["ssl_context"]
    bare = type(context)(context.protocol)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=json.loads(secrets.client)["ca"])

    with pytest.raises(OSError, match=r"Timed out|closed|refused|certificate"):
        await connect(scheduler.address, timeout=2, ssl_context=bare)


async def test_certificate_of_another_cluster_is_refused(scheduler):
    """A client of one cluster neither trusts nor reaches the scheduler of another."""
    other = client_security(make_secrets(identity("other")).client)

    with pytest.raises(OSError, match="certificate"):
        await connect(scheduler.address, timeout=2, **other.get_connection_args("client"))


async def test_certificate_of_another_cluster_is_refused_by_the_scheduler(scheduler, secrets):
    """A client that would trust anybody is still not let in with a certificate of another authority."""
    other = json.loads(make_secrets(identity("other")).client)
    mixed = client_security(json.dumps({**other, "ca": json.loads(secrets.client)["ca"]}))

    with pytest.raises(OSError, match=r"Timed out|closed|alert"):
        await connect(scheduler.address, timeout=2, **mixed.get_connection_args("client"))


async def test_plain_connection_is_refused(scheduler, secrets):
    """Nothing is sent without encryption, from either side."""
    plain = scheduler.address.replace("tls://", "tcp://")
    security = client_security(secrets.client)

    with pytest.raises(RuntimeError, match="encryption required"):
        await connect(plain, timeout=2, **security.get_connection_args("client"))
    reader, writer = await asyncio.open_connection(*plain.removeprefix("tcp://").split(":"))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 5)
    assert b"HTTP" not in answer
    with contextlib.suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()
