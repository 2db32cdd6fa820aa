"""The TLS front: who gets in, and where to."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from contextlib import asynccontextmanager

import pytest
from cloudruntime.front import Front, Route, bind, route
from cloudruntime.secrets import keep
from cloudruntime.tls import context
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider.provider import Identity
from cloudprovider.security import make_secrets

PAGES = {"dashboard": 4000, "jupyter": 4001, "port-4002": 4002}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", Route(host="127.0.0.1", port=4000)),
        ("dashboard", Route(host="127.0.0.1", port=4000)),
        ("dashboard.any.thing", Route(host="127.0.0.1", port=4000)),
        ("jupyter", Route(host="127.0.0.1", port=4001)),
        ("port-4002", Route(host="127.0.0.1", port=4002)),
        ("port-22", None),
        ("nonsense", None),
        ("machine-10-0-0-5", Route(host="10.0.0.5", port=8787, name="dashboard")),
        ("machine-10-0-0-5.port-40123", Route(host="10.0.0.5", port=8787, name="port-40123")),
        ("machine-10-0-0-5.port-40123.dask", Route(host="10.0.0.5", port=8787, name="port-40123")),
        ("machine-10-0-0-5.jupyter", Route(host="10.0.0.5", port=8787, name="dashboard")),
        ("machine-fd00--5", Route(host="fd00::5", port=8787, name="dashboard")),
        ("machine-10-0-0-2.port-4002", Route(host="127.0.0.1", port=4002)),
        ("machine-10-0-0-2.port-22", None),
        ("machine-169-254-169-254", None),
        ("machine-fe80--1", None),
        ("machine-8-8-8-8", None),
        ("machine-10-0-0", None),
        ("machine-", None),
    ],
)
def test_a_name_leads_to_a_page(name, expected):
    """Only known pages, and only fronts on private addresses that are no metadata service's."""
    assert expected == route(name, here="10.0.0.2", pages=PAGES, hops=True)


@given(st.text(max_size=60) | st.from_regex(r"machine-[0-9a-f-]{1,40}(\.port-[0-9]+)?", fullmatch=True))
def test_a_workers_front_leads_nowhere_else(name):
    """Only the scheduler's front leads to other machines, whatever is asked."""
    way = route(name, here="10.0.0.2", pages=PAGES, hops=False)

    assert way is None or (way.host == "127.0.0.1" and way.port in PAGES.values())


@asynccontextmanager
async def page(text):
    """A page that says `text` and what it was asked, then closes."""

    async def serve(reader, writer):
        line = await reader.readline()
        writer.write(f"{text} {line.decode()}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def front(keys, address, pages, *, port=0, hops=False):
    door = bind(address, port)
    server = await Front(keys["machine"], door, here=address, pages=lambda: pages, hops=hops).open()
    try:
        yield door.getsockname()[1]
    finally:
        server.close()


async def ask(address, port, name, tls):
    """What the page called `name` says to `hello`."""
    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)
    try:
        writer.write(b"hello\n")
        return (await reader.read()).decode()
    finally:
        writer.close()


@pytest.fixture
def tls(keys):
    return context(keys["client"], ssl.Purpose.SERVER_AUTH)


async def test_the_name_asked_for_chooses_the_page(keys, tls):
    """A certificate of the cluster opens the page that TLS names; without a name, the dashboard."""
    async with (
        page("dashboard") as one,
        page("jupyter") as two,
        front(keys, "127.0.0.1", {"dashboard": one, "jupyter": two}) as port,
    ):
        assert "dashboard hello\n" == await ask("127.0.0.1", port, "dashboard", tls)
        assert "dashboard hello\n" == await ask("127.0.0.1", port, "", tls)
        assert "jupyter hello\n" == await ask("127.0.0.1", port, "jupyter", tls)


async def hears_nothing(port, tls):
    """Whether the front ends a connection without a byte; TLS 1.3 may or may not say why."""
    try:
        return await ask("127.0.0.1", port, "dashboard", tls) == ""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_who_has_no_certificate_is_refused(keys):
    """Without a certificate nobody sees a byte of a page."""
    bare = ssl.create_default_context(cafile=keys["machine"].ca)
    bare.check_hostname = False
    async with page("dashboard") as one, front(keys, "127.0.0.1", {"dashboard": one}) as port:
        assert await hears_nothing(port, bare)


async def test_another_clusters_certificate_is_refused(keys, tmp_path):
    """A certificate counts only under this cluster's own authority."""
    others = make_secrets(Identity(name="other", owner="me", created=0, expires=2**32))
    stranger = context(keep(json.loads(others.client), str(tmp_path)), ssl.Purpose.SERVER_AUTH)
    stranger.verify_mode = ssl.CERT_NONE
    async with page("dashboard") as one, front(keys, "127.0.0.1", {"dashboard": one}) as port:
        assert await hears_nothing(port, stranger)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_the_schedulers_front_leads_to_a_workers(keys, tls):
    """A worker's page is reached through two fronts, each with mutual TLS."""
    async with (
        page("worker") as one,
        front(keys, "127.99.0.7", {"dashboard": one, f"port-{one}": one}, port=8787),
        front(keys, "127.99.0.8", {}, hops=True) as port,
    ):
        assert "worker hello\n" == await ask("127.99.0.8", port, "machine-127-99-0-7", tls)
        assert "worker hello\n" == await ask("127.99.0.8", port, f"machine-127-99-0-7.port-{one}", tls)
        assert "502" in await ask("127.99.0.8", port, "machine-127-99-0-7.port-1", tls)
        assert "502" in await ask("127.99.0.8", port, "machine-127-99-0-9", tls)


async def test_a_page_that_is_not_there_is_said_so(keys, tls):
    """A browser gets a sentence, not a broken connection."""
    async with front(keys, "127.0.0.1", {"dashboard": 1}) as port:
        assert "serves no page called 'jupyter'" in await ask("127.0.0.1", port, "jupyter", tls)
        assert "dashboard does not answer: ConnectionRefusedError" in await ask("127.0.0.1", port, "", tls)


async def test_a_large_answer_arrives_whole(keys, tls):
    """What a page has said before it closes is delivered to the last byte."""
    async with (
        page("x" * 5_000_000) as one,
        front(keys, "127.0.0.1", {"dashboard": one}) as port,
    ):
        assert 5_000_000 + len(" hello\n") == len(await ask("127.0.0.1", port, "", tls))
