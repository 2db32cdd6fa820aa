"""ECSProvider on the embedded cloud."""

from __future__ import annotations

import pytest
from contract import ProviderContract

from cloudprovider.providers.ecs import ECSProvider, FargateConfig

SMALL = {
    "worker_cpu": 0.25,
    "worker_memory": "0.5 GiB",
    "scheduler_cpu": 0.25,
    "scheduler_memory": "0.5 GiB",
    # A container's first process does not hear a SIGTERM that comes before it listens: it is then killed.
    "task_definition_args": {"containerDefinitions": [{"stopTimeout": 5}]},
}


@pytest.mark.usefixtures("emulated_aws")
class TestECS(ProviderContract):
    """ECS keeps the provider contract."""

    def make(self, name, **options):
        options = {"allow_from": "127.0.0.1/32", **SMALL, **options}
        config = FargateConfig.of(name=name, **options)
        return ECSProvider(config, config.identity())
