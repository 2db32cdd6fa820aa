"""What every provider asks of its cloud, and makes of the answers, on embedded clouds without processes."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time

import pytest
from contract import until
from embedded import ACCOUNTS

from cloudprovider import CapacityError, CloudError, CredentialsError
from cloudprovider.security import make_secrets

EMULATED = [name for name, account in ACCOUNTS.items() if account.emulator]
SPOT = [name for name, account in ACCOUNTS.items() if account.spot]
ORDERS = [(name, order) for name, account in ACCOUNTS.items() for order in account.orders]


@pytest.fixture(params=EMULATED)
def account(request, bare_processes):
    """An account of each embedded cloud in turn, whose machines are states only."""
    account = ACCOUNTS[request.param]
    process = bare_processes(account.emulator)
    process.reset(profile="instant", time_scale=1.0, seed=0)
    with process.active():
        yield account(process)
        process.clear()


def prepare(provider):
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    return provider


def prepared(account, name="it", **options):
    return prepare(account.provider(name, **{"max_lifetime": "1h", **options}))


def workers(provider, count):
    boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://10.0.0.5:8786")
    return provider.create(boot, count)


def scheduler(provider):
    [machine] = provider.create(provider.boot("scheduler"), 1).machines
    return machine


# -- orders ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # urllib3 leaves a broken one to gc
@pytest.mark.parametrize("fault", ["error-after-effect", "lost-answer"])
@pytest.mark.parametrize(("account", "order"), ORDERS, indirect=["account"])
def test_nothing_is_made_twice(account, order, fault):
    """An order whose answer was lost after it took effect is asked again, and makes nothing twice."""
    provider = prepared(account)
    before = len(account.running())
    account.cloud.inject(fault, operation=order, times=1)
    scheduler(provider)

    assert 5 == len(workers(provider, 5).machines)
    assert 6 == len(account.running()) - before
    gc.collect()


@pytest.mark.parametrize("account", [name for name in EMULATED if name != "ecs"], indirect=True)
def test_throttling_on_every_third_call(account):
    """Throttled calls are made again, from the first to the last of a cluster's life."""
    account.cloud.inject("throttle", every=3)
    provider = prepared(account)
    assert 5 == len(workers(provider, 5).machines)
    assert () == provider.sweep("it").left
    account.cloud.clear()
    assert account.nothing_left()


def test_room_for_three_of_five(account):
    """The machines that came are kept, and the refusal says how many and why."""
    provider = prepared(account)
    account.room(3)
    created = workers(provider, 5)

    assert 3 == len(created.machines) == len({machine.id for machine in created.machines})
    assert isinstance(created.refusal, CapacityError)
    assert "3 of 5" in str(created.refusal)


@pytest.mark.parametrize("account", SPOT, indirect=True)
def test_spot_and_its_fallback(account):
    """What spot refuses comes on demand; the scheduler never is on spot."""
    provider = prepared(account, spot="fallback")
    account.cloud.inject("capacity", room=2, market="spot")
    created = workers(provider, 5)
    by_id = {machine.id: machine.market for machine in provider.describe([m.id for m in created.machines])}

    assert created.refusal is None
    assert ["on-demand"] * 3 + ["spot"] * 2 == sorted(by_id.values())
    assert by_id == {machine.id: machine.market for machine in created.machines}
    assert "on-demand" == scheduler(provider).market


@pytest.mark.parametrize("account", SPOT, indirect=True)
def test_spot_alone_is_refused_with_the_way_out(account):
    """Without the fallback the refusal is the user's to hear, with what to do next."""
    provider = prepared(account, spot=True)
    account.cloud.inject("capacity", room=0, market="spot")
    created = workers(provider, 5)

    assert () == created.machines
    assert "0 of 5" in str(created.refusal)
    assert "spot='fallback'" in str(created.refusal)


@pytest.mark.parametrize(("account", "order"), ORDERS, indirect=["account"])
def test_missing_permission_to_order(account, order):
    """An order that may not be made is a refusal that names the right, and where the rights are printed."""
    provider = prepared(account)
    with account.cloud.inject("denied", operation=order):
        refused = [provider.create(provider.boot("scheduler"), 1).refusal, workers(provider, 3).refusal]

    [refusal, *_] = [error for error in refused if error]
    assert isinstance(refusal, CredentialsError)
    assert "dask cloud policy" in str(refusal)
    assert () == provider.sweep("it").left


def test_expired_credentials(account):
    """Credentials that ended are an error that says so, before anything is made."""
    with (
        account.cloud.inject("expired-credentials"),
        pytest.raises(CredentialsError, match=r"(?i)expir(ed|y)"),
    ):
        prepared(account)
    assert account.nothing_left()


# -- other clusters ----------------------------------------------------------------------------------------


def test_attached_provider_orders_like_the_first(account):
    """Another process orders machines with the kind and tags of the first, told only the name."""
    first = prepared(account, tags={"team": "a"})
    here = scheduler(first)
    other = account.provider("it")
    other.attach()
    [machine] = workers(other, 1).machines
    [seen] = [found for found in account.cloud.machines() if found.id == machine.id]
    [same] = workers(first, 1).machines

    assert (same.kind, same.market) == (machine.kind, machine.market)
    assert ("a", "it", "worker") == tuple(seen.tags[key] for key in ("team", "dask-cluster", "dask-role"))
    assert first.identity == other.identity
    assert {here.id, machine.id, same.id} == {found.id for found in account.provider("x").list("it")}


def test_a_start_and_a_sweep_at_the_same_second(account):
    """Two first starts in one account at once both succeed, and a sweep of one spares the other."""
    together = threading.Barrier(2, timeout=60)
    failed = []

    def start(name):
        try:
            provider = account.provider(name, max_lifetime="1h")
            together.wait()
            prepare(provider)
            scheduler(provider)
            if name == "one":
                provider.sweep(name)
        except Exception as error:  # noqa: BLE001  (the thread's error is the test's)
            failed.append(error)

    threads = [threading.Thread(target=start, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed
    assert ["two"] == [machine.cluster for machine in account.provider("x").list()]
    assert account.provider("two").attach().client


def test_a_name_that_is_taken_is_not_cleaned_up_under(account):
    """Of two that start under one name the later gets an error, and its clean-up spares the earlier."""
    first = prepared(account)
    machine = scheduler(first)
    second = account.provider("it", max_lifetime="1h")
    second.identity = dataclasses.replace(second.identity, owner="other")
    with pytest.raises(CloudError, match="'it'"):
        prepare(second)
    second.sweep("it")

    assert [machine.id] == [found.id for found in account.provider("x").list("it")]
    assert account.provider("it").attach().client


def test_name_of_a_cluster_that_died_is_free_again(account):
    """What a killed client left behind under a name does not stop the next start, once it is old."""
    dead = account.provider("again", max_lifetime="2h")
    dead.identity = dataclasses.replace(dead.identity, created=dead.identity.created - 3600)
    prepare(dead)

    assert scheduler(prepared(account, "again")).id


# -- ends --------------------------------------------------------------------------------------------------


def test_sweep_leaves_nothing_but_the_landing(account):
    """One sweep from anywhere removes machines and all else that the cluster owned, and says so."""
    provider = prepared(account)
    ids = {scheduler(provider).id, *(machine.id for machine in workers(provider, 3).machines)}
    swept = account.provider("other").sweep("it")

    assert ids == set(swept.machines)
    assert swept.resources
    assert () == swept.left
    assert account.nothing_left()


def test_sweep_of_similar_names(account):
    """Clusters whose names begin alike do not touch each other."""
    for name in ("a", "a-w", "a-worker", "a-scheduler"):
        prepared(account, name)
    account.provider("x").sweep("a")

    for name in ("a-w", "a-worker", "a-scheduler"):
        assert account.provider(name).attach().client
    with pytest.raises(CloudError, match="There: a-scheduler, a-w, a-worker"):
        account.provider("a").attach()


def test_what_expired_is_swept_and_the_living_are_spared(account):
    """What still has a machine is not touched, however old, and neither is what has not expired."""
    old = prepared(account, "old", max_lifetime="8s")  # its secrets expire with it: it must start before
    scheduler(old)
    dead = prepared(account, "dead", max_lifetime="1s")
    prepared(account, "young")
    over = max(old.identity.expires, dead.identity.expires)
    until(lambda: time.time() > over + 2, 60, "they expired")

    assert ("dead",) == tuple(account.provider("x").expired())
    assert ("dead",) == tuple(account.provider("x").sweep_expired())
    assert 1 == len(account.provider("x").list("old"))
    assert account.provider("young").attach().client
