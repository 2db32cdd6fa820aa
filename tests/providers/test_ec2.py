"""EC2Provider on the embedded cloud."""

from __future__ import annotations

import pytest
from contract import ProviderContract

from cloudprovider.providers.ec2 import EC2Config, EC2Provider

TYPES = {"instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}


@pytest.mark.usefixtures("emulated_aws")
class TestEC2(ProviderContract):
    """EC2 keeps the provider contract."""

    def make(self, name, **options):
        config = EC2Config.of(name=name, **{"allow_from": "127.0.0.1/32", **TYPES, **options})
        return EC2Provider(config, config.identity())
