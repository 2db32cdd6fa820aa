"""Options that every cluster on AWS has, whatever its machines are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloudprovider.config import Config, listed
from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AWSConfig"]

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180,
    365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
MAX_GROUPS = 5  # https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html


@dataclass(frozen=True, kw_only=True)
class AWSConfig(Config):
    """What every cluster on AWS has in common.

    Parameters
    ----------
    region
        Such as `eu-central-1`. Default: what the environment and the AWS config files say.
    zones
        Availability zones in which to look for subnets. Default: all.
    vpc
        Id of the VPC in which to look for subnets. Default: the default VPC.
    subnets
        Ids of the subnets to use. Default: those of the VPC and zones.
    security_groups
        Ids of groups for every machine, in which they may talk to each other. Default: one that is shared
        by all clusters of the account.
    role
        Name or ARN of a role of yours under which code on the machines runs.
    scheduler_role
        As `role`, for the scheduler's machine. An autonomous cluster has a role of its own there, which takes the
        right to make roles, unless this names one.
    log_group
        Name of a log group of yours. Default: `/dask`.
    log_retention_days
        How long the default log group keeps what it gets.
    """

    can_be_autonomous: ClassVar[bool] = True
    #: What the tags of shared kinds of resources call the service that made them.
    service: ClassVar[str]

    region: str | None = None
    zones: str | Sequence[str] | None = None
    vpc: str | None = None
    subnets: str | Sequence[str] | None = None
    security_groups: str | Sequence[str] | None = None
    role: str | None = None
    scheduler_role: str | None = None
    log_group: str | None = None
    log_retention_days: int = 14

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        if self.log_retention_days not in RETENTION_DAYS:
            raise ConfigError(
                f"log_retention_days={self.log_retention_days!r} must be one of "
                f"{', '.join(map(str, RETENTION_DAYS))}."
            )
        if len(listed(self.security_groups)) >= MAX_GROUPS:
            raise ConfigError(f"security_groups can be at most {MAX_GROUPS - 1}: the scheduler has one more.")
