"""What happened, and who hears of it."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from cloudprovider.events import Event, Events, Phase


def test_an_event_is_recorded_with_its_time():
    """Emitting records phase, words, machine and facts, at this moment."""
    events, before = Events(), time.time()
    event = events.emit(Phase.ordered, "Ordered 3 machines.", machine="m1", count=3)

    assert [event] == list(events)
    assert (Phase.ordered, "Ordered 3 machines.", "m1", {"count": 3}) == (
        event.phase,
        event.message,
        event.machine,
        event.facts,
    )
    assert before <= event.time <= time.time()


def test_events_cannot_be_changed():
    """What happened, happened."""
    with pytest.raises(AttributeError):
        Events().emit(Phase.closed, "Closed.").message = "Never opened."


def test_listeners_hear_what_comes_until_they_stop():
    """A listener hears each event from then on, and none after it has stopped; stopping twice is fine."""
    events, heard = Events(), []
    events.emit(Phase.landing, "before")
    stop = events.listen(heard.append)
    during = events.emit(Phase.landing, "during")
    stop()
    stop()
    events.emit(Phase.landing, "after")

    assert [during] == heard


def test_a_listener_may_stop_itself():
    """A listener that stops while it hears does not disturb the next."""
    events, heard, stops = Events(), [], []
    stops.append(events.listen(lambda _: stops[0]()))
    events.listen(heard.append)
    events.emit(Phase.landing, "one")
    events.emit(Phase.landing, "two")

    assert ["one", "two"] == [event.message for event in heard]


def test_a_listener_that_fails_stops_nobody(caplog):
    """Whoever watches must not stop what is watched: the failure is logged, the others still hear."""
    events, heard = Events(), []

    def fail(event):
        raise ValueError(event.message)

    events.listen(fail)
    events.listen(heard.append)
    with caplog.at_level(logging.ERROR, "cloudprovider"):
        event = events.emit(Phase.lost, "Lost a machine.")

    assert [event] == heard
    assert "A listener failed on lost" in caplog.text


def test_of_selects_by_phase():
    """`of` gives the events of some phases, oldest first."""
    events = Events()
    made = [events.emit(phase, "") for phase in (Phase.ordered, Phase.lost, Phase.arrived, Phase.ordered)]

    assert [made[0], made[2], made[3]] == events.of(Phase.ordered, Phase.arrived)


def test_the_log_forgets_its_oldest():
    """A cluster that lives for weeks does not fill the memory."""
    events = Events(limit=3)
    for number in range(5):
        events.emit(Phase.arrived, str(number))

    assert ["2", "3", "4"] == [event.message for event in events]
    assert 3 == len(events)


def test_many_threads_can_emit_and_read_at_once():
    """No event is lost, and reading while others write does not fail."""
    events, heard = Events(), []
    events.listen(heard.append)

    def emit():
        for _ in range(200):
            events.emit(Phase.arrived, "")
            assert all(isinstance(event, Event) for event in events)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 800 == len(events) == len(heard)


def test_events_are_logged(caplog):
    """Whoever turns on debugging sees each event."""
    with caplog.at_level(logging.DEBUG, "cloudprovider"):
        Events().emit(Phase.refused, "The cloud has none.")

    assert ["refused: The cloud has none."] == caplog.messages
