"""What machines cost, by dated tables whose sources stand in them.

What a table does not have for a region is unknown: the `Rate` names it and counts nothing for it.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from cloudprovider.bill import Rate

__all__ = ["dated", "fargate_price", "fargate_rate"]

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
