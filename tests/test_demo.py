"""The demo is the README's first line: it must work on every cloud, say what it did, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

DEMO = [sys.executable, "-m", "dask", "cloud", "demo"]


def show(cloud, report):
    """Show the demo on a cloud, and check what it says of itself."""
    done = subprocess.run(
        [*DEMO, "--cloud", cloud, "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    said = json.loads(report.read_text())

    assert 0 == done.returncode, done.stdout + done.stderr
    assert {"ok", "result", "timeline", "bill", "left_behind"} <= said.keys()
    assert said["ok"]
    assert [] == said["left_behind"]
    assert sum(x * x for x in range(said["result"]["tasks"])) == said["result"]["sum of squares"]
    assert said["result"]["most workers"] > 3
    assert 1 == said["result"]["fewest workers"]
    assert said["result"]["interrupted"]
    assert said["bill"]["spent"] > 0
    assert 3 == said["timeline"]["arrived"]
    assert "Receipt" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("cloud", ["fargate", pytest.param("ec2", marks=pytest.mark.slow)])
def test_demo(tmp_path, cloud):
    """The demo starts, computes, adapts, survives an interruption, bills, leaves nothing, in a minute."""
    show(cloud, tmp_path / "report.json")


@pytest.mark.slow
def test_demo_that_is_kept():
    """With `--keep` the emulator stays up, and what is printed connects to it."""
    process = subprocess.Popen(
        [*DEMO, "--keep"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
    )
    try:
        endpoint = next(
            line.partition("=")[2].strip()
            for line in process.stdout
            if line.startswith("export AWS_ENDPOINT_URL=")
        )
        with urllib.request.urlopen(f"{endpoint}/_cloud/machines", timeout=10) as answer:
            assert {"STOPPED"} == {machine["state"] for machine in json.load(answer)}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert 0 == process.returncode
    finally:
        process.kill()
        process.communicate()
