"""What machines cost, by dated tables whose sources stand in them.

What a table does not have for a region is unknown: the `Rate` names it and counts nothing for it.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import Rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["dated", "ec2_price", "ec2_prices", "ec2_rate", "fargate_price", "fargate_rate"]

ARCHITECTURES = ("X86_64", "ARM64")
MARKETS = ("on-demand", "spot")
LEFT_OUT = (
    "NAT gateways and endpoints",
    "log ingestion and storage",
    "secret storage",
    "image storage",
    "traffic",
    "taxes",
)
#: A volume bills by the part of a month for which it is there: https://aws.amazon.com/ebs/pricing/
MONTH_HOURS = 730


@functools.cache
def table(name: str) -> dict[str, Any]:
    """A price table, read once."""
    text = resources.files("cloudprovider").joinpath("price_tables", f"{name}.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def dated(name: str) -> str:
    """The day on which a table's prices were read."""
    return str(table(name)["date"])


def fargate_price(region: str, *path: str) -> Any:
    """The figure of a region at this place of the table; None when it has none."""
    found: Any = table("fargate")["regions"].get(region)
    for key in path:
        found = found.get(key) if found else None
    return found


def fargate_rate(
    region: str,
    architecture: str,
    market: str,
    vcpu: float,
    memory_gib: float,
    storage_gib: float = 20,
    *,
    public: bool,
) -> Rate:
    """What one Fargate task costs.

    Parameters
    ----------
    region
        Such as `eu-central-1`.
    architecture
        `X86_64` or `ARM64`.
    market
        `on-demand` or `spot`.
    vcpu, memory_gib, storage_gib
        What the task asks for; 20 GiB of ephemeral storage are included.
    public
        Whether it has a public IPv4 address.

    Raises
    ------
    ValueError
        For an architecture or a market that Fargate does not have.

    Examples
    --------
    >>> rate = fargate_rate("us-east-1", "X86_64", "on-demand", 4, 8, public=False)
    >>> round(rate.per_hour, 5)
    0.19748
    """
    if architecture not in ARCHITECTURES or market not in MARKETS:
        raise ValueError(f"There is no Fargate price for {market} {architecture} tasks anywhere.")
    prices, unknown = table("fargate"), []
    parts: dict[str, float] = {}
    if compute := fargate_price(region, architecture, market):
        parts |= {"vCPU": vcpu * compute["vcpu"], "memory": memory_gib * compute["memory"]}
    else:
        unknown.append(f"{market} {architecture} tasks in {region}")
    moving = compute is not None and market == "spot"
    if (extra := storage_gib - prices["storage_included_gib"]) > 0:
        if per_gib := fargate_price(region, "storage"):
            parts["storage"] = extra * per_gib
        else:
            unknown.append(f"ephemeral storage beyond {prices['storage_included_gib']} GiB in {region}")
    if public:
        parts["public IPv4"] = prices["public_ipv4"]
    return Rate.of(
        parts,
        minimum_s=prices["minimum_s"],
        left_out=LEFT_OUT,
        notes=tuple([f"Spot prices move: these are of {dated('fargate')}."] if moving else []),
        unknown=tuple(unknown),
    )


def ec2_prices(region: str) -> Mapping[str, float]:
    """Dollars an hour of each type that is known in a region, on demand; empty when none is."""
    families = table("ec2")["regions"].get(region, {}).get("on-demand", {})
    return {f"{family}.{size}": price for family, sizes in families.items() for size, price in sizes.items()}


def ec2_price(region: str, instance_type: str) -> float | None:
    """Dollars an hour of one type in a region, on demand; None when the table does not have it."""
    family, _, size = instance_type.partition(".")
    found = table("ec2")["regions"].get(region, {}).get("on-demand", {}).get(family, {}).get(size)
    return None if found is None else float(found)


def ec2_rate(
    region: str,
    instance_type: str,
    market: str,
    *,
    disk_gib: float,
    public: bool,
    spot_price: float | None = None,
) -> Rate:
    """What one EC2 machine with Linux costs.

    Parameters
    ----------
    region
        Such as `eu-central-1`.
    instance_type
        Such as `m7i.xlarge`.
    market
        `on-demand` or `spot`.
    disk_gib
        The size of its gp3 volume.
    public
        Whether it has a public IPv4 address.
    spot_price
        What an hour costs on the spot market, as EC2 said when the machine was ordered; there is no table
        of these. Default: unknown.

    Raises
    ------
    ValueError
        For a market that EC2 does not have.

    Examples
    --------
    >>> rate = ec2_rate("us-east-1", "m7i.xlarge", "on-demand", disk_gib=30, public=True)
    >>> round(rate.per_hour, 4)
    0.2099
    """
    if market not in MARKETS:
        raise ValueError(f"EC2 has no market {market!r}.")
    prices, parts, unknown = table("ec2"), {}, []
    price = spot_price if market == "spot" else ec2_price(region, instance_type)
    if price is None:
        unknown.append(f"{market} {instance_type} machines in {region}")
    else:
        parts["machine"] = price
    if per_month := prices["regions"].get(region, {}).get("gp3"):
        parts["disk"] = disk_gib * per_month / MONTH_HOURS
    elif disk_gib:
        unknown.append(f"disks in {region}")
    if public:
        parts["public IPv4"] = prices["public_ipv4"]
    return Rate.of(
        parts,
        minimum_s=prices["minimum_s"],
        left_out=LEFT_OUT,
        notes=tuple(_ec2_notes(instance_type, market if "machine" in parts else "")),
        unknown=tuple(unknown),
    )


def _ec2_notes(instance_type: str, market: str) -> Iterator[str]:
    if market == "spot":
        yield "Spot prices move: these are of the order."
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances-unlimited-mode-concepts.html
    if instance_type.startswith(("t3", "t4g")):
        yield f"{instance_type} bills more than this when its processors are busy for long."
