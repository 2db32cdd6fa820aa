"""Make `cloudprovider/price_tables/ec2.json` from clones of three public repositories.

    python benchmarks/ec2_price_table.py KARPENTER EC2_SHOP POLICY_TEMPLATES

`KARPENTER` is a git directory of aws/karpenter-provider-aws (Apache-2.0): on-demand prices of us-east-1 and
GovCloud. `EC2_SHOP` is one of yeo/ec2.shop (MIT): those of all other regions, and of EBS. `POLICY_TEMPLATES`
is one of flexera-public/policy_templates (MIT): what each type has.

What the two price sources say of us-east-1 is compared: where a price has changed from the older to the newer
one, the older one's prices of that type in other regions are left out. Of bare metal they say different
things on the same day, so it is left out everywhere.
"""

from __future__ import annotations

import json
import re
import sys

from price_table import TABLES, commit, listed, read, save

TABLE = TABLES / "ec2.json"
REGION = r"[a-z]{2}(-gov)?-[a-z]+-\d"
#: Families that no requirement is answered with: A1, on which Amazon Linux 2023 does not run, other
#: accelerators than NVIDIA's, and HPC, whose volumes are slow.
# https://docs.aws.amazon.com/linux/al2023/ug/system-requirements.html
# https://docs.aws.amazon.com/ec2/latest/instancetypes/hpc.html
SPECIAL = r"(a1|dl|f|hpc|inf|mac|trn|vt)\d?.*"
ARCHITECTURES = ("x86_64", "arm64")


def karpenter(repository: str, name: str) -> tuple[str, dict[str, dict[str, float]]]:
    """The day of one of Karpenter's tables, and its prices by region and type."""
    text = read(repository, f"pkg/providers/pricing/zz_generated.pricing_{name}.go")
    regions: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if found := re.match(rf'\s*"({REGION})": {{', line):
            current = regions.setdefault(found[1], {})
        for kind, price in re.findall(r'"([a-z0-9-]+\.[a-z0-9-]+)": ([0-9.]+)', line):
            current[kind] = float(price)
    return re.search(r"generated at (\d{4}-\d\d-\d\d)", text)[1], regions


def ec2_shop(repository: str) -> dict[str, tuple[str, str, dict[str, float]]]:
    """By region: the day, the region's name, and the prices by type."""
    regions = {}
    for region in re.findall(
        rf"^data/ec2/({REGION})-ondemand\.json$", listed(repository, "data/ec2"), re.MULTILINE
    ):
        prices: dict[str, float] = {}
        for kind in ("", "-previousgen"):
            text = read(repository, f"data/ec2/{region[0]}{kind}-ondemand.json")
            if not text.startswith("{"):  # an error page: the region has none of that kind
                continue
            said = json.loads(text)
            for place, items in said["regions"].items():
                prices |= {item["Instance Type"]: float(item["price"]) for item in items.values()}
                where = place
        regions[region[0]] = (said["manifest"]["hawkFilePublicationDate"][:10], where, prices)
    return regions


def volumes(repository: str) -> tuple[str, dict[str, float]]:
    """The day, and by region's name the price of a GB-month of a gp3 volume."""
    said = json.loads(read(repository, "data/ebs/ebs.json"))
    prices = {
        place: float(items["Storage General Purpose gp3 GB Mo"]["price"])
        for place, items in said["regions"].items()
        if "Storage General Purpose gp3 GB Mo" in items
    }
    return said["manifest"]["hawkFilePublicationDate"][:10], prices


def types(repository: str) -> dict[str, dict[str, list[float]]]:
    """By architecture and type, vCPUs and GiB, and GPUs where it has some, of types to choose from."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ARCHITECTURES}
    for kind in json.loads(read(repository, "data/aws/aws_ec2_instance_types.json")):
        properties, gpu = kind["properties"], kind.get("gpu") or {}
        architecture = next((name for name in ARCHITECTURES if name in kind["cpu"]["architectures"]), None)
        # AWS's "current generation" has become a matter of taste: it has c6i and m5a but neither m6i nor g5.
        if properties["hypervisor"] != "nitro" or properties["bareMetal"] or not architecture:
            continue
        if re.fullmatch(SPECIAL, kind["family"]) or (gpu and gpu["manufacturer"] != "NVIDIA"):
            continue
        if gpu and not gpu["count"]:
            continue  # a part of a GPU
        gib = kind["memory"]["sizeInMiB"] / 1024
        size = [kind["cpu"]["vcpus"], int(gib) if gib == int(gib) else gib]
        found[architecture][kind["name"]] = [*size, gpu["count"]] if gpu else size
    return found


def nested(flat: dict[str, object]) -> dict[str, dict[str, object]]:
    """By family and size, what was by type."""
    families: dict[str, dict[str, object]] = {}
    for kind, value in sorted(flat.items()):
        family, _, size = kind.partition(".")
        families.setdefault(family, {})[size] = value
    return families


def without_metal(prices: dict[str, float]) -> dict[str, float]:
    return {kind: price for kind, price in prices.items() if ".metal" not in kind}


def main(karpenter_git: str, shop_git: str, templates_git: str) -> None:
    newest, us_east_1 = karpenter(karpenter_git, "aws")
    gov_day, gov = karpenter(karpenter_git, "aws_us_gov")
    shop = ec2_shop(shop_git)
    ebs_day, ebs = volumes(shop_git)
    now, before = us_east_1["us-east-1"], shop["us-east-1"][2]
    changed = {kind for kind in before if abs(before[kind] - now.get(kind, 0)) > 0.001 * before[kind]}
    regions: dict[str, dict[str, object]] = {}
    for region, (day, place, prices) in sorted(shop.items()):
        newer = {**us_east_1, **gov}.get(region)
        chosen = newer or {kind: price for kind, price in prices.items() if kind not in changed}
        regions[region] = {
            "date": {"us-east-1": newest}.get(region, gov_day if region in gov else day),
            **({"gp3": ebs[place]} if place in ebs else {}),
            "on-demand": nested(without_metal(chosen)),
        }
    document = {
        "currency": "USD",
        "unit": "an hour of a machine with Linux, a GB-month of a gp3 volume, an hour of a public IPv4 address",
        "date": newest,
        "minimum_s": 60,
        "public_ipv4": 0.005,
        "sources": sources(karpenter_git, shop_git, templates_git, shop["us-west-2"][0], newest, ebs_day),
        "regions": regions,
        "types": {name: nested(some) for name, some in types(templates_git).items()},
    }
    save(TABLE, document)
    print(
        "Left out where only the older source has it:",
        ", ".join(sorted(k for k in changed if ".metal" not in k)),
    )


def sources(
    karpenter_git: str, shop_git: str, templates_git: str, day: str, newest: str, ebs_day: str
) -> list[dict[str, str]]:
    offers = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/index.json"
    return [
        {
            "what": "the rules: per second with 60 s at least",
            "url": "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html",
        },
        {"what": "public IPv4 addresses", "url": "https://aws.amazon.com/vpc/pricing/"},
        {
            "what": f"us-east-1 and GovCloud on demand: AWS price list AmazonEC2 as recorded on {newest}",
            "url": offers,
            "read_in": f"https://github.com/aws/karpenter-provider-aws at {commit(karpenter_git)[:12]}",
            "licence": "Apache-2.0",
        },
        {
            "what": f"other regions on demand: the feed of AWS's pricing page, published {day}, without types "
            f"whose price in us-east-1 has changed by {newest}; gp3 volumes: the same, published {ebs_day}",
            "url": "https://aws.amazon.com/ec2/pricing/on-demand/",
            "read_in": f"https://github.com/yeo/ec2.shop at {commit(shop_git)[:12]}",
            "licence": "MIT, Copyright (c) 2024 Vinh Nguyen",
        },
        {
            "what": "vCPUs, GiB and GPUs of each type: DescribeInstanceTypes",
            "url": "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html",
            "read_in": f"https://github.com/flexera-public/policy_templates at {commit(templates_git)[:12]}",
            "licence": "MIT, Copyright (c) 2017-2018 RightScale",
        },
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
