"""Make `cloudprovider/price_tables/azure.json` from clones of three public repositories.

    python benchmarks/azure_price_table.py KARPENTER CATALOG POLICY_TEMPLATES

`KARPENTER` is a git directory of Azure/karpenter-provider-azure (Apache-2.0): prices of VM sizes on demand.
`CATALOG` is one of anycloud-sh/catalog: those on the spot market, and those on demand that are of Linux for sure.
`POLICY_TEMPLATES` is one of flexera-public/policy_templates (MIT): prices of disks, and what each size can do.

`cloudprovider/emulator/azure_sizes.json`, what the embedded Azure has, is made of the same.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from typing import Any

from price_table import PACKAGE, TABLES, changed_on, read, save, short, source

TABLE = TABLES / "azure.json"
TEN_CENTS = 0.1
SIZES = PACKAGE / "emulator" / "azure_sizes.json"
PRICES = "pkg/providers/pricing/zz_generated.pricing.go"
SPOT = "azure/vms.csv"
DISKS = "data/azure/azure_md_pricing.json"
KINDS = "data/azure/azure_compute_instance_types.json"
LOCATIONS = "pkg/fake/locations.json"
#: Sizes of general purpose, for computing and much memory, with premium disks; and those with NVIDIA's GPUs.
FAMILIES = (
    r"B\d+(s|ms|s_v2|als_v2|as_v2|ps_v2|ls_v2|pls_v2)|DS\d_v2|[DE]\d+s_v3|[DE]\d+(s|ds|as)_v4|[DE]\d+(s|ds|as|ads)_v[567]|D\d+(l|ld|al|ald)s_v[567]"
    r"|[DE]\d+(p|pd)s_v[56]|D\d+(pl|pld)s_v[56]|F\d+s_v2|F\d+(a|al|am)s_v[67]|L\d+a?s_v[34]"
    r"|NC\d+(as_T4_v3|ads_A100_v4|ads_H100_v5)|NV\d+ads_A10_v5|ND\d+(amsr_A100_v4|isr_H100_v5|isr_H200_v5)"
)
#: Sizes with a part of a GPU, which no requirement is answered with.
# https://learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated/nvadsa10v5-series
PARTS = r"NV(6|12|18)ads_A10_v5"
#: What a licence of Windows costs an hour for each vCPU; of burstable sizes a tenth.
# https://azure.microsoft.com/pricing/details/virtual-machines/windows/
WINDOWS, ROUNDING = (0.046, 0.0046), 0.0006
#: Managed disks by kind: what the tiers of each are called, and what the tiers hold.
# https://learn.microsoft.com/azure/virtual-machines/disks-types
TIERS = {"Premium_LRS": "P", "StandardSSD_LRS": "E", "Standard_LRS": "S"}
GIB = {1: 4, 2: 8, 3: 16, 4: 32, 6: 64, 10: 128, 15: 256, 20: 512, 30: 1024, 40: 2048, 50: 4096}


def on_demand(karpenter: str) -> tuple[str, dict[str, dict[str, float]]]:
    """The day, and dollars an hour by region and size."""
    text = read(karpenter, PRICES)
    regions: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if found := re.match(r'\s*initialOnDemandPrices\["(\w+)"\]', line):
            current = regions.setdefault(found[1], {})
        elif found := re.match(r'\s*"Standard_(\w+)":\s+([0-9.]+),', line):
            current[found[1]] = float(found[2])
    return re.search(r"generated at (\d{4}-\d\d-\d\d)", text)[1], regions


def catalogued(catalog: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Dollars an hour by region and size, on demand and on the spot market."""
    regions: dict[str, dict[str, float]] = defaultdict(dict)
    cheap: dict[str, dict[str, float]] = defaultdict(dict)
    for size, _, _, _, _, _, price, spot, region, *_ in csv.reader(read(catalog, SPOT).splitlines()[1:]):
        name = size.removeprefix("Standard_")
        if price:
            regions[region][name] = float(price)
        if spot:
            cheap[region][name] = float(spot)
    return regions, cheap


def linux(said: dict[str, float], catalogued: dict[str, float], vcpus: dict[str, int]) -> dict[str, float]:
    """Prices of a region that are of Linux.

    The newer source has those of Windows where a meter of both has one name: so much more for each vCPU.
    """
    prices = dict(said)
    for name in said.keys() & catalogued.keys() & vcpus.keys():
        more = (said[name] - catalogued[name]) / vcpus[name]
        if abs(said[name] - catalogued[name]) > 0.005 * said[name]:
            if min(abs(more - windows) for windows in WINDOWS) > ROUNDING:
                raise SystemExit(f"{name} costs {said[name]} or {catalogued[name]}")
            prices[name] = catalogued[name]
    return prices


def by_family(prices: dict[str, float], known: set[str]) -> dict[str, Any]:
    """By name with `#` for its first number: what a size costs for each of that, and those sizes that cost otherwise.

    A size that is not sold there, of a family that is, has null.
    """
    families: dict[str, dict[str, float | None]] = defaultdict(dict)
    for name in sorted(known):
        number = re.search(r"\d+", name)[0]
        families[name.replace(number, "#", 1)][number] = prices.get(name)
    return {family: in_proportion(sizes) for family, sizes in families.items() if any(sizes.values())}


def in_proportion(sizes: dict[str, float | None]) -> float | dict[str, float | None]:
    """The price for each that explains the most sizes, by how Azure rounds, and the others."""
    sold = {number: price for number, price in sizes.items() if price is not None}
    each = {short(price / int(number)) for number, price in sold.items()}
    wrong = {
        one: {n: price for n, price in sold.items() if rounded(int(n) * one) != rounded(price)}
        for one in each
    }
    usual = min(sorted(each), key=lambda one: len(wrong[one]))
    others = {n: short(price) for n, price in wrong[usual].items()} | dict.fromkeys(
        sorted(sizes.keys() - sold.keys())
    )
    return {"#": usual, **others} if others else usual


def rounded(price: float) -> float:
    """As Azure writes prices: four digits after the point under ten cents, three above."""
    return round(price, 3 if price >= TEN_CENTS else 4)


def disks(prices: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Dollars a month by kind of disk and the GiB of its tier."""
    return {
        kind: {
            str(gib): short(prices[name]["pricePerUnit"])
            for tier, gib in GIB.items()
            if (name := f"{letter}{tier}_LRS") in prices and prices[name]["pricePerUnit"]
        }
        for kind, letter in TIERS.items()
    }


def sizes(kinds: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By architecture and size: vCPUs and GiB, and GPUs where it has some."""
    found: dict[str, dict[str, list[float]]] = {"x86_64": {}, "arm64": {}}
    for kind in kinds:
        if re.fullmatch(PARTS, kind["size"]):
            continue
        specs = kind["specs"]
        gib, gpus = float(specs["MemoryGB"]), int(specs.get("GPUs", 0))
        facts = [int(specs["vCPUs"]), int(gib) if gib == int(gib) else gib]
        architecture = {"x64": "x86_64", "Arm64": "arm64"}[specs["CpuArchitectureType"]]
        found[architecture][kind["name"]] = [*facts, gpus] if gpus else facts
    return found


def emulated(
    kinds: list[dict[str, Any]], locations: list[dict[str, Any]], regions: set[str]
) -> dict[str, Any]:
    """What resourceSkus.list says of each size, with the values of each capability once; and each region's zones."""
    names = sorted({name for kind in kinds for name in kind["specs"]} - {"nfu"})
    values: list[str] = []

    def index(value: object) -> int:
        if str(value) not in values:
            values.append(str(value))
        return values.index(str(value))

    table = {
        kind["name"]: [
            kind["family"],
            *(index(kind["specs"][name]) if name in kind["specs"] else None for name in names),
        ]
        for kind in kinds
    }
    return {
        "regions": {
            one["name"]: sorted(zone["logicalZone"] for zone in one.get("availabilityZoneMappings") or ())
            for one in sorted(locations, key=lambda one: one["name"])
            if one["name"] in regions
        },
        "capabilities": names,
        "values": values,
        "sizes": table,
    }


def main(karpenter: str, catalog: str, templates: str) -> None:
    day, machines = on_demand(karpenter)
    (older, cheap), volumes = catalogued(catalog), json.loads(read(templates, DISKS))
    kinds = [kind for kind in json.loads(read(templates, KINDS)) if re.fullmatch(FAMILIES, kind["size"])]
    vcpus = {kind["size"]: int(kind["specs"]["vCPUs"]) for kind in kinds}
    machines = {
        region: linux(prices, older[region], vcpus) for region, prices in machines.items() if region in older
    }
    regions = {
        region: {
            "disks": disks(volumes.get(region, {})),
            "on-demand": by_family(prices, {*vcpus}),
            "spot": by_family(cheap[region], {*vcpus}),
        }
        for region, prices in sorted(machines.items())
    }
    document = {
        "currency": "USD",
        "unit": "an hour of a VM size with # for its first number, for each of that, or of a size by its number; a month of "
        "a managed disk of so many GiB; an hour of a public IPv4 address",
        "date": day,
        "spot_date": changed_on(catalog, SPOT),
        "minimum_s": 0,
        "public_ipv4": 0.005,
        "sources": sources(karpenter, catalog, templates, day),
        "regions": regions,
        "types": sizes(kinds),
    }
    save(TABLE, document)
    save(SIZES, emulated(kinds, json.loads(read(karpenter, LOCATIONS)), {*machines}))


def sources(karpenter: str, catalog: str, templates: str, day: str) -> list[dict[str, str]]:
    retail = "https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices"
    flexera = ("flexera-public/policy_templates", "MIT, Copyright (c) 2017-2018 RightScale")
    return [
        source(
            "the rules: per second", "https://azure.microsoft.com/pricing/details/virtual-machines/linux/"
        ),
        source("public IPv4 addresses", "https://azure.microsoft.com/pricing/details/ip-addresses/"),
        source(
            f"sizes on demand as of {day}", retail, karpenter, "Azure/karpenter-provider-azure", "Apache-2.0"
        ),
        source(
            f"sizes on the spot market as of {changed_on(catalog, SPOT)}",
            retail,
            catalog,
            "anycloud-sh/catalog",
        ),
        source(f"managed disks as of {changed_on(templates, DISKS)}", retail, templates, *flexera),
        source(
            "vCPUs, GiB, GPUs and capabilities of each size: resource SKUs",
            "https://learn.microsoft.com/rest/api/compute/resource-skus/list",
            templates,
            *flexera,
        ),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
