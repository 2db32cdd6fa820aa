"""What an emulated cloud tells and does beside its API: for tests, for demos, and for its own machines."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import records

if TYPE_CHECKING:
    from cloudprovider.emulator.cloud import API, Cloud

#: Does what is asked of the rest of a route, by the document that came with it.
Action = Callable[[str, dict[str, Any]], Any]

#: What each method does to each thing under `/_cloud/`, on any cloud.
ACTIONS = {
    ("GET", "environ"): "_environ",
    ("GET", "calls"): "_calls",
    ("GET", "machines"): "_machines",
    ("GET", "ledger"): "_ledger",
    ("GET", "leftovers"): "_leftovers",
    ("GET", "faults"): "_faults",
    ("POST", "faults"): "_inject",
    ("DELETE", "faults"): "_clear",
    ("POST", "images"): "_add_image",
    ("POST", "reset"): "_reset",
    ("POST", "machines"): "_harm",
}
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")


class Control:
    """Answers what is asked under `/_cloud/`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @property
    def _api(self) -> API:
        return self._cloud.api

    def answer(self, method: str, route: str, body: bytes, caller: str) -> Any:
        """A text or a document; raises LookupError for what there is not, ValueError for what cannot be."""
        name, _, rest = route.partition("/")
        if (method, name) == ("GET", "address"):
            return caller
        asked = (method, name)
        act = self._api.actions.get(asked) or getattr(self, ACTIONS.get(asked, ""), None)
        if act is None:
            raise LookupError(f"There is no {method} {route}.")
        return act(rest, json.loads(body) if body else {})

    def _environ(self, _: str, __: Any) -> Any:
        return self._cloud.environ()

    def _calls(self, _: str, __: Any) -> Any:
        return [records.document(call) for call in list(self._api.calls)]

    def _machines(self, _: str, __: Any) -> Any:
        return [records.document(one) for one in self._api.machines()]

    def _ledger(self, _: str, __: Any) -> Any:
        return [records.document(entry) for entry in self._api.account.ledger.entries()]

    def _leftovers(self, _: str, __: Any) -> Any:
        with self._api.account.lock:
            return self._api.leftovers()

    def _faults(self, _: str, __: Any) -> Any:
        return [dataclasses.asdict(fault) for fault in self._api.account.faults.all()]

    def _inject(self, _: str, given: dict[str, Any]) -> Any:
        return dataclasses.asdict(self._api.account.faults.add(**given))

    def _clear(self, rest: str, _: Any) -> Any:
        self._api.account.faults.clear(int(rest) if rest else None)
        return {}

    def _add_image(self, _: str, given: dict[str, Any]) -> Any:
        self._api.account.images.add(**given)
        return {}

    def _reset(self, _: str, given: dict[str, Any]) -> Any:
        self._cloud.reset(**given)
        return {}

    def _harm(self, rest: str, given: dict[str, Any]) -> Any:
        id, _, what = rest.rpartition("/")
        {"interrupt": self._api.interrupt, "kill": self._api.kill}[what](id, **given)
        return {}

    def registry(self, route: str) -> bytes | None:
        """The index of an image; None when the registry has it not."""
        if not (match := MANIFEST.fullmatch(route)):
            return b"{}" if route == "/v2/" else None
        repository, tag = match.groups()
        images = self._api.account.images
        for image in images:
            path, _, own = image.name.rpartition(":")
            if own == tag and (path == repository or path.partition("/")[2] == repository):
                return json.dumps(image.index()).encode()
        return None
