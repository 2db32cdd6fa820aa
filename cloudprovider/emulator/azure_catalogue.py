"""What the embedded Azure offers: locations, their zones, and VM sizes with what they can do, in Azure's own words.

`azure_sizes.json` has what Azure's sizes were on the day of the price table, which says where each is sold;
`benchmarks/azure_price_table.py` makes both anew.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from cloudprovider import prices


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("cloudprovider.emulator").joinpath("azure_sizes.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def locations() -> dict[str, list[str]]:
    """The availability zones of each location, by its name; none where it has no zones."""
    found: dict[str, list[str]] = _table()["regions"]
    return found


@functools.cache
def sizes(location: str) -> list[str]:
    """The names of the VM sizes that a location has, in order."""
    if location not in locations():
        return []
    sold = prices.azure_prices(location)
    return [name for name in _table()["sizes"] if name in sold]


def capabilities(size: str) -> dict[str, str]:
    """What a size can do, as its SKU says it; empty when there is no such size."""
    known = _table()
    _, *indexes = known["sizes"].get(size) or (None,)
    values = zip(known["capabilities"], indexes, strict=False)
    return {name: known["values"][index] for name, index in values if index is not None}


def family(size: str) -> str:
    """The family whose usage a size's cores count against, such as `standardDSv5Family`."""
    return str(_table()["sizes"][size][0])


@functools.cache
def resource_skus(location: str) -> list[dict[str, Any]]:
    """The VM sizes of a location as resourceSkus.list answers; no subscription is restricted in them."""
    zones = locations().get(location, [])
    return [
        {
            "resourceType": "virtualMachines",
            "name": name,
            "tier": "Standard",
            "size": name.removeprefix("Standard_"),
            "family": family(name),
            "locations": [location],
            "locationInfo": [{"location": location, "zones": zones, "zoneDetails": []}],
            "capabilities": [{"name": what, "value": value} for what, value in capabilities(name).items()],
            "restrictions": [],
        }
        for name in sizes(location)
    ]
