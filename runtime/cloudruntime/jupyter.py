"""Jupyter beside the scheduler: a process of its own, on the machine's loopback, never without a token.

(`dask scheduler --jupyter` starts it inside the scheduler with an empty token.)
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cloudruntime.child import die_with

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from cloudruntime.child import Site
    from cloudruntime.secrets import Keys

__all__ = ["BASE", "Jupyter", "available", "config", "environment"]

#: Where Jupyter is, under the front's name `jupyter`.
BASE = "/jupyter/"

POLL_S, PAUSE_S, START_S, STOP_S = 0.25, 5.0, 60.0, 5.0


def available() -> bool:
    """Whether this image has a Jupyter server."""
    return find_spec("jupyter_server") is not None


def config(port: int, token: str, *, lab: bool, root: bool) -> dict[str, Any]:
    """Jupyter's configuration; a file holds it, since arguments and environments can be seen.

    Parameters
    ----------
    port
        Where it listens on loopback.
    token
        What it asks of who comes.
    lab
        Whether JupyterLab is there.
    root
        Whether this process runs as root.
    """
    server: dict[str, Any] = {
        "ip": "127.0.0.1",
        "port": port,
        "port_retries": 0,
        "open_browser": False,
        "base_url": BASE,
        "allow_root": root,
    }
    if lab:
        server |= {"default_url": "/lab", "jpserver_extensions": {"jupyterlab": True}}
    return {"ServerApp": server, "IdentityProvider": {"token": token}}


def environment(scheduler: str, keys: Keys) -> dict[str, str]:
    """What makes `Client()` in a notebook find this scheduler."""
    tls = {"CA_FILE": keys.ca, "CLIENT__CERT": keys.cert, "CLIENT__KEY": keys.key}
    return {
        "DASK_SCHEDULER_ADDRESS": scheduler,
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        **{f"DASK_DISTRIBUTED__COMM__TLS__{name}": path for name, path in tls.items()},
    }


class Jupyter:
    """The Jupyter of one machine.

    Parameters
    ----------
    site
        What the machine is; its keys hold the token.
    keys
        Those keys.
    pages
        Where to note its port, under `jupyter`, while it serves and asks for its token.
    say
        Writes a line in the machine's log.
    """

    def __init__(self, site: Site, keys: Keys, pages: MutableMapping[str, int], say: Any) -> None:
        self._site = site
        self._keys = keys
        self._pages = pages
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self, scheduler: str) -> None:
        """Keep Jupyter up until this is cancelled."""
        environ = {**os.environ, **self._site.boot.environment, **environment(scheduler, self._keys)}
        while True:
            try:
                ended = await self._once(_free_port(), environ)
            finally:
                self.stop()
            self._say(f"Jupyter {ended}; it starts again")
            await asyncio.sleep(PAUSE_S)

    @property
    def pid(self) -> int | None:
        """Its process id, once it has one."""
        return self._process.pid if self._process else None

    async def _once(self, port: int, environ: Mapping[str, str]) -> str:
        """Serve until the process ends, or lets in who has no token; say which."""
        self._process = self._start(port, environ)
        if await self._guarded(port):
            self._pages["jupyter"] = port
            self._say("Jupyter serves")
            await self._wait(self._process)
        code = self._process.poll()
        return "does not ask for its token" if code is None else f"ended with code {code}"

    def stop(self) -> None:
        """End Jupyter and its kernels."""
        self._pages.pop("jupyter", None)
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, port: int, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        path = os.path.join(os.path.dirname(self._keys.ca), "jupyter.json")  # noqa: PTH118, PTH120
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        settings = config(port, self._keys.token, lab=find_spec("jupyterlab") is not None, root=root)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(settings, file)
        return subprocess.Popen(
            [sys.executable, "-m", "cloudruntime.jupyter", f"--config={path}"], env=environ
        )

    async def _guarded(self, port: int) -> bool:
        """Wait until it serves; whether it refuses who has no token."""
        for _ in range(round(START_S / POLL_S)):
            if self._process is None or self._process.poll() is not None:
                return False
            status = await _status(port)
            if status:
                return status in {401, 403}
            await asyncio.sleep(POLL_S)
        return False

    async def _wait(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:  # noqa: ASYNC110  (its end is no event everywhere)
            await asyncio.sleep(POLL_S)


async def _status(port: int) -> int:
    """What Jupyter answers to who has no token; 0 while it does not answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        writer.write(f"GET {BASE}api/status HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), START_S)
        return int(line.split()[1])
    except (OSError, ValueError, IndexError, asyncio.TimeoutError):
        return 0
    finally:
        writer.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    die_with(os.getppid())
    from jupyter_server.serverapp import main

    main()
