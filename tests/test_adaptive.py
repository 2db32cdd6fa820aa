"""The adaptive policy, as a pure function and as what a real cluster does."""

from __future__ import annotations

import dataclasses
import math
import random
import time

import distributed
import pytest
from cloudruntime.boot import Boot
from contract import until
from distributed import Client, wait
from doubles import MemoryProvider
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import CloudWarning, ConfigError, FargateCluster, ProcessCluster
from cloudprovider.adapt import CloudAdaptive
from cloudprovider.adaptive import Decision, Experience, Known, Rules, Situation, Work, decide, paid_until
from cloudprovider.bill import Rate
from cloudprovider.events import Events, Phase
from cloudprovider.fleet import Fleet
from cloudprovider.providers.ecs import ECSProvider

GB = 2**30
#: A machine as on Fargate: it bills from 10 s after its order, arrives after 40 s, and costs 60 s at least.
FARGATE = {"boot_s": 40.0, "unbilled_s": 10.0, "minimum_s": 60.0}


def here(id, *, age=300.0, idle=None, now=1000.0, **facts):
    """A machine that arrived long ago."""
    since = None if idle is None else now - idle
    return Known(
        id=id, ordered=now - age, arrived=True, billed_from=now - age + 10, idle_since=since, **facts
    )


def burst(tasks, each, *, running=0):
    """Equal tasks, of which some run."""
    return Work(ready=tasks, ready_s=tasks * each, movable=tasks - running)


# -- properties ------------------------------------------------------------------------------------------

NOW = 10_000.0
seconds = st.floats(0, 5000)
machines = st.builds(
    Known,
    id=st.uuids().map(str),
    ordered=seconds.map(lambda age: NOW - age),
    arrived=st.booleans(),
    billed_from=st.none() | seconds.map(lambda age: NOW - age),
    idle_since=st.none() | seconds.map(lambda age: NOW - age),
    nbytes=st.integers(0, 8 * GB) | st.just(0),
    memory=st.sampled_from([0, 4 * GB, 8 * GB]),
    pinned=st.booleans(),
    per_second=st.sampled_from([1e-5, 2e-5]),
)
works = st.builds(
    Work,
    ready=st.integers(0, 10_000),
    ready_s=st.floats(0, 1e6),
    movable=st.integers(0, 10_000),
    waiting=st.integers(0, 10_000),
    waiting_s=st.floats(0, 1e6),
)
situations = st.builds(
    Situation,
    now=st.just(NOW),
    work=works,
    machines=st.lists(machines, max_size=12, unique_by=lambda m: m.id).map(tuple),
    threads=st.integers(1, 16),
    boot_s=st.floats(0, 600),
    unbilled_s=st.floats(0, 100),
    minimum_s=st.sampled_from([0.0, 1.0, 60.0, 3600.0]),
    pauses_s=st.lists(st.floats(0, 120), max_size=4).map(tuple),
)
rules = st.builds(
    lambda least, more, **others: Rules(minimum=least, maximum=least + more, **others),
    st.integers(0, 6),
    st.integers(0, 20) | st.just(math.inf),
    patience_s=st.floats(0, 60),
    share=st.floats(0.01, 0.9),
    target_s=st.none() | st.floats(0, 600),
    keep_paid=st.booleans(),
)


@given(situations, rules)
def test_never_outside_the_bounds(situation, rules):
    """The target is within minimum and maximum, and whoever goes is one of ours, named once."""
    decision = decide(situation, rules)
    ids = [machine.id for machine in situation.machines]

    assert rules.minimum <= decision.target <= rules.maximum
    assert len(set(decision.leave)) == len(decision.leave)
    assert set(decision.leave) <= set(ids)
    assert not decision.leave or decision.target == len(ids) - len(decision.leave)


@given(situations, rules)
def test_never_the_last_copies(situation, rules):
    """Who stays has room for the data of those who go; nobody goes with what cannot move."""
    decision = decide(situation, rules)
    if len(situation.machines) > rules.maximum:
        return  # the user lowered the maximum: the cluster drains whom it can
    going = [m for m in situation.machines if m.id in decision.leave]
    staying = [m for m in situation.machines if m.arrived and m.id not in decision.leave]

    assert not any(machine.pinned and machine.arrived for machine in going)
    if any(machine.nbytes for machine in going):
        assert staying
        known = all(machine.memory for machine in staying)
        data = sum(machine.nbytes for machine in (*going, *staying))
        assert not known or data <= sum(machine.memory for machine in staying)


@given(situations, rules)
def test_never_before_what_is_paid_for(situation, rules):
    """A machine that is let go has idled for the patience and is past its minimum, or never billed."""
    decision = decide(situation, rules)
    if len(situation.machines) > rules.maximum:
        return
    for machine in situation.machines:
        if machine.id in decision.leave and machine.arrived:
            assert machine.idle_since is not None
            assert situation.now >= machine.idle_since + rules.patience_s
            paid = -math.inf if machine.billed_from is None else machine.billed_from + situation.minimum_s
            assert not rules.keep_paid or situation.now >= paid
        elif machine.id in decision.leave:
            assert machine.billed_from is None


@given(situations, rules)
def test_never_nothing_while_there_is_work(situation, rules):
    """While there is work at least one machine is there or ordered, if the maximum allows any."""
    decision = decide(situation, rules)
    if rules.maximum >= 1 and (situation.work.ready or situation.work.waiting):
        assert decision.target >= 1


@given(situations, rules)
def test_the_same_again(situation, rules):
    """The same situation and rules give the same decision."""
    assert decide(situation, rules) == decide(situation, rules)


@given(
    billed=st.floats(0, 200),
    idle=st.floats(0, 200),
    patience=st.floats(0, 30),
    minimum=st.sampled_from([0.0, 60.0, 90.0]),
)
def test_goes_within_one_interval_after_its_paid_period(billed, idle, patience, minimum):
    """Asked every second, an idle machine goes at the first question after what is paid for, not before."""
    machine = Known(id="m", arrived=True, billed_from=billed, idle_since=idle)
    rules = Rules(patience_s=patience)
    ends = max(billed + minimum, idle + patience)
    left = next(
        now
        for now in range(int(idle) + 1, 1000)
        if decide(Situation(now=now, machines=(machine,), minimum_s=minimum), rules).leave
    )
    assert ends <= left <= max(ends, idle) + 1


@given(
    tasks=st.integers(1, 2000),
    each=st.floats(0.01, 120),
    count=st.integers(1, 20),
    threads=st.sampled_from([1, 2, 4]),
    share=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_orders_only_what_pays(tasks, each, count, threads, share):
    """Each ordered machine finds so much work on its arrival that it is its share of what will be billed."""
    work = burst(tasks, each, running=min(tasks, count * threads))
    there = tuple(here(f"m{k}") for k in range(count))
    situation = Situation(now=1000.0, work=work, machines=there, threads=threads, **FARGATE)
    extra = decide(situation, Rules(share=share)).target - count
    assert extra >= 0
    if extra:
        # The work can at best be spread evenly over all of them.
        ends = (work.ready_s / threads + extra * 40) / (count + extra)
        busy = ends - 40
        assert busy >= share * max(60, 30 + busy) - 1e-6


# -- single decisions --------------------------------------------------------------------------------------


def test_small_work_orders_nothing():
    """Ten tasks of a second are done by the machine that is there before another could come."""
    situation = Situation(now=1000.0, work=burst(10, 1.0, running=1), machines=(here("a"),), **FARGATE)
    assert Decision(target=1) == decide(situation, Rules())


def test_large_work_orders_many():
    """An hour of work is spread over as many machines as it pays for, within the maximum."""
    situation = Situation(now=1000.0, work=burst(3600, 1.0, running=1), machines=(here("a"),), **FARGATE)
    assert 30 < decide(situation, Rules()).target < 250
    assert 10 == decide(situation, Rules(maximum=10)).target


def test_target_duration_sets_how_many():
    """With a target of a minute an hour of work is ordered some sixty machines."""
    situation = Situation(now=1000.0, work=burst(3600, 1.0), machines=(), **FARGATE)
    assert 60 == decide(situation, Rules(target_s=60)).target


def test_few_long_tasks_order_few():
    """Three tasks of an hour are three machines' work, however long they are."""
    situation = Situation(now=1000.0, work=burst(3, 3600.0), machines=(), **FARGATE)
    assert 3 == decide(situation, Rules()).target


def test_tasks_that_run_gain_nothing():
    """Work that has begun everywhere orders nobody: a task does not split."""
    busy = tuple(here(f"m{k}") for k in range(4))
    situation = Situation(now=1000.0, work=burst(4, 3600.0, running=4), machines=busy, **FARGATE)
    assert Decision(target=4) == decide(situation, Rules())


def test_first_machine_is_ordered_for_any_work():
    """With nothing there even a single short task is ordered a machine."""
    situation = Situation(now=1000.0, work=burst(1, 0.01), **FARGATE)
    assert 1 == decide(situation, Rules()).target


def test_machines_on_their_way_count():
    """What is ordered is not ordered again a second later."""
    work = burst(300, 1.0)
    first = decide(Situation(now=1000.0, work=work, **FARGATE), Rules()).target
    coming = tuple(Known(id=f"m{k}", ordered=1000.0) for k in range(first))
    for later in range(40):
        situation = Situation(now=1000.0 + later, work=work, machines=coming, **FARGATE)
        assert first == decide(situation, Rules()).target


def test_taken_back_before_it_bills():
    """When the work is over before a machine comes that does not bill yet, it is taken back; a billed one stays."""
    free = Known(id="free", ordered=995.0)
    paid = Known(id="paid", ordered=980.0, billed_from=990.0)
    situation = Situation(now=1000.0, machines=(here("a", idle=1), free, paid), **FARGATE)
    assert ("free",) == decide(situation, Rules(minimum=1, patience_s=5)).leave


def test_idle_between_stages():
    """While much work waits for the last task of a stage, idle machines stay as long as a boot costs."""
    work = Work(ready=1, ready_s=20.0, waiting=400, waiting_s=400.0)
    there = (here("busy"), *(here(f"m{k}", idle=15) for k in range(3)))
    assert () == decide(Situation(now=1000.0, work=work, machines=there, **FARGATE), Rules()).leave
    alone = dataclasses.replace(work, waiting=0, waiting_s=0.0)
    assert 3 == len(decide(Situation(now=1000.0, work=alone, machines=there, **FARGATE), Rules()).leave)


def test_work_for_nobody_orders_nobody():
    """Tasks that the idle machine does not get (their resources are elsewhere) order no others like it."""
    situation = Situation(now=1000.0, work=burst(1000, 10.0), machines=(here("a", idle=2),), **FARGATE)
    assert 1 == decide(situation, Rules()).target
    later = dataclasses.replace(situation, now=5000.0)
    assert Decision(target=1) == decide(later, Rules())


def test_data_orders_room_and_keeps_it():
    """Data that fills the memory orders machines, and those that hold it stay when they are idle."""
    full = tuple(here(f"m{k}", nbytes=3 * GB, memory=4 * GB, idle=500) for k in range(4))
    situation = Situation(now=1000.0, machines=full, **FARGATE)
    assert 5 == decide(situation, Rules()).target
    fewer = tuple(dataclasses.replace(m, nbytes=GB // 2) for m in full)
    decision = decide(dataclasses.replace(situation, machines=fewer), Rules())
    assert 1 == decision.target


def test_the_dearest_goes_first():
    """Of two idle machines the one that costs more goes, when one has to stay."""
    pair = here("cheap", idle=90, per_second=1e-5), here("dear", idle=90, per_second=3e-5)
    situation = Situation(now=1000.0, machines=pair, **FARGATE)
    assert ("dear",) == decide(situation, Rules(minimum=1)).leave


def test_a_lower_maximum_ends_the_least_useful():
    """Above the maximum those go first that are not here, then the idle, then who holds the least."""
    there = (here("busy"), here("idle", idle=1), Known(id="coming", ordered=999.0))
    situation = Situation(now=1000.0, machines=there, **FARGATE)
    assert ("coming", "idle") == decide(situation, Rules(maximum=1)).leave


def test_paid_until_is_the_later_of_both():
    """What is paid for ends with the minimum, or with the patience if that is later."""
    young = here("a", age=30, idle=15)
    situation = Situation(now=1000.0, machines=(young,), **FARGATE)
    assert 1000 - 30 + 10 + 60 == paid_until(young, situation, Rules(), 1)
    assert 1000 - 15 + 5 == paid_until(young, situation, Rules(patience_s=5, keep_paid=False), 1)


def test_minimum_above_maximum():
    """Rules that no number keeps are refused."""
    with pytest.raises(ValueError, match="between 0 and the maximum"):
        Rules(minimum=3, maximum=2)


# -- experience --------------------------------------------------------------------------------------------


def test_learns_how_long_boots_take():
    """The median of the boots seen counts, the provider's word before, and no clock that jumped."""
    experience = Experience(60.0)
    assert (60.0, 0.0) == (experience.boot_s, experience.unbilled_s)
    for number, took in enumerate([30.0, 41.0, 400.0, -5.0, 9e9]):
        experience.ordered(f"m{number}", 1000.0)
        experience.arrived(f"m{number}", 1000.0 + took)
    experience.arrived("adopted", 1000.0)
    experience.billed(10.0)
    experience.billed(-3.0)
    assert (41.0, 10.0) == (experience.boot_s, experience.unbilled_s)


def test_learns_from_the_last_boots():
    """A cloud that has become slow is believed."""
    experience = Experience(60.0, last=4)
    for number, took in enumerate([30.0] * 10 + [90.0] * 3):
        experience.ordered(f"m{number}", 0.0)
        experience.arrived(f"m{number}", took)
    assert 90.0 == experience.boot_s


def test_learns_how_long_pauses_are():
    """What has paused shortly is waited for, as long as that costs less than ordering it again."""
    experience = Experience(40.0)
    now = 0.0
    for pause in [20.0] * 6:
        for _ in range(3):
            now += 1.0
            experience.busy(2, now)
        experience.busy(1, now + pause / 2)
        now += pause
    first, second = experience.pauses_s
    assert first <= 15
    assert 20 <= second <= 25


def test_does_not_wait_for_what_comes_back_late():
    """Where most pauses last longer than a few boots cost, even the shorter one is not waited for."""
    experience = Experience(40.0)
    for when in (0.0, 90.0, 500.0, 1500.0, 3000.0):
        experience.busy(1, when)
    assert (0.0,) == experience.pauses_s


def test_stays_for_the_next_short_pause():
    """An idle machine past its minimum stays as long as its kind of pause is worth waiting for."""
    idle = here("a", idle=20)
    situation = Situation(now=1000.0, machines=(idle,), pauses_s=(25.0,), **FARGATE)
    assert () == decide(situation, Rules()).leave
    assert ("a",) == decide(dataclasses.replace(situation, now=1006.0), Rules()).leave
    assert ("a",) == decide(dataclasses.replace(situation, pauses_s=()), Rules()).leave


# -- over time ---------------------------------------------------------------------------------------------


class Hour:
    """Machines that boot in 40 s, and a crowd of equal tasks, second by second."""

    def __init__(self, rules):
        self.rules = rules
        self.now = 0.0
        self.tasks = 0.0
        self.machines: dict[str, Known] = {}
        self.orders = 0
        self.experience = Experience(40.0)

    def second(self):
        self.now += 1
        for id, m in self.machines.items():
            arrived = m.arrived or self.now - m.ordered >= 40
            billed = m.billed_from if self.now - m.ordered < 10 else m.ordered + 10
            self.machines[id] = dataclasses.replace(m, arrived=arrived, billed_from=billed)
        here = [id for id, m in self.machines.items() if m.arrived]
        busy = here[: math.ceil(self.tasks)]
        self.tasks = max(0.0, self.tasks - len(busy))
        for id in here:
            since = None if id in busy else self.machines[id].idle_since or self.now
            self.machines[id] = dataclasses.replace(self.machines[id], idle_since=since)
        tasks = math.ceil(self.tasks)
        self.experience.busy(len(busy), self.now)
        decision = decide(
            Situation(
                now=self.now,
                work=burst(tasks, 1.0, running=min(tasks, len(busy))),
                machines=tuple(self.machines.values()),
                pauses_s=self.experience.pauses_s,
                **FARGATE,
            ),
            self.rules,
        )
        for id in decision.leave:
            del self.machines[id]
        for _ in range(decision.target - len(self.machines)):
            id = f"m{self.orders}"
            self.orders += 1
            self.machines[id] = Known(id=id, ordered=self.now)


def test_a_bursty_hour_orders_few():
    """An hour of bursts a minute apart is done with few orders: machines do not come and go with each."""
    hour = Hour(Rules(maximum=20))
    chance = random.Random(5)
    for second in range(3600):
        if second % 60 == 0:
            hour.tasks += chance.choice([20, 60, 120])
        hour.second()

    assert hour.orders <= 40
    assert hour.tasks < 120


def test_work_that_never_ends():
    """Work without end fills the maximum once, and orders nobody after."""
    hour = Hour(Rules(maximum=8))
    for _ in range(1800):
        hour.tasks = 5000.0
        hour.second()
    assert 8 == hour.orders == len(hour.machines)


def test_a_quiet_end_lets_all_go():
    """After the last task everybody is gone within a minute and a bit."""
    hour = Hour(Rules(maximum=20))
    hour.tasks = 2000.0
    while hour.tasks or not hour.machines:
        hour.second()
    done = hour.now
    while hour.machines:
        hour.second()
    assert hour.now - done <= 70


@pytest.mark.parametrize("room", [0, 3])
def test_refusals_do_not_loop(room):
    """A cloud that refuses for an hour is asked ever less often, not once an interval."""
    provider = MemoryProvider()
    provider.room = room
    clock = [0.0]
    fleet = Fleet(provider, lambda: Boot(cluster="memory", role="worker"), Events(), clock=lambda: clock[0])
    for second in range(3600):
        clock[0] = float(second)
        known = tuple(here(id, now=clock[0]) for id in fleet.machines)
        work = burst(random.Random(second).randrange(500, 5000), 1.0, running=len(known))
        fleet.target = decide(
            Situation(now=clock[0], work=work, machines=known, **FARGATE), Rules(maximum=50)
        ).target
        fleet.reconcile(set(fleet.machines))
    assert room == len(fleet.machines)
    assert provider.calls["create"] <= 25


# -- on real clusters --------------------------------------------------------------------------------------


class ShortMinute(ECSProvider):
    """A Fargate whose billing minimum is three seconds, so that a test sees its end."""

    minimum_s = 3

    def rate(self, machine):
        return dataclasses.replace(super().rate(machine), minimum_s=self.minimum_s)


class ShortCluster(FargateCluster):
    """A FargateCluster on it."""

    config_class = FargateCluster.config_class
    provider_class = ShortMinute


SMALL = {
    "progress": False,
    "worker_cpu": 0.25,
    "worker_memory": "0.5 GiB",
    "scheduler_cpu": 0.25,
    "scheduler_memory": "0.5 GiB",
}


def sleeper():
    """A task of 0.2 s; made in a function, it travels by value: machines do not have these tests."""

    def nap(x):
        time.sleep(0.2)
        return x

    return nap


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


def test_up_for_work_and_down_when_paid(cloud):
    """Machines come for work that pays; idle ones stay to the end of what is paid for, and go then."""
    with ShortCluster(**SMALL) as cluster, Client(cluster) as client:
        adaptive = cluster.adapt(minimum=0, maximum=3, interval="100ms", target_duration="1s", wait_count=2)
        assert isinstance(adaptive, CloudAdaptive)
        assert list(range(60)) == client.gather(client.map(sleeper(), range(60), pure=False))
        assert 3 == len(cluster.fleet.machines)
        assert 0 < adaptive.experience.boot_s < 10
        until(lambda: not cluster.workers, 20, "all are returned")
        gone = cluster.fleet.ended.values()
        lives = [machine.ended - (machine.billed_from or machine.created) for machine in gone]
    assert all(life >= 3 for life in lives)
    assert min(lives) < 6
    assert 3 == len(lives)


def test_data_stays_when_work_is_done(cloud):
    """With a minimum of nothing, the machine that holds a result stays until the result is let go."""
    with ShortCluster(**SMALL) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=2, interval="100ms", target_duration="1s", wait_count=2)
        futures = client.map(sleeper(), range(20), pure=False)
        wait(futures, timeout=60)
        until(lambda: 1 == len(cluster.workers), 20, "one is left")
        time.sleep(1)
        assert list(range(20)) == client.gather(futures)
        assert 1 == len(cluster.workers)
        assert not cluster.events.of(Phase.kept)
        futures.clear()
        until(lambda: not cluster.workers, 20, "the last goes with its data")


def test_refused_lost_and_found_again(tmp_path):
    """Adapting goes on after a refusal, after a lost machine, and from a client that comes later."""
    options = {"directory": str(tmp_path), "progress": False}
    how = {"interval": "200ms", "target_duration": "1s", "wait_count": 2, "keep_paid": False}
    cluster = ProcessCluster(name="found", **options)
    with Client(cluster) as client:
        cluster.provider.capacity = 2
        cluster.adapt(minimum=1, maximum=3, **how)
        futures = client.map(sleeper(), range(60), pure=False)
        until(lambda: cluster.events.of(Phase.refused), 20, "the cloud refuses")
        refused = len(cluster.events.of(Phase.refused))
        cluster.provider.delete([min(cluster.fleet.machines)])
        wait(futures, timeout=60)
        assert refused <= len(cluster.events.of(Phase.refused)) <= 8
        with pytest.warns(CloudWarning, match="60 results"):
            cluster.detach()
    with ProcessCluster.from_name("found", **options) as again, Client(again) as client:
        again.adapt(minimum=0, maximum=2, **how)
        assert 7 == client.submit(sleeper(), 7, pure=False).result(timeout=30)
        until(lambda: not again.workers, 30, "all are returned")


def test_several_workers_a_machine(tmp_path):
    """Bounds are workers, machines come and go whole within them."""
    with (
        ProcessCluster(
            directory=str(tmp_path), progress=False, workers_per_machine=2, worker_nthreads=1
        ) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(ConfigError, match="2 workers each"):
            cluster.adapt(minimum=1, maximum=1)
        cluster.adapt(maximum=5, interval="200ms", target_duration="1s", wait_count=2, keep_paid=False)
        client.gather(client.map(sleeper(), range(80), pure=False))
        assert 4 == len(cluster.workers)
        until(lambda: not cluster.workers, 30, "all are returned")


def test_what_the_scheduler_says(tmp_path):
    """The runtime says what is left, waiting tasks included; of an older one much the same is guessed."""

    async def both(adaptive):
        said = (await adaptive.scheduler.cloud_status())["work"]
        return said, await adaptive._guess()

    with (
        ProcessCluster(directory=str(tmp_path), progress=False, n_workers=1, worker_nthreads=1) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        adaptive = cluster.adapt(minimum=1, maximum=1)
        said, guessed = cluster.sync(both, adaptive)
        assert (0, 0, 0) == (said["ready"], said["waiting"], guessed["ready"])

        futures = client.map(sleeper(), range(50), pure=False)
        total = client.submit(sum, futures)
        wait(futures[:5], timeout=30)
        said, guessed = cluster.sync(both, adaptive)
        assert 20 <= said["ready"] <= 45
        assert 0.2 == pytest.approx(said["ready_s"] / said["ready"], rel=0.3)
        assert said["ready"] - 1 == said["movable"]
        assert 1 == said["waiting"]
        assert guessed["ready"] >= 1
        assert said["workers"].keys() == guessed["workers"].keys() == cluster.workers.keys()
        for [worker] in (said["workers"].values(), guessed["workers"].values()):
            assert 1 == worker["nthreads"]
            assert worker["memory"] > 0
            assert not worker["pinned"]
        assert 1225 == total.result(timeout=30)


def test_another_class_and_wrong_options(tmp_path):
    """`Adaptive=` takes Dask's own class with its options; ours says what it does not have."""
    with ProcessCluster(directory=str(tmp_path), progress=False) as cluster:
        with pytest.raises(ConfigError, match="minimum is above the maximum"):
            cluster.adapt(minimum=3, maximum=2)
        with pytest.raises(ConfigError, match="worker_key"):
            cluster.adapt(maximum=3, worker_key=str)
        with pytest.raises(ConfigError, match="wait_count"):
            cluster.adapt(maximum=3, wait_count=0)
        with pytest.raises(ConfigError, match="target_duration"):
            cluster.adapt(maximum=3, target_duration="soon")
        with pytest.raises(ConfigError, match="whole number"):
            cluster.adapt(maximum=2.5)
        own = cluster.adapt(maximum=3)
        assert isinstance(own, CloudAdaptive)
        assert own.rules == Rules(maximum=3)
        stock = cluster.adapt(Adaptive=distributed.Adaptive, maximum=2, worker_key=str)
        assert type(stock) is distributed.Adaptive
        assert isinstance(cluster.adapt(maximum=1), CloudAdaptive)


def test_a_rate_says_the_minimum():
    """What the policy calls paid for is the provider's own billing minimum."""
    assert 60 == Rate(per_hour=1.0, minimum_s=60).minimum_s
