"""One worker a GPU: what a worker of a machine with GPUs is told beyond the others."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

__all__ = ["devices", "options"]

#: Which GPUs a process may use, and which its container was given.
VISIBLE, GIVEN = "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"


def devices() -> list[str]:
    """The GPUs of this machine, as CUDA calls them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    given = os.environ.get(GIVEN, "")
    if re.match(r"\d|GPU-|MIG-", given):
        return given.split(",")
    found = [re.fullmatch(r"nvidia(\d+)", name) for name in os.listdir("/dev")]  # noqa: PTH208
    return sorted((match[1] for match in found if match), key=int)


def options(number: int, processes: int) -> dict[str, Any]:
    """Arguments of one worker's Nanny; none when there are not as many GPUs as workers.

    Parameters
    ----------
    number
        Which of the machine's workers it is.
    processes
        How many there are.
    """
    there = devices() if os.path.isdir("/dev") else []  # noqa: PTH112
    if len(there) < processes:
        return {}
    # The first one is its own; the others are for libraries that copy between GPUs, as dask-cuda has it.
    own: dict[str, Any] = {
        "env": {VISIBLE: ",".join(there[number:] + there[:number])},
        "resources": {"GPU": 1},
    }
    if find_spec("dask_cuda") is not None:
        own |= {"preload": ["dask_cuda.initialize"], "preload_argv": ["--create-cuda-context"]}
    return own
