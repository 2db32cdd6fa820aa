"""What EC2 instances and their volumes cost an hour, by the cloud's price list; NaN where it has no price."""

from __future__ import annotations

import math
import zlib

from cloudprovider.prices import ec2_price, ec2_rate

#: What a spot instance costs as a share of an on-demand one: "up to a 90% discount" is all that is published at
#: https://aws.amazon.com/ec2/spot/; the share itself, and how zones differ, are our own choice.
SPOT_SHARE = 0.35
SPOT_SPREAD = 0.1


def type_price(region: str, kind: str) -> float:
    """US dollars an hour of an instance on demand."""
    price = ec2_price(region, kind)
    return math.nan if price is None else price


def spot_price(region: str, kind: str, zone: str) -> float:
    """US dollars an hour of a spot instance in a zone; always the same in this cloud."""
    part = zlib.crc32(f"{zone}/{kind}".encode()) / 0xFFFFFFFF
    return round(type_price(region, kind) * (SPOT_SHARE + SPOT_SPREAD * (part - 0.5)), 4)


def instance_price(region: str, kind: str, zone: str, market: str) -> float:
    """US dollars an hour of an instance."""
    return spot_price(region, kind, zone) if market == "spot" else type_price(region, kind)


def volume_price(region: str, kind: str, size_gib: int) -> float:
    """US dollars an hour of a volume; only those of type gp3 have a price."""
    if kind != "gp3":
        return math.nan
    rate = ec2_rate(region, "", "on-demand", disk_gib=size_gib, public=False)
    return rate.parts.get("disk", math.nan)
