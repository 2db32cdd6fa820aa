"""Record workloads for the adaptive simulator from real `distributed` runs on the embedded cloud.

    python benchmarks/adaptive_record.py [NAME ...]

Each is computed by a `FargateCluster` of four real workers. What is kept is the graph, in the order of
its submission, with each task's kind, seconds, bytes and dependencies, and the pauses of whoever submits.
The data is small, so that a laptop can record it: `stretch` says by how much the simulator multiplies the
seconds of tasks, and `pace` those of pauses.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

WORKLOADS = Path(__file__).parent / "workloads"


class Recorder(SchedulerPlugin):
    """Notes what each task took and what it needed; lives in the scheduler."""

    name = "recorder"

    def __init__(self):
        self.tasks = {}
        self.needs = {}
        self.scheduler = None

    async def start(self, scheduler):
        self.scheduler = scheduler

    def transition(self, key, start, finish, *args, **kwargs):  # noqa: ARG002  (Dask's signature)
        if start == "waiting":  # what it needs is forgotten later
            self.needs[key] = [d.key for d in self.scheduler.tasks[key].dependencies]
        if finish == "memory" and start == "processing":
            seconds = sum(
                s["stop"] - s["start"] for s in kwargs.get("startstops", ()) if s["action"] == "compute"
            )
            prefix = self.scheduler.tasks[key].prefix.name
            self.tasks[key] = (prefix, seconds, kwargs.get("nbytes") or 0, self.needs.get(key, []))


def taken(dask_scheduler):
    recorder = dask_scheduler.plugins["recorder"]
    tasks, recorder.tasks = recorder.tasks, {}
    return [(str(key), p, s, n, [str(d) for d in deps]) for key, (p, s, n, deps) in tasks.items()]


def job(tasks, pause):
    """One submission as the simulator reads it: dependencies become positions."""
    position = {key: k for k, (key, *_) in enumerate(tasks)}
    return {
        "pause": round(pause, 2),
        "tasks": [
            [prefix, round(seconds, 4), nbytes, [position[d] for d in deps if d in position]]
            for _, prefix, seconds, nbytes, deps in tasks
        ],
    }


class Session:
    """A client that submits, waits, and notes each submission."""

    def __init__(self, client):
        self.client = client
        self.jobs = []

    def run(self, collection, pause=0.0):
        time.sleep(pause)
        self.client.gather(self.client.compute(collection))
        time.sleep(0.2)
        self.jobs.append(job(self.client.run_on_scheduler(taken), pause))


def burst(session):
    """Equal tasks, all at once."""
    import dask

    def work(k):
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            k = (k * 1103515245 + 12345) % 2**31
        return k

    session.run([dask.delayed(work, pure=False)(k) for k in range(400)])


def tree(session):
    """A sum over an array, as a tree."""
    import dask.array as da

    x = da.random.default_rng(1).normal(size=(8000, 8000), chunks=(500, 500))
    session.run([(x - x.mean(axis=0)).std()])


def shuffle(session):
    """A dataframe sorted by another column, as tasks."""
    import dask

    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        frame = dask.datasets.timeseries("2026-01-01", "2026-01-25", freq="10s", partition_freq="1D", seed=1)
        session.run([frame.shuffle("id").groupby("id").x.mean()])


def notebook(session):
    """Somebody who looks at a dataframe, thinks, and looks again."""
    import dask

    chance = random.Random(3)
    frame = dask.datasets.timeseries("2026-01-01", "2026-01-31", freq="5s", partition_freq="1D", seed=2)
    cells = [
        lambda: [frame.x.mean()],
        lambda: [frame.groupby("name").x.std()],
        lambda: [frame[frame.y > 0].groupby("name").y.max()],
        lambda: [frame.describe()],
        lambda: [frame.x.sum(), frame.y.sum()],
    ]
    for _ in range(12):
        session.run(chance.choice(cells)(), pause=chance.lognormvariate(0.3, 0.9))


def tail(session):
    """Most tasks are short and a few are very long."""
    import dask

    chance = random.Random(4)

    def work(seconds):
        time.sleep(seconds)
        return seconds

    lengths = [min(12.0, 0.05 * chance.paretovariate(1.1)) for _ in range(300)]
    session.run([dask.delayed(work, pure=False)(s) for s in lengths])


def stream(session):
    """Small jobs, one after another."""
    import dask

    chance = random.Random(5)

    def work(k):
        time.sleep(0.02 + 0.03 * (k % 3))
        return k

    for _ in range(40):
        parts = [dask.delayed(work, pure=False)(k) for k in range(chance.randrange(2, 20))]
        session.run([dask.delayed(sum)(parts)], pause=chance.expovariate(1 / 0.8))


#: What is recorded, and by how much its tasks and its pauses are stretched.
RECORDED = {
    "burst": (burst, 20, 1),
    "tree": (tree, 100, 1),
    "shuffle": (shuffle, 60, 1),
    "notebook": (notebook, 100, 60),
    "tail": (tail, 20, 1),
    "stream": (stream, 20, 20),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(RECORDED))
    names = parser.parse_args().names or list(RECORDED)

    from cloudprovider import FargateCluster
    from cloudprovider.emulator import Emulator

    with (
        Emulator("aws") as cloud,
        cloud.active(),
        FargateCluster(n_workers=4, worker_cpu=1, progress=False) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(4, timeout=120)
        client.register_plugin(Recorder())
        for name in names:
            record, stretch, pace = RECORDED[name]
            session = Session(client)
            record(session)
            document = {
                "name": name,
                "what": record.__doc__,
                "recorded": f"distributed {__import__('distributed').__version__}, 4 workers of 1 thread",
                "stretch": stretch,
                "pace": pace,
                "jobs": session.jobs,
            }
            path = WORKLOADS / f"{name}.json"
            path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
            tasks = [task for job in session.jobs for task in job["tasks"]]
            print(
                f"{name}: {len(session.jobs)} jobs, {len(tasks)} tasks, "
                f"{sum(t[1] for t in tasks):.1f} s, {path.stat().st_size // 1024} kB"
            )


if __name__ == "__main__":
    main()
