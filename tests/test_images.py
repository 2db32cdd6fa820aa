"""Images: which one runs, and whether its registry has it."""

from __future__ import annotations

import http.server
import threading

import pytest

from cloudprovider import images
from cloudprovider.errors import ConfigError


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry on loopback that has one image, and wants an anonymous token."""

    def do_HEAD(self):
        if self.path.startswith("/v2/broken/"):
            self.send_response(500)
        elif self.headers.get("Authorization") != "Bearer anonymous":
            self.send_response(401)
            url = f"http://127.0.0.1:{self.server.server_port}/token"
            scope = "repository:dask/dask:pull"
            self.send_header("WWW-Authenticate", f'Bearer realm="{url}",service="reg",scope="{scope}"')
        else:
            self.send_response(200 if self.path == "/v2/dask/dask/manifests/1.0" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        asked = self.path == "/token?service=reg&scope=repository%3Adask%2Fdask%3Apull"
        body = b'{"token": "anonymous"}' if asked else b"{}"
        self.send_response(200)
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


@pytest.mark.usefixtures("registry")
def test_default_image_that_does_not_exist_says_why():
    """Where Dask has no image at the client's versions, the error says what to do."""
    with pytest.raises(ConfigError, match="install a released Dask, or pass image="):
        images.require_image(images.default_image())


def test_official_image_carries_the_runtime():
    """Only the official image needs no runtime brought along, wherever it is kept."""
    assert images.carries_runtime("ghcr.io/somebody/dask-cloud-runtime:1.0")
    assert not images.carries_runtime(images.default_image())
