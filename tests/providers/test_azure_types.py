"""VM sizes of Azure: named or chosen for what they must have, on the SKUs that Azure says it has."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import prices
from cloudprovider.emulator import azure_catalogue
from cloudprovider.errors import ConfigError
from cloudprovider.providers import _azure_types as types
from cloudprovider.providers import _machine_types as machine_types
from cloudprovider.providers._azure import Azure
from cloudprovider.providers._azure_config import AzureVMConfig


@functools.cache
def skus(region):
    """What resourceSkus.list answers, by name."""
    return {sku["name"]: sku for sku in azure_catalogue.resource_skus(region)}


def choose(region="westeurope", restricted=(), **options):
    """Choose as `choose_all` does, from what a region has."""
    found = [{**sku, "restrictions": dict(restricted).get(name, [])} for name, sku in skus(region).items()]
    return types.settled(AzureVMConfig.of(region=region, **options), region, found)


def names(choice):
    return [size.name for size in choice.types]


def nowhere(region="westeurope"):
    """Of a SKU that a subscription may not use in a region."""
    return {"type": "Location", "values": [region], "reasonCode": "NotAvailableForSubscription"}


def not_in(*zones):
    """Of a SKU that a subscription may not use in some zones."""
    return {
        "type": "Zone",
        "values": ["westeurope"],
        "restrictionInfo": {"locations": ["westeurope"], "zones": [*zones]},
        "reasonCode": "NotAvailableForSubscription",
    }


class TestChoice:
    """What is made of options."""

    def test_a_requirement_is_answered_with_the_cheapest(self):
        """Four vCPUs and 16 GiB are several sizes that have them, with the price of the first."""
        choice = choose(cpu=4, memory="16 GiB")["worker"]
        first = choice.types[0]
        price = prices.azure_price("westeurope", first.name)

        assert all(size.vcpu >= 4 and size.memory_gib >= 16 for size in choice.types)
        assert choice.reason.startswith(f"4 vCPU with 16 GiB: {first.name} (${price:.4g}/h), then ")
        assert "; arm64 Standard_D4ps_v" in choice.reason

    def test_who_asks_for_nothing_gets_a_small_machine(self):
        """By default a worker has 2 vCPUs and 8 GiB, whose processors are not slowed down."""
        choices = choose()

        assert (2, 8) == (choices["worker"].types[0].vcpu, choices["worker"].types[0].memory_gib)
        assert not any(size.burstable for choice in choices.values() for size in choice.types)

    def test_every_size_boots_images_of_generation_2(self):
        """The default image is of generation 2, so a chosen size has it."""
        assert all("V2" in size.generations for choice in choose().values() for size in choice.types)

    def test_every_size_has_the_market(self):
        """For spot, only sizes that may be of low priority are chosen, ranked by their price there."""
        choice = choose(cpu=4, memory="16 GiB", spot=True)["worker"]
        cost = [prices.azure_price("westeurope", name, "spot") for name in names(choice)]

        assert all("spot" in size.markets for size in choice.types)
        assert all(price <= machine_types.FACTOR * cost[0] for price in cost)

    @pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 4), (8, 8)])
    def test_gpus(self, asked, given):
        """Machines have at least the GPUs asked for, all of them the same number; the scheduler has none."""
        choices = choose(gpu=asked)

        assert {given} == {size.gpus for size in choices["worker"].types}
        assert 0 == choices["scheduler"].gpus

    def test_a_part_of_a_gpu_is_no_gpu(self):
        """NV6ads_A10_v5 is cheaper than any with a GPU, of which it has a sixth."""
        assert "Standard_NV6ads_A10_v5" not in names(choose(gpu=1)["worker"])

    def test_names_keep_their_order(self):
        """The user's list is the order of preference, whatever it costs."""
        asked = ["Standard_D8s_v5", "Standard_D4s_v5"]

        assert asked == names(choose(instance_type=asked)["worker"])

    def test_a_region_without_zones(self):
        """Where there are no zones sizes are there none the less, in no zone."""
        choice = choose("westus")["worker"]

        assert {()} == set(choice.zones.values())
        with pytest.raises(ConfigError, match=r"not offered in zone 1\. Try another region"):
            choose("westus", zones=["1"])

    @pytest.mark.parametrize("options", [{"instance_type": "Standard_D4ps_v6"}, {"architecture": "arm64"}])
    def test_the_scheduler_has_the_workers_architecture(self, options):
        """Both run the same image, so the scheduler's size follows the workers'."""
        assert "arm64" == choose(**options)["scheduler"].architecture


class TestRestrictions:
    """What a subscription may not use."""

    def test_a_size_that_is_closed_is_not_chosen(self):
        """A requirement is answered with what the subscription may have."""
        cheapest = choose()["worker"].types[0].name

        assert cheapest not in names(choose(restricted=[(cheapest, [nowhere()])])["worker"])

    def test_a_named_one_says_why(self):
        """A name that is closed for the subscription is refused with Azure's reason, and what to do."""
        closed = [("Standard_D4s_v5", [nowhere()])]

        with pytest.raises(
            ConfigError, match=r"may not use it in westeurope \(NotAvailableForSubscription\)\. Ask"
        ):
            choose(instance_type="Standard_D4s_v5", restricted=closed)

    def test_zones_that_are_closed_are_none(self):
        """A size is not in zones where the subscription may not have it, and may still be without a zone."""
        here = choose(instance_type="Standard_D4s_v5", restricted=[("Standard_D4s_v5", [not_in("1", "3")])])
        nowhere = choose(
            instance_type="Standard_D4s_v5", restricted=[("Standard_D4s_v5", [not_in("1", "2", "3")])]
        )

        assert ("2",) == here["worker"].zones["Standard_D4s_v5"]
        assert () == nowhere["worker"].zones["Standard_D4s_v5"]

    def test_zones_decide(self):
        """With `zones=`, only what one of them offers is chosen, and it is said where else it would be."""
        closed = [("Standard_D4s_v5", [not_in("1")])]

        with pytest.raises(
            ConfigError, match=r"not offered in zone 1\. It is in 2, 3: pass zones= there, or none"
        ):
            choose(instance_type="Standard_D4s_v5", zones=["1"], restricted=closed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instance_type": "Standard_D4s_v55"}, r"no such size in westeurope\. Near it: Standard_D4s_v5"),
        ({"instance_type": ["Standard_D4ps_v6", "Standard_D4s_v6"]}, "several architectures"),
        ({"instance_type": ["Standard_NC4as_T4_v3", "Standard_NC64as_T4_v3"]}, "several numbers of GPUs"),
        ({"instance_type": "Standard_B2ms", "spot": True}, "cannot be ordered on the spot market"),
        ({"instance_type": "Standard_D4ps_v6", "architecture": "x86_64"}, "leave out architecture="),
        ({"cpu": 9999}, r"No x86_64 size of Azure has 9999 vCPU\. The largest have 192 vCPU"),
        ({"gpu": 1, "architecture": "arm64"}, r"has 1 GPU\. There are none"),
    ],
)
def test_refusals(options, message):
    """What cannot be is refused before an order, with what can."""
    with pytest.raises(ConfigError, match=message):
        choose(**options)


@given(
    cpu=st.integers(0, 200),
    memory=st.integers(0, 1500),
    gpus=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    region=st.sampled_from(["westeurope", "eastus", "westus", "qatarcentral"]),
    spot=st.booleans(),
)
def test_a_chosen_size_always_is_what_was_asked_for(cpu, memory, gpus, architecture, region, spot):
    """Whatever is asked for: all chosen sizes have it, are alike, and none costs much more than the first."""
    least = (cpu, memory) if cpu or memory or gpus else (machine_types.CPU, machine_types.MEMORY)
    market = "spot" if spot else "on-demand"
    fitting = [
        name
        for name, facts in machine_types.tabled("azure", architecture).items()
        if facts[0] >= least[0]
        and facts[1] >= least[1]
        and (facts[2] >= gpus if gpus else not facts[2])
        and name in skus(region)
        and market in types.parsed(skus(region)[name]).markets
    ]
    options = {"cpu": cpu or None, "memory": memory or None, "gpu": gpus or None, "spot": spot}
    if not fitting:
        with pytest.raises(ConfigError, match=r"offers none of them|size of Azure has"):
            choose(region, **options, architecture=architecture)
        return

    choice = choose(region, **options, architecture=architecture)["worker"]
    assert set(names(choice)) <= set(fitting)
    assert 0 < len(choice.types) <= machine_types.MOST
    assert {(architecture, choice.gpus)} == {(size.architecture, size.gpus) for size in choice.types}
    cost = [types.AZURE.cost(choice.wish, region, name)[0] for name in names(choice)]
    assert all(price <= machine_types.FACTOR * cost[0] for price in cost)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "Standard_D4s_v5",
            {"vcpu": 4, "memory_gib": 16, "gpus": 0, "ephemeral_gib": {}, "family": "standardDSv5Family"},
        ),
        ("Standard_D4s_v5", {"generations": ("V1", "V2"), "premium": True, "accelerated": True, "fit": True}),
        (
            "Standard_D4ads_v6",
            {"ephemeral_gib": {"NvmeDisk": 220}, "controllers": ("NVMe",), "generations": ("V2",)},
        ),
        ("Standard_D4ds_v5", {"ephemeral_gib": {"ResourceDisk": 150}}),
        ("Standard_D4ps_v6", {"architecture": "arm64", "markets": ("on-demand", "spot")}),
        (
            "Standard_NC4as_T4_v3",
            {"gpus": 1, "gpu_name": "T4", "ephemeral_gib": {"CacheDisk": 144, "ResourceDisk": 176}},
        ),
        ("Standard_ND96amsr_A100_v4", {"gpus": 8, "gpu_name": "A100"}),
        ("Standard_B2ms", {"burstable": True, "markets": ("on-demand",)}),
    ],
)
def test_facts(name, facts):
    """What the SKUs say of a size is read: its disks, generations, GPUs and markets."""
    size = types.parsed(skus("eastus")[name])

    assert facts == {fact: getattr(size, fact) for fact in facts}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Standard_DC4as_v5", {"confidential": True, "fit": False}),
        ("Standard_NV4as_v4", {"gpus": 0}),
        ("Standard_ND96isr_MI300X_v5", {"gpus": 0}),
    ],
)
def test_sizes_for_something_else(name, facts):
    """Confidential machines boot other images, and AMD's GPUs are none that dask-cuda could use."""
    sku = skus("eastus")["Standard_NC4as_T4_v3"]

    assert facts == {fact: getattr(types.parsed({**sku, "name": name}), fact) for fact in facts}


def test_an_old_size_is_chosen_for_nothing():
    """A size that boots images of generation 1 only is not what a requirement is answered with."""
    sku = skus("eastus")["Standard_D4s_v5"]
    can = [
        one if one["name"] != "HyperVGenerations" else {**one, "value": "V1"} for one in sku["capabilities"]
    ]

    assert not types.parsed({**sku, "capabilities": can}).fit


def test_a_size_without_premium_disks():
    """Premium disks are asked for by name, and a size that takes none is refused before an order."""
    sku = skus("westeurope")["Standard_D4s_v5"]
    can = [one if one["name"] != "PremiumIO" else {**one, "value": "False"} for one in sku["capabilities"]]
    there = [*skus("westeurope").values(), {**sku, "name": "Standard_D4_v5", "capabilities": can}]
    options = {"region": "westeurope", "instance_type": "Standard_D4_v5"}

    assert "worker" in types.settled(AzureVMConfig.of(**options), "westeurope", there)
    with pytest.raises(ConfigError, match="instance_type='Standard_D4_v5' takes no premium disks"):
        types.settled(AzureVMConfig.of(**options, disk_type="Premium_LRS"), "westeurope", there)


def test_the_ephemeral_disk_has_room():
    """The best place that holds an OS disk is chosen: NVMe, then the cache, then the temporary disk."""
    size = types.parsed(skus("eastus")["Standard_NC4as_T4_v3"])

    assert ("CacheDisk", "ResourceDisk", None) == (
        size.placement(30),
        size.placement(150),
        size.placement(177),
    )


def test_the_table_says_what_the_cloud_says():
    """What the price table knows of a size is what Azure answers."""
    for architecture in ("x86_64", "arm64"):
        for name, facts in machine_types.tabled("azure", architecture).items():
            if name in skus("eastus"):
                size = types.parsed(skus("eastus")[name])
                assert (architecture, *facts) == (size.architecture, size.vcpu, size.memory_gib, size.gpus)


@pytest.mark.parametrize(
    ("name", "on_demand"),
    [
        ("Standard_D4s_v5", {"cores": 4, "standardDSv5Family": 4}),
        ("Standard_NC16as_T4_v3", {"cores": 16, "Standard NCASv3_T4 Family": 16}),
    ],
)
def test_quotas(name, on_demand):
    """On demand, cores count for the region and for the family; on the spot market for the region alone."""
    size = types.parsed(skus("eastus")[name])

    assert on_demand == types.quotas_of(size, "on-demand")
    assert {"lowPriorityCores": size.vcpu} == types.quotas_of(size, "spot")


def test_choosing_costs_one_call(emulated_azure):
    """Both roles' sizes are one list, of their location alone."""
    choices = types.choose_all(Azure(), AzureVMConfig.of(region="westeurope", cpu=4, memory="16 GiB"))

    assert ["ResourceSkus.List"] == [call.operation for call in emulated_azure.calls]
    assert choose(cpu=4, memory="16 GiB") == choices
