"""What the adaptive benchmark compares: each says, at every interval, which machines there shall be."""

from __future__ import annotations

import math

from adaptive_world import STOP_S
from distributed.core import Status
from distributed.deploy.adaptive import Adaptive

from cloudprovider.adaptive import Experience, Known, Rules, Situation, Work, decide


class Policy:
    """Looks at a World every `interval` seconds and orders or lets go."""

    interval = 1.0

    def begin(self, world):
        """Before the first event."""

    def arrived(self, machine, now):
        """A machine has come."""

    def step(self, world):
        """Decide."""


class Fixed(Policy):
    """The same number of machines from the first second to the last."""

    interval = 0

    def __init__(self, count):
        self.count = count

    def begin(self, world):
        world.order(self.count)


class _Cluster:
    """A cluster as Dask's Adaptive sees it: one worker a machine."""

    status = Status.running

    def __init__(self, world):
        self.world = world
        self.scheduler_comm = self

    @property
    def plan(self):
        return set(self.world.machines)

    requested = plan

    @property
    def observed(self):
        return set(self.world.workers)

    def scale(self, n):
        self.world.order(n - len(self.world.machines))

    def scale_down(self, workers):
        self.world.let_go(workers)

    async def adaptive_target(self, target_duration):
        return self.world.adaptive_target(target_duration)

    async def workers_to_close(self, **options):
        return self.world.workers_to_close(**{k: v for k, v in options.items() if v is not None})

    async def retire_workers(self, names, **options):
        """`scale_down` follows at once, and drains."""


class Dask(Policy):
    """distributed's own Adaptive: its real code, asked in simulated time."""

    def __init__(self, maximum, interval=1.0, target_s=5.0, wait_count=3, minimum=0):
        self.interval = interval
        self.options = {
            "minimum": minimum, "maximum": maximum, "target_duration": target_s, "wait_count": wait_count
        }  # fmt: skip

    def begin(self, world):
        # Without an interval of its own it has no clock: the world calls it.
        self.adaptive = Adaptive(_Cluster(world), interval=0, **self.options)

    def step(self, world):  # noqa: ARG002  (it sees it through its cluster)
        turn = self.adaptive.adapt()
        try:
            turn.send(None)  # nothing in it waits
        except StopIteration:
            return
        raise RuntimeError("Dask's Adaptive waited for something that is not simulated.")


class Ours(Policy):
    """`cloudprovider.adaptive`, with what `cloudprovider.adapt` would tell it."""

    def __init__(self, maximum, minimum=0, default_boot_s=60.0, **rules):
        self.rules = Rules(minimum=minimum, maximum=maximum, **rules)
        self.experience = Experience(default_boot_s)
        self.idle = {}

    def arrived(self, machine, now):
        self.experience.ordered(machine.name, machine.ordered)
        self.experience.arrived(machine.name, now)
        self.experience.billed(machine.billed_from - machine.ordered)

    def step(self, world):
        decision = decide(self.situation(world), self.rules)
        if decision.leave:
            world.let_go(decision.leave)
        elif decision.target > len(world.machines):
            world.order(decision.target - len(world.machines))

    def situation(self, world):
        running = [task for m in world.workers.values() for task in m.processing]
        self.experience.busy(sum(bool(m.processing) for m in world.workers.values()), world.now)
        duration = world.mean_duration
        left = sum(max(0.0, duration(t.prefix) - (world.now - t.began)) for t in running)
        left += sum(duration(task.prefix) for task in world.queue)
        return Situation(
            now=world.now,
            work=Work(
                ready=len(running) + len(world.queue),
                ready_s=left,
                movable=len(world.queue),
                waiting=sum(world.waiting.values()),
                waiting_s=sum(duration(prefix) * count for prefix, count in world.waiting.items()),
            ),
            machines=tuple(self.known(m, world) for m in world.machines.values()),
            threads=world.cloud.threads,
            boot_s=self.experience.boot_s,
            unbilled_s=self.experience.unbilled_s,
            minimum_s=world.cloud.minimum_s,
            pauses_s=self.experience.pauses_s,
        )

    def known(self, machine, world):
        # Like the real one, it sees at its intervals only whether a machine is idle.
        idle = machine.arrived and not machine.processing
        since = self.idle.setdefault(machine.name, world.now) if idle else self.idle.pop(machine.name, None)
        return Known(
            id=machine.name,
            ordered=machine.ordered,
            arrived=machine.arrived,
            billed_from=machine.billed_from if machine.billed_from <= world.now else None,
            idle_since=since if idle else None,
            nbytes=machine.nbytes,
            memory=machine.memory_limit,
            per_second=world.cloud.per_second,
        )


def bound(world):
    """Machine-seconds that whoever knew the future would at least have paid for the same service.

    Every job must be done when it was done in this run. The work itself bills. Beside it bill, for the
    fewest machines that can do a job in its time, each one's boots, its billing minimums, and its idle
    seconds where it stays for a later job, whatever is cheapest. It is a bound, not a schedule: dependencies
    and the lengths of tasks are left out, which makes it lower.
    """
    cloud = world.cloud
    windows = _windows(world)
    first, end, work = windows[0]
    windows[0] = (max(first, cloud.boot_s * (1 - cloud.spread)), end, work)  # nothing is there at first
    least = [math.ceil(work / cloud.threads / (end - begin) - 1e-9) for begin, end, work in windows]
    beside = 0.0
    for level in range(1, max(least) + 1):
        needed = [window[:2] for window, count in zip(windows, least, strict=True) if count >= level]
        beside += _cheapest(needed, cloud)
    return sum(work for *_, work in windows) / cloud.threads + beside


def _cheapest(windows, cloud):
    """Seconds that one machine bills beside its work, if it stays or comes again as is cheapest."""
    boot_s = cloud.boot_s - cloud.unbilled_s + STOP_S
    best = [0.0]
    for last in range(len(windows)):
        idle = busy = 0.0
        costs = []
        for first in range(last, -1, -1):  # one life from the first of these windows to the last
            begin, end = windows[first]
            busy += end - begin
            if first < last:
                idle += windows[first + 1][0] - end
            costs.append(best[first] + max(boot_s + idle, cloud.minimum_s - busy))
        best.append(min(costs))
    return best[-1]


def _windows(world):
    """Times in which there was work, as (begin, end, seconds of work); jobs that overlap are one."""
    windows = []
    for job in sorted(world.jobs, key=lambda job: job.submitted):
        if windows and job.submitted < windows[-1][1]:
            begin, end, work = windows.pop()
            windows.append((begin, max(end, job.ended), work + job.work))
        else:
            windows.append((job.submitted, job.ended, job.work))
    return windows
