"""Clouds that run on this computer: their real wire API on loopback, their machines as processes.

from cloudprovider.emulator import Emulator

with Emulator("aws", profile="fargate", time_scale=0.1, seed=1) as cloud, cloud.active():
    ...
"""

from cloudprovider.emulator.emulator import Emulator, InjectedFault
from cloudprovider.emulator.records import Call, EmulatedMachine, LedgerEntry

__all__ = ["Call", "EmulatedMachine", "Emulator", "InjectedFault", "LedgerEntry"]
