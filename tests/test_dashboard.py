"""The pages of a cluster on the user's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import time
from typing import TYPE_CHECKING

import dask
import pytest
from browsing import CHROMIUM, chromium
from cloudruntime.front import Front as MachineFront
from cloudruntime.front import bind
from cloudruntime.secrets import keep
from tls_front import Front
from tornado import httpserver, netutil, web, websocket
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.simple_httpclient import HTTPStreamClosedError

from cloudprovider.dashboard import Route, route, serve_pages
from cloudprovider.provider import Identity
from cloudprovider.security import make_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BIG = 50_000_000


class Page(web.RequestHandler):
    """Says what it was asked."""

    def initialize(self, name: str = "dashboard") -> None:
        self.name = name

    def get(self) -> None:
        asked = {"page": self.name, "uri": self.request.uri, "headers": dict(self.request.headers)}
        self.set_header("Set-Cookie", "a=1")
        self.add_header("Set-Cookie", "b=2")
        self.finish(asked)

    def head(self) -> None:
        self.set_header("Content-Length", "1234")

    def delete(self) -> None:
        self.set_status(204)


@web.stream_request_body
class Sink(web.RequestHandler):
    """Counts a body as it comes."""

    def prepare(self) -> None:
        self.request.connection.set_max_body_size(1 << 40)
        self.size = 0

    def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def post(self) -> None:
        self.finish(str(self.size))

    put = post


class Source(web.RequestHandler):
    """Sends much, in chunks, and says how far it got."""

    sent = 0

    async def get(self) -> None:
        for _ in range(BIG // 100_000):
            self.write(b"x" * 100_000)
            await self.flush()
            Source.sent += 100_000


class Ticks(web.RequestHandler):
    """Sends a line, and the next when it is told to."""

    go = asyncio.Event()

    async def get(self) -> None:
        self.write("first\n")
        await self.flush()
        await Ticks.go.wait()
        self.finish("second\n")


class Echo(websocket.WebSocketHandler):
    """Sends every message back, and minds its origin as Bokeh and Jupyter do."""

    def on_message(self, message: str | bytes) -> None:
        if message == "bye":
            self.close(1000, "bye yourself")
        else:
            self.write_message(message, binary=isinstance(message, bytes))


@contextlib.asynccontextmanager
async def application(name: str) -> AsyncIterator[int]:
    """A real web server on loopback."""
    app = web.Application(
        [
            ("/sink", Sink),
            ("/source", Source),
            ("/ticks", Ticks),
            ("/moved", web.RedirectHandler, {"url": "/status", "permanent": False}),
            ("/ws", Echo),
            (".*", Page, {"name": name}),
        ],
        websocket_ping_interval=0,
    )
    server = httpserver.HTTPServer(app, max_body_size=1 << 40)
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.fixture(scope="module")
def secrets():
    """Keys of a cluster."""
    now = int(time.time())
    return make_secrets(Identity(name="pages", owner="me", created=now, expires=now + 3600))


@pytest.fixture
async def front(secrets, tmp_path):
    """A scheduler's front with three pages behind it."""
    async with contextlib.AsyncExitStack() as stack:
        names = ("dashboard", "jupyter", "machine-10-0-0-5")
        ports = {name: await stack.enter_async_context(application(name)) for name in names}
        yield await stack.enter_async_context(Front(ports, secrets.machine, tmp_path))


@pytest.fixture
async def pages(front, secrets):
    """The pages, served."""
    served = await serve_pages(front.address, secrets.client)
    yield served
    await served.close()


async def fetch(url: str, **options):
    """What an HTTP client gets, whatever the status."""
    client = AsyncHTTPClient(force_instance=True, max_buffer_size=1 << 30)
    try:
        return await client.fetch(HTTPRequest(url, request_timeout=60, **options), raise_error=False)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/status", Route(name="dashboard", path="/status")),
        ("/", Route(name="dashboard", path="/")),
        ("/jupyter/lab?token=t", Route(name="jupyter", path="/jupyter/lab?token=t")),
        ("/jupyter", Route(name="jupyter", path="/jupyter")),
        ("/jupyterish", Route(name="dashboard", path="/jupyterish")),
        (
            "/proxy/41233/10.0.0.5/status?theme=dark",
            Route(
                name="machine-10-0-0-5.port-41233",
                path="/status?theme=dark",
                prefix="/proxy/41233/10.0.0.5",
            ),
        ),
        (
            "/proxy/1/10.0.0.5",
            Route(name="machine-10-0-0-5.port-1", path="/", prefix="/proxy/1/10.0.0.5"),
        ),
        (
            "/proxy/1/fd00::5/x",
            Route(name="machine-fd00--5.port-1", path="/x", prefix="/proxy/1/fd00::5"),
        ),
        ("/proxy/1/evil.example.org/x", Route(name="dashboard", path="/proxy/1/evil.example.org/x")),
        ("/proxy/x/10.0.0.5/x", Route(name="dashboard", path="/proxy/x/10.0.0.5/x")),
    ],
)
def test_path_chooses_the_page(target, expected):
    """A path under /jupyter is Jupyter's, one under /proxy/PORT/ADDRESS a worker's, any other the dashboard's."""
    assert expected == route(target)


async def test_pages_come_from_behind_the_front(pages):
    """Each page is asked for by its own name, and gets the path it expects."""
    answers = [
        json.loads((await fetch(pages.url + path)).body)
        for path in ("/status?x=1", "/jupyter/tree", "/proxy/4000/10.0.0.5/status?y=2")
    ]

    assert [
        ("dashboard", "/status?x=1"),
        ("jupyter", "/jupyter/tree"),
        ("machine-10-0-0-5", "/status?y=2"),
    ] == [(answer["page"], answer["uri"]) for answer in answers]


async def test_messages_pass_unchanged(pages):
    """Repeated headers stay repeated, a body that HEAD announces is not awaited, 204 has none."""
    seen = await fetch(pages.url + "/a")
    head = await fetch(pages.url + "/a", method="HEAD")
    gone = await fetch(pages.url + "/a", method="DELETE")

    assert ["a=1", "b=2"] == seen.headers.get_list("Set-Cookie")
    assert pages.url == f"http://{json.loads(seen.body)['headers']['Host']}"
    assert (200, "1234", b"") == (head.code, head.headers["Content-Length"], head.body)
    assert (204, b"") == (gone.code, gone.body)


async def test_redirect_of_a_worker_stays_with_the_worker(pages):
    """A path that a worker's page redirects to is found under the worker's own prefix."""
    worker = await fetch(pages.url + "/proxy/4000/10.0.0.5/moved", follow_redirects=False)
    scheduler = await fetch(pages.url + "/moved", follow_redirects=False)

    assert "/proxy/4000/10.0.0.5/status" == worker.headers["Location"]
    assert "/status" == scheduler.headers["Location"]


async def test_large_bodies_stream_both_ways(pages):
    """What is sent or fetched may be larger than any buffer, with a length or in chunks."""

    async def produce(write):
        for _ in range(BIG // 1_000_000):
            await write(b"y" * 1_000_000)

    sized = await fetch(pages.url + "/sink", method="POST", body=b"y" * BIG)
    chunked = await fetch(pages.url + "/sink", method="PUT", body_producer=produce)
    fetched = await fetch(pages.url + "/source")

    assert [str(BIG).encode()] * 2 == [sized.body, chunked.body]
    assert BIG == len(fetched.body)


async def test_slow_reader_slows_the_source(pages):
    """A browser that does not read does not make the proxy hold the whole answer."""
    Source.sent = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port, limit=1000)
    writer.write(f"GET /source HTTP/1.1\r\nHost: 127.0.0.1:{pages.port}\r\n\r\n".encode())
    await reader.read(10)
    await asyncio.sleep(1)

    assert BIG / 2 > Source.sent
    writer.close()
    await writer.wait_closed()


async def test_lines_come_as_they_are_written(pages):
    """An answer that goes on for long is seen from its first line."""
    Ticks.go = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
    writer.write(f"GET /ticks HTTP/1.1\r\nHost: 127.0.0.1:{pages.port}\r\n\r\n".encode())

    assert b"first\n" in await asyncio.wait_for(reader.readuntil(b"first\n"), 5)
    Ticks.go.set()
    assert b"second\n" in await asyncio.wait_for(reader.readuntil(b"second\n"), 5)
    writer.close()
    await writer.wait_closed()


async def test_kept_connections_are_used_again(pages, front):
    """Requests on one connection of the browser share one connection to the front, page by page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
    bodies = []
    for path in ("/1", "/2", "/3", "/jupyter/4"):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{pages.port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        bodies.append(json.loads(await reader.readexactly(length))["uri"])

    assert ["/1", "/2", "/3", "/jupyter/4"] == bodies
    assert 2 == front.accepted

    await front.drop()
    assert b"" == await asyncio.wait_for(reader.read(), 5)  # as the browser would see it without a proxy
    writer.close()
    await writer.wait_closed()


async def test_websockets_pass(pages):
    """Messages of either kind go both ways, the close handshake arrives, compression is negotiated end to end."""
    request = HTTPRequest(f"ws://127.0.0.1:{pages.port}/ws", headers={"Origin": pages.url})
    connection = await websocket.websocket_connect(request, compression_options={}, max_message_size=BIG * 2)
    await connection.write_message("hello")
    assert "hello" == await connection.read_message()
    await connection.write_message(b"z" * 5_000_000, binary=True)
    assert b"z" * 5_000_000 == await connection.read_message()
    await connection.write_message("bye")
    assert (None, 1000) == (await connection.read_message(), connection.close_code)
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.org"},
        {"Host": "evil.example.org:8787", "Origin": "http://evil.example.org:8787"},
        {"Host": "localhost.evil.example.org"},
        {"Origin": "http://evil.example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
@pytest.mark.parametrize("kind", ["get", "post", "websocket"])
async def test_other_sites_are_kept_out(pages, front, headers, kind):
    """A page of another origin, or a name that was rebound to loopback, gets 403 and the front no request."""
    if kind == "websocket":
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
        answer = await fetch(f"{pages.url}/jupyter/ws", headers={**upgrade, **headers})
    elif kind == "post":
        answer = await fetch(f"{pages.url}/jupyter/api", method="POST", body="x=1", headers=headers)
    else:
        answer = await fetch(f"{pages.url}/jupyter/api", headers=headers)

    assert (403, 0) == (answer.code, front.accepted)


async def test_links_from_other_sites_open(pages):
    """A link on another page may lead here, and a page of this origin may ask for more."""
    linked = await fetch(
        pages.url + "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    )
    own = await fetch(pages.url + "/", headers={"Origin": pages.url, "Sec-Fetch-Site": "same-origin"})

    assert [200, 200] == [linked.code, own.code]


async def test_link_is_the_users_template(pages, monkeypatch):
    """`distributed.dashboard.link` says where the user finds the pages, and its host is served."""
    monkeypatch.setenv("WHO", "ada")
    with dask.config.set(
        {"distributed.dashboard.link": "https://hub.example.org/user/{WHO}/proxy/{port}/status"}
    ):
        assert f"https://hub.example.org/user/ada/proxy/{pages.port}/status" == pages.link
        hub = {"Host": "hub.example.org", "Origin": "https://hub.example.org"}
        assert 200 == (await fetch(pages.url + "/", headers=hub)).code
    assert 403 == (await fetch(pages.url + "/", headers=hub)).code
    assert f"{pages.url}/status" == pages.link


async def test_hub_brings_its_own_name(pages, monkeypatch):
    """Behind a JupyterHub the browser uses the hub's name, and only its own origin is let in."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    own = {"Host": "hub.example.org", "Origin": "https://hub.example.org"}
    other = {"Host": "hub.example.org", "Origin": "https://evil.example.org"}

    answers = [await fetch(pages.url + "/", headers=headers) for headers in (own, other)]
    assert [200, 403] == [answer.code for answer in answers]
    seen = json.loads(answers[0].body)["headers"]
    assert (f"127.0.0.1:{pages.port}", pages.url) == (seen["Host"], seen["Origin"])


async def test_absent_page_is_an_error_that_names_it(pages):
    """A page that the cluster does not serve is a 502 that says which."""
    answer = await fetch(pages.url + "/proxy/1/10.0.0.6/status")

    assert 502 == answer.code


async def test_ended_cluster_is_an_error_that_names_the_front(pages):
    """When the front is gone each request says so at once, and works again when it is back elsewhere."""
    front, pages.front = pages.front, "127.0.0.1:1"
    gone = await fetch(pages.url + "/")
    head = await fetch(pages.url + "/", method="HEAD")
    pages.front = front
    back = await fetch(pages.url + "/")

    assert [502, 502, 200] == [gone.code, head.code, back.code]
    assert b"dashboard at 127.0.0.1:1 does not answer" in gone.body


async def test_keys_of_another_cluster_show_nothing(front):
    """The front of one cluster serves nobody who holds the keys of another."""
    now = int(time.time())
    other = make_secrets(Identity(name="other", owner="me", created=now, expires=now + 3600))
    pages = await serve_pages(front.address, other.client)

    assert 502 == (await fetch(pages.url + "/")).code
    await pages.close()


async def test_smuggled_body_is_refused(pages, front):
    """A request whose body would be read as the next request is not relayed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{pages.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        "1c\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n0\r\n\r\n".encode()
    )

    assert b"HTTP/1.1 501" in await asyncio.wait_for(reader.read(), 5)
    assert 0 == front.accepted
    writer.close()
    await writer.wait_closed()


async def test_close_ends_everything(front, secrets):
    """Closing while pages load and websockets are open returns soon, and the port is free."""
    Ticks.go = asyncio.Event()
    pages = await serve_pages(front.address, secrets.client)
    loading = asyncio.ensure_future(fetch(pages.url + "/ticks"))
    talking = await websocket.websocket_connect(f"ws://127.0.0.1:{pages.port}/ws")
    elsewhere = asyncio.ensure_future(fetch(pages.url + "/proxy/1/10.0.0.5/ticks"))
    await asyncio.sleep(0.3)
    await asyncio.wait_for(pages.close(), 5)

    ended = await asyncio.gather(loading, elsewhere, return_exceptions=True)
    assert [HTTPStreamClosedError] * 2 == [type(error) for error in ended]
    assert None is await talking.read_message()
    talking.close()
    Ticks.go.set()
    again = await serve_pages(front.address, secrets.client, port=pages.port)
    await again.close()


def test_serves_from_the_loop_of_a_synchronous_cluster(secrets, tmp_path):
    """Pages that are started in a loop of another thread serve the browser of this one."""
    from urllib.request import urlopen

    from distributed.utils import LoopRunner, sync

    async def start():
        stack = contextlib.AsyncExitStack()
        ports = {"dashboard": await stack.enter_async_context(application("dashboard"))}
        front = await stack.enter_async_context(Front(ports, secrets.machine, tmp_path))
        pages = await serve_pages(front.address, secrets.client)
        stack.push_async_callback(pages.close)
        return stack, pages

    runner = LoopRunner(asynchronous=False)
    runner.start()
    stack, pages = sync(runner.loop, start)
    with urlopen(pages.url + "/status", timeout=5) as answer:
        assert "/status" == json.load(answer)["uri"]
    sync(runner.loop, stack.aclose)
    runner.stop()


@contextlib.asynccontextmanager
async def machine(secrets, folder, pages):
    """The front that machines really run, with these pages behind it; its address."""
    folder.mkdir()
    door = bind("127.0.0.1", 0)
    keys = keep(json.loads(secrets.machine), str(folder))
    server = await MachineFront(keys, door, here="127.0.0.1", pages=lambda: pages, hops=True).open()
    try:
        yield "{}:{}".format(*door.getsockname())
    finally:
        server.close()


@pytest.fixture
async def dask_front(secrets, tmp_path):
    """A real scheduler and worker with pages on loopback only, behind a real front: its address, the worker's port."""
    pytest.importorskip("bokeh", reason="the dashboard needs bokeh")
    from distributed import Client, Scheduler, Worker

    options = {"host": "127.0.0.1", "dashboard": True, "dashboard_address": "127.0.0.1:0"}
    async with (
        Scheduler(port=0, **options) as scheduler,
        Worker(scheduler.address, name="seen-in-a-browser", **options) as worker,
        Client(scheduler.address, asynchronous=True),
    ):
        port = worker.http_server.port
        ports = {"dashboard": scheduler.http_server.port, f"port-{port}": port}
        async with machine(secrets, tmp_path / "keys", ports) as address:
            yield address, port


async def test_jupyter_serves_who_has_its_token(secrets, tmp_path):
    """A real Jupyter answers through front and proxy, over HTTP and websocket, and only with its token."""
    jupyter = pytest.importorskip("cloudruntime.jupyter", reason="the runtime has no Jupyter")
    pytest.importorskip("jupyter_server")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    token = json.loads(secrets.client)["token"]
    (tmp_path / "jupyter_server_config.json").write_text(
        json.dumps(jupyter.config(port, token, lab=False, root=True))
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "jupyter_server",
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with machine(secrets, tmp_path / "keys", {"jupyter": port}) as address:
            pages = await serve_pages(address, secrets.client)
            for _ in range(300):
                if (await fetch(f"{pages.url}/jupyter/api")).code == 200:
                    break
                await asyncio.sleep(0.1)
            socket_url = f"ws://127.0.0.1:{pages.port}/jupyter/api/events/subscribe?token={token}"
            request = HTTPRequest(socket_url, headers={"Origin": pages.url})
            connection = await websocket.websocket_connect(request)
            connection.close()
            codes = [
                (await fetch(f"{pages.url}/jupyter/api/status{query}")).code
                for query in ("", f"?token={token}")
            ]
            assert [403, 200] == codes
            await pages.close()
    finally:
        process.kill()
        await process.wait()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_dashboard_lives_in_a_real_browser(dask_front, secrets, tmp_path):
    """Chromium shows what comes through Bokeh's websocket, of the scheduler and of a worker."""
    address, port = dask_front
    pages = await serve_pages(address, secrets.client)
    worker = f"{pages.url}/proxy/{port}/127.0.0.1/status"
    async with chromium(tmp_path / "profile") as browser:
        await browser.open(f"{pages.url}/workers")
        assert "seen-in-a-browser" in await browser.text(until="seen-in-a-browser")
        await browser.open(worker)
        assert "Executing" in await browser.text(until="Executing")
    await pages.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_foreign_page_in_a_real_browser_is_kept_out(front, secrets, tmp_path):
    """A script of another origin in the user's own Chromium reads nothing and opens no websocket."""
    pages = await serve_pages(front.address, secrets.client)
    attack = """
    (async () => {
      const seen = [];
      for (const options of [{}, {mode: "no-cors"}, {mode: "no-cors", method: "POST", body: "x"}]) {
        seen.push(await fetch("PAGES/jupyter/api", options).then(r => r.type + r.status, () => "error"));
      }
      seen.push(await new Promise(done => {
        const socket = new WebSocket("PAGES/ws".replace("http", "ws"));
        socket.onopen = () => done("open");
        socket.onerror = () => done("error");
      }));
      return seen;
    })()
    """.replace("PAGES", pages.url)
    async with application("evil") as evil, chromium(tmp_path / "profile") as browser:
        await browser.open(f"http://127.0.0.1:{evil}/")
        await browser.text(until="evil")
        before = front.accepted
        assert ["error", "opaque0", "opaque0", "error"] == await browser.run(attack)
        assert before == front.accepted
        await browser.open(pages.url)
        await browser.text(until="dashboard")
        script = "new Promise(d => {const s = new WebSocket('/ws'); s.onopen = () => {d('open'); s.close()}})"
        assert "open" == await browser.run(script)
    await pages.close()
