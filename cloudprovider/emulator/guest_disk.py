"""The disk of an emulated virtual machine: a folder of this computer.

One mapping says where a machine's file is here. A path is mapped when it belongs to a folder that every
machine has of its own (`OWN`), or when the machine has such a file; all others are this computer's, as the
programs and libraries are. Where a text names paths (a command, a unit, a script), each is mapped in it.

Its limits, as there is no file system of its own beneath: a script's path that is put together while it runs
(`"/e""tc/x"`) is not mapped; a script is mapped when it begins with `#!` or the guest starts it, so not when
another script reads it in; a program that has a path compiled in sees this computer's file; and a script that
writes a path into a file writes the mapped one. All that the guest itself reads is mapped back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Disk"]

#: Below these, what a machine has not does not exist.
OWN = ("boot", "etc", "home", "media", "mnt", "opt", "root", "run", "scratch", "srv", "tmp", "var")

#: Disks and their names are its own too, unlike `/dev/null`.
DEVICES = re.compile(r"/dev/(disk|nvme|nvidia|sd|vd|xvd)")

#: A path in a text: what stands before it may not make it the end of something else, such as a URL or a quotient.
PATH = re.compile(r"(?<![\w./\-$)}\]*?~%+])(?:/[\w.@+-]+)+")

#: Where programs are looked for.
PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Disk:
    """The files of one machine.

    Parameters
    ----------
    root
        The folder that is its `/`.
    commands
        Names of the programs that the guest itself plays.
    """

    def __init__(self, root: Path, commands: Collection[str]) -> None:
        self.root = root
        self._commands = frozenset(commands)
        self._prefix = f"{root}/"
        self.lay_out()

    def lay_out(self) -> None:
        """Make the folders that every machine has, as far as they are missing."""
        for folder in (*OWN, "dev/disk/by-id", "etc/systemd/system", "var/lib/cloud/data", "var/log"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    @property
    def shims(self) -> Path:
        """Where the programs are that speak with the guest."""
        return self.root / ".machine"

    def path(self, name: str) -> Path:
        """Where a file of the machine is here."""
        return self.root / os.path.normpath(f"/{name}").lstrip("/")

    def write(self, name: str, data: bytes, mode: int = 0o644, *, append: bool = False) -> None:
        """Write a file, and make the folders it needs."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if append else "wb") as file:
            file.write(data)
        path.chmod(mode)
        if data.startswith(b"#!"):
            self.adapt(path)

    def adapt(self, path: Path) -> None:
        """Have a script of the machine name files as they are here; nothing when it is no file of the machine."""
        if path.is_relative_to(self.root) and path.is_file():
            with contextlib.suppress(UnicodeDecodeError):
                text = path.read_text(encoding="utf-8")
                if (here := self.here(text)) != text:
                    path.write_text(here, encoding="utf-8")

    def read(self, name: str) -> str:
        """A text file, with paths as the machine calls them."""
        return self.there(self.path(name).read_text(encoding="utf-8", errors="replace"))

    def here(self, text: str) -> str:
        """A text of the machine, with its paths as they are on this computer."""
        return PATH.sub(lambda match: self._here(match.group()), text)

    def there(self, text: str) -> str:
        """A text of this computer, with the machine's paths as the machine calls them."""
        return text.replace(self._prefix, "/")

    def delete(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _here(self, path: str) -> str:
        if path.startswith(self._prefix):
            return path
        folder, _, name = path.rpartition("/")
        if folder in PROGRAMS and name in self._commands:
            return str(self.shims / name)
        own = path.split("/")[1] in OWN or DEVICES.match(path) or os.path.lexists(self.root / path[1:])
        return f"{self.root}{path}" if own else path
