"""Dask on Amazon EC2: one machine is one instance."""

from __future__ import annotations

from cloudprovider.providers._ec2_config import EC2Config

__all__ = ["EC2Config"]
