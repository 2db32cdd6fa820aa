"""One instance: what Compute Engine remembers of it, and how its API tells it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_capacity import metrics
from cloudprovider.emulator.gce_catalogue import cpu_platform
from cloudprovider.emulator.gce_links import BASE, Place, fingerprint, stamp
from cloudprovider.emulator.gce_orders import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_orders import Order

#: States in which it can be told something by its metadata service.
LIVE = frozenset({"PROVISIONING", "STAGING", "RUNNING", "STOPPING"})


class LiveInstance:
    """An instance that lives by `cloudprovider.emulator.gce_life`.

    Parameters
    ----------
    where
        Its place.
    order
        What it was ordered as.
    id
        What the emulator calls it: its name, unless another zone has that name too.
    network
        The link of its network.
    """

    def __init__(self, where: Place, order: Order, id: str, network: str) -> None:
        self.where, self.order, self.id = where, order, id
        self.network = network
        self.created = time.time()
        self.zone = where.scope.partition("/")[2]
        self.name, self.type, self.market = where.name, order.type, order.market
        self.counts = metrics(order)
        self.address = ""
        self.public_address = ""
        self.disks: list[tuple[Document, Any]] = []  # each disk, and its order
        self.metadata: Document = {**(order.given.get("metadata") or {}), "fingerprint": fingerprint()}
        self.labels = dict(order.given.get("labels") or {})
        self.label_fingerprint = fingerprint()
        self.tags: Document = {"items": (order.given.get("tags") or {}).get("items") or [], "fingerprint": fingerprint()}  # fmt: skip
        self.scheduling = order.scheduling
        self.protected = bool(order.given.get("deletionProtection"))
        self._new = where.new("instance")
        self._state = ["PROVISIONING"]
        self._stamps: Document = {}
        # What only the emulator has of it.
        self.guest: Any = None
        self.inside = True
        self.console: list[str] = []
        self.rebooting = False
        self.preempted = False
        self.maintenance = "NONE"
        self.deleting = False
        self.reason = ""
        self.run = 0  # how often it was switched on
        self.changed = threading.Condition()  # its metadata
        self.etag = 0

    # -- its state -----------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Such as `RUNNING`."""
        return self._state[0]

    @property
    def number(self) -> str:
        """Its id, in Google's sense."""
        return str(self._new["id"])

    @property
    def runs(self) -> bool:
        """Whether it is switched on."""
        return self.state == "RUNNING"

    @property
    def moment(self) -> object:
        """Another object after each change of its state."""
        return self._state

    def enter(self, state: str) -> None:
        """It is in another state from now on."""
        self._state = [state]
        if state == "RUNNING":
            self._stamps["lastStartTimestamp"] = stamp()
        elif state == "TERMINATED":
            self._stamps["lastStopTimestamp"] = stamp()

    def touch(self) -> None:
        """Its metadata has changed: tell who waits for that."""
        with self.changed:
            self.etag += 1
            self.changed.notify_all()

    @property
    def attributes(self) -> Mapping[str, str]:
        """Its own metadata."""
        return {item["key"]: item.get("value", "") for item in self.metadata.get("items") or []}

    # -- how the API tells it ------------------------------------------------------------------------

    def describe(self) -> Document:
        """The instance as instances.get tells it."""
        order = self.order
        base = f"{BASE}projects/{self.where.project}/zones/{self.zone}"
        document: Document = {
            **self._new,
            **{key: order.given[key] for key in KEPT if key in order.given},
            "zone": base,
            "machineType": f"{base}/machineTypes/{self.type}",
            "cpuPlatform": cpu_platform(self.type) if self.state in LIVE else "Unknown CPU Platform",
            "status": self.state,
            "tags": dict(self.tags),
            "metadata": {"kind": "compute#metadata", **self.metadata},
            "labels": dict(self.labels),
            "labelFingerprint": self.label_fingerprint,
            "fingerprint": self.tags["fingerprint"],
            "scheduling": dict(self.scheduling),
            "deletionProtection": self.protected,
            "startRestricted": False,
            "networkInterfaces": [self._interface()],
            "disks": [self._disk(index) for index in range(len(self.disks))],
            **self._stamps,
        }
        if not document["labels"]:
            del document["labels"]
        if order.email:
            document["serviceAccounts"] = [{"email": order.email, "scopes": list(order.scopes)}]
        if order.gpus:
            document["guestAccelerators"] = [
                {"acceleratorType": f"{base}/acceleratorTypes/{name}", "acceleratorCount": count}
                for name, count in order.gpus.items()
            ]
        return document

    def _interface(self) -> Document:
        asked = self.order.interface
        document: Document = {
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": self.network,
            "subnetwork": self.order.subnetwork.link,
            "networkIP": self.address,
            "fingerprint": self.tags["fingerprint"],
            "stackType": "IPV4_ONLY",
        }
        if asked.get("nicType"):
            document["nicType"] = asked["nicType"]
        if self.order.public:
            config = {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": "External NAT",
                "networkTier": "PREMIUM",
                **asked["accessConfigs"][0],
            }
            config.pop("natIP", None)
            document["accessConfigs"] = [
                config | ({"natIP": self.public_address} if self.public_address else {})
            ]
        return document

    def _disk(self, index: int) -> Document:
        disk, order = self.disks[index]
        return {
            "kind": "compute#attachedDisk",
            "type": "SCRATCH" if order.kind == "local-ssd" else "PERSISTENT",
            "mode": "READ_WRITE",
            "source": disk["selfLink"],
            "deviceName": order.device or f"persistent-disk-{index}",
            "index": index,
            "boot": order.boot,
            "autoDelete": order.auto_delete,
            "interface": "SCSI",
            "diskSizeGb": disk["sizeGb"],
            "architecture": disk.get("architecture", "ARCHITECTURE_UNSPECIFIED"),
        }
