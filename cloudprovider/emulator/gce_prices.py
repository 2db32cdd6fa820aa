"""What machines, disks and addresses of Compute Engine cost an hour; NaN where the price list has no price."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudprovider.emulator.gce_links import region_of
from cloudprovider.prices import gce_rate

if TYPE_CHECKING:
    from cloudprovider.emulator.gce_orders import Order


def machine_price(order: Order, zone: str) -> float:
    """US dollars an hour of a machine, with the accelerators that are attached to it."""
    cards = order.gpus if order.attached else {}
    rate = gce_rate(region_of(zone), order.type, order.market, disk_gib=0, gpus=cards, public=False)
    wanted = ["machine", *(f"{name} GPUs" for name in cards)]
    return sum(rate.parts.get(name, math.nan) for name in wanted)


def disk_price(zone: str, kind: str, size: int) -> float:
    """US dollars an hour of a disk."""
    rate = gce_rate(region_of(zone), "", "on-demand", disk_gib=size, disk_type=kind, public=False)
    return rate.parts.get("disk", math.nan)


def address_price(zone: str, market: str) -> float:
    """US dollars an hour of a machine's public address."""
    rate = gce_rate(region_of(zone), "", market, disk_gib=0, public=True)
    return rate.parts.get("public IPv4", math.nan)
