"""Thousands of machines through one fleet: `python benchmarks/thousand.py [--json FILE]`.

The machines have no processes (`Emulator(engine="none")`); everything else is as in a real start: the real
provider, the real fleet, every call over the wire. The cloud is the profile `fargate` at a time scale, and the
launch rate that the provider keeps to is raised alike. Each number of machines is measured in a process of
its own, so that its memory and its CPU are its own; this program tells it which machines run, as Dask would.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from machine import add_json, described, show, throttled

#: Machines above which the cloud's time runs faster, so that a run ends within two minutes.
AT_SCALE_1 = 2000
#: Seconds in which a run must end.
LONGEST_S = 600.0
#: Seconds between the passes of a cluster's manager while machines are on their way.
PASS_S = 0.5
#: Passes that are timed when all machines are there.
PASSES = 9


def prepared(time_scale):
    """A provider whose cluster and scheduler are there, and the Boot of its workers."""
    from cloudprovider.providers.ecs import ECSProvider, FargateConfig
    from cloudprovider.security import make_secrets

    rates = {"launch_burst": 100, "launch_rate": 20 / time_scale}
    config = FargateConfig.of(name="thousand", allow_from="127.0.0.1/32", **rates)
    provider = ECSProvider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
    pause = 0.2
    while not scheduler.private_address:
        time.sleep(pause)
        pause *= 1.3  # as a cluster looks for it
        [scheduler] = provider.describe([scheduler.id])
    address = f"tls://{scheduler.private_address}:8786"
    return provider, dataclasses.replace(provider.boot("worker"), scheduler=address)


def bring_up(machines, time_scale):
    """Order machines and wait for them, and print what this process used (runs in a process of its own)."""
    from cloudprovider.events import Events
    from cloudprovider.fleet import Fleet

    cpu, began = time.process_time(), time.perf_counter()
    provider, boot = prepared(time_scale)
    fleet = Fleet(provider, lambda: boot, Events())
    arrived: set[str] = set()
    threading.Thread(target=lambda: arrived.update(line.strip() for line in sys.stdin), daemon=True).start()
    fleet.ask(machines)
    ordered = None
    while not fleet.machines.keys() <= arrived or fleet.missing:
        if refusal := fleet.reconcile(arrived.copy()):
            raise refusal
        ordered = ordered or time.perf_counter() - began
        if time.perf_counter() - began > LONGEST_S:
            raise TimeoutError(f"{len(arrived)} of {machines} machines ran within {LONGEST_S:g} s.")
        time.sleep(PASS_S)
    used = {"seconds": time.perf_counter() - began, "ordered": ordered, "cpu": time.process_time() - cpu}
    used |= {"passes": [one_pass(fleet, arrived) for _ in range(PASSES)], "peak": peak_mb()}
    print(json.dumps(used), flush=True)


def one_pass(fleet, arrived):
    """Seconds of a pass."""
    began = time.perf_counter()
    fleet.reconcile(arrived)
    return time.perf_counter() - began


def peak_mb():
    """The most memory that this process has had, in MB (10^6 bytes); not what it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6


def measured(machines, time_scale):
    """One row."""
    from cloudprovider.emulator import Emulator

    command = [sys.executable, __file__, "--one", str(machines), "--time-scale", str(time_scale)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    options = {"profile": "fargate", "time_scale": time_scale, "engine": "none"}
    with Emulator("aws", **options) as cloud, cloud.active(), subprocess.Popen(command, **pipes) as process:
        told: set[str] = set()
        while len(told) <= machines and process.poll() is None:
            running = {machine.id for machine in cloud.machines() if machine.state == "RUNNING"}
            process.stdin.writelines(f"{id}\n" for id in running - told)
            process.stdin.flush()
            told |= running
            time.sleep(1.0)
        figures = json.loads(process.communicate(timeout=LONGEST_S)[0])
        calls = cloud.calls
    operations = Counter(call.operation for call in calls)
    return {
        "machines": machines,
        "time scale": f"{time_scale:g}",
        "s until all are ordered": round(figures["ordered"], 1),
        "s until all run": round(figures["seconds"], 1),
        "client CPU s": round(figures["cpu"], 1),
        "peak memory MB": round(figures["peak"]),
        "pass ms": round(1000 * statistics.median(figures["passes"]), 2),
        "slowest pass ms": round(1000 * max(figures["passes"]), 2),
        "RunTask": operations["RunTask"],
        "other calls": len(calls) - operations["RunTask"],
        "throttled": throttled(calls),
        "calls by operation": dict(operations.most_common()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--machines", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--time-scale", type=float, help=f"default: 1 to {AT_SCALE_1} machines, then less")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.one is not None:
        bring_up(options.one, options.time_scale)
        return
    machine = described()
    rows = [measured(n, options.time_scale or min(1.0, AT_SCALE_1 / n)) for n in options.machines]
    show(rows, machine, options.json)


if __name__ == "__main__":
    main()
