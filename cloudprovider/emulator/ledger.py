"""What machines cost: by the second, with the cloud's minimum."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from cloudprovider.emulator.records import LedgerEntry
from cloudprovider.prices import fargate_price, table

MINIMUM_S = 60.0  # https://aws.amazon.com/fargate/pricing/: one minute, from the start of the image's pull
HOUR_S = 3600.0


@dataclass
class _Account:
    kind: str
    market: str
    hourly: float
    started: float
    ended: float | None = None


class Ledger:
    """Who ran how long; thread-safe."""

    def __init__(self) -> None:
        self.minimum_s = MINIMUM_S
        """What bills at the least; a cloud may have another."""
        self._accounts: dict[str, list[_Account]] = {}
        self._lock = threading.Lock()

    def start(self, machine: str, kind: str, market: str, hourly: float, at: float) -> None:
        """From `at` on this bills."""
        with self._lock:
            self._accounts.setdefault(machine, []).append(_Account(kind, market, hourly, at))

    def stop(self, machine: str, at: float, kind: str = "") -> None:
        """Nothing of this machine, or nothing of this kind of it, bills after `at`."""
        with self._lock:
            for account in self._accounts.get(machine, ()):
                if account.ended is None and kind in ("", account.kind):
                    account.ended = at

    def entries(self) -> list[LedgerEntry]:
        """What everything has cost until now."""
        now = time.time()
        with self._lock:
            return [
                _entry(machine, account, now, self.minimum_s)
                for machine, accounts in self._accounts.items()
                for account in accounts
            ]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._accounts.clear()


def _entry(machine: str, account: _Account, now: float, minimum_s: float) -> LedgerEntry:
    seconds = max(0.0, (now if account.ended is None else account.ended) - account.started)
    billed = max(math.ceil(round(seconds, 3)), minimum_s)  # begun seconds bill; a clock's noise is none
    price = billed * account.hourly / HOUR_S
    return LedgerEntry(
        machine=machine, kind=account.kind, market=account.market, seconds=seconds, price=price
    )


def fargate_hourly(
    region: str, *, vcpu: float, memory_gb: float, storage_gb: float, market: str, architecture: str
) -> float:
    """What a task of this size costs an hour, by the cloud's price list; NaN when that has no price."""
    rate, storage = fargate_price(region, architecture, market), fargate_price(region, "storage")
    beyond = max(0.0, storage_gb - table("fargate")["storage_included_gib"])
    if rate is None or (beyond and storage is None):
        return math.nan
    return float(vcpu * rate["vcpu"] + memory_gb * rate["memory"] + (beyond * storage if beyond else 0.0))


def ipv4_hourly() -> float:
    """What a public IPv4 address costs an hour."""
    return float(table("fargate")["public_ipv4"])
