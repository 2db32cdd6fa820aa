"""Whether this image's versions go with the client's."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["compare", "installed"]

#: Packages that must be the same: another `distributed` speaks another protocol.
SAME = ("distributed",)


def installed(names: Mapping[str, str]) -> dict[str, str]:
    """The versions here of `python` and of those packages, without importing them."""
    python = ".".join(map(str, sys.version_info[:3]))
    found = {name: _version(name) for name in sorted({*names, *SAME} - {"python"})}
    return {"python": python, **{name: version for name, version in found.items() if version}}


def compare(client: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, list[str]]:
    """What ends the boot (empty: nothing does), and what is only worth a warning.

    Parameters
    ----------
    client
        Versions by package, as the client has them.
    here
        Versions by package, as this image has them.
    """
    wrong = [
        f"the client has {name} {theirs}, this image has {name} {here[name]}"
        for name, theirs in sorted(client.items())
        if name in {"python", *SAME} and name in here and not _match(name, theirs, here[name])
    ]
    warnings = [
        f"the client has {name} {theirs}, this image has {name} {here[name]}"
        for name, theirs in sorted(client.items())
        if name not in {"python", *SAME} and name in here and here[name] != theirs
    ]
    return "; ".join(wrong), warnings


def _match(name: str, theirs: str, ours: str) -> bool:
    if name == "python":  # pickled functions hold byte code, which changes with the minor version
        return theirs.split(".")[:2] == ours.split(".")[:2]
    return theirs == ours


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
