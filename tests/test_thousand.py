"""A thousand machines in a handful of calls, within the published rates."""

from __future__ import annotations

import dataclasses
import time

import pytest

from cloudprovider.emulator import Emulator
from cloudprovider.events import Events
from cloudprovider.fleet import Fleet
from cloudprovider.providers.ecs import ECSProvider, FargateConfig
from cloudprovider.security import make_secrets

#: The emulated cloud runs three times faster than AWS: so must the launch rate that is kept to.
TIME_SCALE = 0.33


@pytest.fixture
def cloud():
    with Emulator("aws", profile="fargate", time_scale=TIME_SCALE, engine="none") as cloud, cloud.active():
        yield cloud


def test_thousand_machines_within_the_published_rates(cloud):
    """1,000 machines take 100 RunTask and at most 40 other calls until all have arrived, none throttled."""
    config = FargateConfig.of(
        name="thousand", allow_from="127.0.0.1/32", launch_burst=100, launch_rate=20 / TIME_SCALE
    )
    provider = ECSProvider(config, config.identity())
    provider.prepare(
        [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")],
        make_secrets(provider.identity),
    )
    [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
    pause = 0.2
    while not scheduler.public_address:
        time.sleep(pause)
        pause *= 1.3  # as a cluster looks for it
        [scheduler] = provider.describe([scheduler.id])
    boot = dataclasses.replace(provider.boot("worker"), scheduler=f"tls://{scheduler.private_address}:8786")
    fleet = Fleet(provider, lambda: boot, Events())
    fleet.ask(1000)
    deadline = time.monotonic() + 90
    arrived: set[str] = set()
    while len(arrived) < 1000:
        assert time.monotonic() < deadline, f"{len(arrived)} of 1000 arrived"
        assert None is fleet.reconcile(arrived)
        time.sleep(0.3)
        arrived = {m.id for m in cloud.machines() if m.state == "RUNNING" and m.id != scheduler.id}

    calls = cloud.calls
    orders = [call for call in calls if call.operation == "RunTask"]
    assert 101 == len(orders)
    assert len(calls) - len(orders) <= 40
    assert [] == [call for call in calls if "Throttl" in call.error]
