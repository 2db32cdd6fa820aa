"""Which second of a start went where."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cloudprovider.events import Event, Phase
from cloudprovider.timeline import Step, Timeline, timeline

BEGAN = 1_790_000_000.0


def event(seconds, phase, **facts):
    return Event(phase=phase, message="", time=BEGAN + seconds, facts=facts)


START = [
    event(0.0, Phase.access),
    event(0.5, Phase.landing),
    event(2.0, Phase.ordered, role="scheduler", count=1),
    event(4.0, Phase.placed, role="scheduler"),
    event(4.5, Phase.ordered, role="worker", count=2, total=3),
    event(5.0, Phase.ordered, role="worker", count=1, total=3),
    event(9.0, Phase.connected),
    event(9.5, Phase.arrived, count=1, total=3),
    event(10.0, Phase.arrived, count=2, total=3),
    event(11.0, Phase.arrived, count=3, total=3),
]


def spans(whole):
    return {step.name: (step.start - BEGAN, step.end and step.end - BEGAN) for step in whole.steps}


def test_each_step_has_its_seconds():
    """A start is landing, the scheduler's boot, and beside it the workers' order and boot."""
    assert {
        "your address": (0.0, 0.5),
        "landing": (0.5, 2.0),
        "scheduler's address": (2.0, 4.0),
        "scheduler's boot": (4.0, 9.0),
        "workers' order": (4.0, 5.0),
        "workers' boot": (4.5, 11.0),
    } == spans(timeline(START))


def test_notices_during_the_start_are_counted():
    """A timeline says how many machines the cloud wanted back while the start was under way, and no more."""
    noticed = [event(9.7, Phase.notice, market="spot"), event(30.0, Phase.notice, market="spot")]
    whole = timeline(sorted([*START, *noticed], key=lambda event: event.time))

    assert 1 == whole.notices == whole.as_json()["notices"]
    assert "<Timeline: 11.0 s, 3 of 3 workers, 1 with a notice>" == repr(whole)
    assert "<Timeline: 11.0 s, 3 of 3 workers>" == repr(timeline(START))


def test_the_whole_is_from_the_first_event_to_the_last_arrival():
    """The start took what the user waited, with all workers in it."""
    whole = timeline(START)

    assert 11.0 == whole.seconds
    assert (3, 3, True) == (whole.wanted, whole.arrived, whole.connected)


def test_a_step_under_way_has_no_end():
    """While workers boot, their step has no end, nor has the start."""
    whole = timeline(START[:-1])

    assert (4.5, None) == spans(whole)["workers' boot"]
    assert whole.seconds is None
    assert 2 == whole.arrived


def test_what_comes_after_the_start_is_not_in_it():
    """Later orders, arrivals and the close do not change the timeline of the start."""
    later = [
        event(60.0, Phase.ordered, role="worker", count=5, total=8),
        event(70.0, Phase.arrived, count=8, total=8),
        event(80.0, Phase.closing),
        event(81.0, Phase.landing),
    ]

    assert timeline(START) == timeline([*START, *later])


def test_a_scheduler_that_arrives_before_it_answers():
    """Where the machine's arrival is known by itself, the connection is a step of its own."""
    events = [*START[:6], event(8.0, Phase.arrived, role="scheduler"), *START[6:]]

    assert (4.0, 8.0) == spans(timeline(events))["scheduler's boot"]
    assert (8.0, 9.0) == spans(timeline(events))["connection"]


def test_a_start_without_workers():
    """A cluster of no workers has started when its scheduler answers."""
    whole = timeline([*START[:4], START[6]])

    assert 9.0 == whole.seconds
    assert (0, 0) == (whole.wanted, whole.arrived)


def test_a_refused_order_still_says_what_was_wanted():
    """When the cloud makes no worker at all, the timeline knows how many were asked for."""
    whole = timeline([*START[:4], event(4.5, Phase.refused, count=0, total=3)])

    assert 3 == whole.wanted


def test_no_events_are_an_empty_timeline():
    """Before anything has happened there is nothing to show, and showing it does not fail."""
    console = Console(file=io.StringIO())
    console.print(timeline([]))

    assert Timeline() == timeline([])
    assert "whole start" in console.file.getvalue()


def test_json_is_relative_to_the_beginning():
    """Programs get seconds since the start began."""
    document = json.loads(json.dumps(timeline(START).as_json()))

    assert {"name": "landing", "start": 0.5, "end": 2.0, "seconds": 1.5} == document["steps"][1]
    assert 11.0 == document["seconds"]


def test_the_table_draws_overlap():
    """In a terminal each step has a bar, and the workers' begins before the scheduler's ends."""
    console = Console(file=io.StringIO(), width=80)
    console.print(timeline(START))
    text = console.file.getvalue()
    scheduler, workers = (line for line in text.splitlines() if "boot" in line)

    assert workers.index("━") < scheduler.rindex("━")
    assert "11.0 s" in text
    assert "…" not in text


def test_html_shows_each_step():
    """In a notebook each step is a row with a bar."""
    assert len(timeline(START).steps) == timeline(START)._repr_html_().count("<tr>")


def test_repr_says_how_long():
    """One line: how long, how many."""
    assert "<Timeline: 11.0 s, 3 of 3 workers>" == repr(timeline(START))
    assert "<Timeline: under way, 2 of 3 workers>" == repr(timeline(START[:-1]))


phases = st.sampled_from([p for p in Phase if p is not Phase.closing])
facts = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["scheduler", "worker"]),
        "count": st.integers(0, 20),
        "total": st.integers(0, 20),
    },
)
logs = st.lists(st.tuples(st.floats(0, 100), phases, facts), max_size=30).map(
    lambda drawn: [event(s, p, **f) for s, p, f in sorted(drawn, key=lambda entry: entry[0])]
)


@given(logs)
def test_no_order_of_events_breaks_it(log):
    """Whatever happens in whatever order, steps lie within the start and end after they began."""
    whole = timeline(log)

    for step in whole.steps:
        assert isinstance(step, Step)
        assert whole.began <= step.start
        assert step.end is None or step.start <= step.end
    assert whole.seconds is None or whole.seconds >= 0
    json.dumps(whole.as_json())
    Console(file=io.StringIO()).print(whole)
    assert whole._repr_html_()


@pytest.mark.parametrize("cut", range(len(START) + 1))
def test_every_moment_of_a_start_can_be_shown(cut):
    """Progress shows the timeline while it grows."""
    assert len(timeline(START[:cut]).steps) <= len(timeline(START).steps)
