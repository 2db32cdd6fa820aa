"""Options of `EC2Cluster`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cloudprovider.errors import ConfigError
from cloudprovider.providers._aws_config import AWSConfig
from cloudprovider.providers._vm_config import VMConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EC2Config"]

#: What of a machine is ours: `instance_args` and `launch_template_args` may hold the rest.
OURS = frozenset(
    {
        "ClientToken",
        "DryRun",
        "IamInstanceProfile",
        "ImageId",
        "InstanceInitiatedShutdownBehavior",
        "InstanceMarketOptions",
        "InstanceRequirements",
        "InstanceType",
        "KeyName",
        "LaunchTemplate",
        "MaxCount",
        "MetadataOptions",
        "MinCount",
        "NetworkInterfaces",
        "SecurityGroupIds",
        "SecurityGroups",
        "SubnetId",
        "TagSpecifications",
        "UserData",
    }
)


@dataclass(frozen=True, kw_only=True)
class EC2Config(VMConfig, AWSConfig):
    """Options of `EC2Cluster`, beside those of `VMConfig`, `AWSConfig` and `Config`.

    Parameters
    ----------
    ami
        Id of a machine image of yours, with systemd, cloud-init and a container engine.
        Default: the newest ECS-optimised Amazon Linux 2023 of the machines' architecture.
    key_name
        Name of a key pair of yours that may log in by SSH; no rule lets anyone reach the port. Default: none.
    role
        Name or ARN of an instance profile of yours, under whose role code on the machines runs.
    scheduler_role
        As `role`, for the scheduler's machine. An autonomous cluster has a role of its own there, which takes the
        right to make roles, unless this names one.
    ssm_access
        Let AWS Systems Manager reach every machine, for shells and the like.
    launch_template_args, instance_args
        Further arguments of the workers' launch template and of the scheduler's RunInstances.
    launch_burst, launch_rate
        How many machines your account may launch at once, and how many a second after that.
    """

    section: ClassVar[str] = "ec2"
    service: ClassVar[str] = "ec2"
    # Of a gp3 volume: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
    max_disk: ClassVar[int] = 65536

    ami: str | None = None
    key_name: str | None = None
    ssm_access: bool = False
    launch_template_args: Mapping[str, Any] = field(default_factory=dict)
    instance_args: Mapping[str, Any] = field(default_factory=dict)
    # https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
    launch_burst: float = 1000
    launch_rate: float = 2

    def check(self) -> None:
        """Refuse what cannot work, before any call."""
        super().check()
        for option in ("launch_template_args", "instance_args"):
            if taken := sorted(OURS & set(getattr(self, option))):
                raise ConfigError(f"{option} has {', '.join(taken)}, which this project sets itself.")

    @property
    def reached_by_ssm(self) -> tuple[str, ...]:
        """The roles of machines that AWS Systems Manager may reach."""
        if self.ssm_access:
            return ("scheduler", "worker")
        return ("scheduler",) if self.tunnel else ()
