"""The machine's secret: found by reference, kept in files that only this user reads."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Keys", "fetch", "keep"]

PARTS = ("ca", "cert", "key")


@dataclass(frozen=True)
class Keys:
    """Where the machine's keys are.

    Parameters
    ----------
    ca, cert, key
        Paths of PEM files.
    token
        Jupyter's token; empty when the secret has none.
    """

    ca: str
    cert: str
    key: str
    token: str = field(default="", repr=False)


def fetch(reference: str, environ: MutableMapping[str, str]) -> dict[str, str]:
    """The secret that `reference` names; one that was in `environ` is there no longer.

    Raises
    ------
    ValueError
        When it cannot be read; the message never shows any of it.
    """
    scheme, _, name = reference.partition(":")
    if scheme not in SCHEMES or not name:
        known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        raise ValueError(f"{reference!r} is no reference this runtime can follow; it knows {known}")
    text = SCHEMES[scheme](name, environ)
    try:
        bundle = json.loads(text)
        missing = [part for part in PARTS if not bundle[part].strip()]
    except (ValueError, KeyError, TypeError, AttributeError):
        missing = list(PARTS)
    if missing:
        raise ValueError(f"what {reference!r} holds is no JSON of {', '.join(PARTS)}")
    return bundle  # type: ignore[no-any-return]


def keep(bundle: dict[str, str], folder: str) -> Keys:
    """Write the keys into `folder`, readable by this user alone."""
    paths = {part: os.path.join(folder, f"{part}.pem") for part in PARTS}  # noqa: PTH118
    for part, path in paths.items():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(bundle[part])
    return Keys(token=bundle.get("token", ""), **paths)


def _of_environment(name: str, environ: MutableMapping[str, str]) -> str:
    text = environ.pop(name, "")
    if not text:
        raise ValueError(f"the environment has no {name}, which should hold the machine's secret")
    return text


def _of_file(path: str, _environ: MutableMapping[str, str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs import time)
            return file.read()
    except OSError as error:
        raise ValueError(f"the machine's secret cannot be read: {error}") from error


def _of_ssm(names: str, environ: MutableMapping[str, str]) -> str:
    """One parameter, or what several of them hold together."""
    from cloudruntime.aws import parameters

    found = parameters(names.split(","), environ)
    return json.dumps({key: value for text in found for key, value in json.loads(text).items()})


def _of_secret_manager(name: str, environ: MutableMapping[str, str]) -> str:
    from cloudruntime import gce

    return gce.secret(name, environ)


def _of_key_vault(url: str, environ: MutableMapping[str, str]) -> str:
    from cloudruntime import azure

    return azure.secret(url, environ)


SCHEMES = {
    "env": _of_environment,
    "file": _of_file,
    "ssm": _of_ssm,
    "gcp-secret": _of_secret_manager,
    "keyvault": _of_key_vault,
}
