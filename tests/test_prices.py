"""What machines cost, by tables."""

from __future__ import annotations

import datetime as dt
import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import prices

TABLE = prices.table("fargate")


def test_known_figures():
    """us-east-1's on-demand prices are those that AWS publishes: 4 vCPU and 8 GB for $0.19748 an hour."""
    rate = prices.fargate_rate("us-east-1", "X86_64", "on-demand", 4, 8, public=False)

    assert 0.19748 == pytest.approx(rate.per_hour)
    assert {"vCPU", "memory"} == set(rate.parts)
    assert () == rate.notes
    assert 60 == rate.minimum_s


def test_public_addresses_and_storage_bill():
    """A public IPv4 address is $0.005 an hour, and storage bills beyond the 20 GB that are included."""
    rate = prices.fargate_rate("us-east-1", "ARM64", "on-demand", 1, 2, 100, public=True)

    assert 0.005 == rate.parts["public IPv4"]
    assert 80 * 0.000111 == pytest.approx(rate.parts["storage"])
    assert "storage" not in prices.fargate_rate("us-east-1", "ARM64", "spot", 1, 2, 20, public=True).parts


def test_a_price_that_a_region_lacks_is_unknown():
    """What the table lacks is named, part by part, and counted at no other region's price."""
    rate = prices.fargate_rate("mars-north-1", "X86_64", "spot", 1, 2, 30, public=True)

    assert {"public IPv4": 0.005} == rate.parts
    assert (
        "spot X86_64 tasks in mars-north-1",
        "ephemeral storage beyond 20 GiB in mars-north-1",
    ) == rate.unknown
    assert () == rate.notes


def test_what_a_region_has_is_known_beside_what_it_lacks():
    """A region with ARM on demand but not on spot has a price for the one and none for the other."""
    known = prices.fargate_rate("sa-east-1", "ARM64", "on-demand", 1, 2, public=False)
    lacking = prices.fargate_rate("sa-east-1", "ARM64", "spot", 1, 2, public=False)

    assert ((), True) == (known.unknown, known.per_hour > 0)
    assert ("spot ARM64 tasks in sa-east-1",) == lacking.unknown


def test_spot_prices_are_dated():
    """Spot prices move, so the rate says of which day they are."""
    rate = prices.fargate_rate("eu-west-1", "X86_64", "spot", 1, 2, public=False)

    assert (f"Spot prices move: these are of {TABLE['date']}.",) == rate.notes
    assert (
        rate.per_hour < prices.fargate_rate("eu-west-1", "X86_64", "on-demand", 1, 2, public=False).per_hour
    )


@pytest.mark.parametrize(("architecture", "market"), [("SPARC", "on-demand"), ("ARM64", "reserved")])
def test_what_fargate_does_not_have_is_refused(architecture, market):
    """No price is made up for an architecture or a market that does not exist."""
    with pytest.raises(ValueError, match="no Fargate price"):
        prices.fargate_rate("us-east-1", architecture, market, 1, 2, public=False)


def test_the_table_names_its_sources_and_day():
    """Each figure can be traced: the table has a date and links."""
    assert dt.date.fromisoformat(prices.dated("fargate")) < dt.datetime.now(dt.UTC).date()
    assert all(source["url"].startswith("https://") for source in TABLE["sources"])


@pytest.mark.parametrize("region", TABLE["regions"])
def test_each_region_is_plausible(region):
    """Figures are positive, spot is cheaper than on-demand, ARM than x86: no digit slipped."""
    markets = TABLE["regions"][region]
    on_demand, spot = markets["X86_64"]["on-demand"], markets["X86_64"]["spot"]

    for unit in ("vcpu", "memory"):
        assert 0.2 * on_demand[unit] < spot[unit] < 0.5 * on_demand[unit]
        if "ARM64" in markets:
            assert 0.5 * on_demand[unit] < markets["ARM64"]["on-demand"][unit] < 0.85 * on_demand[unit]
    assert 8 < on_demand["vcpu"] / on_demand["memory"] < 10


@given(
    region=st.sampled_from([*TABLE["regions"], "elsewhere-1"]),
    architecture=st.sampled_from(["X86_64", "ARM64"]),
    market=st.sampled_from(["on-demand", "spot"]),
    vcpu=st.floats(0.25, 16),
    memory=st.floats(0.5, 120),
    storage=st.floats(20, 200),
    public=st.booleans(),
)
def test_a_rate_is_the_sum_of_its_parts(region, architecture, market, vcpu, memory, storage, public):
    """For every task there is, the parts add up, and more never costs less; 0 is only what is unknown."""
    rate = prices.fargate_rate(region, architecture, market, vcpu, memory, storage, public=public)
    more = prices.fargate_rate(region, architecture, market, vcpu + 1, memory + 1, storage + 1, public=True)

    assert math.isclose(sum(rate.parts.values()), rate.per_hour)
    assert 0 <= rate.per_hour <= more.per_hour
    assert 0 < rate.per_hour < more.per_hour or rate.unknown


def test_examples_hold():
    """The examples in the documentation are true."""
    assert 0 == doctest.testmod(prices).failed
