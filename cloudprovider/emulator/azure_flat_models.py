"""Checks documents against the older model classes of Azure's SDK, which name their members by flat paths."""

from __future__ import annotations

import datetime as dt
import importlib
import re
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_models import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["problems"]

PLAIN: dict[str, Any] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "iso-8601": str,
    "object": object,
}


def problems(kind: Any, value: Any, *, answer: bool = False, path: str = "") -> Iterator[Problem]:
    """What is wrong with a document of a model class.

    Parameters
    ----------
    kind
        The class.
    value
        What was sent, or is to be answered.
    answer
        Whether it is to be answered: what was sent may hold what is only read, which Azure passes over.
    path
        Where it is in the whole document.
    """
    if not isinstance(value, dict):
        yield Problem(path, "type", f"Error converting value {value!r} to type '{kind.__name__}'.")
        return
    members = {one["key"]: one["type"] for one in kind._attribute_map.values()}
    seen = dict(_flat(value, members))
    for name, one in seen.items():
        inner = f"{path}.{name}".lstrip(".")
        if name not in members:
            text = f"Could not find member '{name}' on object of type '{kind.__name__}'. Path '{inner}'."
            yield Problem(inner, "unknown", text)
        elif one is not None:
            yield from _of_type(members[name], one, kind, inner, answer=answer)
    for attribute, rules in kind._validation.items():
        name = kind._attribute_map[attribute]["key"]
        if rules.get("required") and seen.get(name) is None:
            inner = f"{path}.{name}".lstrip(".")
            yield Problem(inner, "missing", f"Required parameter '{name}' is missing (null).")


def _flat(value: dict[str, Any], members: dict[str, str], before: str = "") -> Iterator[tuple[str, Any]]:
    """The members of a document by the paths that the class has."""
    for name, one in value.items():
        path = f"{before}{name}"
        if (
            path not in members
            and isinstance(one, dict)
            and any(key.startswith(f"{path}.") for key in members)
        ):
            yield from _flat(one, members, f"{path}.")
        else:
            yield path, one


def _of_type(kind: str, value: Any, model: Any, path: str, *, answer: bool) -> Iterator[Problem]:
    many = {"[": list, "{": dict}.get(kind[0])
    if many is not None and isinstance(value, many):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            inner = f"{path}.{name}" if many is dict else f"{path}[{name}]"
            yield from _of_type(kind[1:-1], item, model, inner, answer=answer)
    elif many is not None or (kind in PLAIN and not _is_plain(kind, value)):
        yield Problem(path, "type", f"Error converting value {value!r} to type '{kind}'. Path '{path}'.")
    elif kind not in PLAIN:
        models = importlib.import_module(re.sub(r"\._models_py3$", "", model.__module__))
        inner_kind = getattr(models, kind)
        if hasattr(inner_kind, "_attribute_map"):
            yield from problems(inner_kind, value, answer=answer, path=path)


def _is_plain(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind in ("bool", "object")
    return isinstance(value, PLAIN[kind]) and (kind != "iso-8601" or _is_moment(value))


def _is_moment(value: str) -> bool:
    try:
        dt.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
