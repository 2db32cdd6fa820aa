"""What the cloud says of this machine's end before it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cloudruntime.identity import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Notice", "watch"]

#: How often the cloud is asked, in seconds, unless the environment says otherwise: AWS advises every 5, Azure every
#: second, as it leaves a machine 30, and so does Compute Engine.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
# https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events#polling-frequency
POLL, POLL_S = "DASK_CLOUD_POLL_S", {"ec2": 5.0, "gce": 1.0, "azure": 1.0}
#: How long a machine may take to empty itself when it is only at risk.
AT_RISK_S = 600.0
INTERRUPTION = "meta-data/spot/instance-action"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
REBALANCE = "meta-data/events/recommendations/rebalance"


@dataclass(frozen=True)
class Notice:
    """The cloud is about to take this machine, or may be.

    Parameters
    ----------
    words
        What the cloud says.
    left_s
        Seconds until then, as far as the machine should use them.
    """

    words: str
    left_s: float


if TYPE_CHECKING:
    #: What asks for notices, and what is told that the machine is ready for what was announced.
    Source = tuple[Callable[[], list[Notice]], Callable[[], None]]


async def watch(environ: Mapping[str, str], heed: Callable[[Notice], None]) -> None:
    """Ask for notices until cancelled, when the machine is ready; pass on each once, where there are any to be had."""
    cloud = environ.get(METADATA, "")
    if cloud not in SOURCES:
        return
    look, over = SOURCES[cloud](environ)
    seen: set[str] = set()
    poll_s = float(environ.get(POLL) or POLL_S[cloud])
    try:
        while True:
            with contextlib.suppress(OSError, ValueError):  # the next look may find it well again
                for notice in await asyncio.to_thread(look):
                    if notice.words not in seen:
                        heed(notice)
                    seen.add(notice.words)
            await asyncio.sleep(poll_s)
    finally:
        over()


def of_ec2(environ: Mapping[str, str]) -> Source:
    """Asks EC2's metadata service."""
    from cloudruntime.aws import Metadata

    service = Metadata(environ)

    def look() -> list[Notice]:
        found = []
        if text := service.get(INTERRUPTION):
            said = json.loads(text)
            found.append(
                Notice(f"spot interruption: {said['action']} at {said['time']}", _left(said["time"]))
            )
        elif text := service.get(REBALANCE):
            found.append(Notice(f"rebalance recommendation of {json.loads(text)['noticeTime']}", AT_RISK_S))
        return found

    return look, lambda: None


def of_gce(environ: Mapping[str, str]) -> Source:
    """Asks Compute Engine's metadata service."""
    from cloudruntime import gce

    look = gce.looks(environ)
    return lambda: [Notice(*said) for said in look()], lambda: None


def of_azure(environ: Mapping[str, str]) -> Source:
    """Asks Azure's metadata service for scheduled events."""
    from cloudruntime import azure

    events = azure.Events(environ)
    return lambda: [Notice(*said) for said in events.look()], events.over


def _left(moment: str) -> float:
    return datetime.strptime(moment.replace("Z", "+0000"), "%Y-%m-%dT%H:%M:%S%z").timestamp() - time.time()


SOURCES = {"ec2": of_ec2, "gce": of_gce, "azure": of_azure}
