"""Parameters of the embedded Systems Manager that say when they expire."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import boto3
from contract import until


def put(name: str, ends: float, **more) -> None:
    """Store a parameter that expires then."""
    stamp = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    policy = {"Type": "Expiration", "Version": "1.0", "Attributes": {"Timestamp": stamp}}
    stored = {"Name": name, "Value": "x", "Type": "String", "Tier": "Advanced"}
    boto3.client("ssm").put_parameter(**stored, Policies=json.dumps([policy]), **more)


def test_parameters_expire_by_themselves(bare):
    """When the time of its policy has come a parameter is gone; a new policy counts instead of the old one."""
    put("/dask/gone", time.time() + 1)
    put("/dask/renewed", time.time() + 1)
    put("/dask/renewed", time.time() + 3600, Overwrite=True)
    until(lambda: ["ssm parameter: /dask/renewed"] == bare.leftovers(), 30, "one has expired")
