"""A simulated cloud and a simulated scheduler, for the adaptive benchmark: discrete events, seeded.

Time is the simulation's. Machines are ordered, bill, arrive and end as on Fargate; tasks run on their
threads in the order in which they become ready. What Dask's own decision code reads of a scheduler is
here under the names it reads, so that its real functions run on it.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from cloudruntime import work
from distributed import Scheduler

#: Of `distributed.scheduler.unknown-task-duration`.
UNKNOWN_S = 0.5
#: From the decision to end a machine until it no longer bills: its drain and its stop.
STOP_S = 2.0


@dataclass(frozen=True)
class Cloud:
    """How long machines take and what they cost.

    Boots differ by `spread` of their length, evenly, as in the embedded cloud's profile.
    """

    boot_s: float = 40.0
    unbilled_s: float = 10.0
    spread: float = 0.1
    minimum_s: float = 60.0
    threads: int = 2
    memory: int = 8 * 2**30
    per_second: float = 0.0
    scheduler_per_second: float = 0.0


@dataclass(eq=False)
class Prefix:
    """A kind of task, and how long those of it took: Dask's own moving average."""

    name: str
    duration_average: float = -1
    max_exec_time: float = -1
    done: int = 0
    done_s: float = 0.0

    def ended(self, seconds):
        self.done += 1
        self.done_s += seconds
        old = self.duration_average
        self.duration_average = seconds if old < 0 else 0.5 * seconds + 0.5 * old

    def runs(self, seconds):
        self.max_exec_time = max(seconds, self.max_exec_time)
        if seconds > 2 * self.duration_average:
            self.duration_average = -1


@dataclass(eq=False)
class Task:
    """One task of a job."""

    job: Job
    prefix: Prefix
    seconds: float
    nbytes: int
    needs: int = 0
    dependents: list[Task] = field(default_factory=list)
    dependencies: list[Task] = field(default_factory=list)
    wanted: int = 0
    began: float | None = None
    done: bool = False
    home: Machine | None = None


@dataclass(eq=False)
class Job:
    """What is submitted at once."""

    submitted: float
    left: int
    work: float
    results: list[Task] = field(default_factory=list)
    ended: float | None = None


@dataclass(eq=False)
class Machine:
    """One machine with its worker, under the names that Dask's scheduler gives a worker."""

    name: str
    ordered: float
    billed_from: float
    arrives: float
    nthreads: int
    memory_limit: int
    arrived: bool = False
    ended: float | None = None
    nbytes: int = 0
    processing: dict = field(default_factory=dict)  # tasks in the order in which they came
    long_running: tuple = ()
    holds: dict = field(default_factory=dict)
    idle_since: float | None = None

    @property
    def address(self):
        return self.name


class World:
    """Runs one workload under one policy."""

    def __init__(self, workload, cloud, policy, seed=0, limit_s=200_000.0):
        self.cloud, self.policy, self.workload = cloud, policy, workload
        self.now = 0.0
        self.machines: dict[str, Machine] = {}
        self.gone: list[Machine] = []
        self.workers: dict[str, Machine] = {}  # those that arrived, as in a Scheduler
        self.queue: deque[Task] = deque()
        self.waiting: dict[Prefix, int] = {}
        self.prefixes: dict[str, Prefix] = {}
        self.jobs: list[Job] = []
        self.orders = self.calls = 0
        self.counts: list[tuple[float, int, int]] = []  # time, machines, machines at work
        self.plugins: dict = {}
        self._events: list = []
        self._numbers = itertools.count()
        self._chance = random.Random(seed)
        self._limit_s = limit_s
        self._left = len(workload.jobs)

    # -- time --------------------------------------------------------------------------------------------

    def at(self, when, call, *args):
        heapq.heappush(self._events, (when, next(self._numbers), call, args))

    def run(self):
        self.policy.begin(self)
        for number, when in enumerate(self.workload.arrivals):
            self.at(when, self._submit, number)
        if not self.workload.arrivals:
            self.at(self.workload.jobs[0].pause, self._submit, 0)
        if self.policy.interval:
            self.at(0.0, self._tick)
        while self._left:
            self.now, _, call, args = heapq.heappop(self._events)
            if self.now > self._limit_s:
                raise RuntimeError(f"{self.workload.name} under {self.policy} does not end")
            call(*args)
        for machine in list(self.machines.values()):
            self._end(machine)
        return self

    def _tick(self):
        for machine in self.workers.values():
            for task in machine.processing:
                task.prefix.runs(self.now - task.began)
        self.policy.step(self)
        busy = sum(bool(machine.processing) for machine in self.workers.values())
        self.counts.append((self.now, len(self.machines), busy))
        self.at(self.now + self.policy.interval, self._tick)

    # -- work --------------------------------------------------------------------------------------------

    def _submit(self, number):
        spec = self.workload.jobs[number]
        job = Job(self.now, len(spec.tasks), sum(t[1] for t in spec.tasks))
        self.jobs.append(job)
        tasks = []
        for name, seconds, nbytes, needs in spec.tasks:
            prefix = self.prefixes.setdefault(name, Prefix(name))
            task = Task(job, prefix, seconds, nbytes, len(needs))
            for position in needs:
                tasks[position].dependents.append(task)
                tasks[position].wanted += 1
                task.dependencies.append(tasks[position])
            tasks.append(task)
        for task in tasks:
            if task.needs:
                self.waiting[task.prefix] = self.waiting.get(task.prefix, 0) + 1
            else:
                self.queue.append(task)
        self._dispatch()

    def _dispatch(self):
        if not self.queue:
            return
        free = [m for m in self.workers.values() if len(m.processing) < m.nthreads]
        free.sort(key=lambda m: len(m.processing))
        while self.queue and free:
            machine = free[0]
            task = self.queue.popleft()
            task.began = self.now
            machine.processing[task] = None
            machine.idle_since = None
            self.at(self.now + task.seconds, self._finish, task, machine, task.began)
            if len(machine.processing) >= machine.nthreads:
                free.pop(0)
            else:
                free.sort(key=lambda m: len(m.processing))

    def _finish(self, task, machine, began):
        if task not in machine.processing or task.began != began:
            return  # its machine went before it had ended
        del machine.processing[task]
        if not machine.processing:
            machine.idle_since = self.now
        task.done = True
        task.prefix.ended(task.seconds)
        self._hold(task, machine)
        for dependency in task.dependencies:
            dependency.wanted -= 1
            if not dependency.wanted:
                self._release(dependency)
        for dependent in task.dependents:
            dependent.needs -= 1
            if not dependent.needs:
                self.waiting[dependent.prefix] -= 1
                # Dask runs what frees memory before it starts what fills it.
                self.queue.appendleft(dependent)
        job = task.job
        job.left -= 1
        if not task.wanted:
            job.results.append(task)
        if not job.left:
            self._job_ended(job)
        self._dispatch()

    def _job_ended(self, job):
        job.ended = self.now
        self._left -= 1
        for task in job.results:
            self._release(task)
        if all(job.ended is not None for job in self.jobs):  # Dask forgets, but for its moving average
            for prefix in self.prefixes.values():
                prefix.done, prefix.done_s = 0, 0.0
        number = len(self.jobs)
        if not self.workload.arrivals and number < len(self.workload.jobs):
            self.at(self.now + self.workload.jobs[number].pause, self._submit, number)

    def _hold(self, task, machine):
        task.home = machine
        machine.nbytes += task.nbytes
        machine.holds[task] = None

    def _release(self, task):
        if task.home is not None:
            task.home.nbytes -= task.nbytes
            del task.home.holds[task]
            task.home = None

    # -- machines ----------------------------------------------------------------------------------------

    def order(self, count):
        if count <= 0:
            return
        self.orders += count
        self.calls += -(-count // 10)  # RunTask: 10 a call
        for _ in range(count):
            boot = self.cloud.boot_s * (1 + self.cloud.spread * self._chance.uniform(-1, 1))
            machine = Machine(
                name=f"m{next(self._numbers)}",
                ordered=self.now,
                billed_from=self.now + self.cloud.unbilled_s * boot / self.cloud.boot_s,
                arrives=self.now + boot,
                nthreads=self.cloud.threads,
                memory_limit=self.cloud.memory,
            )
            self.machines[machine.name] = machine
            self.at(machine.arrives, self._arrive, machine)

    def _arrive(self, machine):
        if machine.ended is None:
            machine.arrived = True
            machine.idle_since = self.now
            self.workers[machine.name] = machine
            self.policy.arrived(machine, self.now)
            self._dispatch()

    def let_go(self, names):
        """Drain and end these machines; one whose data has nowhere to go stays. Returns who went."""
        went = []
        for name in names:
            machine = self.machines.get(name)
            if machine is None:
                continue
            others = [m for m in self.workers.values() if m is not machine]
            if machine.holds and not others:
                continue
            for task in list(machine.holds):
                self._release(task)
                self._hold(task, min(others, key=lambda m: m.nbytes))
            for task in list(machine.processing):
                task.began = None
                self.queue.appendleft(task)
            machine.processing.clear()
            self._end(machine)
            went.append(name)
        self._dispatch()
        return went

    def _end(self, machine):
        machine.ended = self.now
        del self.machines[machine.name]
        self.workers.pop(machine.name, None)
        self.gone.append(machine)

    # -- what Dask's own code reads ----------------------------------------------------------------------

    @property
    def queued(self):
        return self.queue

    unrunnable: ClassVar[dict] = {}

    def _get_prefix_duration(self, prefix):
        if prefix.duration_average >= 0:
            return prefix.duration_average
        return 2 * prefix.max_exec_time if prefix.max_exec_time > 0 else UNKNOWN_S

    def mean_duration(self, prefix):
        """What the runtime says of a kind of task."""
        if prefix.done_s:
            return prefix.done_s / prefix.done
        guess = self._get_prefix_duration(prefix)
        return guess if prefix.duration_average >= 0 else max(guess, work.UNKNOWN_S)

    @property
    def total_occupancy(self):
        return sum(self._get_prefix_duration(t.prefix) for m in self.workers.values() for t in m.processing)

    def workers_to_close(self, **options):
        return Scheduler.workers_to_close(self, **options)

    def adaptive_target(self, target_duration):
        return Scheduler.adaptive_target(self, target_duration=target_duration)

    # -- what it came to ---------------------------------------------------------------------------------

    @property
    def makespan(self):
        return max(job.ended for job in self.jobs)

    @property
    def waited(self):
        return sum(job.ended - job.submitted for job in self.jobs)

    @property
    def machine_seconds(self):
        """Seconds that bill, minimums included."""
        total = 0.0
        for m in self.gone:
            if m.ended > m.billed_from:
                total += max(self.cloud.minimum_s, m.ended + STOP_S - m.billed_from)
        return total

    @property
    def dollars(self):
        return self.machine_seconds * self.cloud.per_second + self.makespan * self.cloud.scheduler_per_second
