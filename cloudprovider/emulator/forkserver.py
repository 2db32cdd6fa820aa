"""The process that starts machines: it has Dask imported, and each machine begins as a copy of it.

A program of its own, started by its path: it imports nothing of this package, so that a machine finds
in it what its image has and no more. It owns what it starts:

* Each machine's first process leads a session, adopts its orphans as a container's PID 1 does
  (PR_SET_CHILD_SUBREAPER), and dies with this process (PR_SET_PDEATHSIG).
* When the first process ends, whatever it leaves is adopted here, and killed before the end is reported.
* When the room's end of a machine's line closes, the machine is killed; when the room's process is gone,
  however it went, all machines are, and then this process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import logging
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNET = 0x40000000

#: What a machine of a Dask cluster imports, scheduler or worker, dashboards included.
PRELOAD = (
    "distributed",
    "distributed.comm.tcp",
    "distributed.dashboard.scheduler",
    "distributed.dashboard.worker",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.scheduler.prometheus",
    "distributed.http.statics",
    "distributed.http.worker.prometheus",
    "bokeh.application.handlers.document_lifecycle",
    "bokeh.server.server",
    "multiprocessing.popen_fork",
    "multiprocessing.synchronize",
    "numpy.random",
    "secrets",
    "tornado.platform.asyncio",
)

#: How long nobody may ask for a machine before what the room wants is imported; until the first machine.
IDLE_S = 0.05

#: Packages that read their configuration when they are imported: a machine sees them as not imported yet.
CONFIGURED = ("dask", "distributed")

#: What `distributed` reads from its configuration once, in module bodies.
READ_AT_IMPORT = (
    "distributed.admin.log-format",
    "distributed.admin.pdb-on-err",
    "distributed.admin.tick.limit",
    "distributed.comm.offload",
    "distributed.comm.shard",
    "distributed.dashboard",
    "distributed.diagnostics",
    "distributed.logging",
    "distributed.logging-file-config",
    "distributed.scheduler.default-data-size",
    "distributed.scheduler.http",
    "distributed.worker.profile",
    "dataframe.query-planning",
    "logging",
    "logging-file-config",
)

#: Ours: an image has the first only when it carries it, and the second never.
OURS = ("cloudruntime", "cloudprovider")

#: Variables of the interpreter that a running one can still obey; any other needs a real start.
OBEYED = frozenset({"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"})

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter(network: str) -> None:
    """Be in the network that a file is."""
    opened = os.open(network, os.O_RDONLY)
    if _libc.setns(opened, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.close(opened)


# --- A Python that behaves as if it had just started ---------------------------------------------------


class Preloaded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are imported already but that look as if they were not.

    Dask reads files and environment variables when it is imported. A machine may change its environment
    before it imports Dask, and must find those changes obeyed; so `import dask` in a machine reads the
    configuration again, and only then hands out the modules that are there.
    """

    def __init__(self) -> None:
        self._modules = {
            name: module for name, module in sys.modules.items() if name.partition(".")[0] in CONFIGURED
        }
        self._specs = {name: module.__spec__ for name, module in self._modules.items()}
        self._read = self._read_at_import() if "dask.config" in self._modules else {}

    def hide(self) -> None:
        """Take the modules out of sight, and wait for someone to import one."""
        for name in self._modules:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, self)

    def show(self) -> None:
        """Put the modules back."""
        sys.meta_path.remove(self)
        sys.modules.update(self._modules)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Say that a package is there, as it is, but that this is what loads it."""
        if fullname not in CONFIGURED or fullname not in self._modules:
            return None
        own = self._modules[fullname].__spec__
        if own is None or own.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, own.origin, loader=self, submodule_search_locations=own.submodule_search_locations
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """The package that is there, with all else that is; a new one when its configuration has changed."""
        if self._read_at_import() == self._read:
            self.show()
            return self._modules[spec.name]
        sys.meta_path.remove(self)
        for name, logger in logging.root.manager.loggerDict.items():
            if name.partition(".")[0] in {"distributed", "bokeh", "tornado"} and isinstance(
                logger, logging.Logger
            ):
                logger.handlers.clear()  # the import adds its own
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run a new package's own code; the one that is there needs only its own spec back."""
        package = self._modules[module.__name__]
        own = self._specs[module.__name__]
        if own is None or own.loader is None:
            return
        module.__spec__, module.__loader__ = own, own.loader
        if module is not package:
            own.loader.exec_module(module)

    def _read_at_import(self) -> dict[str, Any]:
        config: Any = self._modules["dask.config"]
        config.paths[:] = config._get_paths()
        config.refresh()
        return {key: json.dumps(config.get(key, None), default=str) for key in READ_AT_IMPORT}


class Absent(importlib.abc.MetaPathFinder):
    """Packages that an image has not, though this interpreter has them: only what is brought along is found."""

    def __init__(self, names: Sequence[str], own: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._own = frozenset(own)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Look for a hidden package on what was added to `sys.path`, and nowhere else."""
        if fullname not in self._names:
            return None
        added = [entry for entry in sys.path if entry not in self._own]
        if spec := importlib.machinery.PathFinder.find_spec(fullname, added):
            return spec
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class Interpreter:
    """A running interpreter that obeys commands as a new one would."""

    def __init__(self) -> None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a process's first context has OpenSSL load all its methods
        self._preloaded: Preloaded | None = None
        self.load(*PRELOAD)
        self._path = [entry for entry in sys.path if entry]
        self._variables = _python_variables(os.environ)
        self._execve = os.execve

    def load(self, *names: str) -> None:
        """Import what machines may want, for all of them at once; what is not installed is left out."""
        if self._preloaded:
            self._preloaded.show()
        logging.disable(logging.INFO)
        for name in names:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        logging.disable(logging.NOTSET)
        self._preloaded = Preloaded()
        self._preloaded.hide()
        gc.collect()
        gc.freeze()  # a collection in a machine would write to, and so copy, every shared page

    def runs(self, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Whether a command starts this interpreter in a way that a running one can follow."""
        return (
            _is_this_interpreter(argv[0])
            and len(argv) > 1
            and (len(argv) > 2 if argv[1] in {"-c", "-m"} else not argv[1].startswith("-"))  # noqa: PLR2004
            and _python_variables(environ) == self._variables
        )

    def become(self, argv: Sequence[str], absent: Sequence[str]) -> NoReturn:
        """Run a command in a forked child, with the environment it has, and end with it."""
        own = [entry for entry in self._path if not _is_checkout(entry, absent)]
        self._path = own
        sys.meta_path.insert(0, Absent(absent, own))
        os.execv, os.execve = self._execv, self._execve_here  # type: ignore[assignment]
        # Python before 3.12 leaves a forked child of an event loop writing its signals to the parent's loop.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        random.seed()
        if numpy_random := sys.modules.get("numpy.random"):
            numpy_random.seed()
        tempfile.tempdir = None
        self._run(argv)

    def _execv(self, path: Any, argv: Sequence[str]) -> None:
        self._execve_here(path, argv, os.environ)

    def _execve_here(self, path: Any, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Replace this process's program, as `os.execve` does, but keep the interpreter when it is the same.

        A bootstrap unpacks the runtime and then replaces itself by `python -m`: a real exec would start
        an interpreter anew, import Dask anew and share no memory with the other machines. What exec
        promises is kept: the process id, the environment, the directory; nothing of the caller runs after.
        """
        command = [os.fsdecode(path), *map(os.fsdecode, argv[1:])]
        if threading.active_count() > 1 or not self.runs(command, environ):
            self._execve(path, list(argv), environ)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)) and number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
        variables = dict(environ)
        os.environ.clear()
        os.environ.update(variables)
        self._run(command)

    def _run(self, argv: Sequence[str]) -> NoReturn:
        sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *self._path]
        for stream in (sys.stdout, sys.stderr):
            if "PYTHONUNBUFFERED" in os.environ:
                stream.reconfigure(write_through=True)  # type: ignore[union-attr]
        sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        _end(_status(lambda: _execute(argv)))


def _execute(argv: Sequence[str]) -> None:
    """What the interpreter does with its command line."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if argv[1] == "-c":
        sys.argv = ["-c", *argv[3:]]
        sys.path.insert(0, "")
        exec(compile(argv[2], "<string>", "exec"), main.__dict__)  # noqa: S102  (it is what -c means)
    elif argv[1] == "-m":
        sys.argv = ["-m", *argv[3:]]
        sys.path.insert(0, str(Path.cwd()))
        runpy._run_module_as_main(argv[2])  # type: ignore[attr-defined]  # as the interpreter itself does
    else:
        sys.argv = list(argv[1:])
        sys.path.insert(0, str(Path(argv[1]).resolve().parent))
        runpy.run_path(argv[1], run_name="__main__")


def _status(run: Callable[[], None]) -> int:
    """The exit status an interpreter would end with."""
    try:
        run()
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001  (an interpreter reports anything)
        shown = error.__traceback__
        while shown and shown.tb_frame.f_code.co_filename == _status.__code__.co_filename:
            shown = shown.tb_next
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        return 1
    return 0


def _end(status: int) -> NoReturn:
    """Do what an interpreter does at its end, and end."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)


def _is_this_interpreter(path: str) -> bool:
    """Whether an executable is this interpreter, of this virtual environment."""
    return os.path.realpath(path) == os.path.realpath(sys.executable) and (
        Path(path).parent == Path(sys.executable).parent
    )


def _is_checkout(entry: str, absent: Sequence[str]) -> bool:
    """Whether an entry of `sys.path` is there only for a package that is to be absent."""
    folder = Path(entry)
    return folder.name not in {"site-packages", "dist-packages"} and any(
        (folder / name).is_dir() for name in absent
    )


def _python_variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k.startswith("PYTHON") and k not in OBEYED}


# --- Machines ------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """A machine's first process, the room's line to it, its own folder, and whether it is as in a container."""

    pid: int
    line: socket.socket
    folder: Path
    contained: bool
    kill_at: float | None = None


class ForkServer:
    """Starts machines for the room at the other end of a socket, and reports their ends."""

    def __init__(self, control: socket.socket, room_pid: int, folder: Path, wanted: Sequence[str]) -> None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._control = control
        self._pid = os.getpid()
        self._machines: dict[int, Machine] = {}
        self._folder = folder
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._accept)
        self._room = _watch(room_pid)
        if self._room is not None:
            self._selector.register(self._room, selectors.EVENT_READ, self._leave)
        self._waking, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._waking, selectors.EVENT_READ, self._reap)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._wanted = list(wanted)
        self._count = 0
        self._open = True
        self._interpreter = Interpreter()

    def serve(self) -> None:
        """Work until the room is gone, then leave nothing."""
        try:
            while self._open:
                events = self._selector.select(self._patience())
                for key, _ in events:
                    key.data()
                self._kill_overdue()
                if self._wanted and not events and not self._count:
                    self._interpreter.load(self._wanted.pop(0))
        finally:
            for machine in self._machines.values():
                os.kill(machine.pid, signal.SIGKILL)
            while self._machines:
                self._bury(os.waitpid(-1, 0))
            self._kill_orphans()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _leave(self) -> None:
        self._open = False

    def _accept(self) -> None:
        message, fds, _, _ = socket.recv_fds(self._control, 1, 3)
        if not message:
            self._open = False
            return
        request, line, log = fds
        with os.fdopen(request, encoding="utf-8") as file:
            order = json.load(file)
        connection = socket.socket(fileno=line)
        try:
            machine = self._start(order, connection, log)
        except OSError as error:
            _tell(connection, error=error.errno, message=str(error.strerror), path=error.filename)
            connection.close()
        else:
            self._machines[machine.pid] = machine
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._obey(machine))
            _tell(connection, pid=machine.pid)
        finally:
            os.close(log)

    def _start(self, order: dict[str, Any], line: socket.socket, log: int) -> Machine:
        self._count += 1
        folder = self._folder / str(self._count)
        for name in ("home", "tmp"):
            (folder / name).mkdir(parents=True)
        failed, failing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._forget(line)
            self._become(order, folder, log, failing)
        os.close(failing)
        with os.fdopen(failed) as file:
            failure = file.read()  # ends when the program runs
        if failure:
            os.waitpid(pid, 0)
            shutil.rmtree(folder, ignore_errors=True)
            number = int(failure)
            raise OSError(number, os.strerror(number), order["argv"][0])
        return Machine(pid, line, folder, contained=order["contained"])

    def _forget(self, line: socket.socket) -> None:
        """In the child: close what only the parent uses, so that no object here owns a number used again."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        for owned in (self._control, line, *(machine.line for machine in self._machines.values())):
            owned.close()

    def _become(self, order: dict[str, Any], folder: Path, log: int, failing: int) -> NoReturn:
        """In the child: be the machine's first process."""
        try:
            _leave_parent(self._pid, log, failing)
            if order["network"]:
                _enter(order["network"])
            environ = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), **order["environ"]}
            os.chdir(order["folder"] or folder / "home")
            argv = order["argv"]
            if order["forks"] and self._interpreter.runs(argv, environ):
                os.close(failing)
                os.environ.clear()
                os.environ.update(environ)
                self._interpreter.become(argv, order["absent"])
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, a program expects it
            os.execve(argv[0], argv, environ)
        except OSError as error:
            os.write(failing, str(error.errno or errno.EIO).encode())
        finally:
            os._exit(127)

    def _obey(self, machine: Machine) -> None:
        """Do what the room says on a machine's line; kill it when the room has let go of it."""
        if self._machines.get(machine.pid) is not machine:
            return  # it ended in this same round
        try:
            words = machine.line.recv(4096).decode().split()
        except ConnectionError:
            words = []
        if not words or "kill" in words:
            os.kill(machine.pid, signal.SIGKILL)
            machine.kill_at = None
        elif words[0] == "stop":
            if not machine.contained or _catches(machine.pid, signal.SIGTERM):
                os.kill(machine.pid, signal.SIGTERM)
            machine.kill_at = time.monotonic() + float(words[1])
        if not words:
            self._selector.unregister(machine.line)

    def _patience(self) -> float | None:
        if self._wanted and not self._count:
            return IDLE_S
        deadlines = [m.kill_at for m in self._machines.values() if m.kill_at is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for machine in self._machines.values():
            if machine.kill_at is not None and machine.kill_at <= now:
                machine.kill_at = None
                os.kill(machine.pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._waking, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._bury(ended)

    def _bury(self, ended: tuple[int, int]) -> None:
        """Kill what a machine's first process left behind, clean up, and report its end."""
        pid, status = ended
        machine = self._machines.pop(pid, None)
        if machine is None:
            return
        self._kill_orphans()
        shutil.rmtree(machine.folder, ignore_errors=True)
        code = os.waitstatus_to_exitcode(status)
        _tell(machine.line, exit=code if code >= 0 else 128 - code)  # docker's convention
        with contextlib.suppress(KeyError):
            self._selector.unregister(machine.line)
        machine.line.close()

    def _kill_orphans(self) -> None:
        """Kill the processes that came to this one when their machine's first process ended."""
        while orphans := [pid for pid in _children() if pid not in self._machines]:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _leave_parent(parent: int, log: int, failing: int) -> None:
    """In the child: keep nothing of the parent but what every machine has."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(127)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, failing)
    os.closerange(failing + 1, os.sysconf("SC_OPEN_MAX"))


def _watch(pid: int) -> int | None:
    """A file descriptor that is readable once a process is gone; None where there is no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _tell(line: socket.socket, **message: Any) -> None:
    with contextlib.suppress(OSError):  # the room may be gone
        line.sendall(json.dumps(message).encode() + b"\n")


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: a container's PID 1 that has none is not ended by it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "")
    return not caught or bool(int(caught, 16) >> (number - 1) & 1)


def _children() -> list[int]:
    """The ids of this process's children."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has ended
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def _unlocked(stream: Any) -> Any:
    """The same stream without a buffer of its own, and so without the buffer's lock.

    Dask's nanny forks its worker in one thread while another may be writing a line of the log: the worker
    would find the lock taken for ever, and hang at its own first line.
    """
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw, stream.encoding, stream.errors, line_buffering=stream.line_buffering
    )  # as `python -u` does


def main() -> None:
    """Serve the room whose socket, process id, folder and wanted modules are on the command line."""
    sys.stdout, sys.stderr = _unlocked(sys.stdout), _unlocked(sys.stderr)
    control, room_pid, folder, *wanted = sys.argv[1:]
    ForkServer(socket.socket(fileno=int(control)), int(room_pid), Path(folder), wanted).serve()


if __name__ == "__main__":
    main()
