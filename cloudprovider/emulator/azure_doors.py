"""Where key vaults are reached: each at a port of its own, as each has a host name of its own on Azure.

A client checks that the resource which a vault's challenge names is the parent domain of the vault's host, and names
under `localhost` do not resolve everywhere. Of `127.0.0.1:PORT`, `0.0.1:PORT` is the parent.
https://devblogs.microsoft.com/azure-sdk/guidance-for-applications-using-the-key-vault-libraries/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from cloudprovider.emulator.server import Server

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.cloud import API
    from cloudprovider.emulator.server import Answer

    #: Answers a request at a base address: method, path, headers, body, caller.
    Inside = Callable[[str, str, str, Mapping[str, str], bytes, str], Answer]


class Doors:
    """The HTTPS servers of vaults.

    Parameters
    ----------
    account
        Of the emulated cloud: where its network is, and its clock.
    tls
        What they show.
    inside
        What answers.
    """

    def __init__(self, account: Account, tls: ssl.SSLContext, inside: Inside) -> None:
        self.account, self.tls, self.inside = account, tls, inside
        self._open: dict[str, _Door] = {}

    def open(self) -> str:
        """Another address."""
        door = _Door(self.account.network.listen(0), self)
        self._open[door.address] = door
        door.start()
        return door.address

    def close(self, address: str) -> None:
        """Nobody is at an address any more."""
        door = self._open.pop(address)
        door.shutdown()
        door.server_close()

    def end(self) -> None:
        """Close them all."""
        for address in list(self._open):
            self.close(address)


class _Door(Server):
    def __init__(self, listener: socket.socket, doors: Doors) -> None:
        super().__init__(listener)
        self.cloud = cast("API", doors)  # whose clock and certificate its answers show
        self.address = "https://{}:{}".format(*self.server_address[:2])
        self._inside = doors.inside

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Let who is inside answer."""
        return self._inside(self.address, method, path, headers, body, caller)


def parent(address: str) -> str:
    """The resource that the tokens of a vault at this address are for."""
    return f"https://{urlsplit(address).netloc.partition('.')[2]}"
