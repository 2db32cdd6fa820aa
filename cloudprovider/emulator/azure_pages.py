"""Lists in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cloudprovider.emulator.azure_wire import AzureError, Reply

if TYPE_CHECKING:
    from cloudprovider.emulator.azure_wire import Request

__all__ = ["PAGE", "paged"]

PAGE = 500  # Azure does not publish how many; our own choice


def paged(front: str, request: Request, found: list[Any]) -> Reply:
    """One page of what was found, and where the next one is."""
    token = request.query.get("$skiptoken", "0")
    if not token.isdigit():
        raise AzureError(400, "BadRequest", f"The skip token '{token}' is invalid.", target="$skiptoken")
    start = int(token)
    body: dict[str, Any] = {"value": found[start : start + PAGE]}
    if start + PAGE < len(found):
        query = {**request.query, "$skiptoken": str(start + PAGE)}
        body["nextLink"] = f"{front}{request.path}?{urlencode(query)}"
    return Reply(body=body)
