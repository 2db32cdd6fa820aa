"""The rest of a runtime that the boot brought along: it comes with the machine's secret."""

from __future__ import annotations

import base64
import bz2
import hashlib
import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PLAIN", "REST", "digest", "unpack"]

#: File beside the modules that says which rest belongs to them, and how its keys begin in secrets.
REST = "rest"
# Base85, but a parameter of Systems Manager may not hold two curly brackets in a row.
# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
PLAIN, CURLY = str.maketrans("{}", ",."), str.maketrans(",.", "{}")


def digest(texts: Iterable[str]) -> str:
    """What tells one rest from another."""
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:12]


def unpack(bundle: Mapping[str, str], folder: str) -> None:
    """Add the modules that came with the secrets to those in `folder`.

    Raises
    ------
    ValueError
        When they belong to others.
    """
    path = os.path.join(folder, REST)  # noqa: PTH118
    if not os.path.exists(path):  # noqa: PTH110
        return
    texts = [bundle[key] for key in sorted(bundle) if key.startswith(REST)]
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        if file.read() != digest(texts):
            raise ValueError(
                "the runtime in the cluster's secret is not the one that this machine's order was made for: "
                "order machines with the version of dask-cloud that made the cluster"
            )
    for text in texts:
        for module in bz2.decompress(base64.b85decode(text.translate(CURLY))).decode().split("\0"):
            name, _, source = module.partition("\n")
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:  # noqa: PTH118, PTH123
                file.write(source)
    importlib.invalidate_caches()
