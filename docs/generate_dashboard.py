"""Write `docs/dashboard.png` from a cluster on the embedded AWS: `python docs/generate_dashboard.py [WIDTH [FILE]]`.

Needs Chromium, which the tests drive in the same way.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloudprovider import FargateCluster
from cloudprovider.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parent
TARGET = DOCS / "dashboard.png"
sys.path.insert(0, str(DOCS.parent / "tests"))
from browsing import chromium  # type: ignore[import-not-found]  # noqa: E402

WIDTH, HEIGHT = 1100, 900
WAIT_S = 90.0
#: Opens the last words of the last machine that died, in the shadow tree where Bokeh draws; comes to the page's end.
OPENED = """
(() => {
  const within = node => [node, ...(node.shadowRoot ? within(node.shadowRoot) : []), ...[...node.children].flatMap(within)];
  const nodes = within(document.body);
  nodes.find(node => node.nodeName === "DETAILS").open = true;
  return Math.max(...nodes.filter(node => node.nodeName === "DETAILS").map(node => node.getBoundingClientRect().bottom));
})()
"""


async def picture(link: str, width: int, profile: Path) -> bytes:
    """The page as it is at this width, from top to bottom."""
    async with chromium(profile) as browser:
        await browser.size(width, HEIGHT)
        await browser.open(link)
        await browser.text(until="last words")
        for _ in range(2):  # what was far below is drawn when it can be seen
            await browser.size(width, int(await browser.run(OPENED)) + 20)
            await asyncio.sleep(1)
        drawn: bytes = await browser.picture()
        return drawn


def wait(what: str, there: Callable[[], object]) -> None:
    """Until it is there."""
    deadline = time.monotonic() + WAIT_S
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {WAIT_S:.0f} s")
        time.sleep(0.2)


def main(width: int = WIDTH, target: Path = TARGET) -> None:
    """Draw a spot fleet, of which one machine is taken and one dies."""
    os.environ["LOGNAME"] = "me"
    with (
        Emulator("aws", profile="fargate", time_scale=0.1) as cloud,
        cloud.active(),
        FargateCluster(n_workers=4, spot="fallback", name="nightly", progress=False) as cluster,
    ):
        cluster.wait_for_workers(4, timeout=WAIT_S)
        taken, _, dying, *_ = cluster.fleet.machines
        cloud.interrupt(taken)
        wait("the spot machine is gone", lambda: taken in cluster.fleet.ended)
        cloud.kill(dying)
        wait("the machine is known to be dead", lambda: dying in cluster.fleet.ended)
        cluster.wait_for_workers(4, timeout=WAIT_S)
        link = cluster.dashboard_link.rpartition("/")[0] + "/cloud"
        with tempfile.TemporaryDirectory() as profile:
            target.write_bytes(asyncio.run(picture(link, width, Path(profile))))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else WIDTH, Path(arguments[1]) if arguments[1:] else TARGET)
