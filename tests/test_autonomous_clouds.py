"""A cluster that outlives the laptop, on embedded clouds: its own manager goes on beside the scheduler."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest
from contract import until
from distributed import Client

CLIENT = """
    import json, os, signal, sys, time
    from distributed import Client
    from cloudprovider import discovery

    cluster = discovery.cluster_class(sys.argv[1])(**json.loads(sys.argv[2]))
    cluster.adapt(minimum=1, maximum=3, interval="500ms", target_duration="1s", wait_count=2, keep_paid=False)
    client = Client(cluster)

    def work(number, hurry):
        if not os.path.exists(hurry):
            time.sleep(0.5)
        return number

    # Five minutes of work for one worker: more than any cloud's boot, so that more of them are worth it.
    total = client.submit(sum, client.map(work, range(600), hurry=sys.argv[3]))
    client.publish_dataset(total=total)
    print("ready", flush=True)
    signal.pause()
"""


@pytest.fixture
def left(account, tmp_path):
    """The file that makes the work of an abandoned autonomous cluster short; its client was killed amid that."""
    options = {**account.options, "name": "left", "n_workers": 1, "autonomous": True}
    if account.spot:
        options["spot"] = True
    hurry = tmp_path / "hurry"
    command = [sys.executable, "-c", textwrap.dedent(CLIENT), account.name, json.dumps(options), str(hurry)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert "ready\n" == client.stdout.readline()
        finally:
            client.kill()
    return hurry


@pytest.mark.parametrize(
    "account", ["fargate", "ecs", pytest.param("ec2", marks=pytest.mark.slow)], indirect=True
)
def test_cluster_outlives_its_client(account, left):
    """With its client killed amid the work a cluster grows, replaces what it loses, shrinks, and hands out the result."""
    provider = account.provider("left")

    def workers():
        return {machine.id: machine for machine in provider.list("left") if machine.role == "worker"}

    until(lambda: 3 == len(workers()), 60, "it has grown")
    victim = min(workers(), key=lambda id: workers()[id].created)
    if account.spot:
        account.cloud.interrupt(victim)
    else:
        account.kill(None, victim)
    until(lambda: victim not in workers(), 90, "it has lost one")
    until(lambda: 3 == len(workers()), 60, "another is there")
    left.touch()
    until(lambda: 1 == len(workers()), 90, "it has shrunk")
    assert "iam role: dask-left-us-east-1" in account.leftovers()

    denied = [call for call in account.cloud.calls if re.search("Denied|Unauthorized", call.error)]
    assert [] == denied

    with account.find("left") as cluster, Client(cluster) as client:
        assert sum(range(600)) == client.get_dataset("total").result(timeout=60)
        log = cluster.provider.logs(cluster.scheduler_machine.id, lines=1000)
        assert "dask-cloud-manager: Ordered 2 machines" in log
    assert account.nothing_left()
