"""Images of Compute Engine: Container-Optimized OS, and the user's own with what may be wrong with it."""

from __future__ import annotations

import pytest

from cloudprovider.errors import ConfigError
from cloudprovider.providers import _gce_images as images
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.providers._gcp import GCP

COS = "projects/cos-cloud/global/images/family/cos-stable"


@pytest.fixture
def gcp(emulated_gcp):
    return GCP(None, "us-central1")


def made(gcp, name, **facts):
    """Make an image of one's own of Container-Optimized OS."""
    resource = {"name": name, "source_image": COS, **facts}
    gcp.done(gcp.change("images", "insert", image_resource=resource))
    return f"projects/{gcp.project}/global/images/{name}"


def test_the_newest_container_optimized_os(gcp, emulated_gcp):
    """Each architecture boots its newest image, by its exact name: one call for each."""
    found = images.find_all(gcp, GCPConfig.of(), ["x86_64", "arm64"])

    assert ["images.getFromFamily"] * 2 == [call.operation for call in emulated_gcp.calls]
    for architecture, start in (("x86_64", "cos-stable-"), ("arm64", "cos-arm64-stable-")):
        image = found[architecture]
        assert (architecture, 10, False) == (image.architecture, image.root_size_gib, image.own)
        assert image.id.startswith(f"projects/cos-cloud/global/images/{start}")
        assert image.id.endswith(image.name)


@pytest.mark.parametrize("start", ["", "https://www.googleapis.com/compute/v1/"])
def test_an_image_of_one_s_own(gcp, start):
    """It is found by its name or its link, and keeps its size."""
    own = made(gcp, "mine", disk_size_gb=50)
    found = images.find_all(gcp, GCPConfig.of(machine_image=start + own), ["x86_64"])["x86_64"]

    assert (
        images.MachineImage(id=own, root_size_gib=50, architecture="x86_64", name="mine", own=True) == found
    )


def test_the_project_s_own_family(gcp):
    """Without a project in the name it is the cluster's."""
    own = made(gcp, "mine-2", family="mine")

    assert (
        own
        == images.find_all(gcp, GCPConfig.of(machine_image="global/images/family/mine"), ["x86_64"])[
            "x86_64"
        ].id
    )


@pytest.mark.parametrize(
    ("name", "architecture", "message"),
    [
        ("mine", "x86_64", "is no image: write 'projects/P/global/images/NAME'"),
        ("global/images/nope", "x86_64", "project dask-emulated has no image 'nope'"),
        (
            "projects/cos-cloud/global/images/family/nope",
            "x86_64",
            "cos-cloud has no family 'nope' with an image",
        ),
        (COS, "arm64", r"\(cos-stable-.*\) cannot boot these machines: it is for x86_64, they are arm64"),
    ],
)
def test_what_cannot_be_booted(gcp, name, architecture, message):
    """What is not there, or is for other machines, is refused before anything is made."""
    with pytest.raises(ConfigError, match=message):
        images.find_all(gcp, GCPConfig.of(machine_image=name), [architecture])


def test_an_image_that_is_not_ready_or_withdrawn():
    """An image that is still being made, or that its owner has withdrawn, is refused with the reason."""
    from google.cloud import compute_v1

    facts = {"name": "mine", "self_link": "projects/p/global/images/mine", "disk_size_gb": 10}
    config = GCPConfig.of(machine_image="projects/p/global/images/mine")
    pending = compute_v1.Image(**facts, status="PENDING")
    old = compute_v1.Image(**facts, status="READY", deprecated=compute_v1.DeprecationStatus(state="OBSOLETE"))

    with pytest.raises(ConfigError, match="it is PENDING, not READY"):
        images._checked(pending, "x86_64", config)
    with pytest.raises(ConfigError, match="it is OBSOLETE"):
        images._checked(old, "x86_64", config)
