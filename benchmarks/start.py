"""From nothing to 1, 10 and 50 Fargate workers on the embedded cloud: `python benchmarks/start.py [--json]`.

The cloud takes what the profile `fargate` says: 50 ms a call, some 10 s until a machine has its address and
40 s until it runs, differing by 10 %. Each start is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter

from machine import described, show

from cloudprovider.emulator import Emulator

#: Calls that must follow each other before the workers' order is accepted, when the account has been used
#: before: find the landing; register what the cluster owns; give its group a rule; order the scheduler; see
#: its private address; see its public one; order the workers.
ROUNDS = 7
SMALL = {"worker_cpu": 0.25, "worker_memory": 0.5, "scheduler_cpu": 0.25, "scheduler_memory": 0.5}


def start(workers: int) -> None:
    """Start and end one cluster, and print what this process used (runs in a process of its own)."""
    from cloudprovider import FargateCluster

    cpu, began, since = time.process_time(), time.perf_counter(), time.time()
    with FargateCluster(n_workers=workers, progress=False, **SMALL) as cluster:
        cluster.wait_for_workers(workers, timeout=600)
        wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
    print(json.dumps({"wall": wall, "cpu": used, "since": since, "until": until}))


def prepare() -> None:
    """Make what an account needs once (runs in a process of its own)."""
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_landing import find_or_make
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


def measured(workers: int, latency_s: float, time_scale: float) -> dict[str, object]:
    """One row: a start in an account that has been used before, and its end."""
    with Emulator("aws", profile="fargate", time_scale=time_scale, seed=workers) as cloud, cloud.active():
        in_a_process("--prepare")
        before = len(cloud.calls)
        figures = json.loads(in_a_process("--one", workers))
        at_close = cloud.leftovers()
        calls = cloud.calls[before:]
        took = boots()
        deadline = time.monotonic() + 60
        while cloud.leftovers() and time.monotonic() < deadline:
            time.sleep(0.2)
        left = cloud.leftovers()
    starting = [call for call in calls if call.start < figures["until"]]
    [(address, scheduler)] = took["scheduler"]
    worker = max(boot for _, boot in took["worker"])
    limit = ROUNDS * latency_s + address + worker
    two_boots = ROUNDS * latency_s + scheduler + worker
    return {
        "workers": workers,
        "wall s": round(figures["wall"], 1),
        "limit s": round(limit, 1),
        "wall / limit": round(figures["wall"] / limit, 2),
        "two boots in a row s": round(two_boots, 1),
        "client CPU s": round(figures["cpu"], 2),
        "calls": len(starting),
        "throttled": sum("Throttl" in call.error or "LimitExceeded" in call.error for call in calls),
        "calls of the end": len(calls) - len(starting),
        "left at close": len(at_close),
        "left a minute later": len(left),
        "calls by operation": dict(Counter(call.operation for call in starting).most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies the cloud's waits")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare()
    elif options.one is not None:
        start(options.one)
    else:
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        machine = {**described(), "time scale": f"{options.time_scale:g}"}
        latency_s = 0.05 * options.time_scale
        rows = [measured(workers, latency_s, options.time_scale) for workers in options.workers]
        show(rows, machine, as_json=options.json)


if __name__ == "__main__":
    main()
