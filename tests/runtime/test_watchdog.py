"""Leases: what ends a machine, and what keeps it."""

from __future__ import annotations

import time

from cloudruntime.boot import Leases
from cloudruntime.exits import Exit
from cloudruntime.scheduler import Idleness
from cloudruntime.watchdog import SILENCE_S, Facts, SchedulerLife, WorkerLife
from hypothesis import given
from hypothesis import strategies as st

LEASES = Leases(scheduler_lost=300, idle=1200, no_client=600, no_client_work=7200, expires=100_000)
#: What a scheduler may report, and how long it then is silent.
REPORTS = st.lists(
    st.tuples(
        st.floats(0, 3000),
        st.builds(
            Facts,
            clients=st.integers(0, 2),
            working=st.booleans(),
            idle_s=st.floats(0, 3000),
            renewed_s=st.none() | st.floats(0, 3000),
        ),
    ),
    max_size=30,
)


def live(life, reports, now=0.0):
    """The life after these reports, and the time."""
    for pause, facts in reports:
        now += pause
        life = life.heard(facts, now)
    return life, now


def end_of(life, now, step=1.0, limit=20_000.0):
    """When and why a scheduler ends that reports the same every second from now on."""
    facts = Facts(clients=0, working=False)
    begun = now
    while (due := life.due(now, 0)) is None and now - begun < limit:
        now += step
        life = life.heard(Facts(clients=facts.clients, idle_s=now - life.busy), now)
    return now - begun, due


def test_a_worker_lives_while_a_scheduler_answers():
    """Only silence of the scheduler for as long as the lease ends a worker."""
    life = WorkerLife(leases=LEASES, answered=0.0)

    assert life.due(299.9, 0) is None
    assert Exit.scheduler_lost == life.due(300.0, 0)
    assert life.heard(299.0).due(598.0, 0) is None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_answer_never_shortens_a_workers_life(earlier, later):
    """What was due after an answer was due without it."""
    life = WorkerLife(leases=LEASES, answered=0.0)

    if life.heard(earlier).due(later, 0):
        assert life.due(later, 0)


@given(REPORTS, st.booleans())
def test_the_hard_end_never_moves(reports, worker):
    """Whatever happens, nothing lives past `expires`."""
    life, now = live(SchedulerLife.begun(LEASES, 0.0), reports)
    life = WorkerLife(leases=LEASES, answered=now) if worker else life

    assert Exit.expired == life.due(now, 100_000)


@given(REPORTS)
def test_a_forsaken_scheduler_ends(reports):
    """From any state, a scheduler that nobody attends and that has nothing to do ends within `no_client`."""
    life, now = live(SchedulerLife.begun(LEASES, 0.0), reports)
    life = life.heard(Facts(), now)

    waited, due = end_of(life, now)

    assert due in {Exit.no_client, Exit.idle, Exit.no_client_work}
    assert waited <= LEASES.no_client + 1


@given(REPORTS)
def test_a_silent_scheduler_ends(reports):
    """From any state, a scheduler process that never speaks again ends within `no_client_work`."""
    life, now = live(SchedulerLife.begun(LEASES, 0.0), reports)

    assert life.due(now + LEASES.no_client_work + SILENCE_S, 0)


@given(REPORTS)
def test_renewal_never_shortens_a_schedulers_life(reports):
    """A client that is connected, or a manager that renews, keeps whatever would live without."""
    life, now = live(SchedulerLife.begun(LEASES, 0.0), reports)
    facts = Facts(idle_s=5000)

    if life.heard(facts, now).due(now, 0) is None:
        assert life.heard(Facts(idle_s=5000, clients=1), now).due(now, 0) is None
        assert life.heard(Facts(idle_s=5000, renewed_s=0.0), now).due(now, 0) is None


def test_leases_count_from_the_schedulers_first_word():
    """A boot is not idleness; but a scheduler that never says a word ends."""
    life = SchedulerLife.begun(LEASES, 0.0)

    assert life.due(599.0, 0) is None
    assert Exit.failed == life.due(600.0, 0)

    life = life.heard(Facts(idle_s=500.0), 500.0)
    for idle in range(1, 600):
        life = life.heard(Facts(idle_s=500.0 + idle), 500.0 + idle)
        assert life.due(500.0 + idle, 0) is None
    assert Exit.no_client == life.due(1100.0, 0)


def test_idle_ends_a_cluster_although_a_client_is_connected():
    """A forgotten notebook does not bill for ever."""
    life = SchedulerLife.begun(LEASES, 0.0).heard(Facts(), 0.0)
    for now in range(1, 1200):
        life = life.heard(Facts(clients=1, idle_s=float(now)), float(now))
        assert life.due(now, 0) is None

    assert Exit.idle == life.heard(Facts(clients=1, idle_s=1200.0), 1200.0).due(1200.0, 0)


def test_a_client_with_work_is_never_ended():
    """A client that waits for a long computation keeps the cluster as long as it takes."""
    life = SchedulerLife.begun(LEASES, 0.0)
    for now in range(1, 50_000, 5):
        life = life.heard(Facts(clients=1, working=True), float(now))
        assert life.due(now, 0) is None


def test_work_without_a_client_has_a_lease_of_its_own():
    """What a client left running may go on for `no_client_work`, and no longer."""
    life = SchedulerLife.begun(LEASES, 0.0)
    for now in range(7200):
        life = life.heard(Facts(working=True), float(now))
        assert life.due(now, 0) is None

    assert Exit.no_client_work == life.heard(Facts(working=True), 7200.0).due(7200.0, 0)


def test_silence_is_work():
    """User code that holds the interpreter lock makes a scheduler silent, not idle."""
    life = SchedulerLife.begun(LEASES, 0.0).heard(Facts(clients=1), 1.0)

    assert life.due(1000.0, 0) is None

    life = life.heard(Facts(idle_s=1500.0), 1500.0)
    assert life.due(1500.0, 0) is None, "what was done in silence was work until now"


def test_idleness_goes_by_no_time_of_day():
    """A clock that jumps, ahead or back, makes a cluster with nothing to do neither busy nor idle for longer."""
    idleness, behind, ahead = Idleness(), time.time() + 3600, time.time() - 3600
    for said in (behind, ahead):
        assert 0.1 > idleness.seconds(said)
        time.sleep(0.2)
        assert 0.2 <= idleness.seconds(said) < 60
    assert 0.0 == idleness.seconds(None), "there is work"
