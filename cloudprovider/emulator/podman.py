"""Runs an embedded cloud's machines as real containers, through podman."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloudprovider.emulator.images import ImageNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.emulator.images import Image
    from cloudprovider.emulator.room import Process, Processes, Watcher

__all__ = ["Podman", "unavailable"]

#: Marks the containers of one room.
LABEL = "dask-cloud-room"

#: How long podman may take to start a container.
START_S = 60.0

#: Open files and processes of a container, at most.
LIMIT = 16_384

#: Variables that podman itself reads; a machine's are given to it on the command line instead.
PODMANS = frozenset({"HOME", "HOSTNAME", "LANG", "PATH", "TMPDIR", "USER"})
PODMANS_PREFIXES = (
    "BUILDAH_",
    "CONTAINER",
    "DBUS_",
    "REGISTRY_",
    "STORAGE_",
    "XDG_",
    "http",
    "HTTP",
    "NO_PROXY",
)

#: podman's own exit codes: its error, a command that cannot be run, a command that is not there.
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

# Removes a room's containers once the room's process is gone, however it went: its end of the pipe closes.
CARETAKER = """
cat > /dev/null
ids=$({podman} ps --all --quiet --filter label={label})
[ -z "$ids" ] || {podman} rm --force --time 0 $ids
"""


def command() -> list[str]:
    """How to call podman here."""
    # crun, podman's own choice, refuses some cgroup layouts that runc takes.
    return [
        "podman",
        "--cgroup-manager",
        "cgroupfs",
        *(["--runtime", "runc"] if shutil.which("runc") else []),
    ]


def unavailable() -> str:
    """Why podman cannot run containers here; empty when it can."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    asked = subprocess.run(
        [*command(), "info", "--format", "{{.Store.GraphRoot}}"],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    return "" if asked.returncode == 0 else f"podman does not work here: {_last(asked.stderr)}"


class Podman:
    """Runs machines as containers in this computer's own network, each with a loopback address."""

    def __init__(self) -> None:
        if why := unavailable():
            raise OSError(errno.ENOENT, why, "podman")
        self._label = f"{LABEL}={secrets.token_hex(8)}"
        self._folder = tempfile.TemporaryDirectory(prefix="dask-cloud-podman-")
        self.folder = Path(self._folder.name)
        self._programs: Processes | None = None
        self._count = 0
        self._lock = threading.Lock()
        self._caretaker = subprocess.Popen(
            ["/bin/sh", "-c", CARETAKER.format(podman=" ".join(command()), label=self._label)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self,
        image: Image,
        argv: Sequence[str],
        environ: Mapping[str, str],
        mounts: Mapping[str, str],
        network: str,
        watcher: Watcher,
        log: Callable[[str], None],
        exited: Callable[[int], None],
        *,
        init: bool = False,  # noqa: ARG002  podman's own, catatonit, is a package that need not be there
    ) -> Process:
        """Start one, and wait until its first process runs."""
        if subprocess.run([*command(), "image", "exists", image.name], check=False).returncode:
            raise ImageNotFound(
                f"CannotPullContainerError: pull image manifest has been retried 5 time(s): "
                f"failed to resolve ref {image.name}: {image.name}: not found"
            )
        with self._lock:
            self._count += 1
            pidfile = self.folder / f"{self._count}.pid"
        output, log_end = os.pipe2(os.O_CLOEXEC)
        line, their_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = subprocess.Popen(
            self._run(image, argv, environ, mounts, network, pidfile),
            env={**_podmans_environ(), **_inherited(environ)},
            stdin=subprocess.DEVNULL,
            stdout=log_end,
            stderr=log_end,
            start_new_session=True,
        )
        os.close(log_end)
        try:
            pid = _first_process(client, pidfile, output, argv)
        except BaseException:
            client.kill()
            client.wait()
            os.close(output)
            line.close()
            their_line.close()
            raise
        machine = _Container(pid, client)
        threading.Thread(target=_report, args=(client, their_line), name="container", daemon=True).start()
        watcher.watch(machine, line, output, log, exited)
        return machine

    def run(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        network: str,
        watcher: Watcher,
        log: Callable[[str], None],
        exited: Callable[[int], None],
    ) -> Process:
        """Start a program of a virtual machine, which is a process: only its containers are containers."""
        from cloudprovider.emulator.room import Processes

        with self._lock:
            if self._programs is None:
                self._programs = Processes()
        return self._programs.run(argv, environ, folder, network, watcher, log, exited)

    def close(self) -> None:
        """Remove what is left of the containers."""
        if self._programs:
            self._programs.close()
        self._caretaker.communicate()
        self._folder.cleanup()

    def _run(
        self,
        image: Image,
        argv: Sequence[str],
        environ: Mapping[str, str],
        mounts: Mapping[str, str],
        network: str,
        pidfile: Path,
    ) -> list[str]:
        inherited = _inherited(environ)
        return [
            *command(),
            "run",
            "--rm",
            "--pull=never",
            f"--network=ns:{network}" if network else "--network=host",
            f"--hostname={environ.get('HOSTNAME', 'machine')}",
            "--log-driver=none",
            f"--label={self._label}",
            f"--pidfile={pidfile}",
            *_limits(),
            *(f"--volume={here}:{inside}" for inside, here in mounts.items()),
            *(f"--env={name}" for name in inherited),  # by name alone: secrets are not for the process list
            *(f"--env={name}={value}" for name, value in environ.items() if name not in inherited),
            f"--entrypoint={json.dumps(list(argv))}",
            image.name,
        ]


class _Container:
    """A machine that podman runs."""

    def __init__(self, pid: int, client: subprocess.Popen[bytes]) -> None:
        self.pid = pid
        self._client = client

    def stop(self, timeout_s: float) -> None:
        """The kernel itself gives a container's first process no signal that it has no handler for."""
        self._signal(signal.SIGTERM)
        timer = threading.Timer(timeout_s, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._client.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _first_process(client: subprocess.Popen[bytes], pidfile: Path, output: int, argv: Sequence[str]) -> int:
    """The id of a container's first process, once it runs."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ended = client.poll() is not None  # asked first: what ended at once has left its number
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(pidfile.read_text(encoding="ascii"))
        if ended:
            break
        time.sleep(0.01)
    else:
        raise OSError(errno.ETIMEDOUT, f"podman has not started it within {START_S:.0f} s", argv[0])
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        why = _last(os.read(output, 1 << 16).decode("utf-8", "replace"))
        numbers = {NOT_FOUND: errno.ENOENT, NOT_EXECUTABLE: errno.EACCES}
        number = errno.ENOEXEC if "exec format error" in why.lower() else numbers.get(client.returncode)
        raise OSError(number or errno.EIO, why, argv[0])
    raise OSError(errno.EIO, f"podman ended with code {client.returncode}", argv[0])


def _report(client: subprocess.Popen[bytes], line: socket.socket) -> None:
    """Tell a container's end; podman's client ends with its code."""
    code = client.wait()
    with line, contextlib.suppress(OSError):
        line.send(json.dumps({"exit": code if code >= 0 else 128 - code}).encode())


def _limits() -> Iterator[str]:
    """Limits that any computer allows: podman's defaults are often higher than what it may set itself."""
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        limit = LIMIT if hard == resource.RLIM_INFINITY else min(LIMIT, hard)
        yield f"--ulimit={name}={limit}:{limit}"


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a machine that podman can take from its own environment without minding them."""
    return {
        name: value
        for name, value in environ.items()
        if name not in PODMANS and not name.startswith(PODMANS_PREFIXES)
    }


def _podmans_environ() -> dict[str, str]:
    """What podman itself needs of this process's environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PODMANS or name.startswith(PODMANS_PREFIXES)
    }


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it does not say why"
