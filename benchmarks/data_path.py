"""What mutual TLS costs on the way of the data: `python benchmarks/data_path.py [--json FILE]`.

The same work by the same client on clusters of processes on this computer, with as many workers of one
thread each: `ProcessCluster`, whose every connection is mutual TLS, and distributed's own
`LocalCluster(processes=True)`, which is plain TCP. They take turns; the median of each is told. The scheduler of
a `LocalCluster` lives in the client's process, ours in its own: a `LocalCluster` with TLS tells the two apart.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time

from distributed import Client, LocalCluster
from distributed.security import Security
from machine import add_json, described, show

from cloudprovider import ProcessCluster

MB = 1_000_000
NAMES = ("ProcessCluster", "LocalCluster", "LocalCluster with TLS")


@contextlib.contextmanager
def ours(workers):
    """A client over mutual TLS."""
    with tempfile.TemporaryDirectory() as directory:
        options = {"directory": directory, "progress": False, "worker_nthreads": 1}
        with ProcessCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            client.wait_for_workers(workers, timeout=120)
            yield client


@contextlib.contextmanager
def local(workers, **options):
    """A client of distributed's own cluster."""
    options |= {"processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
        client.wait_for_workers(workers, timeout=120)
        yield client


def one(number):
    return number


def measured(client, megabytes, tasks):
    """Seconds of each kind of work, once."""
    import numpy as np

    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    data = np.random.default_rng(0).bytes(megabytes * MB)
    seconds = {}
    began = time.perf_counter()
    future = client.scatter(data, workers=workers[:1], hash=False)
    seconds[f"scatter {megabytes} MB"] = time.perf_counter() - began
    began = time.perf_counter()
    back = client.gather(future)
    seconds[f"gather {megabytes} MB"] = time.perf_counter() - began
    if len(back) != len(data):
        raise RuntimeError(f"{len(back)} of {len(data)} bytes came back.")
    if len(workers) > 1:
        began = time.perf_counter()
        client.submit(len, future, workers=workers[1:2], pure=False).result()
        seconds[f"{megabytes} MB from worker to worker"] = time.perf_counter() - began
    future.release()
    began = time.perf_counter()
    client.gather(client.map(one, range(tasks), pure=False))
    seconds[f"{tasks:,} small tasks"] = time.perf_counter() - began
    return seconds


def rows(workers, megabytes, tasks, runs):
    """Medians of each, and their ratios."""
    tls = {"protocol": "tls://", "security": Security.temporary()}
    with ours(workers) as first, local(workers) as second, local(workers, **tls) as third:
        clients = (first, second, third)
        for client in clients:  # connections, imports
            measured(client, 1, 100)
        turns = [[measured(client, megabytes, tasks) for client in clients] for _ in range(runs)]
    table = []
    for what in turns[0][0]:
        seconds = [statistics.median(turn[way][what] for turn in turns) for way in range(len(clients))]
        row = {"what": what}
        row |= {f"{name} s": round(s, 3) for name, s in zip(NAMES, seconds, strict=True)}
        row |= {f"{NAMES[way]} / {NAMES[1]}": round(seconds[way] / seconds[1], 2) for way in (0, 2)}
        table.append(row)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken (default: 3)")
    add_json(parser)
    options = parser.parse_args()
    machine = described()
    show(rows(options.workers, options.megabytes, options.tasks, options.runs), machine, options.json)


if __name__ == "__main__":
    main()
