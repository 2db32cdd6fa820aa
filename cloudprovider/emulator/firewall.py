"""What a VPC's router lets through, as nft says it: security groups, route tables, public addresses.

Pure: it reads moto's state, and writes text.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2 as routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["INSTANCE", "OUTSIDE", "TASK", "Port", "port", "ruleset"]

#: Metadata services of instances and of tasks.
INSTANCE, TASK = "169.254.169.254", "169.254.170.2"
#: The router's link to what is outside its VPC.
OUTSIDE = "outside"


@dataclass(frozen=True, kw_only=True)
class Port:
    """A machine's place at its VPC's router.

    Parameters
    ----------
    link
        The router's link to it.
    address
        Its private address.
    groups
        Its security groups' ids.
    seen_as
        The public address that others see its connections come from; empty when none leaves the VPC.
    public
        Whether that address is its own, and leads to it.
    reaches_cloud
        Whether it reaches the cloud's API: by a way out, or some service of it by an endpoint in the VPC.
    """

    link: str
    address: str
    groups: tuple[str, ...]
    seen_as: str = ""
    public: bool = False
    reaches_cloud: bool = False


def port(ec2: Any, link: str, interface: Any) -> Port:
    """What EC2 says of a machine's interface."""
    subnet, public = interface.subnet.id, interface.public_ip or ""
    seen_as, own = _way_out(ec2, subnet, public)
    way = routes.has_way_out(ec2, subnet, public=bool(public))
    return Port(
        link=link,
        address=interface.private_ip_address,
        groups=tuple(sorted(group.id for group in interface.group_set)),
        seen_as=seen_as,
        public=own,
        reaches_cloud=way or bool(routes.endpoints(ec2, subnet)),
    )


def _way_out(ec2: Any, subnet: str, public: str) -> tuple[str, bool]:
    """The address that a machine is seen as outside, and whether it is its own.

    An internet gateway translates public addresses, and passes nothing else on.
    https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Internet_Gateway.html
    """
    for route in routes.default_routes(ec2, subnet):
        if route.gateway is not None and public:
            return public, True
        if route.nat_gateway is not None and route.nat_gateway._eni.public_ip:
            return str(route.nat_gateway._eni.public_ip), False
    return "", False


def ruleset(ec2: Any, ports: Sequence[Port], api: tuple[str, int]) -> str:
    """The router's rules, which replace those there were.

    Parameters
    ----------
    ec2
        moto's backend.
    ports
        The VPC's machines.
    api
        Where the cloud's API is for them.
    """
    groups = _groups(ec2, ports)
    lines = [
        "table inet cloud {}",
        "delete table inet cloud",
        "table inet cloud {",
        *_members(groups, ports),
        *_chains(groups, ports),
        *_forward(ports),
        *_input(ports, api),
        *_translation(ports),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _groups(ec2: Any, ports: Iterable[Port]) -> dict[str, Any]:
    ids = sorted({id for port in ports for id in port.groups})
    found = {id: ec2.get_security_group_from_id(id) for id in ids}
    return {id: group for id, group in found.items() if group is not None}


def _members(groups: Mapping[str, Any], ports: Sequence[Port]) -> Iterator[str]:
    """A set for each group that a rule can name: the private addresses of its machines."""
    named = {
        rule.source_group.get("GroupId")
        for group in groups.values()
        for rule in (*group.ingress_rules, *group.egress_rules)
    }
    for id in sorted({*groups, *filter(None, named)}):
        addresses = [port.address for port in ports if id in port.groups]
        yield f"set {id} {{ type ipv4_addr; {_elements(addresses)} }}"


def _chains(groups: Mapping[str, Any], ports: Sequence[Port]) -> Iterator[str]:
    """A chain in and a chain out for each combination of groups that machines have.

    A packet has to pass its sender's groups and its receiver's: out returns, in accepts.
    """
    for number, combination in enumerate(_combinations(ports)):
        own = [groups[id] for id in combination if id in groups]
        leaving = sorted({m for group in own for rule in group.egress_rules for m in _matches(rule, "daddr")})
        coming = sorted({m for group in own for rule in group.ingress_rules for m in _matches(rule, "saddr")})
        yield f"chain out-{number} {{ {_verdicts(leaving, 'return')} drop; }}"
        yield f"chain in-{number} {{ {_verdicts(coming, 'accept')} drop; }}"


def _combinations(ports: Iterable[Port]) -> list[tuple[str, ...]]:
    return sorted({port.groups for port in ports})


def _verdicts(matches: Iterable[str], verdict: str) -> str:
    return " ".join(f"{match} {verdict};" for match in matches)


def _matches(rule: Any, side: str) -> Iterator[str]:
    """What a rule of a security group lets through; IPv6 and prefix lists are not to be had."""
    if rule.cidr_ipv4:
        block = ipaddress.ip_network(rule.cidr_ipv4, strict=False)
        peer = f"ip {side} {block} " if block.prefixlen else ""
    elif group := rule.source_group.get("GroupId"):
        peer = f"ip {side} @{group} "
    else:
        return
    protocol = str(rule.ip_protocol)
    if protocol == "-1":
        yield peer
    elif protocol in ("tcp", "udp") and (rule.from_port, rule.to_port) not in ((-1, -1), (0, 65535)):
        yield f"{peer}{protocol} dport {rule.from_port}-{rule.to_port}"
    else:
        yield f"{peer}meta l4proto {protocol}"


def _forward(ports: Sequence[Port]) -> Iterator[str]:
    numbers = {combination: number for number, combination in enumerate(_combinations(ports))}
    leaving = _elements([f'"{port.link}" : jump out-{numbers[port.groups]}' for port in ports], "")
    coming = _elements([f'"{port.link}" : jump in-{numbers[port.groups]}' for port in ports], "")
    out = _elements([port.address for port in ports if port.seen_as], "")
    yield "chain forward { type filter hook forward priority filter; policy drop;"
    yield "ct state established,related accept;"
    yield "meta l4proto { tcp, udp } th dport 53 reject;"  # there is no resolver: nobody is to wait for it
    if ports:
        yield f"iifname vmap {leaving};"
        if out:
            yield f'oifname "{OUTSIDE}" ip saddr {out} accept;'
        yield f"oifname vmap {coming};"
    yield "}"


def _input(ports: Sequence[Port], api: tuple[str, int]) -> Iterator[str]:
    """The router itself: metadata for every machine, the API for those that have a way to it."""
    address, number = api
    callers = _elements([port.address for port in ports if port.reaches_cloud], "")
    yield "chain input { type filter hook input priority filter; policy drop;"
    yield 'iifname "lo" accept;'
    yield f'iifname != "{OUTSIDE}" ip daddr {{ {INSTANCE}, {TASK} }} tcp dport 80 accept;'
    if callers:
        yield f'iifname != "{OUTSIDE}" ip daddr {address} tcp dport {number} ip saddr {callers} accept;'
    yield "}"


def _translation(ports: Sequence[Port]) -> Iterator[str]:
    """What internet and NAT gateways do to addresses."""
    coming = _elements([f"{port.seen_as} : {port.address}" for port in ports if port.public], "")
    leaving = _elements([f"{port.address} : {port.seen_as}" for port in ports if port.seen_as], "")
    if coming:
        yield "chain prerouting { type nat hook prerouting priority dstnat;"
        yield f'iifname "{OUTSIDE}" dnat ip to ip daddr map {coming}; }}'
    if leaving:
        yield "chain postrouting { type nat hook postrouting priority srcnat;"
        yield f'oifname "{OUTSIDE}" snat ip to ip saddr map {leaving}; }}'


def _elements(items: Sequence[str], label: str = "elements = ") -> str:
    """Elements of a set; nft knows no empty ones."""
    return f"{label}{{ {', '.join(items)} }}" + (";" if label else "") if items else ""
