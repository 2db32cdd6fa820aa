"""What machines cost, by dated tables whose sources stand in them.

What a table does not have for a region is unknown: the `Rate` names it and counts nothing for it.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import Rate, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "azure_price",
    "azure_prices",
    "azure_rate",
    "dated",
    "ec2_price",
    "ec2_prices",
    "ec2_rate",
    "fargate_price",
    "fargate_rate",
    "gce_gpu_price",
    "gce_price",
    "gce_prices",
    "gce_rate",
    "source",
]

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
#: Whose prices a table has.
NAMES = {"fargate": "AWS Fargate", "ec2": "Amazon EC2", "gcp": "Google Compute Engine", "azure": "Azure"}
#: A machine type of Compute Engine or a VM size of Azure, with the number in the middle for which both have families.
GCE_TYPE = re.compile(r"(.*?-)(\d+g?|micro|small|medium)(-.*|)")
AZURE_SIZE = re.compile(r"Standard_(\D+)(\d+)(.*)")


@functools.cache
def table(name: str) -> dict[str, Any]:
    """A price table, read once."""
    text = resources.files("cloudprovider").joinpath("price_tables", f"{name}.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def dated(name: str) -> str:
    """The day on which a table's prices were read."""
    return str(table(name)["date"])


@functools.cache
def source(name: str, region: str = "", market: str = "on-demand") -> Source:
    """What a bill says of a table's prices; a region, and a market, may have been read on days of their own."""
    known = table(name)
    there = known["regions"].get(region, {}).get("date", known["date"])
    date = known.get("spot_date", there) if market == "spot" else there
    published = next(one["url"] for one in known["sources"] if re.search("on.demand", one["what"]))
    return Source(name=NAMES[name], date=date, url=published)


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
        source=source("fargate", region),
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
        source=source("ec2", region),
    )


def _ec2_notes(instance_type: str, market: str) -> Iterator[str]:
    if market == "spot":
        yield "Spot prices move: these are of the order."
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances-unlimited-mode-concepts.html
    if instance_type.startswith(("t3", "t4g")):
        yield f"{instance_type} bills more than this when its processors are busy for long."


def gce_prices(region: str, market: str = "on-demand") -> Mapping[str, float]:
    """Dollars an hour of each machine type that is known in a region; empty when none is."""
    return {name: price for name in _types("gcp") if (price := gce_price(region, name, market)) is not None}


def gce_price(region: str, machine_type: str, market: str = "on-demand") -> float | None:
    """Dollars an hour of one machine type in a region; None when the table does not have it."""
    found = GCE_TYPE.fullmatch(machine_type)
    return _in_family("gcp", region, market, found) if found else None


def gce_gpu_price(region: str, name: str, market: str = "on-demand") -> float | None:
    """Dollars an hour of one accelerator that is attached to a machine; None when the table does not have it."""
    found = table("gcp")["regions"].get(region, {}).get("gpus", {}).get(market, {}).get(name)
    return None if found is None else float(found)


def gce_rate(
    region: str,
    machine_type: str,
    market: str,
    *,
    disk_gib: float,
    disk_type: str = "pd-balanced",
    gpus: Mapping[str, int] | None = None,
    public: bool,
) -> Rate:
    """What one Compute Engine machine with Linux costs.

    Parameters
    ----------
    region
        Such as `europe-west4`.
    machine_type
        Such as `n2-standard-4`.
    market
        `on-demand` or `spot`.
    disk_gib, disk_type
        The size of its boot disk, and its type.
    gpus
        How many of which accelerators are attached to it; those of accelerator-optimised types are part of them.
    public
        Whether it has a public IPv4 address.

    Raises
    ------
    ValueError
        For a market that Compute Engine does not have.

    Examples
    --------
    >>> rate = gce_rate("us-central1", "n2-standard-4", "on-demand", disk_gib=30, public=True)
    >>> round(rate.per_hour, 4)
    0.2033
    """
    if market not in MARKETS:
        raise ValueError(f"Compute Engine has no market {market!r}.")
    known = table("gcp")
    there = known["regions"].get(region, {})
    address = known["spot_ipv4"] if market == "spot" and "ipv4" in there else there.get("ipv4")
    priced = {
        "machine": (
            gce_price(region, machine_type, market),
            f"{market} {machine_type} machines in {region}",
            1,
        ),
        **{
            f"{name} GPUs": (gce_gpu_price(region, name, market), f"{market} {name} in {region}", n)
            for name, n in (gpus or {}).items()
        },
        "disk": (there.get(disk_type), f"{disk_type} disks in {region}", disk_gib / MONTH_HOURS),
        "public IPv4": (address, f"public addresses in {region}", int(public)),
    }
    return _rate("gcp", region, market, priced)


def azure_prices(region: str, market: str = "on-demand") -> Mapping[str, float]:
    """Dollars an hour of each VM size that is known in a region; empty when none is."""
    return {
        name: price for name in _types("azure") if (price := azure_price(region, name, market)) is not None
    }


def azure_price(region: str, size: str, market: str = "on-demand") -> float | None:
    """Dollars an hour of one VM size in a region; None when the table does not have it."""
    found = AZURE_SIZE.fullmatch(size)
    price = _in_family("azure", region, market, found) if found else None
    if price is None or market == "spot":
        return price
    return round(price, 3 if price >= 0.1 else 4)  # noqa: PLR2004  (as Azure writes them)


def azure_rate(
    region: str,
    size: str,
    market: str,
    *,
    disk_gib: float,
    disk_type: str = "StandardSSD_LRS",
    public: bool,
) -> Rate:
    """What one Azure machine with Linux costs.

    Parameters
    ----------
    region
        Such as `westeurope`.
    size
        Such as `Standard_D4s_v5`.
    market
        `on-demand` or `spot`.
    disk_gib, disk_type
        The size of its managed OS disk, and its kind; 0 for an ephemeral one, which costs nothing.
    public
        Whether it has a public IPv4 address.

    Raises
    ------
    ValueError
        For a market that Azure does not have.

    Examples
    --------
    >>> rate = azure_rate("westeurope", "Standard_D4s_v5", "on-demand", disk_gib=30, public=True)
    >>> round(rate.per_hour, 4)
    0.2383
    """
    if market not in MARKETS:
        raise ValueError(f"Azure has no market {market!r}.")
    known = table("azure")
    tiers = known["regions"].get(region, {}).get("disks", {}).get(disk_type, {})
    # A disk bills as the smallest that holds it: https://learn.microsoft.com/azure/virtual-machines/disks-types
    month = next((price for gib, price in tiers.items() if int(gib) >= disk_gib), None)
    priced = {
        "machine": (azure_price(region, size, market), f"{market} {size} machines in {region}", 1),
        "disk": (month, f"{disk_type} disks in {region}", bool(disk_gib) / MONTH_HOURS),
        "public IPv4": (known["public_ipv4"], "public addresses", int(public)),
    }
    return _rate("azure", region, market, priced)


def _rate(
    cloud: str, region: str, market: str, priced: Mapping[str, tuple[float | None, str, float]]
) -> Rate:
    """The Rate of parts, each with its price, what it is called when that is unknown, and how much there is of it."""
    there_is = {what: part for what, part in priced.items() if part[2]}
    moving = market == "spot" and priced["machine"][0] is not None
    known = table(cloud)
    return Rate.of(
        {what: price * many for what, (price, _, many) in there_is.items() if price is not None},
        minimum_s=known["minimum_s"],
        left_out=LEFT_OUT,
        notes=tuple(
            [f"Spot prices move: these are of {known.get('spot_date', known['date'])}."] if moving else []
        ),
        unknown=tuple(name for price, name, _ in there_is.values() if price is None),
        source=source(cloud, region, market),
    )


@functools.cache
def _types(cloud: str) -> tuple[str, ...]:
    """The names of all types that the table of a cloud tells of."""
    return tuple(name for some in table(cloud)["types"].values() for name in some)


def _in_family(cloud: str, region: str, market: str, name: re.Match[str]) -> float | None:
    """The price of a type by that of its family, which has one for each number, one of each size, or both."""
    head, number, tail = name.groups()
    found = table(cloud)["regions"].get(region, {}).get(market, {}).get(f"{head}#{tail}")
    sizes: Mapping[str, float | None] = (
        found if isinstance(found, dict) else {} if found is None else {"#": found}
    )
    each = sizes.get("#")
    price = sizes[number] if number in sizes else float(number) * each if each and number.isdigit() else None
    return None if price is None else float(price)
