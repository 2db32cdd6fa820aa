"""Lists of Compute Engine: filters, pages, and one list of all zones or regions.

https://cloud.google.com/compute/docs/reference/rest/v1/instances/aggregatedList
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gcp_filters
from cloudprovider.emulator.gce_links import BASE, invalid
from cloudprovider.emulator.gcp_filters import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_request import Call

PAGE = 500  # maxResults: 0 to 500, and 500 by default
#: The older filters, which compare by regular expressions that must match the whole.
REGULAR = re.compile(r"""\(?\s*([\w.-]+)\s+(eq|ne)\s+("[^"]*"|'[^']*'|[^\s)]+)\s*\)?""")


def listed(request: Call, kind: str, found: Sequence[Document]) -> Document:
    """The answer of a `list`."""
    chosen = filtered(request, found)
    page, token = paged(request, chosen)
    path = request.path
    answer = {"kind": f"compute#{kind}List", "id": path, "selfLink": BASE + path}
    return answer | ({"items": page} if page else {}) | ({"nextPageToken": token} if token else {})


def aggregated(
    request: Call,
    kind: str,
    collection: str,
    found: Mapping[str, Sequence[Document]],
    silent: Collection[str] = (),
) -> Document:
    """The answer of an `aggregatedList`: by scope, those without any, or that are silent, with a warning."""
    pairs = [
        (scope, one)
        for scope, some in found.items()
        if scope not in silent
        for one in filtered(request, some)
    ]
    page, token = paged(request, pairs)
    scopes: dict[str, Document] = {}
    for scope in found:
        here = [one for where, one in page if where == scope]
        missing = _unreachable(scope) if scope in silent else _nothing(scope)
        scopes[scope] = {collection: here} if here else {"warning": missing}
    path = request.path
    answer = {
        "kind": f"compute#{kind}AggregatedList",
        "id": path,
        "selfLink": BASE + path,
        "items": scopes,
        **({"unreachables": sorted(silent)} if silent else {}),
    }
    return answer | ({"nextPageToken": token} if token else {})


def _nothing(scope: str) -> Document:
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope '{scope}' on this page.",
        "data": [{"key": "scope", "value": scope}],
    }


def _unreachable(scope: str) -> Document:
    return {
        "code": "UNREACHABLE",
        "message": f"The scope '{scope}' cannot be reached now.",
        "data": [{"key": "scope", "value": scope}],
    }


def filtered(request: Call, found: Sequence[Document]) -> list[Document]:
    """Those that a filter lets pass."""
    text = request.asked("filter")
    try:
        passes = _matcher(text)
    except FilterError as error:
        raise invalid("filter", text, f"Invalid list filter expression: {error}.") from error
    return [one for one in found if passes(one)]


def _matcher(text: str) -> Callable[[Mapping[str, Any]], bool]:
    if not REGULAR.match(text):
        return gcp_filters.parsed(text)
    matches = list(REGULAR.finditer(text))
    if "".join(match[0] for match in matches).replace(" ", "") != text.replace(" ", ""):
        raise FilterError("regular expressions and other filters do not go together")
    return lambda one: all(_fits(one, *match.groups()) for match in matches)


def _fits(one: Mapping[str, Any], path: str, sign: str, literal: str) -> bool:
    value: Any = one
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    pattern = literal[1:-1] if literal[0] in "\"'" else literal
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return (re.fullmatch(pattern, text) is not None) is (sign == "eq")


def paged(request: Call, found: Sequence[Any]) -> tuple[list[Any], str]:
    """A page, and what asks for the next one; empty when it was the last."""
    most = int(request.asked("maxResults") or PAGE) or PAGE
    if not 0 < most <= PAGE:
        raise invalid("maxResults", most, f"Values must be within the range: [0, {PAGE}]")
    start = _read(request.asked("pageToken"))
    end = start + most
    token = base64.urlsafe_b64encode(f"after {end}".encode()).decode() if end < len(found) else ""
    return list(found[start:end]), token


def _read(token: str) -> int:
    if not token:
        return 0
    try:
        word, _, count = base64.urlsafe_b64decode(token).decode().partition(" ")
        if word == "after":
            return int(count)
    except ValueError:
        pass
    raise invalid("pageToken", token, "The page token is invalid.")
