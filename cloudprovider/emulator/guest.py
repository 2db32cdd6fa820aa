"""What is inside an emulated virtual machine: firmware, kernel, cloud-init, systemd and a container engine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cloudprovider.emulator.guest_commands import NAMES
from cloudprovider.emulator.guest_disk import Disk
from cloudprovider.emulator.guest_system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cloudprovider.emulator.room import Room

__all__ = ["Guest", "Kind"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a machine is made of, and where it stands.

    Parameters
    ----------
    name
        Its instance type.
    architecture
        `x86_64` or `arm64`.
    gpus
        How many it has.
    disks
        How many instance-store NVMe disks it has.
    region, zone
        Where it runs.
    image
        Id of its machine image.
    system
        The operating system that the machine image has, of `guest_systems.SYSTEMS`.
    ecs_agent
        Whether the machine image is an ECS-optimised one, whose agent joins an ECS cluster unless it is masked.
    """

    name: str = "m7i.large"
    architecture: str = "x86_64"
    gpus: int = 0
    disks: int = 0
    region: str = "us-east-1"
    zone: str = "us-east-1a"
    image: str = "ami-00000000000000000"
    system: str = "amazon-linux"
    ecs_agent: bool = True


def nothing_against(*_: object) -> str:
    """No reason why not."""
    return ""


class Guest:
    """One virtual machine's inside.

    `boot` and `stop` return at once; what they begin happens in the machine's own threads, as does the end of
    what it runs. `kill` and `discard` return when nothing runs any more; `console`, `logs` and `halted` are called
    in threads of the machine or the room, and may not block.

    Parameters
    ----------
    room
        Where its processes and containers run.
    id
        The instance id.
    address
        The private address that is its own.
    kind
        What it is made of.
    user_data
        As the machine's metadata service hands it out: not base64, but perhaps gzip.
    environ
        What the machine's network offers its programs, such as `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    console
        Called with each line of the serial console.
    logs
        Called with log group, log stream and line for what a container under the `awslogs` driver writes; under
        `gcplogs`, the log's name is the group, and the container's the stream.
    halted
        Called once each time the machine has powered itself off, or was asked to by `stop`; never after `kill`.
    scale
        Timers that count from a start (OnBootSec, OnActiveSec, OnUnitActiveSec), pauses before a restart and
        `shutdown +N` are multiplied by it; calendar times and stop timeouts are not. A repeating timer elapses no
        more often than every five seconds of this computer's time.
    boot_s, pull_s, engine_s
        How long the kernel takes to reach cloud-init, how long an image that is not there takes to be pulled,
        and how long a package manager takes to install a container engine; multiplied by `scale`.
    open_log
        Asked with log group, log stream and whether the group may be made, before a container starts under
        `awslogs` or `gcplogs`; answers why the stream cannot be opened, or the empty string.
    reach
        Asked with an image's name before it is pulled; answers why its registry cannot be reached, or the
        empty string.
    """

    def __init__(
        self,
        room: Room,
        *,
        id: str,
        address: str,
        kind: Kind,
        user_data: bytes,
        environ: Mapping[str, str],
        console: Callable[[str], None],
        logs: Callable[[str, str, str], None],
        halted: Callable[[], None],
        scale: float = 1.0,
        boot_s: float = 0.0,
        pull_s: float = 0.0,
        engine_s: float = 0.0,
        open_log: Callable[[str, str, bool], str] = nothing_against,
        reach: Callable[[str], str] = nothing_against,
    ) -> None:
        self._disk = Disk(room.folder / f"disk-{id}", NAMES)
        self._halted = halted
        self._lock = threading.Lock()
        self._system: System | None = None
        pulled: set[str] = set()
        self._power_on = partial(
            System,
            room,
            self._disk,
            id=id,
            address=address,
            kind=kind,
            user_data=user_data,
            environ=dict(environ),
            console=console,
            logs=logs,
            over=self._off,
            scale=scale,
            boot_s=boot_s,
            pull_s=pull_s,
            engine_s=engine_s,
            open_log=open_log,
            reach=reach,
            pulled=pulled,
        )

    @property
    def pids(self) -> list[int]:
        """The first processes of all that runs in it."""
        return self._system.shell.pids if self._system else []

    @property
    def ecs_cluster(self) -> str:
        """The ECS cluster that its agent has joined; empty when none has."""
        return self._system.ecs_cluster if self._system else ""

    @property
    def ssm_agent(self) -> bool:
        """Whether its Systems Manager agent runs."""
        return self._system is not None and self._system.systemd.state("amazon-ssm-agent.service") == "active"

    @property
    def firewall(self) -> list[str]:
        """The rules that were added to its own firewall, as `iptables` was told them: none of them is in force here."""
        return list(self._system.firewall) if self._system else []

    def path(self, name: str) -> Path:
        """Where a file of the machine is on this computer."""
        return self._disk.path(name)

    def boot(self) -> None:
        """Switch it on; again after a halt, with its disk as it was."""
        with self._lock:
            if self._system is None:
                self._system = self._power_on()
                self._system.boot()

    def stop(self, timeout_s: float) -> None:
        """Press the power button: services are stopped in order; what lives after `timeout_s` is killed."""
        if system := self._system:
            system.press(timeout_s)

    def kill(self) -> None:
        """Cut the power: nothing runs when it returns, and `halted` is not called."""
        with self._lock:
            system, self._system = self._system, None
        if system:
            system.kill()

    def discard(self) -> None:
        """Cut the power, and delete the disk."""
        self.kill()
        self._disk.delete()

    def _off(self, again: bool) -> None:  # noqa: FBT001
        with self._lock:
            if self._system is None:
                return  # the power was cut meanwhile
            self._system = None
        if again:
            self.boot()
        else:
            self._halted()
