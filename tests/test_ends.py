"""How a cluster ends on every cloud when nobody closes it: by the command line, with its script, by the next start."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
import time

from contract import until
from embedded import dask_cloud

from cloudprovider.security import make_secrets


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


def test_what_has_expired_is_said_by_the_clouds_clock(account):
    """Whose clock is ahead sweeps nobody's cluster before its time: it may be one that is just being made."""
    dead = account.provider("dead")
    dead.identity = dataclasses.replace(dead.identity, expires=int(time.time()) - 60)
    boots = [dead.config.boot_for(role, dead.identity) for role in ("scheduler", "worker")]
    if account.cloud:
        account.cloud.inject("clock-skew", seconds=-200)
    dead.prepare(boots, make_secrets(dead.identity))
    swept = account.provider("next").sweep_expired()
    assert (() if account.cloud else ("dead",)) == swept  # this computer has one clock
    if account.cloud:
        account.cloud.clear()
        assert ("dead",) == account.provider("next").sweep_expired()
    assert account.nothing_left()
