"""Stands in for Google's `gcloud compute start-iap-tunnel`: its command line, its words, its signals, and real TCP.

Instead of Identity-Aware Proxy it connects to the machine's private address, which it asks Compute Engine for as
gcloud does. https://cloud.google.com/sdk/gcloud/reference/compute/start-iap-tunnel
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def install(folder: Path) -> None:
    """Put the stand-in where PATH can name it."""
    program = folder / "gcloud"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)


def address(project: str, zone: str, instance: str) -> str:
    """The machine's private address."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    where = os.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"].rstrip("/")
    answer = AuthorizedSession(credentials).get(
        f"{where}/projects/{project}/zones/{zone}/instances/{instance}"
    )
    answer.raise_for_status()
    return answer.json()["networkInterfaces"][0]["networkIP"]


async def carry(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection's bytes."""
    try:
        far_reader, far_writer = await asyncio.open_connection(host, port)
    except OSError:
        say("ERROR: (gcloud.compute.start-iap-tunnel) While checking if a connection can be made")
        writer.close()
        return

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


async def main() -> None:
    """Listen until a signal."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
    if words[:2] != ["compute", "start-iap-tunnel"]:
        sys.exit("ERROR: (gcloud) Invalid choice")
    instance, port = words[2], int(words[3])
    host = address(options["project"], options["zone"], instance)
    local = int(options["local-host-port"].rpartition(":")[2])
    server = await asyncio.start_server(lambda *pair: carry(host, port, *pair), "127.0.0.1", local)
    say("Testing if tunnel connection works.")
    say(f"Listening on port [{local}].")
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with server:
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main())
