"""Whole machines of Google Cloud and Azure: user data executed in a guest, beside a service that answers for the cloud."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

from guests import make
from machine_services import CLIENT_ID, PROJECT, AzureService, GCEService

from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.images import dask_image
from cloudprovider.provider import Identity
from cloudprovider.providers import _azure_boot, _gce_boot
from cloudprovider.providers._azure_config import AzureVMConfig
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.security import make_secrets

PATIENCE_S = 60
NETWORK = f"127.{os.getpid() % 100 + 100}.{os.getpid() // 100 % 250}"


class Whole:
    """One machine: its guest, and the cloud around it."""

    def __init__(self, machine, service) -> None:
        self.machine, self.service = machine, service
        self.id, self.address = service.id, service.address
        self.gone = threading.Event()
        service.deleted = self._delete

    def _delete(self) -> None:
        """What the cloud does when it is asked to delete a machine."""
        self.machine.guest.kill()
        self.gone.set()

    def deleted(self) -> None:
        """Wait until it has deleted itself."""
        assert self.gone.wait(PATIENCE_S), self.machine.console


class Cluster:
    """Machines of one cluster, all gone when the test ends."""

    def __init__(self, room, cloud) -> None:
        now = int(time.time())
        self.room, self.cloud = room, cloud
        self.identity = Identity(name="whole", owner="me", created=now, expires=now + 3600)
        self.keys = make_secrets(self.identity)
        self.machines: list[Whole] = []

    def start(
        self, role, *, scheduler=None, scale=1.0, system="", kind=None, environ=None, **options
    ) -> Whole:
        """Order a machine as a provider does."""
        number = len(self.machines) + 2
        id, address = f"dask-whole-{role[0]}-{number}", f"{NETWORK}.{number}"
        config_class, service = {
            "gce": (GCPConfig, GCEService),
            "azure": (AzureVMConfig, AzureService),
        }[self.cloud]
        config, service = config_class.of(**options), service(id, address)
        boot = dataclasses.replace(
            config.boot_for(role, self.identity),
            image="" if config.boot == "uv" else config.image or dask_image(),
            scheduler=scheduler,
        )
        data = self._told(config, boot, service)
        service.__enter__()
        service.secrets |= dict.fromkeys(("dask-whole-machine", self._name()), self.keys.machine)
        machine = make(
            self.room,
            id,
            data,
            kind or Kind(system=system or {"gce": "cos", "azure": "azure-linux"}[self.cloud], gpus=0),
            address=address,
            environ={**service.environ, "DASK_CLOUD_POLL_S": "0.3", **(environ or {})},
            scale=scale,
        )
        self.machines.append(Whole(machine, service))
        return self.machines[-1]

    def _name(self) -> str:
        return f"projects/{PROJECT}/secrets/dask-whole-machine"

    def _told(self, config, boot, service) -> bytes:
        if self.cloud == "gce":
            boot = dataclasses.replace(boot, secret=_gce_boot.secret(PROJECT, "whole"))
            return _gce_boot.user_data(config, self.identity, boot)
        reference = _azure_boot.secret(f"http://{service.place}", "whole", CLIENT_ID)
        boot = dataclasses.replace(boot, secret=reference)
        return _azure_boot.user_data(
            config, self.identity, boot, client_id=CLIENT_ID, manager=service.manager
        )

    def close(self) -> None:
        """Cut all power."""
        for whole in self.machines:
            whole.machine.guest.discard()
            whole.service.__exit__()
