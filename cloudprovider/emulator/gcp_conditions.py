"""The conditions of role bindings: the part of the Common Expression Language that IAM has for resources.

https://cloud.google.com/iam/docs/conditions-attribute-reference
"""

from __future__ import annotations

import datetime as dt
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Condition", "ConditionError"]

TOKENS = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<name>[A-Za-z_]\w*)|(?P<number>\d+)"""
    r"""|(?P<sign>&&|\|\||==|!=|<=|>=|[<>!().,]))"""
)
ATTRIBUTES = ("resource.name", "resource.type", "resource.service", "request.time")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: https://cloud.google.com/iam/docs/conditions-overview#limitations
MOST_OPERATORS = 12

Value = bool | str | dt.datetime
Expression = Callable[[Mapping[str, Value]], Value]  # raises KeyError or TypeError where CEL has an error


class ConditionError(ValueError):
    """It is no condition, or one with what IAM or this emulator does not know."""


class Condition:
    """One condition.

    Parameters
    ----------
    text
        Such as `resource.name.startsWith('projects/p/zones/z/instances/dask-a-')`.

    Raises
    ------
    ConditionError
        When it cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._expression = _Parser(text).parsed()

    def holds(self, attributes: Mapping[str, Value]) -> bool:
        """Whether it is true; an error, such as an attribute that the resource has not, is not."""
        try:
            return self._expression(attributes) is True
        except (KeyError, TypeError):
            return False


class _Parser:
    """Reads an expression by recursive descent, and makes it a function."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def parsed(self) -> Expression:
        logical = sum(token in (("sign", "&&"), ("sign", "||"), ("sign", "!")) for token in self._tokens)
        if logical > MOST_OPERATORS:
            raise ConditionError(f"a condition has at most {MOST_OPERATORS} logical operators")
        expression = self._either()
        if self._at < len(self._tokens):
            raise ConditionError(f"unexpected '{self._tokens[self._at][1]}'")
        return expression

    def _takes(self, sign: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign):
            self._at += 1
            return True
        return False

    def _needs(self, sign: str) -> None:
        if not self._takes(sign):
            raise ConditionError(f"'{sign}' is missing")

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise ConditionError("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _either(self) -> Expression:
        sides = [self._both()]
        while self._takes("||"):
            sides.append(self._both())
        return sides[0] if len(sides) == 1 else lambda given: _decided(sides, given, decisive=True)

    def _both(self) -> Expression:
        sides = [self._compared()]
        while self._takes("&&"):
            sides.append(self._compared())
        return sides[0] if len(sides) == 1 else lambda given: _decided(sides, given, decisive=False)

    def _compared(self) -> Expression:
        left = self._single()
        for sign, compare in COMPARISONS.items():
            if self._takes(sign):
                right = self._single()
                return lambda given: compare(left(given), right(given))
        return left

    def _single(self) -> Expression:
        if self._takes("!"):
            inner = self._single()
            return lambda given: not _truth(inner(given))
        if self._takes("("):
            value = self._either()
            self._needs(")")
        else:
            value = self._leaf()
        while self._takes("."):
            value = self._called(value, self._next()[1])
        return value

    def _leaf(self) -> Expression:
        kind, word = self._next()
        if kind == "text":
            text = _unquoted(word)
            return lambda _: text
        if word in ("true", "false"):
            return lambda _: word == "true"
        if word == "timestamp":
            self._needs("(")
            moment = _moment(_unquoted(self._next()[1]))
            self._needs(")")
            return lambda _: moment
        self._needs(".")
        name = f"{word}.{self._next()[1]}"
        if name not in ATTRIBUTES:
            raise ConditionError(f"'{name}' is not known")
        return lambda given: given[name]

    def _called(self, value: Any, method: str) -> Expression:
        act = METHODS.get(method)
        if act is None:
            raise ConditionError(f"the method '{method}' is not known")
        self._needs("(")
        kind, word = self._next()
        self._needs(")")
        if kind != "text":
            raise ConditionError(f"'{method}' takes a text")
        argument = _unquoted(word)
        if method == "extract" and len(re.findall(r"\{\w+\}", argument)) != 1:
            raise ConditionError(f"the template '{argument}' needs one name in braces")
        return lambda given: act(_text(value(given)), argument)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = TOKENS.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConditionError(f"unexpected '{text[at:].strip()[:1]}'")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _decided(sides: Any, given: Mapping[str, Value], *, decisive: bool) -> bool:
    """One side that is `decisive` decides, whatever error another has, as CEL has it."""
    failed: Exception | None = None
    for side in sides:
        try:
            if _truth(side(given)) is decisive:
                return decisive
        except (KeyError, TypeError) as error:
            failed = error
    if failed is not None:
        raise failed
    return not decisive


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise TypeError("a condition is true or false")
    return value


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1])


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConditionError(f"'{text}' is no timestamp") from error
    if moment.tzinfo is None:
        raise ConditionError(f"the timestamp '{text}' has no zone")
    return moment


def _extracted(text: str, template: str) -> str:
    """What stands where the template has its braces; empty when the rest does not match."""
    before, _, rest = template.partition("{")
    after = rest.partition("}")[2]
    start = text.find(before)
    if start < 0:
        return ""
    found = text[start + len(before) :]
    if not after:
        return found
    value, ends, _ = found.partition(after)
    return value if ends else ""


METHODS: dict[str, Callable[[str, str], Value]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "extract": _extracted,
}
