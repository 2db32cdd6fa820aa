"""One uptime of an emulated virtual machine: from power on to power off."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.guest_cloudinit import CloudInit
from cloudprovider.emulator.guest_commands import commands
from cloudprovider.emulator.guest_docker import Docker
from cloudprovider.emulator.guest_shell import Down, Shell
from cloudprovider.emulator.guest_systemd import ECS_UNITS, Refused, Systemd
from cloudprovider.emulator.guest_systems import ENGINE_UNITS, SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.guest import Kind
    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.room import Room

__all__ = ["System"]

logger = logging.getLogger(__name__)

#: How long what was booting may take to notice that the power is gone.
LAST_S = 10.0


class System:
    """What runs in a machine from power on to power off.

    Parameters
    ----------
    room, disk
        Where it runs, and its files.
    id, address, kind, user_data, environ, logs, scale, boot_s, pull_s, engine_s, open_log, reach
        See `Guest`.
    console
        Gets each line, which here is given its time.
    over
        Called when it has shut itself down; with whether it is to boot again.
    pulled
        Images that its disk has already.
    """

    def __init__(
        self,
        room: Room,
        disk: Disk,
        *,
        id: str,
        address: str,
        kind: Kind,
        user_data: bytes,
        environ: Mapping[str, str],
        console: Callable[[str], None],
        logs: Callable[[str, str, str], None],
        over: Callable[[bool], None],
        scale: float,
        boot_s: float,
        pull_s: float,
        engine_s: float,
        open_log: Callable[[str, str, bool], str],
        reach: Callable[[str], str],
        pulled: set[str],
    ) -> None:
        self._disk = disk
        self._kind = kind
        self._os = SYSTEMS[kind.system]
        self.firewall: list[str] = []
        self._told = console
        self._over = over
        self._scale = scale
        self._boot_s, self._engine_s = boot_s, engine_s
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._line = threading.Lock()
        self._shutting_down = False
        self._dead = threading.Event()
        self._scheduled: threading.Timer | None = None
        self._booting = threading.Thread(target=self._guarded, args=(self._boot,), name="boot", daemon=True)
        self.ecs_cluster = ""
        has_agent = kind.ecs_agent and kind.system == "amazon-linux"
        image_units = self._os.image_units + (ECS_UNITS if has_agent else ())
        self.systemd = Systemd(disk, self.console, scale, image_units)
        self.docker = Docker(
            room,
            disk,
            address=address,
            architecture=kind.architecture,
            gpus=kind.gpus if self._os.gpus else 0,
            environ=environ,
            pull_s=pull_s,
            sleep=self.systemd.sleep,
            logs=logs,
            open_log=open_log,
            reach=reach,
            state=self._engine,
        )
        self.docker.pulled = pulled
        played = commands(disk, self.systemd, self.docker, self, self._os, kind.gpus, self.firewall)
        self.shell = Shell(room, disk, environ, played)
        self.systemd.shell = self.docker.shell = self.shell
        self._cloud_init = CloudInit(
            disk,
            self.shell,
            self.console,
            user_data,
            instance_data(id, address, kind),
            self._os.cloud_init,
            self._os.datasource,
        )

    def console(self, text: str) -> None:
        """Write on the console, each line with its time as the kernel does."""
        with self._line:
            if not self._dead.is_set():
                for line in text.split("\n"):
                    self._told(f"[{time.monotonic() - self._began:12.6f}] {line}")

    def boot(self) -> None:
        """Power on. Returns at once."""
        self._booting.start()

    def press(self, timeout_s: float) -> None:
        """The power button. Returns at once."""
        self.console("systemd-logind[1]: Power key pressed short.")
        self.off(timeout_s=timeout_s)

    def off(self, *, again: bool = False, timeout_s: float | None = None) -> None:
        """Begin to shut down. Returns at once."""
        with self._lock:
            if self._shutting_down:
                return
            self._shutting_down = True
        self.cancel()
        if timeout_s is not None:
            timer = threading.Timer(timeout_s, self._cut)
            timer.daemon = True
            timer.start()
        threading.Thread(
            target=self._guarded, args=(self._shut_down, again), name="shutdown", daemon=True
        ).start()

    def schedule(self, delay_s: float, *, again: bool) -> None:
        """Shut down later, in scaled time."""
        self.cancel()
        self._scheduled = threading.Timer(delay_s * self._scale, self.off, kwargs={"again": again})
        self._scheduled.daemon = True
        self._scheduled.start()

    def cancel(self) -> None:
        """Do not."""
        if self._scheduled:
            self._scheduled.cancel()
            self._scheduled = None

    def kill(self) -> None:
        """Cut the power, and tell nobody."""
        with self._lock:
            self._shutting_down = True
        self._dead.set()
        self._cut()

    # --- Its threads -----------------------------------------------------------------------------------

    def _guarded(self, run: Callable[..., None], *arguments: Any) -> None:
        try:
            run(*arguments)
        except Down:
            return
        except Exception:
            logger.exception("An emulated machine failed at something that is none of its user's doing")
            self.console(
                "Kernel panic - not syncing: the emulated machine failed, see the emulator's own log"
            )

    def _boot(self) -> None:
        machine = "aarch64" if self._kind.architecture == "arm64" else "x86_64"
        name = f"{self._os.title} {self._os.version}"
        self.console(f"Linux version {self._os.kernel}.{machine} ({name})")
        self.systemd.sleep(self._boot_s)
        self._fresh()
        self.console(f"systemd[1]: Welcome to {name}!")
        self._start_image_units("cloud-init.service")
        self._cloud_init.init()
        self._start_image_units("docker.socket", "containerd.service", "docker.service", ECS_UNITS[0])
        self._start_image_units("amazon-ssm-agent.service", "cloud-config.service")
        for name in self.systemd.enabled():
            self._start_unit(name)
        self._cloud_init.config()
        self._start_image_units("cloud-final.service")
        self._cloud_init.final()
        # It comes after cloud-final: https://github.com/aws/amazon-ecs-init
        self._start_image_units("ecs.service")
        if self._kind.ecs_agent and self.systemd.state("ecs.service") == "active":
            self._join()

    def _fresh(self) -> None:
        """Empty what is in memory, and put the disks where they are found."""
        for folder in ("run", "tmp", "dev", *self._os.forgets):
            shutil.rmtree(self._disk.root / folder, ignore_errors=True)
        self._disk.lay_out()
        self._disk.write("/etc/os-release", self._os.release)
        names = ["by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"]
        names += [self._os.disk.format(number) for number in range(1, self._kind.disks + 1)]
        endings = (
            ("", "_1") if self._os.platform == "ec2" else ("",)
        )  # by the controller, and by its namespace
        for number, name in enumerate(names):
            device = self._disk.root / f"dev/nvme{number}n1"
            device.touch()
            for ending in endings:
                link = self._disk.path(f"/dev/disk/{name}{ending}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(device, link.parent))

    def _engine(self) -> str:
        """The state of the container engine; empty when there is none."""
        name = "docker.service"
        return self.systemd.state(name) if name in self.systemd.image_units else ""

    def install_engine(self) -> None:
        """Add a container engine to the machine, as a package does."""
        self.systemd.sleep(self._engine_s)
        for name in ENGINE_UNITS:
            self.systemd.image_units.setdefault(name, "inactive")

    def _start_image_units(self, *names: str) -> None:
        for name in names:
            self._start_unit(name)
            if self.systemd.state(name) == "active":
                self.systemd.tell(f"Started {name}.")

    def _start_unit(self, name: str) -> None:
        """Start what boots; what cannot be is left out, a masked unit silently."""
        try:
            if not self.systemd.masked(name) and self.systemd.exists(name):
                self.systemd.start(name, wait=False)
        except Refused as refused:
            self.console(f"systemd[1]: {refused}")

    def _join(self) -> None:
        """Do what the agent of an ECS-optimised image does when nobody forbade it."""
        settings = {}
        with contextlib.suppress(OSError):
            text = self._disk.read("/etc/ecs/ecs.config")
            settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        self.ecs_cluster = settings.get("ECS_CLUSTER", "default")
        self.console(
            f'amazon-ecs-agent: level=info msg="Registered container instance with cluster {self.ecs_cluster}"'
        )

    def _shut_down(self, again: bool) -> None:  # noqa: FBT001
        """Stop services, then containers, then what is left; and tell it."""
        self.console(f"systemd[1]: Reached target {'reboot' if again else 'poweroff'}.target.")
        self.systemd.stop_all()
        self.docker.stop()
        self.systemd.tell("Stopped docker.service - Docker Application Container Engine.")
        self._cut()
        self.console("reboot: Restarting system" if again else "reboot: Power down")
        if not self._dead.is_set():
            self._dead.set()
            self._over(again)

    def _cut(self) -> None:
        self.cancel()
        self.systemd.cut()
        self.shell.close()
        self._booting.join(LAST_S)


def instance_data(id: str, address: str, kind: Kind) -> dict[str, Any]:
    """What cloud-init knows of an instance."""
    system = SYSTEMS[kind.system]
    name = f"ip-{address.replace('.', '-')}.ec2.internal" if system.platform == "ec2" else id
    meta_data = {
        "ami-id": kind.image,
        "hostname": name,
        "instance-id": id,
        "instance-type": kind.name,
        "local-hostname": name,
        "local-ipv4": address,
        "placement": {"availability-zone": kind.zone, "region": kind.region},
    }
    cloud = "aws" if system.platform == "ec2" else system.platform
    standard = {
        "availability-zone": kind.zone,
        "availability_zone": kind.zone,
        "cloud-name": cloud,
        "cloud_name": cloud,
        "distro": system.distro,
        "instance-id": id,
        "instance_id": id,
        "local-hostname": name,
        "local_hostname": name,
        "machine": "aarch64" if kind.architecture == "arm64" else "x86_64",
        "platform": system.platform,
        "region": kind.region,
        "subplatform": "metadata (http://169.254.169.254)",
    }
    return {"base64_encoded_keys": [], "ds": {"meta_data": meta_data}, "sensitive_keys": [], "v1": standard}
