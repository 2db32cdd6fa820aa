"""Every machine in a network of its own, behind a router that plays its VPC: nothing passes but what may.

    caller -- internet --+-- router of a VPC --+-- machine
                         |                     +-- machine
                         +-- router of a VPC ----- machine

The caller is the network in which the emulated cloud was started. It has one address that the cloud sees, and
reaches the API and public addresses. The internet knows no private address: what is sent to one is lost.
Networks have no names and end with this process, however that ends, as soon as its machines have.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import firewall
from cloudprovider.emulator.doors import Door, at_api, at_instance, at_task
from cloudprovider.emulator.kernel import Namespace, unavailable
from cloudprovider.emulator.network import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudprovider.emulator.firewall import Port
    from cloudprovider.emulator.server import Server

__all__ = ["Namespaces"]

#: The internet of an emulated cloud: one of these blocks, which the real one does not route.
#: Python calls them neither private nor global. https://www.rfc-editor.org/rfc/rfc6598
INTERNETS = tuple(ipaddress.IPv4Network("100.64.0.0/10").subnets(new_prefix=16))
#: Within it: the cloud's API, the caller, the way on, the routers, and then public addresses.
API, CALLER, BACKBONE, ROUTERS, PUBLIC = 1, 2, 3, 16, 256
#: A router that has forwarded a packet back to where it came from need not say so.
ROUTING = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
}
DEFAULT_ROUTE = "00000000"


@dataclass
class _Place:
    """A machine's network."""

    namespace: Namespace
    link: str
    ec2: Any
    interface: Any
    owner: str


@dataclass
class _Router:
    """A VPC."""

    namespace: Namespace
    address: str
    number: int
    places: dict[str, _Place] = field(default_factory=dict)  # by the interface's id
    ports: dict[str, Port] = field(default_factory=dict)  # by private address
    gateways: set[str] = field(default_factory=set)
    doors: list[Door] = field(default_factory=list)
    rules: str = ""


class Namespaces:
    """See `cloudprovider.emulator.network.Network`."""

    block = ipaddress.IPv4Network("172.31.0.0/16")

    def __init__(self) -> None:
        if why := unavailable():
            raise OSError(f"network='namespaces' {why}.")
        self._lock = threading.RLock()
        self._own = Namespace(own=True)
        self._internet = Namespace()
        self._routers: dict[tuple[str, str], _Router] = {}
        self._numbers = itertools.count()
        self._published: dict[str, str] = {}  # public address -> its router's address
        self._server: Server | None = None
        self._port = 0
        self._block = self._connect_caller()
        self._given = itertools.cycle(range(PUBLIC, self._block.num_addresses - 1))

    # -- the caller and the internet -----------------------------------------------------------------

    def _connect_caller(self) -> ipaddress.IPv4Network:
        """Connect the network that we are in to the internet, by a block and a link that nobody here has."""
        self._own.links("link set lo up")
        self._internet.configure(ROUTING)
        for number, block in enumerate(INTERNETS):
            link = f"cloud{number}"
            try:
                self._own.links(f"link add {link} type veth peer name caller netns {self._internet.path}")
            except OSError as error:
                if "File exists" not in str(error):
                    raise
                continue
            caller, backbone, api = block[CALLER], block[BACKBONE], block[API]
            self._internet.links(
                "link set lo up",
                "link set caller up",
                f"address add {api}/32 dev lo",
                f"address add {backbone}/32 dev caller",
                f"route add {caller}/32 dev caller",
                f"route add blackhole {block}",
            )
            ways = [str(block)] if _has_default_route() else [str(block), "default"]
            self._own.links(
                f"address add {caller}/32 dev {link}",
                f"link set {link} up",
                f"route add {backbone}/32 dev {link} src {caller}",
                *(f"route add {way} via {backbone} dev {link} src {caller}" for way in ways),
            )
            return block
        raise OSError(f"All {len(INTERNETS)} emulated internets are in use here.")

    def listen(self, port: int) -> socket.socket:
        """See `Network`."""
        address = str(self._block[API])
        listener = self._internet.call(lambda: socket.create_server((address, port), backlog=BACKLOG))
        self._port = listener.getsockname()[1]
        return listener

    def open(self, server: Server) -> None:
        """See `Network`."""
        self._server = server

    def public_address(self, private: str) -> str:
        """See `Network`."""
        del private
        with self._lock:
            return str(self._block[next(self._given)])

    # -- machines ------------------------------------------------------------------------------------

    def attach(self, ec2: Any, interface: Any, owner: str) -> str:
        """See `Network`."""
        with self._lock:
            router = self._router(ec2, interface.subnet.vpc_id)
            if interface.id not in router.places:
                place = _Place(Namespace(), f"m{next(self._numbers)}", ec2, interface, owner)
                self._wire(router, place)
                router.places[interface.id] = place
                self._apply(router)
            return router.places[interface.id].namespace.path

    def detach(self, interface: Any) -> None:
        """See `Network`."""
        with self._lock:
            for router in self._routers.values():
                if place := router.places.pop(interface.id, None):
                    self._unwire(router, place)
                    self._apply(router)

    def refresh(self) -> None:
        """See `Network`."""
        with self._lock:
            for router in self._routers.values():
                self._apply(router)

    def path(self, owner: str) -> str:
        """See `Network`."""
        with self._lock:
            for place in self._places():
                if place.owner == owner:
                    return place.namespace.path
        raise LookupError(f"There is no machine {owner} in any network.")

    def ecs_environ(self, endpoint: str, container: str, *, role: bool) -> dict[str, str]:
        """See `Network`; containers know the address of the service by themselves."""
        del endpoint
        environ = {"ECS_CONTAINER_METADATA_URI_V4": f"http://{firewall.TASK}/v4/{container}"}
        if role:
            environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = f"/v2/credentials/{container}"
        return environ

    def ec2_environ(self, endpoint: str, instance: str) -> dict[str, str]:
        """See `Network`."""
        del endpoint, instance
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{firewall.INSTANCE}"}

    def empty(self) -> None:
        """See `Network`."""
        with self._lock:
            for router in self._routers.values():
                for door in router.doors:
                    door.end()
                # First, while it is there for sure: the kernel takes its time to take it with its other end.
                self._internet.links(f"link delete r{router.number}")
                for place in router.places.values():
                    place.namespace.close()
                router.namespace.close()
            self._routers.clear()
            self._publish()

    def close(self) -> None:
        """See `Network`."""
        self.empty()
        self._internet.links("link delete caller")
        self._internet.close()
        self._own.close()

    def _places(self) -> Iterator[_Place]:
        for router in self._routers.values():
            yield from router.places.values()

    def _wire(self, router: _Router, place: _Place) -> None:
        """Lay a machine's cable: all that it sends goes to the router, its neighbours' too."""
        address, gateway = place.interface.private_ip_address, place.interface.subnet.cidr[1]
        place.namespace.links(
            f"link add eth0 address {place.interface.mac_address} type veth "
            f"peer name {place.link} netns {router.namespace.path}",
            "link set lo up",
            f"address add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add default via {gateway} dev eth0 onlink",
        )
        lines = [f"link set {place.link} up", f"route add {address}/32 dev {place.link}"]
        if str(gateway) not in router.gateways:
            lines.append(f"address add {gateway}/32 dev lo")
            router.gateways.add(str(gateway))
        router.namespace.links(*lines)

    def _unwire(self, router: _Router, place: _Place) -> None:
        router.namespace.links(f"link delete {place.link}")
        place.namespace.close()

    # -- routers -------------------------------------------------------------------------------------

    def _router(self, ec2: Any, vpc: str) -> _Router:
        key = ec2.region_name, vpc
        if key not in self._routers:
            number = next(self._numbers)
            router = _Router(Namespace(), str(self._block[ROUTERS + len(self._routers)]), number)
            self._join(router, ec2.get_vpc(vpc).cidr_block)
            self._routers[key] = router
            self._serve(router, ec2)
        return self._routers[key]

    def _join(self, router: _Router, block: str) -> None:
        """Connect a VPC to the internet, which from now on loses what is sent to its private addresses."""
        backbone, link = self._block[BACKBONE], f"r{router.number}"
        router.namespace.configure(ROUTING)
        router.namespace.links(
            f"link add {firewall.OUTSIDE} type veth peer name {link} netns {self._internet.path}",
            "link set lo up",
            f"link set {firewall.OUTSIDE} up",
            f"address add {router.address}/32 dev {firewall.OUTSIDE}",
            f"route add default via {backbone} dev {firewall.OUTSIDE} onlink",
            *(
                f"address add {address}/32 dev lo"
                for address in (firewall.INSTANCE, firewall.TASK, self._block[API])
            ),
        )
        self._internet.links(
            f"link set {link} up",
            f"address add {backbone}/32 dev {link}",  # else it would ask for the router as the API, which both are
            f"route add {router.address}/32 dev {link}",
            f"route replace blackhole {block}",
        )

    def _serve(self, router: _Router, ec2: Any) -> None:
        """Answer machines at the router, which sees their private addresses."""
        if self._server is None:
            return
        answered: dict[tuple[str, int], Callable[..., Any]] = {
            (firewall.INSTANCE, 80): at_instance(self._server, lambda caller: self._owner(router, caller)),
            (firewall.TASK, 80): at_task(self._server, lambda caller: self._owner(router, caller)),
            (str(self._block[API]), self._port): at_api(
                self._server, ec2, lambda caller: self._caller(router, caller)
            ),
        }
        for address, respond in answered.items():
            listener = router.namespace.call(
                lambda address=address: socket.create_server(address, backlog=BACKLOG)  # type: ignore[misc]
            )
            router.doors.append(Door(listener, self._server, respond))

    def _owner(self, router: _Router, address: str) -> str:
        with self._lock:
            return next(
                (p.owner for p in router.places.values() if p.interface.private_ip_address == address), ""
            )

    def _caller(self, router: _Router, address: str) -> tuple[Port, Any] | None:
        """A machine's port and its subnet's id."""
        with self._lock:
            for place in router.places.values():
                if place.interface.private_ip_address == address:
                    return router.ports[place.link], place.interface.subnet.id
        return None

    def _apply(self, router: _Router) -> None:
        """Make a router do what EC2 says now."""
        router.ports = {
            place.link: firewall.port(place.ec2, place.link, place.interface)
            for place in router.places.values()
        }
        ec2 = next((place.ec2 for place in router.places.values()), None)
        rules = firewall.ruleset(ec2, list(router.ports.values()), (str(self._block[API]), self._port))
        if rules != router.rules:
            router.namespace.rules(rules)
            router.rules = rules
        self._publish()

    def _publish(self) -> None:
        """Lead public addresses to the routers that have them now."""
        wanted = {
            port.seen_as: router.address
            for router in self._routers.values()
            for port in router.ports.values()
            if port.seen_as
        }
        links = {router.address: f"r{router.number}" for router in self._routers.values()}
        lines = [
            f"route delete {public}/32"
            for public, to in self._published.items()
            if public not in wanted and to in links
        ]
        lines += [
            f"route replace {public}/32 via {to} dev {links[to]} onlink"
            for public, to in wanted.items()
            if self._published.get(public) != to
        ]
        if lines:
            self._internet.links(*lines)
        self._published = wanted


def _has_default_route() -> bool:
    """Whether the network that we are in has a way to everywhere already."""
    with open("/proc/net/route", encoding="ascii") as table:  # noqa: PTH123
        return any(line.split()[1] == DEFAULT_ROUTE for line in list(table)[1:])
