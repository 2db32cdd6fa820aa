"""Parameters of Systems Manager that expire: their policy says when, and they are gone by themselves.

https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-policies.html
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.account import Account

__all__ = ["Expiries"]


class Expiries:
    """When parameters expire, and that they do.

    Parameters
    ----------
    account
        Whose timers they go by; a time of day is no wait of the cloud's own, so no scale changes it.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ends: dict[tuple[str, str], float] = {}

    def put(self, region: str, parameters: Mapping[str, Any]) -> None:
        """A parameter was put: its new policies count."""
        key, until = (region, str(parameters["Name"])), expires(parameters)
        if until is None:
            self._ends.pop(key, None)
            return
        self._ends[key] = until
        timers = self._account.timers
        timers.after(max(0.0, until - time.time()) / max(timers.scale, 1e-3), lambda: self._end(*key, until))

    def _end(self, region: str, name: str, until: float) -> None:
        from moto.ssm import ssm_backends

        with self._account.lock:
            if self._ends.get((region, name)) == until:
                del self._ends[region, name]
                ssm_backends[ACCOUNT][region].delete_parameters([name])


def expires(parameters: Mapping[str, Any]) -> float | None:
    """Seconds since the epoch when a parameter of PutParameter expires; None when it does not."""
    for policy in json.loads(parameters.get("Policies") or "[]"):
        if policy["Type"] == "Expiration":
            return datetime.fromisoformat(policy["Attributes"]["Timestamp"]).timestamp()
    return None
