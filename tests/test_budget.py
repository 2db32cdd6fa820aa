"""A budget ends the cluster in time, whoever looks or does not."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from cloudruntime.boot import Leases
from cloudruntime.exits import Exit
from cloudruntime.watchdog import Facts, SchedulerLife
from contract import until
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import ConfigError, ProcessCluster
from cloudprovider.bill import Bill, Rate
from cloudprovider.budget import END_S, Budget, amount_of
from cloudprovider.errors import CloudWarning
from cloudprovider.providers.local import LocalConfig, LocalProvider

HOUR = 3600


@pytest.fixture
def options(tmp_path):
    return {"progress": False, "directory": str(tmp_path), "price": 3.6}  # a tenth of a cent a second


@pytest.mark.parametrize("text", ["25 USD", "25USD", "$25", "25 $", "usd 25", "25.0", 25, 25.0])
def test_amounts(text):
    """An amount of dollars can be written as people do."""
    assert 25.0 == amount_of(text)


@pytest.mark.parametrize("text", ["25 EUR", "much", "", "-1 USD", "0 USD", "1e3", "1,000 USD"])
def test_no_amounts(text, tmp_path):
    """What is no amount of dollars, or nothing at all, is refused before any call."""
    with pytest.raises(ConfigError, match="is no amount of US dollars"):
        ProcessCluster(budget=text, directory=str(tmp_path))


@given(
    usd=st.floats(0.01, 1e6),
    spent=st.floats(0, 1e6),
    per_hour=st.floats(0.001, 1e5),
    before=st.floats(0, 1e3),
)
def test_what_is_left_is_never_more_than_the_budget(usd, spent, per_hour, before):
    """Machines that bill until the end of what is said to be left, and through their own end, stay within."""
    budget, bill = Budget(usd=usd, before=before), Bill(spent=spent, per_hour=per_hour)
    until_then = budget.spent(bill) + (budget.left_s(bill) + END_S) * per_hour / HOUR
    assert pytest.approx(usd, rel=1e-6, abs=1e-6) == until_then


def test_machines_without_a_price_cannot_have_a_budget():
    """Where a price is unknown, nothing is promised."""
    with pytest.raises(ConfigError, match="no price here for moonbeams"):
        Budget(usd=1).left_s(Bill(spent=0.0, per_hour=0.0, unknown=("moonbeams",)))


def test_supervisor_ends_what_is_paid_no_longer():
    """The scheduler's machine ends at the moment it was told last, silent or not, and not before."""
    life = SchedulerLife.begun(Leases(), now=0.0).heard(Facts(clients=1, working=True, budget_s=50.0), 10.0)
    assert life.due(59.0, 0.0) is None
    assert Exit.budget is life.due(60.0, 0.0)
    later = life.heard(Facts(clients=1, working=True, budget_s=100.0), 20.0)
    assert later.due(60.0, 0.0) is None


def test_boot_keeps_the_budget_until_a_manager_does():
    """What the Boot says of the budget holds until a manager has said better, and not after."""
    life = SchedulerLife.begun(Leases(budget=30.0), now=0.0)
    assert life.due(29.0, 0.0) is None
    assert Exit.budget is life.due(30.0, 0.0)
    unheard = life.heard(Facts(), 10.0)
    assert Exit.budget is unheard.due(30.0, 0.0)
    assert unheard.heard(Facts(budget_s=100.0), 20.0).due(119.0, 0.0) is None


def test_what_an_order_is_promised():
    """The first promise is what the budget surely pays from the end of the boot, and time enough to say better."""
    rates = [Rate(per_hour=3.6, minimum_s=60)] * 2  # two tenths of a cent a second
    assert pytest.approx((1.0 - 0.12) / 0.002 - END_S - 30) == Budget(usd=1).promise(rates, 30.0)
    assert END_S == Budget(usd=0.25).promise(rates, 30.0)
    with pytest.raises(ConfigError, match=r"billing minimums make \$0.1200 of the start"):
        Budget(usd=0.2).check_order(rates)


def test_start_that_the_budget_does_not_pay_for(options, tmp_path, caplog):
    """A budget that is spent already is an error before any order, that says what the start costs."""
    caplog.set_level(logging.DEBUG, "cloudprovider")
    with pytest.raises(
        ConfigError, match=r"budget=\$0.0100 is spent already: these machines cost \$7.20 an hour"
    ):
        ProcessCluster(n_workers=1, budget=0.01, **options)
    assert not [*tmp_path.iterdir()]
    assert any("Preparing" in message for message in caplog.messages)
    assert not any("Ordered" in message for message in caplog.messages)


def test_cluster_ends_in_time(options):
    """A cluster whose manager looks on ends when its budget is spent, and says so."""
    spare = 0.002 * END_S  # two machines' end
    with ProcessCluster(n_workers=1, budget=spare + 0.03, **options) as cluster:
        until(lambda: cluster._ended, 60, "the budget is spent")
        assert "the cluster's budget is spent" in str(cluster.why(cluster.scheduler_machine.id))
        assert cluster.cost().spent < spare + 0.03


HASTY = """
    import os, signal, sys
    from cloudprovider import ProcessCluster
    from cloudprovider.providers.local import LocalProvider

    class Killed(LocalProvider):
        def create(self, boot, count):
            made = super().create(boot, count)
            if boot.role == "worker":
                os.kill(os.getpid(), signal.SIGKILL)
            return made

    class KilledCluster(ProcessCluster):
        provider_class = Killed

    KilledCluster(name="hasty", n_workers=1, price=360.0, budget=13.0, progress=False, directory=sys.argv[1])
"""


@pytest.mark.slow
def test_cluster_ends_in_time_though_its_manager_never_saw_it(options):
    """With the manager killed before the scheduler answered, the budget ends every machine, and no other lease."""
    command = [sys.executable, "-c", textwrap.dedent(HASTY), options["directory"]]
    assert -signal.SIGKILL == subprocess.run(command, check=False, timeout=60).returncode
    config = LocalConfig.of(name="hasty", directory=options["directory"])
    provider = LocalProvider(config, config.identity())
    assert 2 == len(provider.list("hasty"))
    until(lambda: not provider.list("hasty"), 120, "every machine has ended")
    provider.sweep("hasty")


ABANDONED = """
    import os, signal, sys
    from cloudprovider import ProcessCluster

    cluster = ProcessCluster(
        name="spent", n_workers=1, price=3.6, budget=float(sys.argv[2]), progress=False, directory=sys.argv[1]
    )
    cluster.scale(3)
    cluster.wait_for_workers(3, timeout=60)
    while cluster._told != frozenset(cluster.fleet.machines):
        pass
    print("ready", flush=True)
    signal.pause()
"""


def test_cluster_ends_in_time_without_its_manager(options):
    """With the manager killed, the scheduler ends every machine before the budget is spent."""
    usd = 0.004 * (END_S + 15)
    command = [sys.executable, "-c", textwrap.dedent(ABANDONED), options["directory"], str(usd)]
    config = LocalConfig.of(name="spent", directory=options["directory"])
    provider = LocalProvider(config, config.identity())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as manager:
        try:
            assert "ready\n" == manager.stdout.readline()
            began = min(machine.created for machine in provider.list("spent"))
        finally:
            manager.kill()
    assert 4 == len(provider.list("spent"))
    until(lambda: not provider.list("spent"), 60, "every machine has ended")
    assert (time.time() - began) * 0.004 < usd
    provider.sweep("spent")


def test_budget_outlives_its_manager(options):
    """A second manager keeps the budget that the first began, with what was spent before it came."""
    first = ProcessCluster(name="kept", n_workers=2, budget="9 USD", **options)
    first.scale(0)
    time.sleep(2)
    spent = first.cost().spent
    first.detach()
    with ProcessCluster.from_name("kept", **options) as again:
        status = until(
            lambda: (now := again.sync(again.scheduler_comm.cloud_status))["lead"] and now, 10, "it leads"
        )
        assert 9.0 == status["budget"]["usd"]
        assert spent <= again._budget.spent(again.cost()) < spent + 0.1
        assert 0 < status["budget"]["left_s"] < 9 * 1000
    with ProcessCluster(name="more", budget="9 USD", shutdown_on_close=False, **options):
        pass
    with ProcessCluster.from_name("more", budget="20 USD", **options) as again:
        until(
            lambda: 20.0 == again.sync(again.scheduler_comm.cloud_status)["budget"]["usd"], 10, "it is more"
        )


def test_smaller_budget_that_is_spent_already_ends_the_cluster(options):
    """Whoever finds a cluster with a budget below what it has cost is told so, and the cluster ends at once."""
    with ProcessCluster(name="poor", budget="9 USD", shutdown_on_close=False, **options):
        pass
    with pytest.warns(CloudWarning, match=r"of its budget of \$0.0010, \$0.0\d+ are spent"):  # noqa: PT031  it is told a moment later
        again = ProcessCluster.from_name("poor", budget=0.001, **options)
        until(lambda: again._ended, 60, "the budget is spent")
    assert "the cluster's budget is spent" in str(again.why(again.scheduler_machine.id))
    again.close()
