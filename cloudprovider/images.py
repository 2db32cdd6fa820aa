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

from cloudprovider.config import setting
from cloudprovider.errors import ConfigError

__all__ = ["Reference", "carries_runtime", "default_image", "image_exists", "require_image"]

#: The last part of the official image's repository.
OFFICIAL = "dask-cloud-runtime"
# https://github.com/opencontainers/image-spec/blob/main/media-types.md
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


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


def carries_runtime(image: str) -> bool:
    """Whether an image is the official one, so that the boot need not bring the runtime along."""
    return Reference.of(image).repository.rpartition("/")[2] == OFFICIAL


def require_image(image: str, timeout_s: float = 5.0) -> None:
    """Refuse an image that its registry says it does not have.

    Raises
    ------
    ConfigError
        Only when the registry answers that there is none: a registry that cannot be asked is no reason.
    """
    if image_exists(image, timeout_s) is not False:
        return
    reference = Reference.of(image)
    hint = (
        "Dask has published no image for your versions: install a released Dask, or pass image= one of "
        "your own that has distributed."
        if image == default_image()
        else "Check its spelling and its tag; a private one needs repository_credentials=."
    )
    raise ConfigError(
        f"image={image!r}: {reference.registry} has no {reference.repository}:{reference.tag}. {hint}"
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
    reference = Reference.of(image)
    base = str(setting("registry-url") or f"https://{reference.registry}/v2").rstrip("/")
    url = f"{base}/{reference.repository}/manifests/{reference.tag}"
    status, challenge = _ask(url, "", timeout_s)
    if status == HTTPStatus.UNAUTHORIZED and (token := _token(challenge, timeout_s)):
        status, _ = _ask(url, token, timeout_s)
    if status == HTTPStatus.NOT_FOUND:
        return False
    return True if status == HTTPStatus.OK else None


def _ask(url: str, token: str, timeout_s: float) -> tuple[int, str]:
    """The status of a HEAD request, and what it asks to be authenticated with."""
    headers = {"Accept": MANIFESTS, **({"Authorization": f"Bearer {token}"} if token else {})}
    # Only http(s): the scheme is ours or that of the configured registry.
    request = urllib.request.Request(url, headers=headers, method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("WWW-Authenticate") or ""
    except (OSError, ValueError):
        return 0, ""


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
