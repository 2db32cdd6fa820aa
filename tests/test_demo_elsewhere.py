"""The demo on the clouds that are not AWS."""

from __future__ import annotations

import pytest
from test_demo import show

from cloudprovider.demo import STAGES


@pytest.mark.parametrize(
    "cloud",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "azure" else ())
        for name, stage in STAGES.items()
        if stage.cloud != "aws"
    ],
)
def test_demo(tmp_path, cloud):
    """The same story is told on each cloud."""
    show(cloud, tmp_path / "report.json")
