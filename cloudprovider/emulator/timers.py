"""Things that happen later: one thread that waits, and a few that act."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

ACTORS = 8


class Timers:
    """Calls functions after a delay, any number of them, without a thread each.

    Parameters
    ----------
    scale
        Every delay is multiplied by it.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._actors = ThreadPoolExecutor(ACTORS, thread_name_prefix="cloud")
        threading.Thread(target=self._wait, name="timers", daemon=True).start()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` when `delay_s`, scaled, has passed."""
        with self._changed:
            if self._closed:
                return
            entry = (time.monotonic() + delay_s * self.scale, next(self._count), action)
            heapq.heappush(self._queue, entry)
            self._changed.notify()

    def close(self) -> None:
        """Forget all that was to happen, wait for what is happening, and end."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
        self._actors.shutdown(wait=True, cancel_futures=True)

    def _wait(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if not self._queue or self._queue[0][0] > now:
                    self._changed.wait(self._queue[0][0] - now if self._queue else None)
                    continue
                action = heapq.heappop(self._queue)[2]
                self._actors.submit(self._act, action)

    @staticmethod
    def _act(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            logger.exception("The emulated cloud failed at something it had to do later")
