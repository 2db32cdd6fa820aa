"""Machine types of Compute Engine: named or chosen for what they must have, on the types that Google says it has."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import prices
from cloudprovider.emulator import gce_catalogue
from cloudprovider.errors import ConfigError
from cloudprovider.providers import _gce_types as types
from cloudprovider.providers import _machine_types as machine_types
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.providers._gce_images import MachineImage
from cloudprovider.providers._gce_plan import kind_of
from cloudprovider.providers._gcp import GCP

IOWA = tuple(f"us-central1-{letter}" for letter in "abcf")


@functools.cache
def kind(zone, name):
    """A type as the SDK reads it."""
    from google.cloud import compute_v1

    answer = json.dumps(gce_catalogue.machine_type(zone, name))
    return types.parsed(compute_v1.MachineType.from_json(answer, ignore_unknown_fields=True))


@functools.cache
def region_of(region):
    """What a region has: its types by name, their zones, and how many of which card in each zone."""
    kinds, zones, cards = {}, {}, {}
    for zone in gce_catalogue.regions()[region]:
        for name in gce_catalogue.machine_types(zone):
            kinds[name] = kind(zone, name)
            zones[name] = (*zones.get(name, ()), zone)
        for card in gce_catalogue.accelerator_types(zone):
            most = gce_catalogue.accelerator_type(zone, card)["maximumCardsPerInstance"]
            cards.setdefault(card, {})[zone] = most
    return kinds, zones, cards


def choose(region="us-central1", **options):
    """Choose as `choose_all` does, from what a region has."""
    kinds, zones, cards = region_of(region)
    config = GCPConfig.of(**options)
    return types.settled(config, region, kinds, zones, cards.get(config.gpu_type, {}))


def names(choice):
    return [one.name for one in choice.types]


class TestChoice:
    """What is made of options."""

    def test_a_requirement_is_answered_with_the_cheapest(self):
        """Four vCPUs and 16 GiB are several types that have them, with the price of the first."""
        choice = choose(cpu=4, memory="16 GiB")["worker"]

        assert all(one.vcpu >= 4 and one.memory_gib >= 16 for one in choice.types)
        assert choice.reason.startswith("4 vCPU with 16 GiB: e2-standard-4 ($0.134/h), then ")
        assert "e2-standard-4" == choice.types[0].name

    def test_who_asks_for_nothing_gets_a_small_machine(self):
        """By default a worker has 2 vCPUs and 8 GiB, and no part of a processor."""
        choices = choose()

        assert (2, 8) == (choices["worker"].types[0].vcpu, choices["worker"].types[0].memory_gib)
        assert not any(one.burstable for choice in choices.values() for one in choice.types)

    def test_alternatives_boot_from_the_same_type_of_disk(self):
        """An order has one type of boot disk: where the first takes a Persistent Disk, all do."""
        for options in ({}, {"cpu": 96}, {"architecture": "arm64"}):
            for choice in choose(**options).values():
                assert 1 == len({one.boot_disk for one in choice.types})

    def test_newer_families_boot_from_hyperdisk(self):
        """N4 and C4A take no Persistent Disk, which N2 and C3 do."""
        disks = {
            name: types.boot_disk(name)
            for name in ("n4-standard-4", "c4a-standard-4", "n2-standard-4", "c3-standard-4")
        }

        assert ["hyperdisk-balanced"] * 2 + ["pd-balanced"] * 2 == [*disks.values()]

    def test_spot_is_ranked_by_its_own_prices(self):
        """On the spot market other types are the cheapest: the sentence says the price there."""
        choice = choose(cpu=4, memory="16 GiB", spot=True)["worker"]
        cost = [prices.gce_price("us-central1", one.name, "spot") for one in choice.types]

        assert all(price <= machine_types.FACTOR * cost[0] for price in cost)
        assert f"{choice.types[0].name} (${cost[0]:.4g}/h spot)" in choice.reason

    def test_names_keep_their_order(self):
        """The user's list is the order of preference, whatever it costs."""
        assert ["n2-standard-8", "n2-standard-4"] == names(
            choose(instance_type=["n2-standard-8", "n2-standard-4"])["worker"]
        )

    def test_the_scheduler_has_the_workers_architecture(self):
        """Both run the same image, so the scheduler's type follows the workers'."""
        assert "arm64" == choose(instance_type="c4a-standard-4")["scheduler"].architecture
        assert "arm64" == choose(architecture="arm64")["scheduler"].architecture

    def test_zones_decide(self):
        """With `zones=`, only what one of them offers is chosen."""
        choice = choose(gpu=1, zones=["us-central1-c"])["worker"]

        assert all("us-central1-c" in choice.zones[name] for name in names(choice))
        assert ("us-central1-c",) == types.ranked_zones(choose(gpu=1), ["us-central1-c", "us-central1-f"])


class TestGPUs:
    """GPUs that are part of a type, and those that are attached to one."""

    def test_the_cheapest_accelerator_optimised_type(self):
        """Without a `gpu_type=` it is a type that has its GPUs in it: an order attaches none."""
        choice = choose(gpu=1)["worker"]

        assert "g2-standard-4" == choice.types[0].name
        assert {(1, "nvidia-l4", False)} == {(one.gpus, one.gpu_name, one.attached) for one in choice.types}
        assert 0 == choose(gpu=1)["scheduler"].gpus

    @pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 4), (8, 8)])
    def test_at_least_as_many(self, asked, given):
        """Machines have the GPUs asked for, all of them the same number."""
        assert {given} == {one.gpus for one in choose(gpu=asked)["worker"].types}

    def test_a_type_of_gpu_that_types_have(self):
        """`gpu_type=` names one, and only types that have it are chosen."""
        choice = choose(gpu=1, gpu_type="nvidia-tesla-a100")["worker"]

        assert "a2-highgpu-1g" == choice.types[0].name
        assert {"nvidia-tesla-a100"} == {one.gpu_name for one in choice.types}

    def test_gpus_are_attached_to_n1(self):
        """T4s go with N1 machines, in zones that have both, for the price of both."""
        choice = choose(gpu=1, gpu_type="nvidia-tesla-t4", cpu=4, memory=15)["worker"]

        assert "n1-standard-4" == choice.types[0].name
        assert {(1, "nvidia-tesla-t4", True, "n1")} == {
            (one.gpus, one.gpu_name, one.attached, one.family) for one in choice.types
        }
        assert "($0.54/h)" in choice.reason
        zones = set(choice.zones["n1-standard-4"])
        assert zones == {zone for zone in IOWA if "nvidia-tesla-t4" in gce_catalogue.accelerator_types(zone)}
        assert 0 == choose(gpu=1, gpu_type="nvidia-tesla-t4")["scheduler"].gpus

    @pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (3, 4)])
    def test_only_so_many_are_attached(self, asked, given):
        """A machine has 1, 2 or 4 T4s."""
        assert given == choose(gpu=asked, gpu_type="nvidia-tesla-t4")["worker"].gpus

    @pytest.mark.parametrize(
        ("region", "options", "message"),
        [
            ("us-central1", {"gpu": 5, "gpu_type": "nvidia-tesla-t4"}, "has 4 nvidia-tesla-t4 at most"),
            ("us-central1", {"gpu": 1, "gpu_type": "nvidia-t5"}, "is none of nvidia-a100-80gb"),
            ("us-south1", {"gpu": 1, "gpu_type": "nvidia-tesla-v100"}, "us-south1 has none"),
            ("us-south1", {"gpu": 1, "gpu_type": "nvidia-l4"}, "us-south1 offers none of them"),
        ],
    )
    def test_what_there_is_not(self, region, options, message):
        """Too many, unknown ones, or ones that the region does not have, are refused with the reason."""
        with pytest.raises(ConfigError, match=message):
            choose(region, **options)


@pytest.mark.parametrize(
    ("region", "options", "message"),
    [
        (
            "us-central1",
            {"instance_type": "n2-standrd-4"},
            r"no such type in us-central1\. Near it: n2-standard-4",
        ),
        ("us-south1", {"instance_type": "a2-highgpu-1g"}, "us-south1 does not offer it"),
        ("us-central1", {"instance_type": ["c4a-standard-4", "n2-standard-4"]}, "several architectures"),
        ("us-central1", {"instance_type": ["g2-standard-4", "g2-standard-24"]}, "several numbers of GPUs"),
        ("us-central1", {"instance_type": ["g2-standard-4", "a2-highgpu-1g"]}, "several kinds of GPUs"),
        ("us-central1", {"instance_type": ["e2-standard-4", "n4-standard-4"]}, "several types of boot disks"),
        ("us-central1", {"cpu": 9999}, r"has 9999 vCPU\. The largest have 384 vCPU \(c4d-highcpu-384\)"),
        (
            "us-central1",
            {"instance_type": "a2-ultragpu-1g", "zones": "us-central1-f"},
            r"is not offered in zone us-central1-f\. It is in us-central1-a, us-central1-c: pass zones= there",
        ),
    ],
)
def test_refusals(region, options, message):
    """What cannot be is refused before an order, with what can."""
    with pytest.raises(ConfigError, match=message):
        choose(region, **options)


@given(
    cpu=st.integers(0, 200),
    memory=st.integers(0, 1500),
    gpus=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    region=st.sampled_from(["us-central1", "europe-west4", "me-central2"]),
    spot=st.booleans(),
)
def test_a_chosen_type_always_is_what_was_asked_for(cpu, memory, gpus, architecture, region, spot):
    """Whatever is asked for: all chosen types have it, are alike, and none costs much more than the first."""
    least = (cpu, memory) if cpu or memory or gpus else (machine_types.CPU, machine_types.MEMORY)
    fitting = [
        name
        for name, facts in machine_types.tabled("gcp", architecture).items()
        if facts[0] >= least[0]
        and facts[1] >= least[1]
        and (facts[2] >= gpus if gpus else not facts[2])
        and name in region_of(region)[0]
    ]
    options = {"cpu": cpu or None, "memory": memory or None, "gpu": gpus or None, "spot": spot}
    if not fitting:
        with pytest.raises(ConfigError, match=r"offers none of them|type of Compute Engine has"):
            choose(region, **options, architecture=architecture)
        return

    choice = choose(region, **options, architecture=architecture)["worker"]
    assert set(names(choice)) <= set(fitting)
    assert 0 < len(choice.types) <= machine_types.MOST
    assert 1 == len({tuple(one.alike.values()) for one in choice.types})
    cost = [types.GCE.cost(choice.wish, region, one.name)[0] for one in choice.types]
    assert all(price <= machine_types.FACTOR * cost[0] for price in cost)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "n2-standard-4",
            {"vcpu": 4, "memory_gib": 16, "gpus": 0, "architecture": "x86_64", "burstable": False},
        ),
        (
            "n1-standard-1",
            {"vcpu": 1, "memory_gib": 3.75, "architecture": "x86_64", "boot_disk": "pd-balanced"},
        ),
        ("c4a-standard-4", {"architecture": "arm64", "boot_disk": "hyperdisk-balanced"}),
        ("e2-small", {"burstable": True}),
        ("a2-highgpu-2g", {"gpus": 2, "gpu_name": "nvidia-tesla-a100", "attached": False}),
        ("g2-standard-96", {"gpus": 8, "gpu_name": "nvidia-l4"}),
    ],
)
def test_facts(name, facts):
    """What machineTypes.list says of a type is read."""
    found = kind("us-central1-a", name)

    assert facts == {fact: getattr(found, fact) for fact in facts}


def test_the_table_says_what_the_cloud_says():
    """What the price table knows of a type is what Google answers."""
    kinds, _, _ = region_of("us-central1")
    tabled = {
        name: (architecture, *facts)
        for architecture in ("x86_64", "arm64")
        for name, facts in machine_types.tabled("gcp", architecture).items()
    }
    both = tabled.keys() & kinds.keys()

    assert 0.9 < len(both) / len(tabled)
    for name in both:
        found = kinds[name]
        assert tabled[name] == (found.architecture, found.vcpu, pytest.approx(found.memory_gib), found.gpus)


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [
        ("n2-standard-4", {"N2_CPUS": 4}, {"PREEMPTIBLE_CPUS": 4}),
        ("e2-standard-8", {"CPUS": 8}, {"PREEMPTIBLE_CPUS": 8}),
        ("n4-standard-4", {}, {"PREEMPTIBLE_CPUS": 4}),
        (
            "a2-highgpu-1g",
            {"A2_CPUS": 12, "NVIDIA_A100_GPUS": 1},
            {"PREEMPTIBLE_CPUS": 12, "PREEMPTIBLE_NVIDIA_A100_GPUS": 1},
        ),
        ("g2-standard-24", {"NVIDIA_L4_GPUS": 2}, {"PREEMPTIBLE_CPUS": 24, "PREEMPTIBLE_NVIDIA_L4_GPUS": 2}),
    ],
)
def test_quotas(name, on_demand, spot):
    """Each family counts against its own metric of the region, and all Spot VMs against one."""
    found = kind("us-central1-a", name)

    assert (on_demand, spot) == (types.quotas_of(found, "on-demand"), types.quotas_of(found, "spot"))


def test_every_quota_is_one_of_the_api():
    """No metric is made up: the API's own list has those that are not newer than it."""
    from google.cloud import compute_v1

    known = {metric.name for metric in compute_v1.types.Quota.Metric}
    asked = {*types.CPUS.values(), *types.GPUS.values(), "PREEMPTIBLE_CPUS"} - {"NVIDIA_H100_GPUS"}

    assert asked <= known


def test_spot_vms_count_as_others_do_without_quotas_of_their_own():
    """Where the project has no quota for preemptible machines yet, Spot VMs take from the one on demand."""
    config = GCPConfig.of(instance_type="n2-standard-4", spot=True)
    image = MachineImage(id="projects/p/global/images/i", root_size_gib=10, architecture="x86_64")
    planned = kind_of(choose(instance_type="n2-standard-4", spot=True)["worker"], image, config, ["spot"])

    assert {"PREEMPTIBLE_CPUS": 4} == planned.shares("spot", {"PREEMPTIBLE_CPUS": 100, "N2_CPUS": 8})
    assert {"N2_CPUS": 4} == planned.shares("spot", {"PREEMPTIBLE_CPUS": 0, "N2_CPUS": 8})
    assert {"N2_CPUS": 4} == planned.shares("on-demand", {"N2_CPUS": 8})


def test_attached_gpus_count():
    """A machine with T4s takes its vCPUs and its GPUs."""
    first = choose(gpu=2, gpu_type="nvidia-tesla-t4", cpu=4)["worker"].types[0]

    assert {"CPUS": first.vcpu, "NVIDIA_T4_GPUS": 2} == types.quotas_of(first, "on-demand")


def called(cloud):
    return sorted(call.operation for call in cloud.calls)


def test_choosing_costs_a_call_for_each_zone(emulated_gcp):
    """Both roles' types in all zones of the region: one call for its zones, and one for each of them."""
    choices = types.choose_all(GCP(None, "us-central1"), GCPConfig.of(cpu=4, memory="16 GiB"))

    assert ["machineTypes.list"] * 4 + ["regions.get"] == called(emulated_gcp)
    assert choose(cpu=4, memory="16 GiB") == choices


def test_attached_gpus_cost_as_many_calls_again(emulated_gcp):
    """Where GPUs are attached, each zone is asked for them too, beside its types."""
    options = {"gpu": 1, "gpu_type": "nvidia-tesla-t4"}
    choices = types.choose_all(GCP(None, "us-central1"), GCPConfig.of(**options), IOWA)

    assert ["acceleratorTypes.list"] * 4 + ["machineTypes.list"] * 4 == called(emulated_gcp)
    assert names(choose(**options)["worker"]) == names(choices["worker"])


@pytest.mark.usefixtures("emulated_gcp")
def test_a_region_that_there_is_not():
    """A wrong region is refused as such, not as one without machine types."""
    with pytest.raises(ConfigError, match="region='mars-north1' is no region of Google Cloud's"):
        types.choose_all(GCP(None, "mars-north1"), GCPConfig.of())


def test_types_that_the_cloud_does_not_have(emulated_gcp):
    """A name that no zone knows is refused with the nearest, not with Google's error."""
    with pytest.raises(ConfigError, match=r"instance_type='n2-standard-5': .* Near it: n2-standard-"):
        types.choose_all(GCP(None, "us-central1"), GCPConfig.of(instance_type="n2-standard-5"))
