"""Our bill and the ledger of every embedded cloud of virtual machines agree: to the second, and to the cent."""

from __future__ import annotations

import importlib
import math
import time

import pytest
from contract import until

from cloudprovider import discovery
from cloudprovider.bill import billed_seconds
from cloudprovider.budget import END_S, Budget
from cloudprovider.emulator import Emulator
from cloudprovider.estate import Estate
from cloudprovider.events import Events
from cloudprovider.prices import table

#: By cloud: the emulator's profile, and the smallest cluster.
CLOUDS = {
    "ec2": ("aws", {"instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}),
    "gcp": ("gcp", {"instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}),
    "azure": ("azure", {"instance_type": "Standard_D2s_v5", "scheduler_instance_type": "Standard_D2s_v5"}),
}


def an_estate(name, **options):
    """A cluster's machines, with nobody who uses them."""
    row = discovery.CLOUDS[name]
    module = importlib.import_module(row.module)
    config = getattr(module, row.config).of(name="books", allow_from="127.0.0.1/32", **options)
    estate = Estate(config, getattr(module, row.provider), Events(), name)
    estate.make()
    until(lambda: estate.look_at_scheduler().private_address, 60, "the scheduler has an address")
    return estate


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "ec2" else pytest.mark.slow) for name in CLOUDS]
)
def test_a_receipt_is_the_ledgers(name):
    """After orders, a kill, a return and a close, a receipt is what the cloud's own books say.

    These clouds do not say when a machine that they deleted has ended: it is the moment in which it was seen gone,
    which is never too early, and as late as the close took.
    """
    emulator, options = CLOUDS[name]
    with Emulator(emulator, profile=name, time_scale=0.01, engine="none") as cloud, cloud.active():
        estate = an_estate(name, n_workers=3, budget="5 USD", **options)
        estate.reconcile([])
        until(lambda: all(m.billed_from for m in described(estate)), 60, "every machine bills")
        committed = estate.committed()
        first, second, _ = sorted(estate.machines)
        estate.fleet.ask(1)
        began = time.monotonic()
        cloud.kill(first)
        estate.fleet.release([second])
        estate.remove()
        late_s = time.monotonic() - began
        bill, seen = estate.cost(), list(estate._meter._seen.values())
        books = cloud.ledger

    minimum_s = table(name)["minimum_s"]
    said = {entry.machine: entry for entry in books if entry.kind in {machine.kind for machine, _ in seen}}
    assert said.keys() == {machine.id for machine, _ in seen}
    for machine, rate in seen:
        entry, seconds = said[machine.id], billed_seconds(estate._meter._ended(machine), rate, bill.until)
        booked = max(minimum_s, math.ceil(round(entry.seconds, 3)))
        assert booked <= seconds <= max(minimum_s, booked + late_s + 1)
        assert pytest.approx(entry.price) == rate.parts["machine"] / 3600 * booked
    assert pytest.approx(Budget(usd=5).left_s(committed), rel=0.01) == (5 / committed.per_hour) * 3600 - END_S


def described(estate):
    """Every machine, as the cloud says now."""
    return estate.provider.describe([machine.id for machine in estate._ever()])
