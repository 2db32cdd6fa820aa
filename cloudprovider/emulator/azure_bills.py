"""What machines, disks and addresses cost an hour, by the cloud's price list; NaN where it has no price."""

from __future__ import annotations

import math

from cloudprovider import prices

__all__ = ["ADDRESS", "address_price", "disk_price", "machine_price", "minimum_s"]

ADDRESS = "public IPv4"


def machine_price(location: str, size: str, market: str) -> float:
    """US dollars an hour of a machine."""
    price = prices.azure_price(location, size, market)
    return math.nan if price is None else price


def disk_price(location: str, kind: str, size_gib: int) -> float:
    """US dollars an hour of a managed disk."""
    rate = prices.azure_rate(location, "", "on-demand", disk_gib=size_gib, disk_type=kind, public=False)
    return rate.parts.get("disk", math.nan)


def minimum_s() -> float:
    """What bills at the least of everything."""
    return float(prices.table("azure")["minimum_s"])


def address_price() -> float:
    """US dollars an hour of a public address."""
    return float(prices.table("azure")["public_ipv4"])
