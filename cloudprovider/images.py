"""Container images: which one runs by default, and whether a registry has it."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from typing import Any

from cloudprovider import __version__
from cloudprovider.config import setting
from cloudprovider.errors import ConfigError

__all__ = [
    "Reference",
    "carries_runtime",
    "default_image",
    "image_architectures",
    "image_exists",
    "manager_image",
    "require_architecture",
    "require_image",
]

#: The last part of the official image's repository.
OFFICIAL = "dask-cloud-runtime"
#: The same of the image that a manager beside a scheduler runs in.
MANAGER = "dask-cloud-manager"
# https://github.com/opencontainers/image-spec/blob/main/media-types.md
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
#: Architectures as images call them, and as clouds do.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What an image's name says.

    Parameters
    ----------
    registry
        Host of its registry.
    repository
        Path in it.
    tag
        Tag or digest.
    """

    registry: str
    repository: str
    tag: str

    @classmethod
    def of(cls, image: str) -> Reference:
        """Read an image's name as `docker pull` does."""
        name, _, digest = image.partition("@")
        first, slash, rest = name.partition("/")
        hosted = bool(slash) and (bool(re.search(r"[.:]", first)) or first == "localhost")
        registry, path = (first, rest) if hosted else ("docker.io", name)
        repository, _, tag = path.partition(":")
        if registry == "docker.io":
            # https://docs.docker.com/reference/cli/docker/image/tag/: names without a host are Docker Hub's
            registry = "registry-1.docker.io"
            repository = repository if "/" in repository else f"library/{repository}"
        return cls(registry=registry, repository=repository, tag=digest or tag or "latest")


def default_image() -> str:
    """Dask's own image, at this client's versions."""
    return f"ghcr.io/dask/dask:{metadata.version('dask')}-py{sys.version_info.major}.{sys.version_info.minor}"


def manager_image() -> str:
    """The official image of a manager that runs beside a scheduler, at this client's versions."""
    dask, (major, minor, *_) = metadata.version("dask"), sys.version_info
    return f"ghcr.io/dask/{MANAGER}:{__version__}-dask{dask}-py{major}.{minor}"


def carries_runtime(image: str) -> bool:
    """Whether an image is the official one, so that the boot need not bring the runtime along."""
    return Reference.of(image).repository.rpartition("/")[2] == OFFICIAL


def require_image(
    image: str, architecture: str | None = None, timeout_s: float = 5.0
) -> frozenset[str] | None:
    """Refuse an image that its registry says it does not have, or not for an architecture.

    Parameters
    ----------
    image
        Such as `ghcr.io/dask/dask:2026.8.0-py3.11`.
    architecture
        `x86_64` or `arm64`. Default: any.
    timeout_s
        Of each of at most four requests.

    Returns
    -------
    frozenset of str or None
        What `image_architectures` says.

    Raises
    ------
    ConfigError
        Only when the registry answers that there is none: a registry that cannot be asked is no reason.
    """
    found = image_architectures(image, timeout_s)
    if found is not None and not found:
        raise ConfigError(_absent(image))
    if architecture is not None:
        require_architecture(image, found, architecture)
    return found


def _absent(image: str) -> str:
    reference, option = Reference.of(image), "image"
    hint = "Check its spelling and its tag; a private one needs repository_credentials=."
    if image == default_image():
        hint = (
            "Dask has published no image for your versions: install a released Dask, or pass image= one of "
            "your own that has distributed."
        )
    elif image == manager_image():
        option = "manager_image"
        hint = (
            "There is none for your versions: build one from this project's Dockerfile, put it where machines can "
            "pull it from, and pass manager_image=."
        )
    return f"{option}={image!r}: {reference.registry} has no {reference.repository}:{reference.tag}. {hint}"


def require_architecture(
    image: str, found: frozenset[str] | None, architecture: str, machines: str = "the machines"
) -> None:
    """Refuse an image that is not for an architecture.

    Parameters
    ----------
    image
        Its name.
    found
        What `image_architectures` or `require_image` said of it.
    architecture
        `x86_64` or `arm64`.
    machines
        What is of that architecture, in words.

    Raises
    ------
    ConfigError
        When it is for others only; not when nobody knows.
    """
    if found is None or architecture in found:
        return
    platforms = ",".join(f"linux/{name}" for name in ARCHITECTURES)
    raise ConfigError(
        f"image={image!r} is for {' and '.join(sorted(found))} only, but {machines} are {architecture}. "
        f"Pass other machines (architecture=), or build it for both: docker buildx build --platform {platforms}."
    )


def image_exists(image: str, timeout_s: float = 5.0) -> bool | None:
    """Ask the image's registry whether it has it; None when the registry does not say.

    Parameters
    ----------
    image
        Such as `ghcr.io/dask/dask:2026.8.0-py3.11`.
    timeout_s
        Of each of at most three requests.
    """
    status, _, _ = _manifest(image, timeout_s)
    if status == HTTPStatus.NOT_FOUND:
        return False
    return True if status == HTTPStatus.OK else None


def image_architectures(image: str, timeout_s: float = 5.0) -> frozenset[str] | None:
    """Ask the image's registry which architectures it is for.

    Parameters
    ----------
    image
        Such as `ghcr.io/dask/dask:2026.8.0-py3.11`.
    timeout_s
        Of each of at most four requests.

    Returns
    -------
    frozenset of str or None
        Of `x86_64`, `arm64` and what images call the others; empty when the registry has no such image, None
        when it does not say.
    """
    status, manifest, token = _manifest(image, timeout_s)
    if status == HTTPStatus.NOT_FOUND:
        return frozenset()
    platforms = [entry.get("platform", {}) for entry in manifest.get("manifests", ())]
    if digest := manifest.get("config", {}).get("digest"):  # one manifest: its configuration says
        url = f"{_base(image)}/blobs/{digest}"
        platforms = [_ask(url, token, timeout_s)[2]]
    # Entries of no operating system hold signatures and the like:
    # https://docs.docker.com/build/metadata/attestations/attestation-storage/
    names = [p.get("architecture", "") for p in platforms if p.get("os") == "linux"]
    return frozenset(ARCHITECTURES.get(name, name) for name in names if name) or None


def _manifest(image: str, timeout_s: float) -> tuple[int, dict[str, Any], str]:
    """The status and the document of an image's manifest or index, and the token that got it."""
    url, token = f"{_base(image)}/manifests/{Reference.of(image).tag}", ""
    status, challenge, manifest = _ask(url, token, timeout_s)
    if status == HTTPStatus.UNAUTHORIZED and (token := _token(challenge, timeout_s)):
        status, _, manifest = _ask(url, token, timeout_s)
    return status, manifest, token


def _base(image: str) -> str:
    reference = Reference.of(image)
    base = str(setting("registry-url") or f"https://{reference.registry}/v2").rstrip("/")
    return f"{base}/{reference.repository}"


def _ask(url: str, token: str, timeout_s: float) -> tuple[int, str, dict[str, Any]]:
    """The status of a request, what it asks to be authenticated with, and the document it answers with."""
    # Only http(s): the scheme is ours or that of the configured registry.
    request = urllib.request.Request(url, headers={"Accept": MANIFESTS})  # noqa: S310
    if token:  # not for the store of blobs to which a registry may redirect: it has a signature of its own
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            document = json.load(answer)
            return answer.status, "", document if isinstance(document, dict) else {}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("WWW-Authenticate") or "", {}
    except (OSError, ValueError):
        return 0, "", {}


def _token(challenge: str, timeout_s: float) -> str:
    """An anonymous token, as the registry's challenge says where to get one; empty when it gives none.

    https://distribution.github.io/distribution/spec/auth/token/
    """
    scheme, _, rest = challenge.partition(" ")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = fields.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("https://", "http://127.0.0.1:")):
        return ""
    url = f"{realm}?{urllib.parse.urlencode(fields)}"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310  (checked above)
            document = json.load(answer)
    except (OSError, ValueError):
        return ""
    return str(document.get("token") or document.get("access_token") or "")
