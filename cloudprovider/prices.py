"""What machines cost, by dated tables whose sources stand in them.

A region, architecture or part that a table does not have is counted at us-east-1's price, and the
`Rate` says so.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["dated", "fargate_rate"]

FALLBACK = "us-east-1"
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


def _price(region: str, *path: str) -> tuple[Any, bool]:
    """The figure of a region, and whether it is that region's own."""
    for place in dict.fromkeys((region, FALLBACK)):
        found: Any = table("fargate")["regions"].get(place, {})
        for key in path:
            found = found.get(key) if found else None
        if found is not None:
            return found, place == region
    raise ValueError(f"There is no Fargate price for {' '.join(path)}.")


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
    prices = table("fargate")
    compute, own = _price(region, architecture, market)
    parts = {"vCPU": vcpu * compute["vcpu"], "memory": memory_gib * compute["memory"]}
    foreign = [] if own else [f"{market} {architecture} tasks"]
    if (extra := storage_gib - prices["storage_included_gib"]) > 0:
        per_gib, own = _price(region, "storage")
        parts["storage"] = extra * per_gib
        foreign += [] if own else ["ephemeral storage"]
    if public:
        parts["public IPv4"] = prices["public_ipv4"]
    return Rate.of(
        parts,
        minimum_s=prices["minimum_s"],
        left_out=LEFT_OUT,
        notes=tuple(_notes(market, region, foreign)),
    )


def _notes(market: str, region: str, foreign: Iterable[str]) -> Iterator[str]:
    for what in foreign:
        yield f"The price table has nothing for {what} in {region}: {FALLBACK}'s prices are used."
    if market == "spot":
        yield f"Spot prices move: these are of {dated('fargate')}."
