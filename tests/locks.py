"""Locks for machines whose environment uv makes, and whether uv could make one here without a network."""

from __future__ import annotations

import subprocess
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from cloudprovider.emulator.guest_uv import find_uv

if TYPE_CHECKING:
    from pathlib import Path


def locked(*names: str) -> str:
    """These packages and all that they need, at the versions of this environment."""
    found: dict[str, str] = {}
    wanted = list(names)
    while wanted:
        package = metadata.distribution(wanted.pop())
        name = package.metadata["Name"]
        if name not in found:
            found[name] = package.version
            needs = map(Requirement, package.requires or ())
            wanted += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def needs_uv(lock: str, folder: Path) -> str:
    """uv, or a skip that says why it could not install a lock here."""
    if (uv := find_uv()) is None:
        pytest.skip("there is no uv: set UV to its path")
    (folder / "lock.txt").write_text(lock)
    options = ["--offline", "--no-config", "--dry-run", "--target", str(folder / "target")]
    done = subprocess.run(
        [uv, "pip", "sync", *options, folder / "lock.txt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"uv's cache does not have what distributed needs: {done.stderr}")
    return uv
