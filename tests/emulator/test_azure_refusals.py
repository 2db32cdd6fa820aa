"""What the embedded Azure refuses, in Azure's own words, and what it offers instead."""

from __future__ import annotations

import pytest
from azure_subscription import GROUP, LOCATION, Subscription, code, refused

IMAGE = "properties__storageProfile__imageReference"


def image(offer, sku, publisher="Canonical", version="latest"):
    """A reference to an image of the marketplace."""
    return {"publisher": publisher, "offer": offer, "sku": sku, "version": version}


class TestOrders:
    """Orders that cannot be."""

    @pytest.mark.parametrize(
        ("changes", "expected", "words"),
        [
            ({"location": "atlantis"}, (400, "LocationNotAvailableForResourceType"), "atlantis"),
            ({"zones": ["9"]}, (400, "InvalidAvailabilityZone"), "'1,2,3'"),
            ({"properties__hardwareProfile": None}, (400, "InvalidParameter"), "vmSize"),
            (
                {"properties__hardwareProfile__vmSize": "Standard_Z1"},
                (400, "InvalidParameter"),
                "Standard_Z1",
            ),
            ({"properties__osProfile": None}, (400, "InvalidParameter"), "osProfile"),
            ({"properties__osProfile__computerName": "a b"}, (400, "InvalidParameter"), "host name"),
            ({"properties__osProfile__adminUsername": "root"}, (400, "InvalidParameter"), "not allowed"),
            (
                {"properties__osProfile__linuxConfiguration": None},
                (400, "InvalidParameter"),
                "Authentication",
            ),
            ({"properties__osProfile__customData": "no base64!"}, (400, "InvalidParameter"), "Base64"),
            ({"properties__osProfile__customData": "A" * 87384}, (400, "InvalidParameter"), "87380"),
            ({"properties__storageProfile": None}, (400, "InvalidParameter"), "imageReference"),
            (
                {IMAGE: image("nothing", "server")},
                (404, "PlatformImageNotFound"),
                "Canonical:nothing:server:latest",
            ),
            (
                {IMAGE: image("ubuntu-24_04-lts", "server", version="1.0.0")},
                (404, "PlatformImageNotFound"),
                "1.0.0",
            ),
            (
                {IMAGE: {"id": "/subscriptions/x/resourceGroups/y/providers/z/images/n"}},
                (404, "ImageNotFound"),
                "images/n",
            ),
            ({IMAGE: image("ubuntu-24_04-lts", "server-arm64")}, (400, "BadRequest"), "'x64'"),
            (
                {
                    IMAGE: image("ubuntu-24_04-lts", "server-gen1"),
                    "properties__hardwareProfile__vmSize": "Standard_D2ads_v7",
                },
                (400, "BadRequest"),
                "Generation '1'",
            ),
            (
                {IMAGE: image("flatcar-container-linux-free", "stable-gen2", "kinvolk")},
                (400, "VMMarketplaceInvalidInput"),
                "Plan information",
            ),
            (
                {"properties__storageProfile__osDisk__diskSizeGB": 8},
                (400, "InvalidParameter"),
                "smaller than",
            ),
            ({"properties__networkProfile": None}, (400, "InvalidParameter"), "networkProfile"),
            (
                {"properties__networkProfile__networkApiVersion": None},
                (400, "InvalidParameter"),
                "networkApiVersion",
            ),
            (
                {"properties__networkProfile": {"networkInterfaces": [{"id": "/x"}]}},
                (400, "InvalidResourceReference"),
                "/x",
            ),
            (
                {
                    "properties__storageProfile__osDisk": {
                        "createOption": "FromImage",
                        "caching": "ReadOnly",
                        "diffDiskSettings": {"option": "Local"},
                    }
                },
                (400, "InvalidParameter"),
                "Ephemeral",
            ),
            (
                {"properties__priority": "Spot", "properties__hardwareProfile__vmSize": "Standard_B2ms"},
                (400, "AzureSpotIsNotSupportedForThisVMSize"),
                "Standard_B2ms",
            ),
        ],
    )
    def test_it_is_refused(self, shared, changes, expected, words):
        """Every refusal has Azure's code, and names what is wrong; nothing is made."""
        error = refused(shared.order, "one", **changes)

        assert (*expected, True) == (error.status_code, error.error.code, words in error.message)
        assert [] == [*shared.cloud.machines(), *shared.network.network_interfaces.list_all()]


class TestRoom:
    """Capacity and quotas."""

    def test_no_room_is_told_after_the_order_was_accepted(self, subscription):
        """The order is accepted, and its operation fails; the machine is there, failed, and does not bill."""
        subscription.cloud.inject("capacity", room=0)
        machines = subscription.compute.virtual_machines
        order = machines.begin_create_or_update(GROUP, "one", subscription.machine("one"))

        assert "AllocationFailed" == code(order.result)[1]
        assert "Failed" == machines.get(GROUP, "one").provisioning_state
        assert {} == subscription.bills()
        machines.begin_delete(GROUP, "one").result()
        assert [] == list(subscription.network.network_interfaces.list_all())

    def test_no_room_in_a_zone_says_so(self, subscription):
        """A machine that must be in one zone fails with a code of its own; other zones have room."""
        subscription.cloud.inject("capacity", room=0, zone="1")

        assert "ZonalAllocationFailed" == code(subscription.order, "one", zones=["1"])[1]
        assert "Succeeded" == subscription.order("two", zones=["2"]).provisioning_state

    def test_no_room_for_spot_is_told_at_once(self, subscription):
        """Spot machines without room are refused before anything is made."""
        subscription.cloud.inject("capacity", room=0, market="spot")

        assert (409, "SkuNotAvailable") == code(subscription.order, "one", properties__priority="Spot")
        assert [] == list(subscription.compute.virtual_machines.list(GROUP))
        assert "Succeeded" == subscription.order("two").provisioning_state

    def test_a_figure_of_the_profile_is_the_same(self, emulated_azure):
        """Capacity may be a figure by market, place, zone and size; a size with none is restricted in the SKUs."""
        emulated_azure.reset(capacity={"on-demand/Standard_D2s_v*": 1, "westeurope/Standard_D4s_v5": 0})
        subscription = Subscription.of(emulated_azure).prepare()
        subscription.order("one")

        assert "AllocationFailed" == code(subscription.order, "two")[1]
        skus = subscription.compute.resource_skus.list(filter=f"location eq '{LOCATION}'")
        barred = [one.name for one in skus if one.restrictions]
        assert ["Standard_D4s_v5"] == barred

    @pytest.mark.parametrize(
        ("quota", "changes", "words"),
        [
            ("cores", {}, "Total Regional Cores"),
            ("standardDSv5Family", {}, "standardDSv5Family Cores"),
            ("lowPriorityCores", {"properties__priority": "Spot"}, "LowPriorityCores"),
        ],
    )
    def test_quotas_are_told_and_held(self, emulated_azure, quota, changes, words):
        """Usage tells limits and what is used of them; the refusal names which, where, and how many are needed."""
        emulated_azure.reset(quotas={quota: 3})
        subscription = Subscription.of(emulated_azure).prepare()
        subscription.order("one", **changes)

        told = {one.name.value: one for one in subscription.compute.usage.list(LOCATION)}
        error = refused(subscription.order, "two", **changes)

        assert (2, 3) == (told[quota].current_value, told[quota].limit)
        assert (409, "OperationNotAllowed") == (error.status_code, error.error.code)
        for one in (words, f"Location: {LOCATION}", "Current Limit: 3", "Current Usage: 2", "Required: 2"):
            assert one in error.message


class TestOffers:
    """Sizes and images."""

    def test_sizes_say_what_they_can_do(self, shared):
        """A location's sizes come with capabilities and zones."""
        skus = {
            one.name: one for one in shared.compute.resource_skus.list(filter=f"location eq '{LOCATION}'")
        }
        able = {one.name: one.value for one in skus["Standard_D2s_v5"].capabilities}

        assert ("2", "8", "x64") == (able["vCPUs"], able["MemoryGB"], able["CpuArchitectureType"])
        assert ["1", "2", "3"] == sorted(skus["Standard_D2s_v5"].location_info[0].zones)

    def test_images_of_the_marketplace_are_found(self, shared):
        """An image's versions are listed, and one tells its architecture and whether it has a plan."""
        images = shared.compute.virtual_machine_images
        where = (LOCATION, "kinvolk", "flatcar-container-linux-free", "stable-gen2")
        version = images.list(*where)[0].name

        assert ("x64", "stable-gen2") == (
            images.get(*where, version).architecture,
            images.get(*where, version).plan.name,
        )
        assert (404, "NotFound") == code(images.get, *where, "latest")
        assert (404, "NotFound") == code(images.list, LOCATION, "nobody", "nothing", "none")


def test_images_of_ones_own_boot(emulated_azure):
    """A managed image, and one of a gallery, can be made, found and booted."""
    subscription = Subscription.of(emulated_azure).prepare()
    compute = subscription.compute
    compute.galleries.begin_create_or_update(GROUP, "shelf", {"location": LOCATION, "properties": {}})
    definition = {
        "location": LOCATION,
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": "V2",
            "architecture": "x64",
            "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
        },
    }
    compute.gallery_images.begin_create_or_update(GROUP, "shelf", "own", definition)
    version = {"location": LOCATION, "properties": {"storageProfile": {"osDiskImage": {}}}}
    compute.gallery_image_versions.begin_create_or_update(GROUP, "shelf", "own", "1.0.0", version)
    id = compute.gallery_image_versions.get(GROUP, "shelf", "own", "1.0.0").id

    assert id == subscription.order("one", **{IMAGE: {"id": id}}).storage_profile.image_reference.id
    missing = {"id": id.replace("1.0.0", "2.0.0")}
    assert (404, "GalleryImageNotFound") == code(subscription.order, "two", **{IMAGE: missing})
