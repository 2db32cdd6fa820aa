"""Disks of the embedded Compute Engine, which bill from when they are made until they are deleted.

https://cloud.google.com/compute/docs/disks
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_links import BASE, Place, check_labels, check_name, fingerprint, invalid
from cloudprovider.emulator.gce_lists import aggregated, listed
from cloudprovider.emulator.gce_offers import DISKS, all_zones
from cloudprovider.emulator.gce_prices import disk_price
from cloudprovider.emulator.gcp_wire import GCPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_operations import Operation, Operations
    from cloudprovider.emulator.gce_orders import DiskOrder
    from cloudprovider.emulator.gce_request import Call


class Disks:
    """The disks of one account."""

    def __init__(self, account: Account, operations: Operations) -> None:
        self._account, self._operations = account, operations
        self._known: dict[Place, Document] = {}
        self.handlers: dict[str, Callable[[Call], Any]] = {
            "disks.get": self.get,
            "disks.list": self.list,
            "disks.aggregatedList": self.aggregated,
            "disks.insert": self.insert,
            "disks.delete": self.delete,
        }

    def all(self) -> list[Document]:
        """Every disk."""
        return list(self._known.values())

    def find(self, where: Place) -> Document:
        """One that there is."""
        if where not in self._known:
            raise where.missing()
        return self._known[where]

    def get(self, request: Call) -> Document:
        """One of them."""
        return self.find(request.place("disks", request.arguments["disk"]))

    def list(self, request: Call) -> Document:
        """Those of a zone."""
        return listed(request, "disk", [one for at, one in self._known.items() if at.scope == request.scope])

    def aggregated(self, request: Call) -> Document:
        """Those of all zones."""
        scopes: dict[str, list[Document]] = {f"zones/{zone}": [] for zone in all_zones()}
        for where, one in self._known.items():
            scopes[where.scope].append(one)
        return aggregated(request, "disk", "disks", scopes)

    def insert(self, request: Call) -> Document:
        """A new, empty disk."""
        given = request.given
        where = request.place("disks", given.get("name", ""))
        check_name("resource.name", where.name)
        check_labels("resource.labels", given.get("labels") or {})
        kind = (given.get("type") or "pd-standard").rpartition("/")[2]
        if kind not in DISKS:
            raise invalid("resource.type", given["type"], "The referenced diskType resource cannot be found.")
        size = int(given.get("sizeGb") or DISKS[kind])

        def work() -> Operation:
            document = self.make(where, kind, size, given.get("labels") or {}, None)
            operation = self._operations.begin(
                "insert", where, request.principal.email, targetId=document["id"]
            )
            self._operations.soon(operation)
            return operation

        return self._operations.once(request, work)

    def delete(self, request: Call) -> Document:
        """Delete one that no instance has."""
        where = request.place("disks", request.arguments["disk"])

        def work() -> Operation:
            document = self.find(where)
            if users := document.get("users"):
                raise GCPError(
                    400,
                    f"The disk resource '{where.path}' is already being used by '{users[0].removeprefix(BASE)}'",
                    reason="resourceInUseByAnotherResource",
                )
            operation = self._operations.begin(
                "delete", where, request.principal.email, targetId=document["id"]
            )
            self._operations.soon(operation, lambda: self.drop(where))
            return operation

        return self._operations.once(request, work)

    # -- what machines do with them ------------------------------------------------------------------

    def made(self, order: DiskOrder, owner: Place) -> Document:
        """The disk of an instance: a new one, or one that there is."""
        where = order.source or Place(owner.project, owner.scope, "disks", order.name or owner.name)
        if order.source is None:
            self.make(where, order.kind, order.size_gb, dict(order.labels), order.image)
        document = self.find(where)
        document["users"] = [*document.get("users", []), owner.link]
        return document

    def make(
        self, where: Place, kind: str, size: int, labels: dict[str, str], image: Document | None
    ) -> Document:
        """A new disk."""
        if where in self._known:
            raise where.taken()
        base = f"{BASE}projects/{where.project}/{where.scope}"
        document = where.new("disk") | {
            "zone": base,
            "status": "READY",
            "sizeGb": str(size),
            "type": f"{base}/diskTypes/{kind}",
            "labelFingerprint": fingerprint(),
            "physicalBlockSizeBytes": "4096",
        }
        document |= {"labels": labels} if labels else {}
        if image is not None:
            document |= {
                "sourceImage": image["selfLink"],
                "sourceImageId": image["id"],
                "architecture": image["architecture"],
            }
        self._known[where] = document
        price = disk_price(where.scope.partition("/")[2], kind, size)
        self._account.ledger.start(where.name, f"{kind} {size} GB", "on-demand", price, time.time())
        return document

    def has(self, where: Place) -> bool:
        """Whether there is such a disk."""
        return where in self._known

    def detach(self, disk: Document, owner: Place) -> None:
        """An instance has it no more."""
        disk["users"] = [one for one in disk.get("users", []) if one != owner.link]

    def drop(self, where: Place) -> None:
        """It is gone, and bills no more."""
        document = self._known.pop(where, None)
        if document is not None:
            kind = f"{document['type'].rpartition('/')[2]} {document['sizeGb']} GB"
            self._account.ledger.stop(where.name, time.time(), kind)
