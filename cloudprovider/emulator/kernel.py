"""Networks of their own in this computer's kernel, without names: they end with the last process that uses them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Namespace", "unavailable"]

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
PROGRAMS = ("ip", "nft")
SYSTEM = "/usr/sbin:/sbin"
COMMAND_S = 30.0
PROBE = """
table inet probe {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ct state established accept
  }
}
"""

_libc = ctypes.CDLL(None, use_errno=True)


def unavailable() -> str:
    """Why this process cannot make networks of its own; empty when it can."""
    lacking = [program for program in PROGRAMS if not _found(program)]
    if lacking:
        return f"needs the programs {' and '.join(lacking)} (Debian's packages iproute2 and nftables)"
    try:
        namespace = Namespace()
    except OSError as error:
        return (
            f"the kernel allows this user no network namespace ({error.strerror}): be root in a namespace of "
            "your own, or start it by `unshare --user --map-root-user --net --mount`"
        )
    try:
        namespace.configure({"ipv4/ip_forward": 1})
        namespace.rules(PROBE)
    except OSError as error:
        return f"the kernel does not let its networks be configured: {error}"
    finally:
        namespace.close()
    return ""


class Namespace:
    """One network of its own, empty at first.

    Parameters
    ----------
    own
        Whether it is the one this process is in instead of a new one.

    Raises
    ------
    OSError
        When the kernel or a program refuses, here and in all methods; carries what it said.
    """

    def __init__(self, *, own: bool = False) -> None:
        self.fd = _in_thread(_opened if own else _made)

    @property
    def path(self) -> str:
        """The file that is this network, for other processes of this user."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in this network; sockets that it makes stay there, and so do processes."""

        def there() -> T:
            _check(_libc.setns(self.fd, CLONE_NEWNET))
            return function()

        return _in_thread(there)

    def links(self, *lines: str) -> None:
        """Change links, addresses and routes by lines of `ip -batch`."""
        self._run(("ip", "-batch", "-"), "\n".join(lines) + "\n")

    def rules(self, text: str) -> None:
        """Change what is let through by lines of `nft`."""
        self._run(("nft", "-f", "-"), text)

    def _run(self, command: Sequence[str], text: str) -> None:
        """Run a program of the system there, with a text to read."""
        program, *arguments = command
        done = self.call(
            lambda: subprocess.run(
                [_found(program), *arguments],
                input=text,
                text=True,
                capture_output=True,
                timeout=COMMAND_S,
                check=False,
            )
        )
        if done.returncode:
            raise OSError(done.returncode, f"{done.stderr.strip()[:500]} (at {text[:500]!r})", program)

    def configure(self, settings: Mapping[str, int]) -> None:
        """Set what is below `net` of sysctl."""

        def write() -> None:
            for name, value in settings.items():
                Path("/proc/sys/net", name).write_text(str(value), encoding="ascii")

        self.call(write)

    def close(self) -> None:
        """Let go of it; it is gone when no process is in it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _found(program: str) -> str:
    """Where a program of the system's is, also where a user's PATH does not lead; empty when nowhere."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM}") or ""


def _opened() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _made() -> int:
    _check(_libc.unshare(CLONE_NEWNET))
    return _opened()


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own: a network is changed for one thread, for good."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  (raised again where it was asked for)
            errors.append(error)

    thread = threading.Thread(target=call, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
