"""The containers of an emulated virtual machine, and the clients that wait for them."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from cloudprovider.emulator.guest_shell import FOREVER_S, KILLED

if TYPE_CHECKING:
    from cloudprovider.emulator.guest_docker_run import RunOptions
    from cloudprovider.emulator.guest_shell import Program

__all__ = ["Client", "Container"]

LOG_LINES = 10_000


class Container:
    """One container."""

    def __init__(self, options: RunOptions) -> None:
        self.id = secrets.token_hex(32)
        self.name = options.name or f"container_{self.id[:8]}"
        self.options = options
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.program: Program | None = None
        self.created = time.time()
        self.ended = threading.Event()
        self.code: int | None = None
        self.attached: Client | None = None

    @property
    def status(self) -> str:
        """In one word."""
        if self.program is None:
            return "created"
        return "exited" if self.ended.is_set() else "running"

    def end(self, code: int) -> None:
        """Take note that it has ended."""
        self.code = code
        self.ended.set()
        if self.attached:
            self.attached.end(code)

    def stop(self, timeout_s: float) -> None:
        """Ask it to end, end it after a while, and return when it has ended."""
        if self.program and not self.ended.is_set():
            self.program.stop(timeout_s)
            self.ended.wait()

    def kill(self) -> None:
        """End it."""
        if self.program and not self.ended.is_set():
            self.program.kill()
            self.ended.wait()


class Client:
    """A `docker run` in the foreground: it hands SIGTERM on, and its container outlives it when it is killed."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._code: int | None = None
        self._over = threading.Event()

    def end(self, code: int) -> None:
        """Take note that there is nothing to wait for any more."""
        if not self._over.is_set():
            self._code = code
            self._over.set()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The container's exit code."""
        self._over.wait(timeout_s)
        return self._code

    def stop(self, timeout_s: float) -> None:
        """Hand it on; after a while end without the container."""
        if program := self._container.program:
            program.stop(FOREVER_S)
        if timeout_s < FOREVER_S:
            timer = threading.Timer(timeout_s, self.end, [KILLED])
            timer.daemon = True
            timer.start()
