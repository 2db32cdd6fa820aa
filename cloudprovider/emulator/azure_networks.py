"""Azure's networks: subnets, interfaces, addresses, security groups, and what may not be deleted while in use."""

from __future__ import annotations

import copy
import functools
import ipaddress
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import azure_rules
from cloudprovider.emulator.azure_bills import ADDRESS, address_price
from cloudprovider.emulator.azure_offers import check_location
from cloudprovider.emulator.azure_store import Resource, resource_id
from cloudprovider.emulator.azure_wire import AzureError, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_pending import Operations
    from cloudprovider.emulator.azure_rights import Rights
    from cloudprovider.emulator.azure_store import Store

__all__ = ["Networks"]

NETWORK = "Microsoft.Network/virtualNetworks"
SUBNET = f"{NETWORK}/subnets"
GROUP = "Microsoft.Network/networkSecurityGroups"
RULE = f"{GROUP}/securityRules"
INTERFACE = "Microsoft.Network/networkInterfaces"
ADDRESSES = "Microsoft.Network/publicIPAddresses"
BASTION = "Microsoft.Network/bastionHosts"
GATEWAY = "Microsoft.Network/natGateways"
MEMBERS = "Microsoft.Network/applicationSecurityGroups"
#: Operations of each type: how the SDK calls the group of them.
TYPES = {
    "VirtualNetworks": NETWORK,
    "Subnets": SUBNET,
    "NetworkSecurityGroups": GROUP,
    "SecurityRules": RULE,
    "NetworkInterfaces": INTERFACE,
    "PublicIPAddresses": ADDRESSES,
    "BastionHosts": BASTION,
    "NatGateways": GATEWAY,
    "ApplicationSecurityGroups": MEMBERS,
}
#: Addresses of a subnet that Azure keeps: https://learn.microsoft.com/azure/virtual-network/virtual-networks-faq
RESERVED = 5
ADDRESSES_HERE = 60_000  # of the loopback network
Document = dict[str, Any]
#: Of public addresses, where the profile does not say: more than anyone needs here.
AMPLE = 1_000_000


class Networks:
    """Answers what is asked of Microsoft.Network.

    On loopback every interface has an address of this computer, whatever the block of its subnet is; its public
    address, if it has one, is the same.
    """

    def __init__(self, account: Account, store: Store, pending: Operations, rights: Rights) -> None:
        self._account = account
        self._store = store
        self._pending = pending
        self._rights = rights
        self._macs = itertools.count(1)
        hosts = account.network.block.hosts()
        self._addresses = itertools.cycle(list(itertools.islice(hosts, 3, ADDRESSES_HERE)))
        self._given = 0
        self._used: Counter[str] = Counter()  # addresses of each subnet

    def handlers(self) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        """What answers each operation."""
        for name, type in TYPES.items():
            yield f"{name}.Get", self._get
            yield f"{name}.Delete", self._delete
            for operation in ("List", "ListAll", "ListByResourceGroup", "ListBySubscription"):
                yield f"{name}.{operation}", functools.partial(self._list, type)
            yield f"{name}.CreateOrUpdate", functools.partial(self._put, type)
            yield f"{name}.UpdateTags", self._tag
        yield "Usages.List", self._usages

    # -- the operations ------------------------------------------------------------------------------

    def _get(self, request: Request) -> Reply:
        return Reply(body=self.told(self._store.get(request.path)))

    def _list(self, type: str, request: Request) -> Reply:
        known = request.id
        found = self._store.of(type, known.group)
        if known.names:  # what belongs to one network or group of rules
            parent = request.path.rpartition("/")[0]
            self._store.get(parent)
            found = [one for one in found if one.id.lower().startswith(f"{parent.lower()}/")]
        return Reply(body={"value": [self.told(one) for one in found]})

    def _usages(self, request: Request) -> Reply:
        """How many addresses there are in a region, and how many there may be."""
        location = check_location(request.names["location"])
        here = [one for one in self._store.of(ADDRESSES) if one.location == location]
        limit = self._account.profile.quotas.get("PublicIPAddresses", AMPLE)
        name = {"value": "PublicIPAddresses", "localizedValue": "Public IP Addresses"}
        told = {"name": name, "unit": "Count", "currentValue": len(here), "limit": int(limit)}
        return Reply(body={"value": [told]})

    def _tag(self, request: Request) -> Reply:
        found = self._store.get(request.path)
        found.document["tags"] = dict((request.body or {}).get("tags") or {})
        found.changed()
        return Reply(body=self.told(found))

    def _put(self, type: str, request: Request) -> Reply:
        known = self._store.find(request.path)
        matched(request, known)
        made = self.put(request, type, request.id.names, request.body)
        location = made.location or self._store.get(made.id.rpartition("/")[0].rpartition("/")[0]).location
        told, status = self.told(made), 200 if known else 201
        if self._pending.quick:
            return Reply(body=told, status=status)
        pending, reply = self._pending.begin(
            request, location, status=status, body=told, then=lambda: self.told(made)
        )
        self._pending.after(pending, self._account.profile.address_s, lambda: None)
        return reply

    def put(self, request: Request, type: str, names: tuple[str, ...], body: Document) -> Resource:
        """Make a resource, or make it another."""
        group = self._store.group(request.id.group).name
        id = resource_id(group, type, *names)
        document = {key: value for key, value in body.items() if key not in ("id", "name", "type", "etag")}
        document = copy.deepcopy(document)
        own = document.setdefault("properties", {})
        known = self._store.find(id)
        if type == INTERFACE:
            self._interface(request, id, own, known)
        elif type == ADDRESSES:
            self._address(document, known)
        elif type in (RULE, GROUP):
            self._rules(request, id, type, own)
        elif type == SUBNET:
            self._subnet(id, own)
        inner = own.pop("subnets", None) if type == NETWORK else None
        own["provisioningState"] = "Succeeded"
        own.setdefault("resourceGuid", known.properties.get("resourceGuid") if known else None)
        if own["resourceGuid"] is None:
            del own["resourceGuid"]
        if known:
            known.document = document
            known.changed()
        else:
            known = Resource(id=id, type=type, document=document)
            self._store.add(known)
            if type == ADDRESSES:
                self._bill(known)
        self._children(request, known, inner)
        return known

    def _delete(self, request: Request) -> Reply:
        found = self._store.find(request.path)
        if found is None:
            return Reply(status=204)
        self.check_unused(found)
        location = found.location or "global"
        self.remove(found)
        if self._pending.quick:
            return Reply()
        pending, reply = self._pending.begin(request, location)
        self._pending.after(pending, self._account.profile.address_s, lambda: None)
        return reply

    def remove(self, resource: Resource) -> None:
        """Forget a resource and what belongs to it."""
        for one in (resource, *self._children_of(resource)):
            self._store.remove(one)
        if resource.type == ADDRESSES:
            payer = resource.document.get("payer", resource.name)  # it bills from when its write has ended
            self._account.ledger.stop(payer, time.time(), ADDRESS)
        if resource.type == INTERFACE:
            for configuration in resource.properties["ipConfigurations"]:
                self._used[configuration["properties"]["subnet"]["id"].lower()] -= 1
                if address := self._public(configuration["properties"]):
                    address.properties.pop("ipConfiguration", None)

    # -- what there must be, and may not -------------------------------------------------------------

    def check_unused(self, resource: Resource) -> None:
        """Refuse to delete what others use."""
        id, used = resource.id, resource.properties
        if resource.type == INTERFACE and (machine := used.get("virtualMachine")):
            text = (
                f"Network Interface {id} is used by existing resource {machine['id']}. In order to delete the "
                "network interface, it must be dissociated from the resource. To learn more, see "
                "aka.ms/deletenic."
            )
            raise AzureError(400, "NicInUse", text)
        if resource.type == ADDRESSES and (user := used.get("ipConfiguration")):
            text = (
                f"Public IP address {id} can not be deleted since it is still allocated to resource {user['id']}. "
                "In order to delete the public IP, disassociate/detach the Public IP address from the resource."
            )
            raise AzureError(400, "PublicIPAddressCannotBeDeleted", text)
        for one in self._store.of(INTERFACE):
            if resource.type == GROUP and named(one.properties.get("networkSecurityGroup"), id):
                raise self._in_use("NetworkSecurityGroup", "Network security group", id, one.id)
            for configuration in one.properties["ipConfigurations"]:
                subnet = configuration["properties"]["subnet"]["id"].lower()
                if resource.type in (NETWORK, SUBNET) and f"{subnet}/".startswith(f"{id.lower()}/"):
                    raise self._in_use("Subnet", "Subnet", subnet.rpartition("/")[2], configuration["id"])
        for one in self._store.of(SUBNET) if resource.type == GROUP else ():
            if named(one.properties.get("networkSecurityGroup"), id):
                raise self._in_use("NetworkSecurityGroup", "Network security group", id, one.id)

    @staticmethod
    def _in_use(what: str, words: str, name: str, user: str) -> AzureError:
        text = f"{words} {name} is in use by {user} and cannot be deleted."
        return AzureError(400, f"InUse{what}CannotBeDeleted", text)

    def _subnet(self, id: str, own: Document) -> None:
        network = self._store.get(id.rpartition("/subnets/")[0])
        block = own.get("addressPrefix") or next(iter(own.get("addressPrefixes") or ()), "")
        try:
            inner = ipaddress.ip_network(block)
        except ValueError as error:
            text = f"The address prefix {block} of subnet {id.rpartition('/')[2]} is no valid CIDR block."
            raise AzureError(400, "InvalidAddressPrefixFormat", text) from error
        blocks = network.properties.get("addressSpace", {}).get("addressPrefixes", [])
        if not any(inner.subnet_of(ipaddress.ip_network(one)) for one in blocks):  # type: ignore[arg-type]
            text = f"Subnet '{id.rpartition('/')[2]}' is not valid in virtual network '{network.name}'."
            raise AzureError(400, "NetcfgInvalidSubnet", text)
        for one in self._children_of(network):
            other = ipaddress.ip_network(one.properties["addressPrefix"])
            if one.id.lower() != id.lower() and inner.overlaps(other):
                text = f"Subnet '{id.rpartition('/')[2]}' is not valid because its IP address range overlaps."
                raise AzureError(400, "NetcfgSubnetRangesOverlap", text)
        own["addressPrefix"] = str(inner)
        own.pop("addressPrefixes", None)

    def _rules(self, request: Request, id: str, type: str, own: Document) -> None:
        for rule in (
            [own] if type == RULE else [one.get("properties") or {} for one in own.get("securityRules") or ()]
        ):
            for side in ("source", "destination"):
                for members in rule.get(f"{side}ApplicationSecurityGroups") or ():
                    self._rights.linked(request, f"{MEMBERS}/joinNetworkSecurityRule/action", members["id"])
        if type == RULE:
            group = self._store.get(id.rpartition("/securityRules/")[0])
            others = [(one.name, one.properties) for one in self._children_of(group) if one.id != id]
            azure_rules.check(id.rpartition("/")[2], own, others)

    def _children(self, request: Request, parent: Resource, subnets: list[Document] | None) -> None:
        """What a network or a group of rules holds is as its document says: what is not named is gone."""
        if parent.type == NETWORK and subnets is not None:
            kind, wanted = SUBNET, subnets
        elif parent.type == GROUP and "securityRules" in parent.properties:
            kind, wanted = RULE, parent.properties.pop("securityRules") or []
        else:
            return
        names = {one["name"].lower() for one in wanted}
        for one in self._children_of(parent):
            if one.name.lower() not in names:
                self.check_unused(one)
                self._store.remove(one)
        for child in wanted:
            self.put(request, kind, (parent.name, child["name"]), child)

    def _children_of(self, parent: Resource) -> list[Resource]:
        kind = {NETWORK: SUBNET, GROUP: RULE}.get(parent.type, "")
        return [one for one in self._store.of(kind) if one.id.lower().startswith(f"{parent.id.lower()}/")]

    # -- addresses -----------------------------------------------------------------------------------

    def _interface(self, request: Request, id: str, own: Document, known: Resource | None) -> None:
        if group := own.get("networkSecurityGroup"):
            self._store.referenced(group["id"], id)
            self._rights.linked(request, f"{GROUP}/join/action", group["id"])
        if not own.get("ipConfigurations"):
            raise AzureError(
                400, "NetworkInterfaceMustHaveAtLeastOneIpConfiguration", f"{id} has no ipConfigurations."
            )
        before = known.properties["ipConfigurations"] if known else []
        for number, configuration in enumerate(own["ipConfigurations"]):
            old = before[number]["properties"] if number < len(before) else {}
            self._configure(request, id, configuration, old, primary=number == 0)
        if known:
            own.update(
                {
                    key: known.properties[key]
                    for key in ("macAddress", "virtualMachine")
                    if key in known.properties
                }
            )
        else:
            own["macAddress"] = f"00-0D-3A-{next(self._macs):06X}"[:17]

    def _configure(
        self, request: Request, id: str, configuration: Document, old: Document, *, primary: bool
    ) -> None:
        """Give a configuration its addresses."""
        configuration["id"] = f"{id}/ipConfigurations/{configuration['name']}"
        own = configuration.setdefault("properties", {})
        subnet = self._store.referenced((own.get("subnet") or {}).get("id", ""), id)
        self._rights.linked(request, f"{SUBNET}/join/action", subnet.id)
        for members in own.get("applicationSecurityGroups") or ():
            self._rights.linked(request, f"{MEMBERS}/joinIpConfiguration/action", members["id"])
        if not old:
            self._check_room(subnet)
            self._used[subnet.id.lower()] += 1
        public = self._public(own)
        if public:
            self._rights.linked(request, f"{ADDRESSES}/join/action", public.id)
            self._check_free(public, configuration["id"])
        address = old.get("privateIPAddress") or own.get("privateIPAddress")
        address = address or (public.properties.get("ipAddress") if public else "") or self.address()
        own |= {"privateIPAddress": address, "primary": primary, "provisioningState": "Succeeded"}
        own.setdefault("privateIPAllocationMethod", "Dynamic")
        own.setdefault("privateIPAddressVersion", "IPv4")
        if public:
            public.properties.update(ipAddress=address, ipConfiguration={"id": configuration["id"]})
            # What an interface says of it holds: https://learn.microsoft.com/azure/virtual-machines/delete
            public.properties.update(own["publicIPAddress"].get("properties") or {})

    def _public(self, own: Document) -> Resource | None:
        given = own.get("publicIPAddress")
        return self._store.referenced(given["id"], "the interface") if given else None

    def _check_free(self, public: Resource, user: str) -> None:
        used = public.properties.get("ipConfiguration")
        if used and used["id"].lower() != user.lower():
            text = f"Resource {used['id']} is already referencing public IP address {public.id}."
            raise AzureError(400, "PublicIPAddressInUse", text)

    def _check_room(self, subnet: Resource) -> None:
        """Refuse an interface in a subnet that is full."""
        used = self._used[subnet.id.lower()]
        block = ipaddress.ip_network(subnet.properties["addressPrefix"])
        room = block.num_addresses - RESERVED - used
        for fault in self._account.faults.of("addresses"):
            if fault.subnet.lower() in ("", subnet.id.lower(), subnet.name.lower()):
                room = min(room, fault.room - used + fault.held.setdefault(subnet.id, used))
        if room <= 0:
            text = f"Subnet {subnet.name} with address prefix {block} does not have enough capacity for 1 IP addresses."
            raise AzureError(400, "SubnetIsFull", text)

    def address(self) -> str:
        """An address that no interface has."""
        self._given += 1
        if self._given < ADDRESSES_HERE - 3:  # none has been given twice yet
            return str(next(self._addresses))
        taken = {
            one["properties"]["privateIPAddress"]
            for interface in self._store.of(INTERFACE)
            for one in interface.properties["ipConfigurations"]
        } | {one.properties.get("ipAddress") for one in self._store.of(ADDRESSES)}
        return next(text for text in map(str, self._addresses) if text not in taken)

    def _address(self, document: Document, known: Resource | None) -> None:
        own = document["properties"]
        document.setdefault("sku", {"name": "Standard", "tier": "Regional"})
        if (
            document["sku"]["name"] != "Standard"
        ):  # https://learn.microsoft.com/azure/virtual-network/ip-services/public-ip-basic-upgrade-guidance
            text = "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription in this region."
            raise AzureError(400, "IPv4BasicSkuPublicIpCountLimitReached", text)
        limit = self._account.profile.quotas.get("PublicIPAddresses")
        if known is None and limit is not None and len(self._store.of(ADDRESSES)) >= limit:
            text = (
                f"Cannot create more than {limit:g} public IP addresses for this subscription in this region."
            )
            raise AzureError(400, "PublicIPCountLimitReached", text)
        if own.setdefault("publicIPAllocationMethod", "Static") != "Static":
            text = "Standard sku publicIp addresses must have their allocation method set to Static."
            raise AzureError(400, "PublicIPAddressSkuAllocationMethodMismatch", text)
        own.setdefault("publicIPAddressVersion", "IPv4")
        own["ipAddress"] = known.properties["ipAddress"] if known else self.address()
        if known and "ipConfiguration" in known.properties:
            own["ipConfiguration"] = known.properties["ipConfiguration"]

    def _bill(self, address: Resource) -> None:
        payer = address.document.setdefault("payer", address.name)
        self._account.ledger.start(payer, ADDRESS, "on-demand", address_price(), address.created)

    # -- how they are told ---------------------------------------------------------------------------

    def told(self, resource: Resource) -> Document:
        """A resource as the API tells it."""
        document = {key: value for key, value in resource.document.items() if key != "payer"}
        own = dict(document.get("properties") or {})
        if resource.type == NETWORK:
            own["subnets"] = [self.told(one) for one in self._children_of(resource)]
        elif resource.type == GROUP:
            own["securityRules"] = [self.told(one) for one in self._children_of(resource)]
            own["defaultSecurityRules"] = azure_rules.defaults(resource.id)
        elif resource.type == SUBNET:
            own["ipConfigurations"] = [
                {"id": one["id"]}
                for interface in self._store.of(INTERFACE)
                for one in interface.properties["ipConfigurations"]
                if named(one["properties"].get("subnet"), resource.id)
            ]
        return {
            "id": resource.id,
            "name": resource.name,
            "type": resource.type,
            "etag": f'W/"{resource.etag}"',
            **document,
            "properties": own,
        }


def named(reference: Document | None, id: str) -> bool:
    """Whether a reference is to this resource."""
    return bool(reference) and str(reference["id"]).lower() == id.lower()  # type: ignore[index]


def matched(request: Request, known: Resource | None) -> None:
    """Refuse a change of what is not as its caller believes."""
    match, none = request.headers.get("if-match"), request.headers.get("if-none-match")
    etags = ("*", known.etag, f'"{known.etag}"', f'W/"{known.etag}"') if known else ()
    if (match and match not in etags) or (none == "*" and known):
        text = f"The condition '{match or none}' specified using HTTP conditional header(s) is not met."
        raise AzureError(412, "PreconditionFailed", text)
