"""cloud-init in an emulated virtual machine: does what the user data says, at its stages and in its order."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.guest_userdata import UserData, read_user_data, shell_script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.guest_shell import Shell

__all__ = ["CloudInit"]

CLOUD = "/var/lib/cloud"
OUTPUT = "/var/log/cloud-init-output.log"

#: The keys of a cloud-config that are obeyed. cloud-init has modules for many more, which here do nothing.
KEYS = frozenset({"bootcmd", "merge_how", "merge_type", "output", "runcmd", "write_files"})

#: How write_files names what a content went through, first the outermost.
ENCODINGS = {
    **dict.fromkeys(("", "text/plain"), ()),
    **dict.fromkeys(("gz", "gzip"), ("gzip",)),
    **dict.fromkeys(("gz+base64", "gzip+base64", "gz+b64", "gzip+b64"), ("base64", "gzip")),
    **dict.fromkeys(("b64", "base64"), ("base64",)),
}

DEFAULT_MODE = 0o644


class CloudInit:
    """The boots of one machine, as cloud-init sees them.

    Parameters
    ----------
    disk, shell
        Where files go, and what runs commands.
    console
        Gets what it says.
    user_data
        As the metadata service hands it out.
    instance_data
        What the machine knows of itself.
    version, datasource
        Of cloud-init, and where it has its data from.
    """

    def __init__(
        self,
        disk: Disk,
        shell: Shell,
        console: Callable[[str], None],
        user_data: bytes,
        instance_data: Mapping[str, Any],
        version: str,
        datasource: str,
    ) -> None:
        self._disk = disk
        self._shell = shell
        self._console = console
        self._user_data = user_data
        self._instance_data = instance_data
        self._version = version
        self._datasource = datasource
        self._id = str(instance_data["v1"]["instance_id"])
        self._began = time.monotonic()
        self._read = UserData()

    def init(self) -> None:
        """The stages before the network's services: what is on the disk afterwards is all there."""
        self._began = time.monotonic()
        self._stage("init")
        self._lay_out()
        self._read = read_user_data(self._user_data, self._instance_data)
        for module, text in self._read.warnings:
            self._warn(module, text)
        for key in sorted(set(self._read.config) - KEYS, key=str):
            self._warn("guest.py", f"The emulated machine does nothing for '{key}' of a cloud-config")
        for folder, name, text in self._read.scripts:
            self._disk.write(f"{CLOUD}/{folder}/{name}", text.encode(), 0o700)
        for name, text in self._read.boothooks:
            self._disk.write(f"{CLOUD}/instance/boothooks/{name}", text.encode(), 0o700)
            self._run(f"{CLOUD}/instance/boothooks/{name}")
        self._module("bootcmd", self._bootcmd)
        self._once("write-files", lambda: self._write_files(defer=False))

    def config(self) -> None:
        """The stage that writes the script of runcmd."""
        self._stage("modules:config")
        self._once("runcmd", self._runcmd)

    def final(self) -> None:
        """The stage that runs scripts."""
        self._stage("modules:final")
        self._once("write-files-deferred", lambda: self._write_files(defer=True))
        self._once("scripts-per-once", lambda: self._run_parts(f"{CLOUD}/scripts/per-once"))
        self._module("scripts-per-boot", lambda: self._run_parts(f"{CLOUD}/scripts/per-boot"))
        self._once("scripts-per-instance", lambda: self._run_parts(f"{CLOUD}/scripts/per-instance"))
        self._once("scripts-user", lambda: self._run_parts(f"{CLOUD}/instance/scripts"))
        self._disk.write(f"{CLOUD}/instance/boot-finished", b"")
        self._disk.write(
            "/run/cloud-init/result.json",
            json.dumps({"v1": {"datasource": self._datasource, "errors": []}}).encode(),
        )
        self._line(
            f"Cloud-init v. {self._version} finished at {_date()}. Datasource {self._datasource}.  "
            f"Up {self._up():.2f} seconds"
        )

    # --- Modules ---------------------------------------------------------------------------------------

    def _bootcmd(self) -> None:
        if (commands := self._read.config.get("bootcmd")) is None:
            return
        try:
            script = shell_script(commands)
        except TypeError as error:
            self._warn("util.py", f"Failed to shellify bootcmd: {error}")
            raise
        self._disk.write("/run/cloud-init/bootcmd.sh", script.encode(), 0o700)
        if code := self._run("/run/cloud-init/bootcmd.sh", commands):
            self._warn("util.py", "Failed to run bootcmd module bootcmd")
            raise RuntimeError(f"exit code {code}")

    def _runcmd(self) -> None:
        commands = self._read.config.get("runcmd")
        if commands is not None:
            script = shell_script(commands)
            self._disk.write(f"{CLOUD}/instance/scripts/runcmd", script.encode(), 0o700)

    def _write_files(self, *, defer: bool) -> None:
        for number, file in enumerate(self._read.config.get("write_files") or [], 1):
            if bool(file.get("defer", False)) != defer:
                continue
            if not file.get("path"):
                self._warn(
                    "cc_write_files.py", f"No path provided to write for entry {number} in module write-files"
                )
                continue
            data = self._content(file)
            mode = self._mode(file.get("permissions"))
            self._disk.write(file["path"], data, mode, append=bool(file.get("append", False)))

    def _content(self, file: Mapping[str, Any]) -> bytes:
        content = file.get("content", "")
        data = content if isinstance(content, bytes) else str(content or "").encode()
        encoding = str(file.get("encoding") or "").lower().strip()
        if encoding not in ENCODINGS:
            self._warn("cc_write_files.py", f"Unknown encoding type {encoding}, assuming text/plain")
        for step in ENCODINGS.get(encoding, ()):
            data = gzip.decompress(data) if step == "gzip" else base64.b64decode(data)
        return data

    def _mode(self, permissions: Any) -> int:
        """An octal text, or a number as it is."""
        if permissions is None:
            return DEFAULT_MODE
        try:
            return int(permissions) if isinstance(permissions, (int, float)) else int(str(permissions), 8)
        except ValueError:
            self._warn(
                "cc_write_files.py",
                f"Undecodable permissions {permissions!r}, returning default {DEFAULT_MODE:o}",
            )
            return DEFAULT_MODE

    def _run_parts(self, folder: str) -> None:
        """Run the programs of a folder, in the order of their names."""
        attempted, failed = 0, []
        here = self._disk.path(folder)
        for path in sorted(here.iterdir()) if here.is_dir() else []:
            if not path.stat().st_mode & 0o100:
                continue
            attempted += 1
            runcmd = self._read.config.get("runcmd") if path.name == "runcmd" else None
            if self._run(f"{folder}/{path.name}", runcmd):
                failed.append(path.name)
        if failed:
            name = folder.removeprefix(f"{CLOUD}/").removeprefix("instance/")
            module = "scripts-user" if name == "scripts" else name.replace("/", "-")
            self._warn(
                f"cc_{module.replace('-', '_')}.py", f"Failed to run module {module} ({name} in {folder})"
            )
            raise RuntimeError(
                f"Runparts: {len(failed)} failures ({','.join(failed)}) in {attempted} attempted commands"
            )

    def _run(self, path: str, commands: Any = None) -> int:
        """Run a script; one of nothing but commands that the machine plays itself needs no process."""
        environ = {"INSTANCE_ID": self._id}
        if commands and all(
            command is None or (isinstance(command, list) and command and self._shell.plays(str(command[0])))
            for command in commands
        ):
            codes = [
                self._shell.run([str(word) for word in command], self._line, environ)
                for command in commands
                if command is not None
            ]
            return codes[-1] if codes else 0
        return self._shell.run([path], self._line, environ)

    # --- What it says and leaves -----------------------------------------------------------------------

    def _once(self, name: str, run: Callable[[], None]) -> None:
        """Run a module at the first boot that comes to it, and never again, whatever becomes of it."""
        semaphore = f"{CLOUD}/instance/sem/config_{name.replace('-', '_')}"
        if not self._disk.path(semaphore).exists():
            self._disk.write(semaphore, b"")
            self._module(name, run)

    def _module(self, name: str, run: Callable[[], None]) -> None:
        """Run a module; what fails in it is logged, and the next one runs."""
        try:
            run()
        except (
            AttributeError,
            EOFError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            binascii.Error,
        ) as error:
            module = f"cc_{name.removesuffix('-deferred').replace('-', '_')}"
            self._disk.write("/var/log/cloud-init.log", f"{name}: {error}\n".encode(), append=True)
            self._warn(
                "util.py",
                f"Running module {name} (<module 'cloudinit.config.{module}' from "
                f"'/usr/lib/python3.9/site-packages/cloudinit/config/{module}.py'>) failed",
            )

    def _lay_out(self) -> None:
        """Write what cloud-init tells of the instance."""
        write, data = self._disk.write, json.dumps(self._instance_data, indent=1).encode()
        write(f"{CLOUD}/data/instance-id", f"{self._id}\n".encode())
        write("/run/cloud-init/.instance-id", f"{self._id}\n".encode())
        write("/run/cloud-init/instance-data.json", data)
        write("/run/cloud-init/instance-data-sensitive.json", data, 0o600)
        for folder in ("instance/scripts", "scripts/per-boot", "scripts/per-instance", "scripts/per-once"):
            self._disk.path(f"{CLOUD}/{folder}").mkdir(parents=True, exist_ok=True)
        write(f"{CLOUD}/instance/user-data.txt", self._user_data, 0o600)

    def _stage(self, name: str) -> None:
        self._line(
            f"Cloud-init v. {self._version} running '{name}' at {_date()}. Up {self._up():.2f} seconds."
        )

    def _warn(self, module: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        self._line(f"{stamp},{int(now % 1 * 1000):03d} - {module}[WARNING]: {text}")

    def _line(self, text: str) -> None:
        self._disk.write(OUTPUT, f"{text}\n".encode(), 0o640, append=True)
        self._console(f"cloud-init: {text}")

    def _up(self) -> float:
        return time.monotonic() - self._began


def _date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
