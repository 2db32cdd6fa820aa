"""What the last lines of a virtual machine mean whose container never came to run Dask, on every cloud alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudruntime.exits import REASONS, explain

from cloudprovider.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.errors import CloudError
    from cloudprovider.provider import Machine

__all__ = ["Causes", "causes", "diagnosis"]

#: Patterns of log lines, and what to do about them, most telling first.
Causes = tuple[tuple[str, str], ...]

NO_IMAGE = (
    r"manifest unknown|manifest for .* not found|pull access denied|repository does not exist|name unknown|"
    r"no basic auth credentials|response.*: (denied|unauthorized)|failed to resolve reference|error pulling image"
)
TIMEOUTS = (
    r"i/o timeout|dial tcp|deadline exceeded|tls handshake|network is unreachable|no route to host|"
    r"request canceled while waiting for connection"
)
#: The exit codes that say why: the runtime's own, and what a killed process has.
TOLD = {*REASONS, 137} - {0}
#: How systemd says with which code the first process of our container ended.
STATUS = re.compile(r"(?:status=|exit(?:ed with)? (?:code|status) )(\d+)")


def causes(*, no_route: str, pull: str, image: str, more: Sequence[tuple[str, str]]) -> Causes:
    """What a container engine's and a runtime's lines mean on a cloud.

    Parameters
    ----------
    no_route, pull
        What to do when nothing can be reached, and when the image cannot be had.
    image
        What the cloud's option of a machine image is called.
    more
        What only this cloud says.
    """
    return (
        (
            r"exec format error|does not match the (specified|detected) (host )?platform|no matching manifest",
            "The image does not have the machines' architecture: pass architecture= the other, or another image.",
        ),
        (r"toomanyrequests|pull rate limit", "The registry limits anonymous pulls: use a copy of yours."),
        (r"no space left on device", "The image does not fit: pass disk_size= more."),
        (TIMEOUTS, no_route),
        (NO_IMAGE, pull),
        (
            r"no environment could be made of lock=",
            "Its console says what uv could not install: make the lock again for Linux and for this Python.",
        ),
        (
            r"docker: (command )?not found|docker\.service (not found|does not exist)",
            f"The machine image has no container engine: pass another {image}=, or none.",
        ),
        *more,
        (r"could not select device driver|nvidia-container", f"The {image}= has no drivers for GPUs."),
    )


def diagnosis(
    machine: Machine,
    logs: str,
    known: Causes,
    because: Callable[[str], tuple[type[CloudError], str] | None],
    cloud: str,
) -> CloudError:
    """What to tell the user of a machine that ended before Dask answered on it.

    Parameters
    ----------
    machine, logs
        Which, and its last lines.
    known
        What lines mean.
    because
        What the cloud's own reasons mean.
    cloud
        Its name.
    """
    why = machine.reason or f"{cloud} gave no reason"
    codes = [int(status) for status in STATUS.findall(logs)]
    if said := [explain(number) for number in codes if number in TOLD]:
        why = f"{why}; {said[-1]}"
    what = f"The {machine.role} {machine.id} ended before Dask answered on it: {why.rstrip('.')}."
    for pattern, advice in known:
        if re.search(pattern, logs, re.IGNORECASE):
            return BootError(f"{what} {advice}", logs)
    kind, advice = because(why) or (BootError, "")
    return BootError(what, logs) if kind is BootError else kind(f"{what} {advice}")
