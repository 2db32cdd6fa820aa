"""A cluster's name on every cloud: who may have it, and who finds and ends the cluster by it alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from click.testing import CliRunner
from contract import until
from distributed import Client

from cloudprovider import CloudError
from cloudprovider.cli import cloud as command_line
from cloudprovider.security import make_secrets


def dask_cloud(*arguments: str) -> str:
    """What a command of the command line's says."""
    done = CliRunner().invoke(command_line, arguments)
    assert 0 == done.exit_code, done.output
    return done.stdout


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


def test_swept_from_the_command_line(account):
    """A cluster that somebody left is shown and ended by its name alone, whatever it runs on."""
    account.start(name="left", n_workers=1).detach()
    shown = json.loads(dask_cloud("show", "left", "--json"))
    assert (account.name, {"scheduler", "worker"}) == (shown["cloud"], {m["role"] for m in shown["machines"]})
    assert "dask-cloud-runtime" in dask_cloud("logs", "left")
    assert "Ended 2 machines" in dask_cloud("sweep", "left", "--force", "--yes")
    assert account.nothing_left()


def test_a_script_that_forgets_to_close(account):
    """What a script does not close is gone when it has ended."""
    script = f"""
        from cloudprovider.discovery import cluster_class
        cluster = cluster_class({account.name!r})(n_workers=1, **{account.options!r})
        cluster.wait_for_workers(1, timeout=60)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
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


def test_the_next_start_sweeps_what_expired(account):
    """What somebody's cluster left free of charge past its hard end goes with the next start of anyone."""
    dead = account.provider("dead", max_lifetime="1s")
    boots = [dead.config.boot_for(role, dead.identity) for role in ("scheduler", "worker")]
    dead.prepare(boots, make_secrets(dead.identity))
    assert account.leftovers()
    until(lambda: time.time() > dead.identity.expires + 1, 30, "the cluster expired")
    with account.start() as cluster:
        swept = "Swept what dead left behind."
        until(lambda: swept in [event.message for event in cluster.events], 60, "it is swept")
        assert not any("dead" in line for line in account.leftovers())
    assert account.nothing_left()
