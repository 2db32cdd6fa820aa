"""Runs the commands of an emulated virtual machine: those the guest plays itself, and real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from cloudprovider.emulator.guest_disk import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.room import Process, Room

__all__ = ["Call", "Down", "Ended", "Program", "Running", "Shell"]

#: What a shell ends with when a command cannot be run, and when there is none.
NOT_EXECUTABLE, NOT_FOUND = 126, 127

KILLED = 137

#: As good as never: eleven days, which a system call still takes.
FOREVER_S = 1e6

# Tells the guest its process id, by which the guest reads its command line and environment, and does what the
# guest answers: lines for its output (o) or its errors (e), and its exit code (x). It is a shell's own words but
# for one program: an interpreter would cost more than all else that a machine does.
SHIM = """\
#!/bin/sh
machine='{folder}'
mkfifo "$machine/$$" || exit 137
trap 'stopped=1' TERM INT
echo "call $$" > "$machine/calls"
while :; do
  if IFS= read -r line; then
    case $line in
      o*) printf '%s\\n' "${{line#o}}" ;;
      e*) printf '%s\\n' "${{line#e}}" >&2 ;;
      x*) exit "${{line#x}}" ;;
    esac
  elif [ -n "$stopped" ]; then
    stopped=
    echo "stop $$" > "$machine/calls"
  else
    exit 137
  fi
done < "$machine/$$"
"""


class Down(Exception):  # noqa: N818  (a machine that is switched off is no error)
    """The machine has no power any more: nothing can be started in it."""


@dataclass(kw_only=True)
class Call:
    """One call of a command that the guest plays: its words, and where its output and its complaints go."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None]
    warn: Callable[[str], None]


class Running(Protocol):
    """A command that was started."""

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code once it has ended; None when it has not within the time."""

    def stop(self, timeout_s: float) -> None:
        """Ask it to end by SIGTERM, and end it by SIGKILL after a while; return at once."""


class Ended:
    """A command that has ended already."""

    def __init__(self, code: int) -> None:
        self._code = code

    def wait(self, timeout_s: float | None = None) -> int:  # noqa: ARG002
        """Its exit code."""
        return self._code

    def stop(self, timeout_s: float) -> None:
        """It has ended."""


class Program:
    """A real process."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self._code: int | None = None
        self._over = threading.Event()

    @property
    def pid(self) -> int:
        """Its id; 0 once it has ended."""
        return 0 if self._over.is_set() or self.process is None else self.process.pid

    def end(self, code: int) -> None:
        """Take note that it has ended."""
        self._code = code
        self._over.set()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, once it has one."""
        self._over.wait(timeout_s)
        return self._code

    def stop(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL after a while."""
        if self.process:
            self.process.stop(min(timeout_s, FOREVER_S))

    def kill(self) -> None:
        """End it and all it started."""
        if self.process:
            self.process.kill()


class Shell:
    """What starts everything in a machine while it is on.

    Parameters
    ----------
    room, disk
        Where processes run, and where files are.
    environ
        What every process of the machine finds in its environment.
    commands
        The commands that the guest plays, by name.
    """

    def __init__(
        self,
        room: Room,
        disk: Disk,
        environ: Mapping[str, str],
        commands: Mapping[str, Callable[[Call], int | Running]],
    ) -> None:
        self._room = room
        self._disk = disk
        self._environ = dict(environ)
        self._commands = commands
        self._lock = threading.Lock()
        self._programs: set[Program] = set()
        self._on = True
        self._calls: int | None = None
        self._called: dict[int, Running] = {}

    @property
    def pids(self) -> list[int]:
        """The first processes of what runs."""
        return [pid for program in list(self._programs) if (pid := program.pid)]

    def plays(self, word: str) -> bool:
        """Whether a command's first word means one that the guest plays."""
        folder, _, name = word.rpartition("/")
        return name in self._commands and (folder in PROGRAMS or name == word)

    def start(
        self, argv: Sequence[str], say: Callable[[str], None], environ: Mapping[str, str] | None = None
    ) -> Running:
        """Start a command in the machine; `say` gets each line it writes.

        Raises
        ------
        Down
            When the machine is off.
        """
        if not self._on:
            raise Down
        if self.plays(argv[0]):
            name = argv[0].rpartition("/")[2]
            return self._play(Call(argv=[name, *argv[1:]], environ=environ or {}, say=say, warn=say))
        try:
            return self._program([self._disk.here(word) for word in argv], say, environ or {})
        except FileNotFoundError:
            say(f"{argv[0]}: command not found")
            return Ended(NOT_FOUND)
        except OSError as error:
            say(f"{argv[0]}: {error.strerror}")
            return Ended(NOT_EXECUTABLE)

    def run(
        self, argv: Sequence[str], say: Callable[[str], None], environ: Mapping[str, str] | None = None
    ) -> int:
        """Start a command, and wait for its exit code.

        Raises
        ------
        Down
            When the machine is off before the command has ended.
        """
        code = self.start(argv, say, environ).wait()
        if code is None or not self._on:
            raise Down
        return code

    def begin(self, start: Callable[[Callable[[int], None]], Process]) -> Program:
        """Start a process that is to end with the machine; `start` is given whom to tell its end.

        Raises
        ------
        Down
            When the machine is off.
        """
        program = Program()
        with self._lock:
            if not self._on:
                raise Down
            self._programs.add(program)
            try:
                program.process = start(lambda code: self._end(program, code))
            except BaseException:
                self._programs.discard(program)
                raise
        return program

    def close(self) -> None:
        """Cut the power: kill what runs, and start no more."""
        with self._lock:
            self._on = False
            programs = list(self._programs)
            calls, self._calls = self._calls, None
        if calls is not None:
            with contextlib.suppress(OSError):
                os.write(calls, b"end\n")
        for program in programs:
            program.kill()
        for program in programs:
            program.wait(30)

    def _play(self, call: Call) -> Running:
        played = self._commands[call.argv[0]](call)
        return Ended(played) if isinstance(played, int) else played

    def _program(
        self, argv: Sequence[str], say: Callable[[str], None], environ: Mapping[str, str]
    ) -> Program:
        self._serve()
        for word in argv[:2]:
            self._disk.adapt(Path(word))
        here = {name: self._disk.here(value) for name, value in environ.items()}
        path = f"{self._disk.shims}:{self._disk.path('/usr/local/bin')}:{':'.join(PROGRAMS)}"
        home = {"HOME": str(self._disk.path("/root")), "TMPDIR": str(self._disk.path("/tmp"))}  # noqa: S108
        return self.begin(
            lambda ended: self._room.run(
                argv=argv,
                environ={**home, **self._environ, **here, "PATH": path},
                folder=self._disk.root,
                log=lambda line: say(self._disk.there(line)),
                exited=ended,
            )
        )

    def _end(self, program: Program, code: int) -> None:
        self._programs.discard(program)
        program.end(code)

    def _serve(self) -> None:
        """Lay out the shims, and answer them; with the first program, as not every machine starts one."""
        with self._lock:
            if self._calls is not None or not self._on:
                return
            folder = self._disk.shims
            lay_out(folder, self._commands)
            self._calls = os.open(folder / "calls", os.O_RDWR)
        threading.Thread(target=self._listen, args=(self._calls,), name="shims", daemon=True).start()

    def _listen(self, fifo: int) -> None:
        with os.fdopen(fifo, encoding="ascii") as calls:
            for line in iter(calls.readline, "end\n"):
                what, pid = line.split()
                if what == "call":
                    threading.Thread(target=self._answer, args=(int(pid),), name="shim", daemon=True).start()
                elif running := self._called.get(int(pid)):
                    running.stop(FOREVER_S)

    def _answer(self, pid: int) -> None:
        """Play the command that a shim was called for."""
        fifo = self._disk.shims / str(pid)
        with contextlib.suppress(OSError, Down), fifo.open("w", encoding="utf-8") as answers:
            fifo.unlink()
            say = _Lines(answers)
            # The interpreter, the shim, and its own arguments.
            _, shim, *words = self._disk.there(_process(pid, "cmdline")).split("\0")[:-1]
            environ = dict(
                variable.split("=", 1)
                for variable in self._disk.there(_process(pid, "environ")).split("\0")[:-1]
            )
            call = Call(
                argv=[shim.rpartition("/")[2], *words],
                environ=environ,
                say=lambda text: say("o", text),
                warn=lambda text: say("e", text),
            )
            self._called[pid] = running = self._play(call)
            code = running.wait()
            del self._called[pid]
            say("x", str(KILLED if code is None else code))


class _Lines:
    """Writes lines one after the other, from any thread, while somebody reads them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def __call__(self, kind: str, text: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._file.write("".join(f"{kind}{line}\n" for line in text.split("\n")))
            self._file.flush()


def lay_out(folder: Path, names: Iterable[str]) -> None:
    """Make the programs that speak with the guest: one, under many names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    program = folder / "shim"
    program.write_text(SHIM.format(folder=folder), encoding="utf-8")
    program.chmod(0o755)
    os.mkfifo(folder / "calls")
    for name in names:
        (folder / name).symlink_to("shim")


def _process(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "surrogateescape")
