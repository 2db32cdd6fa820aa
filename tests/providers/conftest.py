"""The cloud that tests of providers ask: its machines are states only."""

from __future__ import annotations

import pytest


@pytest.fixture
def cloud(bare):
    """An account as on its first day."""
    return bare
