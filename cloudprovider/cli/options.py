"""The options of a Config as options of a command: the same names, the same words."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from cloudprovider.config import Config

__all__ = ["chosen", "config_options"]

#: One parameter of a class's numpydoc, with its lines.
PARAMETER = re.compile(r"(?m)^(\w+(?:, \w+)*)\n((?: {4}.*\n?)+)")
SPOT = ("true", "false", "fallback")


def config_options(config: type[Config], leave_out: Collection[str] = ()) -> list[click.Parameter]:
    """An option for each field that a word can say; one that was not given is None.

    Parameters
    ----------
    config
        Of a cloud.
    leave_out
        Fields that are none of the command's.
    """
    helps = described(config)
    fields = (field for field in dataclasses.fields(config) if field.name not in leave_out)
    return [option for field in fields if (option := _option(field, helps.get(field.name, "")))]


def _option(field: dataclasses.Field[Any], help: str) -> click.Option | None:
    """The option of one field; None for a mapping, which no word can say."""
    kind, word = str(field.type), field.name.replace("_", "-")
    if "Mapping" in kind or kind == "Any":
        return None
    if kind == "Spot":  # a flag, or with a value
        return click.Option(
            [f"--{word}"], is_flag=False, flag_value="true", default=None, type=click.Choice(SPOT), help=help
        )
    if kind.startswith("bool"):
        return click.Option([f"--{word}/--no-{word}"], default=None, help=help)
    plain = {"int": int, "float": float}.get(kind.removesuffix(" | None"), str)
    return click.Option([f"--{word}"], type=plain, multiple="Sequence" in kind, default=None, help=help)


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of such options, as keyword arguments of a Config."""
    kept = {name: value for name, value in given.items() if value is not None and value != ()}
    if kept.get("spot") in ("true", "false"):
        kept["spot"] = kept["spot"] == "true"
    return {name: [*value] if isinstance(value, tuple) else value for name, value in kept.items()}


def described(config: type[Config]) -> dict[str, str]:
    """What a Config's docstring, and those that it builds on, say of each field."""
    found: dict[str, str] = {}
    for kind in config.__mro__:
        found = {**dict(_parameters(kind.__doc__ or "")), **found}
    return found


def _parameters(doc: str) -> Iterator[tuple[str, str]]:
    for match in PARAMETER.finditer(inspect.cleandoc(doc)):
        text = " ".join(match.group(2).split()).replace("`", "")
        for name in match.group(1).split(", "):
            yield name, text
