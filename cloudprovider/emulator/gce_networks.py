"""Networks, subnetworks, firewalls and addresses of the embedded Compute Engine.

Subnetworks lie in this computer's loopback network, so that machines can bind their addresses.
https://cloud.google.com/vpc/docs/subnets https://cloud.google.com/firewall/docs/firewalls
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gce_catalogue import regions
from cloudprovider.emulator.gce_links import (
    BASE,
    HOST_PROJECT,
    Place,
    check_labels,
    check_name,
    fingerprint,
    invalid,
    place,
)
from cloudprovider.emulator.gce_lists import aggregated, listed
from cloudprovider.emulator.gce_operations import Failure
from cloudprovider.emulator.gcp_wire import PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_links import Document
    from cloudprovider.emulator.gce_operations import Operation, Operations
    from cloudprovider.emulator.gce_request import Call

KEPT = 4  # "four unusable addresses": the first two and the last two of a range
#: Each region's part of the network of loopback addresses: 1,022 machines in each of 64 regions.
PREFIX = 22
#: What every project's `default` network has: https://cloud.google.com/firewall/docs/firewalls#more_rules_default_vpc
DEFAULT_RULES: tuple[tuple[str, list[Document], str], ...] = (
    ("icmp", [{"IPProtocol": "icmp"}], "0.0.0.0/0"),
    (
        "internal",
        [
            {"IPProtocol": "tcp", "ports": ["0-65535"]},
            {"IPProtocol": "udp", "ports": ["0-65535"]},
            {"IPProtocol": "icmp"},
        ],
        "10.128.0.0/9",
    ),
    ("rdp", [{"IPProtocol": "tcp", "ports": ["3389"]}], "0.0.0.0/0"),
    ("ssh", [{"IPProtocol": "tcp", "ports": ["22"]}], "0.0.0.0/0"),
)

#: By collection: kind in answers, and what its name is called in paths.
KINDS = {
    "networks": ("network", "network"),
    "subnetworks": ("subnetwork", "subnetwork"),
    "firewalls": ("firewall", "firewall"),
    "addresses": ("address", "address"),
    "routers": ("router", "router"),
}


class Networks:
    """The networks of one account, and what is in them."""

    def __init__(self, account: Account, operations: Operations) -> None:
        self._account, self._operations = account, operations
        self._known: dict[Place, Document] = {}
        self._used: dict[str, dict[str, str]] = {}  # by subnetwork: address, and whose it is
        self._next: dict[str, int] = {}  # by subnetwork: which address to try first
        self.handlers: dict[str, Callable[[Call], Any]] = {}
        for collection in KINDS:
            for verb in ("get", "list", "insert", "delete", "patch", "aggregatedList"):
                act = getattr(self, {"aggregatedList": "aggregated"}.get(verb, verb))
                self.handlers[f"{collection}.{verb}"] = _of(act, collection)
        self._prepare(PROJECT, "default")
        self._prepare(HOST_PROJECT, "shared")

    def _prepare(self, project: str, name: str) -> None:
        """Make a network with a subnetwork in every region, as each project has one."""
        network = Place(project, "global", "networks", name)
        document = network.new("network") | _network_facts({"autoCreateSubnetworks": True})
        self._known[network] = document
        document["subnetworks"] = []
        self._make_subnetworks(network)
        for rule, allowed, sources in DEFAULT_RULES if name == "default" else ():
            firewall = Place(project, "global", "firewalls", f"default-allow-{rule}")
            given = {"allowed": allowed, "sourceRanges": [sources], "priority": 65534}
            self._known[firewall] = firewall.new("firewall") | _firewall_facts(given, network.link)

    def _make_subnetworks(self, network: Place) -> None:
        blocks = self._account.network.block.subnets(new_prefix=PREFIX)
        for region, block in zip(regions(), blocks, strict=False):
            subnet = Place(network.project, f"regions/{region}", "subnetworks", network.name)
            self._known[subnet] = subnet.new("subnetwork") | self._subnetwork_facts(
                subnet, {"ipCidrRange": str(block)}, network.link
            )
            self._known[network]["subnetworks"].append(subnet.link)

    # -- the calls -----------------------------------------------------------------------------------

    def _place(self, collection: str, request: Call) -> Place:
        return request.place(collection, request.arguments[KINDS[collection][1]])

    def find(self, where: Place) -> Document:
        """One that there is."""
        if where not in self._known:
            raise where.missing()
        return self._known[where]

    def all(self, collection: str, project: str = PROJECT) -> list[Document]:
        """Those of a collection, of the landing or not."""
        return [
            one
            for where, one in self._known.items()
            if (where.collection, where.project) == (collection, project)
        ]

    def get(self, collection: str, request: Call) -> Document:
        """One of them."""
        return self.find(self._place(collection, request))

    def list(self, collection: str, request: Call) -> Document:
        """Those of a place."""
        here = (request.project, request.scope, collection)
        found = [
            one
            for where, one in self._known.items()
            if (where.project, where.scope, where.collection) == here
        ]
        return listed(request, KINDS[collection][0], found)

    def aggregated(self, collection: str, request: Call) -> Document:
        """Those of all regions."""
        scopes: dict[str, list[Document]] = {f"regions/{region}": [] for region in regions()}
        for where, one in self._known.items():
            if (where.project, where.collection) == (request.project, collection):
                scopes.setdefault(where.scope, []).append(one)
        return aggregated(request, KINDS[collection][0], collection, scopes)

    def insert(self, collection: str, request: Call) -> Document:
        """A new one."""
        where = request.place(collection, request.given.get("name", ""))
        check_name("resource.name", where.name)

        def work() -> Operation:
            if where in self._known:
                raise where.taken()
            facts = getattr(self, f"_new_{KINDS[collection][0]}")(where, request.given)
            document = where.new(KINDS[collection][0]) | facts
            self._known[where] = document
            operation = self._operations.begin(
                "insert", where, request.principal.email, targetId=document["id"]
            )
            self._operations.soon(operation, lambda: self._inserted(where))
            return operation

        return self._operations.once(request, work)

    def _inserted(self, where: Place) -> None:
        if where.collection == "networks" and self._known[where].get("autoCreateSubnetworks"):
            self._known[where]["subnetworks"] = []
            self._make_subnetworks(where)

    def patch(self, collection: str, request: Call) -> Document:
        """Change some fields of one."""
        where = self._place(collection, request)
        document = self.find(where)
        given = {key: value for key, value in request.given.items() if key not in ("name", "network")}
        if collection == "firewalls":
            _check_rules({**document, **given})

        def work() -> Operation:
            document.update(given)
            operation = self._operations.begin(
                "patch", where, request.principal.email, targetId=document["id"]
            )
            self._operations.soon(operation)
            return operation

        return self._operations.once(request, work)

    def delete(self, collection: str, request: Call) -> Document:
        """Delete one that nobody uses."""
        where = self._place(collection, request)

        def work() -> Operation:
            document = self.find(where)
            self._check_unused(where)
            operation = self._operations.begin(
                "delete", where, request.principal.email, targetId=document["id"]
            )
            self._operations.soon(operation, lambda: self._deleted(where))
            return operation

        return self._operations.once(request, work)

    def _deleted(self, where: Place) -> None:
        self._check_unused(where, Failure)
        self._known.pop(where, None)
        for other in [one for one in self._known if self._belongs(one, where)]:
            del self._known[other]

    def _belongs(self, one: Place, network: Place) -> bool:
        return (
            one.collection == "subnetworks"
            and self._known[one]["network"] == network.link
            and not self._used.get(one.link)
        )

    def _check_unused(self, where: Place, kind: type[Failure] | None = None) -> None:
        user = next(self._users(where), None)
        if user is None:
            return
        message = (
            f"The {KINDS[where.collection][0]} resource '{where.path}' is already being used by '{user}'"
        )
        if kind is not None:
            raise kind("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", message, 400)
        raise GCPError(400, message, reason="resourceInUseByAnotherResource")

    def _users(self, where: Place) -> Iterator[str]:
        if where.collection == "networks":
            yield from (
                one.path
                for one, document in self._known.items()
                if one.collection == "firewalls" and document["network"] == where.link
            )
            automatic = self._known[where].get("autoCreateSubnetworks") if where in self._known else True
            for one, document in self._known.items():
                if one.collection == "subnetworks" and document["network"] == where.link:
                    yield from self._used.get(one.link, {}).values() if automatic else (one.path,)
        else:
            yield from self._used.get(where.link, {}).values()

    # -- what is made --------------------------------------------------------------------------------

    def _new_router(self, where: Place, given: Document) -> Document:
        network = self._network(given.get("network", ""), where.project)
        return {
            **given,
            "network": network.link,
            "region": f"{BASE}projects/{where.project}/{where.scope}",
        }

    @staticmethod
    def _new_network(where: Place, given: Document) -> Document:
        del where
        return _network_facts(given)

    def _new_firewall(self, where: Place, given: Document) -> Document:
        network = self._network(given.get("network") or "global/networks/default", where.project)
        _check_rules(given)
        return _firewall_facts(given, network.link)

    def _new_subnetwork(self, where: Place, given: Document) -> Document:
        network = self._network(given.get("network", ""), where.project)
        try:
            block = ipaddress.IPv4Network(given.get("ipCidrRange", ""))
        except ValueError as error:
            raise invalid(
                "resource.ipCidrRange", given.get("ipCidrRange", ""), "Must be a CIDR address range."
            ) from error
        for one in self.all("subnetworks", where.project):
            if one["network"] == network.link and block.overlaps(ipaddress.IPv4Network(one["ipCidrRange"])):
                raise invalid("resource.ipCidrRange", block, "Conflicts with existing subnetwork "
                              f"'{one['selfLink'].removeprefix(BASE)}'.")  # fmt: skip
        self._known[network].setdefault("subnetworks", []).append(where.link)
        return self._subnetwork_facts(where, given, network.link)

    @staticmethod
    def _subnetwork_facts(where: Place, given: Document, network: str) -> Document:
        block = ipaddress.IPv4Network(given["ipCidrRange"])
        own = {key: value for key, value in given.items() if key != "region"}
        return {
            "privateIpGoogleAccess": False,
            "purpose": "PRIVATE",
            "stackType": "IPV4_ONLY",
            **own,
            "network": network,
            "region": f"{BASE}projects/{where.project}/{where.scope}",
            "gatewayAddress": str(block.network_address + 1),
            "fingerprint": fingerprint(),
        }

    def _new_address(self, where: Place, given: Document) -> Document:
        check_labels("resource.labels", given.get("labels") or {})
        internal = given.get("addressType") == "INTERNAL"
        facts = {"addressType": "EXTERNAL", "networkTier": "PREMIUM", **given, "status": "RESERVED"}
        if internal:
            subnet = self.subnetwork(
                where.project, where.scope, given.get("subnetwork", ""), given.get("network", "")
            )
            facts |= {"address": self.take(subnet, where.path), "subnetwork": subnet.link, "purpose": "GCE_ENDPOINT"}  # fmt: skip
        else:
            subnet = Place(PROJECT, where.scope, "subnetworks", "default")
            facts |= {"address": self.take(subnet, where.path)}  # a public address is a loopback one here
        return facts | {"region": f"{BASE}projects/{where.project}/{where.scope}"}

    # -- what machines ask ---------------------------------------------------------------------------

    def _network(self, text: str, project: str) -> Place:
        try:
            found = place(text, "networks", project, "global")
        except ValueError as error:
            raise invalid("resource.network", text, "The URL is malformed.") from error
        if found not in self._known:
            raise invalid("resource.network", text, "The referenced network resource cannot be found.")
        return found

    def subnetwork(self, project: str, scope: str, subnetwork: str, network: str) -> Place:
        """The subnetwork that an interface names, or its network's in the region of a scope.

        Raises
        ------
        GCPError
            When there is none.
        """
        if subnetwork:
            field = "resource.networkInterfaces[0].subnetwork"
            try:
                found = place(subnetwork, "subnetworks", project, scope)
            except ValueError as error:
                raise invalid(field, subnetwork, "The URL is malformed.") from error
            if found not in self._known:
                raise invalid(field, subnetwork, "The referenced subnetwork resource cannot be found.")
            if found.scope != scope:
                raise invalid(field, subnetwork, f"Subnetwork must be in region '{scope.partition('/')[2]}'.")
            return found
        field = "resource.networkInterfaces[0]"
        home = self._network(network or "global/networks/default", project)
        for one, document in self._known.items():
            if one.collection == "subnetworks" and one.scope == scope and document["network"] == home.link:
                if self._known[home].get("autoCreateSubnetworks"):
                    return one
                raise invalid(field, "", "Subnetwork should be specified for custom subnetmode network")
        raise invalid(field, "", f"Network '{home.name}' has no subnetwork in {scope}.")

    def network_of(self, subnetwork: Place) -> str:
        """The link of a subnetwork's network."""
        return str(self._known[subnetwork]["network"])

    def has_way_out(self, subnetwork: Place, registry: str, *, public: bool) -> bool:
        """Whether a machine in a subnetwork reaches a registry outside: by its address, Cloud NAT, or Google's own way.

        https://cloud.google.com/vpc/docs/private-google-access https://cloud.google.com/nat/docs/overview
        """
        if public:
            return True
        facts = self._known[subnetwork]
        if facts["privateIpGoogleAccess"] and registry.endswith((".pkg.dev", "gcr.io")):
            return True
        return any(
            where.collection == "routers"
            and (where.scope, one["network"]) == (subnetwork.scope, facts["network"])
            and one.get("nats")
            for where, one in self._known.items()
        )

    def block(self, subnetwork: Place) -> ipaddress.IPv4Network:
        """The addresses of a subnetwork."""
        return ipaddress.IPv4Network(self._known[subnetwork]["ipCidrRange"])

    def free(self, subnetwork: Place) -> int:
        """How many addresses a subnetwork has left."""
        count = self.block(subnetwork).num_addresses - KEPT - len(self._used.get(subnetwork.link, ()))
        rooms = [
            fault.room
            for fault in self._account.faults.of("addresses")
            if fault.subnet in ("", subnetwork.name)
        ]
        return max(0, min([count, *rooms]))

    def take(self, subnetwork: Place, owner: str, wanted: str = "") -> str:
        """An address of a subnetwork, for its owner.

        Raises
        ------
        Failure
            When there is none left.
        """
        used = self._used.setdefault(subnetwork.link, {})
        if wanted and wanted not in used:
            used[wanted] = owner
            return wanted
        block = self.block(subnetwork)
        room = block.num_addresses - KEPT
        first = self._next.get(subnetwork.link, 0)
        for number in range(first, first + room) if self.free(subnetwork) else ():
            address = str(block[2 + number % room])
            if address not in used:
                used[address] = owner
                self._next[subnetwork.link] = (number + 1) % room
                return address
        raise Failure(
            "IP_SPACE_EXHAUSTED",
            f"IP space of '{subnetwork.path}' is exhausted.  Insufficient free IP addresses.",
            400,
        )

    def give_back(self, subnetwork: Place, address: str) -> None:
        """An address is free again."""
        self._used.get(subnetwork.link, {}).pop(address, None)

    def reserved(self, project: str, scope: str, address: str) -> Document | None:
        """The reserved address of this number; None when there is none."""
        return next(
            (
                one
                for where, one in self._known.items()
                if where.collection == "addresses"
                and (where.project, where.scope, one["address"]) == (project, scope, address)
            ),
            None,
        )


def _of(act: Callable[[str, Call], Any], collection: str) -> Callable[[Call], Any]:
    return lambda request: act(collection, request)


def _network_facts(given: Document) -> Document:
    return {
        "autoCreateSubnetworks": True,
        "mtu": 1460,
        "routingConfig": {"routingMode": "REGIONAL"},
        "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
        **given,
    }


def _firewall_facts(given: Document, network: str) -> Document:
    sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    direction = given.get("direction", "INGRESS")
    open_to_all = direction == "INGRESS" and not any(given.get(name) for name in sources)
    return {
        "priority": 1000,
        "direction": direction,
        "disabled": False,
        "logConfig": {"enable": False},
        **({"sourceRanges": ["0.0.0.0/0"]} if open_to_all else {}),
        **given,
        "network": network,
    }


def _check_rules(given: Document) -> None:
    allowed, denied = given.get("allowed") or [], given.get("denied") or []
    if bool(allowed) == bool(denied):
        raise GCPError(
            400, "Firewall must contain exactly one of ('allowed' or 'denied') rules.", reason="invalid"
        )
    for rule in [*allowed, *denied]:
        if not rule.get("IPProtocol"):
            raise GCPError(400, "Required field 'resource.allowed[0].IPProtocol' not specified", reason="required")  # fmt: skip
        for port in rule.get("ports") or []:
            ends = port.split("-")
            if not all(end.isdigit() and int(end) < 1 << 16 for end in ends) or len(ends) > 2:  # noqa: PLR2004
                raise invalid("resource.allowed[0].ports[0]", port, "Invalid port range.")
    for field in ("sourceRanges", "destinationRanges"):
        for one in given.get(field) or []:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise invalid(f"resource.{field}[0]", one, "Must be a CIDR address range.") from error
