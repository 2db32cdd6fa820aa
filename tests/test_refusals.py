"""What every cloud may refuse: an error that says why and what to do, what came is kept, and nothing is left."""

from __future__ import annotations

import pytest
from contract import until
from distributed import Client
from embedded import ACCOUNTS

from cloudprovider import BootError, CapacityError, CloudWarning, ConfigError

EMULATED = [name for name, account in ACCOUNTS.items() if account.emulator]
REFUSALS = [
    pytest.param(name, *refusal, id=f"{name}-{refusal[0]}-{'-'.join(map(str, refusal[1].values()))}")
    for name, account in ACCOUNTS.items()
    for refusal in account.refusals
]


@pytest.mark.parametrize(("account", "fault", "figures", "kind", "said"), REFUSALS, indirect=["account"])
def test_a_start_that_is_refused_leaves_nothing(account, fault, figures, kind, said):
    """A start that the cloud refuses is an error that says why and what to do, and leaves nothing."""
    account.cloud.inject(fault, **figures)
    with pytest.raises(kind, match=said):
        account.start(n_workers=1)
    account.cloud.clear()
    assert account.nothing_left()


def test_no_room_at_all(account):
    """A start that gets no worker is an error, and its scheduler goes too."""
    options = account.room(1)
    with pytest.raises(CapacityError, match="0 of 5"):
        account.start(n_workers=5, **options)
    assert account.nothing_left()


def test_room_for_some(account):
    """What came is kept and used; `scale` raises in its caller what is refused, and the next call tries again."""
    options = account.room(3)
    with pytest.warns(CloudWarning, match="2 of 4"):
        cluster = account.start(n_workers=4, **options)
    with cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert [0, 1, 2] == client.gather(client.map(lambda x: x, range(3)))
        with pytest.raises(CapacityError, match="0 of 2"):
            cluster.scale(4)
        assert 2 == len(cluster.workers)
        account.room_again(cluster)
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
    assert account.nothing_left()


def test_a_scheduler_that_dies_while_starting(account):
    """A scheduler that ends before it answers is an error with its last log lines, and leaves nothing."""
    with pytest.raises(BootError, match="no_such_option") as caught:
        account.start(n_workers=1, scheduler_options={"no_such_option": 1})
    assert "no_such_option" in caught.value.logs
    assert account.nothing_left()


@pytest.mark.parametrize("account", EMULATED, indirect=True)
@pytest.mark.parametrize(
    ("options", "said"),
    [({"image": "ghcr.io/dask/dask:no-such-tag"}, "no-such-tag"), ({"n_worker": 1}, "n_workers")],
)
def test_what_cannot_work_is_refused_before_any_machine(account, options, said):
    """An image that does not exist, or a misspelt option, is an error before any order."""
    with pytest.raises(ConfigError, match=said):
        account.start(**options)
    assert 0 == account.ordered()
    assert account.nothing_left()


@pytest.mark.parametrize("account", EMULATED, indirect=True)
def test_closed_with_expired_credentials(account):
    """Machines end all the same, asked over TLS; what is left bills nothing, and `dask cloud sweep` removes it."""
    cluster = account.start(n_workers=2)
    cluster.wait_for_workers(2, timeout=60)
    with account.cloud.inject("expired-credentials"):
        cluster.close()
    until(lambda: not account.running(), 90, "no machine bills")
    assert account.leftovers()
    assert any("dask cloud sweep" in event.message for event in cluster.events)
    account.provider(cluster.name).sweep(cluster.name)
    assert account.nothing_left()
