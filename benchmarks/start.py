"""From nothing to 1, 10, 50 and 100 Fargate workers on the embedded cloud: `python benchmarks/start.py`.

The cloud takes 50 ms a call, and boots take 5 or 40 s, a quarter of which passes until the machine has its
address; machines differ by 10 %, and AWS's published rates hold. Each start is measured in a process of its
own, in an account in which somebody has started a cluster before.

`--against dask-cloudprovider` starts dask-cloudprovider 2025.9.0, too, from PyPI in an environment of its own, in
the same cloud with the same seeds, at the same Dask. Its image has the console scripts that it runs and that
distributed has no more. It also shows what either leaves: after a clean end, a failed start, and `kill -9`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import incumbent
from machine import add_json, described, save, show, throttled

from cloudprovider.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.records import Call

OURS = "dask-cloud"
#: Calls that must follow each other before the workers' order is accepted, when the account has been used
#: before: find the landing; register what the cluster owns; give its group a rule; order the scheduler; see
#: its private address; see its public one; order the workers.
ROUNDS = 7
LATENCY_S = 0.05
SMALL = {"worker_cpu": 0.25, "worker_memory": 0.5, "scheduler_cpu": 0.25, "scheduler_memory": 0.5}
#: Seconds after which our machines end themselves when nobody is left (by default 10 minutes), and how long
#: either manager's are watched.
LEASE_S, WATCHED_S = 5, 40.0
#: How many workers the clusters have whose remains are counted.
FEW = 4


@dataclass(frozen=True)
class Manager:
    """Who starts clusters: its name, and what begins its program for `workers` (and then `close`, or `stay`)."""

    name: str
    begin: Callable[[int, str], subprocess.Popen[str]]


def begin(workers: int, how: str) -> subprocess.Popen[str]:
    """Start this program as one that starts one cluster."""
    command = [sys.executable, __file__, "--one", str(workers), "--then", how]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def one(workers: int, how: str) -> None:
    """Start one cluster, print what this process used, and end it (runs in a process of its own)."""
    from cloudprovider import FargateCluster

    leases = {"client_timeout": LEASE_S, "scheduler_timeout": LEASE_S} if how == "stay" else {}
    cpu, began = time.process_time(), time.perf_counter()
    with FargateCluster(n_workers=workers, progress=False, **SMALL, **leases) as cluster:
        cluster.wait_for_workers(workers, timeout=3600)
        wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
        steps = cluster.timeline.as_json()["steps"]
        said = {"wall": wall, "cpu": used, "until": until, "timeline": steps, "name": cluster.name}
        print(json.dumps(said), flush=True)
        while how == "stay":
            time.sleep(1)


MANAGERS = (Manager(OURS, begin), Manager(incumbent.NAME, incumbent.begin))


def prepare() -> None:
    """Make what an account needs once, and nothing else."""
    from cloudprovider.providers.ecs import ECSProvider, FargateConfig
    from cloudprovider.security import make_secrets

    config = FargateConfig.of(name="before", allow_from="127.0.0.1/32", **SMALL)
    provider = ECSProvider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    provider.sweep("before")


def figures(boot_s: float) -> dict[str, float]:
    """The cloud's own seconds."""
    return {"latency_s": LATENCY_S, "running_s": boot_s, "address_s": boot_s / 4, "release_s": 2.0}


# -- starts ----------------------------------------------------------------------------------------------


def starts(managers: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each length of a boot, number of workers and manager; the limit is that of our start."""
    for boot_s in options.boots:
        for workers in options.workers:
            limits: dict[str, float] = {}
            for manager in managers:
                limits, row = measured(manager, workers, boot_s, options.patience, limits)
                print(f"# {row['manager']}, {workers} workers: {row['wall s']} s", file=sys.stderr)
                yield row


def measured(
    manager: Manager, workers: int, boot_s: float, patience_s: float, limits: dict[str, float]
) -> tuple[dict[str, float], dict[str, Any]]:
    """One row: a start in an account that has been used before, and its end."""
    with Emulator("aws", profile="fargate", seed=workers, figures=figures(boot_s)) as cloud, cloud.active():
        incumbent.add_image(cloud)
        prepare()
        before = len(cloud.calls)
        said = finished(manager.begin(workers, "close"), patience_s)
        at_close = left(cloud)
        settle(cloud)
        limits = limits or computed(*boots())
        return limits, {
            "boot s": f"{boot_s:g}",
            "workers": workers,
            "manager": manager.name,
            **limits,
            "wall s": round(said["wall"], 1) if "wall" in said else said["why"],
            "wall / limit": round(said["wall"] / limits["limit s"], 2) if "wall" in said else "",
            "client CPU s": round(said["cpu"], 2) if "wall" in said else "",
            **asked(cloud.calls[before:], said.get("until", time.time())),
            "left at close": len(at_close),
            "left": len(left(cloud)),
            "seconds by step": {step["name"]: round(step["seconds"], 2) for step in said.get("timeline", ())},
        }


def finished(process: subprocess.Popen[str], patience_s: float) -> dict[str, Any]:
    """What a program said when it had its workers, or why it said nothing; it is ended when it takes too long."""
    why = "failed"
    try:
        output, _ = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        why = f"not in {patience_s:g}"
        process.kill()
        output, _ = process.communicate()
    finally:
        process.kill()
    return spoken(output) or {"why": why}


def spoken(output: str) -> dict[str, Any]:
    """What a program said in JSON."""
    return next((json.loads(line) for line in output.splitlines() if line.startswith("{")), {})


def boots() -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Of schedulers and of workers, as ECS says: seconds from the order to the address, and to the container."""
    import boto3

    ecs = boto3.client("ecs")
    pages = ecs.get_paginator("list_tasks").paginate(cluster="dask", desiredStatus="STOPPED")
    found: dict[str, list[tuple[float, float]]] = {"scheduler": [], "worker": []}
    for page in pages:  # of as many as one DescribeTasks takes
        for task in ecs.describe_tasks(cluster="dask", tasks=page["taskArns"], include=["TAGS"])["tasks"]:
            role = next(tag["value"] for tag in task["tags"] if tag["key"] == "dask-role")
            address, container = (
                (task[key] - task["createdAt"]).total_seconds() for key in ("connectivityAt", "startedAt")
            )
            found[role].append((address, container))
    return found["scheduler"], found["worker"]


def computed(schedulers: list[tuple[float, float]], workers: list[tuple[float, float]]) -> dict[str, float]:
    """What a start takes at the least, and what it takes when workers wait for a scheduler that answers."""
    [(address, scheduler)] = schedulers
    worker = max(container for _, container in workers)
    calls = ROUNDS * LATENCY_S
    return {
        "limit s": round(calls + address + worker, 1),
        "two boots in a row s": round(calls + scheduler + worker, 1),
    }


def asked(calls: list[Call], until: float) -> dict[str, Any]:
    """Calls that a start made until it had its workers, and those of its end."""
    starting = [call for call in calls if call.start < until]
    return {
        "calls": len(starting),
        "throttled": throttled(calls),
        "calls of the end": len(calls) - len(starting),
        "calls by operation": dict(Counter(call.operation for call in starting).most_common()),
    }


# -- what is left ----------------------------------------------------------------------------------------


def remains(managers: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each way to end, and each manager."""
    for after, end in (("a clean end", cleanly), ("a failed start", failing), ("kill -9", killed)):
        for manager in managers:
            quick = {**figures(2.0), "address_s": 0.5, "release_s": 0.5}
            with Emulator("aws", profile="fargate", figures=quick) as cloud, cloud.active():
                incumbent.add_image(cloud)
                prepare()
                row = {"after": after, "manager": manager.name, **end(cloud, manager, options.patience)}
            print(f"# {row['manager']}, {after}: {row['left']} left", file=sys.stderr)
            yield row


def cleanly(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """What the account has when a program has started and ended a cluster."""
    finished(manager.begin(FEW, "close"), patience_s)
    return watched(cloud)


def failing(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """The same when the cloud has room for the scheduler only."""
    cloud.inject("capacity", room=1)
    process = manager.begin(FEW, "close")
    try:
        process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return watched(cloud)


def killed(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """The same when the program is killed while its cluster runs."""
    process = manager.begin(FEW, "stay")
    timer = threading.Timer(patience_s, process.kill)
    timer.start()
    said = spoken(process.stdout.readline() if process.stdout else "")
    timer.cancel()
    process.kill()
    process.communicate()
    row = watched(cloud)
    if "name" in said:
        program = "from cloudprovider.cli import cloud; cloud()"
        sweep = [sys.executable, "-c", program, "sweep", "--yes", "--cloud", "fargate", said["name"]]
        subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL)
        settle(cloud)
    return {**row, "left after a sweep": len(left(cloud)) if "name" in said else "has none"}


def watched(cloud: Emulator) -> dict[str, Any]:
    """What is left at once and when it has been watched, and how long machines went on."""
    at_once, began = left(cloud), time.monotonic()
    gone_after: float | None = None
    while left(cloud) and time.monotonic() - began < (WATCHED_S if machines(cloud) else 3.0):
        if gone_after is None and not machines(cloud):
            gone_after = time.monotonic() - began
        time.sleep(0.5)
    if gone_after is None and not machines(cloud):
        gone_after = time.monotonic() - began
    after = left(cloud)
    return {
        "machines at once": sum(line.startswith("ecs task:") for line in at_once),
        "machines go on for s": f"over {WATCHED_S:g}" if gone_after is None else round(gone_after),
        "left": len(after),
        "left after a sweep": "",
        "what is left": dict(Counter(line.partition(":")[0] for line in after)),
    }


def machines(cloud: Emulator) -> list[str]:
    """Machines that bill."""
    return [machine.id for machine in cloud.machines() if machine.state != "STOPPED"]


def left(cloud: Emulator) -> list[str]:
    """What the account has that no other cluster will use."""
    return [line for line in cloud.leftovers() if line != incumbent.KEPT]


def settle(cloud: Emulator) -> None:
    """Let the cloud take away what belongs to machines that have ended, which takes it a while."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(
        line.startswith(("ecs task:", "ec2 network interface:")) for line in left(cloud)
    ):
        time.sleep(0.2)


# -- the command -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 10, 50, 100), metavar="N")
    parser.add_argument("--boots", type=float, nargs="+", default=(5, 40), metavar="SECONDS")
    parser.add_argument("--against", choices=(incumbent.NAME,), help="start that one, too")
    parser.add_argument(
        "--tables", nargs="+", default=("starts", "left"), choices=("starts", "left"), help="default: both"
    )
    parser.add_argument("--quick", action="store_true", help="1 and 10 workers, boots of 5 s")
    parser.add_argument(
        "--patience", type=float, default=300, metavar="SECONDS", help="of one start and its end (300)"
    )
    add_json(parser)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--then", default="close", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        one(options.one, options.then)
        return
    if options.quick:
        options.workers, options.boots = (1, 10), (5,)
    managers = MANAGERS if options.against else MANAGERS[:1]
    if options.against:
        incumbent.python()
        incumbent.own_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    machine = {**described(), **({incumbent.NAME: incumbent.VERSION} if options.against else {})}
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in options.tables}
    with contextlib.suppress(KeyboardInterrupt):  # what there is by then is shown
        for name, rows in tables.items():
            for row in {"starts": starts, "left": remains}[name](managers, options):
                rows.append(row)
                save(tables, machine, options.json)
    show(tables, machine, options.json)


if __name__ == "__main__":
    main()
