"""Clusters that outlive the laptop: a manager on the scheduler's machine goes on where the client has gone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import embedded
import psutil
import pytest
from cloudruntime.boot import Boot
from contract import until
from distributed import Client, rpc
from distributed.security import Security
from embedded import ACCOUNTS

from cloudprovider import ConfigError, FargateCluster, ProcessCluster, autonomous
from cloudprovider.discovery import cluster_class
from cloudprovider.provider import Identity, contact
from cloudprovider.security import client_security

#: The clouds whose scheduler's machine runs a manager; two of them stand for the others in the ordinary run.
AUTONOMOUS = [
    pytest.param(name, marks=() if name in {"local", "fargate"} else pytest.mark.slow)
    for name in ACCOUNTS
    if cluster_class(name).config_class.can_be_autonomous
]
#: A client that starts a cluster, leaves work on it that waits for a file, and is killed.
CLIENT = textwrap.dedent(
    """
    import json, sys, time
    from pathlib import Path
    from distributed import Client
    from cloudprovider.discovery import cluster_class

    cloud, options, wish, gate = json.loads(sys.argv[1])

    def wait(x):
        while not Path(gate).exists():
            time.sleep(0.05)
        return x

    cluster = cluster_class(cloud)(**options, autonomous=True)
    client = Client(cluster)
    cluster.adapt(**wish) if "maximum" in wish else cluster.scale(**wish)
    client.publish_dataset(total=client.submit(sum, client.map(wait, range(16))))
    client.wait_for_workers(1)
    print("ready", flush=True)
    time.sleep(600)
    """
)


@pytest.fixture
def account(request):
    """The account of a cloud; without a parameter this computer."""
    return embedded.account(getattr(request, "param", "local"), request)


def leave(account, wish: dict, gate: Path, **options) -> None:
    """Start a cluster with work on it from another process, and kill that in the middle."""
    asked = json.dumps([account.name, {**account.options, **options}, wish, str(gate)])
    with subprocess.Popen([sys.executable, "-c", CLIENT, asked], stdout=subprocess.PIPE, text=True) as client:
        try:
            assert "ready\n" == client.stdout.readline()
        finally:
            client.kill()


def workers(provider, cluster: str) -> set[str]:
    """Workers' machines that the cloud says are live."""
    return {machine.id for machine in provider.list(cluster) if machine.role == "worker"}


def manager(cluster: str) -> tuple[psutil.Process, Path]:
    """The first process of the manager beside a scheduler on this computer, and its log."""
    folder = Path(os.environ[embedded.Local.folder]) / cluster
    [record] = [
        r for path in folder.glob("machines/*.json") if "manager" in (r := json.loads(path.read_text()))
    ]
    [log] = folder.glob("logs/*.manager.log")
    return psutil.Process(record["manager"]["pid"]), log


@pytest.mark.timeout(300)
@pytest.mark.parametrize("account", AUTONOMOUS, indirect=True)
def test_a_cluster_outlives_its_client(account, tmp_path):
    """With the client killed it scales up and down and replaces machines; a second one collects, scales, closes.

    On this computer the manager is killed in the middle, too, and started again.
    """
    gate = tmp_path / "gate"
    wish = {"minimum": 1, "maximum": 2, "interval": "200ms", "wait_count": 2, "keep_paid": False}
    options = {"name": "outlives", "idle_timeout": "5 minutes", **({"spot": True} if account.spot else {})}
    leave(account, {**wish, "target_duration": "1s"}, gate, **options)

    provider = account.provider("outlives")
    before = until(lambda: len(two := workers(provider, "outlives")) == 2 and two, 90, "it scales up")
    if account.name == "local":
        first, log = manager("outlives")
        first.children()[0].kill()
        until(lambda: "code -9: it is started again" in log.read_text(), 30, "the manager's end is seen")
    victim = min(before)
    if account.spot:
        account.cloud.interrupt(victim)
    else:
        account.kill(SimpleNamespace(provider=provider, name="outlives"), victim)
    until(lambda: len(workers(provider, "outlives") - before) == 1, 120, "the machine is replaced")
    gate.touch()
    until(lambda: len(workers(provider, "outlives")) == 1, 120, "it scales down")

    if account.emulator == "aws":
        check_role(account)

    with account.find("outlives") as cluster, Client(cluster) as client:
        assert sum(range(16)) == client.get_dataset("total").result(timeout=60)
        assert cluster._lead.ours
        assert (1, 2) == (cluster._adaptive.minimum, cluster._adaptive.maximum)
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=90)
        status = cluster.sync(cluster.scheduler_comm.cloud_status)
        assert {"target": 2} == status["wish"]
        assert status["standby_s"] < 30
        client.unpublish_dataset("total")
        cluster.adapt(minimum=0, maximum=2, interval="200ms", wait_count=2, keep_paid=False)
        until(lambda: not cluster.workers, 90, "all are returned")
    assert account.nothing_left()


def check_role(account) -> None:
    """On AWS the manager works by a role of its cluster's, which is enough; its lines are in the scheduler's log."""
    assert "iam role: dask-outlives-us-east-1" in account.leftovers()
    assert [] == [call.denied for call in account.cloud.calls if call.denied]
    provider = account.provider("outlives")
    provider.attach()
    [scheduler] = [machine for machine in provider.list("outlives") if machine.role == "scheduler"]
    assert "dask-cloud-manager: stands by for outlives" in provider.logs(scheduler.id, lines=1000)


def test_an_idle_cluster_ends(account):
    """A machine too many, that a manager ordered in its last moment, is returned; without work all ends by itself."""
    with account.start(name="idle", autonomous=True, idle_timeout="5 s") as cluster:
        first, log = manager("idle")
        with Client(cluster) as client:
            work = client.submit(int, resources={"nobody has": 1})
            [machine] = cluster.provider.create(cluster.estate._worker_boot(), 1).machines
            until(lambda: machine.id in cluster.fleet.ended, 90, "nobody wanted it")
            assert set() == workers(cluster.provider, "idle")
            work.release()
        cluster.detach()
    until(lambda: not account.running(), 90, "it ends without work")
    until(lambda: not first.is_running(), 30, "the manager ends with it")
    assert log.read_text().endswith("the cluster is over\n")
    account.provider("idle").sweep("idle")
    assert account.nothing_left()


def lead(provider, cluster: str) -> str:
    """Who leads, as the scheduler says to whoever only asks."""

    async def asked() -> str:
        [scheduler] = [machine for machine in provider.list(cluster) if machine.role == "scheduler"]
        keys = client_security(provider.attach().client).get_connection_args("client")
        async with rpc(f"tls://{contact(scheduler.private_address)}", connection_args=keys) as there:
            held = (await there.cloud_status())["lead"]
        return held["who"] if held else ""

    return asyncio.run(asked())


@pytest.mark.slow  # a lead lasts for a minute
@pytest.mark.timeout(300)
def test_a_client_that_slept_leads_again(account, tmp_path):
    """While a client's computer sleeps the manager replaces machines; the client wakes up, leads, and orders none."""
    provider = account.provider("asleep")
    options = {**account.options, "name": "asleep", "idle_timeout": "10 minutes"}
    asked = json.dumps([account.name, options, {"n": 1}, str(tmp_path / "gate")])
    with subprocess.Popen([sys.executable, "-c", CLIENT, asked], stdout=subprocess.PIPE, text=True) as client:
        try:
            assert "ready\n" == client.stdout.readline()
            assert f"(process {client.pid})" in lead(provider, "asleep")
            client.send_signal(signal.SIGSTOP)
            until(lambda: "the manager on its" in lead(provider, "asleep"), 120, "the manager leads")
            [victim] = workers(provider, "asleep")
            account.kill(SimpleNamespace(provider=provider, name="asleep"), victim)
            [another] = until(lambda: workers(provider, "asleep") - {victim}, 60, "the machine is replaced")
            client.send_signal(signal.SIGCONT)
            until(lambda: f"(process {client.pid})" in lead(provider, "asleep"), 60, "the client leads again")
            time.sleep(5)  # in which it would order what it thinks is missing
            assert {another} == workers(provider, "asleep")
        finally:
            client.kill()
    provider.sweep("asleep")
    assert account.nothing_left()


@pytest.mark.slow  # the leases are the supervisor's, which other tests end by time and money
@pytest.mark.parametrize("limit", [{"max_lifetime": "15 s"}, {"budget": 0.05, "price": 1.0}])
def test_limits_end_it(account, tmp_path, limit):
    """With work and no client it lives until its hard end, or for as long as its budget pays."""
    leave(account, {"n": 1}, tmp_path / "gate", name="limited", **limit)
    assert 2 == len(account.running())
    until(lambda: not account.running(), 120, "it ends")


def test_mandate_says_what_was_chosen_and_no_key():
    """A mandate holds the options that differ from their defaults, but none that the Boots or nobody needs."""
    chosen = {
        "worker_cpu": 0.5,
        "worker_memory": "1 GiB",
        "spot": "fallback",
        "tags": {"team": "a"},
        "budget": "5 USD",
    }
    hidden = {"environment": {"TOKEN": "word"}, "security": Security(tls_client_key="word"), "progress": True}
    config = FargateCluster.config_class.of(name="told", autonomous=True, **chosen, **hidden)
    identity = config.identity()
    text = autonomous.mandate(config, identity)
    told = autonomous.Mandate.of_environment({autonomous.MANDATE: text})
    assert {**chosen, "autonomous": True} == told.options
    assert ("fargate", "told") == (told.cloud, Identity(**told.identity).name)
    assert "word" not in text
    boot = config.boot_for("scheduler", identity)
    assert boot == Boot.of_environment(autonomous.environment(boot, text))
    assert boot.autonomous
    assert not config.boot_for("worker", identity).autonomous


def test_an_autonomous_cluster_needs_no_client():
    """Its leases count work and time, not clients; a scheduler that never comes up ends as early as it is idle."""
    options = {"idle_timeout": "1 minute", "max_lifetime": "1 hour"}
    config = ProcessCluster.config_class.of(autonomous=True, **options)
    leases = config.boot_for("scheduler", config.identity()).leases
    assert (60, 60, 3600) == (leases.idle, leases.no_client, leases.no_client_work)


def test_clouds_without_a_manager_say_so():
    """Where no manager can run beside the scheduler, the option is refused before any call."""
    config = type("Elsewhere", (ProcessCluster.config_class,), {"can_be_autonomous": False})
    with pytest.raises(ConfigError, match="autonomous=True is not to be had"):
        config.of(autonomous=True)


@pytest.mark.parametrize(
    ("mandate", "said"),
    [
        ("", "DASK_CLOUD_MANDATE is not set"),
        ('{"cloud": "local"}', "no mandate for dask-cloud"),
        ({"version": "9.9", "options": {"telepathy": True}}, "of dask-cloud 9.9, this image has"),
    ],
)
def test_a_mandate_that_cannot_be_followed(mandate, said):
    """A manager that can never work says why, names both versions where they differ, and does not try again."""
    config = ProcessCluster.config_class.of(name="told", autonomous=True)
    identity = config.identity()
    if isinstance(mandate, dict):
        mandate = json.dumps({**json.loads(autonomous.mandate(config, identity)), **mandate})
    boot = dataclasses.replace(config.boot_for("scheduler", identity), secret="env:SECRET")
    keys = dict.fromkeys(("ca", "cert", "key"), "x")
    environ = {**os.environ, **autonomous.environment(boot, mandate), "SECRET": json.dumps(keys)}
    done = subprocess.run(
        [sys.executable, *autonomous.COMMAND[1:]], env=environ, check=False, capture_output=True, text=True
    )
    assert (autonomous.NEVER, True) == (done.returncode, said in done.stderr), done.stderr


def test_the_manager_image_is_nobody_special():
    """The Dockerfile starts from the runtime image, runs the manager, and leaves root behind."""
    lines = (Path(__file__).parents[1] / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert f"ENTRYPOINT {json.dumps(list(autonomous.COMMAND))}" == lines[-1]
    assert "FROM ${RUNTIME}" in lines
    assert "USER dask" == lines[-2]
    assert not any(word in line for line in lines for word in ("curl", "wget", "ADD "))
