"""Local ports that lead to a machine which nothing outside can reach.

A cloud's own program carries the bytes (`session-manager-plugin`, `gcloud`, `az`): it is given a local
port and keeps it until it is told to end. What is here starts it, waits until it listens, starts it again
on the same port when it dies, and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cloudprovider.errors import AccessError, CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["NotYetError", "Program", "Relay", "Tunnel"]

logger = logging.getLogger("cloudprovider")

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
END_S = 5.0
#: Runs a program that the kernel ends when the process that started it has been killed.
MORTAL = (
    "import os, sys; from cloudruntime.child import die_with; "
    "die_with(int(sys.argv[1])); os.execvp(sys.argv[2], sys.argv[2:])"
)


class NotYetError(AccessError):
    """The machine does not take tunnels yet; it may soon."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What carries the bytes of one local port.

    Parameters
    ----------
    command
        The program and its arguments, which everyone on this machine can read.
    ready
        What it prints once it listens.
    environment
        Environment variables beside our own; may hold a token.
    end
        Tells the cloud that its session is over.
    """

    command: tuple[str, ...]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    end: Callable[[], None] = field(default=lambda: None, repr=False)


class Relay:
    """One local port and the program behind it. Thread-safe.

    Parameters
    ----------
    program
        Makes the program for a local port, each time it is started.
    """

    def __init__(self, program: Callable[[int], Program]) -> None:
        self.port = 0
        self._program = program
        self._running: tuple[subprocess.Popen[str], Program] | None = None
        self._listens = threading.Event()
        self._closing = threading.Event()
        self._said: deque[str] = deque(maxlen=10)
        self._thread: threading.Thread | None = None
        self._failure: CloudError | None = None

    @property
    def alive(self) -> bool:
        """Whether the program listens."""
        return self._listens.is_set() and not self._closing.is_set()

    @property
    def pid(self) -> int | None:
        """The program's process, when there is one."""
        return self._running[0].pid if self._running else None

    def open(self, within: float) -> None:
        """Start, and wait until the port leads somewhere.

        Raises
        ------
        CloudError
            When it does not within so many seconds; says what the program said.
        """
        self.port = _free_port()
        deadline = time.monotonic() + within
        self._thread = threading.Thread(target=self._keep, args=(deadline,), name="tunnel", daemon=True)
        self._thread.start()
        while not self._listens.wait(0.05):
            if time.monotonic() > deadline or not self._thread.is_alive():
                self.close()
                raise self._failure or AccessError(f"The tunnel did not open in {within:g} s.{self._words()}")

    def close(self) -> None:
        """End the program; more than once is no error."""
        self._closing.set()
        self._stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(END_S)

    def _keep(self, deadline: float) -> None:
        """Keep the program running until `close`; before it has listened once, only until the deadline."""
        opened, failures = False, 0
        while not self._closing.is_set():
            try:
                self._run()
            except NotYetError as error:
                self._failure = error
            except (CloudError, OSError) as error:
                self._failure = error if isinstance(error, CloudError) else AccessError(str(error))
                if not opened:
                    return
            opened, failures = opened or self._listens.is_set(), 0 if self._listens.is_set() else failures + 1
            self._listens.clear()
            if self._closing.is_set() or (not opened and time.monotonic() > deadline):
                return
            if opened:
                logger.warning("A tunnel ended and is opened again.%s", self._words())
            self._closing.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)] if opened else PAUSES_S[0])

    def _run(self) -> None:
        """Start the program and read what it says until it ends."""
        program = self._program(self.port)
        process = subprocess.Popen(  # noqa: S603  (the cloud's own program)
            _mortal(program.command),
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us: the cluster still drains through the tunnel
        )
        self._running = process, program
        if self._closing.is_set():
            self._stop()
        with process:
            for line in process.stdout or ():
                if line.strip():
                    self._said.append(line.strip())
                if program.ready in line:
                    self._listens.set()
        self._running = None
        program.end()

    def _stop(self) -> None:
        running = self._running
        if running is None:
            return
        process = running[0]
        with contextlib.suppress(OSError):
            # The plugin ends its session on SIGINT, and knows no SIGTERM.
            process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _words(self) -> str:
        return f" The program said: {' / '.join(self._said)}" if self._said else ""


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """The two local ports of a scheduler behind a tunnel.

    Parameters
    ----------
    scheduler, pages
        What leads to the scheduler, and to the front of its pages.
    """

    scheduler: Relay
    pages: Relay

    @property
    def address(self) -> tuple[str, int]:
        """Where the scheduler answers."""
        return "127.0.0.1", self.scheduler.port

    @property
    def front(self) -> tuple[str, int]:
        """Where the front of its pages answers."""
        return "127.0.0.1", self.pages.port

    def open(self, within: float = 120.0) -> Self:
        """Open both ways, one after the other: the second needs no waiting.

        Raises
        ------
        CloudError
            When either does not open in time.
        """
        deadline = time.monotonic() + within
        try:
            for relay in (self.scheduler, self.pages):
                relay.open(max(1.0, deadline - time.monotonic()))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End both; more than once is no error."""
        self.pages.close()
        self.scheduler.close()


def _mortal(command: Sequence[str]) -> Sequence[str]:
    """The command that runs this one and, on Linux, ends with this process however that ends."""
    if sys.platform != "linux":
        return command
    return (sys.executable, "-P", "-c", MORTAL, str(os.getpid()), *command)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
