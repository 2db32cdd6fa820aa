"""The commands of an emulated virtual machine that it plays itself, besides `docker`."""

from __future__ import annotations

import contextlib
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from cloudprovider.emulator.guest_packages import COMMANDS, Packages, cos_extensions
from cloudprovider.emulator.guest_systemd import ABOUT, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.guest_docker import Docker
    from cloudprovider.emulator.guest_shell import Call, Running
    from cloudprovider.emulator.guest_systemd import Systemd
    from cloudprovider.emulator.guest_systems import OperatingSystem

__all__ = ["NAMES", "Power", "commands"]

FILE_SYSTEMS = ("ext3", "ext4", "xfs")

#: Every command that is played.
NAMES = (
    *COMMANDS,
    "cloud-init",
    "docker",
    "halt",
    "iptables",
    "journalctl",
    "mdadm",
    "mkfs",
    *(f"mkfs.{kind}" for kind in FILE_SYSTEMS),
    "modprobe",
    "mount",
    "mountpoint",
    "nvidia-smi",
    "poweroff",
    "reboot",
    "shutdown",
    "swapoff",
    "swapon",
    "sysctl",
    "systemctl",
    "umount",
)

#: Exit code of `systemctl is-active` and its like when it is not so.
INACTIVE = 3

#: Begins a disk that was formatted.
SUPERBLOCK = "filesystem:"

#: Options of `mkfs` and `mdadm` that take a value in the next word.
MKFS_VALUES = frozenset({"-L", "-b", "-d", "-i", "-l", "-m", "-n", "-t", "-E", "-O"})


class Power(Protocol):
    """The machine's power, as seen from inside, and what is added to it."""

    def off(self, *, again: bool = False) -> None:
        """Begin to shut down; `again` boots afterwards. Returns at once."""

    def schedule(self, delay_s: float, *, again: bool) -> None:
        """Do so later."""

    def cancel(self) -> None:
        """Do not."""

    def install_engine(self) -> None:
        """Add a container engine."""


def commands(
    disk: Disk,
    systemd: Systemd,
    docker: Docker,
    power: Power,
    system: OperatingSystem,
    gpus: int,
    firewall: list[str],
) -> dict[str, Callable[[Call], int | Running]]:
    """All commands that a machine plays, by name."""
    disks = Disks(disk)
    units = Systemctl(systemd, power)
    packages = Packages(power, system)
    found: dict[str, Callable[[Call], int | Running]] = {
        **dict.fromkeys(COMMANDS, packages.command),
        "cloud-init": cloud_init,
        "cos-extensions": lambda call: cos_extensions(call, disk, system, gpus, systemd.sleep),
        "docker": docker.command,
        "halt": lambda call: power_command(call, power),
        "iptables": lambda call: iptables(call, firewall),
        "journalctl": lambda call: journalctl(call, systemd),
        "mdadm": disks.mdadm,
        "mkfs": disks.mkfs,
        "modprobe": nothing,
        "mount": disks.mount,
        "mountpoint": disks.mountpoint,
        "nvidia-smi": lambda call: nvidia_smi(call, gpus),
        "poweroff": lambda call: power_command(call, power),
        "reboot": lambda call: power_command(call, power),
        "shutdown": lambda call: shutdown(call, power),
        "swapoff": nothing,
        "swapon": disks.swapon,
        "sysctl": nothing,
        "systemctl": units.command,
        "umount": disks.umount,
    }
    return found | {f"mkfs.{kind}": disks.mkfs for kind in FILE_SYSTEMS}


def nothing(call: Call) -> int:  # noqa: ARG001
    """What changes nothing that can be seen here."""
    return 0


def cloud_init(call: Call) -> int:
    """`cloud-init status`: whoever asks is part of it."""
    if call.argv[1:2] != ["status"]:
        call.warn("cloud-init: only 'status' is understood here")
        return 2
    call.say("status: running")
    return 0


def nvidia_smi(call: Call, gpus: int) -> int:
    """Tell the GPUs, or that there is none."""
    if not gpus:
        call.say(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
            "Make sure that the latest NVIDIA driver is installed and running."
        )
        return 9
    for number in range(gpus):
        call.say(f"GPU {number}: NVIDIA Emulated (UUID: GPU-{number:08x})")
    return 0


def journalctl(call: Call, systemd: Systemd) -> int:
    """Show the journal, or a unit's part of it."""
    words = list(call.argv[1:])
    shown, last = None, len(systemd.journal)
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word in {"-u", "--unit", "-xeu"}:
            shown = {unit_name(value), ABOUT + unit_name(value)}
        elif word.startswith("--unit="):
            shown = {unit_name(word[7:]), ABOUT + unit_name(word[7:])}
        elif word.startswith("_SYSTEMD_UNIT="):
            shown = {word.partition("=")[2]}
        elif word in {"-n", "--lines"}:
            last = int(value)
    lines = [line for unit, line in list(systemd.journal) if shown is None or unit in shown]
    for line in lines[-last:] if last else []:
        call.say(line)
    return 0


def iptables(call: Call, firewall: list[str]) -> int:
    """Take note of a rule: the machine's own firewall does nothing here, and its network's still holds."""
    words = [word for word in call.argv[1:] if word not in {"-w", "--wait"}]
    if words[:1] not in (["-A"], ["-I"], ["--append"], ["--insert"]):
        call.warn("iptables: only the addition of rules is understood here")
        return 2
    firewall.append(" ".join(words))
    return 0


# --- Power ---------------------------------------------------------------------------------------------


def power_command(call: Call, power: Power) -> int:
    """`poweroff`, `halt` and `reboot`."""
    power.off(again=call.argv[0] == "reboot")
    return 0


def shutdown(call: Call, power: Power) -> int:
    """`shutdown`: now, in some minutes, at a time, or not after all."""
    options = {letter for word in call.argv[1:] if re.fullmatch(r"-[a-zA-Z]+", word) for letter in word[1:]}
    options |= {word[2:3] for word in call.argv[1:] if word in {"--reboot", "--poweroff", "--halt"}}
    words = [word for word in call.argv[1:] if not word.startswith("-")]
    if unknown := options - set("cfhHkPrp"):
        call.warn(f"shutdown: invalid option -- '{min(unknown)}'")
        return 1
    if "c" in options:
        power.cancel()
        return 0
    when, again = words[0] if words else "+1", "r" in options
    if when in {"now", "+0"}:
        power.off(again=again)
        return 0
    if (delay_s := _delay(when)) is None:
        call.warn(f"Failed to parse time specification: {when}")
        return 1
    power.schedule(delay_s, again=again)
    moment = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + delay_s))
    call.warn(f"{'Reboot' if again else 'Shutdown'} scheduled for {moment}, use 'shutdown -c' to cancel.")
    return 0


def _delay(when: str) -> float | None:
    """Seconds until a time of `shutdown`."""
    if match := re.fullmatch(r"\+?(\d+)", when):
        return int(match[1]) * 60.0
    if match := re.fullmatch(r"(\d\d?):(\d\d)", when):
        now = time.gmtime()
        minutes = int(match[1]) * 60 + int(match[2]) - now.tm_hour * 60 - now.tm_min
        return (minutes % 1440) * 60.0 - now.tm_sec
    return None


# --- systemctl -----------------------------------------------------------------------------------------


class Systemctl:
    """`systemctl`."""

    def __init__(self, systemd: Systemd, power: Power) -> None:
        self._systemd = systemd
        self._power = power

    def command(self, call: Call) -> int:
        """Do what it says."""
        options = {word for word in call.argv[1:] if word.startswith("-")}
        verb, *names = [word for word in call.argv[1:] if not word.startswith("-")] or ["list-units"]
        known = {"--no-block", "--now", "--quiet", "-q", "--force", "-f", "--no-pager", "--system"}
        if unknown := options - known:
            call.warn(f"systemctl: option '{min(unknown)}' is not understood here")
            return 1
        if verb in {"poweroff", "halt", "reboot"}:
            self._power.off(again=verb == "reboot")
            return 0
        if verb == "daemon-reload":
            self._systemd.reload()
            return 0
        actions: Mapping[str, Callable[[Call, str, set[str]], int]] = {
            "cat": self._cat,
            "disable": self._disable,
            "enable": self._enable,
            "is-active": self._is_active,
            "is-enabled": self._is_enabled,
            "is-failed": self._is_failed,
            "mask": self._mask,
            "restart": self._restart,
            "start": self._start,
            "status": self._status,
            "stop": self._stop,
            "unmask": self._unmask,
        }
        if verb not in actions:
            call.warn(f"Unknown command verb {verb}.")
            return 1
        if not names:
            call.warn("Too few arguments.")
            return 1
        return max(self._one(actions[verb], call, unit_name(name), options) for name in names)

    @staticmethod
    def _one(action: Callable[[Call, str, set[str]], int], call: Call, name: str, options: set[str]) -> int:
        try:
            return action(call, name, options)
        except Refused as refused:
            call.warn(str(refused))
            return refused.code

    def _cat(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        if (text := self._systemd.text(name)) is None:
            call.warn(f"No files found for {name}.")
            return 1
        call.say(text)
        return 0

    def _start(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        self._systemd.start(name, wait="--no-block" not in options)
        return 0

    def _stop(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        self._systemd.stop(name)
        return 0

    def _restart(self, call: Call, name: str, options: set[str]) -> int:
        if self._systemd.state(name) != "inactive":
            self._systemd.stop(name)
        return self._start(call, name, options)

    def _enable(self, call: Call, name: str, options: set[str]) -> int:
        _tell(call, self._systemd.enable(name))
        return self._start(call, name, options) if "--now" in options else 0

    def _disable(self, call: Call, name: str, options: set[str]) -> int:
        _tell(call, self._systemd.disable(name))
        return self._stop(call, name, options) if "--now" in options else 0

    def _mask(self, call: Call, name: str, options: set[str]) -> int:
        _tell(call, self._systemd.mask(name))
        if "--now" in options and self._systemd.state(name) != "inactive":
            self._systemd.stop(name)
        return 0

    def _unmask(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        _tell(call, self._systemd.unmask(name))
        return 0

    def _is_active(self, call: Call, name: str, options: set[str]) -> int:
        state = self._systemd.state(name)
        if not options & {"--quiet", "-q"}:
            call.say(state)
        return 0 if state == "active" else INACTIVE

    def _is_failed(self, call: Call, name: str, options: set[str]) -> int:
        state = self._systemd.state(name)
        if not options & {"--quiet", "-q"}:
            call.say(state)
        return 0 if state == "failed" else 1

    def _is_enabled(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        if self._systemd.masked(name):
            call.say("masked")
            return 1
        if not self._systemd.exists(name):
            call.warn(f"Failed to get unit file state for {name}: No such file or directory")
            return 1
        enabled = name in self._systemd.enabled() or name in self._systemd.image_units
        call.say("enabled" if enabled else "disabled")
        return 0 if enabled else 1

    def _status(self, call: Call, name: str, options: set[str]) -> int:  # noqa: ARG002
        if not self._systemd.exists(name) and not self._systemd.masked(name):
            call.warn(f"Unit {name} could not be found.")
            return 4
        state = self._systemd.state(name)
        call.say(f"{name}: {'masked, ' if self._systemd.masked(name) else ''}{state}")
        for unit, line in [
            entry for entry in list(self._systemd.journal) if entry[0] in {name, ABOUT + name}
        ][-10:]:
            call.say(f"{unit}: {line}")
        return 0 if state == "active" else INACTIVE


def unit_name(name: str) -> str:
    """A unit's whole name: without an ending it is a service."""
    return name if re.search(r"\.(service|timer|socket|target|mount|path)$", name) else f"{name}.service"


def _tell(call: Call, text: str) -> None:
    for line in text.splitlines():
        call.warn(line)


# --- Disks ---------------------------------------------------------------------------------------------


class Disks:
    """Local disks, which are files here: one has a file system once it was formatted."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._mounts: dict[str, str] = {}

    def mkfs(self, call: Call) -> int:
        """Format a disk."""
        words = _plain(call.argv[1:], MKFS_VALUES)
        name = call.argv[0]
        if len(words) != 1:
            call.warn(f"Usage: {name} [options] device")
            return 1
        device = self._disk.path(words[0])
        if not device.exists():
            call.warn(f"Error accessing specified device {words[0]}: No such file or directory")
            call.warn(f"Usage: {name}")
            return 1
        if self._kind(words[0]) and not any(
            "f" in w for w in call.argv[1:] if re.fullmatch(r"-[a-zA-Z]+", w)
        ):
            call.warn(
                f"{name}: {words[0]} appears to contain an existing filesystem ({self._kind(words[0])})."
            )
            call.warn(f"{name}: Use the -f option to force overwrite.")
            return 1
        device.write_text(SUPERBLOCK + (name.partition(".")[2] or "ext2"), encoding="utf-8")
        return 0

    def mdadm(self, call: Call) -> int:
        """Make one array of several disks."""
        words = _plain(call.argv[1:], frozenset({"--level", "-l", "--raid-devices", "-n", "--chunk", "-c"}))
        if not {"--create", "-C"} & set(call.argv) or not words:
            call.warn("mdadm: only --create is understood here")
            return 2
        array, *devices = words
        for device in devices:
            if not self._disk.path(device).exists():
                call.warn(f"mdadm: cannot open {device}: No such file or directory")
                return 2
        self._disk.write(array, b"")
        call.warn(f"mdadm: array {array} started.")
        return 0

    def mount(self, call: Call) -> int:
        """Mount a disk, if it is there and has a file system."""
        words = _plain(call.argv[1:], frozenset({"-o", "-t", "--options", "--types"}))
        if not words:
            for folder, device in self._mounts.items():
                call.say(f"{device} on {folder}")
            return 0
        if len(words) == 1:
            # Everything may be executed here, however a folder is mounted.
            remounts = any("remount" in value.split(",") for value in _values(call.argv, {"-o", "--options"}))
            if remounts and words[0] in self._mounts:
                return 0
            call.warn(f"mount: {words[0]}: can't find in /etc/fstab.")
            return 1
        device, folder = words
        if "--bind" not in call.argv and (why := self._unfit(device, folder)):
            call.warn(f"mount: {folder}: {why}")
            return 32
        self._mounts[folder] = device
        return 0

    def _unfit(self, device: str, folder: str) -> str:
        """Why a device cannot be mounted there; empty when it can."""
        if not self._disk.path(folder).is_dir():
            return "mount point does not exist."
        if device in {"tmpfs", "none"}:
            return ""
        if not self._disk.path(device).exists():
            return f"special device {device} does not exist."
        if not self._kind(device):
            return (
                f"wrong fs type, bad option, bad superblock on {device}, "
                "missing codepage or helper program, or other error."
            )
        return ""

    def umount(self, call: Call) -> int:
        """Unmount a disk."""
        for name in _plain(call.argv[1:], frozenset()):
            folders = [folder for folder, device in self._mounts.items() if name in {folder, device}]
            if not folders:
                call.warn(f"umount: {name}: not mounted.")
                return 32
            del self._mounts[folders[-1]]
        return 0

    def mountpoint(self, call: Call) -> int:
        """Whether something is mounted at a folder."""
        folder = call.argv[-1]
        mounted = folder in self._mounts
        if "-q" not in call.argv:
            call.say(f"{folder} is {'' if mounted else 'not '}a mountpoint")
        return 0 if mounted else 32

    def swapon(self, call: Call) -> int:
        """Use a file or a disk as memory, if it is there."""
        for name in _plain(call.argv[1:], frozenset()):
            if not self._disk.path(name).exists():
                call.warn(f"swapon: cannot open {name}: No such file or directory")
                return 255
        return 0

    def _kind(self, device: str) -> str:
        """What file system a disk has; empty for none."""
        with contextlib.suppress(OSError):
            text = self._disk.path(device).read_text(encoding="utf-8", errors="replace")
            return text.removeprefix(SUPERBLOCK) if text.startswith(SUPERBLOCK) else ""
        return ""


def _plain(words: object, values: frozenset[str]) -> list[str]:
    """The words that are no options, nor an option's value."""
    found: list[str] = []
    rest = [str(word) for word in words]  # type: ignore[attr-defined]
    while rest:
        word = rest.pop(0)
        if word in values:
            rest[:1] = []
        elif not word.startswith("-"):
            found.append(word)
    return found


def _values(words: object, options: set[str]) -> list[str]:
    """What follows any of these options."""
    found = [str(word) for word in words]  # type: ignore[attr-defined]
    return [value for word, value in pairwise(found) if word in options]
