"""What an account may run, asked beside a start and told before an order that is more."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.provider import Quota

__all__ = ["Limits", "too_many"]

logger = logging.getLogger("cloudprovider")

#: Seconds for which an answer holds: quotas change rarely, and the cloud itself refuses in any case.
HOLDS_S = 300.0
#: Seconds that an order waits for an answer, at the most.
PATIENCE_S = 2.0


class Limits:
    """The quotas of one kind of machine, asked in a thread of its own and remembered. Thread-safe.

    Parameters
    ----------
    ask
        Asks the cloud. When it may not say, nothing is known, and nobody is told more than by the log.
    """

    def __init__(self, ask: Callable[[], Sequence[Quota]]) -> None:
        self._ask = ask
        self._quotas: tuple[Quota, ...] = ()
        self._asking: threading.Thread | None = None
        self._asked = 0.0
        self._lock = threading.Lock()

    def begin(self) -> threading.Thread:
        """Ask, unless the last answer still holds; returns at once."""
        with self._lock:
            if self._asking is None or time.monotonic() - self._asked > HOLDS_S:
                self._asked = time.monotonic()
                self._asking = threading.Thread(target=self._learn, name="dask-cloud-quotas", daemon=True)
                self._asking.start()
            return self._asking

    def known(self) -> Sequence[Quota]:
        """The quotas, as soon as they are known; empty where they are not, or not soon enough."""
        self.begin().join(PATIENCE_S)
        return self._quotas

    def _learn(self) -> None:
        try:
            self._quotas = tuple(self._ask())
        except CloudError as error:
            logger.info("The account's quotas are not known: %s", error)


def too_many(quotas: Sequence[Quota], machines: int) -> str:
    """Why an account may not run so many machines; empty when it may, or when nobody knows.

    Parameters
    ----------
    quotas
        Of all markets from which the machines may come.
    machines
        How many there are to be.
    """
    room = sum(quota.machines for quota in quotas)
    if not quotas or machines <= room:
        return ""
    limits = " and ".join(
        f"{quota.name} of {quota.limit:g} {quota.unit}, of which a machine takes {quota.each:g}"
        + (f" and the scheduler {quota.taken:g}" if quota.taken else "")
        for quota in quotas
    )
    how = " ".join(dict.fromkeys(quota.advice for quota in quotas))
    return (
        f"{machines} machines are more than your account may run: its {limits}, has room for {room}, "
        f"and for fewer while anything else of yours runs. {how}"
    )
