"""Instance types: named or chosen for what they must have, on the types that AWS says it has."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
from pathlib import Path

import moto.ec2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import prices
from cloudprovider.errors import ConfigError
from cloudprovider.providers import _ec2_starts as starts
from cloudprovider.providers import _ec2_types as types
from cloudprovider.providers import _machine_types as machine_types
from cloudprovider.providers._aws import AWS
from cloudprovider.providers.ec2 import EC2Config

ZONES = ("us-east-1a", "us-east-1b")


class Kinds(dict):
    """Types by name, too many for hypothesis to show."""

    def __repr__(self):
        return f"<{len(self)} types>"


def recorded(*path):
    """What moto has recorded of AWS's answers."""
    with gzip.open(Path(moto.ec2.__file__).parent.joinpath("resources", *path)) as file:
        return json.load(file)


@pytest.fixture(scope="module")
def kinds():
    """Every type that DescribeInstanceTypes tells of."""
    answers = recorded("instance_types.json.gz").values()
    return Kinds((kind.name, kind) for kind in map(types.parsed, answers))


@functools.cache
def zones_of(region):
    zones = {}
    for offering in recorded("instance_type_offerings", "availability-zone", f"{region}.json.gz"):
        zones.setdefault(offering["InstanceType"], []).append(offering["Location"])
    return {name: tuple(sorted(where)) for name, where in zones.items()}


def test_gpus_of_others_are_not_nvidia_s():
    """A machine with AMD's GPUs has none that the GPU image, or dask-cuda, could use."""
    answer = recorded("instance_types.json.gz")["g5.xlarge"]
    [gpu] = answer["GpuInfo"]["Gpus"]

    assert 1 == types.parsed(answer).gpus
    assert 0 == types.parsed({**answer, "GpuInfo": {"Gpus": [{**gpu, "Manufacturer": "AMD"}]}}).gpus


@pytest.fixture
def choose(kinds):
    """Choose as `choose_all` does, from what a region has."""

    def choose(region="us-east-1", **options):
        there = Kinds((name, kinds[name]) for name in zones_of(region) if name in kinds)
        return types.EC2.settled(EC2Config.of(**options), region, there, zones_of(region))

    return choose


def names(choice):
    return [kind.name for kind in choice.types]


def called(cloud):
    return sorted(call.operation for call in cloud.calls)


def offered(*kinds, zones=ZONES):
    return {kind.name: zones for kind in kinds}


class TestChoice:
    """What `choose_all` makes of options."""

    def test_a_requirement_is_answered_with_the_cheapest(self, choose):
        """Four vCPUs and 16 GiB are several types that have them, with the price."""
        choice = choose(cpu=4, memory="16 GiB")["worker"]

        assert 5 <= len(choice.types) <= machine_types.MOST
        assert all(kind.vcpu >= 4 and kind.memory_gib >= 16 for kind in choice.types)
        assert {"x86_64"} == {kind.architecture for kind in choice.types}
        first = choice.types[0].name
        price = prices.ec2_price("us-east-1", first)
        assert choice.reason.startswith(f"4 vCPU with 16 GiB: {first} (${price:g}/h), then ")
        assert "; arm64 m" in choice.reason

    def test_who_asks_for_nothing_gets_a_small_machine(self, choose):
        """By default a worker has 2 vCPUs and 8 GiB, and the scheduler costs no more."""
        choices = choose()

        assert (2, 8) == (choices["worker"].types[0].vcpu, choices["worker"].types[0].memory_gib)
        assert (2, 4) == (choices["scheduler"].types[0].vcpu, choices["scheduler"].types[0].memory_gib)

    def test_names_keep_their_order(self, choose):
        """The user's list is the order of preference, whatever it costs."""
        choice = choose(instance_type=["m7i.4xlarge", "m7i.xlarge"])["worker"]

        assert ["m7i.4xlarge", "m7i.xlarge"] == names(choice)

    @pytest.mark.parametrize("options", [{"instance_type": "m7g.large"}, {"cpu": 2, "architecture": "arm64"}])
    def test_the_scheduler_has_the_workers_architecture(self, choose, options):
        """Both run the same image, so the scheduler's type follows the workers', named or not."""
        assert "arm64" == choose(**options)["scheduler"].architecture

    def test_the_scheduler_s_own_type_is_kept(self, choose):
        """A type that is named for the scheduler is the scheduler's alone."""
        choices = choose(instance_type="m7i.xlarge", scheduler_instance_type="r7i.large")

        assert (["r7i.large"], ["m7i.xlarge"]) == (names(choices["scheduler"]), names(choices["worker"]))

    @pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 4), (8, 8)])
    def test_gpus(self, choose, asked, given):
        """Machines have at least the GPUs asked for, all of them the same number; the scheduler has none."""
        choices = choose(gpu=asked)

        assert {given} == {kind.gpus for kind in choices["worker"].types}
        assert (given, 0) == (choices["worker"].gpus, choices["scheduler"].gpus)

    def test_who_asks_for_no_gpu_gets_none(self, choose):
        """No GPU is paid for that nobody asked for, however much else is wanted."""
        assert 0 == choose(cpu=96, memory="600 GiB")["worker"].gpus

    def test_every_type_has_the_market(self, choose, kinds):
        """For spot, only types that are sold there are chosen, and their price is told as on demand."""
        choice = choose(cpu=4, memory="16 GiB", spot=True)["worker"]

        assert all("spot" in kind.markets for kind in choice.types)
        assert "/h on demand)" in choice.reason

    def test_zones_decide(self, choose):
        """With `zones=`, only what one of them offers is chosen."""
        choice = choose(cpu=4, memory="16 GiB", zones=["us-east-1b"])["worker"]

        assert all("us-east-1b" in choice.zones[name] for name in names(choice))

    def test_a_region_with_other_types(self, choose):
        """What a region does not have is not chosen there: the cloud says what it has."""
        choice = choose("ap-southeast-4", cpu=4, memory="16 GiB")["worker"]

        assert all(zone.startswith("ap-southeast-4") for where in choice.zones.values() for zone in where)
        assert prices.ec2_price("ap-southeast-4", names(choice)[0]) is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"instance_type": "m7i.xlrage"},
            r"'m7i\.xlrage': EC2 has no such type in us-east-1\. Near it: m7i\.xl",
        ),
        ({"scheduler_instance_type": "huge"}, "scheduler_instance_type='huge'"),
        (
            {"instance_type": "m7i.xlarge", "zones": "us-east-1e"},
            r"not offered in zone us-east-1e\. It is in us",
        ),
        ({"cpu": 4, "zones": "us-east-1e"}, r"and \d+ others \(4 vCPU\) are not offered in zone us-east-1e"),
        (
            {"instance_type": ["m7g.large", "m7i.large"]},
            r"architectures: m7g\.large has arm64, m7i\.large has x86",
        ),
        (
            {"instance_type": ["g4dn.xlarge", "g4dn.12xlarge"]},
            "numbers of GPUs: g4dn.xlarge has 1, g4dn.12xlarge",
        ),
        ({"instance_type": "mac2.metal"}, "runs no Linux of x86_64 or arm64"),
        ({"instance_type": "m7g.large", "architecture": "x86_64"}, "is arm64: leave out architecture="),
        (
            {"instance_type": "hpc7g.4xlarge", "spot": True},
            "cannot be ordered on the spot market|does not offer",
        ),
        ({"cpu": 5000}, r"No x86_64 type of EC2 has 5000 vCPU\. The largest have 896 vCPU \(u7i"),
        ({"gpu": 9}, r"has 9 GPUs\. The largest have .* 8 GPUs"),
    ],
)
def test_what_cannot_be_had(choose, options, said):
    """Each impossible wish is told with what is there instead, before anything is ordered."""
    with pytest.raises(ConfigError, match=said):
        choose(**options)


def test_a_type_of_another_region(choose):
    """A type that exists, but not in the region, is no misspelling."""
    with pytest.raises(
        ConfigError, match=r"p6-b300\.48xlarge.*(af-south-1 does not offer|any zone of af-south-1)"
    ):
        choose("af-south-1", instance_type="p6-b300.48xlarge")


def test_an_image_for_other_machines(choose):
    """A container image that is only for x86 is refused for ARM machines, and one of unknown kind is not."""
    config = EC2Config.of(image="team/intel:1", architecture="arm64")
    boots = [config.boot_for(role, config.identity()) for role in ("scheduler", "worker")]
    choices = choose(architecture="arm64")

    with pytest.raises(ConfigError, match=r"for x86_64 only, but machines like \w+g\.large are arm64"):
        starts.check_architectures(choices, boots, {"team/intel:1": frozenset({"x86_64"})})
    starts.check_architectures(choices, boots, {"team/intel:1": None})


class TestRanking:
    """What is chosen from what the cloud has."""

    WISH = machine_types.Wish(role="worker", cpu=2, memory_gib=8, architecture="x86_64")

    def chosen(self, *kinds, region="us-east-1", zones=None, wish=WISH):
        by_name = {kind.name: kind for kind in kinds}
        return types.EC2.chosen(wish, region, by_name, offered(*kinds) if zones is None else zones)

    def test_burstable_types_are_the_last_resort(self, kinds):
        """A T type is chosen only where nothing else is offered."""
        t3, m7i = kinds["t3.large"], kinds["m7i.large"]

        assert ["m7i.large"] == names(self.chosen(t3, m7i))
        assert ["t3.large"] == names(self.chosen(t3, m7i, zones=offered(t3)))
        assert ["t3.large"] == names(
            self.chosen(t3, m7i, zones={**offered(t3), "m7i.large": ("x",)}).within(ZONES)
        )

    def test_of_equal_prices_the_newer_type_is_first(self, kinds):
        """m5a costs half a percent less than m6a, which is a third faster."""
        assert ["m6a.large", "m5a.large"] == names(self.chosen(kinds["m5a.large"], kinds["m6a.large"]))

    def test_what_costs_far_more_is_no_alternative(self, kinds):
        """A type of twice the price is chosen only when it is all there is."""
        wish = dataclasses.replace(self.WISH, gpus=1)
        g4dn, g5 = kinds["g4dn.xlarge"], kinds["g5.xlarge"]

        assert ["g4dn.xlarge"] == names(self.chosen(g4dn, g5, wish=wish))
        assert ["g5.xlarge"] == names(self.chosen(g4dn, g5, wish=wish, zones=offered(g5)))

    def test_a_region_without_prices_is_ranked_by_another_s(self, kinds):
        """The order is us-east-1's, and the sentence says whose price it shows."""
        choice = self.chosen(kinds["m7i.large"], kinds["m6a.large"], region="mars-north-1")

        assert ["m6a.large", "m7i.large"] == names(choice)
        assert "m6a.large ($0.0864/h in us-east-1)" in choice.reason

    def test_what_has_lost_its_fitness_is_left_out(self, kinds):
        """The table only proposes: what the cloud says is too small, too old or not sold is not chosen."""
        fine = kinds["m6a.large"]
        for change in ({"memory_gib": 4.0}, {"nitro": False}, {"gpus": 1}, {"markets": ("spot",)}):
            unfit = dataclasses.replace(kinds["m7i.large"], **change)
            assert ["m6a.large"] == names(self.chosen(unfit, fine))
            with pytest.raises(ConfigError, match="offers none of them"):
                self.chosen(unfit)

    def test_nothing_is_offered_anywhere(self, kinds):
        """A type that no zone has says so."""
        with pytest.raises(ConfigError, match=r"not offered in any zone of us-east-1\. Try another region"):
            self.chosen(kinds["m7i.large"], zones={})

    def test_zones_with_the_most_types_are_first(self, kinds):
        """Of the zones that can host both roles, that with most workers' types is first."""
        m6a, m7i = kinds["m6a.large"], kinds["m7i.large"]
        scheduler = self.chosen(m6a, zones={"m6a.large": ("a", "b", "c")})
        worker = self.chosen(m6a, m7i, zones={"m6a.large": ("b", "c"), "m7i.large": ("c", "d")})

        choices = {"scheduler": scheduler, "worker": worker}
        assert ("c", "b") == types.ranked_zones(choices, ("a", "b", "c", "d"))
        assert () == types.ranked_zones(choices, ("a", "d"))
        with pytest.raises(ConfigError, match="They are in b, c, d"):
            types.ranked_zones(choices, ("a",))


@given(
    cpu=st.integers(0, 128),
    memory=st.integers(0, 1024),
    gpus=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    region=st.sampled_from(["us-east-1", "eu-central-1", "mx-central-1", "mars-north-1"]),
    spot=st.booleans(),
)
def test_a_chosen_type_always_is_what_was_asked_for(kinds, cpu, memory, gpus, architecture, region, spot):
    """Whatever is asked for: all chosen types have it, none costs much more, and the cheapest comes first."""
    markets = ("spot",) if spot else ("on-demand",)
    wish = machine_types.Wish(
        role="worker",
        cpu=cpu,
        memory_gib=memory,
        gpus=gpus,
        architecture=architecture,
        markets=markets,
    )
    try:
        choice = types.EC2.chosen(wish, region, kinds, offered(*kinds.values()))
    except ConfigError:
        fitting = [kind for kind in kinds.values() if wish.fits(kind)]
        assert not {kind.name for kind in fitting} & set(types.EC2.asked_about(wish, region))
        return

    assert 0 < len(choice.types) <= machine_types.MOST
    assert all(wish.fits(kind) for kind in choice.types)
    assert {(architecture, choice.gpus)} == {(kind.architecture, kind.gpus) for kind in choice.types}
    cost = [types.EC2.cost(wish, region, kind.name) for kind in choice.types]
    assert all(price <= machine_types.FACTOR * cost[0][0] for price, _ in cost)
    for i, (price, where) in enumerate(cost):
        assert all(price <= machine_types.NEAR * later for later, there in cost[i + 1 :] if where == there)
        assert where == region or all(there != region for _, there in cost[i + 1 :])


def test_the_table_says_what_the_cloud_says(kinds):
    """What the table knows of a type is what DescribeInstanceTypes answers; most of its types are known."""
    tabled = {
        name: (architecture, *facts)
        for architecture in ("x86_64", "arm64")
        for name, facts in types.tabled(architecture).items()
    }
    both = tabled.keys() & kinds.keys()

    assert 0.9 < len(both) / len(tabled)
    for name in both:
        kind = kinds[name]
        assert tabled[name] == (
            kind.architecture,
            kind.vcpu,
            pytest.approx(kind.memory_gib, abs=0.01),
            kind.gpus,
        )
        assert not kind.metal


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("m7i.xlarge", {"vcpu": 4, "memory_gib": 16, "gpus": 0, "disks_gib": (), "burstable": False}),
        ("i4i.8xlarge", {"disks_gib": (3750, 3750), "nvme": True}),
        ("g4dn.12xlarge", {"gpus": 4, "gpu_name": "T4", "gpu_memory_gib": 16, "disks_gib": (900,)}),
        ("g6f.large", {"gpus": 1, "gpu_name": "L4"}),
        ("t4g.small", {"burstable": True, "architecture": "arm64"}),
        ("mac2.metal", {"architecture": "", "metal": True}),
        ("m3.medium", {"nitro": False}),
    ],
)
def test_facts(kinds, name, facts):
    """What DescribeInstanceTypes says of a type is read: its disks, its GPUs or part of one, its age."""
    assert facts == {fact: getattr(kinds[name], fact) for fact in facts}


def test_choosing_costs_two_calls(cloud):
    """Both roles' types and where they are: two calls, whose answers are chosen from as they are."""
    choices = types.choose_all(AWS("us-east-1"), EC2Config.of(cpu=4, memory="16 GiB"))

    assert ["DescribeInstanceTypeOfferings", "DescribeInstanceTypes"] == called(cloud)
    assert all(kind.vcpu >= 4 and kind.memory_gib >= 16 for kind in choices["worker"].types)
    assert set(ZONES) <= set(choices["worker"].zones[choices["worker"].types[0].name])
    assert ZONES == types.ranked_zones(choices, ZONES)


def test_spot_prices(cloud):
    """One call has the price of each type in each zone; what EC2 does not say is not in it."""
    known = types.spot_prices(AWS("us-east-1"), ["m7i.xlarge", "m6a.xlarge"])

    assert ["DescribeSpotPriceHistory"] == called(cloud)
    assert {"m7i.xlarge", "m6a.xlarge"} == {name for name, _ in known}
    assert all(0 < price < 1 for price in known.values())


def test_spot_prices_are_no_reason_to_fail(cloud):
    """Who may not see spot prices has a bill with unknown ones."""
    cloud.inject("denied", "DescribeSpotPriceHistory")

    assert {} == types.spot_prices(AWS("us-east-1"), ["m7i.xlarge"])


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [
        ("m7i.xlarge", "L-1216C47A", "L-34B43A08"),
        ("t3.micro", "L-1216C47A", "L-34B43A08"),
        ("is4gen.large", "L-1216C47A", "L-34B43A08"),
        ("g5.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("p6-b200.48xlarge", "L-417A185B", None),
        ("x2idn.16xlarge", "L-7295265B", "L-E3A00192"),
        ("u-6tb1.56xlarge", "L-43DA4232", None),
        ("u7i-12tb.224xlarge", "L-43DA4232", None),
        ("trn1.2xlarge", "L-2C3B7624", "L-6B0D517C"),
        ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
        ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"),
        ("f2.6xlarge", "L-74FC7D96", "L-88CF9481"),
        ("hpc7a.96xlarge", "L-F7808C92", None),
        ("mac2.metal", None, None),
    ],
)
def test_quota_codes(name, on_demand, spot):
    """Each family counts towards the limit that AWS documents for it; where there is none, None says so."""
    assert (on_demand, spot) == (types.quota_code(name, "on-demand"), types.quota_code(name, "spot"))


def test_every_type_that_may_be_chosen_has_a_quota():
    """No type is ordered on demand whose limit is unknown."""
    every = [name for architecture in ("x86_64", "arm64") for name in types.tabled(architecture)]

    assert [] == [name for name in every if types.quota_code(name, "on-demand") is None]
