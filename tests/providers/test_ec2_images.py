"""Machine images: the one that AWS recommends, and the user's own with what may be wrong with it."""

from __future__ import annotations

import pytest

from cloudprovider.errors import ConfigError
from cloudprovider.providers import _ec2_images as images
from cloudprovider.providers._aws import AWS
from cloudprovider.providers.ec2 import EC2Config

FINE = {
    "State": "available",
    "Architecture": "x86_64",
    "EnaSupport": True,
    "RootDeviceName": "/dev/xvda",
    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30}}],
}


@pytest.fixture(scope="module")
def aws():
    return AWS("us-east-1")


def own(aws, name, architecture="x86_64"):
    """Look for an image as if it were the user's own."""
    filters = [{"Name": "name", "Values": [name]}]
    [found] = aws.call("ec2", "describe_images", Filters=filters)["Images"][:1]
    return images.find(aws, EC2Config.of(ami=found["ImageId"]), architecture, False)


def test_the_recommended_images(cloud, aws):
    """Each kind of machine boots AWS's image for it: two calls for all, and the root device is known."""
    config = EC2Config.of()
    found = images.find_all(aws, config, list(images.PARAMETERS))

    assert ["GetParameters", "DescribeImages"] == [call.operation for call in cloud.calls]
    assert set(images.PARAMETERS) == set(found)
    for (architecture, gpu), image in found.items():
        assert (architecture, "/dev/xvda", 30) == (image.architecture, image.root_device, image.root_size_gib)
        assert gpu == ("-gpu-" in image.name)
        assert image.name.startswith("al2023-ami-ecs-")
        assert not image.own


def test_what_was_asked_before_is_not_asked_again(cloud, aws):
    """What AWS recommends can be asked beside the choice of types, so that one call is left."""
    known = images.recommended(aws)
    images.find_all(aws, EC2Config.of(), [("arm64", False)], known)

    assert ["GetParameters", "DescribeImages"] == [call.operation for call in cloud.calls]


def test_no_image_for_arm_with_gpus(cloud, aws):
    """AWS recommends none for ARM machines with GPUs, and the error says what to do."""
    with pytest.raises(
        ConfigError, match=r"for arm64 machines with GPUs in us-east-1\. Pass ami= one of yours"
    ):
        images.find(aws, EC2Config.of(), "arm64", True)


def test_the_user_s_own_image(cloud, aws):
    """An image of the user's is taken as it is, in one call."""
    image = own(aws, "al2023-ami-ecs-hvm-*-arm64", "arm64")

    assert (True, "/dev/xvda", "arm64") == (image.own, image.root_device, image.architecture)
    assert ["DescribeImages"] == [call.operation for call in cloud.calls][1:]


@pytest.mark.parametrize("ami", ["ami-0123456789abcdef0", "ubuntu"])
def test_an_image_that_is_not_there(cloud, aws, ami):
    """An id that does not exist, or is none, is told with what may be the cause."""
    with pytest.raises(ConfigError, match=f"ami='{ami}': us-east-1 has no image of that id.*one region"):
        images.find(aws, EC2Config.of(ami=ami), "x86_64", False)


@pytest.mark.parametrize(
    ("name", "architecture", "said"),
    [
        ("al2023-ami-ecs-hvm-*-arm64", "x86_64", "it is for arm64, they are x86_64"),
        ("Windows_Server-2016-English-Nano-*", "x86_64", "it is Windows"),
        ("amzn-ami-pv-*", "x86_64", "no driver of the Elastic Network Adapter"),
    ],
)
def test_an_image_that_cannot_boot(cloud, aws, name, architecture, said):
    """An image that the machines could not boot from is refused before they are ordered."""
    with pytest.raises(ConfigError, match=f"cannot boot these machines: .*{said}"):
        own(aws, name, architecture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"State": "pending"}, ["it is pending, not available"]),
        ({"BlockDeviceMappings": []}, ["it has no EBS volume to boot from"]),
        (
            {"State": "failed", "EnaSupport": False},
            ["it is failed, not available", "it has no driver of the"],
        ),
    ],
)
def test_all_that_is_wrong_is_said(change, said):
    """Each fault of an image is named, so that it is mended once."""
    wrong = images._wrong({**FINE, **change}, "x86_64")

    assert len(said) == len(wrong)
    assert all(found.startswith(start) for found, start in zip(wrong, said, strict=True))
