"""Checks documents against the model classes of Azure's own SDK: what Azure takes, and what it answers."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import importlib
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Problem", "problems"]

#: Where the SDK's list of values is older than the cloud's: sizes and disk kinds that came later.
OPEN = frozenset({"VirtualMachineSizeTypes", "ExtendedLocationTypes", "DiskCreateOptionTypes"})


@dataclass(frozen=True)
class Problem:
    """What is wrong with a document.

    Parameters
    ----------
    path
        Where, such as `properties.osProfile.adminName`.
    what
        `unknown`, `missing`, `type` or `value`.
    text
        In the words of the service.
    """

    path: str
    what: str
    text: str


@dataclass(frozen=True)
class Field:
    """One member of a model, as it is on the wire."""

    kind: Any
    required: bool
    taken: bool
    told: bool


def problems(kind: Any, value: Any, *, answer: bool = False, path: str = "") -> Iterator[Problem]:
    """What is wrong with a document of a kind: a model class of the SDK, or a type made of them.

    Parameters
    ----------
    kind
        The class or type.
    value
        What was sent, or is to be answered.
    answer
        Whether it is to be answered: then read-only members belong to it, and others do not.
    path
        Where it is in the whole document.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        yield from _of_union(arguments, value, answer, path)
    elif origin is list:
        if not isinstance(value, list):
            yield _mistyped(path, value, "array")
            return
        for number, item in enumerate(value):
            yield from problems(arguments[0], item, answer=answer, path=f"{path}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield _mistyped(path, value, "object")
            return
        for name, item in value.items():
            yield from problems(arguments[1], item, answer=answer, path=f"{path}.{name}".lstrip("."))
    elif is_model(kind):
        yield from _of_model(kind, value, answer, path)
    else:
        yield from _of_plain(kind, value, path)


def is_model(kind: Any) -> bool:
    """Whether a type is a model class of the SDK."""
    return isinstance(kind, type) and any(
        base.__module__.endswith("_utils.model_base") for base in kind.__mro__[1:-1]
    )


def _of_union(kinds: tuple[Any, ...], value: Any, answer: bool, path: str) -> Iterator[Problem]:  # noqa: FBT001  (as it is told)
    if value is None and type(None) in kinds:
        return
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if enums and isinstance(value, str):
        yield from _of_enum(enums[0], value, path)
        return
    found = [list(problems(kind, value, answer=answer, path=path)) for kind in kinds if kind not in enums]
    if found and all(found):
        yield from found[0]


def _of_enum(kind: Any, value: str, path: str) -> Iterator[Problem]:
    known = [str(one.value) for one in kind]
    if kind.__name__ not in OPEN and value.lower() not in (one.lower() for one in known):
        allowed = ",".join(known)
        text = f"The value '{value}' of parameter '{path}' is not allowed. Allowed values are '{allowed}'."
        yield Problem(path, "value", text)


def _of_model(kind: Any, value: Any, answer: bool, path: str) -> Iterator[Problem]:  # noqa: FBT001  (as it is told)
    if not isinstance(value, dict):
        yield _mistyped(path, value, "object")
        return
    known = fields(kind)
    for name, item in value.items():
        inner = f"{path}.{name}".lstrip(".")
        if name not in known:
            text = f"Could not find member '{name}' on object of type '{kind.__name__}'. Path '{inner}'."
            yield Problem(inner, "unknown", text)
        elif known[name].told if answer else known[name].taken:
            yield from problems(known[name].kind, item, answer=answer, path=inner)
        elif answer:
            yield Problem(inner, "unknown", f"'{name}' is never told.")
    for name, one in known.items():
        if one.required and name not in value and (one.told if answer else one.taken):
            inner = f"{path}.{name}".lstrip(".")
            yield Problem(inner, "missing", f"Required parameter '{name}' is missing (null).")


def _of_plain(kind: Any, value: Any, path: str) -> Iterator[Problem]:
    if kind is Any or kind is object:
        return
    if kind is dt.datetime:
        if not _is_moment(value):
            yield _mistyped(path, value, "date-time")
        return
    takes: Any = {str: str, bytes: str, bool: bool, int: int, float: (int, float)}.get(kind)
    if takes is None:
        return
    if not isinstance(value, takes) or (isinstance(value, bool) and kind is not bool):
        yield _mistyped(path, value, kind.__name__)


def _is_moment(value: Any) -> bool:
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _mistyped(path: str, value: Any, wanted: str) -> Problem:
    return Problem(path, "type", f"Error converting value {value!r} to type '{wanted}'. Path '{path}'.")


@functools.cache
def fields(model: Any) -> Mapping[str, Field]:
    """The members of a model class, by their names on the wire."""
    package = model.__module__.rpartition(".models")[0]
    models = importlib.import_module(f"{package}.models")
    hints = typing.get_type_hints(model, localns={"_models": models, "_enums": models})
    found = {}
    for attribute, kind in hints.items():
        rest: Any = next(
            (one.__dict__[attribute] for one in model.__mro__ if attribute in one.__dict__), None
        )
        if type(rest).__name__ != "_RestField":
            continue
        seen = rest._visibility or ["read", "create", "update"]
        seconds = rest._format == "unix-timestamp"
        found[rest._rest_name_input or attribute] = Field(
            int if seconds else kind,
            required=type(None) not in typing.get_args(kind),
            taken=bool({"create", "update"} & set(seen)),
            told="read" in seen,
        )
    return found
