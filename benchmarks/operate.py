"""Coming back: `python benchmarks/operate.py [--json FILE]`.

*List*: `dask-cloud list` and `dask-cloud list --json` where 1,000 machines run, as a command of its own from its first line
to its last: its start, the imports, all calls, the table. *Reattach*: `FargateCluster.from_name` where a cluster with
workers runs, in a process of its own that has imported `distributed`, as a notebook has, but no SDK; the clock runs
until the object is returned, which sees the workers and may scale them. Both on the embedded AWS, where a call takes 50 ms,
and the list also where it takes nothing but the emulator's own time; the listed machines have no processes, those of the
cluster are real.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from machine import add_json, described, show
from start import LATENCY_S, SMALL

from cloudprovider.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What takes no time here, so that what does is the calls.
FIGURES = {"latency_s": LATENCY_S, "running_s": 1.0, "address_s": 0.5, "release_s": 1.0}
#: Machines that one order of the benchmark's own makes.
ORDER = 100
COMMAND = (sys.executable, "-c", "from cloudprovider.cli import cloud; cloud()")
NAME = "operate"


def listed(machines: int, runs: int, latency_s: float) -> Iterator[dict[str, Any]]:
    """A row for each form of the list."""
    with Emulator("aws", profile="instant", engine="none", latency_s=latency_s) as cloud, cloud.active():
        fill(machines)
        for arguments in (["list", "--cloud", "fargate"], ["list", "--cloud", "fargate", "--json"]):
            before = len(cloud.calls)
            taken, said = zip(*(timed([*COMMAND, *arguments]) for _ in range(runs)), strict=True)
            if str(machines) not in said[0]:
                raise RuntimeError(f"The list does not know {machines} machines: {said[0]}")
            calls = (len(cloud.calls) - before) / runs
            yield row(f"dask-cloud {' '.join(arguments)}", machines, latency_s, taken, calls)


def fill(machines: int) -> None:
    """Have so many workers run."""
    from cloudprovider.providers.ecs import ECSProvider, FargateConfig
    from cloudprovider.security import make_secrets

    unhindered = {"launch_burst": 10 * machines, "launch_rate": 10 * machines}
    config = FargateConfig.of(name=NAME, allow_from="127.0.0.1/32", **SMALL, **unhindered)
    provider = ECSProvider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    made = provider.create(provider.boot("scheduler"), 1).machines
    while len(made) <= machines:
        made += provider.create(provider.boot("worker"), min(ORDER, machines + 1 - len(made))).machines


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a command, and what it says."""
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stdout


def reattached(workers: int, runs: int) -> Iterator[dict[str, Any]]:
    """A row for a cluster that waits for its user, and one for a cluster that manages itself meanwhile."""
    from cloudprovider import FargateCluster

    for autonomous in (False, True):
        with (
            Emulator("aws", profile="fargate", figures=FIGURES) as cloud,
            cloud.active(),
            FargateCluster(
                name=NAME, n_workers=workers, progress=False, autonomous=autonomous, **SMALL
            ) as cluster,
        ):
            cluster.wait_for_workers(workers, timeout=300)
            cluster.detach()
            before = len(cloud.calls)
            taken = [json.loads(timed([sys.executable, __file__, "--one"])[1]) for _ in range(runs)]
            calls = (len(cloud.calls) - before) / runs
            what = "from_name, autonomous" if autonomous else "from_name"
            yield row(what, workers, LATENCY_S, [each["seconds"] for each in taken], calls)
            cluster.estate.remove()


def one() -> None:
    """Find the cluster, and print how long it took (runs in a process of its own)."""
    from cloudprovider import FargateCluster

    began = time.perf_counter()
    with FargateCluster.from_name(NAME, progress=False, shutdown_on_close=False) as cluster:
        seconds = time.perf_counter() - began
        if not cluster.observed or not cluster.dashboard_link:
            raise RuntimeError("It does not see its workers, or has no dashboard.")
        print(json.dumps({"seconds": seconds}))


def row(what: str, machines: int, latency_s: float, taken: Any, calls: float) -> dict[str, Any]:
    """A line of the table."""
    return {
        "what": what,
        "machines": machines,
        "ms a call": round(1000 * latency_s),
        "median s": round(statistics.median(taken), 2),
        "slowest s": round(max(taken), 2),
        "calls a run": round(calls, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--machines", type=int, default=1000, help="to list; 0 for none")
    parser.add_argument("--workers", type=int, default=10, help="of the cluster to come back to")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.one:
        one()
        return
    machine = described()
    latencies = (0.0, LATENCY_S) if options.machines else ()
    rows = [line for each in latencies for line in listed(options.machines, options.runs, each)]
    show([*rows, *reattached(options.workers, options.runs)], machine, options.json)


if __name__ == "__main__":
    main()
