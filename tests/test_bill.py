"""The meter and the bill."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cloudprovider.bill import Bill, Meter, Rate, bill, cells, duration, receipt
from cloudprovider.provider import Machine, State

RATE = Rate.of({"vCPU": 2.7, "public IPv4": 0.9}, minimum_s=60, left_out=("traffic",))  # 0.1 cent a second


def a_machine(name="a", *, role="worker", market="on-demand", start=None, end=None):
    state = State.starting if start is None else State.running if end is None else State.gone
    return Machine(
        id=name, role=role, state=state, kind="4 vCPU 8 GiB", market=market, billed_from=start, ended=end
    )


times = st.floats(0, 10**6, allow_nan=False)
lives = st.tuples(times, st.none() | st.floats(0, 10**5)).map(
    lambda life: (life[0], None if life[1] is None else life[0] + life[1])
)
rates = st.builds(
    lambda parts, minimum: Rate.of(parts, minimum_s=minimum),
    st.dictionaries(st.sampled_from(["vCPU", "memory", "storage"]), st.floats(0, 100), min_size=1),
    st.integers(0, 120),
)
machines = st.lists(
    st.tuples(lives, rates, st.sampled_from(["scheduler", "worker"]), st.sampled_from(["spot", "on-demand"])),
    max_size=6,
).map(
    lambda drawn: [
        (a_machine(str(i), role=role, market=market, start=life[0], end=life[1]), rate)
        for i, (life, rate, role, market) in enumerate(drawn)
    ]
)


@given(machines, times, st.floats(0, 10**5))
def test_a_bill_never_falls(seen, now, later):
    """As time goes on, what was spent only grows."""
    assert bill(seen, now).spent <= bill(seen, now + later).spent + 1e-9


@given(machines, machines, times)
def test_bills_add_up(seen, others, now):
    """The bill of all machines is the sum of the bills of some and of the rest."""
    together = bill([*seen, *others], now)

    assert together.spent == pytest.approx(bill(seen, now).spent + bill(others, now).spent)
    assert together.per_hour == pytest.approx(bill(seen, now).per_hour + bill(others, now).per_hour)


@given(machines, times)
def test_lines_and_parts_are_the_whole(seen, now):
    """Both ways to split a bill give its total."""
    whole = bill(seen, now)

    assert whole.spent == pytest.approx(sum(line.spent for line in whole.lines))
    assert whole.spent == pytest.approx(sum(whole.parts.values()))
    assert len(seen) == sum(line.machines for line in whole.lines)


@given(lives, rates, times)
def test_the_minimum_bills(life, rate, later):
    """A machine that began to bill costs at least the minimum, and never more than its life or that."""
    start, end = life
    cost = bill([(a_machine(start=start, end=end), rate)], start + later).spent
    lived = later if end is None else min(later, end - start)

    assert rate.per_second * rate.minimum_s <= cost + 1e-9
    assert cost <= rate.per_second * max(rate.minimum_s, lived + 1) + 1e-9


@given(machines, times, st.randoms())
def test_a_meter_counts_a_machine_once(seen, now, random):
    """However often, in whatever order and however late machines are seen, the bill is the same."""
    meter = Meter()
    often = seen * 2
    random.shuffle(often)
    for machine, rate in often:
        meter.see(machine, rate, now)

    said = [moment for machine, _ in seen for moment in (machine.billed_from, machine.ended) if moment]
    assert bill(seen, max([now, *said])).spent == pytest.approx(meter.bill(now).spent)


@given(machines, st.floats(-1e10, 1e10))
def test_a_wrong_clock_takes_nothing_away(seen, now):
    """Whatever our clock says, a bill is never negative, and what the cloud said has billed is in it."""
    meter = Meter()
    for machine, rate in seen:
        meter.see(machine, rate, now)
    made = meter.bill(now)

    assert 0 <= made.spent
    assert (
        sum(line.seconds for line in made.lines)
        >= sum(
            max(rate.minimum_s, (machine.ended or machine.billed_from) - machine.billed_from)
            for machine, rate in seen
        )
        - len(seen) * 1e-3
    )
    assert all(moment <= made.until for machine, _ in seen for moment in [machine.billed_from] if moment)


@given(lives.filter(lambda life: life[1] is not None), rates, st.lists(st.floats(-1e10, 1e10), min_size=1))
def test_a_known_end_is_exact_by_any_clock(life, rate, jumps):
    """A machine whose end the cloud has said costs the same however our clock jumps."""
    meter = Meter()
    for now in jumps:
        meter.see(dataclasses.replace(a_machine(start=life[0], end=life[1]), ended=None), rate, now)
    meter.see(a_machine(start=life[0], end=life[1]), rate, jumps[0])

    costs = {meter.bill(now).spent for now in jumps}
    assert {bill([(a_machine(start=life[0], end=life[1]), rate)], 1e9).spent} == costs


def test_the_clouds_word_replaces_our_guess():
    """A machine seen gone while it winds up ended when the cloud says at last, before or after our guess."""
    for end, cost in ((300.0, 0.3), (150.0, 0.15)):
        meter = Meter()
        meter.see(dataclasses.replace(a_machine(start=0.0, end=1.0), ended=None), RATE, now=200.0)
        assert 0.2 == pytest.approx(meter.bill(1000.0).spent)
        meter.see(a_machine(start=0.0, end=end), RATE)
        assert cost == pytest.approx(meter.bill(1000.0).spent)


def test_an_end_that_came_after_closing_counts():
    """What winds up while the cluster closes bills until it has ended."""
    meter = Meter()
    meter.see(a_machine(start=0.0), RATE)
    meter.close(100.0)
    meter.see(a_machine(start=0.0, end=110.0), RATE)

    assert 0.11 == pytest.approx(meter.bill(9999.0).spent)


UNPRICED = Rate(per_hour=0.0, minimum_s=60, unknown=("spot tasks in mars-1",))


def test_an_unknown_price_is_unknown():
    """Where nothing has a price, line and total say so, for people and for programs: never 0."""
    made = bill([(a_machine(market="spot", start=0.0), UNPRICED)], 100.0)

    assert (None, None) == (made.spent, made.per_hour)
    assert (None, None, 100) == (made.lines[0].spent, made.lines[0].per_hour, made.lines[0].seconds)
    assert "<Bill: unknown spent, unknown an hour now>" == repr(made)
    assert None is json.loads(json.dumps(made.as_json()))["spent"]
    assert "<td>unknown</td><td>unknown</td>" in made._repr_html_()
    assert "$0.00" not in made._repr_html_()


def test_a_total_with_an_unknown_price_is_a_least():
    """Beside machines that have a price, the total is what is known, and says that it is not all."""
    made = bill(
        [
            (a_machine("s", role="scheduler", start=0.0), RATE),
            (a_machine(market="spot", start=0.0), UNPRICED),
        ],
        100.0,
    )
    console = Console(width=100, file=io.StringIO())
    console.print(made)
    text = console.file.getvalue()

    assert (0.1, "at least $0.1000") == (pytest.approx(made.spent), made.total)
    assert ("spot tasks in mars-1",) == made.unknown
    assert "at least $0.1000" in text
    assert "unknown" in text
    assert "Its price is unknown, so it is not in it: spot tasks in mars-1." in text


def test_a_line_may_be_known_in_part():
    """A machine whose address has a price but whose size has none costs at least its address."""
    rate = Rate.of({"public IPv4": 0.36}, unknown=("tasks in mars-1",))
    [line] = bill([(a_machine(start=0.0), rate)], 1000.0).lines

    assert "at least $0.1000" == cells(line)[-1]


def test_what_has_not_billed_is_free_at_any_price():
    """An order that nothing came of costs 0, also where the price is unknown."""
    made = bill([(a_machine(), UNPRICED)], 100.0)

    assert (0.0, "$0.00") == (made.spent, made.total)


def test_a_price_once_known_stays():
    """A look at a machine that does not show its size does not make its price unknown."""
    meter = Meter()
    meter.see(a_machine(start=0.0), RATE)
    meter.see(dataclasses.replace(a_machine(start=0.0), kind=""), UNPRICED)
    [line] = meter.bill(100.0).lines

    assert ("4 vCPU 8 GiB", 0.1) == (line.kind, pytest.approx(line.spent))


def test_a_machine_that_never_billed_is_free():
    """What was ordered and never placed costs nothing."""
    assert 0 == bill([(a_machine(), RATE)], 1000.0).spent


def test_the_price_of_a_gone_machine_stays():
    """A machine that is gone shows no address any more; the address it had has been billed all the same."""
    meter = Meter()
    meter.see(a_machine(start=0.0), RATE)
    meter.see(a_machine(start=0.0, end=100.0), Rate.of({"vCPU": 2.7}, minimum_s=60))

    assert 0.1 == pytest.approx(meter.bill(500.0).spent)


def test_a_later_look_takes_nothing_back():
    """A cloud that forgets when a machine began or ended does not change its bill."""
    meter = Meter()
    meter.see(a_machine(start=10.0, end=110.0), RATE)
    meter.see(Machine(id="a", role="worker", state=State.running, kind="4 vCPU 8 GiB"), RATE)

    assert 0.1 == pytest.approx(meter.bill(1000.0).spent)
    assert 0 == meter.bill(1000.0).per_hour


def test_gone_without_an_end_ended_when_it_was_seen():
    """A machine whose cloud does not say when it ended stops to bill when it is seen gone."""
    meter = Meter()
    meter.see(a_machine(start=0.0), RATE)
    gone = Machine(id="a", role="worker", state=State.gone, billed_from=0.0, kind="4 vCPU 8 GiB")
    meter.see(gone, RATE, now=200.0)
    meter.see(gone, RATE, now=300.0)

    assert 0.2 == pytest.approx(meter.bill(1000.0).spent)


def test_closing_ends_what_bills():
    """After close, time costs nothing."""
    meter = Meter()
    meter.see(a_machine(start=0.0), RATE)
    meter.close(100.0)

    assert meter.bill(100.0).spent == meter.bill(9999.0).spent
    assert 0 == meter.bill(9999.0).per_hour


def test_what_is_seen_after_closing_has_ended_too():
    """A bill asked for first after the close, with old news of a machine, does not run on."""
    meter = Meter()
    meter.close(100.0)
    meter.see(a_machine(start=0.0), RATE)

    assert 0.1 == pytest.approx(meter.bill(9999.0).spent)


def test_begun_seconds_bill_and_clock_noise_does_not():
    """100.2 seconds are 101; a ten-millionth of a second, which floats of today's clock lose, is none."""
    today = 1_790_000_000.3

    assert 0.101 == pytest.approx(bill([(a_machine(start=0.0, end=100.2), RATE)], 1e6).spent)
    assert 0.100 == pytest.approx(bill([(a_machine(start=today, end=today + 100), RATE)], 2e9).spent)


def test_parts_must_add_up():
    """A rate whose parts are not its price is a mistake of the provider."""
    with pytest.raises(ValueError, match="do not add up"):
        Rate(per_hour=1.0, parts={"vCPU": 0.5})


@pytest.fixture
def a_bill():
    """A scheduler and two spot workers, one of which is gone."""
    note = Rate.of({"vCPU": 0.36}, minimum_s=60, notes=("Spot prices <move>.",), left_out=("traffic", "logs"))
    return bill(
        [
            (a_machine("s", role="scheduler", start=0.0), RATE),
            (a_machine("w1", market="spot", start=0.0), note),
            (a_machine("w2", market="spot", start=0.0, end=10.0), note),
        ],
        600.0,
    )


def test_what_is_left_out_is_said_once(a_bill):
    """The bill names what it leaves out and what is uncertain."""
    assert ("traffic", "logs") == a_bill.left_out
    assert ("Spot prices <move>.",) == a_bill.notes


def test_lines_are_by_role_and_market(a_bill):
    """Each line counts machines, those that bill now, seconds with minimums, and money."""
    scheduler, workers = a_bill.lines

    assert ("scheduler", 1, 1, 600) == (
        scheduler.role,
        scheduler.machines,
        scheduler.billing,
        scheduler.seconds,
    )
    assert ("spot", 2, 1, 660) == (workers.market, workers.machines, workers.billing, workers.seconds)


def test_receipt_shows_total_and_omissions(a_bill):
    """The receipt has a line a kind of machine, the total, and under it what is not in it."""
    console = Console(width=100, file=io.StringIO())
    console.print(a_bill)
    text = console.file.getvalue()

    assert "2 spot workers" in text
    assert "1 scheduler" in text
    assert "$0.6660" in text
    assert "Not in it: traffic, logs." in text


def test_a_receipt_fits_a_terminal():
    """In 80 columns each figure is whole, however long the cloud's name for a size is."""
    kind = "16 vCPU, 120 GiB, X86_64, 200 GiB disk"
    machines = [
        Machine(id=str(i), role="worker", state=State.running, kind=kind, market="spot") for i in range(1000)
    ]
    rate = Rate.of({"vCPU": 0.5, "memory": 0.5})
    many = bill([(dataclasses.replace(m, billed_from=0.0), rate) for m in machines], 36_000.0)
    console = Console(width=80, file=io.StringIO())
    console.print(receipt(many))
    text = console.file.getvalue()

    assert "…" not in text
    assert "$10,000.00" in text


def test_receipt_has_a_title(a_bill):
    """The caller names the receipt."""
    assert "my cluster" == receipt(a_bill, "my cluster").title


def test_html_is_escaped(a_bill):
    """In a notebook the bill is a table; words from elsewhere are text, not markup."""
    html = a_bill._repr_html_()

    assert "<table>" in html
    assert "Spot prices &lt;move&gt;." in html


def test_json_is_plain(a_bill):
    """For programs the bill is plain JSON with the same numbers."""
    document = json.loads(json.dumps(a_bill.as_json()))

    assert a_bill.spent == document["spent"]
    assert "USD" == document["currency"]
    assert 660 == document["lines"][1]["seconds"]


def test_repr_is_short(a_bill):
    """A bill says in one line what was spent and what it costs now."""
    assert "<Bill: $0.6660 spent, $3.96 an hour now>" == repr(a_bill)
    assert "<Bill: $0.00 spent, $0.00 an hour now>" == repr(Bill(spent=0.0, per_hour=0.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (3660, "1 h 01 min")]
)
def test_durations_are_for_people(seconds, text):
    """Seconds, minutes, hours: whatever fits."""
    assert text == duration(seconds)
