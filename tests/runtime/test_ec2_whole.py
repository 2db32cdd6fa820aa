"""Whole machines on EC2: our user data executed, the runtime it brings, Dask in the container, and the end."""

from __future__ import annotations

import dataclasses
import os
import sys
import time

import pytest
from cloudruntime.exits import Exit
from metadata_service import MetadataService

from cloudprovider.emulator.guest import Guest, Kind
from cloudprovider.emulator.images import Images, dask_image
from cloudprovider.emulator.room import Room
from cloudprovider.provider import Identity
from cloudprovider.providers import _ec2_boot as boots
from cloudprovider.providers._ec2_config import EC2Config
from cloudprovider.security import client_security, make_secrets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

PATIENCE_S = 60
NETWORK = f"127.{os.getpid() % 100 + 100}.{os.getpid() // 100 % 250}"


class Machine:
    """One machine, and what it has told so far."""

    def __init__(self, room, cluster, role, number, *, scheduler=None, scale=1.0, **options):
        self.id, self.address = f"i-{number}", f"{NETWORK}.{number}"
        self.console: list[str] = []
        self.logged: list[tuple[str, str, str]] = []
        self.halts = 0
        config = EC2Config.of(**options)
        boot = dataclasses.replace(
            config.boot_for(role, cluster.identity), image=config.image or dask_image(), scheduler=scheduler
        )
        boot = dataclasses.replace(boot, secret=boots.secret(boot))
        self.service = MetadataService(self.id, self.address)
        for whose, value in boots.secrets(cluster.keys.machine, [boot]).items():
            self.service.parameters[f"/dask/{cluster.identity.name}/{whose}"] = value
        self.service.__enter__()
        self.guest = Guest(
            room,
            id=self.id,
            address=self.address,
            kind=Kind(),
            user_data=boots.user_data(
                config, cluster.identity, boot, region="eu-central-1", log_group="/dask"
            ),
            environ={**self.service.environ, "DASK_CLOUD_POLL_S": "0.3"},
            console=self.console.append,
            logs=lambda *entry: self.logged.append(entry),
            halted=self.halted,
            scale=scale,
        )
        self.guest.boot()

    def halted(self):
        self.halts += 1

    def said(self, text):
        """Wait for a line on the console."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := [line for line in self.console if text in line]):
            assert time.monotonic() < deadline, "\n".join(self.console)
            time.sleep(0.05)
        return found[0]

    def ends(self):
        """Wait until it has switched itself off."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.halts:
            assert time.monotonic() < deadline, "\n".join(self.console)
            time.sleep(0.05)


class Cluster:
    """Machines of one cluster, all gone when the test ends."""

    def __init__(self, room):
        now = int(time.time())
        self.room = room
        self.identity = Identity(name="whole", owner="me", created=now, expires=now + 3600)
        self.keys = make_secrets(self.identity)
        self.machines = []

    def start(self, role, **options):
        self.machines.append(Machine(self.room, self, role, len(self.machines) + 2, **options))
        return self.machines[-1]


@pytest.fixture(scope="module")
def room():
    room = Room(Images())
    yield room
    room.close()


@pytest.fixture
def cluster(room):
    cluster = Cluster(room)
    yield cluster
    for machine in cluster.machines:
        machine.guest.discard()
        machine.service.__exit__()


def test_two_machines_become_a_cluster_and_end_themselves(cluster):
    """User data with the packed runtime boots a scheduler and a worker, which heed a notice, and end as told."""
    from distributed import Client

    scheduler = cluster.start("scheduler")
    address = f"tls://{scheduler.address}:8786"
    worker = cluster.start(
        "worker", scheduler=address, environment={"GREETING": "two\nlines", "PLAIN": "one"}
    )
    scheduler.said(f"scheduler {scheduler.id} at {address}")
    with Client(address, security=client_security(cluster.keys.client), timeout=30) as client:
        client.wait_for_workers(1, timeout=PATIENCE_S)
        seen = client.submit(lambda: [os.environ["GREETING"], os.environ["PLAIN"]]).result(timeout=30)
        names = {info["name"] for info in client.scheduler_info(n_workers=-1)["workers"].values()}
        worker.service.interrupt(60)
        worker.ends()

        assert ["two\nlines", "one"] == seen
        assert {worker.id} == names
        assert 0 == scheduler.halts
        client.shutdown()
    scheduler.ends()

    assert "spot interruption: terminate at" in worker.said(f"ended: {Exit.interrupted.name}")
    assert ("/dask", f"whole/{worker.id}") == worker.logged[-1][:2]
    assert "ended: asked" in scheduler.logged[-1][2]


def test_an_image_that_cannot_be_pulled_is_on_the_console_and_ends_the_machine(room, cluster):
    """Nothing waits for a container that never comes."""
    machine = cluster.start("worker", scheduler="tls://127.0.0.1:1", image="ghcr.io/nobody/nothing:1")
    machine.ends()

    assert any("nobody/nothing" in line for line in machine.console)


def test_a_container_that_hangs_ends_with_its_machine(cluster):
    """Nothing inside it renews the lease any more, and the host's timer does not need it."""
    import psutil

    machine = cluster.start("scheduler", start_timeout="12 s", scale=0.03)
    machine.said("scheduler i-2 at tls://")
    for pid in machine.guest.pids:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            process.suspend()
    machine.said("nothing renewed the lease of this machine")
