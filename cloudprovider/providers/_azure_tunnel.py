"""Azure Bastion: a way to a machine that has no address outside, with no rule open to the internet.

The Azure CLI carries the bytes, with its own login; the Bastion is one that is there already, for it bills by the hour.
What it takes: a Bastion of the Standard SKU with native client support, and on the caller's side the roles that read
the machine, its network interface and the Bastion.
https://learn.microsoft.com/azure/bastion/native-client
"""

from __future__ import annotations

import shutil

from cloudprovider.errors import ConfigError
from cloudprovider.tunnel import Program, Relay, Tunnel

__all__ = ["command", "program", "tunnel"]

PROGRAM = "az"
INSTALL = "https://learn.microsoft.com/cli/azure/install-azure-cli"
READY = "Tunnel is ready"


def program() -> str:
    """The path of the Azure CLI.

    Raises
    ------
    ConfigError
        When it is not installed; says where it is to be had.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise ConfigError(
            f"tunnel=True needs the Azure CLI, and there is no {PROGRAM} in your PATH. Install it ({INSTALL}) and its "
            "extension (`az extension add --name bastion`), or reach the scheduler another way: public=True, or "
            "allow_from= from inside its network."
        )
    return path


def command(path: str, bastion: str, machine: str, port: int, local_port: int) -> tuple[str, ...]:
    """The command that leads from a local port to a port of a machine.

    Parameters
    ----------
    path
        Of the Azure CLI.
    bastion, machine
        Their ids.
    port, local_port
        Where to, and from where.
    """
    parts = bastion.split("/")
    options = {
        "--subscription": parts[2],
        "--resource-group": parts[4],
        "--name": parts[-1],
        "--target-resource-id": machine,
        "--resource-port": str(port),
        "--port": str(local_port),
    }
    return (path, "network", "bastion", "tunnel", *(word for pair in options.items() for word in pair))


def tunnel(bastion: str, machine: str, *, scheduler: int = 8786, front: int = 8787) -> Tunnel:
    """The ways to a scheduler and to the front of its pages; `open` opens them.

    Parameters
    ----------
    bastion, machine
        Their ids.
    scheduler, front
        The ports there.

    Raises
    ------
    ConfigError
        When the Azure CLI is not installed.
    """
    path = program()

    def relay(port: int) -> Relay:
        return Relay(lambda local: Program(command=command(path, bastion, machine, port, local), ready=READY))

    return Tunnel(scheduler=relay(scheduler), pages=relay(front))
