"""The embedded AWS is as fast, as slow and as limited as its profile says, and carries what it must."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from fargate_account import Account

from cloudprovider.emulator import Emulator

QUICK = Config(retries={"total_max_attempts": 1}, max_pool_connections=50)


@pytest.fixture
def states():
    """An emulated AWS whose machines are states only, with the published latencies and rates, a tenth as slow."""
    with Emulator("aws", profile="fargate", time_scale=0.1, engine="none") as cloud, cloud.active():
        yield cloud


def test_published_times(states):
    """An order has its address after about ten seconds and runs after about forty, both scaled."""
    account = Account(**Account.clients()).prepare()
    [arn] = account.run(account.define())
    [placed] = account.until([arn], "PENDING")
    [running] = account.until([arn], "RUNNING")
    account.ecs.stop_task(cluster="dask", task=arn)
    [stopped] = account.until([arn], "STOPPED")
    seconds = {
        name: (running[name] - running["createdAt"]).total_seconds()
        for name in ("connectivityAt", "startedAt")
    }

    assert "startedAt" not in placed
    assert 0.9 <= seconds["connectivityAt"] <= 2
    assert 3.6 <= seconds["startedAt"] <= 6
    assert 0.9 <= (stopped["stoppedAt"] - stopped["stoppingAt"]).total_seconds() <= 3
    latencies = [call.end - call.start for call in states.calls]
    assert min(latencies) >= 0.005


def test_launch_rates(states):
    """A hundred tasks may start at once, then twenty a second; on-demand and spot count apart."""
    account = Account(**Account.clients()).prepare()
    definition = account.define()
    account.ecs = boto3.client("ecs", config=QUICK)
    states.reset(time_scale=1)
    account.prepare()
    definition = account.define()

    def order(_):
        try:
            return len(account.run(definition, 10))
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(order, range(12)))
    assert 10 == outcomes.count(10)
    assert 2 == outcomes.count("ThrottlingException")
    assert 10 == len(account.spot(definition, 10))
    time.sleep(0.6)
    assert 10 == order(0)


def test_call_rates(states):
    """RunTask may be called twenty times a second, whatever it asks for."""
    account = Account(**Account.clients()).prepare()
    definition = account.define()
    account.ecs = boto3.client("ecs", config=QUICK)

    def order(_):
        try:
            return len(account.run(definition))
        except ClientError as error:
            return error.response["Error"]["Code"]

    states.reset(time_scale=1)
    account.prepare()
    definition = account.define()
    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(order, range(40)))

    assert 20 <= outcomes.count(1) < 40
    assert outcomes.count("ThrottlingException") == 40 - outcomes.count(1)


def test_a_thousand_states():
    """A thousand machines without processes start within seconds, and each call stays quick."""
    with Emulator("aws", engine="none") as cloud, cloud.active():
        account = Account(**Account.clients()).prepare()
        definition = account.define()
        arns = [arn for _ in range(100) for arn in account.run(definition, 10)]
        deadline = time.monotonic() + 30
        while sum(machine.state == "RUNNING" for machine in cloud.machines()) < 1000:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        start = time.monotonic()
        described = account.describe(arns[:100])
        listed = account.ecs.get_paginator("list_tasks").paginate(cluster="dask").build_full_result()

        assert 100 == len(described)
        assert 1000 == len(set(arns)) == len(listed["taskArns"])
        assert time.monotonic() - start < 2
        assert 1000 == len({machine.address for machine in cloud.machines()})


def test_a_hundred_processes(account, emulated_aws):
    """A hundred machines run here side by side, each a process with an address of its own."""
    definition = account.define()
    arns = [arn for _ in range(10) for arn in account.run(definition, 10)]
    tasks = account.until(arns, "RUNNING", timeout_s=60)
    machines = emulated_aws.machines()

    assert 100 == len(tasks) == len({machine.pid for machine in machines})
    assert 100 == len({machine.address for machine in machines})
    emulated_aws.reset()
    assert [] == emulated_aws.machines()


def test_ten_are_ordered_in_milliseconds(account):
    """RunTask of ten is answered at once: nothing waits for a process."""
    definition = account.define()
    account.run(definition, 1)
    start = time.monotonic()
    account.run(definition, 10)

    assert time.monotonic() - start < 0.25


def test_seed_repeats():
    """The same seed draws the same zones and the same boots."""
    drawn = []
    with Emulator("aws", engine="none", seed=7) as cloud, cloud.active():
        clients = Account.clients()
        for _ in range(2):
            cloud.reset(seed=7)
            account = Account(**clients).prepare()
            zones = [task["availabilityZone"] for task in account.order(account.define(), 10)["tasks"]]
            drawn.append(zones)
        cloud.reset(seed=8)
        account = Account(**clients).prepare()
        other = [task["availabilityZone"] for task in account.order(account.define(), 10)["tasks"]]

    assert drawn[0] == drawn[1] != other
