"""How a machine on Google Cloud or Azure asks its cloud, with the standard library alone."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

    T = TypeVar("T")

__all__ = ["Again", "Answer", "again", "ask", "patiently"]

#: How long a question may take, and the longest pause between two.
TIMEOUT_S, PAUSE_S = 10.0, 10.0
TOO_MANY, BROKEN, WORST = 429, 500, 600


class Again(Exception):  # noqa: N818  (no error yet)
    """It did not work now; says why, for whoever loses patience."""


class Answer:
    """What was answered.

    Parameters
    ----------
    status
        0 when nobody answered.
    text, headers
        What was said; names of headers in lower case.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        self.status = status
        self.text = text
        self.headers = headers

    def document(self) -> dict[str, Any]:
        """The JSON it holds; empty when it holds none."""
        try:
            said = json.loads(self.text)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def why(self) -> str:
        """The reason it gives."""
        error = self.document().get("error", {})
        said = error.get("message") if isinstance(error, dict) else self.document().get("error_description")
        return f"{self.status or 'no answer'}: {said or self.text[:300] or 'no reason'}"


def ask(url: str, headers: Mapping[str, str], data: bytes | None = None, *, direct: bool = False) -> Answer:
    """Ask once; `direct` is for a metadata service, which is past any proxy."""
    request = urllib.request.Request(url, data, dict(headers))  # noqa: S310  (the cloud's own, or the user's)
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return Answer(answer.status, answer.read().decode(), _lowered(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(errors="replace"), _lowered(error.headers))
    except OSError as error:
        return Answer(0, str(error), {})


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def again(answer: Answer) -> bool:
    """Whether another time may do, whoever is asked."""
    return answer.status in (0, TOO_MANY) or BROKEN <= answer.status < WORST


def patiently(attempt: Callable[[], T], patience_s: float) -> T:
    """What `attempt` comes to, if need be at another time: after pauses of any length, as all machines start at once.

    Raises
    ------
    ValueError
        When patience ends; says what `attempt` said last.
    """
    deadline, pause_s = time.monotonic() + patience_s, 0.5
    while True:
        try:
            return attempt()
        except Again as why:
            if time.monotonic() > deadline:
                raise ValueError(str(why)) from why
        time.sleep(random.uniform(0, pause_s))  # noqa: S311
        pause_s = min(PAUSE_S, 2 * pause_s)
