"""Each example, as a user runs it, in a process of its own that is told where the embedded cloud is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {
    "adaptive.py",
    "asynchronous.py",
    "dataframe.py",
    "first_cluster.py",
    "labextension.yaml",
    "private_image_and_environment.py",
    "reattach.py",
    "spot.py",
    "your_own_tests.py",
}
#: What JupyterLab's extension does with Dask config:
#: https://github.com/dask/dask-labextension/blob/main/dask_labextension/manager.py
EXTENSION = """
    import asyncio, importlib, dask

    async def main():
        factory, default = (dask.config.get(f"labextension.{part}") for part in ("factory", "default"))
        made = getattr(importlib.import_module(factory["module"]), factory["class"])
        options = {key.replace("-", "_"): value for key, value in factory["kwargs"].items()}
        cluster = await made(*factory["args"], **options, asynchronous=True)
        adaptive = cluster.adapt(**default["adapt"])
        assert cluster.dashboard_link.startswith("http://127.0.0.1:")
        print(cluster.status.name, len(cluster.scheduler_info["workers"]), adaptive.maximum)
        await cluster.scale(1)
        await cluster._wait_for_workers(1, 60)
        print(sum(worker["nthreads"] for worker in cluster.scheduler_info["workers"].values()), "thread")
        await cluster.close()

    asyncio.run(main())
"""


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


def output(*arguments: object, **environment: str) -> str:
    """What a Python process says; it must end well, and without a warning of ours."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-W", "error::FutureWarning", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, **environment},
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def left(cloud) -> list[str]:
    """What is left, when what is ending has had its time to end."""
    deadline = time.monotonic() + 30
    while (found := cloud.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_every_example_is_tested():
    """No example is without a test."""
    assert TESTED == {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".yaml"}}


def test_first_cluster(cloud):
    """Starts two workers, computes, says what it cost, and leaves nothing."""
    said = output(EXAMPLES / "first_cluster.py")
    assert "The sum of squares is 332,833,500." in said
    assert "Dashboard: http://127.0.0.1:" in said
    assert "After close: <Bill: $0.0" in said
    assert "$0.00 an hour now>" in said.splitlines()[-1]
    assert [] == left(cloud)


def test_dataframe(cloud):
    """A dataframe is made, grouped and counted on the workers."""
    pytest.importorskip("pandas")
    said = output(EXAMPLES / "dataframe.py")
    assert "44,640 readings of 26 sensors." in said
    assert [] == left(cloud)


def test_adaptive(cloud):
    """Workers come with the work and go with it."""
    said = output(EXAMPLES / "adaptive.py").splitlines()
    assert "0 workers before the work." == said[0]
    assert re.fullmatch(r"The sum is 390, by up to [234] workers\.", said[1])
    assert "0 workers after it." == said[2]
    assert [] == left(cloud)


def test_spot(cloud):
    """What spot has no room for runs on demand."""
    cloud.inject("capacity", room=1, market="spot")
    said = output(EXAMPLES / "spot.py")
    assert "2 on-demand, 1 spot" in said
    assert "1 spot worker: $0.0" in said
    assert [] == left(cloud)


def test_private_image_and_environment(cloud):
    """An image of one's own runs with its environment, and worker options reach the worker."""
    cloud.add_image("registry.example.com/team/forecast:7")
    assert "The model is for europe." in output(EXAMPLES / "private_image_and_environment.py")
    assert {"registry.example.com/team/forecast:7"} == {machine.image for machine in cloud.machines()}
    assert {"forecast"} == {machine.tags["project"] for machine in cloud.machines()}
    assert [] == left(cloud)


def test_reattach(cloud):
    """A cluster that one process left is found, used and ended by another."""
    assert "Left weekly running." in output(EXAMPLES / "reattach.py", "start", "weekly")
    assert [] != cloud.leftovers()
    said = output(EXAMPLES / "reattach.py", "finish", "weekly")
    assert "The answer is 45." in said
    assert "Ended weekly." in said
    assert [] == left(cloud)


def test_asynchronous(cloud):
    """Two clusters live side by side in one event loop."""
    said = output(EXAMPLES / "asynchronous.py")
    assert "3 here, 7 there." in said
    assert "2 workers here, 1 there." in said
    assert [] == left(cloud)


def test_your_own_tests():
    """A user's own tests pass with the fixture that comes with the package, and nothing else configured."""
    plain = ("-c", os.devnull, "--rootdir", EXAMPLES, "-p", "no:cacheprovider", "-p", "no:asyncio")
    said = output("-m", "pytest", "-q", *plain, EXAMPLES / "your_own_tests.py")
    assert "4 passed" in said


def test_labextension(cloud):
    """JupyterLab's Dask extension makes an adaptive cluster from this configuration."""
    said = output("-c", textwrap.dedent(EXTENSION), DASK_CONFIG=str(EXAMPLES / "labextension.yaml"))
    assert ["running 0 20", "1 thread"] == said.splitlines()
    assert [] == left(cloud)
