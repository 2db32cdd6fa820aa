"""Clouds that run on this computer: their real wire API on loopback, their machines as processes.

from cloudprovider.emulator import Emulator

with Emulator("aws", profile="fargate", time_scale=0.1, seed=1) as cloud, cloud.active():
    ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudprovider.emulator.emulator import Emulator, InjectedFault
    from cloudprovider.emulator.records import Call, EmulatedMachine, LedgerEntry

__all__ = ["Call", "EmulatedMachine", "Emulator", "InjectedFault", "LedgerEntry"]

#: Imported when first asked for: pytest imports this package in every session, for its fixtures.
HOMES = {
    "Call": "records",
    "EmulatedMachine": "records",
    "Emulator": "emulator",
    "InjectedFault": "emulator",
    "LedgerEntry": "records",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
