"""Stands in for AWS's `session-manager-plugin`: its command line, its words, its signals, and real TCP.

Instead of a data channel to an agent it connects to the host and port that the session was started for: from
the network of the session's machine where the emulated cloud has such, else from here. https://github.com/aws/session-manager-plugin says what the arguments are: the session (or the name of
the environment variable that holds it), region, operation, profile, request, endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import urllib.request
from pathlib import Path

VERSION = os.environ.get("PLUGIN_VERSION", "1.2.707.0")


def install(folder: Path) -> None:
    """Put the stand-in where PATH can name it."""
    program = folder / "session-manager-plugin"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)


def network_of(endpoint: str, session: str) -> str:
    """The file that is the network of a session's machine; empty for this one."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{endpoint}/_cloud/sessions/{session}") as told,
    ):
        return json.load(told)["network"]
    return ""


def dial(network: str, host: str, port: int) -> socket.socket:
    """A connection to a machine from within its network."""
    connected = []

    def there() -> None:
        with open(network) as file:  # noqa: PTH123
            if ctypes.CDLL(None).setns(file.fileno(), 0):
                return
        with contextlib.suppress(OSError):
            connected.append(socket.create_connection((host, port), 10))

    thread = threading.Thread(target=there)
    thread.start()
    thread.join()
    if not connected:
        raise ConnectionRefusedError(host)
    connected[0].setblocking(False)
    return connected[0]


async def forward(request: dict[str, dict[str, list[str]]], session: dict[str, str], endpoint: str) -> None:
    """Relay the local port until a signal comes."""
    network = network_of(endpoint, session["SessionId"])
    parameters = {name: values[0] for name, values in request["Parameters"].items()}
    host, port = parameters.get("host", "127.0.0.1"), int(parameters["portNumber"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if network:
                sock = await asyncio.to_thread(dial, network, host, port)
                far_reader, far_writer = await asyncio.open_connection(sock=sock)
            else:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(parameters["localPortNumber"]))
    say(f"\nStarting session with SessionId: {session['SessionId']}\n")
    say(f"Port {parameters['localPortNumber']} opened for sessionId {session['SessionId']}.")
    say("\nWaiting for connections...\n")
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):  # SIGTERM is none of the plugin's
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        await ended.wait()
    say(
        f"Terminate signal received, exiting.\n\n\nExiting session with sessionId: {session['SessionId']}.\n\n"
    )
    sys.stdout.flush()
    os._exit(0)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, then its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    if not arguments:
        say(
            "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n"
        )
    elif arguments == ["--version"]:
        say(f"{VERSION}\n")
    elif len(arguments) != 6 or arguments[2] != "StartSession":
        say("Invalid Operation")
    else:
        session = json.loads(os.environ.get(arguments[0], "") or arguments[0])
        if not all(session[key] for key in ("SessionId", "TokenValue", "StreamUrl")):
            say("Cannot perform start session: incomplete\n")
            return
        asyncio.run(forward(json.loads(arguments[4]), session, arguments[5]))


if __name__ == "__main__":
    main(sys.argv[1:])
