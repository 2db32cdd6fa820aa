"""What a virtual machine is told at its first boot, on any cloud: templates filled, merged and measured."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudruntime.boot import Boot

from cloudprovider import templates
from cloudprovider.config import seconds
from cloudprovider.errors import ConfigError
from cloudprovider.images import OFFICIAL, carries_runtime
from cloudprovider.providers import _uv_lock
from cloudprovider.providers._cloud_init import merged, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudprovider.config import Config
    from cloudprovider.provider import Identity

__all__ = ["Order", "boot_of", "pack", "texts"]

RUNTIME = "/run/dask-cloud/runtime"
#: Nothing of the runtime: the image carries it.
NOTHING = "", b""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the machines of one role are told.

    Parameters
    ----------
    boot
        What runs.
    values
        What is filled into the templates' holes, beside what follows from the rest.
    runtime
        What `pack` makes.
    own
        The user's own user data.
    lock
        What uv makes the machine's environment of; empty where a container runs.
    more
        Further templates of the cloud.
    """

    boot: Boot
    values: Mapping[str, str]
    runtime: tuple[str, bytes]
    own: str | None = None
    lock: str = ""
    more: Sequence[str] = ()
