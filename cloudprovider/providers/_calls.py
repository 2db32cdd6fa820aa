"""What every provider does with the calls of its SDK: side by side, in chunks, at a pace, and patiently."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Pace", "chunks", "moments", "side_by_side"]

T = TypeVar("T")


class Pace:
    """A token bucket: `burst` at once, then `rate` a second. Thread-safe.

    Parameters
    ----------
    burst
        How many may go at once.
    rate
        How many a second after that.
    """

    def __init__(self, burst: float, rate: float) -> None:
        self.burst, self.rate = burst, rate
        self._level = burst
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: float = 1) -> None:
        """Wait until `count` may go; who comes first goes first."""
        with self._lock:
            now = time.monotonic()
            self._level = min(self.burst, self._level + (now - self._since) * self.rate) - count
            self._since = now
            wait = max(0.0, -self._level / self.rate)
        if wait:
            time.sleep(wait)


def side_by_side(calls: Iterable[Callable[[], Any]], width: int = 16) -> list[Any]:
    """Make calls at the same time; their answers in order, or the first error once all have ended.

    Plain threads, because executors refuse work once the interpreter exits, and that is when clusters close.
    """
    waiting = deque(enumerate(calls))
    answers: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}

    def work() -> None:
        while waiting:
            try:
                index, call = waiting.popleft()
            except IndexError:  # another thread took it
                return
            try:
                answers[index] = call()
            except BaseException as error:  # noqa: BLE001  (raised again below, in the caller's thread)
                errors[index] = error

    threads = _started(work, min(len(waiting), width) - 1)
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return [answers[index] for index in sorted(answers)]


def _started(work: Callable[[], None], count: int) -> list[threading.Thread]:
    threads = []
    for _ in range(count):
        thread = threading.Thread(target=work, name="dask-cloud-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no new threads at the very end of the interpreter: this one does it all
            break
        threads.append(thread)
    return threads


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items, `size` at a time."""
    return (list(items[i : i + size]) for i in range(0, len(items), size))


def moments(patience_s: float) -> Iterator[float]:
    """Moments at which to look again, ever farther apart, until patience ends."""
    start, pause = time.monotonic(), 0.1
    while (passed := time.monotonic() - start) <= patience_s:
        yield passed
        time.sleep(min(pause, 5.0))
        pause *= 1.5
