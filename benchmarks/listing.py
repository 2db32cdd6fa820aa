"""How long `dask cloud list` takes, with no machine and with many: `python benchmarks/listing.py [--json FILE]`.

Each time the command runs in a process of its own, against an embedded cloud whose machines have no processes
(`Emulator(engine="none")`); all else is as in an account: real providers, every call over the wire. What the cloud
takes to answer is in the seconds, and stands beside them: a real one takes its own time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

from machine import add_json, described, show

from cloudprovider import discovery
from cloudprovider.emulator import Emulator
from cloudprovider.security import make_secrets

COMMAND = [sys.executable, "-c", "from cloudprovider.cli import cloud; cloud()", "list", "--json"]
#: The embedded cloud of each provider, and what its machines are.
CLOUDS = {
    "fargate": ("aws", {"launch_burst": 1000, "launch_rate": 1000}),
    "ec2": ("aws", {"instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}),
    "gcp": ("gcp", {"instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}),
    "azure": (
        "azure",
        {"instance_type": "Standard_D2s_v5", "scheduler_instance_type": "Standard_D2s_v5"},
    ),
}


def filled(name, machines, clusters):
    """Order so many machines in so many clusters."""
    _, options = CLOUDS[name]
    row = discovery.CLOUDS[name]
    for number in range(clusters):
        config = discovery.config_class(name).of(
            name=f"listed-{number}", allow_from="127.0.0.1/32", **options
        )
        provider_class = getattr(sys.modules[row.module], row.provider)
        provider = provider_class(config, config.identity())
        boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, make_secrets(provider.identity))
        [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
        while not scheduler.private_address:
            time.sleep(0.1)
            [scheduler] = provider.describe([scheduler.id])
        address = f"tls://{scheduler.private_address}:8786"
        boot = dataclasses.replace(provider.boot("worker"), scheduler=address)
        created = provider.create(boot, machines // clusters - 1)
        if created.refusal:
            raise created.refusal


def listed(cloud, name, runs):
    """Median seconds of the command, of its CPU and of the cloud's answers, its calls, and how many it listed."""
    walls, used, answers = [], [], []
    for _ in range(runs):
        known = len(cloud.calls)
        began, before = time.perf_counter(), os.times()
        done = subprocess.run([*COMMAND, "--cloud", name], capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - began)
        after = os.times()
        used.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        calls = cloud.calls[known:]
        answers.append(answering(calls))
    found = sum(row["workers"] + 1 for row in json.loads(done.stdout))
    return *map(statistics.median, (walls, used, answers)), len(calls), found


def answering(calls):
    """Seconds in which the cloud was answering at least one of these calls."""
    seconds, until = 0.0, 0.0
    for call in sorted(calls, key=lambda call: call.start):
        seconds += max(0.0, call.end - max(call.start, until))
        until = max(until, call.end)
    return seconds


def measured(name, machines, clusters, runs):
    """The rows of one provider: with nothing, and with all."""
    where, _ = CLOUDS[name]
    with Emulator(where, engine="none", profile="instant") as cloud, cloud.active():
        rows = [(0, 0, listed(cloud, name, runs))]
        filled(name, machines, clusters)
        rows.append((machines, clusters, listed(cloud, name, runs)))
    for count, of, (wall, cpu, answered, calls, found) in rows:
        if found != count:
            raise ValueError(f"{name}: {found} of {count} machines were listed.")
        yield {
            "provider": name,
            "machines": count,
            "clusters": of,
            "seconds": round(wall, 2),
            "of these the cloud answers": round(answered, 2),
            "client CPU s": round(cpu, 2),
            "calls": calls,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--providers", nargs="+", choices=list(CLOUDS), default=list(CLOUDS))
    add_json(parser)
    options = parser.parse_args()
    machine = described()
    rows = [
        row
        for name in options.providers
        for row in measured(name, options.machines, options.clusters, options.runs)
    ]
    show(rows, machine, options.json)


if __name__ == "__main__":
    main()
