"""What the supervisor and its Dask process say to each other: lines of JSON over a socket."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

__all__ = ["Channel"]

LIMIT = 1 << 22


class Channel:
    """One end of the line. When it closes, the other side is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """Speak over a connected stream socket."""
        return cls(*await asyncio.open_connection(sock=sock, limit=LIMIT))

    def say(self, **message: Any) -> None:
        """Send a message; what a vanished other side does not hear is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the other side is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    async def close(self) -> None:
        """Send what is left, then close."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass
