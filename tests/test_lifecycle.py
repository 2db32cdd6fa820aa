"""A cluster's life on every cloud, from its start to the last of it, with real processes."""

from __future__ import annotations

import time

from contract import until
from distributed import Client

from cloudprovider.events import Phase


def test_a_life(account):
    """By least rights it starts in two orders, computes, scales, replaces what is lost, bills, leaves nothing."""
    before = account.ordered()
    with account.least():
        started = account.start(name="life", n_workers=2)
    with started as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert account.calls_to_start(2) == account.ordered() - before or account.name == "local"
        assert cluster.observed == cluster.requested == cluster.plan == set(cluster.workers)
        assert list(range(1, 11)) == client.gather(client.map(lambda x: x + 1, range(10)))
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        data = client.scatter(list(range(12)), hash=False)
        cluster.scale(1)
        until(lambda: len(cluster.observed) == 1, 60, "one worker is left")
        assert list(range(12)) == client.gather(data)

        [victim] = cluster.fleet.machines
        account.kill(cluster, victim)
        until(lambda: victim in cluster.fleet.ended, 60, "the loss is noticed")
        until(lambda: cluster.observed - {victim}, 60, "another connects")
        assert 3 == client.submit(lambda: 3).result(timeout=30)
    bill = cluster.cost()
    assert account.nothing_left()
    assert {"scheduler": 1, "worker": 4} == {
        role: sum(line.machines for line in bill.lines if line.role == role)
        for role in ("scheduler", "worker")
    }
    assert account.name in {"local", "ecs"} or bill.spent > 0


def test_adapts(account):
    """Machines come with the work, and go when there is none."""
    with account.start() as cluster, Client(cluster) as client:
        assert not cluster.workers
        cluster.adapt(
            minimum=0, maximum=2, interval="200ms", target_duration="1s", wait_count=2, keep_paid=False
        )
        futures = client.map(lambda x: time.sleep(0.2) or x, range(20), pure=False)
        assert sum(range(20)) == sum(client.gather(futures))
        arrived = {event.machine for event in cluster.events.of(Phase.arrived)}
        assert 1 <= len(arrived - {cluster.scheduler_machine.id}) <= 2
        del futures
        until(lambda: not cluster.workers, 60, "all are returned")
