"""Make `cloudprovider/price_tables/gcp.json` from clones of four public repositories.

    python benchmarks/gce_price_table.py KARPENTER CALCULATOR POLICY_TEMPLATES CATALOG

`KARPENTER` is a git directory of cloudpilot-ai/karpenter-provider-gcp (Apache-2.0): prices of machine types, on
demand and spot. `CALCULATOR` is one of Cyclenerd/google-cloud-pricing-cost-calculator (Apache-2.0): those of
disks and addresses, and the same of machine types, which are compared. `POLICY_TEMPLATES` is one of
flexera-public/policy_templates (MIT): what each type has, and in which zones. `CATALOG` is one of
anycloud-sh/catalog: the prices of GPUs that are attached to N1 machines, and their zones.

`cloudprovider/emulator/gce_types.json`, what the embedded Compute Engine has, is made of the same.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from typing import Any

import yaml
from price_table import PACKAGE, TABLES, changed_on, read, save, short, source

TABLE = TABLES / "gcp.json"
TYPES = PACKAGE / "emulator" / "gce_types.json"
PRICES = "pkg/providers/pricing/initial-prices.json"
KINDS = "data/google/google_compute_instance_types.json"
#: General, compute- and accelerator-optimised families, without bare metal.
FAMILIES = r"(a2|a3|c2|c2d|c3|c3d|c4|c4a|c4d|e2|g2|g4|n1|n2|n2d|n4|n4a|n4d|t2a|t2d)-(?!.*metal).*"
#: Types with a part of a GPU, which no requirement is answered with.
# https://cloud.google.com/compute/docs/accelerator-optimized-machines#g4-machine-types
PARTS = r"g4-standard-(6|12|24)"
ARM = ("c4a", "n4a", "t2a")
DISKS = {"pd-balanced": "balanced", "pd-ssd": "ssd", "pd-standard": "hdd"}
#: GPUs that an N1 machine takes, by the catalogue's names.
# https://cloud.google.com/compute/docs/gpus#n1-gpus
ATTACHED = {
    "P100": "nvidia-tesla-p100",
    "P4": "nvidia-tesla-p4",
    "T4": "nvidia-tesla-t4",
    "V100": "nvidia-tesla-v100",
}
MARKETS = {"on_demand": "on-demand", "spot": "spot"}


def by_family(prices: dict[str, float], known: set[str]) -> dict[str, Any]:
    """By name with `#` for the vCPUs: dollars an hour of a vCPU where all sizes cost in proportion, else of each size.

    A size that is not sold there, of a family that is, has null.
    """
    families: dict[str, dict[str, float | None]] = defaultdict(dict)
    for name in sorted(known):
        head, size, tail = re.fullmatch(r"(.*?-)(\d+g?|micro|small|medium)(-.*|)", name).groups()
        families[f"{head}#{tail}"][size] = prices.get(name)
    return {family: in_proportion(sizes) for family, sizes in families.items() if any(sizes.values())}


def in_proportion(sizes: dict[str, float | None]) -> float | dict[str, float | None]:
    sold = {size: short(price) for size, price in sizes.items() if price is not None}
    if all(size.isdigit() for size in sold):
        each = [price / int(size) for size, price in sold.items()]
        if max(each) - min(each) < 1e-4 * min(each):
            missing = dict.fromkeys(sorted(sizes.keys() - sold.keys()))
            return {"#": short(each[0]), **missing} if missing else short(each[0])
    return sold


def gpus(catalog: str) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, set[str]]]:
    """Dollars an hour of one GPU by region, market and name; and the zones that have it, by name."""
    prices: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    zones: dict[str, set[str]] = defaultdict(set)
    for row in csv.DictReader(read(catalog, "gcp/vms.csv").splitlines()):
        name = ATTACHED.get(row["AcceleratorName"])
        if name and not row["InstanceType"] and row["AcceleratorCount"] == "1":
            zones[name].add(row["AvailabilityZone"])
            for market, column in (("on-demand", "Price"), ("spot", "SpotPrice")):
                if row[column]:
                    prices[row["Region"]][market][name] = float(row[column])
    return prices, zones


def sizes(kinds: list[dict[str, Any]], sold: set[str]) -> dict[str, dict[str, list[Any]]]:
    """By architecture and type: vCPUs and GiB, and where it has GPUs, how many and which."""
    found: dict[str, dict[str, list[Any]]] = {"x86_64": {}, "arm64": {}}
    for kind in kinds:
        if kind["name"] not in sold or re.fullmatch(PARTS, kind["name"]):
            continue
        specs = kind["specs"]
        cards = [
            x
            for card in specs["accelerators"] or ()
            for x in (card["guestAcceleratorCount"], card["guestAcceleratorType"])
        ]
        gib = specs["memoryMb"] / 1024
        size = [specs["guestCpus"], int(gib) if gib == int(gib) else gib]
        architecture = "arm64" if kind["family"] in ARM else "x86_64"
        found[architecture][kind["name"]] = [*size, *cards]
    return found


def compare(prices: dict[str, Any], calculator: dict[str, Any]) -> int:
    """How many prices both sources have; they must say the same."""
    count = 0
    for name, kind in calculator["compute"]["instance"].items():
        for region, cost in kind.get("cost", {}).items():
            for market, column in (("on_demand", "hour"), ("spot", "hour_spot")):
                ours, theirs = prices.get(region, {}).get(market, {}).get(name), cost.get(column)
                if ours and theirs:
                    count += 1
                    if abs(ours - theirs) > 0.001 * ours:
                        raise SystemExit(f"{market} {name} in {region} is {ours} or {theirs}")
    return count


def emulated(kinds: list[dict[str, Any]], attached: dict[str, set[str]]) -> dict[str, Any]:
    """What machineTypes.list and acceleratorTypes.list say, with each set of zones once."""
    places: list[list[str]] = []

    def placed(zones: list[str]) -> int:
        if sorted(zones) not in places:
            places.append(sorted(zones))
        return places.index(sorted(zones))

    types, cards = {}, {name: set(zones) for name, zones in attached.items()}
    for kind in kinds:
        specs = kind["specs"]
        accelerators = [
            [one["guestAcceleratorType"], one["guestAcceleratorCount"]] for one in specs["accelerators"] or ()
        ]
        for name, _ in accelerators:
            cards.setdefault(name, set()).update(kind["zones"])
        types[kind["name"]] = [
            specs["guestCpus"],
            specs["memoryMb"],
            specs["maximumPersistentDisks"],
            specs["maximumPersistentDisksSizeGb"],
            specs["isSharedCpu"],
            "ARM64" if kind["family"] in ARM else "X86_64",
            accelerators,
            kind["description"],
            placed(kind["zones"]),
        ]
    accelerators = {name: placed([*zones]) for name, zones in sorted(cards.items())}
    regions: dict[str, list[str]] = defaultdict(list)
    for zone in sorted({zone for place in places for zone in place}):
        regions[zone[:-2]].append(zone)
    return {
        "types": types,
        "accelerators": accelerators,
        "places": places,
        "regions": dict(sorted(regions.items())),
    }


def main(karpenter: str, calculator: str, templates: str, catalog: str) -> None:
    prices = json.loads(read(karpenter, PRICES))["prices"]
    said = yaml.load(read(calculator, "pricing.yml"), yaml.CSafeLoader)
    kinds = [kind for kind in json.loads(read(templates, KINDS)) if re.fullmatch(FAMILIES, kind["name"])]
    known = {kind["name"] for kind in kinds}
    cards, zones = gpus(catalog)
    disks, addresses = said["compute"]["storage"], said["compute"]["network"]["ip"]["vm"]["cost"]
    agreed = compare(prices, said)
    regions = {
        region: {
            **{
                name: disks[ours]["cost"][region]["month"]
                for name, ours in DISKS.items()
                if region in disks[ours]["cost"]
            },
            **({"ipv4": addresses[region]["hour"]} if region in addresses else {}),
            "gpus": {market: dict(sorted(some.items())) for market, some in cards.get(region, {}).items()},
            **{ours: by_family(markets[market], known) for market, ours in MARKETS.items()},
        }
        for region, markets in sorted(prices.items())
    }
    day = changed_on(karpenter, PRICES)
    document = {
        "currency": "USD",
        "unit": "an hour of a vCPU of a machine type with # for its vCPUs, or of each of its sizes; a GiB-month of a disk; "
        "an hour of a GPU, of a public IPv4 address",
        "date": day,
        "minimum_s": 60,
        "spot_ipv4": 0.0025,
        "sources": sources(karpenter, calculator, templates, catalog, day, agreed),
        "regions": regions,
        "types": sizes(kinds, {name for markets in prices.values() for name in markets["on_demand"]}),
    }
    save(TABLE, document)
    save(TYPES, emulated(kinds, zones))


def sources(
    karpenter: str, calculator: str, templates: str, catalog: str, day: str, agreed: int
) -> list[dict[str, str]]:
    skus = "https://cloud.google.com/billing/v1/how-tos/catalog-api"
    return [
        source(
            "the rules: per second with 60 s at least", "https://cloud.google.com/compute/vm-instance-pricing"
        ),
        source("addresses of Spot VMs", "https://cloud.google.com/vpc/network-pricing"),
        source(
            f"machine types, on demand and spot, as of {day}",
            skus,
            karpenter,
            "cloudpilot-ai/karpenter-provider-gcp",
            "Apache-2.0",
        ),
        source(
            f"disks and addresses; {agreed:,} prices of machine types that are the same in both",
            skus,
            calculator,
            "Cyclenerd/google-cloud-pricing-cost-calculator",
            "Apache-2.0",
        ),
        source(
            "vCPUs, GiB, GPUs and zones of each type: machineTypes.list",
            "https://cloud.google.com/compute/docs/reference/rest/v1/machineTypes/list",
            templates,
            "flexera-public/policy_templates",
            "MIT, Copyright (c) 2017-2018 RightScale",
        ),
        source(
            f"GPUs attached to N1 machines, and their zones, as of {changed_on(catalog, 'gcp/vms.csv')}",
            skus,
            catalog,
            "anycloud-sh/catalog",
        ),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
