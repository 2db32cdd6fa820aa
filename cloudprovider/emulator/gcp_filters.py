"""The filters of Google's lists: the part of their language that lists of secrets and log entries share.

https://google.aip.dev/160 https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import datetime as dt
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["FilterError", "parsed"]

TOKENS = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<sign>=~|!~|!=|<=|>=|[=<>:()])"""
    r"""|(?P<word>(?:[^\s=<>:()!"~]|(?<=\.)"(?:[^"\\]|\\.)*")+))"""
)
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS = ("=", "!=", ":", "=~", "!~", *ORDERS)
SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
#: Names of functions would stand before a parenthesis: none is known here.
LOGICAL = ("AND", "OR", "NOT")

Filter = Callable[[Mapping[str, Any]], bool]


class FilterError(ValueError):
    """It is no filter, or one with what this emulator does not know."""


def parsed(text: str) -> Filter:
    """What tells whether a document matches a filter; an empty one matches all."""
    reader = _Reader(text)
    return reader.all() if reader.tokens else lambda _: True


class _Reader:
    """Reads a filter by recursive descent: OR binds closer than AND."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self._at = 0

    def all(self) -> Filter:
        found = self._both()
        if self._at < len(self.tokens):
            raise FilterError(f"unexpected '{self.tokens[self._at][1]}'")
        return found

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self._at] if self._at < len(self.tokens) else ("", "")

    def _takes(self, *wanted: tuple[str, str]) -> bool:
        if self._peek() in wanted:
            self._at += 1
            return True
        return False

    def _both(self) -> Filter:
        sides = [self._either()]
        while self._takes(("word", "AND")) or self._peek() not in (("", ""), ("sign", ")"), ("word", "OR")):
            sides.append(self._either())
        return sides[0] if len(sides) == 1 else lambda one: all(side(one) for side in sides)

    def _either(self) -> Filter:
        sides = [self._single()]
        while self._takes(("word", "OR")):
            sides.append(self._single())
        return sides[0] if len(sides) == 1 else lambda one: any(side(one) for side in sides)

    def _single(self) -> Filter:
        if self._takes(("word", "NOT")):
            inner = self._single()
            return lambda one: not inner(one)
        if self._takes(("sign", "(")):
            found = self._both()
            if not self._takes(("sign", ")")):
                raise FilterError("')' is missing")
            return found
        return self._compared()

    def _compared(self) -> Filter:
        kind, word = self._peek()
        if kind not in ("word", "text") or word in LOGICAL:
            raise FilterError(f"unexpected '{word}'" if word else "it ends too early")
        self._at += 1
        if kind == "word" and word.startswith("-"):
            raise FilterError("'-' is not known: use NOT")
        sign = self._peek()[1]
        if self._peek()[0] != "sign" or sign not in OPERATORS:
            wanted = _unquoted(word)
            return lambda one: _contains(one, wanted.casefold())
        self._at += 1
        path = _path(word)
        values = self._values()
        return lambda one: any(_matches(one, path, sign, value) for value in values)

    def _values(self) -> list[str]:
        """One value, or those of `(a OR b)`."""
        if not self._takes(("sign", "(")):
            return [self._value()]
        values = [self._value()]
        while self._takes(("word", "OR")):
            values.append(self._value())
        if not self._takes(("sign", ")")):
            raise FilterError("')' is missing")
        return values

    def _value(self) -> str:
        kind, word = self._peek()
        if kind not in ("word", "text"):
            raise FilterError("a value is missing")
        self._at += 1
        return _unquoted(word)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = re.sub(r"(?m)^\s*--.*$", "", text).rstrip()
    while at < len(text):
        match = TOKENS.match(text, at)
        if match is None or match.lastgroup is None:
            raise FilterError(f"unexpected '{text[at:].strip()[:1]}'")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def _path(word: str) -> list[str]:
    return [_unquoted(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"|[^."]+', word)]


def _contains(value: Any, wanted: str) -> bool:
    if isinstance(value, Mapping):
        return any(_contains(one, wanted) for one in value.values())
    if isinstance(value, list):
        return any(_contains(one, wanted) for one in value)
    return wanted in str(value).casefold()


def _matches(one: Mapping[str, Any], path: list[str], sign: str, wanted: str) -> bool:
    """Whether a field compares so; one that is missing never does, except with `!=` and `!~`."""
    found: Any = one
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        return sign in ("!=", "!~")
    if sign == ":":
        return wanted == "*" or _contains(found, wanted.casefold())
    if sign in ("=~", "!~"):
        return (re.search(wanted, str(found)) is not None) is (sign == "=~")
    if sign in ORDERS:
        left, right = _comparable(path, str(found)), _comparable(path, wanted)
        return type(left) is type(right) and ORDERS[sign](left, right)
    return (str(found).casefold() == wanted.casefold()) is (sign == "=")


def _comparable(path: list[str], text: str) -> float | int | str:
    if path == ["severity"] and text.upper() in SEVERITIES:
        return SEVERITIES.index(text.upper())
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return text
