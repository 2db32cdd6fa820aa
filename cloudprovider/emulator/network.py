"""Where an emulated cloud's machines are in the network: all on loopback, or each in a network of its own."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cloudprovider.emulator.server import Server

__all__ = ["NETWORKS", "Loopback", "Network", "connect"]

NETWORKS = ("loopback", "namespaces")
LOOPBACKS = range(31, 251)  # the second number of the default VPC's addresses
CLAIM_PORT = 8701  # who listens on it in a network has claimed that network
BACKLOG = 512


class Network(Protocol):
    """A way to give machines addresses, and to let them reach what they may reach. Thread-safe.

    * A machine is known by its network interface, which is moto's: address, subnet and security groups are
      what that says.
    * `attach` comes before the machine's first process, `detach` after its last.
    * `refresh` is called after whatever may have changed rules, routes or addresses; it costs little when
      nothing has.
    """

    block: ipaddress.IPv4Network
    """The addresses of the default VPC."""

    def listen(self, port: int) -> socket.socket:
        """A socket on which the cloud's API is reached, by the caller and by machines."""

    def open(self, server: Server) -> None:
        """Let machines reach the API and their metadata, which this server answers."""

    def public_address(self, private: str) -> str:
        """A public address for a new interface."""

    def attach(self, ec2: Any, interface: Any, owner: str) -> str:
        """Give a machine its network, as the file that it is; empty means this computer's.

        Parameters
        ----------
        ec2
            moto's backend, in whose region it is.
        interface
            Its network interface.
        owner
            The machine's id, by which its metadata service knows it.
        """

    def detach(self, interface: Any) -> None:
        """Take it away again; what was never attached is no error."""

    def refresh(self) -> None:
        """Make rules, routes and addresses what EC2 says they are."""

    def path(self, owner: str) -> str:
        """The file that is a machine's network for `setns` and `nsenter`; empty for this computer's.

        Raises
        ------
        LookupError
            When no machine of this id is attached.
        """

    def ecs_environ(self, endpoint: str, container: str, *, role: bool) -> dict[str, str]:
        """The variables by which a task's container finds its metadata and, with a role, the task's credentials."""

    def ec2_environ(self, endpoint: str, instance: str) -> dict[str, str]:
        """The variables by which the programs of an instance find its metadata service."""

    def empty(self) -> None:
        """Detach every machine."""

    def close(self) -> None:
        """Leave nothing."""


def connect(name: str) -> Network:
    """The network of this name.

    Raises
    ------
    ValueError
        When there is none.
    OSError
        When it cannot be had here.
    """
    match name:
        case "loopback":
            return Loopback()
        case "namespaces":
            from cloudprovider.emulator.namespaces import Namespaces

            return Namespaces()
    raise ValueError(f"network={name!r} is none of {', '.join(map(repr, NETWORKS))}.")


class Loopback:
    """Every machine on a loopback address of this computer, which takes no privilege and enforces nothing.

    The default VPC lies in 127.0.0.0/8; a machine's public address is its private one. Machines in other
    networks start too, but cannot bind their addresses.
    """

    def __init__(self) -> None:
        self.block, self._claim = claim_network()

    def listen(self, port: int) -> socket.socket:
        """See `Network`."""
        return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)

    def open(self, server: Server) -> None:
        """See `Network`."""

    def public_address(self, private: str) -> str:
        """See `Network`."""
        return private

    def attach(self, ec2: Any, interface: Any, owner: str) -> str:
        """See `Network`."""
        del ec2, interface, owner
        return ""

    def detach(self, interface: Any) -> None:
        """See `Network`."""

    def refresh(self) -> None:
        """See `Network`."""

    def path(self, owner: str) -> str:
        """See `Network`."""
        del owner
        return ""

    def ecs_environ(self, endpoint: str, container: str, *, role: bool) -> dict[str, str]:
        """See `Network`."""
        base = f"{endpoint}/_cloud/ecs"
        environ = {"ECS_CONTAINER_METADATA_URI_V4": f"{base}/v4/{container}"}
        if role:
            environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{base}/credentials/{container}"
        return environ

    def ec2_environ(self, endpoint: str, instance: str) -> dict[str, str]:
        """See `Network`."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{endpoint}/_cloud/imds/{instance}"}

    def empty(self) -> None:
        """See `Network`."""

    def close(self) -> None:
        """See `Network`."""
        self._claim.close()


def claim_network() -> tuple[ipaddress.IPv4Network, socket.socket]:
    """A network of loopback addresses that no other emulated cloud on this computer uses.

    It is claimed as long as the socket is open, and free as soon as its process ends.
    """
    for number in LOOPBACKS:
        claim = socket.socket()
        try:
            claim.bind((f"127.{number}.255.254", CLAIM_PORT))
            claim.listen(1)
        except OSError:
            claim.close()
            continue
        return ipaddress.IPv4Network(f"127.{number}.0.0/16"), claim
    raise OSError(f"All {len(LOOPBACKS)} loopback networks are claimed by other emulated clouds.")
