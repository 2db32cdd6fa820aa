"""The Dask process: how the supervisor starts it, and how it begins.

It is a fork of the supervisor where there are forks to be had, which costs no second interpreter;
elsewhere it is `python -m cloudruntime.child`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudruntime.boot import Boot
from cloudruntime.identity import Identity
from cloudruntime.secrets import Keys

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Child", "Site", "die_with", "start"]

#: `PORT:WORD` of the supervisor's end of the line, for a Dask process that is no fork.
CHANNEL = "DASK_CLOUD_CHANNEL"
#: Folder for what Dask spills, on the machine's own disks where it has any.
SCRATCH = "DASK_CLOUD_SCRATCH"
#: Whether the Dask process is a fork. One of a process that has used Apple's frameworks is not safe.
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"

START_S = 60.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Site:
    """What a Dask process needs to know.

    Parameters
    ----------
    boot, identity, keys
        What it runs, who it is, where its keys are; without keys nothing is encrypted.
    port
        Where the scheduler listens; 0 means any.
    front_port
        Where this machine's TLS front listens; 0 means that there is none.
    """

    boot: Boot
    identity: Identity
    keys: Keys | None
    port: int
    front_port: int

    @property
    def protocol(self) -> str:
        """How Dask's connections begin."""
        return "tls" if self.keys else "tcp"

    def dumps(self) -> str:
        """The Site as one line of JSON, for a private channel: it holds Jupyter's token."""
        document = {**dataclasses.asdict(self), "boot": self.boot.dumps()}
        return json.dumps(document)

    @classmethod
    def loads(cls, text: str) -> Site:
        """The Site that a JSON document says."""
        document = json.loads(text)
        return cls(
            boot=Boot.loads(document["boot"]),
            identity=Identity(**document["identity"]),
            keys=Keys(**document["keys"]) if document["keys"] else None,
            port=document["port"],
            front_port=document["front_port"],
        )


class Child:
    """A running process of the supervisor's.

    Parameters
    ----------
    pid
        Its process id.
    sock
        The supervisor's end of the line to it.
    process
        The Popen it came from; None when it is a fork.
    """

    def __init__(self, pid: int, sock: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.sock = sock
        self._process = process
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None and self._process is not None:
            self._code = self._process.poll()
        elif self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self, *, gently: bool = False) -> None:
        """End it: now, or by asking."""
        if self.poll() is not None:
            return
        if self._process is not None:
            self._process.terminate() if gently else self._process.kill()
        else:
            os.kill(self.pid, signal.SIGTERM if gently else signal.SIGKILL)


def start(site: Site, door: socket.socket | None = None, *, fork: bool) -> Child:
    """Start the Dask process of this machine; the door is the supervisor's, not its."""
    return _fork(site, door) if fork else _spawn(site)


def _fork(site: Site, door: socket.socket | None) -> Child:
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, ours)
    code = 1
    try:
        ours.close()
        if door is not None:
            door.close()
        die_with(supervisor)
        code = live(site, theirs)
    except BaseException:  # noqa: BLE001  (nothing of the fork may return into the supervisor's code)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _spawn(site: Site) -> Child:
    word = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(START_S)
        environ = {**os.environ, CHANNEL: f"{server.getsockname()[1]}:{word}"}
        process = subprocess.Popen([sys.executable, "-m", "cloudruntime.child"], env=environ)
        while True:
            sock, _ = server.accept()
            sock.settimeout(START_S)
            if secrets.compare_digest(_line(sock), word):
                break
            sock.close()  # someone else on this computer
    sock.sendall(site.dumps().encode() + b"\n")
    sock.settimeout(None)
    return Child(process.pid, sock, process)


def enter(environ: Any = os.environ) -> int:
    """Begin as a process of its own: learn everything from the supervisor."""
    port, _, word = environ.pop(CHANNEL).partition(":")
    sock = socket.create_connection(("127.0.0.1", int(port)), timeout=START_S)
    sock.sendall(word.encode() + b"\n")
    site = Site.loads(_line(sock))
    sock.settimeout(None)
    return live(site, sock)


def _line(sock: socket.socket) -> str:
    """One line, byte by byte: what follows it belongs to the channel."""
    text = bytearray()
    while not text.endswith(b"\n") and (byte := sock.recv(1)):
        text += byte
    return text.decode("ascii", "replace").rstrip("\n")


def live(site: Site, sock: socket.socket) -> int:
    """Run this machine's part of Dask until it ends."""
    _mind_signals()
    _settle(site)
    from distributed.compatibility import asyncio_run
    from distributed.config import get_loop_factory

    if site.boot.role == "scheduler":
        from cloudruntime.scheduler import serve
    else:
        from cloudruntime.worker import serve
    asyncio_run(serve(site, sock), loop_factory=get_loop_factory())
    return 0


def _settle(site: Site) -> None:
    """Take on the Boot's environment before Dask reads it, also where Dask came with the fork."""
    os.environ.update({name: str(value) for name, value in site.boot.environment.items()})
    if scratch := os.environ.get(SCRATCH):
        os.environ.setdefault("DASK_TEMPORARY_DIRECTORY", scratch)
    # distributed asserts more than 11 s: https://github.com/dask/distributed/blob/main/distributed/comm/tcp.py
    network_s = max(11, round(site.boot.leases.network))
    os.environ.setdefault("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", f"{network_s}s")
    if "dask.config" in sys.modules:
        sys.modules["dask.config"].refresh()
    if "numpy.random" in sys.modules:  # Python reseeds `random` after a fork; numpy does not
        sys.modules["numpy.random"].seed()


def _mind_signals() -> None:
    """Leave the cloud's signals to the supervisor, but let processes forked from here end by them."""
    mine = os.getpid()

    def leave(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != mine:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)


def die_with(supervisor: int) -> None:
    """On Linux the kernel ends this process when the supervisor has gone without a word."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(enter())
