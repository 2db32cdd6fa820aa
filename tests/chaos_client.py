"""A client in whose cluster's life something goes wrong: each is a fork of one process that has all imported.

It starts a cluster, has it hold results, scales it up and down and closes it. Before each phase it waits for a
word from who watches it. It counts its own calls by Python's audit events, and can die at any one of them.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import cloudprovider.cluster
import cloudprovider.dashboard
import cloudprovider.security  # noqa: F401
from cloudprovider import CloudError
from cloudprovider.discovery import CLOUDS, cluster_class

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["GROUP", "PHASES", "clients", "live"]

PHASES = ("start", "scale", "close")
#: What is computed and held: by one worker, and by two before one of them leaves.
KEPT, MOVED = list(range(3)), list(range(10, 18))
#: Seconds that a result, and a worker, may take to come.
PATIENCE_S = 60.0
#: What a vendor's clients import.
SDKS = {
    "aws": ("boto3",),
    "gcp": ("google.cloud.compute_v1", "google.auth.transport.requests"),
    "azure": (
        "azure.identity",
        *(
            f"azure.mgmt.{name}"
            for name in ("authorization", "compute", "keyvault", "msi", "network", "resource")
        ),
    ),
}
#: The kernel tells the packets of clients by this group.
GROUP = 12345


class Calls:
    """Sees each call of this process, and ends the process at one of them.

    Parameters
    ----------
    events
        What Python's audit events call a call.
    phase, at
        At which call of which phase it dies, counted from 1; 0 is none.
    late_s
        Seconds after that call was begun, when it may have had its effect.
    """

    def __init__(self, events: list[str], phase: str = "", at: int = 0, late_s: float = 0.0) -> None:
        self.events, self.wanted, self.at, self.late_s = frozenset(events), phase, at, late_s
        self.phase = ""
        self.seen: dict[str, list[str]] = {phase: [] for phase in PHASES}

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See one audit event."""
        if event not in self.events or not self.phase:
            return
        if event != "http.client.send":
            self._count(event)
        elif isinstance(data := arguments[1], bytes) and b" HTTP/1.1\r\n" in data[:4096]:
            self._count(_label(data))

    def _count(self, label: str) -> None:
        made = self.seen[self.phase]
        made.append(label)
        if self.phase != self.wanted or len(made) != self.at:
            return
        if self.late_s:
            threading.Timer(self.late_s, die).start()
        else:
            die()

    def enter(self, phase: str) -> None:
        """Count for the next phase; who was to die in the last one does so now."""
        if self.at and self.phase and self.phase == self.wanted:
            die()
        self.phase = phase


def _label(request: bytes) -> str:
    """What a request is called: its action where a header says it, else its method and path."""
    head, *lines = request.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "x-amz-target":
            return value.strip().rpartition(".")[2]
    method, path, _ = head.split(" ", 2)
    return f"{method} {path.partition('?')[0]}"


def die() -> None:
    """End this process as it is."""
    os.kill(os.getpid(), signal.SIGKILL)


class Life:
    """A cluster's life, told to who watches it.

    Parameters
    ----------
    order
        `cloud`, `options`, and of its `Calls`: `events`, `phase`, `at`, `late_s`; `returns` for one who comes
        back to a cluster that is there.
    line
        Where it is told.
    """

    def __init__(self, order: dict[str, Any], line: Connection) -> None:
        self.order, self.line = order, line
        self.calls = Calls(
            order["events"], order.get("phase", ""), order.get("at", 0), order.get("late_s", 0)
        )
        self.results = ""
        self.cluster: Any = None

    def lead(self) -> None:
        """From the first call to the last."""
        self._enter("start")
        options = self.order["options"]
        self.cluster = cluster_class(self.order["cloud"])(**options)
        self.cluster.wait_for_workers(options["n_workers"], timeout=PATIENCE_S)
        with self.cluster.get_client() as client:
            client.publish_dataset(kept=client.scatter(KEPT, hash=False))
            self._enter("scale")
            self._scale(client, options["n_workers"])
            self._enter("close")
            self.cluster.close()
        self.calls.enter("")

    def _scale(self, client: Any, n_workers: int) -> None:
        """To one worker more, which holds some results, and back to what there was."""
        self.results = "not reached"
        self.cluster.scale(n_workers + 1)
        self.cluster.wait_for_workers(n_workers + 1, timeout=PATIENCE_S)
        moved = client.scatter(MOVED, hash=False)
        client.publish_dataset(moved=moved)
        self.cluster.scale(n_workers)
        self.results = self._collected(client)

    def come_back(self) -> None:
        """Find the cluster that another client left, and what it holds."""
        name = self.order["options"]["name"]
        self.results = "not reached"
        self.cluster = cluster_class(self.order["cloud"]).from_name(name, progress=False)
        with self.cluster.get_client() as client:
            self.results = self._collected(client)
        self.cluster.detach()

    def _collected(self, client: Any) -> str:
        """Whether every published result is there: `kept`, or what is not."""
        wanted = {"kept": KEPT, "moved": MOVED}
        for name in client.list_datasets():
            futures = client.get_dataset(name)
            found = [self._result(future) for future in futures]
            if wanted[name] != found:
                return f"lost: {name} is {found}"
        return "kept"

    @staticmethod
    def _result(future: Any) -> Any:
        try:
            return future.result(timeout=PATIENCE_S)
        except Exception as error:  # noqa: BLE001  (whichever it is, the result is not there)
            return f"{type(error).__name__}: {error}"

    def _enter(self, phase: str) -> None:
        self.calls.enter(phase)
        self.line.send({"phase": phase})
        self.line.recv()


def become(order: dict[str, Any]) -> None:
    """Be a process of its own: environment, and the group by which the kernel knows clients."""
    os.environ.clear()
    os.environ.update(order["environ"])
    if order.get("group"):
        os.setgid(order["group"])


def live(order: dict[str, Any], line: Connection) -> None:
    """A life, and what came of it."""
    become(order)
    life = Life(order, line)
    calls = life.calls
    sys.addaudithook(calls)
    error, foreign = "", ""
    begun = time.monotonic()
    try:
        life.come_back() if order.get("returns") else life.lead()
    except (CloudError, OSError) as refused:  # the second is Dask's, of a scheduler that is gone
        error = f"{type(refused).__name__}: {refused}"
    except Exception:  # noqa: BLE001  (the suite says that it is none of ours)
        foreign = traceback.format_exc()
    if calls.wanted == calls.phase and calls.at:
        die()
    atexit._run_exitfuncs()  # type: ignore[attr-defined]  # a fork of multiprocessing's runs none
    said = {"error": error, "foreign": foreign, "results": life.results, "calls": calls.seen}
    line.send({"done": {**said, "seconds": time.monotonic() - begun}})


def clients(vendor: str = "") -> Any:
    """What starts clients, as `multiprocessing` does, from a process that has imported what they take.

    Parameters
    ----------
    vendor
        Whose SDK it has imported as well; the first answer in a process counts.
    """
    context = multiprocessing.get_context("forkserver")
    modules = sorted({row.module for row in CLOUDS.values()})
    context.set_forkserver_preload(["chaos_client", *modules, *SDKS.get(vendor, ())])
    return context
