"""Interruptions with notice: machines empty themselves and are replaced before they die; nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contract import until
from distributed import Client
from embedded import SMALL, nothing_left

from cloudprovider import EC2Cluster, FargateCluster
from cloudprovider.events import Phase

STORM = Path(__file__).parent.parent / "benchmarks" / "storm.py"


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


@pytest.fixture
def cluster(cloud):
    with FargateCluster(n_workers=3, spot=True, **SMALL) as cluster:
        cluster.wait_for_workers(3, timeout=60)
        yield cluster


def events(cluster, phase, machine):
    """The events of a phase that are about a machine."""
    return [event for event in cluster.events.of(phase) if event.machine == machine]


def ordered_after(cluster, event):
    """Machines that were ordered after an event, by market."""
    orders = [order for order in cluster.events.of(Phase.ordered) if order.time > event.time]
    return [market for order in orders for market in order.facts["markets"].values()]


def test_a_notice_empties_and_replaces_a_machine_before_it_dies(cloud, cluster):
    """The data of an interrupted machine moves, another is ordered at the notice, and nothing is counted as lost."""
    with Client(cluster) as client:
        data = client.scatter(list(range(12)))
        victim = next(iter(cluster.fleet.machines))
        cloud.interrupt(victim)
        until(lambda: victim in cluster.fleet.ended, 60, "the machine has ended")
        assert list(range(12)) == client.gather(data)
        until(lambda: 3 == len(cluster.fleet.staying.keys() & cluster._arrived()), 60, "another is here")

    [notice] = events(cluster, Phase.notice, victim)
    [drained] = events(cluster, Phase.drained, victim)
    [left] = events(cluster, Phase.released, victim)
    assert ("spot", "SIGTERM", True) == (
        notice.facts["market"],
        notice.facts["reason"],
        80 < notice.facts["seconds"] < 120,
    )
    assert (4, 0) == (drained.facts["moved"], drained.facts["lost_count"])
    assert ["spot"] == ordered_after(cluster, notice)
    assert notice.time < cluster.events.of(Phase.ordered)[-1].time < drained.time < left.time
    assert "Spot Task was interrupted" in left.facts["reason"]
    assert [] == cluster.events.of(Phase.lost)


def test_the_scheduler_is_always_on_demand(cloud):
    """Whatever market workers come from, nobody takes the scheduler back; events say each worker's market."""
    cloud.inject("capacity", room=1, market="spot")
    with FargateCluster(n_workers=3, spot="fallback", **SMALL) as cluster:
        until(lambda: 3 == len(cluster._arrived()), 60, "all are here")
        markets = {m.id: m.market for m in cloud.machines()}
        assert "on-demand" == cluster.scheduler_machine.market == markets[cluster.scheduler_machine.id]
        with pytest.raises(ValueError, match="on-demand"):
            cloud.interrupt(cluster.scheduler_machine.id)
        told = {
            e.machine: e.facts["market"]
            for e in cluster.events.of(Phase.arrived)
            if e.machine in cluster.fleet.machines
        }
        orders = [e for e in cluster.events.of(Phase.ordered) if e.facts["role"] == "worker"]
        ordered = {id: market for e in orders for id, market in e.facts["markets"].items()}

    assert {id: markets[id] for id in ordered} == ordered == told
    assert ["on-demand", "on-demand", "spot"] == sorted(told.values())


def test_a_manager_that_attaches_hears_of_notices_from_before(cloud, cluster):
    """Who finds the cluster by its name is told which machines have a notice, and does not count them."""
    victim = next(iter(cluster.fleet.machines))
    with Client(cluster) as client:
        held = client.submit(time.sleep, 30, key="held", workers=[victim])
        until(lambda: "held" in str(client.processing()), 30, "the task runs")
        cloud.interrupt(victim)
        until(lambda: events(cluster, Phase.notice, victim), 30, "the notice is heard")
        with FargateCluster.from_name(cluster.name, shutdown_on_close=False, progress=False) as other:
            until(lambda: victim in other.notices.leaving, 30, "the other manager knows")
            until(lambda: victim not in other.plan and 3 == len(other.plan), 60, "its replacement is counted")
        held.cancel()


def test_a_recommendation_ends_a_machine_that_the_cloud_would_not_take(cloud):
    """A machine that is only at risk empties itself, is replaced, and ends; the scheduler is asked for nothing."""
    with EC2Cluster(n_workers=2, spot=True, progress=False) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert "on-demand" == cluster.scheduler_machine.market
        data = client.scatter(list(range(10)))
        victim = next(iter(cluster.fleet.machines))
        cloud.interrupt(victim, rebalance=True)
        until(lambda: victim in cluster.fleet.ended, 60, "the machine has ended")
        until(lambda: 2 == len(cluster.fleet.staying.keys() & cluster._arrived()), 60, "another is here")
        assert list(range(10)) == client.gather(data)

    [notice] = events(cluster, Phase.notice, victim)
    [drained] = events(cluster, Phase.drained, victim)
    assert "rebalance recommendation" in notice.facts["reason"]
    assert 5 == drained.facts["moved"]
    assert ["spot"] == ordered_after(cluster, notice)
    assert [] == cluster.events.of(Phase.lost)


def test_a_storm_loses_nothing(tmp_path):
    """Five machines in a storm that takes almost as many finish what they began; nothing is lost."""
    file = tmp_path / "report.json"
    small = ["--workers", "5", "--tasks", "64", "--interruptions", "4", "--every", "0.3", "--seconds", "0.3"]
    command = [sys.executable, STORM, "--json", file, "--only", "notice", *small]
    subprocess.run(command, check=True, capture_output=True, timeout=150)
    [row] = json.loads(file.read_text())["rows"]

    assert (63, True) == (row["tasks"], row["results right"])
    assert (0, 0) == (row["scattered arrays lost"], row["begun again by the client"])
    assert row["machines taken"] >= 2
    assert 5 < row["machines ordered"] <= 5 + row["machines taken"]
    assert row["results moved"] > 0
    assert row["recomputed tasks"] <= 6


def test_a_cluster_in_a_storm_leaves_nothing(cloud):
    """A cluster that is closed while machines empty themselves leaves no machine, and nothing else."""
    with FargateCluster(n_workers=3, spot=True, **SMALL) as cluster:
        cluster.wait_for_workers(3, timeout=60)
        for machine in list(cluster.fleet.machines)[:2]:
            cloud.interrupt(machine)
    assert nothing_left(cloud)
