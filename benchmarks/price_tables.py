"""Say how old the price tables are, and update them from what the clouds publish.

    python benchmarks/price_tables.py                  how old each table is
    python benchmarks/price_tables.py FILE...          what these files would change
    python benchmarks/price_tables.py FILE... --write  change it

A file is what a cloud's public price data answered, as it came; what it is, it says itself:

* AWS's price list of one or all regions, `AmazonEC2` (machines with Linux on demand, gp3 volumes) or `AmazonECS`
  (Fargate on demand, and its storage):
  https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/REGION/index.json
* a page of Azure's retail prices, on demand and spot:
  https://prices.azure.com/api/retail/prices?$filter=serviceName eq 'Virtual Machines' and armRegionName eq 'REGION'

Prices of regions and machines that a table knows are changed, and those of new regions added; what the files do
not have stays as it is. Types that are new, Google's prices and spot prices of Fargate come with the whole table:
`ec2_price_table.py`, `gce_price_table.py` and `azure_price_table.py` make one from public repositories.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure_price_table import by_family
from price_table import TABLES, save, short

from cloudprovider import prices
from cloudprovider.bill import STALE_DAYS, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FARGATE = {
    "Fargate-vCPU-Hours:perCPU": ("X86_64", "on-demand", "vcpu"),
    "Fargate-GB-Hours": ("X86_64", "on-demand", "memory"),
    "Fargate-ARM-vCPU-Hours:perCPU": ("ARM64", "on-demand", "vcpu"),
    "Fargate-ARM-GB-Hours": ("ARM64", "on-demand", "memory"),
    "Fargate-EphemeralStorage-GB-Hours": ("storage",),
}
#: What a machine with Linux, of nobody else's and without software, is in AWS's price list.
LINUX = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


@dataclass(frozen=True)
class Price:
    """One price that a cloud publishes: the table, the region, the place in it, and dollars."""

    table: str
    region: str
    path: tuple[str, ...]
    usd: float
    date: str


def read(path: Path) -> Iterator[Price]:
    """The prices of one file.

    Raises
    ------
    SystemExit
        When it is none of the formats.
    """
    said = json.loads(path.read_text("utf-8"))
    if said.get("offerCode") in {"AmazonEC2", "AmazonECS"}:
        return aws(said)
    if "Items" in said and said.get("BillingCurrency") == "USD":
        return azure(said)
    raise SystemExit(
        f"{path} is neither AWS's price list of EC2 or ECS nor a page of Azure's retail prices in USD."
    )


def aws(said: dict[str, Any]) -> Iterator[Price]:
    """The prices of a price list file of AWS."""
    date, terms = said["publicationDate"][:10], said["terms"]["OnDemand"]
    place = fargate_place if said["offerCode"] == "AmazonECS" else ec2_place
    table = "fargate" if said["offerCode"] == "AmazonECS" else "ec2"
    for sku, product in said["products"].items():
        attributes = product.get("attributes", {})
        found = place(product.get("productFamily", ""), attributes)
        dollars = [
            float(dimension["pricePerUnit"]["USD"])
            for term in terms.get(sku, {}).values()
            for dimension in term["priceDimensions"].values()
            if "USD" in dimension["pricePerUnit"]
        ]
        if found and len(dollars) == 1 and dollars[0]:
            yield Price(table, attributes["regionCode"], found, dollars[0], date)


def fargate_place(_: str, attributes: dict[str, str]) -> tuple[str, ...] | None:
    """Where a price of ECS belongs: by its usage type, after the region's short name."""
    usage = attributes.get("usagetype", "")
    return next(
        (path for name, path in FARGATE.items() if re.fullmatch(rf"([A-Z]+\d+-)?{name}", usage)), None
    )


def ec2_place(family: str, attributes: dict[str, str]) -> tuple[str, ...] | None:
    """Where a price of EC2 belongs."""
    if family == "Storage" and attributes.get("volumeApiName") == "gp3":
        return ("gp3",)
    kind = attributes.get("instanceType", "")
    if attributes.get("marketoption", "OnDemand") != "OnDemand":
        return None
    if "Instance" in family and "." in kind and LINUX.items() <= attributes.items():
        return ("on-demand", *kind.split(".", 1))
    return None


def azure(said: dict[str, Any]) -> Iterator[Price]:
    """The prices of one page of Azure's retail prices: of Linux, by the hour, on demand and spot."""
    for item in said["Items"]:
        name = item["skuName"]
        linux = "Windows" not in item["productName"] and item["unitOfMeasure"] == "1 Hour"
        if item["type"] != "Consumption" or not linux or not item.get("armSkuName") or "Low Priority" in name:
            continue
        market = "spot" if name.endswith(" Spot") else "on-demand"
        date = item["effectiveStartDate"][:10]
        yield Price("azure", item["armRegionName"], (market, item["armSkuName"]), item["retailPrice"], date)


def merged(table: str, document: dict[str, Any], news: Iterable[Price], today: str) -> Iterator[str]:
    """Change a table; a line for each price that is new or another."""
    by_region: defaultdict[str, list[Price]] = defaultdict(list)
    for price in news:
        by_region[price.region].append(price)
    for region, found in sorted(by_region.items()):
        there = document["regions"].setdefault(region, {})
        lines = [*(merged_azure if table == "azure" else merged_aws)(region, there, found)]
        if table != "azure":
            there["date"] = max(price.date for price in found)
        elif lines:
            there["date"] = today
        yield from (f"{table} {region} {line}" for line in lines)
    document["regions"] = dict(sorted(document["regions"].items()))


def merged_aws(region: str, there: dict[str, Any], found: Iterable[Price]) -> Iterator[str]:
    """Change the prices of a region; a line for each."""
    del region
    for price in sorted(found, key=lambda price: price.path):
        *path, last = price.path
        inner = there
        for key in path:
            inner = inner.setdefault(key, {})
        if differ(old := inner.get(last), price.usd):
            inner[last] = short(price.usd)
            yield f"{' '.join(price.path)}: {old} -> {inner[last]}"


def merged_azure(region: str, there: dict[str, Any], found: Iterable[Price]) -> Iterator[str]:
    """Change the prices of a region whose sizes stand by family; a line for each size that the table knows."""
    known = {name for some in prices.table("azure")["types"].values() for name in some}
    by_market: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for price in found:
        market, name = price.path
        if name in known:
            by_market[market][name.removeprefix("Standard_")] = price.usd
    for market, said in sorted(by_market.items()):
        before = {
            name.removeprefix("Standard_"): usd for name, usd in prices.azure_prices(region, market).items()
        }
        changed = {name: usd for name, usd in said.items() if differ(before.get(name), usd)}
        if changed:
            there[market] = {
                **there.get(market, {}),
                **by_family({**before, **changed}, {name.removeprefix("Standard_") for name in known}),
            }
        for name, usd in sorted(changed.items()):
            yield f"{market} {name}: {before.get(name)} -> {short(usd)}"


def differ(old: float | None, new: float) -> bool:
    """Whether a price is another, by more than its last digit."""
    return old is None or abs(old - new) > 0.001 * new


def ages(now: float) -> Iterator[str]:
    """How old each table is, and its oldest region."""
    for name, title in prices.NAMES.items():
        document = prices.table(name)
        regions = {region: some.get("date", document["date"]) for region, some in document["regions"].items()}
        oldest = min(regions.values(), default=document["date"])
        days = Source(name=title, date=oldest).days(now)
        count = sum(date == oldest for date in regions.values())
        stale = f", stale after {STALE_DAYS} days" if days > STALE_DAYS else ""
        yield f"{name}: of {document['date']}; the oldest of {len(regions)} regions ({count}) of {oldest}, {days} days{stale}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="change the tables")
    parser.add_argument("--tables", type=Path, default=TABLES, help="where the tables are")
    options = parser.parse_args(arguments)
    now = dt.datetime.now(dt.UTC)
    if not options.files:
        print(*ages(now.timestamp()), sep="\n")
        return 0
    by_table: defaultdict[str, list[Price]] = defaultdict(list)
    for path in options.files:
        for price in read(path):
            by_table[price.table].append(price)
    changes = 0
    for name, news in sorted(by_table.items()):
        target = options.tables / f"{name}.json"
        document = json.loads(target.read_text("utf-8"))
        lines = [*merged(name, document, news, f"{now:%Y-%m-%d}")]
        print(*lines, f"{name}: {len(news)} prices read, {len(lines)} of them new or changed", sep="\n")
        changes += len(lines)
        if options.write:
            save(target, document)
    return int(bool(changes) and not options.write)


if __name__ == "__main__":
    raise SystemExit(main())
