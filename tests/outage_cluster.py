"""A cluster whose client loses its network for a while, in a network namespace of its own.

Run as ``python outage_cluster.py SCENARIO FOLDER``; prints what came of it as JSON. The client reaches the
scheduler at an address that machines do not use: a wall in front of it cuts off the client alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from contract import until
from distributed import Client, fire_and_forget
from outage import wall

from cloudprovider.access import admitted
from cloudprovider.cluster import CloudCluster
from cloudprovider.errors import AccessError
from cloudprovider.events import Phase
from cloudprovider.providers.local import LocalConfig, LocalProvider

FAR = "20.0.0.9"  # a public address, here on loopback
OLD, OWN = "203.0.113.7", "198.51.100.4"
WALL = f"""
add table inet outage
add chain inet outage input {{ type filter hook input priority 0; }}
add rule inet outage input ip daddr {FAR} drop
add rule inet outage input ip saddr {FAR} drop
"""
NO_WALL = "delete table inet outage"


class FarProvider(LocalProvider):
    """Machines here that are reached from outside at an address of their own."""

    def create(self, boot, count):
        created = super().create(boot, count)
        return dataclasses.replace(created, machines=tuple(map(far, created.machines)))

    def describe(self, ids):
        return [far(machine) for machine in super().describe(ids)]

    def allow(self, sources):
        """Whose rules are kept: by a wall in front of those that are not admitted."""
        if admitted(OWN, sources):
            wall(NO_WALL)


def far(machine):
    return dataclasses.replace(machine, public_address=FAR)


class FarCluster(CloudCluster):
    """A cluster of such machines."""

    config_class = LocalConfig
    provider_class = FarProvider


def made(folder: Path, **options) -> FarCluster:
    return FarCluster(
        n_workers=2,
        worker_nthreads=2,
        directory=str(folder / "cluster"),
        scheduler_options={"host": "0.0.0.0"},
        progress=False,
        **options,
    )


def note(path: str, seconds: float = 0.0) -> str:
    """Work that takes its time, and leaves a trace each time it is done."""
    time.sleep(seconds)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("done\n")
    return path


def done(folder: Path, name: str) -> int:
    """How often that work was done."""
    path = folder / name
    return len(path.read_text().split()) if path.exists() else 0


def said(cluster) -> list[str]:
    return [event.message for event in cluster.events.of(Phase.network)]


def short(folder: Path) -> dict[str, object]:
    """The network is away for less than `network_timeout`."""
    with made(folder, network_timeout="15s") as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        machines = sorted(cluster.workers)
        before = client.submit(note, str(folder / "before"), pure=False)
        during = client.submit(note, str(folder / "during"), 1.5, pure=False)
        before.result()
        time.sleep(2.5)  # the manager has seen to the connections
        wall(WALL)
        asked = client.submit(note, str(folder / "asked"), pure=False)
        time.sleep(6)
        came = asked.done()
        wall(NO_WALL)
        results = [Path(future.result(timeout=20)).name for future in (before, during, asked)]
        same = machines == sorted(cluster.workers)
        cluster.scale(3)
        cluster.wait_for_workers(3, timeout=30)
        return {
            "came through the wall": came,
            "results": results,
            "done": [done(folder, name) for name in results],
            "same machines": same,
            "lost": len(cluster.events.of(Phase.lost)),
            "said": said(cluster),
        }


def long(folder: Path) -> dict[str, object]:
    """The network is away for longer than `network_timeout`."""
    with made(folder, network_timeout="3s") as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        machines = sorted(cluster.workers)
        client.publish_dataset(kept=client.submit(note, str(folder / "published"), pure=False))
        plain = client.submit(note, str(folder / "plain"), pure=False)
        fire_and_forget(client.submit(note, str(folder / "forgotten"), 5, pure=False))
        plain.result()
        time.sleep(2.5)
        wall(WALL)
        until(lambda: not cluster.sees, 15, "the manager notices")
        noticed = time.monotonic()
        until(lambda: plain.status == "cancelled", 15, "the client notices")
        time.sleep(max(0.0, 3 - (time.monotonic() - noticed)))
        wall(NO_WALL)
        until(lambda: cluster.sees and client.status == "running", 30, "both are back")
        until(lambda: len(said(cluster)) > 1, 10, "what survived is said")
        report = {
            "published": Path(client.get_dataset("kept").result(timeout=20)).name,
            "plain": error_of(plain),
            "same machines": machines == sorted(cluster.workers),
        }
        until(lambda: done(folder, "forgotten"), 20, "what was forgotten is done")
        cluster.scale(3)
        cluster.wait_for_workers(3, timeout=30)
        cluster.scale(1)
        until(lambda: len(cluster.scheduler_info["workers"]) == 1, 20, "the manager sees workers go")
        return {
            **report,
            "done": [done(folder, name) for name in ("published", "plain", "forgotten")],
            "lost": len(cluster.events.of(Phase.lost)),
            "said": said(cluster),
        }


def closed(folder: Path) -> dict[str, object]:
    """The cluster is closed while the network is away, noticed or not."""
    seconds = []
    for noticed in (False, True):
        cluster = made(folder, network_timeout="3s")
        cluster.wait_for_workers(2, timeout=60)
        time.sleep(2.5)
        wall(WALL)
        if noticed:
            until(lambda cluster=cluster: not cluster.sees, 15, "the manager notices")
        start = time.monotonic()
        cluster.close()
        seconds.append(time.monotonic() - start)
        wall(NO_WALL)
    return {"seconds": seconds, "left": [path.name for path in (folder / "cluster").iterdir()]}


def moved(folder: Path) -> dict[str, object]:
    """The client has another address than the cluster's rules admit, at the start and later."""
    with echo():
        wall(WALL)
        try:
            made(folder, allow_from=OLD, start_timeout="6s")
        except AccessError as error:
            start = str(error)
        wall(NO_WALL)
        with made(folder, allow_from=OLD, network_timeout="3s") as cluster:
            cluster.wait_for_workers(2, timeout=60)
            time.sleep(2.5)
            wall(WALL)
            until(lambda: len(said(cluster)) > 1, 40, "the reason is said")
            cluster.allow()
            until(lambda: "is back" in said(cluster)[-1], 30, "the manager is back")
            return {"start": start, "said": said(cluster), "allowed": list(cluster.config.sources())}


@contextlib.contextmanager
def echo():
    """A service that tells the client its address, which is not the one the cluster knows."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(OWN.encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["DASK_CLOUD__ADDRESS_URL"] = f"http://127.0.0.1:{server.server_address[1]}/"
        yield
        server.shutdown()


def error_of(future) -> str:
    try:
        future.result(timeout=5)
    except Exception as error:  # noqa: BLE001  (whichever it is, the test reads its words)
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    scenario, folder = sys.argv[1:]
    for change in (("link", "set", "lo", "up"), ("addr", "add", f"{FAR}/32", "dev", "lo")):
        subprocess.run(["ip", *change], check=True)
    report = {"short": short, "long": long, "closed": closed, "moved": moved}[scenario](Path(folder))
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
