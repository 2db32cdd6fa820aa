"""What becomes of a cluster whose client loses its network, its scheduler, or only its view of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from contract import until
from outage_fargate import MARKED
from test_access import namespace

from cloudprovider import CloudError, ProcessCluster
from cloudprovider.events import Phase

walled = pytest.mark.skipif(
    not namespace(), reason="needs a network namespace and nft: root, or user namespaces"
)


def tracks() -> bool:
    """Whether the kernel can tell one group's connections from all others."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not namespace():
        return False
    command = [*namespace(), "nft", "-f", "-"]
    return subprocess.run(command, input=MARKED, text=True, capture_output=True, check=False).returncode == 0


def run(*arguments: str, program: str = "outage_cluster.py") -> dict:
    """What came of a scenario in a network of its own."""
    done = subprocess.run(
        [*namespace(), sys.executable, str(Path(__file__).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def cluster(tmp_path):
    with ProcessCluster(n_workers=1, directory=str(tmp_path), progress=False) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        yield cluster


@walled
def test_short_outage_is_survived(tmp_path):
    """For less than `network_timeout`: nothing is computed twice, no machine replaced, and it scales afterwards."""
    report = run("short", str(tmp_path))

    assert not report["came through the wall"]
    assert {"before": 1, "during": 1, "asked": 1} == dict(zip(report["results"], report["done"], strict=True))
    assert report["same machines"]
    assert 0 == report["lost"]
    assert [] == report["said"]


@walled
def test_long_outage_keeps_what_is_published(tmp_path):
    """For longer: published datasets and work given to fire_and_forget survive, and both ends say what did not."""
    report = run("long", str(tmp_path))

    assert "published" == report["published"]
    assert [1, 1, 1] == report["done"]
    assert report["same machines"]
    assert 0 == report["lost"]
    assert "lost the connection to the scheduler" in report["plain"]
    [broke, back] = report["said"]
    assert "broke" in broke
    assert "published datasets (kept)" in back
    assert "submit those again" in back


@walled
@pytest.mark.skipif(
    not tracks(), reason="needs root, for a group of the client's own, and connection tracking"
)
def test_fargate_client_without_any_network():
    """A client that reaches neither machines nor AWS loses nothing, and a `scale` of that time is done afterwards."""
    report = run(program="outage_fargate.py")

    assert report["cut"]
    assert [3, 7] == report["results"]
    assert report["kept"]
    assert [] == report["said"]
    assert (3, 4) == (report["orders"], report["machines"])


@walled
def test_closed_without_network(tmp_path):
    """Closing does not wait for a network that is away: the cloud ends the machines, and nothing is left."""
    report = run("closed", str(tmp_path))

    assert 25 > max(report["seconds"])
    assert [] == report["left"]


@walled
def test_changed_address_is_named_and_admitted(tmp_path):
    """From an address that the rules do not admit the error names both, and `allow()` mends the rules."""
    report = run("moved", str(tmp_path))

    for text in (report["start"], *report["said"][1:2]):
        assert "Your address is 198.51.100.4 now, but its rules admit only 203.0.113.7/32." in text
        assert "cluster.allow()" in text
    assert ["198.51.100.4/32"] == report["allowed"]
    assert "is back" in report["said"][-1]


def test_broken_view_is_made_anew(cluster):
    """When the manager's connections break, it subscribes again and sees who comes and goes."""

    async def cut():
        for comm in [cluster._watch_worker_status_comm, *cluster.scheduler_comm.comms]:
            comm.abort()

    cluster.sync(cut)
    until(lambda: len(cluster.events.of(Phase.network)) == 2, 20, "the view is broken, and back")
    cluster.scale(2)
    cluster.wait_for_workers(2, timeout=30)
    cluster.scale(1)
    until(lambda: len(cluster.scheduler_info["workers"]) == 1, 20, "one is gone")
    assert "workers (1)" in cluster.events.of(Phase.network)[-1].message


def test_ended_scheduler_is_said(cluster):
    """When the scheduler's machine ends, whoever waits or scales is told, and no machine is ordered any more."""
    record = cluster.provider._record(cluster.name, cluster.scheduler_machine.id)
    scheduler = psutil.Process(record["pid"])
    for process in [scheduler, *scheduler.children(recursive=True)]:
        process.kill()
    with pytest.raises(CloudError, match=r"scheduler .* has ended"):
        cluster.wait_for_workers(5, timeout=30)
    with pytest.raises(CloudError, match=r"scheduler .* has ended"):
        cluster.scale(2)
    assert 1 == len(cluster.workers)
