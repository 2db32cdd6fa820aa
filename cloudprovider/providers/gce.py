"""Dask on Google Compute Engine: one machine is one instance, ordered by the thousand in a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.errors import CloudError
from cloudprovider.provider import Created, Machine, Provider, Swept
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.providers._gcp import GCP

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.security import Secrets

__all__ = ["GCEProvider", "GCPConfig"]


class GCEProvider(Provider):
    """Machines are instances. Thread-safe; one object serves one cluster, and finds any other."""

    config: GCPConfig
    wave = 1000
    look = 500
    boot_s = 40.0

    def __init__(self, config: GCPConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.gcp = GCP(config.project, config.place)

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
