"""Images: which one runs, and whether its registry has it."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from cloudprovider import images
from cloudprovider.errors import ConfigError

INDEX = {
    "manifests": [
        {"platform": {"os": "linux", "architecture": "amd64"}},
        {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {"platform": {"os": "unknown", "architecture": "unknown"}},  # an attestation
    ]
}
#: What the registry has, for those who show an anonymous token.
DOCUMENTS = {
    "/v2/dask/dask/manifests/1.0": INDEX,
    "/v2/dask/dask/manifests/mac": {"config": {"digest": "sha256:mac"}},
    "/v2/dask/dask/blobs/sha256:mac": {"os": "linux", "architecture": "arm64"},
    "/v2/dask/dask/manifests/old": {"schemaVersion": 1},
    "/v2/dask/dask/manifests/lost": {"config": {"digest": "sha256:lost"}},
}


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry on loopback that has some tags of one image, and wants an anonymous token."""

    def do_GET(self):
        if self.path == "/token?service=reg&scope=repository%3Adask%2Fdask%3Apull":
            self.answer(200, {"token": "anonymous"})
        elif self.path.startswith("/v2/broken/"):
            self.answer(500, {})
        elif self.headers.get("Authorization") != "Bearer anonymous":
            url = f"http://127.0.0.1:{self.server.server_port}/token"
            scope = "repository:dask/dask:pull"
            self.answer(401, {}, f'Bearer realm="{url}",service="reg",scope="{scope}"')
        else:
            self.answer(200 if self.path in DOCUMENTS else 404, DOCUMENTS.get(self.path, {}))

    def answer(self, status, document, challenge=None):
        body = json.dumps(document).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def registry(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("DASK_CLOUD__REGISTRY_URL", f"http://127.0.0.1:{server.server_port}/v2")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("image", "registry", "repository", "tag"),
    [
        ("ghcr.io/dask/dask:2026.8.0-py3.11", "ghcr.io", "dask/dask", "2026.8.0-py3.11"),
        ("python", "registry-1.docker.io", "library/python", "latest"),
        ("daskdev/dask:1", "registry-1.docker.io", "daskdev/dask", "1"),
        ("localhost:5000/a/b", "localhost:5000", "a/b", "latest"),
        ("quay.io/a/b:1@sha256:abc", "quay.io", "a/b", "sha256:abc"),
    ],
)
def test_reference(image, registry, repository, tag):
    """An image's name is read as `docker pull` reads it."""
    assert images.Reference(registry=registry, repository=repository, tag=tag) == images.Reference.of(image)


@pytest.mark.usefixtures("registry")
def test_only_a_definite_no_is_one():
    """A tag that the registry does not have is refused; a registry that fails says nothing."""
    assert images.image_exists("any.example/dask/dask:1.0") is True
    assert images.image_exists("any.example/dask/dask:2.0") is False
    assert images.image_exists("any.example/broken/dask:1.0") is None
    with pytest.raises(ConfigError, match=r"has no dask/dask:2\.0"):
        images.require_image("any.example/dask/dask:2.0")
    images.require_image("any.example/broken/dask:1.0")


def test_registry_out_of_reach_is_no_error(monkeypatch):
    """No answer at all does not stop a start."""
    monkeypatch.setenv("DASK_CLOUD__REGISTRY_URL", "http://127.0.0.1:9/v2")
    assert images.image_exists("ghcr.io/dask/dask:1", timeout_s=1) is None
    assert images.require_image("ghcr.io/dask/dask:1", "arm64", timeout_s=1) is None


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("tag", "architectures"),
    [
        ("1.0", {"x86_64", "arm64"}),
        ("mac", {"arm64"}),
        ("none", set()),
        ("old", None),
        ("lost", None),
    ],
)
def test_architectures(tag, architectures):
    """An index says its platforms, a lone manifest's configuration its own; what neither says is unknown."""
    assert architectures == images.image_architectures(f"any.example/dask/dask:{tag}")


@pytest.mark.usefixtures("registry")
def test_an_image_for_other_machines_is_refused():
    """An image built on an ARM computer does not run on x86 machines, and the error says how to build it."""
    image = "any.example/dask/dask:mac"

    assert {"arm64"} == images.require_image(image, "arm64")
    with pytest.raises(
        ConfigError, match=r"is for arm64 only, but the machines are x86_64.*linux/amd64,linux"
    ):
        images.require_image(image, "x86_64")


def test_nobody_is_refused_for_what_nobody_knows():
    """An image whose architectures are unknown may run anywhere."""
    images.require_architecture("any.example/private:1", None, "arm64")
    images.require_architecture("any.example/both:1", frozenset({"x86_64", "arm64"}), "arm64")


@pytest.mark.usefixtures("registry")
def test_default_image_that_does_not_exist_says_why():
    """Where Dask has no image at the client's versions, the error says what to do."""
    with pytest.raises(ConfigError, match="install a released Dask, or pass image="):
        images.require_image(images.default_image())


def test_manager_image_that_does_not_exist_says_how_to_make_one():
    """Where there is no manager at the client's versions, the error names its own option and the Dockerfile."""
    message = images._absent(images.manager_image())
    assert message.startswith("manager_image='ghcr.io/")
    assert "Dockerfile" in message


def test_official_image_carries_the_runtime():
    """Only the official image needs no runtime brought along, wherever it is kept."""
    assert images.carries_runtime("ghcr.io/somebody/dask-cloud-runtime:1.0")
    assert not images.carries_runtime(images.default_image())
