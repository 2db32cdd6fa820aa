"""Reads systemd's unit files: the part that emulated machines understand, and nothing beyond it.

systemd ignores what it does not know with a line in its journal. Here any such setting makes the unit one
that cannot be started, so that nobody relies on what is not emulated.
"""

from __future__ import annotations

import calendar
import re
import shlex
import time
from dataclasses import dataclass, field

__all__ = ["BadUnit", "Exec", "Unit", "calendar_time", "read_environment", "read_unit", "seconds"]

#: Settings that are understood; those that only order or describe change nothing here.
SETTINGS = {
    "Unit": frozenset(
        {"After", "Before", "DefaultDependencies", "Description", "Documentation", "Requires", "Wants"}
    ),
    "Service": frozenset(
        {
            "Environment",
            "EnvironmentFile",
            "ExecStart",
            "ExecStartPre",
            "ExecStop",
            "ExecStopPost",
            "KillMode",
            "LimitNOFILE",
            "OOMPolicy",
            "RemainAfterExit",
            "Restart",
            "RestartSec",
            "StandardError",
            "StandardOutput",
            "SyslogIdentifier",
            "TimeoutStartSec",
            "TimeoutStopSec",
            "Type",
        }
    ),
    "Timer": frozenset({"AccuracySec", "OnActiveSec", "OnBootSec", "OnCalendar", "OnUnitActiveSec", "Unit"}),
    "Install": frozenset({"RequiredBy", "WantedBy"}),
}

#: Values that are understood, where not all of systemd's are.
VALUES = {
    "KillMode": frozenset({"mixed"}),
    "OOMPolicy": frozenset({"continue"}),
    "Type": frozenset({"exec", "oneshot", "simple"}),
    "Restart": frozenset({"always", "no", "on-failure"}),
    "StandardOutput": frozenset({"inherit", "journal", "journal+console", "null"}),
    "StandardError": frozenset({"inherit", "journal", "journal+console", "null"}),
}

#: https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html
UNITS = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
}

SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
DATE = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d) (\d\d:\d\d)(:\d\d)?(?:\.\d+)? UTC")

#: systemd's own when a unit says nothing.
STOP_S = 90.0
RESTART_S = 0.1


class BadUnit(ValueError):  # noqa: N818  (systemd's name for it)
    """A unit file that cannot be used; says where and why."""


@dataclass(frozen=True, kw_only=True)
class Exec:
    """One command line of a unit."""

    words: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A service or a timer, as its file says."""

    name: str
    settings: dict[str, list[str]] = field(default_factory=dict)
    commands: dict[str, list[Exec]] = field(default_factory=dict)

    def last(self, setting: str, default: str = "") -> str:
        """A setting's value; the last one counts."""
        return self.settings.get(setting, [default])[-1]

    def words(self, setting: str) -> list[str]:
        """All words of a setting."""
        return [word for line in self.settings.get(setting, []) for word in shlex.split(line)]

    def seconds(self, setting: str, default: float) -> float:
        """A setting that is a time span."""
        return seconds(self.last(setting)) if setting in self.settings else default

    @property
    def description(self) -> str:
        """What status lines call it."""
        return f"{self.name} - {self.last('Description')}" if "Description" in self.settings else self.name

    @property
    def triggers(self) -> str:
        """The unit that a timer starts."""
        return self.last("Unit", self.name.removesuffix(".timer") + ".service")

    @property
    def on_console(self) -> bool:
        """Whether what it writes is also on the console."""
        return self.last("StandardOutput", "journal") == "journal+console"


def read_unit(name: str, text: str) -> Unit:
    """Read a unit's file.

    Raises
    ------
    BadUnit
        When anything in it is wrong, or is not understood here.
    """
    settings: dict[str, list[str]] = {}
    section = ""
    for number, line in _lines(text):
        where = f"/etc/systemd/system/{name}:{number}"
        if match := re.fullmatch(r"\[(.+)\]", line):
            section = match[1]
            if section not in SETTINGS:
                raise BadUnit(f"{where}: Unknown section '{section}'.")
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not section:
            raise BadUnit(f"{where}: Assignment outside of section.")
        if not equals:
            raise BadUnit(f"{where}: Missing '='.")
        if key not in SETTINGS[section]:
            raise BadUnit(f"{where}: Unknown key name '{key}' in section '{section}'.")
        _check(where, key, value)
        settings[key] = [*settings.get(key, []), value] if value else []  # an empty one forgets those before
    settings = {key: values for key, values in settings.items() if values}
    return _complete(Unit(name=name, settings=settings, commands=_commands(name, settings)))


def read_environment(text: str) -> dict[str, str]:
    """Read a file of variables, as EnvironmentFile= does: quotes are taken off, comments are left out."""
    variables = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name[0] not in "#;":
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            variables[name.strip()] = value[1:-1] if quoted else value
    return variables


def seconds(span: str) -> float:
    """Read a time span such as `1min 30s`.

    Raises
    ------
    ValueError
        When it is none.
    """
    if span == "infinity":
        return float("inf")
    parts = SPAN.findall(span)
    if not parts or SPAN.sub("", span) or any(unit not in UNITS for _, unit in parts):
        raise ValueError(f"Failed to parse time span: {span}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def calendar_time(text: str) -> float:
    """Read an absolute time of OnCalendar=, in seconds of the epoch.

    Raises
    ------
    ValueError
        When it is none, or repeats.
    """
    if match := re.fullmatch(r"@(\d+)(?: UTC)?", text):
        return float(match[1])
    if match := DATE.fullmatch(text):
        moment = time.strptime(f"{match[1]} {match[2]}{match[3] or ':00'}", "%Y-%m-%d %H:%M:%S")
        return float(calendar.timegm(moment))
    raise ValueError(f"Failed to parse calendar specification, expected a date and time in UTC: {text}")


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that count, those that end in a backslash joined with the next."""
    found: list[tuple[int, str]] = []
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped[:1] in {"#", ";"} or (not stripped and not joined):
            continue
        first = first or number
        if stripped.endswith("\\"):
            joined += stripped[:-1] + " "
            continue
        found.append((first, (joined + stripped).strip()))
        joined, first = "", 0
    return found


def _check(where: str, key: str, value: str) -> None:
    if not value:
        return
    try:
        if key in {"AccuracySec", "OnActiveSec", "OnBootSec", "OnUnitActiveSec", "RestartSec"} or (
            key.startswith("Timeout")
        ):
            seconds(value)
        elif key == "OnCalendar":
            calendar_time(value)
        elif key.startswith("Exec") or key == "Environment":
            shlex.split(value)
    except ValueError as error:
        raise BadUnit(f"{where}: Failed to parse {key}={value}: {error}") from error
    if key in VALUES and value not in VALUES[key]:
        raise BadUnit(f"{where}: Failed to parse {key}={value}: it is not understood here")
    if re.search(r"%(?![%nN])", value):
        raise BadUnit(f"{where}: Failed to resolve unit specifiers in '{value}'")


def _commands(name: str, settings: dict[str, list[str]]) -> dict[str, list[Exec]]:
    return {
        key: [_command(name, line) for line in lines]
        for key, lines in settings.items()
        if key.startswith("Exec")
    }


def _command(name: str, line: str) -> Exec:
    specifiers = {"%%": "%", "%n": name, "%N": name.rpartition(".")[0]}
    words = [
        re.sub(r"%[%nN]", lambda match: specifiers[match.group()], word)
        for word in shlex.split(line.removeprefix("-"))
    ]
    if not words or words[0][:1] in set("@+!:|-") or ";" in words:
        raise BadUnit(f"{name}: the command is not understood here: {line}")
    return Exec(words=tuple(words), may_fail=line.startswith("-"))


def _complete(unit: Unit) -> Unit:
    """The unit, when it has what its kind needs."""
    kind = unit.name.rpartition(".")[2]
    if kind == "service":
        starts = unit.commands.get("ExecStart", [])
        if not starts:
            raise BadUnit(f"{unit.name}: Service has no ExecStart= setting. Refusing.")
        if len(starts) > 1 and unit.last("Type") != "oneshot":
            raise BadUnit(
                f"{unit.name}: Service has more than one ExecStart= setting, which is only allowed "
                "for Type=oneshot services. Refusing."
            )
        if unit.last("Type") == "oneshot" and unit.last("Restart", "no") == "always":
            raise BadUnit(
                f"{unit.name}: Service has Restart= set to either always or on-success, which isn't allowed "
                "for Type=oneshot services. Refusing."
            )
    elif kind == "timer":
        if not any(key.startswith("On") for key in unit.settings):
            raise BadUnit(f"{unit.name}: Timer unit lacks value setting. Refusing.")
    else:
        raise BadUnit(f"{unit.name}: units of this kind are not understood here")
    return unit
