"""What is inside an emulated virtual machine: firmware, kernel, cloud-init, systemd and a container engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    ecs_agent: bool = True


def nothing_against(*_: object) -> str:
    """No reason why not."""
    return ""


class Guest:
    """One virtual machine's inside.

    All methods return at once; what they begin happens in the machine's own threads.

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
        Called with log group, log stream and line for what a container under the `awslogs` driver writes.
    halted
        Called once each time the machine has powered itself off, or was asked to by `stop`; never after `kill`.
    scale
        Timers that count from a start (OnBootSec, OnActiveSec, OnUnitActiveSec), pauses before a restart and
        `shutdown +N` are multiplied by it; calendar times and stop timeouts are not.
    boot_s, pull_s
        How long the kernel takes to reach cloud-init, and how long an image that is not there takes to be
        pulled; multiplied by `scale`.
    open_log
        Asked with log group, log stream and whether the group may be made, before a container starts under
        `awslogs`; answers why the stream cannot be opened, or the empty string.
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
        open_log: Callable[[str, str, bool], str] = nothing_against,
        reach: Callable[[str], str] = nothing_against,
    ) -> None:
        self._room = room
        self._id = id
        self._address = address
        self._kind = kind
        self._user_data = user_data
        self._environ = dict(environ)
        self._console = console
        self._logs = logs
        self._halted = halted
        self._scale = scale
        self._boot_s = boot_s
        self._pull_s = pull_s
        self._open_log = open_log
        self._reach = reach

    @property
    def pids(self) -> list[int]:
        """The first processes of all that runs in it."""
        return []

    @property
    def ecs_cluster(self) -> str:
        """The ECS cluster that its agent has joined; empty when none runs."""
        return ""

    def boot(self) -> None:
        """Switch it on; again after a halt, with its disk as it was."""

    def stop(self, timeout_s: float) -> None:
        """Press the power button: services are stopped in order; what lives after `timeout_s` is killed."""

    def kill(self) -> None:
        """Cut the power; nothing runs afterwards, and `halted` is not called."""

    def discard(self) -> None:
        """Cut the power and delete the disk."""
