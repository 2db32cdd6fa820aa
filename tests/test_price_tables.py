"""The maintainer's command reads what clouds publish, says what would change, and changes it only when asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "cloudprovider" / "price_tables"
COMMAND = ROOT / "benchmarks" / "price_tables.py"


def offer(code, *products):
    """A price list file of AWS: family, attributes and dollars of each product, in the form AWS publishes."""
    skus = [f"SKU{number}" for number, _ in enumerate(products)]
    return {
        "formatVersion": "v1.0",
        "offerCode": code,
        "publicationDate": "2026-11-20T08:00:00Z",
        "products": {
            sku: {
                "sku": sku,
                "productFamily": family,
                "attributes": {"regionCode": "eu-central-1", **attributes},
            }
            for sku, (family, attributes, _) in zip(skus, products, strict=True)
        },
        "terms": {
            "OnDemand": {
                sku: {
                    f"{sku}.JRTCKXETXF": {
                        "priceDimensions": {
                            f"{sku}.JRTCKXETXF.6YS6EN2CT7": {
                                "unit": "Hrs",
                                "pricePerUnit": {"USD": f"{usd:.10f}"},
                            }
                        }
                    }
                }
                for sku, (_, _, usd) in zip(skus, products, strict=True)
            }
        },
    }


def machine(kind, **other):
    """What the price list says of a machine with Linux."""
    said = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
    return {"instanceType": kind, "marketoption": "OnDemand", **said, **other}


def item(sku, usd, **other):
    """One item of Azure's retail prices."""
    return {
        "currencyCode": "USD",
        "retailPrice": usd,
        "armRegionName": "westeurope",
        "effectiveStartDate": "2026-11-01T00:00:00Z",
        "productName": "Virtual Machines Dsv5 Series",
        "skuName": sku.removeprefix("Standard_").replace("_", " "),
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "armSkuName": sku,
        **other,
    }


FILES = {
    "ec2": offer(
        "AmazonEC2",
        ("Compute Instance", machine("m7i.large"), 0.2),
        ("Compute Instance", machine("m7i.large", operatingSystem="Windows"), 0.9),
        ("Compute Instance", machine("m7i.large", tenancy="Dedicated"), 0.8),
        ("Compute Instance", machine("m7i.large", capacitystatus="AllocatedCapacityReservation"), 0.0),
        ("Compute Instance", machine("m7i.large", marketoption="CapacityBlock"), 0.7),
        ("Storage", {"volumeApiName": "gp3"}, 0.1),
    ),
    "ecs": offer(
        "AmazonECS",
        ("Compute", {"usagetype": "EUC1-Fargate-vCPU-Hours:perCPU"}, 0.05),
        ("Compute", {"usagetype": "EUC1-Fargate-ARM-GB-Hours"}, 0.004),
        ("Compute", {"usagetype": "EUC1-Fargate-Windows-vCPU-Hours:perCPU"}, 0.9),
        ("Compute", {"usagetype": "EUC1-Fargate-EphemeralStorage-GB-Hours"}, 0.0002),
    ),
    "azure": {
        "BillingCurrency": "USD",
        "Items": [
            item("Standard_D4s_v5", 0.25),
            item("Standard_D4s_v5", 0.05, skuName="D4s v5 Spot"),
            item("Standard_D4s_v5", 0.06, skuName="D4s v5 Low Priority"),
            item("Standard_D4s_v5", 0.6, productName="Virtual Machines Dsv5 Series Windows"),
            item("Standard_D4s_v5", 900.0, type="Reservation"),
        ],
        "NextPageLink": None,
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the tables, and the files."""
    place = tmp_path_factory.mktemp("prices")
    shutil.copytree(TABLES, place / "tables")
    for name, said in FILES.items():
        (place / f"{name}.json").write_text(json.dumps(said), "utf-8")
    return place


def run(place, *arguments):
    command = [sys.executable, COMMAND, "--tables", place / "tables", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_without_files_it_says_how_old_the_tables_are(place):
    """Each table has its day, that of its oldest region, and says when that is stale."""
    said = run(place)
    assert 0 == said.returncode, said.stderr
    assert ["fargate", "ec2", "gcp", "azure"] == [line.partition(":")[0] for line in said.stdout.splitlines()]


def test_it_says_what_would_change_and_then_changes_it(place):
    """A check changes nothing and exits 1; `--write` changes exactly that."""
    files = [place / f"{name}.json" for name in FILES]
    before = {path.name: path.read_bytes() for path in (place / "tables").iterdir()}
    check = run(place, *files)
    assert 1 == check.returncode, check.stderr
    assert before == {path.name: path.read_bytes() for path in (place / "tables").iterdir()}
    assert "ec2 eu-central-1 on-demand m7i large: 0.12075 -> 0.2\n" in check.stdout
    assert "ec2: 2 prices read" in check.stdout
    assert "fargate: 3 prices read" in check.stdout
    assert "azure westeurope on-demand D4s_v5: 0.23 -> 0.25\n" in check.stdout
    assert "azure westeurope spot D4s_v5: " in check.stdout
    assert "azure: 2 prices read, 2 of them new or changed\n" in check.stdout

    assert 0 == run(place, "--write", *files).returncode
    tables = {path.stem: json.loads(path.read_text()) for path in (place / "tables").iterdir()}
    ec2, fargate = tables["ec2"]["regions"]["eu-central-1"], tables["fargate"]["regions"]["eu-central-1"]
    assert (0.2, 0.1, "2026-11-20") == (ec2["on-demand"]["m7i"]["large"], ec2["gp3"], ec2["date"])
    assert 0.05 == fargate["X86_64"]["on-demand"]["vcpu"]
    assert 0.25 == tables["azure"]["regions"]["westeurope"]["on-demand"]["D#s_v5"]["4"]
    assert json.loads(before["ec2.json"])["regions"]["us-east-1"] == tables["ec2"]["regions"]["us-east-1"]


def test_another_file_is_refused(place):
    """What is no price list that it knows is named."""
    (place / "other.json").write_text("{}", "utf-8")
    said = run(place, place / "other.json")
    assert 1 == said.returncode
    assert "other.json is neither AWS's price list" in said.stderr
