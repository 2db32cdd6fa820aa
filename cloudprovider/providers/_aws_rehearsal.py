"""Calls of EC2's that are rehearsed and not made: whether one may make them, where nobody may simulate policies.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/CommonParameters.html
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, ConfigError
from cloudprovider.provider import Identity
from cloudprovider.providers._aws import code
from cloudprovider.providers._aws_wire import ec2_tags, group_request
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_landing import Network

__all__ = ["group_request_of", "of_machine", "rehearsed", "template_request"]

NAME = "dask-doctor"
#: What is answered to a rehearsal of what would be done, and of what may not.
PASSED, REFUSED = "DryRunOperation", "UnauthorizedOperation"


def tagged() -> dict[str, str]:
    """The tags that whatever is made has, by which policies know it."""
    now = int(time.time())
    return ledger.for_cluster(Identity(name=NAME, owner=NAME, created=now, expires=now + 3600))


def group_request_of(network: Network | None) -> dict[str, Any]:
    """The CreateSecurityGroup call of a scheduler's group.

    Raises
    ------
    ConfigError
        Where there is no network that it could be in.
    """
    if network is None:
        raise ConfigError("There is no network to rehearse in.")
    return group_request(f"{NAME}-scheduler", network.vpc, "A rehearsal", tagged())


def rehearsed(aws: AWS, calls: Sequence[tuple[str, str, dict[str, Any]]]) -> tuple[list[str], list[str]]:
    """The actions that were refused, and those that would be done; what went wrong otherwise is in neither."""

    def rehearse(operation: str, request: dict[str, Any]) -> str:
        try:
            aws.call("ec2", operation, fine=[PASSED], DryRun=True, **request)
        except CloudError as error:
            return code(error)
        return PASSED

    answers = side_by_side(partial(rehearse, operation, request) for _, operation, request in calls)
    pairs = [*zip((action for action, *_ in calls), answers, strict=True)]
    return (
        [action for action, answer in pairs if answer == REFUSED],
        [action for action, answer in pairs if answer == PASSED],
    )


def of_machine(request: dict[str, Any]) -> dict[str, Any]:
    """A RunInstances call with the tags of machines."""
    tags = ec2_tags(tagged())
    kinds = ("instance", "volume", "network-interface")
    return {**request, "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds]}


def template_request(machine: dict[str, Any]) -> dict[str, Any]:
    """The CreateLaunchTemplate call of machines like one."""
    data = {key: machine[key] for key in ("ImageId", "InstanceType")}
    tags = [{"ResourceType": "launch-template", "Tags": ec2_tags(tagged())}]
    return {"LaunchTemplateName": NAME, "LaunchTemplateData": data, "TagSpecifications": tags}
