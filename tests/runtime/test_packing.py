"""The runtime is packed by several threads at once, as a start does for its two roles."""

from __future__ import annotations

import gc
import sys
import threading
from importlib import resources

import pytest
from cloudruntime import packing


@pytest.fixture
def interrupted():
    """Collections of garbage that often run, and let another thread in when they do."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()

    def collected(*_):
        sum(range(300))

    gc.callbacks.append(collected)
    gc.set_threshold(20)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.callbacks.remove(collected)


def test_threads_may_pack_side_by_side(interrupted):
    """No thread breaks another's parsing, which Python 3.11 does not prevent."""
    folder = resources.files("cloudruntime")
    sources = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".py")]
    packing._bare.cache_clear()
    errors = []

    def pack():
        try:
            for source in sources:
                packing._bare(source)
        except SystemError as error:
            errors.append(error)

    threads = [threading.Thread(target=pack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
