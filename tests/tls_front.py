"""A front as machines run one, in a few lines: mutual TLS, and a loopback port chosen by the name asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import weakref
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def machine_context(secret: str, folder: Path) -> ssl.SSLContext:
    """The machine's side of mutual TLS."""
    parts = json.loads(secret)
    for name in ("cert", "key"):
        (folder / name).write_text(parts[name])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    context.load_verify_locations(cadata=parts["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Front:
    """Relays to `ports[name]` what asks for `name`, and ends what asks for another."""

    def __init__(self, ports: Mapping[str, int], secret: str, folder: Path) -> None:
        self.ports = ports
        self.accepted = 0
        self._asked: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._context = machine_context(secret, folder)
        self._context.sni_callback = lambda tls, name, _: self._asked.update({tls: name or ""})
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        while self._tasks:
            await self.drop()

    async def drop(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._tasks.add(task := asyncio.current_task())
        try:
            if not self._server.is_serving():  # it was accepted while the server closed
                return
            name = self._asked.get(writer.get_extra_info("ssl_object"), "").partition(".")[0]
            if (port := self.ports.get(name or "dashboard")) is not None:
                await self._relay(reader, writer, port)
        except asyncio.CancelledError:
            pass
        finally:
            await _closed(writer)
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        page_reader, page_writer = await asyncio.open_connection("127.0.0.1", port)
        pumps = {
            asyncio.ensure_future(_pump(reader, page_writer)),
            asyncio.ensure_future(_pump(page_reader, writer)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await _closed(page_writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), 2)
