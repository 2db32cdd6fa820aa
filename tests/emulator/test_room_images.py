"""What an image's name stands for on the embedded cloud."""

from __future__ import annotations

import sys

import distributed
import pytest

from cloudprovider.emulator.images import QUIET, ImageNotFound, Images, dask_image
from cloudprovider.images import manager_image


def test_dasks_own_image_is_there():
    """Dask's image at this interpreter's versions is this interpreter, without the runtime."""
    name = f"ghcr.io/dask/dask:{distributed.__version__}-py3.{sys.version_info.minor}"
    image = Images().find(name)

    assert name == dask_image() == image.name
    assert sys.executable == image.python
    assert not image.carries_runtime
    assert {"X86_64", "ARM64"} == set(image.architectures)


def test_other_tag_is_not_there():
    """A tag of Dask's image that does not exist in the registry does not exist here."""
    images = Images()

    assert not images.exists("ghcr.io/dask/dask:1.0-py2.7")
    with pytest.raises(ImageNotFound, match=r"failed to resolve ref ghcr\.io/dask/dask:1\.0-py2\.7"):
        images.find("ghcr.io/dask/dask:1.0-py2.7")


def test_added_image_is_there():
    """An image that a user adds is found, with what they said of it and Dask's settings for many machines."""
    images = Images()
    added = images.add(
        "mine:1", python="/images/python", carries_runtime=True, architectures=["ARM64"], environ={"A": "1"}
    )

    assert images.exists("mine:1")
    assert added == images.find("mine:1")
    assert ("/images/python", True, ("ARM64",)) == (added.python, added.carries_runtime, added.architectures)
    assert {**QUIET, "A": "1"} == added.environ
    assert {"mine:1", dask_image(), manager_image()} == {image.name for image in images}
