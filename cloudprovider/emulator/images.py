"""The images an embedded cloud's machines can run: each is a Python of this computer, under an image's name."""

from __future__ import annotations

import hashlib
import sys
import threading
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.guest_uv import is_uv, program
from cloudprovider.images import manager_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["QUIET", "Image", "ImageNotFound", "Images", "dask_image"]

#: What every Dask image of the embedded cloud sets, so that many machines fit on one computer: fifty idle
#: workers with Dask's own intervals keep more than one core busy. The worker is forked from its nanny
#: (`distributed` spawns it by default), so it starts at once and shares memory with everything else here.
QUIET: Mapping[str, str] = MappingProxyType(
    {
        "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
        "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
        "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "30s",
        "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "500ms",
        "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "fork",
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    }
)

ARCHITECTURES = ("X86_64", "ARM64")
#: What container images call them.
PROCESSORS = {"X86_64": "amd64", "ARM64": "arm64"}


class ImageNotFound(LookupError):  # noqa: N818  (the name every container engine gives it)
    """No registry of the embedded cloud has this image."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an image's name stands for here.

    Parameters
    ----------
    name
        As a task definition says it, tag included.
    python
        The executable that `python` is in this image.
    carries_runtime
        Whether `cloudruntime` can be imported in it without being brought along.
    carries_manager
        Whether `cloudprovider` can.
    architectures
        For which it was built, in the words of ECS.
    environ
        Environment variables that the image sets.
    entrypoint
        What it starts when it is told nothing else.
    files
        Programs that can be copied out of it, by their path in it.
    """

    name: str
    python: str = sys.executable
    carries_runtime: bool = False
    carries_manager: bool = False
    architectures: tuple[str, ...] = ARCHITECTURES
    environ: Mapping[str, str] = field(default_factory=lambda: QUIET)
    entrypoint: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    def index(self) -> dict[str, Any]:
        """What its registry answers: an index with one manifest for each architecture.

        https://github.com/opencontainers/image-spec/blob/main/image-index.md
        """
        manifests = [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": f"sha256:{hashlib.sha256(f'{self.name} {architecture}'.encode()).hexdigest()}",
                "size": 1024,
                "platform": {"os": "linux", "architecture": PROCESSORS[architecture]},
            }
            for architecture in self.architectures
        ]
        kind = "application/vnd.oci.image.index.v1+json"
        return {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}


def dask_image() -> str:
    """The name of Dask's own image at this interpreter's versions."""
    return f"ghcr.io/dask/dask:{version('distributed')}-py{sys.version_info.major}.{sys.version_info.minor}"


class Images:
    """The images that can be pulled. Thread-safe.

    At first there are Dask's own, at the versions of this interpreter and without the runtime, the one for
    managers beside schedulers, and uv's, of any version.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self.reset()

    def reset(self) -> None:
        """Know only what is there at first."""
        with self._lock:
            manager = Image(name=manager_image(), carries_runtime=True, carries_manager=True)
            self._images = {image.name: image for image in (Image(name=dask_image()), manager)}

    def __iter__(self) -> Iterator[Image]:
        with self._lock:
            return iter(list(self._images.values()))

    def add(
        self,
        name: str,
        *,
        python: str | Path = sys.executable,
        carries_runtime: bool = False,
        carries_manager: bool = False,
        architectures: Sequence[str] = ARCHITECTURES,
        environ: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] = (),
    ) -> Image:
        """Make an image known, or change what its name stands for; returns it.

        Parameters
        ----------
        name
            Tag included, such as `registry.example/team/dask:1`.
        python
            The executable that `python` is in it.
        carries_runtime
            Whether `cloudruntime` is installed in it.
        carries_manager
            Whether `cloudprovider` is, and with it the runtime.
        architectures
            Of `X86_64` and `ARM64`. Both run here; a machine of another is refused as the cloud would.
        environ
            What the image sets besides what every embedded Dask image does.
        entrypoint
            What it starts when it is told nothing else.
        """
        image = Image(
            name=name,
            python=str(python),
            carries_runtime=carries_runtime or carries_manager,
            carries_manager=carries_manager,
            architectures=tuple(architectures),
            environ={**QUIET, **(environ or {})},
            entrypoint=tuple(entrypoint),
        )
        with self._lock:
            self._images[name] = image
        return image

    def find(self, name: str) -> Image:
        """The image of this name.

        Raises
        ------
        ImageNotFound
            When it cannot be pulled, in the words that Fargate gives as the reason.
        """
        with self._lock:
            if image := self._images.get(name):
                return image
        if is_uv(name):
            return Image(name=name, environ={}, entrypoint=("/uv",), files={"/uv": program()})
        raise ImageNotFound(
            f"CannotPullContainerError: pull image manifest has been retried 5 time(s): "
            f"failed to resolve ref {name}: {name}: not found"
        )

    def exists(self, name: str) -> bool:
        """Whether a registry has this image."""
        with self._lock:
            return name in self._images or is_uv(name)
