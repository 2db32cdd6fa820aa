"""Workloads for the adaptive benchmark: recorded ones, read from `workloads/`, and generated ones."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

WORKLOADS = Path(__file__).parent / "workloads"


@dataclass(frozen=True)
class Spec:
    """One submission: a pause before it, and its tasks as (kind, seconds, bytes, positions it needs)."""

    pause: float
    tasks: list


@dataclass(frozen=True)
class Workload:
    """Submissions, each after the one before has ended and its pause; or at times, by `arrivals`."""

    name: str
    jobs: list[Spec]
    arrivals: tuple[float, ...] = ()

    @property
    def work(self):
        return sum(task[1] for job in self.jobs for task in job.tasks)


def recorded(name):
    document = json.loads((WORKLOADS / f"{name}.json").read_text())
    stretch, pace = document["stretch"], document["pace"]
    jobs = [
        Spec(
            job["pause"] * pace,
            [(kind, seconds * stretch, nbytes, needs) for kind, seconds, nbytes, needs in job["tasks"]],
        )
        for job in document["jobs"]
    ]
    return Workload(name, jobs)


def _crowd(chance, count, seconds, spread=0.2, kind="work"):
    return [(kind, max(0.01, chance.gauss(seconds, spread * seconds)), 1000, []) for _ in range(count)]


def _stages(chance, widths, seconds):
    """Stages that each need a few of the tasks before, as a shuffle or a tree does."""
    tasks = _crowd(chance, widths[0], seconds, kind="stage-0")
    before = range(widths[0])
    for number, width in enumerate(widths[1:], 1):
        begin = len(tasks)
        for _ in range(width):
            needs = sorted(chance.sample(before, min(len(before), 4)))
            length = max(0.01, chance.gauss(seconds, 0.2 * seconds))
            tasks.append((f"stage-{number}", length, 10_000, needs))
        before = range(begin, len(tasks))
    return tasks


def sessions(seed):
    """Somebody at a notebook: ten to twenty cells of very different size, with thought between them."""
    chance = random.Random(f"sessions {seed}")
    jobs = [
        Spec(
            chance.lognormvariate(3.7, 1.0),
            _crowd(chance, int(chance.lognormvariate(4, 1.2)) + 1, chance.lognormvariate(0.5, 0.8)),
        )
        for _ in range(chance.randrange(10, 20))
    ]
    return Workload(f"sessions-{seed}", jobs)


def service(seed):
    """Jobs of strangers that arrive when they do, an hour long, more of them in its middle."""
    chance = random.Random(f"service {seed}")
    arrivals, now, third = [], 0.0, 1200
    while (now := now + chance.expovariate(1 / 25 if third < now < 2 * third else 1 / 90)) < 3 * third:
        arrivals.append(now)
    jobs = [Spec(0.0, _crowd(chance, int(chance.paretovariate(0.9) * 10) % 600 + 1, 2.0)) for _ in arrivals]
    return Workload(f"service-{seed}", jobs, tuple(arrivals))


def pipeline(seed):
    """Stages of different widths, five times, with minutes between."""
    chance = random.Random(f"pipeline {seed}")
    jobs = [
        Spec(
            chance.uniform(30, 240) if number else 0.0,
            _stages(chance, [chance.choice([16, 64, 200]) for _ in range(4)], chance.choice([1.0, 3.0, 6.0])),
        )
        for number in range(5)
    ]
    return Workload(f"pipeline-{seed}", jobs)


def batch(seed):
    """One long batch of tasks of very different length."""
    chance = random.Random(f"batch {seed}")
    tasks = [("work", min(600.0, 4 * chance.paretovariate(1.3)), 1000, []) for _ in range(1200)]
    return Workload(f"batch-{seed}", [Spec(0.0, tasks)])


RECORDED = ("burst", "tree", "shuffle", "notebook", "tail", "stream")
GENERATED = (sessions, service, pipeline, batch)

#: The policy's constants were chosen on these ...
TUNED_ON = ("burst", "tree", "stream")
TUNED_SEEDS = (1, 2)
#: ... and not on these, which were looked at once, after.
HELD_OUT = ("shuffle", "notebook", "tail")
HELD_OUT_SEEDS = (11, 12)


def tuning():
    return [*map(recorded, TUNED_ON), *(make(seed) for make in GENERATED for seed in TUNED_SEEDS)]


def held_out():
    return [*map(recorded, HELD_OUT), *(make(seed) for make in GENERATED for seed in HELD_OUT_SEEDS)]
