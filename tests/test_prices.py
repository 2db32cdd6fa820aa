"""What machines cost, by tables."""

from __future__ import annotations

import datetime as dt
import doctest
import math
import statistics

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


EC2 = prices.table("ec2")


def test_ec2_s_known_figures():
    """us-east-1's prices are those that AWS publishes: m7i.xlarge for $0.2016, gp3 for $0.08 a GB-month."""
    rate = prices.ec2_rate("us-east-1", "m7i.xlarge", "on-demand", disk_gib=100, public=True)

    assert {"machine": 0.2016, "disk": pytest.approx(8 / 730), "public IPv4": 0.005} == rate.parts
    assert (60, (), ()) == (rate.minimum_s, rate.unknown, rate.notes)


def test_what_ec2_s_table_lacks_is_unknown():
    """A region or a type that the table lacks is named, part by part, and counted at no other's price."""
    elsewhere = prices.ec2_rate("mars-north-1", "m7i.xlarge", "on-demand", disk_gib=30, public=False)
    newer = prices.ec2_rate("eu-west-1", "m99i.xlarge", "on-demand", disk_gib=0, public=False)

    assert ({}, ("on-demand m7i.xlarge machines in mars-north-1", "disks in mars-north-1")) == (
        elsewhere.parts,
        elsewhere.unknown,
    )
    assert ("on-demand m99i.xlarge machines in eu-west-1",) == newer.unknown
    assert (None, {}) == (prices.ec2_price("mars-north-1", "m7i.xlarge"), prices.ec2_prices("mars-north-1"))


def test_spot_is_what_ec2_said():
    """There is no table of spot prices: it is the price that EC2 said, or unknown, never the one on demand."""
    said = prices.ec2_rate("us-east-1", "m7i.xlarge", "spot", disk_gib=0, public=False, spot_price=0.07)
    silent = prices.ec2_rate("us-east-1", "m7i.xlarge", "spot", disk_gib=0, public=False)

    assert (0.07, ("Spot prices move: these are of the order.",)) == (said.per_hour, said.notes)
    assert (0.0, ("spot m7i.xlarge machines in us-east-1",), ()) == (
        silent.per_hour,
        silent.unknown,
        silent.notes,
    )


def test_burstable_machines_may_cost_more():
    """T types bill for processors that are busy for long: the bill says that it may be more."""
    rate = prices.ec2_rate("us-east-1", "t3.medium", "on-demand", disk_gib=0, public=False)

    assert ("t3.medium bills more than this when its processors are busy for long.",) == rate.notes


def test_ec2_has_no_such_market():
    """No price is made up for a market that does not exist."""
    with pytest.raises(ValueError, match="no market 'reserved'"):
        prices.ec2_rate("us-east-1", "m7i.xlarge", "reserved", disk_gib=0, public=False)


def test_ec2_s_table_names_its_sources():
    """Each figure can be traced: each region has its day, each source a link and, if it is copied, a licence."""
    today = dt.datetime.now(dt.UTC).date()
    assert all(dt.date.fromisoformat(region["date"]) < today for region in EC2["regions"].values())
    assert all(source["url"].startswith("https://") for source in EC2["sources"])
    assert all(
        source["licence"].startswith(("Apache", "MIT")) for source in EC2["sources"] if "read_in" in source
    )


@pytest.mark.parametrize("region", EC2["regions"])
def test_each_region_of_ec2_is_plausible(region):
    """No digit slipped: every region's prices are near us-east-1's, and a size up costs more."""
    known, here = prices.ec2_prices("us-east-1"), prices.ec2_prices(region)
    both = known.keys() & here.keys()

    assert 100 < len(both)
    assert all(0.5 * known[name] < here[name] < 2.6 * known[name] for name in both)
    for family in {name.partition(".")[0] for name in here}:
        sizes = [
            here[f"{family}.{size}"]
            for size in ("large", "xlarge", "2xlarge", "4xlarge")
            if f"{family}.{size}" in here
        ]
        assert sizes == sorted(sizes)
    assert 0.07 < EC2["regions"][region].get("gp3", 0.08) < 0.2


def test_every_type_to_choose_has_a_price():
    """A requirement is ranked by price: each type that may answer it has one in us-east-1."""
    tabled = {
        f"{family}.{size}"
        for families in EC2["types"].values()
        for family, sizes in families.items()
        for size in sizes
    }

    assert set() == tabled - prices.ec2_prices("us-east-1").keys()


GCP, AZURE = prices.table("gcp"), prices.table("azure")


def test_compute_engine_s_known_figures():
    """Iowa's prices are those that Google publishes: n2-standard-4 for $0.194236, pd-balanced for $0.10 a GiB-month."""
    rate = prices.gce_rate("us-central1", "n2-standard-4", "on-demand", disk_gib=73, public=True)

    assert {
        "machine": pytest.approx(0.194236),
        "disk": pytest.approx(0.01),
        "public IPv4": 0.005,
    } == rate.parts
    assert (60, (), ()) == (rate.minimum_s, rate.unknown, rate.notes)


def test_spot_vms_pay_half_for_their_address():
    """On the spot market Google takes other prices for the machine, and half of the address's."""
    rate = prices.gce_rate("us-central1", "n2-standard-4", "spot", disk_gib=0, public=True)

    assert {"machine": pytest.approx(0.09212), "public IPv4": 0.0025} == rate.parts
    assert (f"Spot prices move: these are of {GCP['date']}.",) == rate.notes


def test_attached_gpus_bill_beside_their_machine():
    """An N1 machine with two T4s costs what it would without, and $0.35 for each."""
    gpus = {"nvidia-tesla-t4": 2}
    rate = prices.gce_rate("us-central1", "n1-standard-4", "on-demand", disk_gib=0, gpus=gpus, public=False)

    assert {"machine": pytest.approx(0.189999), "nvidia-tesla-t4 GPUs": 0.7} == rate.parts


def test_azure_s_known_figures():
    """The prices of West Europe are those that Azure publishes: D4s_v5 for $0.23, P4 for $5.81 a month."""
    rate = prices.azure_rate(
        "westeurope", "Standard_D4s_v5", "on-demand", disk_gib=30, disk_type="Premium_LRS", public=True
    )

    assert {"machine": 0.23, "disk": pytest.approx(5.8072 / 730), "public IPv4": 0.005} == rate.parts
    assert (0, (), ()) == (rate.minimum_s, rate.unknown, rate.notes)


def test_no_price_is_windows_s():
    """AMD's sizes of the fifth generation cost less than Intel's, which with a licence of Windows they would not."""
    for region in AZURE["regions"]:
        here = prices.azure_prices(region)
        for size in ("2", "16", "96"):
            amd, intel = here.get(f"Standard_D{size}as_v5"), here.get(f"Standard_D{size}s_v5")
            assert not (amd and intel) or amd < intel


def test_a_managed_disk_bills_as_its_tier():
    """A disk of 33 GiB costs as much as one of 64, and an ephemeral one nothing."""
    of = {"region": "eastus", "size": "Standard_D2s_v5", "market": "on-demand", "public": False}

    costs = [prices.azure_rate(**of, disk_gib=gib).parts.get("disk", 0) for gib in (0, 32, 33, 64, 65)]

    assert 0 == costs[0] < costs[1] < costs[2] == costs[3] < costs[4]


def test_azure_s_spot_prices_have_their_own_day():
    """They move more than the others, and were read on another day, which the note tells."""
    rate = prices.azure_rate("westeurope", "Standard_D4s_v5", "spot", disk_gib=0, public=False)

    assert 0 < rate.per_hour < 0.23
    assert (f"Spot prices move: these are of {AZURE['spot_date']}.",) == rate.notes


@pytest.mark.parametrize(
    ("rate", "unknown"),
    [
        (
            prices.gce_rate("mars-north1", "n2-standard-4", "spot", disk_gib=10, public=True),
            (
                "spot n2-standard-4 machines in mars-north1",
                "pd-balanced disks in mars-north1",
                "public addresses in mars-north1",
            ),
        ),
        (
            prices.gce_rate(
                "us-south1", "n1-standard-4", "on-demand", disk_gib=0, gpus={"nvidia-t5": 1}, public=False
            ),
            ("on-demand n1-standard-4 machines in us-south1", "on-demand nvidia-t5 in us-south1"),
        ),
        (
            prices.gce_rate(
                "us-central1",
                "n4-standard-4",
                "on-demand",
                disk_gib=10,
                disk_type="hyperdisk-balanced",
                public=False,
            ),
            ("hyperdisk-balanced disks in us-central1",),
        ),
        (
            prices.azure_rate("marsnorth", "Standard_D4s_v5", "on-demand", disk_gib=30, public=False),
            ("on-demand Standard_D4s_v5 machines in marsnorth", "StandardSSD_LRS disks in marsnorth"),
        ),
        (
            prices.azure_rate("eastus", "Standard_D4s_v99", "on-demand", disk_gib=9999, public=False),
            ("on-demand Standard_D4s_v99 machines in eastus", "StandardSSD_LRS disks in eastus"),
        ),
        (
            prices.azure_rate("eastus", "Standard_B2ms", "spot", disk_gib=0, public=False),
            ("spot Standard_B2ms machines in eastus",),
        ),
    ],
)
def test_what_a_table_lacks_is_unknown(rate, unknown):
    """A region, type, disk or GPU that a table lacks is named, part by part, and counted at no other's price."""
    assert unknown == rate.unknown
    assert 0 == sum(cost for part, cost in rate.parts.items() if part != "machine")


@pytest.mark.parametrize("rate", [prices.gce_rate, prices.azure_rate])
def test_other_clouds_have_no_such_market(rate):
    """No price is made up for a market that does not exist."""
    with pytest.raises(ValueError, match="no market 'reserved'"):
        rate("eastus", "Standard_D4s_v5", "reserved", disk_gib=0, public=False)


@pytest.mark.parametrize("table", [GCP, AZURE])
def test_each_table_names_its_sources(table):
    """Each figure can be traced: a table has its day, each source a link and, if it is copied, where it was read."""
    today = dt.datetime.now(dt.UTC).date()

    assert dt.date(2026, 1, 1) < dt.date.fromisoformat(table["date"]) < today
    assert all(source["url"].startswith("https://") for source in table["sources"])
    assert {"Apache-2.0", "MIT"} <= {source.get("licence", "").split(",")[0] for source in table["sources"]}


@pytest.mark.parametrize(
    ("known", "listed", "region"),
    [
        *((prices.gce_prices("us-central1"), prices.gce_prices, region) for region in GCP["regions"]),
        *((prices.azure_prices("eastus"), prices.azure_prices, region) for region in AZURE["regions"]),
    ],
    ids=[*GCP["regions"], *AZURE["regions"]],
)
def test_each_region_of_a_table_is_plausible(known, listed, region):
    """No digit slipped: every region's prices are near the known ones, and on the spot market they are lower.

    Azure itself sells a few sizes in New Zealand for an eighth.
    """
    here, spot = listed(region), listed(region, "spot")
    both = known.keys() & here.keys()

    assert 50 < len(both)
    assert 0.6 < statistics.median(here[name] / known[name] for name in both) < 2.2
    assert all(0.12 * known[name] < here[name] < 3 * known[name] for name in both)
    assert all(0 < spot[name] < 1.001 * here[name] for name in spot.keys() & here.keys())


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (GCP, {name for region in GCP["regions"] for name in prices.gce_prices(region)}),
        (AZURE, {name for region in AZURE["regions"] for name in prices.azure_prices(region)}),
    ],
    ids=["gcp", "azure"],
)
def test_every_type_to_choose_is_sold_somewhere(table, known):
    """A requirement is ranked by price: each type that may answer it has one somewhere."""
    assert set() == {name for some in table["types"].values() for name in some} - known


def test_examples_hold():
    """The examples in the documentation are true."""
    assert 0 == doctest.testmod(prices).failed
