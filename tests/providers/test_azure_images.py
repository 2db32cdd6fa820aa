"""Images of Azure: the marketplace's, and the user's own with what may be wrong with them."""

from __future__ import annotations

import pytest

from cloudprovider.errors import ConfigError
from cloudprovider.providers import _azure_images as images
from cloudprovider.providers import _azure_types as types
from cloudprovider.providers._azure import Azure
from cloudprovider.providers._azure_config import AzureVMConfig

FLATCAR = "kinvolk:flatcar-container-linux-free:stable-gen2:latest"
PLAN = {"name": "stable-gen2", "product": "flatcar-container-linux-free", "publisher": "kinvolk"}


@pytest.fixture
def azure(emulated_azure):
    return Azure()


def find(azure, kind=("x86_64", False), **options):
    return images.find_all(azure, AzureVMConfig.of(region="westeurope", **options), [kind])[kind]


def made(azure, generation="V2"):
    """Make an image of one's own."""
    azure.call("resources", "resource_groups.create_or_update", "pictures", {"location": "westeurope"})
    disk = {"osType": "Linux", "osState": "Generalized", "blobUri": "https://a.blob.core.windows.net/v/d.vhd"}
    image = {
        "location": "westeurope",
        "properties": {
            "hyperVGeneration": generation,
            "storageProfile": {"osDisk": {**disk, "diskSizeGB": 50}},
        },
    }
    return azure.make("compute", "images.begin_create_or_update", "pictures", "mine", image)["id"]


def test_the_default_images(azure, emulated_azure):
    """Each kind of machine boots an image without a plan, in an exact version: two calls for each."""
    kinds = [*images.DEFAULTS]
    found = images.find_all(azure, AzureVMConfig.of(region="westeurope"), kinds)

    operations = [call.operation for call in emulated_azure.calls]
    assert (
        len(kinds)
        == operations.count("VirtualMachineImages.List")
        == operations.count("VirtualMachineImages.Get")
    )
    assert 2 * len(kinds) == len(operations)
    for (architecture, _), image in found.items():
        assert (architecture, "V2", {}, False) == (
            image.architecture,
            image.generation,
            image.plan,
            image.own,
        )
        assert "latest" != image.reference["version"]


def test_an_exact_version_costs_one_call(azure, emulated_azure):
    """A version that is named needs no list of them."""
    latest = find(azure, machine_image="Canonical:ubuntu-24_04-lts:server:latest")
    before = len(emulated_azure.calls)
    exact = find(azure, machine_image=latest.name)

    assert latest == exact
    assert ["VirtualMachineImages.Get"] == [call.operation for call in emulated_azure.calls[before:]]


def test_no_default_for_arm_with_gpus(azure):
    """There is no image for ARM machines with GPUs, and the error says what to do."""
    with pytest.raises(ConfigError, match=r"arm64 machines with GPUs\. Pass machine_image= one of yours"):
        find(azure, ("arm64", True))


def test_a_plan_must_be_named(azure):
    """An image with a plan needs it in the order, and its terms accepted: the error says both."""
    with pytest.raises(
        ConfigError, match=r"has the plan .*stable-gen2.*: pass plan= so\. `az vm image terms accept --urn"
    ):
        find(azure, machine_image=FLATCAR)

    assert PLAN == find(azure, machine_image=FLATCAR, plan=PLAN).plan


def test_a_plan_that_there_is_not(azure):
    """A plan that the image does not have would refuse every machine."""
    with pytest.raises(ConfigError, match="has no plan: pass plan= so"):
        find(azure, machine_image="Canonical:ubuntu-24_04-lts:server:latest", plan=PLAN)


@pytest.mark.parametrize("generation", ["V1", "V2"])
def test_an_image_of_one_s_own(azure, generation):
    """It is found by its id, with its size and its generation."""
    id = made(azure, generation)
    found = find(azure, machine_image=id)

    assert {"id": id} == found.reference
    assert (50, "x86_64", generation, True) == (
        found.root_size_gib,
        found.architecture,
        found.generation,
        found.own,
    )


def in_gallery(azure, *versions, architecture="x64", plan=None, left_out=()):
    """Make a gallery's image in some versions; the id of the image."""
    azure.call("resources", "resource_groups.create_or_update", "pictures", {"location": "westeurope"})
    where = ("pictures", "shelf")
    azure.make(
        "compute", "galleries.begin_create_or_update", *where, {"location": "westeurope", "properties": {}}
    )
    facts = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V2",
        "architecture": architecture,
        "identifier": {"publisher": "us", "offer": "dask", "sku": "1"},
        **({"purchasePlan": plan} if plan else {}),
    }
    image = {"location": "westeurope", "properties": facts}
    made = azure.make("compute", "gallery_images.begin_create_or_update", *where, "dask", image)
    for version in versions:
        told = {
            "storageProfile": {"osDiskImage": {"sizeInGB": 64}},
            "publishingProfile": {"excludeFromLatest": version in left_out},
        }
        document = {"location": "westeurope", "properties": told}
        create = "gallery_image_versions.begin_create_or_update"
        azure.make("compute", create, *where, "dask", version, document)
    return made["id"]


def test_the_newest_version_in_a_gallery(azure):
    """Without a version it is the newest by number, of those that their owner has not left out."""
    id = in_gallery(azure, "1.9.0", "1.10.0", "2.0.0", left_out=["2.0.0"], architecture="Arm64")
    found = find(azure, ("arm64", False), machine_image=id)

    assert {"id": f"{id}/versions/1.10.0"} == found.reference
    assert ("arm64", "V2", True) == (found.architecture, found.generation, found.own)


def test_a_version_in_a_gallery(azure):
    """A version that is named is taken, with the plan of what it was made from."""
    id = f"{in_gallery(azure, '1.0.0', '2.0.0', plan=PLAN)}/versions/1.0.0"

    assert {"id": id} == find(azure, machine_image=id, plan=PLAN).reference


def test_a_gallery_without_the_image(azure):
    """An image without a version, or a version that there is not, is refused."""
    id = in_gallery(azure)

    for missing in (id, f"{id}/versions/9.9.9", id.replace("/dask", "/other")):
        with pytest.raises(ConfigError, match="the gallery has no such image or version"):
            find(azure, machine_image=missing)


def test_a_gallery_of_another_subscription(azure):
    """What another subscription's versions are cannot be asked: one must be named."""
    id = in_gallery(azure).replace(azure.subscription, "5b0f8a9e-0000-4e57-9a64-d0c5e1a7f001")

    with pytest.raises(ConfigError, match=r"is of another subscription: name its version"):
        find(azure, machine_image=id)


def test_sizes_are_of_the_image_s_generation(azure, emulated_azure):
    """A size that boots generation 2 only is refused for an image of generation 1."""
    old, new = find(azure, machine_image=made(azure, "V1")), find(azure)
    config = AzureVMConfig.of(region="westeurope", instance_type="Standard_D4s_v6")
    choice = types.choose_all(azure, config)["worker"]

    images.check_alike(choice, new)
    with pytest.raises(
        ConfigError, match=r"Standard_D4s_v6 boots images of generation 2, and mine is of generation 1"
    ):
        images.check_alike(choice, old)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("Canonical:ubuntu-24_04-lts:nope:latest", "x86_64", "the marketplace has none in westeurope"),
        ("Canonical:ubuntu-24_04-lts:server:9.9.9", "x86_64", "the marketplace has none in westeurope"),
        ("Canonical:ubuntu-24_04-lts:server:latest", "arm64", "it is for x86_64, they are arm64"),
        ("/images/mine", "x86_64", "there is no such image"),
    ],
)
def test_what_cannot_be_booted(azure, name, kind, message):
    """What is not there, or is for other machines, is refused before anything is made."""
    with pytest.raises(ConfigError, match=message):
        find(azure, (kind, False), machine_image=name)


def test_an_image_that_is_not_there(azure):
    """An id of nothing is refused, with how ids are written."""
    id = made(azure).replace("mine", "yours")

    with pytest.raises(
        ConfigError, match=r"there is no such image, or you may not see it\. Its id is '/subscriptions/"
    ):
        find(azure, machine_image=id)
