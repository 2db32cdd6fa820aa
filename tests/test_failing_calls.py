"""Calls that fail anywhere in a cluster's life; which are drawn is said in `test_chaos`."""

from __future__ import annotations

import gc
import random

import pytest
from embedded import ACCOUNTS
from test_chaos import EVERY, FEW, SEED

from cloudprovider import CloudError

EMULATED = [name for name, account in ACCOUNTS.items() if account.emulator]
FAULTS = ("throttle", "error-after-effect", "lost-answer")


def failures(cloud: str) -> list[tuple[str, int]]:
    """Which calls fail, and how."""
    if EVERY:
        return [(fault, at) for fault in FAULTS for at in range(1, EVERY + 1)]
    chance = random.Random(f"{SEED} {cloud} calls")
    return [(fault, chance.randint(1, 3 * FEW)) for fault in FAULTS]


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # urllib3 leaves a broken one to gc
@pytest.mark.timeout(180 if not EVERY else 7200)
@pytest.mark.parametrize("account", EMULATED, indirect=True)
def test_calls_that_fail(account):
    """Whichever call fails, and however: the cluster lives, or its error is ours; and nothing is left."""
    for fault, at in failures(account.name):
        account.cloud.inject(fault, every=at, times=1)
        try:
            with account.start(name="failing", n_workers=1, **account.hasty) as cluster:
                cluster.wait_for_workers(1, timeout=60)
                cluster.scale(2)
        except CloudError:
            pass
        account.cloud.clear()
        account.provider("failing").sweep("failing")
        assert account.nothing_left(), (fault, at)
    gc.collect()
