"""The fleet keeps its target: orders, losses, refusals, boots that fail."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from cloudruntime.boot import Boot
from doubles import MemoryProvider
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudprovider.errors import BootError, CapacityError
from cloudprovider.events import Events, Phase
from cloudprovider.fleet import LONGEST_PAUSE_S, PART_S, Fleet, Notice
from cloudprovider.provider import State

NOTICE = Notice(reason="spot interruption", within_s=90)


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def provider():
    return MemoryProvider()


@pytest.fixture
def fleet(provider, clock):
    return make(provider, clock)


def make(provider, clock):
    boot = Boot(cluster="memory", role="worker", scheduler="tls://127.0.0.1:8786")
    return Fleet(provider, lambda: boot, Events(), start_timeout_s=100, clock=clock)


def step(fleet, clock, arrived=(), seconds=3.0, leaving=()):
    clock.now += seconds
    return fleet.reconcile(arrived, dict.fromkeys(leaving, NOTICE))


def test_orders_in_waves(fleet, provider, clock):
    """Twenty-five machines are ordered in waves of the provider's size, each recorded as an event."""
    fleet.ask(25)
    assert None is step(fleet, clock)

    assert 25 == len(fleet.machines)
    assert 3 == provider.calls["create"]
    assert [10, 10, 5] == [e.facts["count"] for e in fleet.events.of(Phase.ordered)]


def test_partial_order_is_kept(fleet, provider, clock):
    """When the cloud starts fewer machines than asked, those are kept and the refusal is returned."""
    provider.room = 5
    fleet.ask(10)
    refusal = step(fleet, clock)

    assert isinstance(refusal, CapacityError)
    assert 5 == len(fleet.machines)
    assert 5 == fleet.missing


def test_refused_order_is_tried_again_after_a_pause(fleet, provider, clock):
    """After a refusal the fleet pauses, ever longer, and goes on when there is room."""
    provider.room = 5
    fleet.ask(10)
    step(fleet, clock)
    step(fleet, clock, fleet.machines, seconds=1)
    assert 1 == provider.calls["create"]
    provider.room = 10
    step(fleet, clock, fleet.machines, seconds=10)

    assert 10 == len(fleet.machines)


def test_refusals_back_off(fleet, provider, clock):
    """An hour of refusals makes a handful of calls, not thousands."""
    provider.room = 0
    fleet.ask(1)
    for _ in range(3600):
        step(fleet, clock, seconds=1)

    assert provider.calls["create"] <= 7 + 3600 / LONGEST_PAUSE_S


def test_asking_again_ends_the_pause(fleet, provider, clock):
    """A new wish of the user is tried at once."""
    provider.room = 0
    fleet.ask(1)
    assert isinstance(step(fleet, clock), CapacityError)
    provider.room = 1
    fleet.ask(1)
    assert None is fleet.reconcile(())
    assert 1 == len(fleet.machines)


def test_lost_machine_is_replaced(fleet, provider, clock):
    """A machine that Dask saw and that the cloud ended is replaced, and the loss is an event."""
    fleet.ask(3)
    step(fleet, clock)
    arrived = set(fleet.machines)
    step(fleet, clock, arrived)
    victim = min(arrived)
    provider.end(victim, "Spot interruption")
    step(fleet, clock, arrived - {victim})

    assert victim in fleet.ended
    assert 3 == len(fleet.machines)
    [lost] = fleet.events.of(Phase.lost)
    assert (victim, "Spot interruption") == (lost.machine, lost.facts["reason"])


def test_absence_is_not_death(fleet, provider, clock):
    """A machine that `describe` does not show yet is kept."""
    fleet.ask(2)
    step(fleet, clock)
    hidden = dict(provider.machines)
    provider.machines.clear()
    step(fleet, clock)
    assert hidden.keys() == fleet.machines.keys()
    assert 1 == provider.calls["create"]


def test_image_that_cannot_be_pulled_is_no_billing_loop(fleet, provider, clock):
    """Three machines that end before they arrive stop the orders with a BootError and the log."""
    fleet.ask(1)
    refusal = None
    for _ in range(3600):
        for id, machine in list(provider.machines.items()):
            if machine.state is not State.gone:
                provider.end(id, "CannotPullContainerError: not found")
        refusal = step(fleet, clock, seconds=1)

    assert isinstance(refusal, BootError)
    assert "CannotPullContainerError" in str(refusal)
    assert "the log of" in refusal.logs
    assert provider.calls["create"] <= 3 + 7 + 3600 / LONGEST_PAUSE_S


def test_one_machine_goes_ahead_after_failed_boots(fleet, provider, clock):
    """After failed boots one machine is tried; when it arrives the rest is ordered."""
    fleet.ask(5)
    step(fleet, clock)
    for id in list(provider.machines):
        provider.end(id, "broken image")
    step(fleet, clock)
    assert isinstance(fleet.failure, BootError)
    assert not fleet.machines
    step(fleet, clock, seconds=60)
    assert 1 == len(fleet.machines)
    step(fleet, clock, fleet.machines, seconds=LONGEST_PAUSE_S)

    assert None is fleet.failure
    assert 5 == len(fleet.machines)


def test_machine_that_never_arrives_is_ended(fleet, provider, clock):
    """A machine that runs past the start timeout without Dask seeing it is ended and replaced."""
    fleet.ask(1)
    step(fleet, clock)
    [first] = fleet.machines
    step(fleet, clock, seconds=120)
    step(fleet, clock, seconds=3)

    assert State.gone is provider.machines[first].state
    assert 1 == len(fleet.machines)
    assert first not in fleet.machines


def test_arrived_machines_are_not_described(fleet, provider, clock):
    """Once Dask sees every machine the cloud is left in peace."""
    fleet.ask(20)
    step(fleet, clock)
    arrived = set(fleet.machines)
    step(fleet, clock, arrived)
    before = provider.calls["describe"]
    for _ in range(1000):
        step(fleet, clock, arrived)

    assert before == provider.calls["describe"]


def test_thousand_machines_are_looked_at_in_turn(provider, clock):
    """While 1,000 machines boot for 90 seconds, looks at them stay under ten calls."""
    provider.wave = 100
    fleet = make(provider, clock)
    fleet.ask(1000)
    for _ in range(180):
        step(fleet, clock, seconds=0.5)

    assert 1000 == len(fleet.machines)
    assert 10 == provider.calls["create"]
    assert provider.calls["describe"] < 10


def test_machines_that_boot_long_are_looked_at_ever_less_often(fleet, provider, clock):
    """While five machines boot for a minute they are looked at eight times, not thirty."""
    fleet.ask(5)
    for _ in range(120):
        step(fleet, clock, seconds=0.5)

    assert 8 == provider.calls["describe"]


def test_a_machine_that_vanishes_is_looked_at_at_once(fleet, provider, clock):
    """However long others have been booting, the loss of a machine that Dask had seen is noticed in two seconds."""
    fleet.ask(5)
    step(fleet, clock)
    victim, *others = sorted(fleet.machines)
    for _ in range(60):
        step(fleet, clock, arrived=[victim], seconds=1.0)
    provider.end(victim, "host failed")
    for _ in range(2):
        step(fleet, clock, seconds=1.0)

    assert [victim] == list(fleet.ended)
    assert {*others} < fleet.machines.keys()


class TwoZones(MemoryProvider):
    """Its machines are of one type, now in one zone and now in the other."""

    def create(self, boot, count):
        created = super().create(boot, count)
        machines = tuple(
            dataclasses.replace(machine, kind="m7i.large", market="spot", zone=f"zone-{'ab'[number % 2]}")
            for number, machine in enumerate(created.machines)
        )
        return dataclasses.replace(created, machines=machines)


def test_an_order_says_where_its_machines_come_from(clock):
    """Market, type and zone, and how many of each."""
    fleet = make(TwoZones(), clock)
    fleet.ask(3)
    step(fleet, clock)

    [event] = fleet.events.of(Phase.ordered)
    assert "Ordered 3 machines: 2 spot m7i.large in zone-a, 1 spot m7i.large in zone-b." == event.message
    assert {"spot m7i.large in zone-a": 2, "spot m7i.large in zone-b": 1} == event.facts["pools"]


def test_stop_ends_a_large_order_at_the_next_wave(provider, clock):
    """A fleet that is stopped while it orders makes no further wave."""
    fleet = make(provider, clock)
    create = provider.create

    class Stopping(type(provider)):
        def create(self, boot, count):
            fleet.stop()
            return create(boot, count)

    provider.__class__ = Stopping
    fleet.ask(100)
    step(fleet, clock)

    assert 10 == len(fleet.machines)


def test_release_ends_only_its_own(fleet, provider, clock):
    """Names that are no machine of this fleet are left alone."""
    fleet.ask(2)
    step(fleet, clock)
    first, second = fleet.machines
    fleet.release([first, "stranger"])

    assert [second] == list(fleet.machines)
    assert State.gone is provider.machines[first].state


def noticed(fleet, clock, count=3):
    """A fleet of machines that are here, one of which has a notice."""
    fleet.ask(count)
    step(fleet, clock)
    arrived = set(fleet.machines)
    step(fleet, clock, arrived)
    leaver = min(arrived)
    step(fleet, clock, arrived, leaving=[leaver], seconds=0.1)
    return leaver, arrived


def test_replacement_is_ordered_at_the_notice(fleet, provider, clock):
    """A machine with a notice is replaced in the same pass, while it still runs, and an event says so."""
    leaver, arrived = noticed(fleet, clock)

    assert 4 == len(fleet.machines)
    assert arrived - {leaver} < fleet.staying.keys()
    assert 3 == len(fleet.staying)
    assert 0 == fleet.missing
    [notice] = fleet.events.of(Phase.notice)
    assert (leaver, 90, "on-demand", "spot interruption") == (
        notice.machine,
        *(notice.facts[key] for key in ("seconds", "market", "reason")),
    )
    assert "has a notice, spot interruption" in notice.message


def test_death_after_a_notice_orders_nothing_more(fleet, provider, clock):
    """When Dask let go of it, a machine with a notice is described until it is gone; its place is filled."""
    leaver, _ = noticed(fleet, clock)
    provider.end(leaver, "Spot interruption")
    step(fleet, clock, set(fleet.machines) - {leaver}, leaving=[leaver])

    assert leaver in fleet.ended
    assert {} == fleet.leaving
    assert 3 == len(fleet.machines)
    assert 4 == len(provider.machines)
    assert [] == fleet.events.of(Phase.lost)
    [left] = fleet.events.of(Phase.released)
    assert (leaver, "Spot interruption") == (left.machine, left.facts["reason"])


def test_machine_that_does_not_die_after_its_notice_is_ended_once(fleet, provider, clock):
    """What the cloud does not take ends all the same, once, a while after Dask let go of it."""
    leaver, _ = noticed(fleet, clock)
    here = set(fleet.machines) - {leaver}
    step(fleet, clock, here, leaving=[leaver], seconds=PART_S / 2)
    step(fleet, clock, here, leaving=[leaver], seconds=PART_S / 2)
    assert 0 == provider.calls["delete"]
    for _ in range(10):
        step(fleet, clock, here, leaving=[leaver], seconds=PART_S)

    assert 1 == provider.calls["delete"]
    assert State.gone is provider.machines[leaver].state
    assert 4 == len(provider.machines)
    assert "spot interruption" == fleet.ended[leaver].reason


def test_machine_that_empties_itself_is_not_given_up(fleet, provider, clock):
    """What the cloud calls gone while it winds up is there as long as Dask sees it, until its time is over."""
    leaver, _ = noticed(fleet, clock)
    provider.end(leaver, "Spot interruption")
    for _ in range(20):
        step(fleet, clock, fleet.machines, leaving=[leaver], seconds=NOTICE.within_s / 25)
    assert leaver in fleet.machines
    step(fleet, clock, fleet.machines, leaving=[leaver], seconds=NOTICE.within_s)

    assert leaver in fleet.ended


def test_machine_that_empties_itself_is_not_ended(fleet, provider, clock):
    """As long as Dask sees a machine with a notice, only the cloud ends it."""
    leaver, _ = noticed(fleet, clock)
    for _ in range(10):
        step(fleet, clock, fleet.machines, leaving=[leaver], seconds=PART_S)

    assert leaver in fleet.machines
    assert 0 == provider.calls["delete"]


def test_notice_before_arrival_is_no_failed_boot(fleet, provider, clock):
    """Machines that are taken before Dask saw them do not count as boots that failed."""
    fleet.ask(1)
    for _ in range(5):
        step(fleet, clock)
        [id] = fleet.staying
        step(fleet, clock, leaving=[id])
        provider.end(id, "Spot interruption")

    assert None is fleet.failure
    assert [] == fleet.events.of(Phase.lost)


def test_smaller_wish_is_met_by_those_that_go_anyway(fleet, provider, clock):
    """A machine with a notice is the first that a smaller target does without: nobody else is asked to go."""
    fleet.ask(3)
    step(fleet, clock)
    fleet.ask(2)
    assert -1 == fleet.missing
    step(fleet, clock, fleet.machines, leaving=[min(fleet.machines)])

    assert 0 == fleet.missing
    assert 3 == len(provider.machines)


def test_second_notice_leaves_less_time_and_orders_nothing(fleet, provider, clock):
    """A recommendation that an interruption follows is told, too; the machine is replaced once."""
    leaver, _ = noticed(fleet, clock)
    soon = Notice(reason="it is taken now", within_s=10)
    clock.now += 1
    fleet.reconcile(fleet.machines, {leaver: soon})
    provider.end(leaver, "Spot interruption")
    clock.now += 11
    fleet.reconcile(fleet.machines, {leaver: soon})

    assert [NOTICE.reason, soon.reason] == [e.facts["reason"] for e in fleet.events.of(Phase.notice)]
    assert 4 == len(provider.machines)
    assert leaver in fleet.ended


def test_notice_of_a_stranger_is_nothing(fleet, provider, clock):
    """A notice of a machine that is not this fleet's changes nothing."""
    fleet.ask(1)
    step(fleet, clock)
    step(fleet, clock, leaving=["stranger"])

    assert [] == fleet.events.of(Phase.notice)
    assert 1 == len(provider.machines)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.sampled_from(["notice", "die", "lose", "nothing"]), st.integers(0, 7)), max_size=30
    ),
)
def test_each_machine_is_replaced_once(target, actions):
    """Whoever gets a notice, dies after one or without one: never too many, and one new machine for each."""
    provider, clock = MemoryProvider(), Clock()
    fleet = make(provider, clock)
    fleet.ask(target)
    leaving: set[str] = set()
    gone: set[str] = set()
    for action, n in [("nothing", 0), *actions]:
        stay, leave = sorted(fleet.staying), sorted(fleet.leaving)
        if action == "notice" and stay:
            leaving.add(stay[n % len(stay)])
        elif action == "die" and leave:
            provider.end(leave[n % len(leave)], "taken")
        elif action == "lose" and stay:
            gone.add(stay[n % len(stay)])
            provider.end(stay[n % len(stay)], "lost")
        step(fleet, clock, {m.id for m in provider.list()} & fleet.machines.keys(), leaving=leaving)
        assert len(provider.list()) <= target + len(fleet.leaving)
        assert target >= len(fleet.staying)
    for _ in range(5):
        step(fleet, clock, {m.id for m in provider.list()}, leaving=leaving, seconds=LONGEST_PAUSE_S)

    assert target == len(fleet.staying)
    assert target + len(leaving | gone) == len(provider.machines)
    assert 1 == max(Counter(e.machine for e in fleet.events.of(Phase.notice)).values(), default=1)


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 30)),
    st.tuples(st.just("room"), st.integers(0, 30)),
    st.tuples(st.just("arrive"), st.integers(0, 30)),
    st.tuples(st.just("end"), st.integers(0, 30)),
    st.tuples(st.just("notice"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(1, 400)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_never_more_than_asked_and_settles(actions):
    """Live machines never exceed the highest wish and those with a notice; in the end the target is reached."""
    provider, clock = MemoryProvider(), Clock()
    fleet = make(provider, clock)
    arrived: set[str] = set()
    leaving: set[str] = set()
    highest = 0
    for action, n in actions:
        if action == "ask":
            fleet.ask(n)
            if fleet.missing < 0:
                fleet.release(sorted(fleet.staying)[: -fleet.missing])
            highest = max(highest, n)
        elif action == "room":
            provider.room = n
        elif action == "arrive":
            arrived |= set(sorted(fleet.machines)[:n])
        elif action == "end":
            for id in sorted(fleet.machines)[:n]:
                provider.end(id, "chaos")
                arrived.discard(id)
        elif action == "notice":
            leaving |= set(sorted(fleet.staying)[:n])
        seconds = n if action == "wait" else 1
        step(fleet, clock, arrived & set(fleet.machines), seconds=seconds, leaving=leaving)
        assert len(provider.list()) <= highest + len(fleet.leaving)
    provider.room = 100
    for _ in range(60):
        step(fleet, clock, {m.id for m in provider.list()}, seconds=LONGEST_PAUSE_S)
    assert fleet.target == len(fleet.staying)
    assert len(fleet.machines) == len(provider.list())
