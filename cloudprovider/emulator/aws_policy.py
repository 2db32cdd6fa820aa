"""What IAM's policy documents say of one action on one resource.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import json
import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Need", "Unevaluated", "allows", "everything", "statements", "verdict"]


class Unevaluated(Exception):  # noqa: N818  (no refusal: what the emulator cannot tell)
    """A policy asks for what the emulator does not know of a call: neither a yes nor a no."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that policies must allow for a call.

    Parameters
    ----------
    action
        Such as `ecs:RunTask`.
    resource
        An ARN, or `*` for what is on no resource.
    context
        The condition keys that the call has, by their names in small letters.
    unknown
        Condition keys that it would have in AWS, and that the emulator cannot tell; one that ends in `/` stands
        for all that begin so.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, Any] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()

    def document(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {"action": self.action, "resource": self.resource, "context": dict(self.context)}


def verdict(documents: Iterable[Any], need: Need) -> str:
    """What policies say: `Allow`, `Deny` where a statement denies it, or nothing where none speaks of it."""
    effects = {statement["Effect"] for statement in statements(documents) if _concerns(statement, need)}
    return "Deny" if "Deny" in effects else "Allow" if effects else ""


def allows(documents: Iterable[Any], need: Need) -> bool:
    """Whether one statement allows it, and none denies it."""
    return verdict(documents, need) == "Allow"


def everything(documents: Iterable[Any]) -> bool:
    """Whether policies allow all there is, as an administrator's do."""
    found = [*statements(documents)]
    return not any(one["Effect"] == "Deny" for one in found) and any(
        "*" in _listed(one.get("Action")) and "*" in _listed(one.get("Resource")) and not one.get("Condition")
        for one in found
    )


def statements(documents: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Every statement of policy documents, given as text or as what that says."""
    for document in documents:
        parsed = _parsed(document) if isinstance(document, str) else document
        yield from _listed(parsed.get("Statement", []))


@functools.lru_cache(256)
def _parsed(text: str) -> Any:
    return json.loads(unquote(text) if text.startswith("%") else text)


def _concerns(statement: Mapping[str, Any], need: Need) -> bool:
    """Whether a statement speaks of this action, on this resource, under the call's conditions."""
    return (
        _speaks_of(statement, "Action", functools.partial(_is_action, need.action))
        and _speaks_of(statement, "Resource", functools.partial(_is_resource, need))
        and all(_is_met(named, wanted, need) for named, wanted in (statement.get("Condition") or {}).items())
    )


def _speaks_of(statement: Mapping[str, Any], element: str, fits: Callable[[str], bool]) -> bool:
    if f"Not{element}" in statement:
        return not any(map(fits, _listed(statement[f"Not{element}"])))
    return any(map(fits, _listed(statement.get(element))))


def _is_action(action: str, pattern: str) -> bool:
    return _fits(pattern.lower(), action.lower())


def _is_resource(need: Need, pattern: str) -> bool:
    return pattern == "*" or _fits(_filled(pattern, need), need.resource)


# -- conditions ----------------------------------------------------------------------------------------

#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
OPERATOR = re.compile(r"(?:(ForAllValues|ForAnyValue):)?(\w+?)(IfExists)?")
VARIABLE = re.compile(r"\$\{([^}]*)\}")


def _is_met(named: str, wanted: Mapping[str, Any], need: Need) -> bool:
    """Whether all keys of one operator are as it wants them."""
    match = OPERATOR.fullmatch(named)
    if match is None or (match[2] != "Null" and match[2] not in TESTS):
        raise Unevaluated(f"The emulated IAM does not know the condition operator {named!r}.")
    return all(_key_is_met(match, key, _listed(values), need) for key, values in wanted.items())


def _key_is_met(named: re.Match[str], key: str, values: Sequence[Any], need: Need) -> bool:
    quantifier, word, if_exists = named.groups()
    given = _given(key, need)
    if word == "Null":
        return all((given is None) is (str(value).lower() == "true") for value in values)
    test, negated = TESTS[word]
    if given is None:
        return bool(if_exists) or negated or quantifier == "ForAllValues"
    wanted = [_filled(str(value), need, stars="Like" in word or "Arn" in word) for value in values]

    def fits(one: str) -> bool:
        return any(test(one, value) for value in wanted) is not negated

    several = [str(one) for one in _listed(given)]
    return any(map(fits, several)) if quantifier == "ForAnyValue" else all(map(fits, several))


def _given(key: str, need: Need) -> Any:
    """The value of a condition key; None when the call has it not."""
    name = key.lower()
    if name in need.context:
        return need.context[name]
    if name in need.unknown or any(one.endswith("/") and name.startswith(one) for one in need.unknown):
        raise Unevaluated(
            f"The emulated AWS does not tell the condition key {key} of {need.action}, which a policy asks for."
        )
    return None


def _filled(text: str, need: Need, *, stars: bool = True) -> str:
    """A text with its policy variables; those that stand for a character of its own are no wildcard.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
    """

    def value(match: re.Match[str]) -> str:
        if match[1] in ("*", "?", "$"):
            return f"[{match[1]}]" if stars and match[1] != "$" else match[1]
        name, _, default = match[1].partition(",")
        found = _given(name.strip(), need)
        return default.strip(" '") if found is None else str(found)

    return VARIABLE.sub(value, text) if "${" in text else text


@functools.lru_cache(1024)
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern in which only `*` and `?` are wild; `[*]` and `[?]` are the characters themselves."""
    wild = {"*": ".*", "?": ".", "[*]": r"\*", "[?]": r"\?"}
    parts = re.split(r"(\[[*?]\]|[*?])", text)
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _fits(pattern: str, text: str) -> bool:
    return _pattern(pattern).fullmatch(text) is not None


def _arn_fits(one: str, pattern: str) -> bool:
    """Each of the six parts of an ARN is compared for itself."""
    parts, wanted = one.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(wanted) and all(map(_fits, wanted, parts))


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda one, wanted: compare(float(one), float(wanted))


def _moment(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def seconds(text: str) -> float:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        return dt.datetime.fromisoformat(text).timestamp()

    return lambda one, wanted: compare(seconds(one), seconds(wanted))


def _is_address_in(one: str, network: str) -> bool:
    return ipaddress.ip_address(one) in ipaddress.ip_network(network, strict=False)


#: How each operator compares a value with a wanted one, and whether it wants the opposite.
TESTS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (operator.eq, False),
    "StringNotEquals": (operator.eq, True),
    "StringEqualsIgnoreCase": (lambda one, wanted: one.lower() == wanted.lower(), False),
    "StringNotEqualsIgnoreCase": (lambda one, wanted: one.lower() == wanted.lower(), True),
    "StringLike": (lambda one, wanted: _fits(wanted, one), False),
    "StringNotLike": (lambda one, wanted: _fits(wanted, one), True),
    "ArnEquals": (_arn_fits, False),
    "ArnLike": (_arn_fits, False),
    "ArnNotEquals": (_arn_fits, True),
    "ArnNotLike": (_arn_fits, True),
    "Bool": (lambda one, wanted: one.lower() == wanted.lower(), False),
    "IpAddress": (_is_address_in, False),
    "NotIpAddress": (_is_address_in, True),
    **{
        f"{kind}{word}": (of(compare), negated)
        for kind, of in (("Numeric", _number), ("Date", _moment))
        for word, compare, negated in (
            ("Equals", operator.eq, False),
            ("NotEquals", operator.eq, True),
            ("LessThan", operator.lt, False),
            ("LessThanEquals", operator.le, False),
            ("GreaterThan", operator.gt, False),
            ("GreaterThanEquals", operator.ge, False),
        )
    },
}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
