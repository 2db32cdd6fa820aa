"""Seconds to grow, shrink and mend a running cluster: `python benchmarks/scale.py [--json FILE]`.

A `FargateCluster` on the embedded cloud with the profile `instant`: boots take 0.1 s, calls take what they take.
So the seconds are the manager's, Dask's and this computer's, which starts every machine as real processes; on a
real cloud a boot comes on top of each row but the last. The clock runs until Dask has the workers, or no longer
has them.
"""

from __future__ import annotations

import argparse
import os
import time

from machine import add_json, described, show, throttled

from cloudprovider import FargateCluster
from cloudprovider.emulator import Emulator

#: Seconds that any of the steps may take.
LONGEST_S = 300.0
SMALL = {
    "n_workers": 1,
    "progress": False,
    "worker_cpu": 0.25,
    "worker_memory": 0.5,
    "scheduler_cpu": 0.25,
    "scheduler_memory": 0.5,
}


def until(true, what):
    """Wait until something is true."""
    deadline = time.monotonic() + LONGEST_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{LONGEST_S:g} s were not enough: {what}.")
        time.sleep(0.01)


def names(cluster):
    """Workers that Dask has."""
    return {worker["name"] for worker in cluster.scheduler_info["workers"].values()}


def resized(cluster, workers):
    """Scale, and wait until Dask has exactly so many workers."""
    cluster.scale(workers)
    until(lambda: len(names(cluster)) == workers, f"{len(names(cluster))} of {workers} workers")


def replaced(cluster, cloud):
    """Kill a machine, and wait until Dask has another in its place."""
    before = names(cluster)
    lost = min(before)
    cloud.kill(lost)

    def mended():
        now = names(cluster)
        return lost not in now and len(now) == len(before)

    until(mended, f"{lost} was not replaced")


def timed(what, cloud, step, *arguments):
    """One row."""
    calls, cpu, began = len(cloud.calls), time.process_time(), time.perf_counter()
    step(*arguments)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    made = cloud.calls[calls:]
    return {
        "what": what,
        "seconds": round(seconds, 2),
        "client CPU s": round(used, 2),
        "calls": len(made),
        "throttled": throttled(made),
    }


def rows(few, many):
    """Grow by few and by many, shrink by few, lose one."""
    with Emulator("aws", profile="instant") as cloud, cloud.active(), FargateCluster(**SMALL) as cluster:
        cluster.wait_for_workers(1, timeout=LONGEST_S)
        return [
            timed(f"up by {few}", cloud, resized, cluster, 1 + few),
            timed(f"up by {many}", cloud, resized, cluster, 1 + few + many),
            timed(f"down by {few}", cloud, resized, cluster, 1 + many),
            timed("a lost machine replaced", cloud, replaced, cluster, cloud),
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=100)
    add_json(parser)
    options = parser.parse_args()
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    machine = described()
    show(rows(options.few, options.many), machine, options.json)


if __name__ == "__main__":
    main()
