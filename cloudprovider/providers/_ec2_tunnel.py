"""The tunnel to an EC2 instance: the Systems Manager agent, which Amazon's machine images start at boot.

What it takes: on the instance's role `ssm:UpdateInstanceInformation` and the four `ssmmessages` channels
(the managed policy AmazonSSMManagedInstanceCore has them, and more); from its subnet a way out, or endpoints;
on the caller's `ssm:DescribeInstanceInformation`, `ssm:StartSession` for the instance and for the document,
and `ssm:TerminateSession`.
https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.providers import _aws_tunnel
from cloudprovider.providers._aws_tunnel import plugin
from cloudprovider.tunnel import NotYetError, Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.providers._aws import AWS

__all__ = ["Tunnel", "plugin", "target", "tunnel"]

ONLINE = "Online"
LACKS = (
    "Its role needs ssm:UpdateInstanceInformation and ssmmessages:*Channel (ssm_access=True gives them to a role "
    "of ours; AmazonSSMManagedInstanceCore has them for one of yours), its subnet a way out or VPC endpoints for "
    "ssm and ssmmessages (ec2messages too for old agents), and its machine image the Systems Manager agent."
)


def target(instance: str, answer: Mapping[str, Any]) -> str:
    """What a session calls an instance of a DescribeInstanceInformation answer, which is its id.

    Raises
    ------
    NotYetError
        Until its agent is online; says what that takes.
    """
    known = {one["InstanceId"]: one.get("PingStatus", "") for one in answer["InstanceInformationList"]}
    status = known.get(instance)
    if status is None:
        raise NotYetError(
            f"Instance {instance} takes no sessions: its Systems Manager agent has never reported. {LACKS}"
        )
    if status != ONLINE:
        raise NotYetError(
            f"Instance {instance} takes no sessions: its Systems Manager agent is {status}. {LACKS}"
        )
    return instance


def tunnel(aws: AWS, instance: str, host: str, *, scheduler: int = 8786, front: int = 8787) -> Tunnel:
    """The ways to a scheduler and to the front of its pages; `open` opens them.

    Parameters
    ----------
    aws
        The account.
    instance
        The instance's id.
    host
        Its private address.
    scheduler, front
        The ports there.

    Raises
    ------
    ConfigError
        When the plugin is not installed.
    """

    def online() -> str:
        filters = [{"Key": "InstanceIds", "Values": [instance]}]
        return target(instance, aws.call("ssm", "describe_instance_information", Filters=filters))

    return _aws_tunnel.tunnel(aws, online, host, scheduler=scheduler, front=front)
