"""The machine room: runs each machine of an embedded cloud as real processes of this computer."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import logging
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from cloudprovider.emulator.images import QUIET, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudprovider.emulator.images import Images

__all__ = ["Process", "Room"]

logger = logging.getLogger(__name__)

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: One thread for linear algebra: what a nanny sets for its worker, where that library starts with the worker.
SERVER_ENVIRON: Mapping[str, str] = MappingProxyType(
    {
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
)

#: How long killed machines may take to be gone; a hundred on a busy computer take a while.
END_S = 30.0

NOTHING: Mapping[str, str] = MappingProxyType({})


def _preloaded() -> dict[str, str]:
    """A library that every process is to have, machines included: a test's own clock, such as libfaketime's."""
    return {name: os.environ[name] for name in ("LD_PRELOAD",) if name in os.environ}


class Process(Protocol):
    """The first process of a machine that was started."""

    pid: int

    def stop(self, timeout_s: float) -> None:
        """Ask it to end by SIGTERM, and end it by SIGKILL when it has not within `timeout_s`; return at once."""

    def kill(self) -> None:
        """End it and all it started, by SIGKILL; return at once."""


class Room:
    """Starts machines, and sees that nothing of them is left.

    Parameters
    ----------
    images
        What the images' names stand for.
    engine
        `process` runs machines as processes, `podman` as containers, and `none` runs nothing: such machines
        live until they are stopped.
    environ
        Environment variables for every machine, over the image's own.
    preload
        Modules that machines of this interpreter will import, such as `dask.dataframe`: they are imported
        once, while no machine has been asked for yet, instead of once in each machine.
    """

    def __init__(
        self,
        images: Images,
        engine: str = "process",
        environ: Mapping[str, str] = NOTHING,
        preload: Sequence[str] = (),
    ) -> None:
        self._images = images
        self._environ = dict(environ)
        self._network = ""
        self._watcher = Watcher()
        self.engine = engine
        self._engine = self._make_engine(engine, preload)

    def start(
        self,
        *,
        image: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        address: str,
        architecture: str,
        log: Callable[[str], None],
        exited: Callable[[int], None],
        mounts: Mapping[str, str] = NOTHING,
        init: bool = False,
    ) -> Process:
        """Start a machine.

        Parameters
        ----------
        image
            Name of its image.
        argv
            Its command; empty for the image's own.
        environ
            Its environment, over the image's.
        address
            The loopback address that is its own. It gives the machine its `HOSTNAME`.
        architecture
            `X86_64` or `ARM64`.
        log
            Called with each line that it, or anything it started, writes.
        exited
            Called once, after the last line, with its exit code; 128 + N when signal N ended it. Both are
            called in one thread for all machines, so neither may block.
        mounts
            Folders of this computer that it sees, by where it sees them. A process has no folders of its own:
            in its command, its environment, and a program there that its command names, such a path is replaced
            by where the folder is here.
        init
            Whether an init process is its first one and passes signals on: a program that handles none of them yet
            is then ended by them, as it is not when it is the first.

        Raises
        ------
        ImageNotFound
            When the image cannot be pulled.
        OSError
            When the command cannot be started: `ENOENT`, `EACCES`, or `ENOEXEC` for the wrong architecture.
        """
        found = self._images.find(image)
        command = list(argv) or list(found.entrypoint)
        if not command:
            raise OSError(errno.EINVAL, "no command specified", image)
        if architecture not in found.architectures:
            raise OSError(errno.ENOEXEC, "exec format error", command[0])
        variables = {"HOSTNAME": hostname(address), **found.environ, **self._environ, **environ}
        return self._engine.start(
            found, command, variables, mounts, self._network, self._watcher, log, exited, init=init
        )

    def run(
        self,
        *,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        log: Callable[[str], None],
        exited: Callable[[int], None],
    ) -> Process:
        """Start a program of a virtual machine itself, outside any image, in `folder`; else as `start`."""
        return self._engine.run(argv, environ, folder, self._network, self._watcher, log, exited)

    def within(self, network: str) -> Room:
        """The same room, for machines in the network that a file is; empty means this computer's."""
        room = copy.copy(self)
        room._network = network
        return room

    @property
    def images(self) -> Images:
        """What the images' names stand for."""
        return self._images

    @property
    def folder(self) -> Path:
        """Where virtual machines may have their disks; it is deleted with the room, however that ends."""
        return self._engine.folder

    def empty(self) -> None:
        """End all machines, and return when nothing of them is left and every end has been told."""
        self._watcher.kill_all()

    def close(self) -> None:
        """Empty it, and start no more."""
        self.empty()
        self._engine.close()
        self._watcher.close()

    @staticmethod
    def _make_engine(engine: str, preload: Sequence[str]) -> _Engine:
        match engine:
            case "process":
                return Processes(preload)
            case "podman":
                from cloudprovider.emulator.podman import Podman

                return Podman()
            case "none":
                return Nothing()
        raise ValueError(f"engine={engine!r} is none of 'process', 'podman' and 'none'.")


def hostname(address: str) -> str:
    """What a machine of this address calls itself."""
    return f"ip-{address.replace('.', '-')}.ec2.internal"


class _Engine(Protocol):
    """A way to run machines."""

    @property
    def folder(self) -> Path:
        """A folder that goes with it."""

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
        init: bool = False,
    ) -> Process:
        """Start one."""

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
        """Start a program of a virtual machine."""

    def close(self) -> None:
        """Leave nothing; all machines have been killed already."""


class Processes:
    """Runs machines as processes, forked from a server that has Dask imported."""

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.folder = Path(tempfile.mkdtemp(prefix="dask-cloud-room-"))
        program = Path(__file__).with_name("forkserver.py")
        # Through runpy, so that this package's folder is not on its path.
        start = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
        with theirs:
            self._server = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    start,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    str(self.folder),
                    *preload,
                ],
                pass_fds=[theirs.fileno()],
                env={"PATH": search_path(sys.executable), **SERVER_ENVIRON, **QUIET, **_preloaded()},
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is not for the machines
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
        init: bool = False,
    ) -> Process:
        """Have the server start one, and wait for its answer."""
        if mounts:
            argv = [program(mounted(word, mounts), mounts) for word in argv]
            environ = {name: mounted(value, mounts) for name, value in environ.items()}
        return self._start(image, argv, environ, "", network, watcher, log, exited, contained=not init)

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
        """Have the server start a program in a folder."""
        image = Image(name="", environ=NOTHING)
        return self._start(image, argv, environ, str(folder), network, watcher, log, exited)

    def _start(
        self,
        image: Image,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: str,
        network: str,
        watcher: Watcher,
        log: Callable[[str], None],
        exited: Callable[[int], None],
        *,
        contained: bool = False,
    ) -> Process:
        variables = {"PATH": search_path(image.python), "LANG": "C.UTF-8", **environ}
        order = {
            "argv": interpreted(
                [executable(argv[0], image.python, variables["PATH"]), *argv[1:]], image.python
            ),
            "environ": variables,
            "folder": folder,
            "contained": contained,
            "network": network,
            "forks": image.python == sys.executable,
            "absent": absent(image),
        }
        output, log_end = os.pipe2(os.O_CLOEXEC)
        line, their_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = os.memfd_create("machine")  # an order can be longer than a message, and holds secrets
        try:
            os.write(request, json.dumps(order).encode())
            os.lseek(request, 0, os.SEEK_SET)
            with self._lock:
                socket.send_fds(self._control, [b"\0"], [request, their_line.fileno(), log_end])
            their_line.close()
            pid = _started(line)
        except BaseException:
            os.close(output)
            line.close()
            raise
        finally:
            their_line.close()
            os.close(request)
            os.close(log_end)
        machine = _Forked(pid, line)
        watcher.watch(machine, line, output, log, exited)
        return machine

    def close(self) -> None:
        """End the server, which leaves nothing."""
        self._control.close()
        try:
            self._server.wait(END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # left when the server was killed


class _Forked:
    """A machine that the fork server runs. It is the server that signals, as only it knows who lives."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self._line = line

    def stop(self, timeout_s: float) -> None:
        self._say(f"stop {timeout_s}")

    def kill(self) -> None:
        self._say("kill")

    def _say(self, words: str) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._line.send(words.encode(), socket.MSG_NOSIGNAL)


def _started(line: socket.socket) -> int:
    """Read the server's first answer: the machine's process id, or why there is none."""
    if not (answer := line.recv(4096)):
        raise OSError(errno.EPIPE, "the fork server of the embedded cloud has ended")
    told = json.loads(answer)
    if "pid" in told:
        return int(told["pid"])
    raise OSError(told["error"], told["message"], told["path"])


def search_path(python: str) -> str:
    """The PATH of an image whose Python this is."""
    return f"{Path(python).parent}:{SYSTEM_PATH}"


def absent(image: Image) -> list[str]:
    """Our packages that an image has not, although its Python here has them."""
    carried = {"cloudprovider": image.carries_manager, "cloudruntime": image.carries_runtime}
    return [name for name, here in carried.items() if not here]


def interpreted(argv: Sequence[str], python: str) -> list[str]:
    """A command as the kernel runs it where it is a script whose first line names an image's Python."""
    with contextlib.suppress(OSError), Path(argv[0]).open("rb") as file:
        if file.readline(256).strip() == b"#!" + os.fsencode(python):
            return [python, *argv]
    return list(argv)


def executable(name: str, python: str, path: str) -> str:
    """The file that a command's first word means in an image.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    if name in {"python", "python3"} or name == python:
        return python
    if found := shutil.which(name, path=path):
        return found
    raise FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", name)


def mounted(text: str, mounts: Mapping[str, str]) -> str:
    """A text in which paths below a mount are where they are on this computer."""
    for inside, here in sorted(mounts.items(), key=lambda mount: -len(mount[0])):
        text = re.sub(rf"(?<![\w./-]){re.escape(inside)}(?![\w.-])", lambda _, here=here: here, text)  # type: ignore[misc]
    return text


def program(word: str, mounts: Mapping[str, str]) -> str:
    """A word of a command; when it is a text file of a mount, paths in it are where they are on this computer."""
    path = Path(word)
    if any(path.is_relative_to(here) for here in mounts.values()) and path.is_file():
        with contextlib.suppress(UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
            if (here := mounted(text, mounts)) != text:
                path.write_text(here, encoding="utf-8")
    return word


class Nothing:
    """Runs nothing: a machine lives until it is stopped, which it obeys at once, and a program ends at once."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def folder(self) -> Path:
        """A folder that goes with it; made when it is first asked for, as few need one."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dask-cloud-room-")
        return Path(self._folder.name)

    def start(
        self,
        image: Image,  # noqa: ARG002
        argv: Sequence[str],  # noqa: ARG002
        environ: Mapping[str, str],  # noqa: ARG002
        mounts: Mapping[str, str],  # noqa: ARG002
        network: str,  # noqa: ARG002
        watcher: Watcher,
        log: Callable[[str], None],  # noqa: ARG002
        exited: Callable[[int], None],
        *,
        init: bool = False,  # noqa: ARG002
    ) -> Process:
        """Start one, that is none."""
        machine = _Imagined(watcher, exited)
        watcher.add(machine)
        return machine

    def run(
        self,
        argv: Sequence[str],  # noqa: ARG002
        environ: Mapping[str, str],  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        network: str,  # noqa: ARG002
        watcher: Watcher,
        log: Callable[[str], None],  # noqa: ARG002
        exited: Callable[[int], None],
    ) -> Process:
        """Start a program, that is none, and that ended well."""
        program = _Imagined(watcher, exited)
        watcher.add(program)
        watcher.end(program, exited, 0)
        return program

    def close(self) -> None:
        """Nothing is left but perhaps a folder, as there was nothing."""
        if self._folder:
            self._folder.cleanup()


class _Imagined:
    """A machine that is nowhere."""

    pid = 0

    def __init__(self, watcher: Watcher, exited: Callable[[int], None]) -> None:
        self._watcher = watcher
        self._exited = exited

    def stop(self, timeout_s: float) -> None:  # noqa: ARG002
        self._watcher.end(self, self._exited, 128 + signal.SIGTERM)

    def kill(self) -> None:
        self._watcher.end(self, self._exited, 128 + signal.SIGKILL)


@dataclass
class _Watched:
    """A machine that is watched, and how far its output has been read."""

    machine: Process
    line: socket.socket
    output: int
    log: Callable[[str], None]
    exited: Callable[[int], None]
    partial: bytes = b""


class Watcher:
    """The one thread that reads what machines write and say, and tells it to whom it concerns."""

    def __init__(self) -> None:
        self._machines: set[Process] = set()
        self._ending = 0
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._open = True
        self._thread = threading.Thread(target=self._run, name="machine-room", daemon=True)
        self._thread.start()

    def add(self, machine: Process) -> None:
        """Count a machine among those that live."""
        with self._changed:
            self._machines.add(machine)

    def watch(
        self,
        machine: Process,
        line: socket.socket,
        output: int,
        log: Callable[[str], None],
        exited: Callable[[int], None],
    ) -> None:
        """Read a machine's output and its line, both of which are the watcher's from now on."""
        os.set_blocking(output, False)
        watched = _Watched(machine, line, output, log, exited)
        self.add(machine)
        self.call(lambda: self._register(watched))

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the watcher's thread."""
        self._calls.append(function)
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def end(self, machine: Process, exited: Callable[[int], None], code: int) -> None:
        """Tell, once, that a machine has ended."""
        with self._changed:
            if machine not in self._machines:
                return
            self._machines.discard(machine)
            self._ending += 1
        self.call(lambda: self._tell_end(exited, code))

    def kill_all(self, timeout_s: float = END_S) -> None:
        """Kill every machine, and wait until every end has been told."""
        with self._changed:
            machines = list(self._machines)
        for machine in machines:
            machine.kill()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._machines and not self._ending, timeout_s):
                logger.warning("%d machines of the embedded cloud did not end", len(self._machines))

    def close(self) -> None:
        """End the thread."""
        self._open = False
        self.call(lambda: None)
        self._thread.join(10)
        for owned in (self._selector, self._woken, self._waker):
            owned.close()

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select():
                key.data()

    def _wake(self) -> None:
        self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()

    def _register(self, watched: _Watched) -> None:
        self._selector.register(watched.output, selectors.EVENT_READ, lambda: self._read(watched))
        self._selector.register(watched.line, selectors.EVENT_READ, lambda: self._hear(watched))

    def _read(self, watched: _Watched) -> bool:
        """Hand on the lines a machine has written; False when there are none now."""
        if watched.output < 0:
            return False
        try:
            data = os.read(watched.output, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._forget_output(watched)
            return False
        *lines, watched.partial = (watched.partial + data).split(b"\n")
        for line in lines:
            _safely(watched.log, line.decode("utf-8", "replace"))
        return True

    def _forget_output(self, watched: _Watched) -> None:
        self._selector.unregister(watched.output)
        os.close(watched.output)
        watched.output = -1

    def _hear(self, watched: _Watched) -> None:
        """Tell a machine's end, after the last line it wrote."""
        try:
            told = watched.line.recv(4096)
        except ConnectionResetError:  # the server ended with words of ours unread
            told = b""
        code = json.loads(told)["exit"] if told else 128 + signal.SIGKILL  # or the server was killed
        self._selector.unregister(watched.line)
        watched.line.close()
        while self._read(watched):
            pass
        if watched.output >= 0:
            self._forget_output(watched)
        if watched.partial:
            _safely(watched.log, watched.partial.decode("utf-8", "replace"))
        self.end(watched.machine, watched.exited, code)

    def _tell_end(self, exited: Callable[[int], None], code: int) -> None:
        _safely(exited, code)
        with self._changed:
            self._ending -= 1
            self._changed.notify_all()


def _safely(call: Callable[[Any], None], value: Any) -> None:
    """Call back; an error there is logged, and harms no other machine."""
    try:
        call(value)
    except Exception:
        logger.exception("The embedded cloud failed at what a machine told it: %r", value)
