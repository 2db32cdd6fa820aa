"""The rest of a runtime that the boot brought along: it comes with the machine's secret."""

from __future__ import annotations

import base64
import bz2
import hashlib
import importlib
import os

__all__ = ["REST", "digest", "unpack"]

#: File beside the modules that says which rest belongs to them.
REST = "rest"


def digest(text: str) -> str:
    """What tells one rest from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def unpack(text: str, folder: str) -> None:
    """Add the modules that `text` holds to those in `folder`.

    Raises
    ------
    ValueError
        When they belong to others.
    """
    path = os.path.join(folder, REST)  # noqa: PTH118
    if not os.path.exists(path):  # noqa: PTH110
        return
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        if file.read() != digest(text):
            raise ValueError(
                "the runtime in the cluster's secret is not the one that this machine's order was made for: "
                "order machines with the version of dask-cloud that made the cluster"
            )
    for module in bz2.decompress(base64.b85decode(text)).decode().split("\0"):
        name, _, source = module.partition("\n")
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:  # noqa: PTH118, PTH123
            file.write(source)
    importlib.invalidate_caches()
