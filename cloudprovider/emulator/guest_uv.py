"""The uv of emulated machines: this computer's own, which uses what its cache has and never a network.

Machines take uv out of its own container image, whatever its version and digest. Here that image has this
computer's uv: the one that the environment variable `UV` names, or else the first on the `PATH`. It finds
packages in this computer's cache, where anything that was installed with uv once has left them, and makes
environments of the Python that runs the embedded cloud. What neither has fails as it does without a network.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["find_uv", "is_uv", "program"]

#: Where uv's own image is.
REPOSITORY = "ghcr.io/astral-sh/uv"
#: Variables of this computer's uv that a machine's must not heed, as it has a disk and a Python of its own.
UNHEEDED = frozenset({"UV", "UV_CACHE_DIR", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON"})
MISSING = """\
#!/bin/sh
echo 'error: this computer has no uv that the emulated machine could run: install it, or set UV to its path' >&2
exit 127
"""


def is_uv(image: str) -> bool:
    """Whether an image is uv's own."""
    return image.partition("@")[0].partition(":")[0] == REPOSITORY


def find_uv() -> str | None:
    """Where uv is on this computer; None when it has none."""
    found = os.environ.get("UV") or shutil.which("uv")  # uv sets it for what it runs
    return str(Path(found).absolute()) if found else None


def program() -> bytes:
    """The program that is uv in a machine."""
    uv = find_uv()
    return (_program(uv) if uv else MISSING).encode()


@cache
def _program(uv: str) -> str:
    told = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    variables = {name: value for name, value in sorted(kept.items()) if name not in UNHEEDED}
    variables |= {"UV_CACHE_DIR": told.stdout.strip(), "UV_NO_CONFIG": "1", "UV_OFFLINE": "1"}
    exported = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    pythons = shlex.quote(str(Path(sys.base_prefix) / "bin"))
    return f'#!/bin/sh\n{exported}PATH={pythons}:"$PATH" exec {shlex.quote(uv)} "$@"\n'
