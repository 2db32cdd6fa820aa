"""Two managers on one cluster do not fight: one leads, the other sees what there is and says who does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from contract import until
from distributed import Client, fire_and_forget

from cloudprovider import CloudError, CloudWarning, ProcessCluster


@pytest.fixture
def options(tmp_path):
    return {"progress": False, "directory": str(tmp_path)}


@pytest.fixture
def cluster(options):
    with ProcessCluster(name="shared", n_workers=1, **options) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        yield cluster


@pytest.fixture
def other(cluster, options):
    with ProcessCluster.from_name("shared", shutdown_on_close=False, **options) as other:
        yield other


def test_second_manager_says_who_leads(cluster, other):
    """Whoever does not lead is refused every decision with the name of who does, and may use the cluster."""
    leader = rf"led by \S+ \(process {os.getpid()}\).*detach\(\) there"
    with pytest.raises(CloudError, match=leader):
        other.scale(2)
    with pytest.raises(CloudError, match=leader):
        other.adapt(minimum=0, maximum=2)
    with pytest.raises(CloudError, match=leader):
        other.sync(other.scale_down, list(other.workers))
    with Client(other) as client:
        assert 3 == client.submit(sum, [1, 2]).result(timeout=30)
    cluster.scale(2)
    cluster.wait_for_workers(2, timeout=60)


def test_second_manager_follows(cluster, other):
    """Whoever does not lead sees the machines that come and go, orders none, and replaces none."""
    cluster.scale(2)
    cluster.wait_for_workers(2, timeout=60)
    other.sync(other._call, other.estate.follow)
    assert set(cluster.workers) == set(other.workers)

    cluster.scale(0)
    other.sync(other._call, other.estate.follow)
    assert {} == other.workers
    assert 2 == len(other.fleet.ended)
    assert 0 == other.fleet.target


def test_lead_goes_with_who_leaves(cluster, other):
    """When the first manager lets go, the second leads at its next decision, with what there is by then."""
    cluster.scale(2)
    cluster.wait_for_workers(2, timeout=60)
    cluster.detach()

    def scaled():
        try:
            other.scale(3)
        except CloudError:
            return False
        return True

    until(scaled, 10, "the second manager leads")
    other.wait_for_workers(3, timeout=60)
    assert 3 == len(other.workers)
    assert any("led from here now" in event.message for event in other.events)
    other.shutdown_on_close = True


LEADER = """
    import sys, time
    from cloudprovider import ProcessCluster

    cluster = ProcessCluster(name="shared", n_workers=1, progress=False, directory=sys.argv[1])
    print("leads", flush=True)
    time.sleep(600)
"""


def test_lead_of_a_killed_process_is_free_at_once(options):
    """A manager that was killed leads no more: nobody waits for its lease."""
    command = [sys.executable, "-c", textwrap.dedent(LEADER), options["directory"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leader:
        try:
            assert "leads\n" == leader.stdout.readline()
            with ProcessCluster.from_name("shared", **options) as cluster:
                with pytest.raises(CloudError, match=rf"process {leader.pid}"):
                    cluster.scale(2)
                leader.send_signal(signal.SIGKILL)
                leader.wait()

                def scaled():
                    try:
                        cluster.scale(2)
                    except CloudError:
                        return False
                    return True

                until(scaled, 20, "the lead is free")
                cluster.wait_for_workers(2, timeout=60)
        finally:
            leader.kill()


def test_detach_says_what_goes_with_its_client(options, tmp_path):
    """Detaching warns of what only futures hold; who comes back finds the rest, scales, adapts, reads logs, closes."""
    gate, proof = tmp_path / "gate", tmp_path / "proof"

    def finish(gate, proof):
        while not gate.exists():
            time.sleep(0.02)
        proof.write_text("done")

    cluster = ProcessCluster(name="left", n_workers=1, **options)
    with Client(cluster) as client:
        futures = client.map(lambda x: x + 1, range(5))
        client.publish_dataset(total=client.submit(sum, futures))
        client.gather(futures)
        fire_and_forget(client.submit(finish, gate, proof))

        def sent_off(dask_scheduler):
            wanted = getattr(dask_scheduler.clients.get("fire-and-forget"), "wants_what", ())
            return [len(task.who_wants) for task in wanted] == [1]

        until(lambda: client.run_on_scheduler(sent_off), 30, "the work is sent off, and nobody's future")
        with pytest.warns(CloudWarning, match="5 results .* held by futures alone"):
            assert "left" == cluster.detach()
    with ProcessCluster.from_name("left", **options) as again, Client(again) as client:
        assert 15 == client.get_dataset("total").result(timeout=30)
        del futures
        gate.touch()
        until(proof.exists, 30, "what was sent off is done")
        again.scale(2)
        again.wait_for_workers(2, timeout=60)
        logs = again.get_logs()
        assert {"Cluster", "Scheduler", *again.scheduler_info["workers"]} == set(logs)
        assert {"budget", "manager", "who"} == set(again.sync(again._news)), "what older schedulers know"
        client.unpublish_dataset("total")
        again.adapt(minimum=0, maximum=1, interval="200ms", wait_count=1, keep_paid=False)
        until(lambda: not again.workers, 60, "adapted")
    assert {gate, proof} == set(tmp_path.iterdir())


async def test_detach_of_an_asynchronous_cluster(options):
    """`await cluster.detach()` gives the name, and leaves the cluster running."""
    cluster = await ProcessCluster(name="later", asynchronous=True, **options)
    assert "later" == await cluster.detach()
    async with ProcessCluster.from_name("later", asynchronous=True, **options) as again:
        assert "later" == again.name
