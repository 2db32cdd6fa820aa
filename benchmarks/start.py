"""From nothing to 1, 10 and 50 Fargate workers on the embedded cloud: `python benchmarks/start.py [--json FILE]`.

The cloud takes what the profile `fargate` says: 50 ms a call, some 10 s until a machine has its address and
40 s until it runs, differing by 10 %. Each start is measured in a process of its own.

`--against` starts dask-cloudprovider 2025.9.0, too, from PyPI in an environment of its own, with 1 and 10 workers,
in the same cloud with the same seed. Its image has a distributed that still has console scripts. In that run every
machine of either is a fresh interpreter: forking them from one that has Dask imported would help only ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import incumbent
from machine import add_json, described, show, throttled

from cloudprovider.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator.records import Call

#: Calls that must follow each other before the workers' order is accepted, when the account has been used
#: before: find the landing; register what the cluster owns; give its group a rule; order the scheduler; see
#: its private address; see its public one; order the workers.
ROUNDS = 7
SMALL = {"worker_cpu": 0.25, "worker_memory": 0.5, "scheduler_cpu": 0.25, "scheduler_memory": 0.5}


def start(workers: int, image: str | None) -> None:
    """Start and end one cluster, and print what this process used (runs in a process of its own)."""
    from cloudprovider import FargateCluster

    cpu, began = time.process_time(), time.perf_counter()
    with FargateCluster(n_workers=workers, image=image, progress=False, **SMALL) as cluster:
        cluster.wait_for_workers(workers, timeout=600)
        wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
        steps = cluster.timeline.as_json()["steps"]
    print(json.dumps({"wall": wall, "cpu": used, "until": until, "timeline": steps}))


def prepare() -> None:
    """Make what an account needs once (runs in a process of its own)."""
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ecs_landing import find_or_make
    from cloudprovider.providers.ecs import FargateConfig

    find_or_make(AWS(), FargateConfig.of())


def in_a_process(*arguments: object) -> str:
    """What this program prints with these arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def boots() -> dict[str, list[tuple[float, float]]]:
    """Of every task by role, as ECS says: seconds from its order to its address, and to its container."""
    import boto3

    ecs = boto3.client("ecs")
    arns = ecs.list_tasks(cluster="dask", desiredStatus="STOPPED")["taskArns"]
    found: dict[str, list[tuple[float, float]]] = {"scheduler": [], "worker": []}
    for task in ecs.describe_tasks(cluster="dask", tasks=arns, include=["TAGS"])["tasks"]:
        role = next(tag["value"] for tag in task["tags"] if tag["key"] == "dask-role")
        since = task["createdAt"]
        found[role].append(
            tuple((task[key] - since).total_seconds() for key in ("connectivityAt", "startedAt"))
        )
    return found


def measured(workers: int, latency_s: float, time_scale: float, *, fresh: bool = False) -> dict[str, object]:
    """One row: a start in an account that has been used before, and its end."""
    with Emulator("aws", profile="fargate", time_scale=time_scale, seed=workers) as cloud, cloud.active():
        if fresh:
            incumbent.add_images(cloud)
        in_a_process("--prepare")
        before = len(cloud.calls)
        figures = json.loads(
            in_a_process("--one", workers, *(("--image", incumbent.OUR_IMAGE) if fresh else ()))
        )
        used = row(cloud, cloud.calls[before:], figures)
        took = boots()
    [(address, scheduler)] = took["scheduler"]
    worker = max(boot for _, boot in took["worker"])
    limit = ROUNDS * latency_s + address + worker
    two_boots = ROUNDS * latency_s + scheduler + worker
    return {
        "workers": workers,
        "manager": "dask-cloud",
        "limit s": round(limit, 1),
        "wall / limit": round(figures["wall"] / limit, 2),
        "two boots in a row s": round(two_boots, 1),
        **used,
        "seconds by step": {step["name"]: round(step["seconds"], 2) for step in figures["timeline"]},
    }


def measured_incumbent(workers: int, time_scale: float, ours: dict[str, object]) -> dict[str, object]:
    """The same of dask-cloudprovider; its limit is that of our start in the same cloud."""
    with Emulator("aws", profile="fargate", time_scale=time_scale, seed=workers) as cloud, cloud.active():
        incumbent.add_images(cloud)
        incumbent.opt_in()
        before = len(cloud.calls)
        figures = json.loads(incumbent.start(workers))
        used = row(cloud, cloud.calls[before:], figures)
    limit = ours["limit s"]
    return {
        "workers": workers,
        "manager": "dask-cloudprovider",
        "limit s": limit,
        "wall / limit": round(figures["wall"] / float(str(limit)), 2),
        "two boots in a row s": ours["two boots in a row s"],
        **used,
    }


def row(cloud: Emulator, calls: list[Call], figures: dict[str, float]) -> dict[str, object]:
    """What can be said of either manager; asked when its process has ended."""
    at_close = left(cloud)
    deadline = time.monotonic() + 60
    while left(cloud) and time.monotonic() < deadline:
        time.sleep(0.2)
    starting = [call for call in calls if call.start < figures["until"]]
    return {
        "wall s": round(figures["wall"], 1),
        "client CPU s": round(figures["cpu"], 2),
        "calls": len(starting),
        "throttled": throttled(calls),
        "calls of the end": len(calls) - len(starting),
        "left at close": len(at_close),
        "left a minute later": len(left(cloud)),
        "calls by operation": dict(Counter(call.operation for call in starting).most_common()),
    }


def left(cloud: Emulator) -> list[str]:
    """What the account has that no other cluster will use."""
    return [line for line in cloud.leftovers() if line != incumbent.KEPT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", help="default: 1 10 50, or 1 10 with --against")
    parser.add_argument("--against", action="store_true", help="start dask-cloudprovider, too")
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies the cloud's waits")
    parser.add_argument("--image", help=argparse.SUPPRESS)
    add_json(parser)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare()
    elif options.one is not None:
        start(options.one, options.image)
    else:
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        machine = {**described(), "time scale": f"{options.time_scale:g}"}
        show(list(rows(options)), machine, options.json)


def rows(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row of each number of workers; with `--against`, two."""
    latency_s = 0.05 * options.time_scale
    if options.against:
        incumbent.check_port()
    for workers in options.workers or ((1, 10) if options.against else (1, 10, 50)):
        ours = measured(workers, latency_s, options.time_scale, fresh=options.against)
        yield ours
        if options.against:
            yield measured_incumbent(workers, options.time_scale, ours)


if __name__ == "__main__":
    main()
