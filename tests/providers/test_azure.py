"""AzureProvider on the embedded cloud."""

from __future__ import annotations

import pytest
from contract import ProviderContract

from cloudprovider.providers.azure import AzureProvider, AzureVMConfig

SIZES = {"instance_type": "Standard_D2s_v5", "scheduler_instance_type": "Standard_D2s_v5"}


@pytest.mark.usefixtures("emulated_azure")
class TestAzure(ProviderContract):
    """Azure keeps the provider contract."""

    def make(self, name, **options):
        given = {"region": "westeurope", "allow_from": "127.0.0.1/32", **SIZES, **options}
        config = AzureVMConfig.of(name=name, **given)
        return AzureProvider(config, config.identity())
