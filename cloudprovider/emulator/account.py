"""What all parts of one emulated cloud share."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudprovider.emulator.faults import Faults
    from cloudprovider.emulator.ledger import Ledger
    from cloudprovider.emulator.network import Network
    from cloudprovider.emulator.profiles import Profile
    from cloudprovider.emulator.timers import Timers

ACCOUNT = "123456789012"


@dataclass
class Account:
    """One emulated account: how its cloud behaves, and what it has.

    Parameters
    ----------
    profile
        How fast, how large and how reliable the cloud is.
    timers, faults, ledger
        What happens later, what goes wrong, what it costs.
    room, images, network
        Where machines run, what they can run, and how they reach each other.
    endpoint
        Base address of this emulated cloud.
    seed
        What all chance is drawn from.
    """

    profile: Profile
    timers: Timers
    faults: Faults
    ledger: Ledger
    room: Any
    images: Any
    network: Network
    endpoint: str
    seed: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311  (repeatable, not secret)

    def spread(self, seconds: float) -> float:
        """`seconds`, give or take the profile's spread."""
        with self.lock:
            return seconds * (1 + self.chance.uniform(-1, 1) * self.profile.spread)
