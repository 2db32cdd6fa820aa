"""ECS's answers in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.ecs_checks import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = 100  # of every list and description: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/


def page(name: str, arns: list[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The page of a list that a call asks for."""
    size = parameters.get("maxResults", PAGE)
    if not 1 <= size <= PAGE:
        raise invalid(f"maxResults must be between 1 and {PAGE}.")
    start = _offset(parameters.get("nextToken"))
    answer: dict[str, Any] = {name: arns[start : start + size]}
    if start + size < len(arns):
        answer["nextToken"] = f"offset-{start + size}"
    return answer


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    if not token.startswith("offset-"):
        raise invalid("Invalid token.")
    return int(token.removeprefix("offset-"))
