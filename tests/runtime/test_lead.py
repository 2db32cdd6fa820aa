"""Which manager of a cluster decides, as its scheduler sees it."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from cloudruntime.boot import Boot
from cloudruntime.child import Site
from cloudruntime.identity import Identity
from cloudruntime.scheduler import LEAD_S, Leases
from distributed import Scheduler
from distributed.comm import connect


class Line:
    """A manager's connection."""

    def __init__(self):
        self.cut = False

    def closed(self):
        return self.cut


def leases(scenario):
    """Run a scenario with the leases of a scheduler."""

    async def play():
        boot, identity = Boot(cluster="c", role="scheduler"), Identity(id="m", address="127.0.0.1")
        leases = Leases(Site(boot=boot, identity=identity, keys=None, port=0, front_port=0))
        options = {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "dashboard_address": ":0",
            "plugins": [leases],
        }
        async with Scheduler(**options) as scheduler:
            return await scenario(leases, scheduler)

    return asyncio.run(play())


def test_who_stands_by_leads_while_nobody_else_does():
    """It renews no lease, waits for who made the cluster, takes a lead that is over, and yields at once."""

    async def scenario(leases, _):
        one, two = Line(), Line()
        assert (await leases.cloud_renew(two, manager="standby", standby=True))["lead"] is None
        assert leases.renewed is None
        assert "one" == (await leases.cloud_renew(one, manager="one"))["lead"]["manager"]
        renewed = leases.renewed
        assert "one" == (await leases.cloud_renew(two, manager="standby", standby=True))["lead"]["manager"]

        one.cut = True
        lead = (await leases.cloud_renew(two, manager="standby", standby=True))["lead"]
        assert ("standby", 2) == (lead["manager"], lead["term"])
        assert renewed == leases.renewed
        lead = (await leases.cloud_renew(Line(), manager="one"))["lead"]
        assert ("one", 3) == (lead["manager"], lead["term"])

    leases(scenario)


def test_who_stands_by_waits_no_longer_than_a_lead_lasts():
    """A manager that was killed before it was heard leaves its cluster to the one that stands by."""

    async def scenario(leases, _):
        leases.started = time.time() - LEAD_S - 1
        assert (
            "standby"
            == (await leases.cloud_renew(Line(), manager="standby", standby=True))["lead"]["manager"]
        )

    leases(scenario)


def test_a_lead_that_is_not_heard_of_is_over():
    """Whose computer sleeps, with its connection still there, leads no more after a minute."""

    async def scenario(leases, _):
        await leases.cloud_renew(Line(), manager="one")
        leases.lead = dataclasses.replace(leases.lead, said=leases.lead.said - LEAD_S - 1)
        assert (
            "standby"
            == (await leases.cloud_renew(Line(), manager="standby", standby=True))["lead"]["manager"]
        )

    leases(scenario)


def test_whoever_takes_the_lead_hears_what_was_wished():
    """A wish and a budget count from who leads already; who takes the lead is told them."""

    async def scenario(leases, _):
        first, second = {"target": 3}, {"target": 8}
        paid = {"usd": 5.0, "spent": 1.0, "per_s": 0.0, "left_s": 1e6}
        one = Line()
        await leases.cloud_renew(one, manager="one", wish=first, budget=paid)
        one.cut = True
        new = {**paid, "spent": 0.0}
        status = await leases.cloud_renew(Line(), manager="two", wish=second, budget=new)
        assert (first, 1.0) == (status["wish"], status["budget"]["spent"])
        status = await leases.cloud_renew(Line(), manager="two", wish=second, budget=new)
        assert (second, 0.0) == (status["wish"], status["budget"]["spent"])

    leases(scenario)


def test_every_manager_hears_of_workers_and_of_the_lead():
    """Of two that look, both hear who leads; distributed would tell only the one that looked last."""

    async def scenario(leases, scheduler):
        lines = []
        for _ in range(2):
            lines.append(comm := await connect(scheduler.address))
            await comm.write({"op": "subscribe_worker_status"})
            await comm.read()
        await leases.cloud_renew(Line(), manager="one")
        for comm in lines:
            [[op, said]] = await asyncio.wait_for(comm.read(), 20)
            assert ("add", "one") == (op, said["lead"]["manager"])
            await comm.close()

    leases(scenario)
