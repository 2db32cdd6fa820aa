"""Tunnels to a machine that nothing outside can reach."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import session_manager_plugin

from cloudprovider.errors import AccessError, ConfigError, CredentialsError
from cloudprovider.providers import _ecs_tunnel
from cloudprovider.tunnel import NotYetError, Program, Relay

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugin's stand-in ends on POSIX signals")

TASK = {
    "taskArn": "arn:aws:ecs:eu-central-1:123456789012:task/dask/0123456789abcdef",
    "clusterArn": "arn:aws:ecs:eu-central-1:123456789012:cluster/dask",
    "lastStatus": "RUNNING",
    "desiredStatus": "RUNNING",
    "containers": [
        {
            "name": "dask",
            "runtimeId": "0123456789abcdef-527074092",
            "managedAgents": [{"name": "ExecuteCommandAgent", "lastStatus": "RUNNING"}],
        }
    ],
}
TARGET = "ecs:dask_0123456789abcdef_0123456789abcdef-527074092"


@contextlib.contextmanager
def serving(server):
    """A server in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Upper(socketserver.BaseRequestHandler):
    """Answers in capitals."""

    def handle(self) -> None:
        while data := self.request.recv(1000):
            self.request.sendall(data.upper())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@pytest.fixture
def upper():
    """The port of a service that only the machine itself can reach."""
    with serving(Server(("127.0.0.1", 0), Upper)) as port:
        yield port


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The plugin's stand-in, in PATH."""
    session_manager_plugin.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "session-manager-plugin"


class Control(BaseHTTPRequestHandler):
    """As much of ECS and SSM as a tunnel asks for, on the wire."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self.server.calls.append((operation, request))
        status, answer = self.server.answers[operation]()
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def control(monkeypatch):
    """An AWS that runs one task and opens sessions to it."""
    pytest.importorskip("boto3")
    sessions = (f"session-{number}" for number in itertools.count(1))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Control)
    server.daemon_threads = True
    server.calls = []
    server.answers = {
        "DescribeTasks": lambda: (200, {"tasks": [TASK], "failures": []}),
        "StartSession": lambda: (
            200,
            {"SessionId": next(sessions), "TokenValue": "very-secret", "StreamUrl": "wss://ssmmessages/1"},
        ),
        "TerminateSession": lambda: (200, {"SessionId": "session"}),
    }
    with serving(server) as port:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def opened(control, plugin, upper):
    """A tunnel to that task."""
    tunnel = make(upper)
    tunnel.open(20)
    yield tunnel
    tunnel.close()


def make(port: int):
    from cloudprovider.providers._aws import AWS

    aws = AWS("eu-central-1")
    return _ecs_tunnel.tunnel(aws, "dask", "0123456789abcdef", "127.0.0.1", scheduler=port, front=port)


def ask(address: tuple[str, int], text: bytes = b"hello") -> bytes:
    with socket.create_connection(address, 5) as sock:
        sock.settimeout(5)
        sock.sendall(text)
        return sock.recv(1000)


def eventually(condition, within: float = 10) -> bool:
    """Whether a condition comes to hold."""
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_target_is_what_the_agent_calls_itself():
    """A session's target is made of the cluster's name, the task's id and the container's runtime id."""
    assert TARGET == _ecs_tunnel.target(TASK)


@pytest.mark.parametrize(
    "containers",
    [
        [],
        [{"name": "dask", "lastStatus": "PENDING"}],
        [{"name": "dask", "runtimeId": "r", "managedAgents": []}],
        [{"runtimeId": "r", "managedAgents": [{"name": "ExecuteCommandAgent", "lastStatus": "PENDING"}]}],
    ],
)
def test_task_without_its_agent_is_not_there_yet(containers):
    """Before the container and its agent run there is no target, and the error says what the agent needs."""
    with pytest.raises(NotYetError, match="ssmmessages"):
        _ecs_tunnel.target({**TASK, "containers": containers})


def test_ended_task_is_no_target():
    """A task that has ended is not waited for."""
    with pytest.raises(AccessError, match="OutOfMemory") as caught:
        _ecs_tunnel.target({**TASK, "lastStatus": "STOPPED", "stoppedReason": "OutOfMemory"})
    assert not isinstance(caught.value, NotYetError)


def test_missing_plugin_is_found_before_any_call(control, tmp_path, monkeypatch):
    """Without the plugin the error says where to get it, and nothing has been asked of the cloud."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match="session-manager-working-with-install-plugin"):
        make(8786)
    assert [] == control.calls


def test_tunnel_carries_bytes(opened, control, upper):
    """Both local ports lead to the machine's, by its private address, from sessions of their own."""
    assert b"HELLO" == ask(opened.address) == ask(opened.front)
    assert opened.address != opened.front
    started = [request for operation, request in control.calls if operation == "StartSession"]
    assert [
        {
            "Target": TARGET,
            "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
            "Parameters": {
                "host": ["127.0.0.1"],
                "portNumber": [str(upper)],
                "localPortNumber": [str(port)],
            },
        }
        for _, port in (opened.address, opened.front)
    ] == started


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads a command line from /proc")
def test_token_is_in_no_command_line(opened):
    """What opens the session is not shown to other users of this machine."""
    shown = command_line(opened.scheduler.pid)

    assert "StartSession" in shown
    assert "very-secret" not in shown


@pytest.mark.usefixtures("control", "plugin")
def test_older_plugin_gets_the_session_as_its_argument(upper, monkeypatch):
    """A plugin that reads no environment variable is given the session as it expects it."""
    monkeypatch.setenv("PLUGIN_VERSION", "1.2.497.0")
    tunnel = make(upper).open(20)
    try:
        assert b"HELLO" == ask(tunnel.address)
        assert "very-secret" in command_line(tunnel.scheduler.pid)
    finally:
        tunnel.close()


def test_close_ends_programs_and_sessions(opened, control):
    """After close no program runs, each session is ended in the cloud, and closing again is no error."""
    pids = [opened.scheduler.pid, opened.pages.pid]
    opened.close()
    opened.close()

    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert 2 == sum(operation == "TerminateSession" for operation, _ in control.calls)
    with pytest.raises(OSError, match="refused"):
        ask(opened.address)


def test_dead_program_is_started_again_on_the_same_port(opened, control):
    """When the program dies a new session takes over at the same address."""
    first, address = opened.scheduler.pid, opened.address
    os.kill(first, signal.SIGKILL)

    assert eventually(lambda: opened.scheduler.alive and opened.scheduler.pid not in {None, first})
    assert b"HELLO" == ask(address)
    assert address == opened.address
    assert 3 == sum(operation == "StartSession" for operation, _ in control.calls)


@pytest.mark.usefixtures("plugin")
def test_agent_that_starts_late_is_waited_for(control, upper):
    """Sessions that the agent does not take yet are asked for again."""
    real, refusals = control.answers["StartSession"], iter(range(2))
    error = (400, {"__type": "TargetNotConnected", "message": f"{TARGET} is not connected."})
    control.answers["StartSession"] = lambda: real() if next(refusals, None) is None else error
    tunnel = make(upper).open(20)

    assert b"HELLO" == ask(tunnel.address)
    tunnel.close()


@pytest.mark.usefixtures("plugin")
def test_agent_that_never_starts_is_an_error(control, upper):
    """At the deadline the error says what the agent lacks, and nothing is left running."""
    waiting = {**TASK, "containers": [{"name": "dask", "runtimeId": "r"}]}
    control.answers["DescribeTasks"] = lambda: (200, {"tasks": [waiting], "failures": []})

    with pytest.raises(NotYetError, match="its agent is PENDING"):
        make(upper).open(2)


@pytest.mark.usefixtures("plugin")
def test_missing_right_is_an_error_at_once(control, upper):
    """A session that may not be started names the action, without waiting for the deadline."""
    said = "User: arn:aws:iam::123456789012:user/me is not authorized to perform: ssm:StartSession"
    control.answers["StartSession"] = lambda: (
        400,
        {"__type": "AccessDeniedException", "message": said},
    )
    start = time.monotonic()
    with pytest.raises(CredentialsError, match="ssm:StartSession"):
        make(upper).open(60)
    assert 20 > time.monotonic() - start


def test_program_that_fails_is_quoted():
    """A program that ends without listening is an error with its last words, at the deadline."""
    script = "print('no such\\nmachine')"
    relay = Relay(lambda _: Program(command=(sys.executable, "-c", script), ready="Waiting"))

    with pytest.raises(AccessError, match="no such / machine"):
        relay.open(0.5)


def test_program_that_ignores_signals_is_killed():
    """Closing does not depend on the program's manners."""
    script = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); print('Waiting', flush=True); time.sleep(60)"
    )
    relay = Relay(lambda _: Program(command=(sys.executable, "-c", script), ready="Waiting"))
    relay.open(10)
    pid = relay.pid
    relay.close()

    assert not Path(f"/proc/{pid}").exists()
