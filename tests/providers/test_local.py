"""Machines that are processes keep the contract."""

from __future__ import annotations

import dataclasses

import pytest
from contract import ProviderContract

from cloudprovider.errors import CapacityError
from cloudprovider.providers.local import LocalConfig, LocalProvider


class TestLocal(ProviderContract):
    """`LocalProvider` keeps the provider contract."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = str(tmp_path)

    def make(self, name, **options):
        config = LocalConfig.of(name=name, directory=self.directory, **options)
        return LocalProvider(config, config.identity())

    def test_partial_order_is_kept(self, provider):
        """When there is room for fewer machines than asked, those are started and the rest refused."""
        provider.capacity = 1
        boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://127.0.0.1:1")
        created = provider.create(boot, 3)

        assert 1 == len(created.machines)
        assert isinstance(created.refusal, CapacityError)
        assert "1 of 3" in str(created.refusal)

    def test_secrets_are_readable_by_their_owner_only(self, provider):
        """Files with keys are mode 600."""
        for secret in provider.config.root.glob("*/*.secret"):
            assert 0o600 == secret.stat().st_mode & 0o777
