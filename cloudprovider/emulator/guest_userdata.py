"""Reads user data as cloud-init does: plain or gzip, one part or a MIME multipart, templates rendered.

What is said of it is cloud-init 22.2.2's, which Amazon Linux 2023 has:
https://github.com/canonical/cloud-init/tree/22.2.2/cloudinit
"""

from __future__ import annotations

import copy
import email
import gzip
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

__all__ = ["UserData", "read_user_data", "shell_script"]

#: By how a part begins, the longest first.
BEGINNINGS = (
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("## template: jinja", "text/jinja2"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#part-handler", "text/part-handler"),
    ("#cloud-config", "text/cloud-config"),
    ("#include", "text/x-include-url"),
    ("#!", "text/x-shellscript"),
)

PLAIN = "text/x-not-multipart"

#: Types that say nothing, so that a part's beginning tells; a script must begin as one.
TOLD_BY_BEGINNING = frozenset({"text/plain", PLAIN, "text/x-shellscript"})

GZIP_TYPES = re.compile(r"application/(x-)?(gzip|gunzip|compress)")

#: cloud-init's kinds of scripts, by the folder they are kept in.
SCRIPTS = {
    "text/x-shellscript": "instance/scripts",
    "text/x-shellscript-per-boot": "scripts/per-boot",
    "text/x-shellscript-per-instance": "scripts/per-instance",
    "text/x-shellscript-per-once": "scripts/per-once",
}

#: Merge-Type of a part that has none: its keys replace those before.
REPLACE = "dict(replace)+list()+str()"

MISSING = "CI_MISSING_JINJA_VAR/"


@dataclass
class UserData:
    """What user data says, and what is wrong with it."""

    config: dict[str, Any] = field(default_factory=dict)
    scripts: list[tuple[str, str, str]] = field(default_factory=list)
    boothooks: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def warn(self, module: str, text: str) -> None:
        """Note what cloud-init logs."""
        self.warnings.append((module, text))


def read_user_data(data: bytes, instance_data: Mapping[str, Any]) -> UserData:
    """Read user data; what cannot be used is among its warnings, as cloud-init goes on without it."""
    read = UserData()
    if not data:
        return read
    data = _unzipped(data)
    if b"mime-version:" not in data[:4096].lower():
        _part(read, data, PLAIN, "part-001", "", instance_data)
        return read
    number = 0
    for part in email.message_from_bytes(data).walk():
        if part.get_content_maintype() == "multipart":
            continue
        number += 1
        name = part.get_filename() or f"part-{number:03d}"
        merge = part.get("Merge-Type") or part.get("X-Merge-Type") or ""
        _part(read, _payload(part), part.get_content_type(), name, str(merge), instance_data)
    return read


def shell_script(commands: Any) -> str:
    """The script that a list of commands becomes: lists are quoted, texts are the shell's own.

    Raises
    ------
    TypeError
        When it is no such list.
    """
    if not isinstance(commands, list):
        raise TypeError(f"Input to shellify was type '{type(commands).__name__}'. Expected list or tuple.")
    lines = ["#!/bin/sh"]
    for command in commands:
        if isinstance(command, list):
            lines.append(" ".join("'" + str(word).replace("'", "'\\''") + "'" for word in command))
        elif isinstance(command, str):
            lines.append(command)
        elif command is not None:
            raise TypeError(
                f"Unable to shellify type '{type(command).__name__}'. Expected list, string, tuple. Got: {command}"
            )
    return "\n".join(lines) + "\n"


def _unzipped(data: bytes) -> bytes:
    """The data itself, when it cannot be decompressed."""
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error):
        return data


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _part(
    read: UserData, data: bytes, kind: str, name: str, merge: str, instance_data: Mapping[str, Any]
) -> None:
    """Take one part for what it is."""
    if GZIP_TYPES.match(kind):
        data, kind = _unzipped(data), "text/plain"
    text = data.decode("utf-8", "replace")
    if kind in TOLD_BY_BEGINNING:
        kind = _kind(text) or kind
    if kind == "text/jinja2":
        text = _rendered(read, text, name, instance_data)
        kind = _kind(text) or PLAIN
    if not text.strip():
        return
    if kind == "text/cloud-config":
        _merge(read, text, name, merge)
    elif kind in SCRIPTS:
        read.scripts.append((SCRIPTS[kind], name.replace("/", "_"), text.replace("\r\n", "\n")))
    elif kind == "text/cloud-boothook":
        read.boothooks.append((name, text.replace("\r\n", "\n").removeprefix("#cloud-boothook").lstrip("\n")))
    else:
        start = text.split("\n", 1)[0][:24].encode("unicode_escape")
        what = "non-multipart" if kind == PLAIN else "unknown content-type"
        read.warn("__init__.py", f"Unhandled {what} ({kind}) userdata: '{start!r}...'")


def _kind(text: str) -> str:
    start = text.lstrip().lower()
    return next((kind for beginning, kind in BEGINNINGS if start.startswith(beginning)), "")


# --- Templates -----------------------------------------------------------------------------------------


def _rendered(read: UserData, text: str, name: str, instance_data: Mapping[str, Any]) -> str:
    """A template with the instance's data; empty when it cannot be rendered."""
    import jinja2

    body = text.lstrip().split("\n", 1)[1] if "\n" in text.lstrip() else ""
    variables = _variables(instance_data)
    try:
        environment = jinja2.Environment(  # noqa: S701  (it writes no HTML)
            undefined=_undefined(jinja2), trim_blocks=True, keep_trailing_newline=True
        )
        rendered = environment.from_string(body).render(**variables)
    except (TypeError, jinja2.TemplateError) as error:
        read.warn("jinja_template.py", f"Ignoring jinja template for {name}: {error}")
        return ""
    if missing := re.findall(rf"{re.escape(MISSING)}([^\s]+)", rendered):
        read.warn(
            "jinja_template.py",
            f"Could not render jinja template variables in file '{name}': "
            + ", ".join(f"'{variable}'" for variable in missing),
        )
    return rendered


def _undefined(jinja2: Any) -> Any:
    """What stands for a variable that is not there."""

    class Missing(jinja2.DebugUndefined):  # type: ignore[misc]
        def __str__(self) -> str:
            return f"{MISSING}{self._undefined_name}"

    return Missing


def _variables(data: Mapping[str, Any]) -> dict[str, Any]:
    """Instance data as templates see it: without hyphens in names, and what is in `v1` also by itself."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        inner = _variables(value) if isinstance(value, dict) else value
        found[key] = found[re.sub(r"[-.]", "_", key)] = inner
        if re.fullmatch(r"v\d+", key) and isinstance(inner, dict):
            found |= inner
    return found


# --- Several cloud-configs -----------------------------------------------------------------------------


def _merge(read: UserData, text: str, name: str, merge_type: str) -> None:
    """Merge a cloud-config into what came before."""
    import yaml

    failed = f"Failed at merging in cloud config part from {name}"
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        read.warn("util.py", f"Failed loading yaml blob. Invalid format: {' '.join(str(error).split())}")
        read.warn("cloud_config.py", f"{failed}: empty cloud config")
        return
    if config is None:
        read.warn("cloud_config.py", f"{failed}: empty cloud config")
        return
    if not isinstance(config, dict):
        read.warn(
            "util.py",
            f"Failed loading yaml blob. Yaml load allows (<class 'dict'>,) root types, but got "
            f"{type(config).__name__} instead",
        )
        read.warn("cloud_config.py", f"{failed}: empty cloud config")
        return
    how = config.get("merge_how") or config.get("merge_type") or merge_type or REPLACE
    read.config = merged(read.config, config, _mergers(how))


def _mergers(how: Any) -> dict[str, list[str]]:
    """The options of each merger, from `list(append)+dict(recurse_list)` or a list of names and settings."""
    if isinstance(how, str):
        return {
            kind: [option.strip() for option in options.split(",")]
            for kind, options in re.findall(r"(\w+)\(([^)]*)\)", how.lower())
        }
    return {entry["name"]: list(entry.get("settings", [])) for entry in how}


def merged(old: Any, new: Any, how: Mapping[str, list[str]]) -> Any:
    """Two values made one by cloud-init's mergers, as far as these have options for the kind."""
    if isinstance(old, dict) and isinstance(new, dict) and "dict" in how:
        return _merged_dicts(old, new, how)
    if isinstance(old, list) and isinstance(new, list) and "list" in how:
        if "append" in how["list"]:
            return old + new
        if "prepend" in how["list"]:
            return new + old
        return new + old[len(new) :] if "no_replace" not in how["list"] else old
    if isinstance(old, str) and isinstance(new, str) and "append" in how.get("str", []):
        return old + new
    return old


def _merged_dicts(
    old: Mapping[str, Any], new: Mapping[str, Any], how: Mapping[str, list[str]]
) -> dict[str, Any]:
    options = how["dict"]
    result = copy.deepcopy(dict(old))
    for key, value in new.items():
        recurses = isinstance(value, dict) or (
            isinstance(value, list) and ("recurse_array" in options or "recurse_list" in options)
        )
        recurses = recurses or (isinstance(value, str) and "recurse_str" in options)
        if key not in result or "replace" in options:
            result[key] = value
        elif value is None and "allow_delete" in options:
            del result[key]
        elif recurses:
            result[key] = merged(result[key], value, how)
    return result
