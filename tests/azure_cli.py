"""Stands in for the Azure CLI's `az network bastion tunnel`: its command line, its words, its login, and real TCP.

Instead of a websocket to a Bastion it connects to the machine's private address, which it reads from Azure as the
Bastion does: https://learn.microsoft.com/azure/bastion/connect-vm-native-client-linux
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import requests

COMPUTE, NETWORK = "2024-07-01", "2024-05-01"


def install(folder: Path) -> None:
    """Put the stand-in where PATH can name it."""
    program = folder / "az"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)


class Azure:
    """What somebody who has logged in may read."""

    def __init__(self) -> None:
        host = os.environ["ARM_METADATA_HOSTNAME"]
        url = f"https://{host}/metadata/endpoints?api-version=2022-09-01"
        endpoints = requests.get(url, timeout=10).json()
        self.manager = endpoints["resourceManager"].rstrip("/")
        login = f"{endpoints['authentication']['loginEndpoint'].rstrip('/')}/{os.environ['AZURE_TENANT_ID']}"
        form = {
            "grant_type": "client_credentials",
            "client_id": os.environ["AZURE_CLIENT_ID"],
            "client_secret": os.environ["AZURE_CLIENT_SECRET"],
            "scope": f"{self.manager}/.default",
        }
        said = requests.post(f"{login}/oauth2/v2.0/token", data=form, timeout=10).json()
        self.headers = {"Authorization": f"Bearer {said['access_token']}"}

    def read(self, id: str, version: str) -> dict:
        """A resource."""
        url = f"{self.manager}{id}?api-version={version}"
        answer = requests.get(url, headers=self.headers, timeout=10)
        if not answer.ok:
            sys.exit(f"ERROR: {answer.json()['error']['message']}")
        return answer.json()

    def address(self, machine: str) -> str:
        """The private address of a machine."""
        [interface, *_] = self.read(machine, COMPUTE)["properties"]["networkProfile"]["networkInterfaces"]
        [own, *_] = self.read(interface["id"], NETWORK)["properties"]["ipConfigurations"]
        return own["properties"]["privateIPAddress"]


async def relay(address: str, port: int, local_port: int) -> None:
    """Carry bytes between a local port and a machine."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(address, port)
            await asyncio.gather(carry(reader, back), carry(there, writer))
        except OSError:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", local_port)
    said = (f"Opening tunnel on port: {local_port}", f"Tunnel is ready, connect on port {local_port}")
    sys.stdout.write("\n".join([*said, "Ctrl + C to close", ""]))
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:4] != ["network", "bastion", "tunnel"]:
        sys.exit(f"ERROR: only `network bastion tunnel` is stood in for, not {sys.argv[1:]}")
    parser = argparse.ArgumentParser()
    for option in ("subscription", "resource-group", "name", "target-resource-id"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("resource-port", "port"):
        parser.add_argument(f"--{option}", type=int, required=True)
    given = parser.parse_args(sys.argv[4:])
    azure = Azure()
    group = f"/subscriptions/{given.subscription}/resourceGroups/{given.resource_group}"
    bastion = azure.read(f"{group}/providers/Microsoft.Network/bastionHosts/{given.name}", NETWORK)
    if not bastion["properties"].get("enableTunneling"):
        sys.exit("ERROR: Bastion Host SKU must be Standard or Premium and Native Client must be enabled.")
    asyncio.run(relay(azure.address(given.target_resource_id), given.resource_port, given.port))


if __name__ == "__main__":
    main()
