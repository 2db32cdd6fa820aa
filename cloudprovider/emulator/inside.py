"""Computers of the user's own inside an emulated VPC, such as one behind a VPN would be."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudprovider.emulator.account import Account

__all__ = ["Inside", "enter", "leave"]


class Inside:
    """A place inside a VPC, until `close()`; also a context manager.

    Parameters
    ----------
    ask
        Asks the emulated cloud's process.
    given
        What place it is to be.
    """

    def __init__(self, ask: Callable[..., Any], given: Mapping[str, Any]) -> None:
        self._ask = ask
        self._place: dict[str, Any] = ask("POST", "inside", given)

    @property
    def address(self) -> str:
        """Its private address."""
        return str(self._place["address"])

    @property
    def public_address(self) -> str:
        """Its public address; empty when it has none."""
        return str(self._place["public_address"])

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs a program there."""
        network = self._place["network"]
        return ["nsenter", f"--net={network}", "--", *argv] if network else [*argv]

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program there to its end, as `subprocess.run` does."""
        return subprocess.run(self.command(argv), text=True, check=False, **options)

    def close(self) -> None:
        """Give its address back; what runs there has no network any more."""
        self._ask("DELETE", f"inside/{self._place['id']}", {"region": self._place["region"]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def enter(
    account: Account, *, region: str, subnet: str, security_groups: Sequence[str], public: bool
) -> dict[str, Any]:
    """Make a network interface and its network; the default VPC's first subnet where none is named."""
    from cloudprovider.emulator import ec2
    from cloudprovider.emulator.ec2_instances import backend

    with account.lock:
        network = backend(region)
        chosen = subnet or network.get_default_subnets()[f"{region}a"].id
        interface = ec2.attach_interface(network, chosen, security_groups, "inside", public=public)
        path = account.network.attach(network, interface, interface.id)
    return {
        "id": interface.id,
        "region": region,
        "address": interface.private_ip_address,
        "public_address": interface.public_ip or "",
        "network": path,
    }


def leave(account: Account, id: str, region: str) -> None:
    """Take it away again."""
    from cloudprovider.emulator import ec2
    from cloudprovider.emulator.ec2_instances import backend

    with account.lock:
        if (interface := backend(region).enis.get(id)) is not None:
            account.network.detach(interface)
            ec2.release_interface(backend(region), interface)
