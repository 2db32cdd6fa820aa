"""The demo: a real cluster on an embedded cloud, from the first call to the receipt; the same on each."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from cloudprovider.cluster import CloudCluster
    from cloudprovider.emulator import Emulator

__all__ = ["STAGES", "Report", "Stage", "run"]

#: The published latencies of each cloud, times this: a boot of 40 seconds takes 2.
TIME_SCALE = 0.05
WORKERS, MOST = 3, 6


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the demo can be shown.

    Parameters
    ----------
    cloud
        What the emulator calls the cloud.
    title
        What people call it.
    through
        The library that the manager speaks to it by.
    options
        Of the cluster, where its defaults are not enough.
    """

    cloud: str
    title: str
    through: str
    options: dict[str, Any] = field(default_factory=dict)


#: By what the command line calls a provider; the emulator has a profile of the same name.
STAGES = {
    "fargate": Stage(cloud="aws", title="AWS", through="boto3", options={"worker_cpu": 1}),
    "ec2": Stage(cloud="aws", title="AWS", through="boto3"),
    "gcp": Stage(cloud="gcp", title="Google Cloud", through="google-cloud-compute"),
    "azure": Stage(cloud="azure", title="Azure", through="azure-mgmt-compute"),
}


@dataclass(kw_only=True)
class Report:
    """What the demo saw.

    Parameters
    ----------
    ok
        Whether everything went as it must.
    result
        Of the computation, with what scaling and the interruption did.
    timeline
        Which second of the start went where.
    bill
        What the cluster cost.
    left_behind
        What the cloud's own API still has of the cluster after `close()`; nothing, when all is well.
    seconds
        How long the demo took.
    """

    ok: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, Any] = field(default_factory=dict)
    bill: dict[str, Any] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(name: str = "fargate", *, keep: bool = False, aside: bool = False) -> Report:
    """Run the demo.

    Parameters
    ----------
    name
        One of `STAGES`.
    keep
        Leave the embedded cloud up until Ctrl-C, and print how to connect to it.
    aside
        Say everything on stderr.
    """
    from rich.console import Console

    from cloudprovider.emulator import Emulator

    logging.getLogger("distributed.deploy.adaptive").setLevel(logging.WARNING)
    console = Console(highlight=False, stderr=aside)
    began = time.monotonic()
    report, stage = Report(), STAGES[name]
    _say(
        console,
        f"The emulated {stage.title} on this computer",
        f"published latencies of {name} x {TIME_SCALE}, real processes",
    )
    with Emulator(stage.cloud, profile=name, time_scale=TIME_SCALE, seed=1) as cloud, cloud.active():
        _cluster_part(console, cloud, report, name)
        report.left_behind = _what_is_left(console, cloud)
        report.seconds = round(time.monotonic() - began, 1)
        report.ok = not report.left_behind and bool(report.result.get("survived"))
        verdict = "[bold green]All of it worked" if report.ok else "[bold red]Something went wrong"
        console.print(f"\n{verdict}[/] in {report.seconds} s.")
        if keep:
            _keep(console, cloud, stage)
    return report


def _cluster_part(console: Console, cloud: Emulator, report: Report, name: str) -> None:
    from cloudprovider.bill import receipt
    from cloudprovider.discovery import cluster_class

    cls, stage = cluster_class(name), STAGES[name]
    options = {**stage.options, "n_workers": WORKERS, "spot": "fallback"}
    shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
    _say(console, f"{cls.__name__}({shown})", f"the real manager, through {stage.through}")
    with cls(**options, progress=True) as cluster:
        cluster.wait_for_workers(WORKERS, timeout=60)
        report.timeline = cluster.timeline.as_json()
        console.print(cluster.timeline)
        console.print(f"  dashboard {cluster.dashboard_link}")
        with cluster.get_client() as client:
            report.result["mean by name"] = _compute(console, client)
            report.result.update(_scale(console, cluster, client, cloud))
        bill = cluster.cost()
        _say(console, "close()", "ends every machine and sweeps what the cluster made")
    report.bill = cluster.cost().as_json()
    console.print(receipt(cluster.cost(), title="Receipt"))
    report.result["an hour before close"] = bill.per_hour


def _compute(console: Console, client: Any) -> dict[str, float]:
    """The mean of x by name in a dataframe made on the workers; returns it for the first names."""
    import dask

    _say(console, "dask.datasets.timeseries().groupby('name').x.mean()", "a dataframe of 864,000 rows")
    began = time.monotonic()
    frame = dask.datasets.timeseries("2026-01-01", "2026-01-11", freq="1s", partition_freq="1D", seed=1)
    means, rows = client.gather(client.compute([frame.groupby("name").x.mean(), frame.x.count()]))
    first = {str(name): round(float(value), 5) for name, value in means.sort_index().head(3).items()}
    shown = ", ".join(f"{name} {value:+.5f}" for name, value in first.items())
    console.print(f"  {rows:,} rows, {len(means)} names in {time.monotonic() - began:.1f} s: {shown}, ...")
    return first


def _scale(console: Console, cluster: CloudCluster, client: Any, cloud: Emulator) -> dict[str, Any]:
    """Adapt up for work there is, lose a spot machine in the middle of it, adapt down when it is done."""
    threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    tasks = 60 * threads
    _say(
        console,
        f"cluster.adapt(minimum=1, maximum={MOST})",
        f"then {tasks} tasks of a quarter second, {threads} at once",
    )
    # Machines boot in a twentieth of their time here, but a billing minute is a minute: by itself adapt would
    # keep an idle machine to its end, so `keep_paid=False` lets us see it go.
    cluster.adapt(
        minimum=1,
        maximum=MOST,
        interval="500ms",
        target_duration="4s",
        wait_count=4,
        keep_paid=False,
    )

    def square(x: int) -> int:  # in here, so that it travels by value: the machines do not have this package
        time.sleep(0.25)
        return x * x

    futures = client.map(square, range(tasks), pure=False)
    peak = 0
    for _ in range(200):
        peak = max(peak, len(cluster.observed))
        if peak == MOST or all(future.done() for future in futures):
            break
        time.sleep(0.1)
    console.print(f"  up to {peak} workers")
    victim = _take_back(console, cluster, cloud)
    total = sum(client.gather(futures))
    expected = sum(x * x for x in range(tasks))
    console.print(f"  sum of squares {total:,}: {'right' if total == expected else 'WRONG'}, nothing lost")
    del futures
    fewest = _wait(lambda: len(cluster.workers) == 1, 30)
    console.print(f"  down to {len(cluster.workers)} worker{'' if fewest else 's'} when the work is done")
    console.print(
        "  [dim]adapted with keep_paid=False; by itself, idle machines stay for their paid minute[/]"
    )
    return {
        "tasks": tasks,
        "sum of squares": total,
        "most workers": peak,
        "fewest workers": len(cluster.workers),
        "interrupted": victim,
        "survived": total == expected and bool(victim) and peak > WORKERS and bool(fewest),
    }


def _take_back(console: Console, cluster: CloudCluster, cloud: Emulator) -> str | None:
    """Let the cloud take back a spot machine that has work, with its own notice; None when there is none."""
    machines = dict(cluster.fleet.machines)
    on_spot = [id for id in sorted(machines) if machines[id].market == "spot" and id in cluster.observed]
    for victim in on_spot[:1]:
        cloud.interrupt(victim)
        console.print(f"  the cloud takes back spot machine {victim}: its data moves, the work goes on")
        return victim
    return None


def _wait(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _what_is_left(console: Console, cloud: Emulator) -> list[str]:
    """Ask the cloud until it says that nothing is left: a stopping task's interface takes its time to go."""
    began = time.monotonic()
    _say(console, "What the cloud's own API still has of the cluster", "the free landing aside")
    _wait(lambda: not cloud.leftovers(), 15)
    left = cloud.leftovers()
    took = f"{time.monotonic() - began:.1f} s after close; {len(cloud.calls)} API calls in all"
    console.print(f"  [green]nothing[/] ({took})" if not left else f"  [red]{left}[/] ({took})")
    return left


def _keep(console: Console, cloud: Emulator, stage: Stage) -> None:
    _say(console, f"The emulated {stage.title} stays up until Ctrl-C", "in another shell:")
    for key, value in cloud.environ.items():
        console.print(f"export {key}={value}", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _say(console: Console, what: str, why: str) -> None:
    console.print(f"\n[bold]{what}[/]  [dim]{why}[/]")
