"""systemd in an emulated virtual machine: services, timers, and `systemctl`."""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from cloudprovider.emulator.guest_shell import KILLED, Down
from cloudprovider.emulator.guest_units import (
    RESTART_S,
    STOP_S,
    BadUnit,
    Exec,
    Unit,
    calendar_time,
    read_environment,
    read_unit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.guest_shell import Running, Shell

__all__ = ["ABOUT", "Refused", "Systemd"]

UNITS = "/etc/systemd/system"

ECS_UNITS = ("amazon-ecs-volume-plugin.service", "ecs.service")

TARGETS = ("multi-user.target", "network-online.target", "network.target", "timers.target")

#: Starts within this time, at most, before systemd gives a service up.
STARTS, STARTS_WITHIN_S = 5, 10.0

#: A repeating timer elapses no faster, whatever the time scale: a hundred machines share one computer.
LEAST_INTERVAL_S = 5.0

JOURNAL_LINES = 1000

#: Begins the unit of a line in the journal that systemd itself has written about it.
ABOUT = "systemd: "


class Refused(Exception):  # noqa: N818  (systemd's answer, not a failure of ours)
    """systemd does not do it; says why in its own words."""

    def __init__(self, why: str, code: int = 1) -> None:
        super().__init__(why)
        self.code = code


class Service:
    """A service, from its start to its end, and again."""

    def __init__(self, unit: Unit, systemd: Systemd) -> None:
        self.unit = unit
        self.state = "inactive"
        self._systemd = systemd
        self._main: Running | None = None
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._over = threading.Event()
        self._over.set()
        self._stopping = False
        self._starts: deque[float] = deque(maxlen=STARTS)
        self._environ: dict[str, str] = {}
        self._failure = ""
        self._code = 0

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return not self._over.is_set()

    def start(self, *, wait: bool) -> None:
        """Start it unless it runs; `wait` until it has started, or for a oneshot until it is done.

        Raises
        ------
        Refused
            When it failed meanwhile.
        """
        with self._lock:
            if self._over.is_set():
                self._over.clear()
                self._settled.clear()
                self._stopping = False
                self.state = "activating"
                threading.Thread(target=self._live, name=self.unit.name, daemon=True).start()
        if wait:
            self._settled.wait()
            if self.state == "failed":
                raise Refused(
                    f"Job for {self.unit.name} failed because the control process exited with error code.\n"
                    f'See "systemctl status {self.unit.name}" and "journalctl -xeu {self.unit.name}" for details.'
                )

    def stop(self) -> None:
        """Stop it, and return when it has ended."""
        with self._lock:
            running, self._stopping = not self._over.is_set(), True
            main = self._main
        if running and main and main.wait(0) is None:
            self.state = "deactivating"
            self._systemd.tell(f"Stopping {self.unit.description}...")
            self._stop_commands()
            main.stop(self.unit.seconds("TimeoutStopSec", STOP_S))
        self._over.wait()
        self.state = "inactive"

    def _live(self) -> None:
        with contextlib.suppress(Down):
            while self._once():
                pass
        self._settled.set()
        self._over.set()
        self._systemd.rearm(self.unit.name)

    def _once(self) -> bool:
        """One life; whether another follows."""
        systemd, unit = self._systemd, self.unit
        self._failure, self._code = "", 0
        systemd.activated(unit.name)
        if self._begin():
            self._work()
        self._clean_up()
        if not self._failure:
            self.state = "inactive"
            systemd.say_of(unit, f"{unit.name}: Deactivated successfully.")
        elif not self._stopping:
            systemd.say_of(unit, f"{unit.name}: Failed with result '{self._failure}'.")
            self.state = "failed"
        restart = unit.last("Restart", "no")
        if self._stopping or restart == "no" or (restart == "on-failure" and not self._failure):
            return False
        systemd.sleep(unit.seconds("RestartSec", RESTART_S))
        self._starts.append(time.monotonic())
        if len(self._starts) == STARTS and self._starts[-1] - self._starts[0] < STARTS_WITHIN_S:
            systemd.say_of(unit, f"{unit.name}: Start request repeated too quickly.")
            return False
        return not self._stopping

    def _begin(self) -> bool:
        """Do what comes before ExecStart."""
        unit, systemd = self.unit, self._systemd
        systemd.tell(f"Starting {unit.description}...")
        try:
            self._environ = systemd.environment(unit)
        except OSError as error:
            systemd.say_of(unit, f"{unit.name}: Failed to load environment files: {error.strerror}")
            self._failure = "resources"
        for command in unit.commands.get("ExecStartPre", []):
            if not self._failure and not self._control(command):
                self._failure = "exit-code"
        if self._failure:
            systemd.tell(f"Failed to start {unit.description}.")
        return not self._failure and not self._stopping

    def _work(self) -> None:
        """Run ExecStart to its end."""
        unit, systemd = self.unit, self._systemd
        oneshot = unit.last("Type") == "oneshot"
        for command in unit.commands["ExecStart"]:
            self._main = systemd.start_command(unit, command, self._environ)
            if not oneshot:
                self.state = "active"
                systemd.tell(f"Started {unit.description}.")
                self._settled.set()
            code = self._code = self._main.wait() or 0
            if code and not command.may_fail and not self._stopping:
                self._failure = "exit-code"
                systemd.say_of(unit, f"{unit.name}: Main process exited, {_how(code)}")
                break
        if oneshot:
            systemd.tell(f"{'Failed to start' if self._failure else 'Finished'} {unit.description}.")
        if not self._failure and unit.last("RemainAfterExit", "no") in {"yes", "true", "on", "1"}:
            self.state = "active"
            self._settled.set()
            systemd.wait_until(lambda: self._stopping)
        if not self._failure and not self._stopping:
            self._stop_commands()  # also when it ended of itself, if it ended well

    def _clean_up(self) -> None:
        # https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24SERVICE_RESULT
        killed = self._code == KILLED
        self._environ["SERVICE_RESULT"] = self._failure or "success"
        self._environ["EXIT_CODE"] = "killed" if killed else "exited"
        self._environ["EXIT_STATUS"] = "KILL" if killed else str(self._code)
        for command in self.unit.commands.get("ExecStopPost", []):
            self._control(command)
        if self._stopping:
            self._systemd.tell(f"Stopped {self.unit.description}.")

    def _stop_commands(self) -> None:
        for command in self.unit.commands.get("ExecStop", []):
            self._control(command)

    def _control(self, command: Exec) -> bool:
        """Run one of the commands around the main one; whether it may go on."""
        code = self._systemd.start_command(self.unit, command, self._environ).wait()
        if code and not command.may_fail:
            self._code = self._code or code
            self._systemd.say_of(self.unit, f"{self.unit.name}: Control process exited, {_how(code)}")
        return not code or command.may_fail


class Timer:
    """A timer: what it starts, and when next."""

    def __init__(self, unit: Unit, systemd: Systemd) -> None:
        self.unit = unit
        self.state = "inactive"
        self._systemd = systemd
        self._since = 0.0
        self._elapsed: set[str] = set()
        self._waiting: threading.Timer | None = None
        self._lock = threading.Lock()

    def start(self, *, wait: bool) -> None:  # noqa: ARG002
        """Begin to count."""
        if self.state != "active":
            self.state = "active"
            self._since = time.monotonic()
            self._elapsed.clear()
            self._systemd.tell(f"Started {self.unit.description}.")
            self.arm()

    def stop(self) -> None:
        """Count no more."""
        with self._lock:
            self.state = "inactive"
            if self._waiting:
                self._waiting.cancel()

    def arm(self) -> None:
        """Wait for the next time it elapses, if there is one; while what it starts runs, there is none."""
        running = self._systemd.runs(self.unit.triggers)
        with self._lock:
            if self.state != "active" or running:
                return
            if self._waiting:
                self._waiting.cancel()
            delays = self._delays()
            if delays:
                delay, why = min(delays)
                self._waiting = threading.Timer(max(0.0, delay), self._elapse, [why])
                self._waiting.daemon = True
                self._waiting.start()

    def _delays(self) -> list[tuple[float, str]]:
        """Seconds from now until each of its settings elapses."""
        now, systemd = time.monotonic(), self._systemd
        started = systemd.last_activation(self.unit.triggers)
        found = []
        for key, since in (
            ("OnActiveSec", self._since),
            ("OnBootSec", systemd.booted),
            ("OnUnitActiveSec", started),
        ):
            if key in self.unit.settings and since is not None and key not in self._elapsed:
                span = self.unit.seconds(key, 0) * systemd.scale
                span = max(span, LEAST_INTERVAL_S) if key == "OnUnitActiveSec" else span
                found.append((since + span - now, key))
        if "OnCalendar" in self.unit.settings and "OnCalendar" not in self._elapsed:
            delay = calendar_time(self.unit.last("OnCalendar")) - time.time()
            found += [(delay, "OnCalendar")] if delay > 0 else []  # what has passed never elapses
        return found

    def _elapse(self, why: str) -> None:
        if why != "OnUnitActiveSec":
            self._elapsed.add(why)
        try:
            self._systemd.start(self.unit.triggers, wait=False)
        except Refused as refused:
            self.state = "failed"
            self._systemd.tell(f"{self.unit.name}: Failed to queue unit startup job: {refused}")
        except Down:
            return
        self.arm()


class Systemd:
    """All units of one machine while it is on.

    Parameters
    ----------
    disk
        Where unit files are.
    console
        Gets what is written on the console.
    scale
        Of timers.
    image_units
        Units that the machine image has.
    """

    def __init__(
        self, disk: Disk, console: Callable[[str], None], scale: float, image_units: tuple[str, ...]
    ) -> None:
        self.scale = scale
        self.booted = time.monotonic()
        self.shell: Shell
        self._disk = disk
        self._console = console
        self._lock = threading.RLock()
        self._units: dict[str, Service | Timer] = {}
        self._activations: dict[str, float] = {}
        self.image_units = dict.fromkeys(image_units, "inactive")
        self._changed = threading.Event()
        self.journal: deque[tuple[str, str]] = deque(maxlen=JOURNAL_LINES)

    # --- What systemctl asks ---------------------------------------------------------------------------

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a unit.

        Raises
        ------
        Refused
            When it cannot be.
        """
        if self.masked(name):
            raise Refused(f"Failed to start {name}: Unit {name} is masked.")
        if name in self.image_units:
            self.image_units[name] = "active"
        elif name not in TARGETS:
            found = self._find(name, "start")
            for other in found.unit.words("Requires"):
                if not self.exists(other):
                    raise Refused(f"Failed to start {name}: Unit {other} not found.", 5)
                if self.state(other) != "active":
                    self.start(other, wait=wait)
            found.start(wait=wait)

    def stop(self, name: str) -> None:
        """Stop a unit, and return when it is.

        Raises
        ------
        Refused
            When there is none.
        """
        if name in self.image_units:
            self.image_units[name] = "inactive"
        elif name in self._units or not self.masked(name):
            self._find(name, "stop").stop()

    def state(self, name: str) -> str:
        """`active`, `inactive`, `failed`, or on the way."""
        if name in self.image_units:
            return self.image_units[name]
        with self._lock:
            return self._units[name].state if name in self._units else "inactive"

    def masked(self, name: str) -> bool:
        """Whether a unit cannot be started by anyone."""
        path = self._disk.path(f"{UNITS}/{name}")
        return path.is_symlink() and str(path.readlink()) == "/dev/null"

    def exists(self, name: str) -> bool:
        """Whether there is such a unit, masked ones included."""
        return name in self.image_units or name in TARGETS or self._disk.path(f"{UNITS}/{name}").is_file()

    def mask(self, name: str) -> str:
        """Mask a unit; answers what systemctl says of it."""
        path = self._disk.path(f"{UNITS}/{name}")
        if path.is_file():
            raise Refused(f"Failed to mask unit: File {UNITS}/{name} already exists.")
        if self.masked(name):
            return ""
        missing = "" if self.exists(name) else f"Unit {name} does not exist, proceeding anyway.\n"
        path.symlink_to("/dev/null")
        return f"{missing}Created symlink {UNITS}/{name} → /dev/null."

    def text(self, name: str) -> str | None:
        """What `systemctl cat` shows of a unit; None when there is none."""
        if name in self.image_units:
            return f"# /usr/lib/systemd/system/{name}"
        found = [path for path in self._files(name) if self._disk.path(path).is_file()]
        return "\n".join(f"# {path}\n{self._disk.read(path)}" for path in found) or None

    def unmask(self, name: str) -> str:
        """Undo it."""
        if not self.masked(name):
            return ""
        self._disk.path(f"{UNITS}/{name}").unlink()
        return f"Removed {UNITS}/{name}."

    def enable(self, name: str) -> str:
        """Have a unit started at each boot; answers what systemctl says of it."""
        if name in self.image_units:
            return ""
        unit = self._find(name, "enable").unit
        said = []
        for target in unit.words("WantedBy") + unit.words("RequiredBy"):
            link = self._disk.path(f"{UNITS}/{target}.wants/{name}")
            if not link.is_symlink():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(f"../{name}")
                said.append(f"Created symlink {UNITS}/{target}.wants/{name} → {UNITS}/{name}.")
        return "\n".join(said)

    def disable(self, name: str) -> str:
        """Undo it."""
        links = list(self._disk.path(UNITS).glob(f"*.wants/{name}"))
        for link in links:
            link.unlink()
        return "\n".join(f"Removed {UNITS}/{link.parent.name}/{name}." for link in links)

    def enabled(self) -> list[str]:
        """Units that are to be started at boot."""
        return sorted({link.name for link in self._disk.path(UNITS).glob("*.wants/*")})

    def reload(self) -> None:
        """Read changed unit files again; what runs goes on as it is."""
        with self._lock:
            for name in [name for name, unit in self._units.items() if unit.state in {"inactive", "failed"}]:
                del self._units[name]

    def stop_all(self) -> None:
        """Stop every unit, side by side, and return when all have ended."""
        with self._lock:
            units = list(self._units.values())
        for unit in units:
            if isinstance(unit, Timer):
                unit.stop()
        stopping = [
            threading.Thread(target=unit.stop, daemon=True) for unit in units if isinstance(unit, Service)
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def cut(self) -> None:
        """Forget all timers: the power is off."""
        self._changed.set()
        with self._lock:
            for unit in self._units.values():
                if isinstance(unit, Timer):
                    unit.stop()

    # --- What units ask --------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """A status line, which is on the console and in the journal."""
        self.journal.append(("systemd", text))
        self._console(f"systemd[1]: {text}")

    def say_of(self, unit: Unit, text: str) -> None:
        """What systemd notes of a unit."""
        self.journal.append((f"{ABOUT}{unit.name}", text))
        self._console(f"systemd[1]: {text}")

    def start_command(self, unit: Unit, command: Exec, environ: Mapping[str, str]) -> Running:
        """Start one command of a unit, its output going where the unit says."""
        words = _expanded(command.words, environ)
        identifier = unit.last("SyslogIdentifier", words[0].rpartition("/")[2])
        return self.shell.start(words, lambda line: self._output(unit, identifier, line), environ)

    def environment(self, unit: Unit) -> dict[str, str]:
        """The variables that a unit sets."""
        variables = dict(word.split("=", 1) for word in unit.words("Environment") if "=" in word)
        for name in unit.settings.get("EnvironmentFile", []):
            path = name.removeprefix("-")
            if not name.startswith("-") or self._disk.path(path).exists():
                variables |= read_environment(self._disk.read(path))
        return variables

    def activated(self, name: str) -> None:
        """Take note that a unit was started, from which timers count."""
        self._activations[name] = time.monotonic()

    def rearm(self, name: str) -> None:
        """Have the timers of a unit that has ended wait for its next start."""
        with self._lock:
            timers = [unit for unit in self._units.values() if isinstance(unit, Timer)]
        for timer in timers:
            if timer.unit.triggers == name:
                timer.arm()

    def runs(self, name: str) -> bool:
        """Whether a service has begun and not ended."""
        with self._lock:
            unit = self._units.get(name)
        return isinstance(unit, Service) and unit.runs

    def last_activation(self, name: str) -> float | None:
        """When a unit was last started."""
        return self._activations.get(name)

    def sleep(self, time_s: float) -> None:
        """Pause, in scaled time, unless the power goes."""
        if self._changed.wait(time_s * self.scale):
            raise Down

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for something that someone else does."""
        while not true():
            if self._changed.wait(0.05):
                raise Down

    def _output(self, unit: Unit, identifier: str, line: str) -> None:
        if unit.last("StandardOutput", "journal") == "null":
            return
        self.journal.append((unit.name, line))
        if unit.on_console:
            self._console(f"{identifier}: {line}")

    def _files(self, name: str) -> list[str]:
        """A unit's file, and those that add to it, which begin with their own section."""
        folder = f"{UNITS}/{name}.d"
        return [
            f"{UNITS}/{name}",
            *sorted(f"{folder}/{path.name}" for path in self._disk.path(folder).glob("*.conf")),
        ]

    def _find(self, name: str, what: str) -> Service | Timer:
        """A unit, read from its file when it is first asked for."""
        with self._lock:
            if name in self._units:
                return self._units[name]
            try:
                unit = read_unit(name, "\n".join(map(self._disk.read, self._files(name))))
            except (FileNotFoundError, IsADirectoryError):
                if what == "stop":
                    raise Refused(f"Failed to stop {name}: Unit {name} not loaded.", 5) from None
                raise Refused(f"Failed to {what} {name}: Unit {name} not found.", 5) from None
            except BadUnit as error:
                self.tell(str(error))
                raise Refused(f"Failed to {what} {name}: Unit {name} has a bad unit file setting.") from error
            found = Timer(unit, self) if name.endswith(".timer") else Service(unit, self)
            self._units[name] = found
            return found


def _expanded(words: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """The words of a command, with variables as systemd puts them in: `${A}` within, `$A` as words of its own."""
    found: list[str] = []
    for word in words:
        if match := re.fullmatch(r"\$(\w+)", word):
            found += shlex.split(environ.get(match[1], ""))
            continue
        found.append(
            re.sub(
                r"\$\$|\$\{(\w+)\}",
                lambda match: environ.get(match[1], "") if match[1] else "$",
                word,
            )
        )
    return found


def _how(code: int) -> str:
    return "code=killed, status=9/KILL" if code == KILLED else f"code=exited, status={code}"
