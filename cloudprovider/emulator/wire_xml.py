"""Answers of services that speak XML, written by botocore's own model: what it does not allow is not written."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from cloudprovider.emulator.wire import json_answer

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from cloudprovider.emulator.wire import Request

__all__ = ["Written", "answer", "named", "written"]

NAMESPACES = {
    "ec2": "http://ec2.amazonaws.com/doc/2016-11-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


class Written(str):
    """A part of an answer that has been written already."""

    __slots__ = ()


def named(request: Request) -> dict[str, Any]:
    """The parameters of a request in botocore's names, as its caller wrote them."""
    if request.model is None or request.model.input_shape is None:
        return {}
    parsed: dict[str, Any] = _named(request.model.input_shape, request.parameters or {})
    return parsed


def _named(shape: Any, value: Any) -> Any:
    if shape.type_name == "list":
        return [_named(shape.member, item) for item in value]
    if shape.type_name != "structure":
        return value
    wire = ((name, member, member.serialization.get("name", name)) for name, member in shape.members.items())
    return {name: _named(member, value[key]) for name, member, key in wire if key in value}


def answer(request: Request, document: Mapping[str, Any]) -> tuple[bytes, str]:
    """An answer in its service's own protocol: its body and its content type."""
    if request.protocol == "json":
        return json_answer(request, document)
    assert request.model is not None
    operation, id = request.operation, uuid.uuid4()
    body = written(request.model.output_shape, document, operation) if document else ""
    if request.protocol == "ec2":
        body = f"<requestId>{id}</requestId>{body}"
    else:
        body = (
            f"<{operation}Result>{body}</{operation}Result>"
            f"<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata>"
        )
    space = NAMESPACES[request.service]
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{operation}Response xmlns="{space}">{body}</{operation}Response>'
    return text.encode(), "text/xml;charset=UTF-8"


def written(shape: Any, value: Any, path: str = "") -> Written:
    """A value as XML.

    Raises
    ------
    ValueError
        When the model does not allow it.
    """
    if isinstance(value, Written):
        return value
    kind = shape.type_name
    if kind == "structure":
        return Written("".join(_members(shape, value, path)))
    if kind == "list":
        tag = shape.member.serialization.get("name", "member")
        items = (written(shape.member, item, f"{path}[]") for item in value)
        return Written("".join(f"<{tag}>{item}</{tag}>" for item in items))
    return Written(_scalar(shape, value, path))


def _members(shape: Any, value: Mapping[str, Any], path: str) -> list[str]:
    members, parts = shape.members, []
    for name, item in value.items():
        if item is None:
            continue
        if name not in members:
            raise ValueError(f"'{path}.{name}' is unknown")
        member = members[name]
        tag = member.serialization.get("name", name)
        parts.append(f"<{tag}>{written(member, item, f'{path}.{name}')}</{tag}>")
    return parts


def _scalar(shape: Any, value: Any, path: str) -> str:
    kind = shape.type_name
    if kind == "boolean" and isinstance(value, bool):
        return "true" if value else "false"
    if kind == "timestamp":
        return value if isinstance(value, str) else _time(value)
    if kind in ("integer", "long"):
        return str(int(value))
    if kind in ("float", "double"):
        return str(float(value))
    if kind not in ("string", "blob") or not isinstance(value, str):
        raise ValueError(f"'{path}' is {value!r}, no {kind}")
    if shape.enum and value not in shape.enum:
        raise ValueError(f"'{path}' is '{value}', not one of {', '.join(shape.enum)}")
    return escape(value)


def _time(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
