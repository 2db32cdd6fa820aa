"""A computation in a storm of spot interruptions, with and without notice: `python benchmarks/storm.py [--json FILE]`.

20 spot workers on the embedded cloud, real processes with real Dask in them, compute a tree of some 500 tasks over
scattered data, while a seeded storm takes one machine after the other. Once the cloud gives its notice, as AWS does
(Fargate: SIGTERM, two minutes before the end), so that machines empty themselves and are replaced before they
die; then the same storm gives none, and machines just die.

Recomputed tasks are counted by a plugin in the scheduler: each time that a task comes from processing into memory
it has been computed, and every time but the first is once too often. Dask's own events say which scattered data
it lost with a machine; the client then scatters everything again and submits everything anew.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, SchedulerPlugin
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker
from machine import add_json, described, show

import cloudprovider
from cloudprovider.emulator import Emulator
from cloudprovider.events import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.cluster import CloudCluster

#: Seconds that one run may take.
LONGEST_S = 300.0
CLUSTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "fargate": (
        "FargateCluster",
        {"worker_cpu": 0.25, "worker_memory": 0.5, "scheduler_cpu": 0.25, "scheduler_memory": 0.5},
    ),
    "ec2": ("EC2Cluster", {}),
}
#: Leaves of the tree for each scattered array, whose bytes are 100,000.
EACH, ITEMS = 8, 12_500


class Count(SchedulerPlugin):  # type: ignore[misc]
    """Counts how often each task was computed, and what scattered data was lost."""

    name = "storm-count"

    def __init__(self) -> None:
        self.computed: Counter[str] = Counter()

    async def start(self, scheduler: Any) -> None:
        """Offer the counts to the client."""
        self.scheduler = scheduler
        scheduler.handlers["storm_count"] = self.counts

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Note what happens to a task."""
        if (start, finish) == ("processing", "memory"):
            self.computed[str(key).partition("@")[0]] += 1

    async def counts(self) -> dict[str, int]:
        """What was counted until now, and what Dask itself says that it lost."""
        events = [event for _, event in self.scheduler.get_events("all")]
        removed = [event for event in events if event["action"] == "remove-worker"]
        return {
            "tasks": len(self.computed),
            "recomputed": self.computed.total() - len(self.computed),
            "lost": sum(len(event["lost-scattered-tasks"]) for event in removed),
        }


class Storm(threading.Thread):
    """Takes machines, one at a time, at random moments, until it has spent itself."""

    def __init__(
        self, cluster: CloudCluster, take: Callable[[str], None], options: argparse.Namespace
    ) -> None:
        super().__init__(name="storm", daemon=True)
        self._cluster, self._take, self._options = cluster, take, options
        self.taken: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Take machines."""
        chance = random.Random(self._options.seed)
        while len(self.taken) < self._options.interruptions:
            if self.over.wait(chance.expovariate(1 / self._options.every)):
                return
            fleet = self._cluster.fleet
            here = [id for id in fleet.staying if id not in fleet.not_arrived() and id not in self.taken]
            if len(here) > 1:
                victim = here[chance.randrange(len(here))]
                self._take(victim)
                self.taken.append(victim)


def leaf(data: np.ndarray, factor: int, seconds: float) -> np.ndarray:
    """A part of the work."""
    time.sleep(seconds)
    return data * factor


def add(one: np.ndarray, other: np.ndarray, seconds: float) -> np.ndarray:
    """The work that brings two parts together."""
    time.sleep(seconds)
    return one + other


def scattered(client: Client, inputs: list[np.ndarray], names: Iterator[int]) -> list[Any]:
    """Futures of data on the workers; a machine that dies while it receives some breaks the call."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        attempt = next(names)
        try:
            named = {f"input-{number}@{attempt}": array for number, array in enumerate(inputs)}
            return list(client.scatter(named).values())
        except (OSError, KeyError):
            if time.monotonic() > deadline:
                raise


def tree(client: Client, data: list[Any], seconds: float, attempt: int) -> tuple[list[Any], Any]:
    """Submit the tree; returns futures of its leaves and its root. Dask is confused by keys that come again."""
    layer = [
        client.submit(leaf, array, k, seconds, key=f"leaf-{number}-{k}@{attempt}")
        for number, array in enumerate(data)
        for k in range(EACH)
    ]
    leaves, height = layer, 0
    while len(layer) > 1:
        height += 1
        pairs = zip(layer[::2], layer[1::2], strict=True)
        layer = [
            client.submit(add, one, other, seconds, key=f"add-{height}-{k}@{attempt}")
            for k, (one, other) in enumerate(pairs)
        ]
    return leaves, layer[0]


def computed(client: Client, inputs: list[np.ndarray], seconds: float, storm: Storm) -> tuple[bool, int]:
    """Whether everything that the client holds is right in the end, and how often it had to begin again."""
    names, deadline = itertools.count(), time.monotonic() + LONGEST_S
    data = scattered(client, inputs, names)
    storm.start()
    for again in itertools.count():
        leaves, root = tree(client, data, seconds, again)
        try:
            result = root.result(timeout=deadline - time.monotonic())
            whole = client.gather([*data, *leaves])
            break
        except (FutureCancelledError, KilledWorker):
            data = scattered(client, inputs, names)
    wanted = sum(inputs) * sum(range(EACH))
    found = (result, sum(whole[len(data) :]), sum(whole[: len(data)]) * sum(range(EACH)))
    return all(np.array_equal(wanted, one) for one in found), again


def measured(options: argparse.Namespace, *, notice: bool) -> dict[str, object]:
    """One row: the computation in one storm."""
    name, small = CLUSTERS[options.cluster]
    inputs = [np.full(ITEMS, float(number)) for number in range(options.tasks // (2 * EACH))]
    wanted = {"n_workers": options.workers, "spot": True, "progress": False, **small}
    with (
        Emulator("aws", profile="instant", seed=options.seed) as cloud,
        cloud.active(),
        getattr(cloudprovider, name)(**wanted) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(options.workers, timeout=LONGEST_S)
        client.register_plugin(Count())
        storm = Storm(cluster, cloud.interrupt if notice else cloud.kill, options)
        began = time.perf_counter()
        right, again = computed(client, inputs, options.seconds, storm)
        took = time.perf_counter() - began
        storm.over.set()
        storm.join()
        counts = client.sync(client.scheduler.storm_count)
        emptied = [event for event in cluster.events.of(Phase.drained) if event.machine]
        ordered = sum(
            e.facts["count"] for e in cluster.events.of(Phase.ordered) if e.facts["role"] == "worker"
        )
    return {
        "storm": "with notice" if notice else "without",
        "workers": options.workers,
        "tasks": counts["tasks"],
        "machines taken": len(storm.taken),
        "seconds": round(took, 1),
        "recomputed tasks": counts["recomputed"],
        "scattered arrays lost": counts["lost"],
        "begun again by the client": again,
        "results moved": sum(event.facts["moved"] for event in emptied),
        "machines ordered": ordered,
        "results right": right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cluster", choices=tuple(CLUSTERS), default="fargate")
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=512, help="a power of two, 16 at least; default: 512")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a task takes")
    parser.add_argument("--interruptions", type=int, default=20, help="machines to take, at the most")
    parser.add_argument("--every", type=float, default=0.8, help="seconds between two, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("notice", "none"), help="one of the two runs")
    add_json(parser)
    options = parser.parse_args()
    if options.tasks < 2 * EACH or options.tasks & (options.tasks - 1):
        parser.error("--tasks must be a power of two, 16 at least")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    machine = described()
    kinds = {"notice": [True], "none": [False], None: [True, False]}[options.only]
    show([measured(options, notice=notice) for notice in kinds], machine, options.json)


if __name__ == "__main__":
    main()
