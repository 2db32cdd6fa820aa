"""Emulated virtual machines without an API around them, and all that they tell."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloudprovider.emulator.guest import Guest, Kind

if TYPE_CHECKING:
    from cloudprovider.emulator.room import Room

PATIENCE_S = 60


@dataclass
class Machine:
    """A machine, and what it has told so far."""

    guest: Guest = None
    lines: list[str] = field(default_factory=list)
    logged: list[tuple[str, str, str]] = field(default_factory=list)
    halts: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def console(self) -> str:
        """All of it, without the times."""
        return "\n".join(line.partition("] ")[2] for line in self.lines)

    def said(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """The first line of the console with a text in it, once there is one."""
        return self._wait(lambda: next((line for line in self.lines if text in line), ""), text, timeout_s)

    def finished(self) -> str:
        """What the console says once cloud-init is done."""
        self.said("finished at")
        return self.console

    def log(self, text: str, timeout_s: float = PATIENCE_S) -> tuple[str, str, str]:
        """The first line of the log service with a text in it, once there is one."""
        return self._wait(
            lambda: next((entry for entry in self.logged if text in entry[2]), None), text, timeout_s
        )

    def halted(self, timeout_s: float = PATIENCE_S) -> None:
        """Return once it has powered itself off."""
        assert self.halts.acquire(timeout=timeout_s), f"it is still on; it said\n{self.console}"

    def read(self, name: str) -> str:
        """A file of its disk."""
        return self.guest.path(name).read_text(encoding="utf-8")

    def _wait(self, find, text, timeout_s):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := find():
                return found
            time.sleep(0.01)
        raise AssertionError(f"never said {text!r}, but\n{self.console}\n{self.logged}")


def make(room: Room, id: str, user_data: str | bytes, kind: Kind | None = None, **options) -> Machine:
    """A machine that is switched on."""
    machine = Machine()
    machine.guest = Guest(
        room,
        id=id,
        address=options.pop("address", "127.31.0.20"),
        kind=kind or Kind(),
        user_data=user_data if isinstance(user_data, bytes) else user_data.encode(),
        environ=options.pop("environ", {}),
        console=machine.lines.append,
        logs=lambda *entry: machine.logged.append(entry),
        halted=machine.halts.release,
        **options,
    )
    machine.guest.boot()
    return machine


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def all_gone(pids, timeout_s: float = 10) -> bool:
    """Whether processes end soon."""
    deadline = time.monotonic() + timeout_s
    while any(lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
