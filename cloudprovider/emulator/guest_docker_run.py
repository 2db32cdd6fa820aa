"""Reads the command line of `docker run`: the part that emulated machines understand."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["BadFlag", "RunOptions", "read_flags", "read_run"]

#: Flags of `docker run` and the names they have in `RunOptions`; what has none changes nothing here.
SWITCHES = {
    "--detach": "detach",
    "--init": "",
    "--interactive": "",
    "--privileged": "",
    "--quiet": "",
    "--read-only": "",
    "--rm": "rm",
    "--tty": "",
}
VALUES = {
    "--cap-add": "",
    "--cap-drop": "",
    "--cpu-shares": "",
    "--cpus": "",
    "--device": "device",
    "--entrypoint": "entrypoint",
    "--env": "env",
    "--env-file": "env_file",
    "--gpus": "gpus",
    "--hostname": "",
    "--ipc": "",
    "--label": "",
    "--log-driver": "log_driver",
    "--log-opt": "log_opt",
    "--memory": "",
    "--memory-swap": "",
    "--name": "name",
    "--network": "network",
    "--oom-score-adj": "",
    "--pid": "",
    "--platform": "platform",
    "--pull": "pull",
    "--restart": "restart",
    "--security-opt": "",
    "--shm-size": "shm_size",
    "--stop-signal": "stop_signal",
    "--stop-timeout": "stop_timeout",
    "--tmpfs": "",
    "--ulimit": "ulimit",
    "--user": "",
    "--volume": "volume",
}
SHORT = {
    "-d": "--detach",
    "-e": "--env",
    "-h": "--hostname",
    "-i": "--interactive",
    "-l": "--label",
    "-m": "--memory",
    "-q": "--quiet",
    "-t": "--tty",
    "-u": "--user",
    "-v": "--volume",
    "--net": "--network",
}

ULIMIT = re.compile(r"[a-z]+=-?\d+(:-?\d+)?")
SIZE = re.compile(r"\d+(\.\d+)?\s*([kmgtp]i?)?b?", re.IGNORECASE)
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

#: https://docs.docker.com/engine/logging/drivers/awslogs/, and what every driver takes.
AWSLOGS = frozenset(
    {
        "awslogs-create-group",
        "awslogs-credentials-endpoint",
        "awslogs-datetime-format",
        "awslogs-endpoint",
        "awslogs-force-flush-interval-seconds",
        "awslogs-format",
        "awslogs-group",
        "awslogs-max-buffered-events",
        "awslogs-multiline-pattern",
        "awslogs-region",
        "awslogs-stream",
        "tag",
    }
)
#: https://docs.docker.com/engine/logging/drivers/gcplogs/
GCPLOGS = frozenset(
    {
        "env",
        "env-regex",
        "gcp-log-cmd",
        "gcp-meta-id",
        "gcp-meta-name",
        "gcp-meta-zone",
        "gcp-project",
        "labels",
        "labels-regex",
    }
)
EVERY_DRIVERS = frozenset({"mode", "max-buffer-size"})
LOG_OPTIONS = {
    "awslogs": AWSLOGS,
    "gcplogs": GCPLOGS,
    "journald": frozenset({"env", "env-regex", "labels", "tag"}),
    "json-file": frozenset({"compress", "env", "labels", "max-file", "max-size", "tag"}),
    "none": frozenset[str](),
}


class BadFlag(ValueError):  # noqa: N818  (docker's usage errors, told in docker's words)
    """A flag that docker does not take, or that is not understood here."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What one `docker run` asks for."""

    image: str
    command: tuple[str, ...] = ()
    detach: bool = False
    devices: tuple[str, ...] = ()
    rm: bool = False
    entrypoint: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    gpus: str = ""
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    network: str = "bridge"
    platform: str = ""
    pull: str = "missing"
    stop_timeout_s: float = 10.0
    mounts: Mapping[str, str] = field(default_factory=dict)


def read_flags(
    words: Sequence[str], switches: Mapping[str, str], values: Mapping[str, str], *, tail: bool = False
) -> tuple[dict[str, list[str]], list[str]]:
    """Tell flags, each by its name in the tables, from other words; with `tail`, the first such word ends them.

    Raises
    ------
    BadFlag
        When a flag is in neither table, or its value is missing.
    """
    found: dict[str, list[str]] = defaultdict(list)
    rest = list(words)
    plain: list[str] = []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            plain.append(word)
            if tail:
                break
            continue
        if word == "--":
            break
        for flag, value in _flags(word, values):
            if flag in switches:
                if value != "false":
                    found[switches[flag]].append("true")
            elif flag not in values:
                raise BadFlag(f"unknown flag: {flag}" if flag[:2] == "--" else _shorthand(flag, word))
            elif value is None and not rest:
                raise BadFlag(f"flag needs an argument: {flag}")
            else:
                found[values[flag]].append(rest.pop(0) if value is None else value)
    return found, plain + rest


def read_run(words: Sequence[str], environ: Mapping[str, str], read: Callable[[str], str]) -> RunOptions:
    """Read the words after `docker run`; `environ` is docker's own, `read` opens a file of the machine.

    Raises
    ------
    BadFlag
        When docker would not take them.
    """
    found, rest = read_flags(words, SWITCHES, VALUES, tail=True)
    if not rest:
        raise BadFlag('"docker run" requires at least 1 argument.')
    last = {name: given[-1] for name, given in found.items()}
    _check(found, last)
    return RunOptions(
        image=rest[0],
        command=tuple(rest[1:]),
        detach="detach" in last,
        devices=tuple(device.partition(":")[0] for device in found["device"]),
        rm="rm" in last,
        entrypoint=last.get("entrypoint"),
        environ=_environ(found, environ, read),
        gpus=last.get("gpus", ""),
        log_driver=last.get("log_driver", "json-file"),
        log_options=dict(option.partition("=")[::2] for option in found["log_opt"]),
        name=last.get("name", ""),
        network=last.get("network", "bridge"),
        platform=last.get("platform", ""),
        pull=last.get("pull", "missing"),
        stop_timeout_s=_number("stop-timeout", last.get("stop_timeout", "10")),
        mounts=dict(_mount(volume) for volume in found["volume"]),
    )


def _flags(word: str, values: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The flags that a word holds, as `--a`, `--a=b`, `-a`, `-ab` or `-aVALUE`."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return [(SHORT.get(name, name), value if equals else None)]
    letters = word[1:]
    found: list[tuple[str, str | None]] = []
    while letters:
        flag, letters = f"-{letters[0]}", letters[1:]
        long = flag if flag in values else SHORT.get(flag, flag)
        if long in values and letters:
            return [*found, (long, letters.removeprefix("="))]
        found.append((long, None))
    return found


def _shorthand(flag: str, word: str) -> str:
    return f"unknown shorthand flag: {flag[1]!r} in {word}"


def _check(found: Mapping[str, list[str]], last: Mapping[str, str]) -> None:
    """Refuse values that docker refuses, and those that mean something that is not understood here."""
    for ulimit in found["ulimit"]:
        if not ULIMIT.fullmatch(ulimit):
            raise BadFlag(
                f'invalid argument "{ulimit}" for "--ulimit" flag: invalid ulimit argument: {ulimit}'
            )
    if "shm_size" in last and not SIZE.fullmatch(last["shm_size"]):
        raise BadFlag(f'invalid argument "{last["shm_size"]}" for "--shm-size" flag: invalid size')
    if last.get("pull", "missing") not in {"always", "missing", "never"}:
        raise BadFlag(
            f'invalid pull option: \'{last["pull"]}\': must be one of "always", "missing" or "never"'
        )
    if last.get("restart", "no") != "no":
        raise BadFlag(f"--restart {last['restart']} is not understood here: let a unit restart it")
    if last.get("network", "bridge") not in {"bridge", "host", "none", "default"}:
        raise BadFlag(f"network {last['network']} not found")
    if last.get("stop_signal", "SIGTERM") not in {"SIGTERM", "TERM", "15"}:
        raise BadFlag(f"--stop-signal {last['stop_signal']} is not understood here")


def _environ(
    found: Mapping[str, list[str]], own: Mapping[str, str], read: Callable[[str], str]
) -> dict[str, str]:
    variables: dict[str, str] = {}
    for path in found["env_file"]:
        try:
            lines = read(path).split("\n")
        except OSError as error:
            raise BadFlag(f"open {path}: {(error.strerror or '').lower()}") from error
        variables |= _variables([line for line in lines if line.strip() and line[0] != "#"], own, path)
    return variables | _variables(found["env"], own, "--env")


def _variables(lines: Sequence[str], own: Mapping[str, str], where: str) -> dict[str, str]:
    """A name alone means docker's own variable, if it has one."""
    variables = {}
    for line in lines:
        name, equals, value = line.lstrip().partition("=")
        if not name or (equals and re.search(r"\s", name)):
            raise BadFlag(f"invalid env file ({where}): variable '{name}' contains whitespaces")
        if equals or name in own:
            variables[name] = value if equals else own[name]
    return variables


def _mount(volume: str) -> tuple[str, str]:
    """Where a container sees something, and what: a path of the machine, or a volume's name."""
    source, colon, target = volume.partition(":")
    target = target.partition(":")[0]
    if not colon:
        return source, f"/var/lib/docker/volumes/{source.strip('/').replace('/', '_')}/_data"
    if not target.startswith("/"):
        raise BadFlag(f"invalid volume specification: '{volume}': mount path must be absolute")
    if not source.startswith("/"):
        if not NAME.fullmatch(source):
            raise BadFlag(f'create {source}: "{source}" includes invalid characters for a local volume name')
        source = f"/var/lib/docker/volumes/{source}/_data"
    return target.rstrip("/") or "/", source


def _number(flag: str, text: str) -> float:
    if not re.fullmatch(r"-?\d+", text):
        raise BadFlag(
            f'invalid argument "{text}" for "--{flag}" flag: strconv.ParseInt: parsing "{text}": invalid syntax'
        )
    return float(text)
