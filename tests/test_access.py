"""The way from here to a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Scheduler, Worker
from distributed.comm import connect

from cloudprovider.access import own_address, patient, reach, stay_patient, unreachable, why
from cloudprovider.errors import AccessError
from cloudprovider.provider import Identity
from cloudprovider.security import client_security, make_secrets
from cloudprovider.sockets import keep_open, schedule


@pytest.fixture
def echo(monkeypatch):
    """A real echo service on loopback that answers what it is told to; `cloud.address-url` names it."""

    class Answer(BaseHTTPRequestHandler):
        text, delay = b"203.0.113.7\n", 0.0

        def do_GET(self) -> None:
            time.sleep(Answer.delay)
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(Answer.text)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setenv("DASK_CLOUD__ADDRESS_URL", f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Answer
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def secrets():
    """Keys of a cluster."""
    now = int(time.time())
    return make_secrets(Identity(name="access", owner="me", created=now, expires=now + 3600))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"203.0.113.7\n", "203.0.113.7"), (b" 2001:DB8::7", "2001:db8::7")],
)
def test_own_address_is_what_the_echo_service_says(echo, text, expected):
    """The address is read from plain text, of either family."""
    echo.text = text

    assert expected == own_address()


@pytest.mark.usefixtures("echo")
def test_own_address_ignores_http_proxies(monkeypatch):
    """Dask's connections pass no HTTP proxy, so the question does not either."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert "203.0.113.7" == own_address()


@pytest.mark.parametrize(
    ("text", "delay"),
    [(b"<html>Please log in to the hotel's network</html>", 0), (b"", 0), (b"203.0.113.7", 1.0)],
    ids=["captive portal", "empty", "late"],
)
def test_own_address_that_cannot_be_learned_says_what_to_pass(echo, text, delay):
    """No answer, a late one, or one that is no address is an AccessError that names allow_from."""
    echo.text, echo.delay = text, delay

    with pytest.raises(AccessError, match=r"allow_from='203\.0\.113\.7/32'"):
        own_address(timeout=0.5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "file:///etc/hostname", "checkip.amazonaws.com"])
def test_address_url_that_cannot_work_says_so(monkeypatch, url):
    """An echo service that is not there, and one that is no http address, are named in the error."""
    monkeypatch.setenv("DASK_CLOUD__ADDRESS_URL", url)

    with pytest.raises(AccessError, match=r"allow_from=") as caught:
        own_address()
    assert url in str(caught.value)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def tls_scheduler(secrets, **options):
    from test_security import machine_security

    security = machine_security(secrets.machine)
    return Scheduler(
        security=security,
        host="127.0.0.1",
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        protocol="tls://",
        **options,
    )


async def test_reach_waits_for_the_scheduler(secrets):
    """A scheduler that comes up later is reached as soon as it answers."""
    port = free_port()
    waiting = asyncio.ensure_future(
        reach(f"tls://127.0.0.1:{port}", client_security(secrets.client), within=20)
    )
    await asyncio.sleep(0.5)
    assert not waiting.done()

    async with tls_scheduler(secrets, port=port):
        await asyncio.wait_for(waiting, 5)


async def test_reach_says_that_nobody_listens(secrets):
    """A machine that answers without a scheduler is told from a rule that is missing."""
    with pytest.raises(AccessError, match="no scheduler listens there") as caught:
        await reach(f"tls://127.0.0.1:{free_port()}", client_security(secrets.client), within=1)
    assert isinstance(caught.value.__cause__, OSError)


async def test_reach_waits_behind_a_tunnel_whose_far_end_is_not_up(secrets):
    """A tunnel takes every connection and ends it until the scheduler listens; that is no matter of keys."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as tunnel:
        port = tunnel.sockets[0].getsockname()[1]
        with pytest.raises(AccessError, match="no scheduler listens there"):
            await reach(f"tls://127.0.0.1:{port}", client_security(secrets.client), within=2)


async def test_reach_gives_up_at_once_on_other_keys(secrets):
    """A certificate that is not this cluster's will not become so by waiting."""
    now = int(time.time())
    other = make_secrets(Identity(name="other", owner="me", created=now, expires=now + 3600))
    async with tls_scheduler(secrets, port=0) as scheduler:
        start = time.monotonic()
        with pytest.raises(AccessError, match="keys of another cluster"):
            await reach(scheduler.address, client_security(other.client), within=60)
    assert 5 > time.monotonic() - start


@contextlib.contextmanager
def silent_port():
    """A port whose queue is full, so that packets to it go unanswered as behind a rule that drops them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what a full queue cannot hold")
@pytest.mark.usefixtures("echo")
async def test_reach_gives_up_on_a_running_machine_that_stays_silent(secrets):
    """When the cloud says it runs and nothing comes back, the error comes long before the deadline."""
    with silent_port() as port:
        start = time.monotonic()
        with pytest.raises(AccessError, match="Nothing comes back"):
            await reach(
                f"tls://127.0.0.1:{port}",
                client_security(secrets.client),
                within=120,
                allowed=["198.51.100.1/32"],
                running=lambda: True,
                silence=4,
            )
    assert 20 > time.monotonic() - start


def test_error_names_old_and_new_address():
    """From another network the error says what the rule admits, what the address is now, and what to call."""
    error = str(
        unreachable("tls://203.0.114.9:8786", "silence", allowed=["198.51.100.1/32"], own="192.0.2.9")
    )

    for part in ("203.0.114.9:8786", "Your address is 192.0.2.9 now", "198.51.100.1/32", "cluster.allow()"):
        assert part in error


@pytest.mark.parametrize(
    ("address", "reason", "options", "expected"),
    [
        ("1.2.3.4:8786", "silence", {"allowed": ["8.0.0.0/8"], "own": "8.8.8.8"}, "out to port 8786"),
        ("1.2.3.4:8786", "silence", {"allowed": ["8.0.0.0/8"], "own": None}, "admit 8.0.0.0/8"),
        ("1.2.3.4:8786", "silence", {}, "cluster.allow()"),
        ("10.2.3.4:8786", "silence", {"allowed": ["8.0.0.0/8"], "own": "8.8.8.8"}, "tunnel=True"),
        (
            "[2001:4860::1]:8786",
            "silence",
            {"allowed": ["2001:db8::/32"], "own": "8.8.8.8"},
            "only 2001:db8::",
        ),
        ("10.2.3.4:8786", "route", {}, "no route to 10.2.3.4:8786"),
        ("1.2.3.4:8786", "refused", {}, "not up yet, or has ended"),
        ("1.2.3.4:8786", "keys", {}, "from_name"),
    ],
)
def test_error_says_what_to_do(address, reason, options, expected):
    """Each thing that can be in the way has its own sentence with what to do."""
    assert expected in str(unreachable(f"tls://{address}", reason, **options))


def test_reason_is_found_under_wrappers():
    """What the socket met is found wherever Dask and tornado wrapped it."""
    wrapped = OSError("Timed out trying to connect")
    wrapped.__cause__ = OSError("in connector")
    wrapped.__cause__.__cause__ = ConnectionRefusedError()

    assert "refused" == why(wrapped)
    assert "silence" == why(TimeoutError())
    assert "keys" == why(ssl.SSLCertVerificationError())
    assert "route" == why(OSError(101, "Network is unreachable"))


@pytest.mark.parametrize("seconds", [1, 11, 30, 60, 300, 3600])
def test_probes_end_when_patience_does(seconds):
    """The last of ten probes goes unanswered when the time has passed, and the first is not sent at once."""
    idle, interval = schedule(seconds)

    assert max(11, seconds) == idle + 10 * interval
    assert 1 <= interval
    assert 1 <= idle


@pytest.mark.skipif(sys.platform != "linux", reason="reads the options back by their Linux numbers")
def test_kernel_keeps_what_was_set():
    """TCP_USER_TIMEOUT and the keep-alive schedule are on the socket afterwards."""
    with socket.socket() as sock:
        assert keep_open(sock, 300)
        read = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (18, 4, 5, 6)]

        assert [300_000, *schedule(300), 10] == read
        assert 1 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def user_timeout(comm) -> float:
    return comm.stream.socket.getsockopt(socket.IPPROTO_TCP, 18) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the option back by its Linux number")
async def test_only_the_clusters_own_connections_become_patient(secrets):
    """A cluster's connections and its clients' are patient, over TLS too; another client's, and later ones, are not."""
    async with (
        LocalCluster(
            n_workers=1, processes=False, protocol="tcp://", asynchronous=True, dashboard_address=None
        ) as cluster,
        Client(cluster, asynchronous=True) as ours,
        Client(cluster.scheduler_address, asynchronous=True) as other,
    ):
        assert 2 <= stay_patient(cluster, 300)
        assert 300 == user_timeout(ours.scheduler_comm.comm)
        assert 30 == user_timeout(other.scheduler_comm.comm)
    async with tls_scheduler(secrets, port=0) as scheduler:
        arguments = client_security(secrets.client).get_connection_args("client")
        comm = await connect(scheduler.address, timeout=5, **arguments)
        assert patient(comm, 300)
        assert 300 == user_timeout(comm)
        await comm.close()
        assert not patient(comm, 300)


async def test_connections_without_a_socket_are_left_alone():
    """In one process Dask needs no socket; there is nothing to be patient with."""
    async with Scheduler(
        protocol="inproc://", dashboard=False, dashboard_address="127.0.0.1:0", port=0
    ) as scheduler:
        async with Worker(scheduler.address, nthreads=1):
            comm = await connect(scheduler.address)
            assert not patient(comm, 300)
            await comm.close()


def namespace() -> list[str]:
    """The command that runs another in a network namespace of its own; empty where that is forbidden."""
    for command in (["unshare", "-n"], ["unshare", "-Urn"]):
        with contextlib.suppress(OSError):
            probe = subprocess.run([*command, "nft", "list", "ruleset"], capture_output=True, check=False)
            if probe.returncode == 0:
                return command
    return []


@pytest.mark.skipif(not namespace(), reason="needs a network namespace and nft: root, or user namespaces")
def test_client_survives_without_network(secrets, tmp_path):
    """Seven seconds without network lose nothing with 20 seconds of patience, and all futures with 3."""
    folder = tmp_path / "work"
    folder.mkdir()
    keys = tmp_path / "secrets"
    keys.write_text(json.dumps({"machine": secrets.machine, "client": secrets.client}))
    program = str(Path(__file__).with_name("outage.py"))
    run = subprocess.run(
        [*namespace(), sys.executable, program, "20", "7", str(folder), str(keys)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)

    assert {"patient": "finished", "impatient": "cancelled"} == report["status"]
    assert {"patient": 1, "impatient": 1} == report["done"]  # nothing was computed twice
    assert ("patient", 3) == (report["result"], report["answer"])
