"""Partial answers of Google's APIs: only the fields that are asked for.

https://cloud.google.com/compute/docs/api/how-tos/performance#partial-response
https://cloud.google.com/apis/docs/system-parameters
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["FieldsError", "chosen"]

TOKEN = re.compile(r"\s*([A-Za-z0-9_.-]+|\*|[/(),])")
HEADER = "x-goog-fieldmask"

Tree = dict[str, "Tree"]


class FieldsError(ValueError):
    """It is no list of fields."""


def chosen(document: Any, fields: str) -> Any:
    """What a list of fields, such as `items/*/instances(name,labels/x)`, leaves of a document."""
    tokens = _tokens(fields)
    tree, end = _read(tokens, 0)
    if end < len(tokens):
        raise FieldsError(f"unexpected '{tokens[end]}'")
    return _left(document, tree)


def _tokens(fields: str) -> list[str]:
    found, at = [], 0
    text = fields.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise FieldsError(f"unexpected '{text[at]}'")
        found.append(match[1])
        at = match.end()
    return found


def _read(tokens: list[str], at: int) -> tuple[Tree, int]:
    """The fields from a token on, until what closes them."""
    tree: Tree = {}
    while True:
        node = tree
        while True:
            if at >= len(tokens) or tokens[at] in "/(),":
                raise FieldsError("a field is missing")
            node = node.setdefault(tokens[at], {})
            at += 1
            if at < len(tokens) and tokens[at] == "/":
                at += 1
                continue
            break
        if at < len(tokens) and tokens[at] == "(":
            inner, at = _read(tokens, at + 1)
            if at >= len(tokens) or tokens[at] != ")":
                raise FieldsError("')' is missing")
            node.update(inner)
            at += 1
        if at >= len(tokens) or tokens[at] != ",":
            return tree, at
        at += 1


def _left(value: Any, tree: Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_left(one, tree) for one in value]
    if not isinstance(value, dict):
        return value
    every = tree.get("*")
    if every is not None:
        return {name: _left(one, every) for name, one in value.items()}
    return {name: _left(one, tree[name]) for name, one in value.items() if name in tree}
