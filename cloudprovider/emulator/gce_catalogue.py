"""What the embedded Compute Engine offers: regions, zones, machine types and accelerators, in Google's own words.

`gce_types.json` has what Google's zones had on the day of the price table; `benchmarks/gce_price_table.py` makes
both anew.
"""

from __future__ import annotations

import functools
import json
import zlib
from importlib import resources
from typing import Any

#: How many of an accelerator a machine takes that is not accelerator-optimised.
# https://cloud.google.com/compute/docs/gpus#n1-gpus
MOST_CARDS = {
    "nvidia-tesla-p100": 4,
    "nvidia-tesla-p4": 4,
    "nvidia-tesla-t4": 4,
    "nvidia-tesla-v100": 8,
}
#: Families with other processors than Intel's of the first days, for `cpuPlatform`.
# https://cloud.google.com/compute/docs/cpu-platforms
PLATFORMS = {
    "a2": "Intel Cascade Lake",
    "a3": "Intel Sapphire Rapids",
    "c2": "Intel Cascade Lake",
    "c2d": "AMD Milan",
    "c3": "Intel Sapphire Rapids",
    "c3d": "AMD Genoa",
    "c4": "Intel Emerald Rapids",
    "c4a": "Google Axion",
    "c4d": "AMD Turin",
    "e2": "AMD Rome",
    "g2": "Intel Cascade Lake",
    "g4": "AMD Turin",
    "n1": "Intel Haswell",
    "n2": "Intel Ice Lake",
    "n2d": "AMD Milan",
    "n4": "Intel Emerald Rapids",
    "n4a": "Google Axion",
    "n4d": "AMD Turin",
    "t2a": "Ampere Altra",
    "t2d": "AMD Milan",
}


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("cloudprovider.emulator").joinpath("gce_types.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def regions() -> dict[str, list[str]]:
    """The zones of each region, by its name."""
    found: dict[str, list[str]] = _table()["regions"]
    return found


@functools.cache
def _offers(place: int) -> frozenset[str]:
    return frozenset(_table()["places"][place])


def machine_types(zone: str) -> list[str]:
    """The names of the machine types of a zone, in order."""
    return [name for name, facts in _table()["types"].items() if zone in _offers(facts[-1])]


def accelerator_types(zone: str) -> list[str]:
    """The names of the accelerators of a zone, in order."""
    return [name for name, place in _table()["accelerators"].items() if zone in _offers(place)]


def machine_type(zone: str, name: str) -> dict[str, Any] | None:
    """A machine type of a zone as machineTypes.get answers, without its links; None where there is none."""
    facts = _table()["types"].get(name)
    if facts is None or zone not in _offers(facts[-1]):
        return None
    cpus, memory, disks, disks_gb, shared, architecture, cards, description, _ = facts
    return {
        "kind": "compute#machineType",
        "id": _number(f"machineTypes/{name}"),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": description,
        "guestCpus": cpus,
        "memoryMb": memory,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": disks,
        "maximumPersistentDisksSizeGb": str(disks_gb),
        "zone": zone,
        "isSharedCpu": shared,
        "architecture": architecture,
        **({"accelerators": [_card(*card) for card in cards]} if cards else {}),
    }


def accelerator_type(zone: str, name: str) -> dict[str, Any] | None:
    """An accelerator of a zone as acceleratorTypes.get answers, without its links; None where there is none."""
    place = _table()["accelerators"].get(name)
    if place is None or zone not in _offers(place):
        return None
    most = max(
        (count for facts in _table()["types"].values() for card, count in facts[6] if card == name), default=0
    )
    return {
        "kind": "compute#acceleratorType",
        "id": _number(f"acceleratorTypes/{name}"),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": name.replace("-", " ").title().replace("Nvidia", "NVIDIA"),
        "zone": zone,
        "maximumCardsPerInstance": MOST_CARDS.get(name, most),
    }


def cpu_platform(machine_type: str) -> str:
    """The processor that machines of a type have."""
    return PLATFORMS.get(machine_type.partition("-")[0], "Intel Haswell")


def _card(name: str, count: int) -> dict[str, Any]:
    return {"guestAcceleratorType": name, "guestAcceleratorCount": count}


def _number(name: str) -> str:
    """The id that a type has in every zone."""
    return str(zlib.crc32(name.encode()))
