"""What emulated machines install: a container engine by a package manager, and the driver of GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.guest_shell import Call
    from cloudprovider.emulator.guest_systems import OperatingSystem

__all__ = ["COMMANDS", "Engine", "Packages", "cos_extensions"]

#: How long the driver takes, in the machine's time.
DRIVER_S = 40.0
#: The commands of package managers, and the packages that an engine comes in.
ENGINES = {"tdnf": frozenset({"moby-engine", "moby-cli"}), "apt-get": frozenset({"docker.io"})}
COMMANDS = ("cos-extensions", *ENGINES)
VALUES = frozenset({"-o"})
DRIVER = "/var/lib/nvidia"


class Engine(Protocol):
    """A machine that can be given a container engine."""

    def install_engine(self) -> None:
        """Add one, which takes its time."""


class Packages:
    """The package manager of a machine.

    Parameters
    ----------
    machine
        What gets the engine.
    system
        Which manager it has.
    """

    def __init__(self, machine: Engine, system: OperatingSystem) -> None:
        self._machine = machine
        self._name = system.packages

    def command(self, call: Call) -> int:
        """Do what `tdnf` or `apt-get` are asked, as far as it is about an engine."""
        name = call.argv[0]
        if name != self._name:
            call.warn(f"{name}: command not found")
            return 127
        words, rest = [], list(call.argv[1:])
        while rest:
            word = rest.pop(0)
            if word in VALUES:
                rest[:1] = []
            elif not word.startswith("-"):
                words.append(word)
        if words == ["update"]:
            return 0
        if words[:1] != ["install"] or not ENGINES[name] >= set(words[1:]) or len(words) == 1:
            call.warn(f"{name}: only the installation of a container engine is understood here, not {words}")
            return 1
        self._machine.install_engine()
        return 0


def cos_extensions(
    call: Call, disk: Disk, system: OperatingSystem, gpus: int, sleep: Callable[[float], None]
) -> int:
    """Install the driver of a machine's GPUs, where that is how it is done."""
    if system.id != "cos":
        call.warn("cos-extensions: command not found")
        return 127
    if call.argv[1:] != ["install", "gpu"]:
        call.warn("cos-extensions: only 'install gpu' is understood here")
        return 1
    if not gpus:
        call.warn("ERROR: failed to get GPU type information: no GPU is attached")
        return 1
    sleep(DRIVER_S)
    for name in (*(f"nvidia{number}" for number in range(gpus)), "nvidiactl", "nvidia-uvm"):
        disk.write(f"/dev/{name}", b"")
    for folder in ("bin", "lib64"):
        disk.path(f"{DRIVER}/{folder}").mkdir(parents=True, exist_ok=True)
    call.say("Finished installing the drivers.")
    return 0
