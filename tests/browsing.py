"""A real headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

from tornado import websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHROMIUM = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
)
#: Text of a page with what lies in shadow trees, where Bokeh draws.
TEXT = """
(() => {
  const read = node => node.nodeType === Node.TEXT_NODE ? node.data + "\\n"
    : ["SCRIPT", "STYLE"].includes(node.nodeName) ? ""
    : [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(read).join("");
  return read(document.body);
})()
"""


class Browser:
    """One tab."""

    def __init__(self, connection: websocket.WebSocketClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": parameters, **self._session}
        await self._connection.write_message(json.dumps(call))
        while True:
            message = await asyncio.wait_for(self._connection.read_message(), 20)
            if message is None:
                raise ConnectionError(f"Chromium went away during {method}")
            answer = json.loads(message)
            if answer.get("id") == number:
                return answer.get("result", {})

    async def open(self, url: str) -> None:
        """Go to a page."""
        if not self._session:
            tab = await self._call("Target.createTarget", url="about:blank")
            attached = await self._call("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
            self._session = {"sessionId": attached["sessionId"]}
        await self._call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """What a script in the page comes to; promises are awaited."""
        answer = await self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return answer.get("result", {}).get("value")

    async def size(self, width: int, height: int) -> None:
        """Give the page the width and height of a screen; one as narrow as a phone's is a phone's."""
        phone = width < 600
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    async def picture(self) -> bytes:
        """What the screen shows, as PNG."""
        answer = await self._call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def text(self, *, until: str, within: float = 30) -> str:
        """What the page shows, once it shows `until`, or at the deadline."""
        deadline = time.monotonic() + within
        while True:
            text = str(await self.run(TEXT))
            if until in text or time.monotonic() > deadline:
                return text
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """A Chromium of its own, with everything it starts ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        address = await asyncio.wait_for(_devtools(process), 60)
        draining = asyncio.ensure_future(_drain(process))
        connection = await websocket.websocket_connect(address, max_message_size=1 << 26)
        try:
            yield Browser(connection)
            await connection.write_message(json.dumps({"id": 0, "method": "Browser.close"}))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_ended(connection), 5)
        finally:
            connection.close()
            draining.cancel()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def _ended(connection: websocket.WebSocketClientConnection) -> None:
    """Read until the other end has closed, which closes this one too."""
    while await connection.read_message() is not None:
        pass


async def _devtools(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    lines = []
    async for line in process.stderr:
        lines.append(line.decode(errors="replace"))
        if lines[-1].startswith("DevTools listening on "):
            return lines[-1].removeprefix("DevTools listening on ").strip()
    raise RuntimeError("Chromium did not start:\n" + "".join(lines))


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(1 << 16):
        pass
