"""The fleet keeps its target: orders, losses, refusals, boots that fail."""

from __future__ import annotations

import pytest
from cloudruntime.boot import Boot
from doubles import MemoryProvider
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudprovider.errors import BootError, CapacityError
from cloudprovider.events import Events, Phase
from cloudprovider.fleet import LONGEST_PAUSE_S, Fleet
from cloudprovider.provider import State


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


def step(fleet, clock, arrived=(), seconds=3.0):
    clock.now += seconds
    return fleet.reconcile(arrived)


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


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 30)),
    st.tuples(st.just("room"), st.integers(0, 30)),
    st.tuples(st.just("arrive"), st.integers(0, 30)),
    st.tuples(st.just("end"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(1, 400)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_never_more_than_asked_and_settles(actions):
    """Whatever happens, live machines never exceed the highest wish, and the target is reached at the end."""
    provider, clock = MemoryProvider(), Clock()
    fleet = make(provider, clock)
    arrived: set[str] = set()
    highest = 0
    for action, n in actions:
        if action == "ask":
            fleet.ask(n)
            if fleet.missing < 0:
                fleet.release(sorted(fleet.machines)[: -fleet.missing])
            highest = max(highest, n)
        elif action == "room":
            provider.room = n
        elif action == "arrive":
            arrived |= set(sorted(fleet.machines)[:n])
        elif action == "end":
            for id in sorted(fleet.machines)[:n]:
                provider.end(id, "chaos")
                arrived.discard(id)
        step(fleet, clock, arrived & set(fleet.machines), seconds=n if action == "wait" else 1)
        assert len(provider.list()) <= highest
    provider.room = 100
    for _ in range(60):
        step(fleet, clock, {m.id for m in provider.list()}, seconds=LONGEST_PAUSE_S)
    assert fleet.target == len(fleet.machines) == len(provider.list())
