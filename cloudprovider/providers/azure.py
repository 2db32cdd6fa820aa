"""Dask on Azure virtual machines: workers are ordered by the thousand, as one Flexible scale set each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.errors import CloudError
from cloudprovider.provider import Created, Machine, Provider, Swept
from cloudprovider.providers._azure import Azure
from cloudprovider.providers._azure_config import AzureVMConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.security import Secrets

__all__ = ["AzureProvider", "AzureVMConfig"]


class AzureProvider(Provider):
    """Machines are virtual machines. Thread-safe; one object serves one cluster, and finds any other."""

    config: AzureVMConfig
    wave = 1000
    look = 1000
    boot_s = 60.0

    def __init__(self, config: AzureVMConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.azure = Azure(config.subscription)

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        raise CloudError("not written yet")

    def attach(self) -> Secrets:
        raise CloudError("not written yet")

    def boot(self, role: str) -> Boot:
        raise CloudError("not written yet")

    def create(self, boot: Boot, count: int) -> Created:
        raise CloudError("not written yet")

    def describe(self, ids: Collection[str]) -> list[Machine]:
        raise CloudError("not written yet")

    def delete(self, ids: Collection[str]) -> None:
        raise CloudError("not written yet")

    def list(self, cluster: str | None = None) -> list[Machine]:
        raise CloudError("not written yet")

    def sweep(self, cluster: str) -> Swept:
        raise CloudError("not written yet")

    def expired(self) -> tuple[str, ...]:
        raise CloudError("not written yet")

    def sweep_expired(self) -> tuple[str, ...]:
        raise CloudError("not written yet")

    def allow(self, sources: Collection[str]) -> None:
        raise CloudError("not written yet")

    def logs(self, id: str, lines: int = 100) -> str:
        raise CloudError("not written yet")
