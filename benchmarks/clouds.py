"""From nothing to 1, 10 and 50 workers on each embedded cloud: `python benchmarks/clouds.py`.

Every cloud takes 50 ms a call, and boots take 5 or 40 s, by 10 % more or less from machine to machine; each keeps its
own published rates. On Fargate a quarter of the boot passes until the machine has its address; elsewhere it runs after
half of the boot, has its network after three quarters, and its image at the end, and an operation takes a second.
Machines are real processes with real Dask in them. Each start is measured in a process of its own, which imports the
cloud's SDK first, in an account in which somebody has started a cluster before.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machine import add_json, described, save, show
from start import LATENCY_S, SMALL, asked, finished

from cloudprovider.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Seconds in which a cloud takes away what belongs to machines that have ended.
SETTLE_S = 30.0
#: What operations take on clouds that have such, until a machine has its address for one, and how often one may ask.
OPERATION_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where clusters start.

    Parameters
    ----------
    emulator
        The embedded cloud.
    cluster
        The name of the manager.
    module, provider, config
        Where its provider is, and what that and its options are called.
    options
        Of the cluster.
    """

    emulator: str
    cluster: str
    module: str
    provider: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def figures(self, boot_s: float) -> dict[str, Any]:
        """The cloud's own seconds."""
        alike = {"latency_s": LATENCY_S, "latencies": {}, "release_s": 2.0}
        if self.cluster == "FargateCluster":
            return {**alike, "running_s": boot_s, "address_s": boot_s / 4}
        parts = {"running_s": boot_s / 2, "guest_s": boot_s / 4, "pull_s": boot_s / 4}
        return {**alike, **parts, "address_s": OPERATION_S, "poll_s": OPERATION_S}

    def prepare(self) -> None:
        """Make what an account needs once, and nothing else."""
        from cloudprovider.security import make_secrets

        module = importlib.import_module(f"cloudprovider.providers.{self.module}")
        options = {"name": "before", "allow_from": "127.0.0.1/32", **self.options}
        config = getattr(module, self.config).of(**options)
        provider = getattr(module, self.provider)(config, config.identity())
        boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, make_secrets(provider.identity))
        provider.sweep("before")


CLOUDS = {
    "fargate": Cloud(
        emulator="aws",
        cluster="FargateCluster",
        module="ecs",
        provider="ECSProvider",
        config="FargateConfig",
        options=SMALL,
    ),
    "ec2": Cloud(
        emulator="aws", cluster="EC2Cluster", module="ec2", provider="EC2Provider", config="EC2Config"
    ),
    "gcp": Cloud(
        emulator="gcp",
        cluster="GCPCluster",
        module="gce",
        provider="GCEProvider",
        config="GCPConfig",
        options={"region": "us-central1"},
    ),
    "azure": Cloud(
        emulator="azure",
        cluster="AzureVMCluster",
        module="azure",
        provider="AzureProvider",
        config="AzureVMConfig",
        options={"region": "westeurope"},
    ),
}


def one(name: str, workers: int) -> None:
    """Start one cluster, print what this process used, and end it (runs in a process of its own)."""
    import cloudprovider

    cloud = CLOUDS[name]
    cpu, began = time.process_time(), time.perf_counter()
    with getattr(cloudprovider, cloud.cluster)(n_workers=workers, progress=False, **cloud.options) as cluster:
        cluster.wait_for_workers(workers, timeout=3600)
        wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
        steps = cluster.timeline.as_json()["steps"]
        print(json.dumps({"wall": wall, "cpu": used, "until": until, "timeline": steps}), flush=True)


def measured(name: str, workers: int, boot_s: float, patience_s: float) -> dict[str, Any]:
    """One row: a start in an account that has been used before, and its end."""
    kind = CLOUDS[name]
    figures = kind.figures(boot_s)
    with (
        Emulator(kind.emulator, profile=name, seed=workers, figures=figures) as cloud,
        cloud.active(),
    ):
        kind.prepare()
        before = len(cloud.calls)
        command = [sys.executable, __file__, "--one", name, "--workers", str(workers)]
        pipe = subprocess.PIPE
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        said = finished(program, patience_s)
        at_close = len(cloud.leftovers())
        deadline = time.monotonic() + SETTLE_S
        while cloud.leftovers() and time.monotonic() < deadline:
            time.sleep(0.5)
        return {
            "cloud": name,
            "boot s": f"{boot_s:g}",
            "workers": workers,
            "wall s": round(said["wall"], 1) if "wall" in said else said["why"],
            "wall / boot": round(said["wall"] / boot_s, 2) if "wall" in said else "",
            "client CPU s": round(said["cpu"], 2) if "wall" in said else "",
            **asked(cloud.calls[before:], said.get("until", time.time())),
            "left at close": at_close,
            "left": len(cloud.leftovers()),
            "seconds by step": {step["name"]: round(step["seconds"], 2) for step in said.get("timeline", ())},
        }


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each length of a boot, number of workers and cloud."""
    for boot_s in options.boots:
        for workers in options.workers:
            for name in options.clouds:
                row = measured(name, workers, boot_s, options.patience)
                print(f"# {name}, {workers} workers: {row['wall s']} s", file=sys.stderr)
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clouds", nargs="+", default=[*CLOUDS], choices=CLOUDS, help="default: all")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 10, 50), metavar="N")
    parser.add_argument("--boots", type=float, nargs="+", default=(5, 40), metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="10 workers, boots of 5 s")
    parser.add_argument(
        "--patience", type=float, default=300, metavar="SECONDS", help="of one start and its end (300)"
    )
    add_json(parser)
    parser.add_argument("--one", choices=CLOUDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        one(options.one, options.workers[0])
        return
    if options.quick:
        options.workers, options.boots = (10,), (5,)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    tables: dict[str, list[dict[str, Any]]] = {"starts": []}
    with contextlib.suppress(KeyboardInterrupt):  # what there is by then is shown
        for row in rows(options):
            tables["starts"].append(row)
            save(tables, described(), options.json)
    show(tables, described(), options.json)


if __name__ == "__main__":
    main()
