"""AWS's wire protocols, checked against botocore's own service models, on the way in and on the way out.

A request is refused as the service would refuse it. An answer that the model does not allow is a bug of
the emulator: the caller gets a 500 and the log says what was wrong.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from botocore.model import OperationModel, ServiceModel

#: The name a service signs by, where botocore calls it otherwise.
SERVICES = {
    "tagging": "resourcegroupstaggingapi",
    "servicequotas": "service-quotas",
    "monitoring": "cloudwatch",
    "elasticfilesystem": "efs",
}
#: What each service calls a request that does not fit its model; the others say ValidationException.
REFUSALS = {
    "ecs": "InvalidParameterException",
    "logs": "InvalidParameterException",
    "resourcegroupstaggingapi": "InvalidParameterException",
    "ec2": "InvalidParameterValue",
    "iam": "ValidationError",
    "sts": "ValidationError",
}
CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")


class AWSError(Exception):
    """An error that the service answers."""

    def __init__(
        self, code: str, message: str, status: int = 400, fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields or {}
        self.request: Request | None = None


@dataclass(frozen=True)
class Request:
    """One call of the API, as far as it could be read.

    Parameters
    ----------
    service, region, operation
        In botocore's names.
    protocol
        `json`, `query` or `ec2`; empty when the emulator does not check this protocol.
    model
        The operation's own model; None when it is not checked.
    parameters
        Its parameters in botocore's names.
    key
        The access key that signed it.
    """

    service: str
    region: str
    operation: str
    protocol: str = ""
    model: OperationModel | None = None
    parameters: Mapping[str, Any] | None = None
    key: str = ""


@functools.cache
def service_model(service: str) -> ServiceModel | None:
    """The model botocore has of a service; None when it knows none."""
    import botocore.session
    from botocore.exceptions import UnknownServiceError

    try:
        return botocore.session.get_session().get_service_model(service)
    except UnknownServiceError:
        return None


def example(service: str, operation: str) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a call without parameters."""
    model = service_model(service)
    assert model is not None
    name = next((signed for signed, known in SERVICES.items() if known == service), service)
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=AKIAEMULATEDCLOUD000/20250101/us-east-1/{name}/aws4_request",
        "Host": "127.0.0.1",
    }
    if prefix := model.metadata.get("targetPrefix"):
        headers |= {
            "X-Amz-Target": f"{prefix}.{operation}",
            "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
        }
        return headers, b"{}"
    headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
    return headers, f"Action={operation}&Version={model.api_version}".encode()


def read(headers: Mapping[str, str], path: str, body: bytes) -> Request:
    """What a request asks for, checked when its protocol is one that can be."""
    signed = CREDENTIAL.search(headers.get("Authorization", ""))
    if not signed:
        return Request("unsigned", "", path)
    key, region, name = signed.groups()
    service = SERVICES.get(name, name)
    target = headers.get("X-Amz-Target", "")
    form = headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True) if form else []
    operation = target.rpartition(".")[2] if target else dict(pairs).get("Action", "")
    model = service_model(service)
    if model is None or operation not in model.operation_names:
        return Request(service, region, operation or path, key=key)
    protocol = "json" if target else "ec2" if service == "ec2" else "query"
    request = Request(service, region, operation, protocol, model.operation_model(operation), None, key)
    try:
        return _parsed(request, body, pairs)
    except AWSError as error:
        error.request = request
        raise


def _parsed(request: Request, body: bytes, pairs: list[tuple[str, str]]) -> Request:
    assert request.model is not None
    if request.protocol == "json":
        parameters = _read_json(body)
    else:
        parameters = _read_query(request.model.input_shape, pairs, ec2=request.protocol == "ec2")
    request = dataclasses.replace(request, parameters=parameters)
    _check_request(request)
    return request


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError as error:
        raise AWSError("SerializationException", f"The body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise AWSError("SerializationException", "Start of structure or map found where not expected.")
    return document


def _check_request(request: Request) -> None:
    assert request.model is not None
    shape = request.model.input_shape
    found = [] if shape is None else list(problems(shape, request.parameters or {}))
    if not found:
        return
    code = REFUSALS.get(request.service, "ValidationException")
    if request.service == "ec2" and "must not be null" in found[0]:
        code = "MissingParameter"
    count = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected"
    raise AWSError(code, f"{count}: {'; '.join(found)}")


def problems(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """What a model does not allow in a value, in the words of AWS's own services."""
    if value is None:
        return
    kind = shape.type_name
    where = f"Value '{_short(value)}' at '{path or shape.name}' failed to satisfy constraint"
    if not isinstance(value, PYTHON[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{where}: Member must be a {kind}"
        return
    if kind in PARTS:
        yield from PARTS[kind](shape, value, path)
    elif kind == "blob" and not _is_base64(value):
        yield f"{where}: Member must be base64"
    elif kind == "string" and shape.enum and value not in shape.enum and shape.name not in OPEN:
        yield f"{where}: Member must satisfy enum value set: [{', '.join(shape.enum)}]"
    if kind in BOUNDED:
        yield from _bounds(shape, value, where)


#: Enumerations that grow with each region and month: what is in none is refused by the service, in its own words.
OPEN = frozenset({"InstanceType"})
PYTHON: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "character": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, str),
}
BOUNDED = frozenset({"string", "list", "integer", "long", "float", "double"})


def _structure(shape: Any, value: dict[str, Any], path: str) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        return
    members = {m.serialization.get("name", name): m for name, m in shape.members.items()}
    for name, item in value.items():
        if name not in members:
            yield f"Value '{_short(item)}' at '{path}.{name}' failed to satisfy constraint: Member is unknown"
        else:
            yield from problems(members[name], item, f"{path}.{name}".lstrip("."))
    for name in shape.required_members:
        if value.get(shape.members[name].serialization.get("name", name)) is None:
            where = f"{path}.{name}".lstrip(".")
            yield f"Value null at '{where}' failed to satisfy constraint: Member must not be null"


def _list(shape: Any, value: list[Any], path: str) -> Iterator[str]:
    for index, item in enumerate(value, 1):
        yield from problems(shape.member, item, f"{path}.{index}.member")


def _map(shape: Any, value: dict[str, Any], path: str) -> Iterator[str]:
    for key, item in value.items():
        yield from problems(shape.key, key, f"{path}.key")
        yield from problems(shape.value, item, f"{path}.{key}")


PARTS: dict[str, Callable[[Any, Any, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
}


def _is_base64(text: Any) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _bounds(shape: Any, value: Any, where: str) -> Iterator[str]:
    size = len(value) if isinstance(value, (str, list)) else value
    noun = "have length " if isinstance(value, (str, list)) else "be "
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{where}: Member must {noun}greater than or equal to {low}"
    if high is not None and size > high:
        yield f"{where}: Member must {noun}less than or equal to {high}"
    pattern = shape.metadata.get("pattern")
    if pattern and isinstance(value, str) and not _pattern(pattern).search(value):
        yield f"{where}: Member must satisfy regular expression pattern: {pattern}"


#: Character classes of Java's regular expressions, which AWS's models use.
CLASSES = {
    "L": "A-Za-z\u00aa-\uffff",
    "Z": " \u00a0\u2000-\u200a\u3000",
    "N": "0-9",
    "M": "\u0300-\u036f",
    "S": "$+<=>^`|~",
    "P": "!-#%-*,-/:;?@\\[-\\]_{}",
    "Graph": "!-~",
    "Print": " -~",
    "Alnum": "A-Za-z0-9",
    "Alpha": "A-Za-z",
    "Digit": "0-9",
    "ASCII": "\x00-\x7f",
    "Cntrl": "\x00-\x1f",
}


@functools.cache
def _pattern(java: str) -> re.Pattern[str]:
    try:
        python = re.sub(r"\\p\{(?:Is)?(\w+)\}", lambda match: CLASSES[match[1]], java)
        return re.compile(f"^(?:{python})$", re.DOTALL)
    except (re.error, KeyError):
        return re.compile("")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004


def _read_query(shape: Any, pairs: list[tuple[str, str]], *, ec2: bool) -> dict[str, Any]:
    """Form parameters such as `Filter.1.Name` as the structure that the model says they are."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        if name in ("Action", "Version"):
            continue
        node = tree
        *parents, last = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise AWSError("UnknownParameter", f"The parameter {name} is not recognized")
        node[last] = value
    if shape is None:
        return {}
    parsed: dict[str, Any] = _of_query(shape, tree, "", ec2=ec2)
    return parsed


def _of_query(shape: Any, node: Any, path: str, *, ec2: bool) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return _structure_of_query(shape, node, path, ec2=ec2)
    if kind == "list":
        if not ec2 and not shape.serialization.get("flattened") and isinstance(node, dict):
            node = node.get(shape.member.serialization.get("name", "member"), {})
        items = sorted(node.items(), key=lambda item: int(item[0])) if isinstance(node, dict) else []
        return [_of_query(shape.member, item, path, ec2=ec2) for _, item in items]
    if kind == "map":
        entries = node if shape.serialization.get("flattened") else node.get("entry", {})
        return {entry["key"]: entry["value"] for entry in entries.values()}
    try:
        return SCALARS.get(kind, str)(node)
    except (KeyError, ValueError) as error:
        raise AWSError("InvalidParameterValue", f"Invalid value '{node}' for {path}") from error


#: Answers whose values are AWS's own though botocore's model has not all of them: moto has recorded some from AWS,
#: and of VPC endpoints the model writes the states as AWS does not.
#: https://docs.aws.amazon.com/cli/latest/reference/ec2/describe-vpc-endpoints.html#examples
RECORDED = frozenset({"DescribeInstanceTypes", "CreateVpcEndpoint", "DescribeVpcEndpoints"})
SCALARS: dict[str, Any] = {
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


def _structure_of_query(shape: Any, node: Any, path: str, *, ec2: bool) -> dict[str, Any]:
    left = dict(node)
    parsed = {}
    for name, member in shape.members.items():
        wire = _query_name(name, member, ec2=ec2)
        if wire in left:
            parsed[name] = _of_query(member, left.pop(wire), f"{path}.{wire}", ec2=ec2)
    if left:
        unknown = f"{path}.{next(iter(left))}".lstrip(".")
        raise AWSError("UnknownParameter", f"The parameter {unknown} is not recognized")
    # what the model calls a member may not be what a checked structure calls it
    return {m.serialization.get("name", n): parsed[n] for n, m in shape.members.items() if n in parsed}


def _query_name(name: str, member: Any, *, ec2: bool) -> str:
    serialization = member.serialization
    if ec2:
        if "queryName" in serialization:
            return str(serialization["queryName"])
        wire = str(serialization.get("name", name))
        return wire[0].upper() + wire[1:]
    if member.type_name == "list" and serialization.get("flattened"):
        return str(member.member.serialization.get("name", serialization.get("name", name)))
    return str(serialization.get("name", name))


def _without_empty_lists(shape: Any, document: Any) -> Any:
    """An answer's lists may be empty where the model wants one item: moto says what AWS leaves out."""
    if shape.type_name == "list" and isinstance(document, list):
        return [_without_empty_lists(shape.member, item) for item in document]
    if shape.type_name != "structure" or not isinstance(document, dict):
        return document
    members = {m.serialization.get("name", name): m for name, m in shape.members.items()}
    return {
        name: _without_empty_lists(members[name], value) if name in members else value
        for name, value in document.items()
        if name not in members or value != []
    }


def answer_problems(request: Request, body: bytes) -> list[str]:
    """What the model does not allow in an answer."""
    if request.model is None:
        return []
    shape = request.model.output_shape
    if shape is None:
        return []
    if request.protocol == "json":
        return list(problems(shape, _without_empty_lists(shape, json.loads(body or b"{}"))))
    root = ET.fromstring(body)  # noqa: S314  (the emulator's own answer)
    if request.protocol == "query":
        root = next((child for child in root if _tag(child) == f"{request.operation}Result"), root)
    return list(_element_problems(shape, root, request.operation, top=True))


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _element_problems(shape: Any, element: ET.Element, path: str, *, top: bool = False) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        yield from _members_problems(shape, element, path, top=top)
    elif kind == "list":
        for child in [element] if shape.serialization.get("flattened") else list(element):
            yield from _element_problems(shape.member, child, f"{path}[]")
    elif kind in SCALARS and element.text:
        try:
            SCALARS[kind](element.text)
        except (KeyError, ValueError):
            yield f"'{path}' is '{element.text}', no {kind}"
    elif kind == "string" and shape.enum and element.text and element.text not in shape.enum:
        if path.partition(".")[0] in RECORDED:
            return
        yield f"'{path}' is '{element.text}', not one of {', '.join(shape.enum)}"


def _members_problems(shape: Any, element: ET.Element, path: str, *, top: bool) -> Iterator[str]:
    members = {}
    for name, member in shape.members.items():
        wire = member.serialization.get("name", name)
        if member.type_name == "list" and member.serialization.get("flattened"):
            wire = member.member.serialization.get("name", wire)
        members[wire] = member
    for child in element:
        tag = _tag(child)
        if top and tag in ("requestId", "RequestId", "ResponseMetadata"):
            continue
        if tag not in members:
            yield f"'{path}.{tag}' is unknown"
        else:
            yield from _element_problems(members[tag], child, f"{path}.{tag}")


def json_answer(request: Request, document: Mapping[str, Any]) -> tuple[bytes, str]:
    """An answer of a JSON service: its body and its content type."""
    assert request.model is not None
    version = request.model.service_model.metadata.get("jsonVersion", "1.1")
    return json.dumps(document, separators=(",", ":")).encode(), f"application/x-amz-json-{version}"


def error_answer(request: Request, error: AWSError, request_id: str) -> tuple[bytes, str]:
    """An error as the service's own protocol says it: its body and its content type."""
    code, message = escape(error.code), escape(error.message)
    if request.protocol == "ec2":
        text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        return f"{text}<RequestID>{request_id}</RequestID></Response>".encode(), "text/xml"
    if request.protocol == "query":
        text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return f"{text}<RequestId>{request_id}</RequestId></ErrorResponse>".encode(), "text/xml"
    document = {"__type": error.code, "message": error.message, **error.fields}
    return json.dumps(document).encode(), "application/x-amz-json-1.1"


def error_code(request: Request, body: bytes) -> str:
    """The code of an error that was answered."""
    text = body.decode("utf-8", "replace")
    if request.protocol in ("ec2", "query"):
        found = re.search(r"<Code>([^<]+)</Code>", text)
        return found[1] if found else "Unknown"
    try:
        code = json.loads(text).get("__type", "Unknown")
    except (ValueError, AttributeError):
        return "Unknown"
    return str(code).rpartition("#")[2]
