"""Machines with a notice are emptied: what goes first, where to, what is finished, what is named."""

from __future__ import annotations

import asyncio
import contextlib
import time

import dask
import numpy as np
from cloudruntime.leaving import Leavers, machine_of
from distributed import Client, Scheduler, Worker

#: Each copy is a message of its own, so that their order can be seen; and nothing of Dask's moves anything.
CALM = {
    "distributed.worker.transfer.message-bytes-limit": 1,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-saturation": float("inf"),
}


class Room:
    """A scheduler, its workers, one client, and what empties machines."""

    def __init__(self, scheduler, workers, client):
        self.scheduler, self.workers, self.client = scheduler, workers, client
        self.leavers = Leavers(scheduler, stay_s=0)

    async def leaves(self, name, within_s=20.0):
        """A machine gets its notice; returns when it is empty or its time is over."""
        leaver = self.leavers.notice(name, "test", within_s)
        await asyncio.wait_for(leaver.over.wait(), within_s + 20)
        return leaver

    def holds(self, name):
        """Keys that a worker has."""
        return {str(key) for key in self.workers[name].data}


def room(scenario, *names, **limits):
    """Run a scenario with workers of these names; `limits` are memory limits by name."""

    async def play():
        with dask.config.set(CALM):
            async with contextlib.AsyncExitStack() as stack:
                scheduler = await stack.enter_async_context(
                    Scheduler(host="127.0.0.1", dashboard=False, port=0)
                )
                workers = {}
                for name in names:
                    options = {"nthreads": 1, "dashboard": False, "memory_limit": limits.get(name, 0)}
                    workers[name] = await stack.enter_async_context(
                        Worker(scheduler.address, name=name, **options)
                    )
                client = await stack.enter_async_context(Client(scheduler.address, asynchronous=True))
                here = Room(scheduler, workers, client)
                try:
                    return await scenario(here)
                finally:
                    here.leavers.stop()

    return asyncio.run(play())


async def until(condition):
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (Dask has no event for it)
            await asyncio.sleep(0.01)


def block(megabytes, _=None):
    return np.ones(int(megabytes * 125_000))


def slow_block(seconds):
    time.sleep(seconds)
    return block(0.01)


def test_worker_names_say_their_machine():
    """A worker belongs to the machine it is named after, with or without a number."""
    assert "m-1" == machine_of("m-1", {"m-1"})
    assert "m-1" == machine_of("m-1-0", {"m-1"})
    assert "m" == machine_of("m-1", {"m"})
    assert None is machine_of("m-x", {"m"})
    assert None is machine_of("m", {"m-1"})


def test_what_cannot_be_computed_again_goes_first():
    """Scattered data and results whose inputs were forgotten move before the rest, the dear before the cheap."""

    async def scenario(here):
        cheap = here.client.submit(block, 0.01, key="cheap", workers=["leaver"])
        dear = here.client.submit(slow_block, 0.5, key="dear", workers=["leaver"])
        source = await here.client.scatter(block(0.01), workers=["leaver"])
        orphan = here.client.submit(np.sum, source, key="orphan", workers=["leaver"])
        await here.client.gather([cheap, dear, orphan])
        source.release()
        del source
        kept = await here.client.scatter({"kept": block(0.01)}, workers=["leaver"])
        await until(lambda: len(here.scheduler.tasks) == 4)
        leaver = await here.leaves("leaver")
        order = [key for one in here.workers["stays"].transfer_incoming_log for key in one["keys"]]
        return leaver, order, kept, (cheap, dear, orphan)

    leaver, order, _, _ = room(scenario, "leaver", "stays")

    assert "drained" == leaver.state
    assert {"kept", "orphan"} == set(order[:2])
    assert ["dear", "cheap"] == order[2:]
    assert (4, {}) == (leaver.moved, leaver.lost)


def test_two_copies_on_two_machines_that_leave_are_not_enough():
    """A key whose only copies are on machines that all leave is copied to one that stays."""

    async def scenario(here):
        data = await here.client.scatter({"shared": 1}, broadcast=True)
        await drop(here, "shared", "c")
        states = [one.state for one in await asyncio.gather(here.leaves("a"), here.leaves("b"))]
        return states, here.holds("c"), data

    states, held, _ = room(scenario, "a", "b", "c")

    assert ["drained", "drained"] == states
    assert {"shared"} == held


async def drop(here, key, name):
    """Take a copy from a worker, if it has one."""
    ws = here.scheduler.workers[here.workers[name].address]
    if here.scheduler.tasks[key] in ws.has_what:
        here.scheduler.request_remove_replicas(ws.address, [key], stimulus_id="test")
        await until(lambda: not here.holds(name))


def test_copies_spread_over_those_that_stay():
    """What several machines held is spread; a machine with a notice receives nothing, however empty it is."""

    async def scenario(here):
        names = ["a", "b"]
        blocks = {
            name: here.client.map(block, [0.5] * 8, range(8), workers=[name], pure=False) for name in names
        }
        await here.client.gather([future for some in blocks.values() for future in some])
        here.leavers.notice("empty", "test", 20)
        await asyncio.gather(*(here.leaves(name) for name in names))
        return [len(here.holds(name)) for name in ("c", "d", "empty")], blocks

    (c, d, empty), _ = room(scenario, "a", "b", "c", "d", "empty")

    assert 0 == empty
    assert 16 == c + d
    assert min(c, d) >= 5


def test_nobody_is_filled_beyond_its_memory_limit():
    """What has no room anywhere is named at the end, with whether it can be computed again."""

    async def scenario(here):
        heard = []
        here.client.subscribe_topic("cloud-leaving", lambda event: heard.append(event[1]))
        large = here.client.submit(Huge, key="large", workers=["leaver"], allow_other_workers=True)
        await large
        small = await here.client.scatter({"small": block(0.1)}, workers=["leaver"])
        actor = here.client.submit(Counter, actor=True, key="actor", workers=["leaver"])
        await actor
        leaver = await here.leaves("leaver", within_s=1)
        await until(lambda: len(heard) == 2)
        return leaver, here.holds("stays"), heard, (small, actor, large)

    leaver, held, heard, _ = room(scenario, "leaver", "stays", stays="4 GB")

    assert ("late", {"large": False, "actor": False}) == (leaver.state, leaver.lost)
    assert {"small"} == held
    assert ["draining", "late"] == [one["state"] for one in heard]
    assert {"large", "actor"} == set(heard[-1]["lost"])
    assert (1, 0) == (heard[-1]["moved"], heard[-1]["lost_for_good"])


class Huge:
    """Says that it is larger than it is."""

    def __sizeof__(self):
        return 8_000_000_000


class Counter:
    """An actor."""


def test_data_waits_for_a_machine_that_comes_late():
    """With nowhere to go data waits, and no task goes back to who leaves; then it moves."""

    async def scenario(here):
        data = await here.client.scatter({"only": 1})
        leaving = asyncio.ensure_future(here.leaves("leaver"))
        await asyncio.sleep(0.5)
        state = here.leavers.known["leaver"].state
        task = here.client.submit(block, 0.01, key="task")
        async with Worker(here.scheduler.address, name="late", nthreads=1, dashboard=False) as late:
            leaver = await leaving
            await task
            return state, leaver.state, set(late.data), data

    waiting, state, held, _ = room(scenario, "leaver")

    assert ("draining", "drained") == (waiting, state)
    assert {"only", "task"} == held


def test_data_that_was_on_its_way_to_a_machine_moves_on():
    """A machine that seems empty stays a while: a client may have been scattering to it at its notice."""

    async def scenario(here):
        here.leavers.stay_s = 1.0
        leaving = asyncio.ensure_future(here.leaves("leaver"))
        await asyncio.sleep(0.3)
        leaver = here.workers["leaver"]
        sizes = leaver.update_data({"late": 1})["nbytes"]
        here.scheduler.update_data(who_has={"late": [leaver.address]}, nbytes=sizes, client=here.client.id)
        return (await leaving).state, here.holds("stays")

    assert ("drained", {"late"}) == room(scenario, "leaver", "stays")


def test_a_task_that_ends_in_time_ends_here_and_those_behind_it_elsewhere():
    """A running task is finished and its result moved; tasks that have not begun run elsewhere at once."""

    async def scenario(here):
        running = here.client.submit(
            slow_block, 2, key="running", workers=["leaver"], allow_other_workers=True
        )
        await begun(here, "running")
        queued = here.client.map(
            block, [0.01] * 3, range(3), workers=["leaver"], allow_other_workers=True, pure=False
        )
        await until(lambda: len(here.scheduler.tasks) == 4)
        leaving = asyncio.ensure_future(here.leaves("leaver"))
        await here.client.gather(queued)
        before_the_end = not leaving.done()
        leaver = await leaving
        return (
            before_the_end,
            leaver,
            here.scheduler.tasks["running"].run_id,
            here.holds("stays"),
            queued,
            running,
        )

    before_the_end, leaver, _, held, _, _ = room(scenario, "leaver", "stays")

    assert before_the_end
    assert ("drained", 1) == (leaver.state, leaver.moved)
    assert 4 == len(held)


async def begun(here, key):
    """Wait until a task runs."""
    await until(lambda: any(key in worker.active_keys for worker in here.workers.values()))


def test_a_task_that_takes_too_long_begins_elsewhere_at_once():
    """A task whose kind takes longer than the time that is left does not wait for the end of it."""

    async def scenario(here):
        slow = here.client.submit(slow_block, 2, key="long-1", workers=["leaver"], allow_other_workers=True)
        await begun(here, "long-1")
        leaving = asyncio.ensure_future(here.leaves("leaver", within_s=60))
        await until(lambda: here.scheduler.tasks["long-1"].processing_on.name == "stays")
        leaver = await leaving
        await slow
        return leaver

    with dask.config.set({"distributed.scheduler.default-task-durations": {"long": "10 minutes"}}):
        leaver = room(scenario, "leaver", "stays")

    assert ("drained", {}, True) == (leaver.state, leaver.lost, leaver.left_s > 30)


def test_who_dies_first_is_named():
    """A machine that dies before its time is over loses what it alone held, and the record says what."""

    async def scenario(here):
        data = await here.client.scatter({"only": 1})
        leaving = asyncio.ensure_future(here.leaves("leaver"))
        await asyncio.sleep(0.5)
        await here.workers["leaver"].close()
        return await leaving, data

    leaver, _ = room(scenario, "leaver")

    assert ("gone", {"only": True}) == (leaver.state, leaver.lost)
    assert 1 == leaver.record()["lost_for_good"]


def test_of_two_notices_the_shorter_counts():
    """A recommendation that is followed by an interruption leaves the interruption's time; not the reverse."""

    async def scenario(here):
        here.leavers.notice("leaver", "recommendation", 600)
        first = here.leavers.notice("leaver", "interruption", 100).left_s
        again = here.leavers.notice("leaver", "recommendation", 600)
        return first, again.reason, again.left_s

    first, reason, left = room(scenario, "leaver")

    assert first <= 100
    assert ("interruption", True) == (reason, left <= 100)
