"""What the account may run is told before the order that is more, and asked where nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings

import pytest
from contract import until

from cloudprovider import CloudError, CloudWarning, ConfigError, CredentialsError, ProcessCluster, QuotaError
from cloudprovider.adapt import CloudAdaptive
from cloudprovider.events import Phase
from cloudprovider.provider import Quota
from cloudprovider.providers.local import LocalProvider
from cloudprovider.quotas import PATIENCE_S, Limits, too_many

ADVICE = "Ask the owner of this computer for more."


def quota(limit, *, each=2.0, **facts):
    return Quota(name="Cores", limit=limit, unit="cores", each=each, advice=ADVICE, **facts)


class LimitedProvider(LocalProvider):
    """Processes of a computer whose owner lets nobody have more than `limit` cores; a machine takes two."""

    limit = 5.0

    def __init__(self, config, identity):
        super().__init__(config, identity)
        self.asked = 0

    def quotas(self, role="worker"):
        self.asked += 1
        return (quota(self.limit, taken=1.0),)


class LimitedCluster(ProcessCluster):
    """Has room for two machines beside its scheduler."""

    config_class = ProcessCluster.config_class
    provider_class = LimitedProvider


class NoRoomProvider(LimitedProvider):
    limit = 2.0


class NoRoomCluster(ProcessCluster):
    """Has room for its scheduler only."""

    config_class = ProcessCluster.config_class
    provider_class = NoRoomProvider


@pytest.fixture
def options(tmp_path):
    return {"directory": str(tmp_path), "progress": False}


@pytest.fixture
def cluster(options):
    with LimitedCluster(**options) as cluster:
        yield cluster


def test_machines_of_a_quota():
    """What the scheduler takes is not there for workers, and a part of a machine is none."""
    assert [0, 0, 1, 2, 2] == [quota(limit, taken=1).machines for limit in (0, 2, 3, 5, 6.9)]
    assert 500 == quota(1000).machines


def test_what_is_too_many_names_the_quota_and_the_way_out():
    """The sentence has the number, the quota, its value, what a machine takes, and how to raise it."""
    said = too_many((quota(5, taken=1),), 3)
    for part in ("3 machines", "Cores of 5 cores", "takes 2", "the scheduler 1", "room for 2", ADVICE):
        assert part in said


def test_markets_add_up():
    """What one market has no room for may come from the other; both are named, their advice once."""
    both = (quota(4), quota(6))
    assert "" == too_many(both, 5)
    assert "room for 5" in too_many(both, 6)
    assert 1 == too_many(both, 6).count(ADVICE)


def test_nobody_knows():
    """Where no quota is known nothing is too many."""
    assert "" == too_many((), 10**9)


def test_asked_once_and_remembered():
    """However often it is wanted, the cloud is asked once."""
    asked = []
    limits = Limits(lambda: asked.append(1) or (quota(5),))
    limits.begin()
    assert [5.0, 5.0] == [limits.known()[0].limit, limits.known()[0].limit]
    assert [1] == asked


def test_a_permission_that_is_missing_is_silent(caplog):
    """Whoever may not ask is told by the log of information only, and everything goes on."""

    def ask():
        raise CredentialsError("You may not call servicequotas:GetServiceQuota.")

    with caplog.at_level(logging.INFO, logger="cloudprovider"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert () == Limits(ask).known()
    assert [logging.INFO] == [record.levelno for record in caplog.records]
    assert "GetServiceQuota" in caplog.text


def test_an_answer_that_does_not_come_is_not_waited_for():
    """An order waits two seconds for the quota and no more; the answer still counts for the next."""
    answer = threading.Event()

    def ask():
        assert answer.wait(60)
        return (quota(5),)

    limits = Limits(ask)
    began = time.monotonic()
    assert () == limits.known()
    assert PATIENCE_S <= time.monotonic() - began < 30
    answer.set()
    until(limits.known, 30, "the answer counts")


def test_a_start_above_the_quota_is_told_before(options):
    """More workers than the quota has room for: a warning before the first machine, and those that fit."""
    with pytest.warns(CloudWarning, match="3 machines are more than"):
        cluster = LimitedCluster(n_workers=3, **options)
    with cluster:
        phases = [event.phase for event in cluster.events]
        assert phases.index(Phase.quota) < phases.index(Phase.ordered)
        assert (1, 2) == (cluster.provider.asked, cluster.fleet.target)


def test_a_start_without_room_for_one(options, tmp_path):
    """When not one worker would fit, the start is refused before any machine, and leaves nothing."""
    with pytest.raises(QuotaError, match="room for 0") as caught:
        NoRoomCluster(n_workers=1, **options)
    assert ADVICE in str(caught.value)
    assert [] == list(tmp_path.iterdir())


def test_nobody_asks_for_no_workers(cluster):
    """A cluster without workers asks nothing at its start."""
    assert 0 == cluster.provider.asked


def test_scaling_above_the_quota_is_told_before(cluster):
    """The warning comes before the order, which is cut; what fits is neither asked again nor told."""
    with pytest.warns(CloudWarning, match="room for 2"):
        cluster.scale(3)
    phases = [event.phase for event in cluster.events]
    workers_ordered = len(phases) - phases[::-1].index(Phase.ordered) - 1
    assert phases.index(Phase.quota) < workers_ordered
    assert 2 == cluster.fleet.target == len(cluster.fleet.machines)
    cluster.scale(1)
    cluster.scale(2)
    assert 1 == cluster.provider.asked


def test_scaling_without_room_for_one(options):
    """When not one worker would fit, `scale` raises, and nothing was ordered or is wanted."""
    with NoRoomCluster(**options) as cluster:
        with pytest.raises(QuotaError, match="room for 0"):
            cluster.scale(1)
        assert (0, 0) == (cluster.fleet.target, len(cluster.fleet.machines))


def test_adapting_above_the_quota_is_told_at_once(cluster):
    """A maximum above the quota is a warning of the call itself, once, although nothing is ordered."""
    with pytest.warns(CloudWarning, match="50 machines are more than") as caught:
        cluster.adapt(maximum=50, interval="50 ms")
    assert 1 == len(caught)
    assert 0 == len(cluster.fleet.machines)
    cluster.adapt(maximum=2)
    assert 1 == cluster.provider.asked


def test_adapting_keeps_to_the_quota(cluster):
    """A minimum above the quota is kept as far as the quota has room, and no machine more is ever asked for."""
    with pytest.warns(CloudWarning, match="room for 2"):
        cluster.adapt(minimum=5, maximum=50, interval="50 ms")
    until(lambda: len(cluster.fleet.machines) == 2, 30, "two machines")
    cluster.wait_for_workers(2, timeout=60)
    assert 2 == cluster.fleet.target
    assert (2, 2) == (cluster._adaptive.rules.minimum, cluster._adaptive.rules.maximum)


def test_adapting_without_room_for_one(options):
    """When not one worker would fit, `adapt` raises and does not adapt."""
    with NoRoomCluster(**options) as cluster:
        with pytest.raises(QuotaError, match="room for 0"):
            cluster.adapt(minimum=1, maximum=3, interval="50 ms")
        assert "stopped" == cluster._adaptive.state
        assert 0 == len(cluster.fleet.machines)
        assert 0 == len([event for event in cluster.events if event.facts.get("role") == "worker"])


def test_a_wrong_maximum_is_refused_before_it_is_compared(cluster):
    """A minimum above the maximum is a ConfigError, and nobody asks for a quota."""
    with pytest.raises(ConfigError, match="above the maximum"):
        cluster.adapt(minimum=60, maximum=50)
    assert 0 == cluster.provider.asked


def test_adapting_without_end(cluster):
    """No maximum is no wish that could be too much: nobody asks."""
    cluster.adapt()
    time.sleep(0.2)
    assert 0 == cluster.provider.asked


def test_used_with_await(options):
    """Where `adapt` cannot wait, the first turn tells before it orders."""

    async def adapted():
        async with LimitedCluster(asynchronous=True, **options) as cluster:
            adaptive = cluster.adapt(minimum=1, maximum=50, interval="50 ms")
            assert isinstance(adaptive, CloudAdaptive)
            loop, heard = asyncio.get_running_loop(), asyncio.Event()
            cluster.events.listen(lambda _: loop.call_soon_threadsafe(heard.set))
            while not (told := cluster.events.of(Phase.quota)):
                await asyncio.wait_for(heard.wait(), 30)
                heard.clear()
            ordered = [e for e in cluster.events.of(Phase.ordered) if e.facts.get("role") == "worker"]
            assert all(told[0].time <= event.time for event in ordered)
            return told

    with pytest.warns(CloudWarning, match="room for 2"):
        [told] = asyncio.run(adapted())
    assert "50 machines" in told.message


def test_providers_without_limits(options):
    """Processes of this computer have no quota: nothing is told."""
    with ProcessCluster(**options) as cluster:
        assert () == cluster.provider.quotas()
        assert issubclass(QuotaError, CloudError)
        cluster.adapt(maximum=10_000)
        assert [] == cluster.events.of(Phase.quota)
