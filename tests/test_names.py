"""A cluster's name on every cloud: who may have it, and who finds the cluster by it alone."""

from __future__ import annotations

import json
import threading

import pytest
from distributed import Client
from embedded import dask_cloud

from cloudprovider import CloudError


def test_a_name(account):
    """A cluster that was left is listed, keeps its name, and is found, scaled and closed by it; then it is free."""
    cluster = account.start(name="mine", n_workers=1)
    cluster.wait_for_workers(1, timeout=60)
    with cluster.get_client() as client:
        client.publish_dataset(answer=client.submit(lambda: 42))
    assert "mine" == cluster.detach()

    [row] = json.loads(dask_cloud("list", "--json"))
    assert ("mine", account.name, 1) == (row["cluster"], row["cloud"], row["workers"])
    with pytest.raises(CloudError, match="mine"):
        account.start(name="mine")
    with account.find("mine") as again, Client(again) as client:
        assert 42 == client.get_dataset("answer").result(timeout=30)
        again.scale(2)
        again.wait_for_workers(2, timeout=60)
    assert account.nothing_left()

    with account.start(name="mine") as fresh:
        assert "mine" == fresh.name
    assert account.nothing_left()


def test_one_name_at_the_same_moment(account):
    """Of two that start under one name in the same second one runs, and the other is told that it is taken."""
    together = threading.Barrier(2, timeout=60)
    clusters, refused = [], []

    def start():
        together.wait()
        try:
            clusters.append(account.start(name="same"))
        except CloudError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (1, 1) == (len(clusters), len(refused)), refused
    assert "'same'" in refused[0]
    [cluster] = clusters
    assert cluster.scheduler_machine.id in {machine.id for machine in account.provider().list("same")}
    cluster.close()
    assert account.nothing_left()


def test_two_users_at_the_same_moment(account):
    """Two users who start at once in one account share the landing and nothing else."""
    together = threading.Barrier(2, timeout=60)
    results, errors = [], []

    def use(number):
        together.wait()
        try:
            with account.start(n_workers=1) as cluster, Client(cluster) as client:
                results.append(client.submit(lambda: number).result(timeout=60))
        except CloudError as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert ([], [1, 2]) == (errors, sorted(results))
    assert account.nothing_left()
