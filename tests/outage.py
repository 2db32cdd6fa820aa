"""A client that loses its network for a while, in a network namespace of its own.

Run as ``python outage.py PATIENCE CUT FOLDER SECRETS``; prints JSON on what became of the client's work.
Two clients compute over TLS; one has `PATIENCE` seconds, the other fewer than the network is away for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import dask
from distributed import Client, Scheduler, Worker

from cloudprovider.access import patient
from cloudprovider.security import client_security

HERE = "tls://127.0.0.1:8786"
FAR = "tls://127.0.0.9:8786"  # what the clients use, so that the worker keeps its own connection
IMPATIENT_S = 3
WALL = """
add table inet outage
add chain inet outage input { type filter hook input priority 0; }
add rule inet outage input ip daddr 127.0.0.9 drop
add rule inet outage input ip saddr 127.0.0.9 drop
"""


def note(path: str) -> str:
    """Work that leaves a trace each time it is done."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("done\n")
    return path


async def serve(secrets: dict[str, str]) -> None:
    """A scheduler and a worker whose connections survive a minute, until standard input closes."""
    from test_security import machine_security

    security = machine_security(secrets["machine"])
    with dask.config.set({"distributed.comm.timeouts.tcp": "60s"}):
        async with (
            Scheduler(
                host="0.0.0.0",
                port=8786,
                protocol="tls://",
                security=security,
                dashboard=False,
                dashboard_address="127.0.0.1:0",
            ),
            Worker(HERE, host="127.0.0.1", security=security, nthreads=1),
        ):
            sys.stdout.write("up\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


async def outage(patience: float, cut: float, folder: Path, secrets: dict[str, str]) -> dict[str, object]:
    """What two clients have after their network was away."""
    security = client_security(secrets["client"])
    async with contextlib.AsyncExitStack() as stack:
        clients, futures = {}, {}
        for name, seconds in (("patient", patience), ("impatient", IMPATIENT_S)):
            client = await stack.enter_async_context(Client(FAR, security=security, asynchronous=True))
            futures[name] = client.submit(note, str(folder / name), pure=False)
            await futures[name]
            patient(client.scheduler_comm.comm, seconds)
            clients[name] = client
        wall("\n".join(WALL.splitlines()))
        start = time.monotonic()
        await asyncio.sleep(cut)
        wall("delete table inet outage")
        answer = await asyncio.wait_for(asyncio.shield(clients["patient"].submit(len, "net")), patience)
        return {
            "answer": answer,
            "away": round(time.monotonic() - start, 1),
            "status": {name: future.status for name, future in futures.items()},
            "result": Path(await futures["patient"]).name,
            "done": {name: len((folder / name).read_text().split()) for name in futures},
        }


def wall(rules: str) -> None:
    """Change what the kernel lets through."""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve(json.loads(Path(sys.argv[2]).read_text())))
        return
    patience, cut, folder, secrets = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    command = [sys.executable, __file__, "serve", secrets]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            keys = json.loads(Path(secrets).read_text())
            report = asyncio.run(outage(float(patience), float(cut), Path(folder), keys))
            sys.stdout.write(json.dumps(report))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
