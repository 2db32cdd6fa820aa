"""Whole machines on Compute Engine and Azure: user data executed, Dask in the container, and how they delete themselves."""

from __future__ import annotations

import os
import sys

import pytest
from cloudruntime.exits import Exit
from whole_machines import PATIENCE_S, Cluster

from cloudprovider.emulator.images import Images
from cloudprovider.emulator.room import Room
from cloudprovider.security import client_security

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")


@pytest.fixture(scope="module")
def room():
    room = Room(Images())
    yield room
    room.close()


@pytest.fixture(params=["gce", "azure"])
def cluster(request, room):
    cluster = Cluster(room, request.param)
    yield cluster
    cluster.close()


def test_two_machines_become_a_cluster_and_delete_themselves(cluster):
    """User data with the packed runtime boots a scheduler and a worker, which heed a notice, and end as told."""
    from distributed import Client

    scheduler = cluster.start("scheduler", scale=0.1)
    address = f"tls://{scheduler.address}:8786"
    worker = cluster.start(
        "worker", scheduler=address, scale=0.1, environment={"GREETING": "two\nlines", "PLAIN": "one"}
    )
    scheduler.machine.said(f"scheduler {scheduler.id} at {address}")
    with Client(address, security=client_security(cluster.keys.client), timeout=30) as client:
        client.wait_for_workers(1, timeout=PATIENCE_S)
        seen = client.submit(lambda: [os.environ["GREETING"], os.environ["PLAIN"]]).result(timeout=30)
        names = {info["name"] for info in client.scheduler_info(n_workers=-1)["workers"].values()}
        worker.service.refusals = [(403, "Required permission, which is not known everywhere yet")]
        if cluster.cloud == "gce":
            worker.service.data["instance/preempted"] = "TRUE"
        else:
            worker.service.announce("Preempt", 30)
        worker.deleted()

        assert ["two\nlines", "one"] == seen
        assert {worker.id} == names
        assert not scheduler.gone.is_set()
        client.shutdown()
    scheduler.deleted()

    assert f"ended: {Exit.interrupted.name}" in worker.machine.console
    assert "cannot delete itself yet" in worker.machine.said("not known everywhere yet")
    assert 2 <= worker.service.times("DELETE")
    assert "ended: asked" in scheduler.machine.console
    assert 0 == worker.machine.halts._value, "its power was cut by the cloud, not by itself"


@pytest.mark.parametrize("cluster", ["azure"], indirect=True)
def test_an_image_that_cannot_be_pulled_deletes_the_machine(cluster):
    """Nothing waits for a container that never comes; its last line is left in a tag for a while."""
    machine = cluster.start(
        "worker",
        scheduler="tls://127.0.0.1:1",
        image="ghcr.io/nobody/nothing:1",
        scale=0.1,
        environ={"DASK_CLOUD_LINGER_S": "0.5"},
    )
    machine.deleted()

    assert "nobody/nothing" in machine.machine.console
    assert "nobody/nothing" in machine.service.tags["dask-ended"]


def test_a_machine_that_is_started_again_deletes_itself(cluster):
    """What it held is gone; Container-Optimized OS would boot as if for the first time, others have lost their lease."""
    machine = cluster.start("scheduler", scale=0.1)
    machine.machine.said(f"scheduler {machine.id} at tls://")
    machine.machine.guest.kill()
    machine.machine.lines.clear()
    machine.machine.guest.boot()
    machine.deleted()

    assert "is being deleted" in machine.machine.console
    assert "scheduler" not in machine.machine.console.replace(machine.id, "")
