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

#: How often the cloud is asked, in seconds, unless the environment says otherwise: AWS advises every 5.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
POLL, POLL_S = "DASK_CLOUD_POLL_S", 5.0
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


async def watch(environ: Mapping[str, str], heed: Callable[[Notice], None]) -> None:
    """Ask for notices until cancelled, and pass on each once; nothing where there are none to be had."""
    look = SOURCES.get(environ.get(METADATA, ""))
    if look is None:
        return
    ask = look(environ)
    seen: set[str] = set()
    poll_s = float(environ.get(POLL) or POLL_S)
    while True:
        with contextlib.suppress(OSError, ValueError):  # the next look may find it well again
            for notice in await asyncio.to_thread(ask):
                if notice.words not in seen:
                    heed(notice)
                seen.add(notice.words)
        await asyncio.sleep(poll_s)


def of_ec2(environ: Mapping[str, str]) -> Callable[[], list[Notice]]:
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

    return look


def _left(moment: str) -> float:
    return datetime.strptime(moment.replace("Z", "+0000"), "%Y-%m-%dT%H:%M:%S%z").timestamp() - time.time()


SOURCES = {"ec2": of_ec2}
