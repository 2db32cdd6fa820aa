"""Orders of machines: what an instance is to be, with what Compute Engine refuses refused.

https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudprovider.emulator import gce_catalogue
from cloudprovider.emulator.gce_links import Place, check_labels, check_name, invalid, place, region_of
from cloudprovider.emulator.gce_offers import DISKS
from cloudprovider.emulator.gcp_wire import DEFAULT_ACCOUNT, PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_networks import Networks
    from cloudprovider.emulator.gce_offers import Offers

#: https://cloud.google.com/compute/docs/metadata/setting-custom-metadata#limitations
METADATA_KEY = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MOST_METADATA = 262_144
ALL_METADATA = 524_288
#: Families that have no persistent disks: https://cloud.google.com/compute/docs/disks/hyperdisks#machine-series-support
HYPERDISK_ONLY = ("a4", "a4x", "c4", "c4a", "c4d", "m4", "n4", "n4a", "n4d", "x4")
#: https://cloud.google.com/compute/docs/instances/limit-vm-runtime
SHORTEST_S, LONGEST_S = 30, 120 * 24 * 3600
#: What an instance has in common with the properties of a bulk of them, and is told as it was given.
KEPT = (
    "advancedMachineFeatures",
    "canIpForward",
    "confidentialInstanceConfig",
    "description",
    "keyRevocationActionType",
    "minCpuPlatform",
    "networkPerformanceConfig",
    "privateIpv6GoogleAccess",
    "reservationAffinity",
    "resourcePolicies",
    "shieldedInstanceConfig",
)
#: What an order may say and the emulator does not have.
UNKNOWN = (
    "instanceEncryptionKey",
    "instanceFlexibilityPolicy",
    "sourceInstanceTemplate",
    "sourceMachineImage",
    "workloadIdentityConfig",
)


@dataclass(frozen=True, kw_only=True)
class DiskOrder:
    """One disk.

    Parameters
    ----------
    name, kind, size_gb
        Its name (empty for the machine's), type, and size.
    source
        The place of a disk that there is; None for a new one.
    image
        What a new one is made from; None for an empty one.
    auto_delete, boot
        As asked.
    labels
        Of the disk.
    device
        What it is called in the machine.
    """

    name: str
    kind: str
    size_gb: int
    source: Place | None = None
    image: Document | None = None
    auto_delete: bool = False
    boot: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an instance is to be.

    Parameters
    ----------
    type, vcpus, architecture
        The machine type, and what it has.
    gpus
        How many of each accelerator.
    attached
        Whether those are `guestAccelerators`, and not part of the type.
    market
        `on-demand` or `spot`.
    disks
        The boot disk first.
    subnetwork
        Of its first interface.
    given
        The properties as asked for.
    email, scopes
        Of the account that the machine is; empty for none.
    """

    type: str
    vcpus: float
    architecture: str
    gpus: Mapping[str, int]
    attached: bool
    market: str
    disks: tuple[DiskOrder, ...]
    subnetwork: Place
    given: Document
    email: str = ""
    scopes: tuple[str, ...] = ()

    @property
    def interface(self) -> Document:
        """The first interface, as asked for."""
        found: Document = self.given["networkInterfaces"][0]
        return found

    @property
    def public(self) -> bool:
        """Whether it has a public address."""
        return bool(self.interface.get("accessConfigs"))

    @property
    def scheduling(self) -> Document:
        """As it is from now on."""
        spot = self.market == "spot"
        fixed = spot or bool(self.gpus)
        given = self.given.get("scheduling") or {}
        return {
            "onHostMaintenance": "TERMINATE" if fixed else "MIGRATE",
            "automaticRestart": not spot,
            **given,
            "preemptible": spot,
            "provisioningModel": "SPOT" if spot else given.get("provisioningModel", "STANDARD"),
        }


class Orders:
    """Reads orders."""

    def __init__(
        self,
        networks: Networks,
        offers: Offers,
        has_account: Callable[[str], bool],
        disk: Callable[[Place], Document],
    ) -> None:
        self._networks, self._offers = networks, offers
        self._has_account, self._disk = has_account, disk

    def read(self, given: Document, project: str, zone: str) -> Order:
        """The order of an instance in a zone.

        Raises
        ------
        GCPError
            When Compute Engine refuses it at once.
        """
        check_known(given)
        kind = _machine_type(given, project, zone)
        gpus, attached = _accelerators(given, project, zone, kind)
        market = _market(given, gpus)
        check_labels("resource.labels", given.get("labels") or {})
        _check_tags(given)
        check_metadata(given.get("metadata") or {})
        email, scopes = self._account(given)
        interfaces = given.get("networkInterfaces") or []
        if not interfaces:
            raise invalid("resource.networkInterfaces", "", "At least one network interface is required.")
        if len(interfaces) > 1:
            raise _missing("a second network interface")
        first = interfaces[0]
        subnetwork = self._networks.subnetwork(
            project, f"regions/{region_of(zone)}", first.get("subnetwork", ""), first.get("network", "")
        )
        return Order(
            type=kind["name"],
            vcpus=kind["guestCpus"],
            architecture="arm64" if kind["architecture"] == "ARM64" else "x86_64",
            gpus=gpus,
            attached=attached,
            market=market,
            disks=tuple(self._disks(given, project, zone, kind)),
            subnetwork=subnetwork,
            given=given,
            email=email,
            scopes=scopes,
        )

    # -- disks ---------------------------------------------------------------------------------------

    def _disks(self, given: Document, project: str, zone: str, kind: Document) -> Iterator[DiskOrder]:
        disks = given.get("disks") or []
        if not disks:
            raise invalid("resource.disks", "", "No disks are specified.")
        if not disks[0].get("boot"):
            raise invalid("resource.disks[0].boot", "false", "Boot disk must be the first disk attached to the instance.")  # fmt: skip
        for index, one in enumerate(disks):
            yield self._read_disk(f"resource.disks[{index}]", one, project, zone, kind)

    def _read_disk(self, field: str, given: Document, project: str, zone: str, kind: Document) -> DiskOrder:
        asked = given.get("initializeParams") or {}
        shared = {
            "auto_delete": given.get("autoDelete", False),
            "boot": given.get("boot", False),
            "device": given.get("deviceName", ""),
        }
        if source := given.get("source"):
            where = place(source, "disks", project, f"zones/{zone}")
            known = self._disk(where)
            size, sort = int(known["sizeGb"]), known["type"].rpartition("/")[2]
            return DiskOrder(name=where.name, kind=sort, size_gb=size, source=where, **shared)
        scratch = given.get("type") == "SCRATCH"
        sort = (asked.get("diskType") or ("local-ssd" if scratch else "pd-standard")).rpartition("/")[2]
        if sort not in DISKS:
            raise invalid(f"{field}.initializeParams.diskType", asked["diskType"], "The referenced diskType resource cannot be found.")  # fmt: skip
        if sort.startswith("pd-") and kind["name"].partition("-")[0] in HYPERDISK_ONLY:
            raise GCPError(400, f"[{sort}] features are not compatible for creating instance.", reason="badRequest")  # fmt: skip
        image = self._image(asked, project, kind) if not scratch else None
        if image is None and given.get("boot"):
            raise invalid(field, "{}", "Boot disk must have a source specified.")
        size = int(asked.get("diskSizeGb") or given.get("diskSizeGb") or 0)
        least = int(image["diskSizeGb"]) if image else 10
        if size and size < least:
            raise invalid(
                f"{field}.initializeParams.diskSizeGb",
                size,
                f"Requested disk size cannot be smaller than the image size ({least} GB)",
            )
        check_labels(f"{field}.initializeParams.labels", asked.get("labels") or {})
        return DiskOrder(
            name=asked.get("diskName", ""),
            kind=sort,
            size_gb=size or (least if image else DISKS[sort]),
            image=image,
            labels=asked.get("labels") or {},
            **shared,
        )

    def _image(self, asked: Document, project: str, kind: Document) -> Document | None:
        if not asked.get("sourceImage"):
            return None
        image = self._offers.booted(asked["sourceImage"], project)
        if image["architecture"] != kind["architecture"]:
            raise GCPError(
                400,
                f"Invalid resource usage: 'Requested boot disk architecture ({image['architecture']}) is not "
                f"compatible with machine type architecture ({kind['architecture']}).'.",
                reason="invalidResourceUsage",
            )
        return image

    def _account(self, given: Document) -> tuple[str, tuple[str, ...]]:
        accounts = given.get("serviceAccounts") or []
        if len(accounts) > 1:
            raise invalid("resource.serviceAccounts", len(accounts), "Only one service account is allowed.")
        if not accounts:
            return "", ()
        email = accounts[0].get("email") or "default"
        email = DEFAULT_ACCOUNT if email == "default" else email
        if not self._has_account(email):
            where = f"projects/{PROJECT}/serviceAccounts/{email}"
            message = f"The resource '{where}' of type 'serviceAccount' was not found."
            raise GCPError(400, message, reason="resourceNotFound")
        return email, tuple(accounts[0].get("scopes") or ())


def check_known(given: Document) -> None:
    """Say what the emulator does not have, instead of leaving it out."""
    for name in UNKNOWN:
        if given.get(name):
            raise _missing(name)


def _missing(what: str) -> GCPError:
    return GCPError(501, f"The emulated Compute Engine does not have {what}.", reason="notImplemented")


def _machine_type(given: Document, project: str, zone: str) -> Document:
    text = given.get("machineType", "")
    field = "resource.machineType"
    try:
        where = place(text, "machineTypes", project, f"zones/{zone}")
    except ValueError as error:
        raise invalid(field, text, "The URL is malformed.") from error
    if where.scope != f"zones/{zone}":
        raise invalid(field, text, f"Machine type must be in the zone '{zone}'.")
    kind = gce_catalogue.machine_type(zone, where.name)
    if kind is None:
        raise invalid(field, text, f"Machine type with name '{where.name}' does not exist in zone '{zone}'.")
    return kind


def _accelerators(given: Document, project: str, zone: str, kind: Document) -> tuple[dict[str, int], bool]:
    """How many of which accelerators, and whether they are attached; those of a type are there by themselves."""
    own = {one["guestAcceleratorType"]: one["guestAcceleratorCount"] for one in kind.get("accelerators", [])}
    asked: dict[str, int] = {}
    for one in given.get("guestAccelerators") or []:
        text = one.get("acceleratorType", "")
        name = place(text, "acceleratorTypes", project, f"zones/{zone}").name
        found = gce_catalogue.accelerator_type(zone, name)
        if found is None:
            raise invalid("resource.guestAccelerators[0].acceleratorType", text, "The referenced resource does not exist.")  # fmt: skip
        asked[name] = int(one.get("acceleratorCount", 0))
        most = found["maximumCardsPerInstance"]
        if asked[name] not in (1, 2, 4, 8, 16) or asked[name] > most:
            raise invalid("resource.guestAccelerators[0].acceleratorCount", asked[name], f"Allowed are 1 to {most}, in powers of two.")  # fmt: skip
    if asked and asked != own and (own or not kind["name"].startswith("n1-") or kind["isSharedCpu"]):
        names = ", ".join(sorted(asked))
        raise GCPError(400, f"[{kind['name']}, {names}] features are not compatible for creating instance.", reason="badRequest")  # fmt: skip
    return own or asked, bool(asked) and not own


def _market(given: Document, gpus: Mapping[str, int]) -> str:
    """`on-demand` or `spot`, after what may not be scheduled so."""
    asked = given.get("scheduling") or {}
    model = asked.get("provisioningModel", "")
    spot = model == "SPOT" or (not model and asked.get("preemptible", False))
    field = "resource.scheduling"
    if spot and asked.get("automaticRestart"):
        raise invalid(f"{field}.automaticRestart", "true", "Scheduling must have automaticRestart be false when preemptible is true.")  # fmt: skip
    if asked.get("onHostMaintenance") == "MIGRATE" and (spot or gpus):
        who = "Spot VMs" if spot else "Instances with guest accelerators"
        raise invalid(f"{field}.onHostMaintenance", "MIGRATE", f"{who} do not support live migration.")
    if not spot and gpus and asked.get("onHostMaintenance") != "TERMINATE":
        raise GCPError(400, "Instances with guest accelerators do not support live migration.", reason="badRequest")  # fmt: skip
    _check_limit(asked, spot=spot)
    return "spot" if spot else "on-demand"


def _check_limit(asked: Document, *, spot: bool) -> None:
    """https://cloud.google.com/compute/docs/instances/limit-vm-runtime"""  # noqa: D400
    field = "resource.scheduling"
    limited = asked.get("maxRunDuration")
    if limited and not SHORTEST_S <= int(limited.get("seconds", 0)) <= LONGEST_S:
        raise invalid(f"{field}.maxRunDuration", limited.get("seconds"), "Must be between 30 seconds and 120 days.")  # fmt: skip
    action = asked.get("instanceTerminationAction")
    ends = spot or limited or asked.get("terminationTime")
    if action and not ends:
        raise invalid(f"{field}.instanceTerminationAction", action, "Only Spot VMs and VMs with a limited run time have one.")  # fmt: skip
    if limited and not spot and not action:
        raise invalid(f"{field}.instanceTerminationAction", "", "A VM with a limited run time must have one.")


def _check_tags(given: Document) -> None:
    tags = (given.get("tags") or {}).get("items") or []
    for number, tag in enumerate(tags):
        check_name(f"resource.tags.items[{number}]", tag)
    if len(tags) > 64:  # noqa: PLR2004  (https://cloud.google.com/vpc/docs/add-remove-network-tags#restrictions)
        raise invalid("resource.tags.items", len(tags), "Too many tags.")


def check_metadata(given: Document) -> None:
    """Refuse metadata that no instance can have."""
    items = given.get("items") or []
    keys = [item.get("key", "") for item in items]
    for number, item in enumerate(items):
        if not METADATA_KEY.fullmatch(item.get("key", "")):
            raise invalid(f"resource.metadata.items[{number}].key", item.get("key", ""), f"Must be a match of regex '{METADATA_KEY.pattern}'")  # fmt: skip
        if len(item.get("value", "").encode()) > MOST_METADATA:
            raise GCPError(400, f"Value for metadata entry '{item['key']}' is too long: at most {MOST_METADATA} bytes are allowed.", reason="invalid")  # fmt: skip
    if len(set(keys)) < len(keys):
        raise invalid("resource.metadata.items", ", ".join(keys), "Metadata has duplicate keys.")
    if sum(len(item.get("key", "")) + len(item.get("value", "").encode()) for item in items) > ALL_METADATA:
        raise GCPError(400, f"Metadata is too large: at most {ALL_METADATA} bytes are allowed.", reason="invalid")  # fmt: skip
