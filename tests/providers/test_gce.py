"""GCEProvider on the embedded cloud."""

from __future__ import annotations

import pytest
from contract import ProviderContract

from cloudprovider.providers.gce import GCEProvider, GCPConfig

TYPES = {"instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}


@pytest.mark.usefixtures("emulated_gcp")
class TestGCE(ProviderContract):
    """Compute Engine keeps the provider contract."""

    def make(self, name, **options):
        config = GCPConfig.of(name=name, **{"allow_from": "127.0.0.1/32", **TYPES, **options})
        return GCEProvider(config, config.identity())
