"""Google's own descriptions of its APIs: which methods there are, and what is wrong with a request or an answer.

They are in google-api-python-client: https://developers.google.com/discovery/v1/reference/apis
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Whose descriptions are read, and which versions.
VERSIONS = {
    "compute": ("v1",),
    "secretmanager": ("v1",),
    "iam": ("v1",),
    "logging": ("v2",),
    "serviceusage": ("v1",),
    "cloudresourcemanager": ("v1", "v3"),
}
LONG = frozenset({"int64", "uint64"})
DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")
FORMATS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "number": (int, float)}


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field.

    Parameters
    ----------
    field
        Its path, such as `resource.disks[0].type`; empty is the whole.
    kind
        `unknown` (there is no such field), `missing`, `type`, `enum`, `format` or `pattern`.
    value
        As given; the name, when there is no such field.
    wanted
        What it should have been: a type, a format, the names of an enumeration, a pattern.
    """

    field: str
    kind: str
    value: Any = None
    wanted: str = ""

    def __str__(self) -> str:
        """What Google says, short of who says it."""
        where = f" at '{self.field}'" if self.field else ""
        if self.kind == "unknown":
            return f'Unknown name "{self.value}"{where}: Cannot find field.'
        shown = f'"{self.value}"' if isinstance(self.value, str) else json.dumps(self.value, default=str)
        return f"Invalid value{where} ({self.wanted}), {shown}"


@dataclass(frozen=True)
class Method:
    """One method of an API.

    Parameters
    ----------
    id
        Such as `secretmanager.projects.secrets.create`.
    http, path
        Such as `POST` and `v1/projects/{projectsId}/secrets`.
    parameters
        Of path and query, as described.
    request, response
        Names of schemas; empty when there is none.
    scopes
        Any of which a token must have.
    """

    id: str
    http: str
    path: str
    parameters: Mapping[str, Any] = field(repr=False)
    request: str
    response: str
    scopes: frozenset[str] = field(repr=False)
    document: Document = field(repr=False)

    @property
    def service(self) -> str:
        """Such as `secretmanager`."""
        return self.id.partition(".")[0]

    @property
    def operation(self) -> str:
        """The rest of its id, such as `instances.insert`; without the `projects.` that most begin with."""
        name = self.id.partition(".")[2]
        short = name.removeprefix("projects.")
        return short if "." in short else name

    def query_problems(self, query: Mapping[str, Sequence[str]]) -> list[Problem]:
        """What is wrong with a query, its values as text."""
        return list(self._query_problems(query))

    def _query_problems(self, query: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
        common = self.document.content["parameters"]
        for name, values in query.items():
            schema = self.parameters.get(name) or common.get(name)
            if schema is None or schema.get("location") != "query":
                yield Problem("", "unknown", name)
                continue
            for text in values:
                yield from self.document.problems(schema, _of_text(schema, text), name)
        for name, schema in self.parameters.items():
            if schema.get("required") and schema.get("location") == "query" and name not in query:
                yield Problem(name, "missing", wanted=schema["type"])

    def body_problems(self, body: Any) -> list[Problem]:
        """What is wrong with a request's body; None is none."""
        if not self.request:
            return [] if body in (None, {}) else [Problem("", "unknown", next(iter(body), ""))]
        return list(self.document.problems({"$ref": self.request}, {} if body is None else body))

    def answer_problems(self, answer: Any) -> list[Problem]:
        """What is wrong with an answer: empty unless the emulator is."""
        if not self.response:
            return []
        return list(self.document.problems({"$ref": self.response}, answer, answer=True))


class Document:
    """The description of one version of one service.

    Parameters
    ----------
    service, version
        Such as `compute` and `v1`.
    """

    def __init__(self, service: str, version: str) -> None:
        folder = resources.files("googleapiclient") / "discovery_cache" / "documents"
        self.content: dict[str, Any] = json.loads((folder / f"{service}.{version}.json").read_bytes())
        self.methods = {method.id: method for method in self._methods(self.content)}
        self._by_shape: dict[tuple[str, int], list[tuple[list[str], Method]]] = {}
        for method in self.methods.values():
            segments = method.path.split("/")
            self._by_shape.setdefault((method.http, len(segments)), []).append((segments, method))
        for known in self._by_shape.values():
            known.sort(key=lambda one: one[1].path.count("{"))  # what is named goes before what varies

    def _methods(self, resource: Mapping[str, Any]) -> Iterator[Method]:
        for one in resource.get("methods", {}).values():
            yield Method(
                id=one["id"],
                http=one["httpMethod"],
                path=self.content["servicePath"] + one.get("flatPath", one["path"]),
                parameters=one.get("parameters", {}),
                request=one.get("request", {}).get("$ref", ""),
                response=one.get("response", {}).get("$ref", ""),
                scopes=frozenset(one.get("scopes", ())),
                document=self,
            )
        for one in resource.get("resources", {}).values():
            yield from self._methods(one)

    def find(self, http: str, segments: Sequence[str]) -> tuple[Method, dict[str, str]] | None:
        """The method of a request, and what its path says; None when there is none."""
        for template, method in self._by_shape.get((http, len(segments)), ()):
            if (arguments := _matched(template, segments)) is not None:
                return method, arguments
        return None

    def problems(
        self, schema: Mapping[str, Any], value: Any, path: str = "", *, answer: bool = False
    ) -> Iterator[Problem]:
        """What is wrong with a value; an answer's numbers of 64 bits must be text."""
        if "$ref" in schema:
            schema = self.content["schemas"][schema["$ref"]]
        kind = schema.get("type")
        if value is None or kind == "any":
            return
        if kind == "object":
            yield from self._of_object(schema, value, path, answer=answer)
        elif kind == "array":
            if not isinstance(value, list):
                yield Problem(path, "type", value, "array")
                return
            for index, one in enumerate(value):
                yield from self.problems(schema["items"], one, f"{path}[{index}]", answer=answer)
        else:
            yield from _of_scalar(schema, value, path, answer=answer)

    def _of_object(
        self, schema: Mapping[str, Any], value: Any, path: str, *, answer: bool
    ) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem(path, "type", value, str(schema.get("id", "object")))
            return
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, one in value.items():
            inner = properties.get(name, rest)
            if inner is None:
                yield Problem(path, "unknown", name)
            else:
                yield from self.problems(inner, one, f"{path}.{name}" if path else name, answer=answer)


@functools.cache
def document(service: str, version: str) -> Document:
    """The description of one version of one service."""
    return Document(service, version)


def find(
    http: str, path: str, services: Sequence[str] = tuple(VERSIONS)
) -> tuple[Method, dict[str, str]] | None:
    """The method of a request among those of some services, and what its path says; None when there is none."""
    segments = path.lstrip("/").split("/")
    for service in services:
        for version in VERSIONS[service]:
            if found := document(service, version).find(http, segments):
                return found
    return None


def _matched(template: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    arguments = {}
    for wanted, given in zip(template, segments, strict=True):
        name, brace, verb = wanted.partition("}")
        if not brace:
            if wanted != given:
                return None
            continue
        text = given.removesuffix(verb)
        if not given.endswith(verb) or not text or (not verb and ":" in text):
            return None
        arguments[name.lstrip("{")] = text
    return arguments


def _of_text(schema: Mapping[str, Any], text: str) -> Any:
    """A parameter of a query as its type; the text itself when it is none of that type."""
    kind = schema.get("type")
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind == "integer" and re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


def _of_scalar(schema: Mapping[str, Any], value: Any, path: str, *, answer: bool) -> Iterator[Problem]:
    kind, form = schema["type"], schema.get("format", "")
    if form in FORMATS:
        low, high = FORMATS[form]
        texts = form in LONG
        good = isinstance(value, str) if texts and answer else isinstance(value, str | int)
        if isinstance(value, bool) or not good or not re.fullmatch(r"-?\d+", str(value)):
            yield Problem(path, "type", value, f"TYPE_{form.upper()}")
        elif not low <= int(value) <= high:
            yield Problem(path, "format", value, f"TYPE_{form.upper()}")
        return
    if not isinstance(value, KINDS.get(kind, (int,))) or (isinstance(value, bool) and kind != "boolean"):
        yield Problem(path, "type", value, f"TYPE_{kind.upper()}")
    elif "enum" in schema and value not in schema["enum"]:
        yield Problem(path, "enum", value, ", ".join(schema["enum"]))
    elif not _is_formed(form, value):
        yield Problem(path, "format", value, form)
    elif "pattern" in schema and value and not re.fullmatch(schema["pattern"], str(value)):
        yield Problem(path, "pattern", value, schema["pattern"])


def _is_formed(form: str, value: Any) -> bool:
    try:
        if form == "byte":
            base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
        elif form == "google-datetime":
            dt.datetime.fromisoformat(value)
    except (binascii.Error, ValueError):
        return False
    return form != "google-duration" or DURATION.fullmatch(value) is not None
