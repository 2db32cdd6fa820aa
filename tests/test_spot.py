"""Spare capacity on every cloud that has some: it is taken back with notice, and may be refused."""

from __future__ import annotations

import pytest
from contract import until
from distributed import Client
from embedded import ACCOUNTS

from cloudprovider.events import Phase

pytestmark = pytest.mark.parametrize(
    "account", [name for name, account in ACCOUNTS.items() if account.spot], indirect=True
)


def test_an_interrupted_machine_empties_itself(account):
    """At the cloud's notice data moves and another machine is ordered; nothing is lost."""
    with account.start(n_workers=2, spot=True) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert {"spot"} == {machine.market for machine in cluster.workers.values()}
        assert "on-demand" == cluster.scheduler_machine.market
        data = client.scatter(list(range(10)), hash=False)
        victim = min(cluster.fleet.machines)
        account.cloud.interrupt(victim)
        until(lambda: victim in cluster.fleet.ended, 90, "the machine has ended")
        until(lambda: 2 == len(cluster.fleet.staying.keys() & cluster._arrived()), 60, "another is here")
        assert list(range(10)) == client.gather(data)
        [notice] = [e for e in cluster.events.of(Phase.notice) if e.machine == victim]
        [drained] = [e for e in cluster.events.of(Phase.drained) if e.machine == victim]
        assert notice.time < drained.time
        assert [] == cluster.events.of(Phase.lost)


def test_spot_falls_back(account):
    """What spot refuses comes on demand, and the cluster says which is which."""
    account.cloud.inject("capacity", room=1, market="spot")
    with account.start(n_workers=3, spot="fallback") as cluster:
        cluster.wait_for_workers(3, timeout=60)
        markets = sorted(machine.market for machine in cluster.workers.values())
    assert ["on-demand", "on-demand", "spot"] == markets
