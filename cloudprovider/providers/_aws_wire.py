"""Requests and answers that every service on AWS shares: tags, secrets, security groups."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.providers import _aws_names as names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudprovider.provider import Identity

__all__ = ["MARK", "ec2_tags", "group_request", "ingress", "parameter_request", "sources_of"]

#: The tags of what clusters share.
MARK = {ledger.LANDING: "dask"}
PORTS = (8786, 8787)


def ec2_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2, IAM and SSM spell them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def group_request(name: str, vpc: str, description: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The CreateSecurityGroup call that makes a group with its tags."""
    return {
        "GroupName": name,
        "Description": description,
        "VpcId": vpc,
        "TagSpecifications": [{"ResourceType": "security-group", "Tags": ec2_tags(tags)}],
    }


def parameter_request(identity: Identity, whose: str, value: str, extra: Mapping[str, str]) -> dict[str, Any]:
    """The PutParameter call of one secret, which expires with the cluster."""
    until = datetime.fromtimestamp(identity.expires, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    policy = {"Type": "Expiration", "Version": "1.0", "Attributes": {"Timestamp": until}}
    return {
        "Name": names.parameter(identity.name, whose),
        "Description": f"Keys of Dask cluster {identity.name} for its {whose}",
        "Value": value,
        "Type": "SecureString",
        # Only advanced parameters expire. They cost $0.05 a month, by the hour.
        # https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-policies.html
        "Tier": "Advanced",
        "Policies": json.dumps([policy]),
        "Tags": ec2_tags(ledger.for_cluster(identity, extra)),
    }


def ingress(sources: Collection[str]) -> list[dict[str, Any]]:
    """The rules of the scheduler's group that let these CIDR blocks reach Dask and its front."""
    if not sources:
        return []
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": PORTS[0], "ToPort": PORTS[1]}
    for key, cidr, some in (
        ("IpRanges", "CidrIp", sorted(s for s in sources if ":" not in s)),
        ("Ipv6Ranges", "CidrIpv6", sorted(s for s in sources if ":" in s)),
    ):
        if some:
            rule[key] = [{cidr: source, "Description": "allow_from"} for source in some]
    return [rule]


def sources_of(group: Mapping[str, Any]) -> set[str]:
    """The CIDR blocks that a security group of a DescribeSecurityGroups answer lets in."""
    return {
        entry[cidr]
        for rule in group.get("IpPermissions", ())
        for key, cidr in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
        for entry in rule.get(key, ())
    }
