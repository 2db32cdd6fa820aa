"""The role of one autonomous cluster: what the manager on its scheduler's machine may do, and nothing else.

It is made after the cluster's security group, whose tag says that there is one, and goes before it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider import templates
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers import _aws_names as names
from cloudprovider.providers._aws_starts import cluster_tags
from cloudprovider.providers._aws_wire import ec2_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudprovider.provider import Identity
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_config import AWSConfig

__all__ = ["document", "make", "managed", "put_in_profile"]

#: What its one policy is called.
POLICY = "dask"
#: A profile holds one role: who adds it again is told that there is one.
FULL = ("EntityAlreadyExists", "LimitExceeded")


def document(parts: Iterable[tuple[str, Iterable[str]]], **values: str) -> str:
    """One policy made of the statements of several templates.

    Parameters
    ----------
    parts
        Each a template, and the statements of it that are wanted; none for all.
    **values
        Of the templates' holes.
    """
    statements = [
        statement
        for name, wanted in parts
        for statement in json.loads(templates.render(f"policies/{name}.json", **values))["Statement"]
        if not [*wanted] or statement["Sid"] in wanted
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def managed(
    aws: AWS, config: AWSConfig, identity: Identity, policy: Callable[..., str], trust: str, wanted: str
) -> str:
    """Make the role of the manager beside a cluster's scheduler; its ARN.

    Parameters
    ----------
    aws, config, identity
        Whose it is.
    policy
        What it may do; takes `cluster_name`.
    trust
        The template of who may take it.
    wanted
        What `scheduler_role=` must name, for who may not make roles.

    Raises
    ------
    CredentialsError
        When the caller may not make roles; the message has the policy of one that somebody else makes.
    """
    try:
        return make(aws, config, identity, policy(cluster_name=identity.name), trust)
    except CredentialsError as error:
        raise CredentialsError(
            f"{error} autonomous=True makes a role for the manager on the scheduler's machine. Without the right to, "
            f"pass scheduler_role= {wanted} with this policy, which you may pass (iam:PassRole):\n"
            + policy(cluster_name=identity.name if config.name else "*")
        ) from error


def make(aws: AWS, config: AWSConfig, identity: Identity, policy: str, trust: str) -> str:
    """Make a cluster's own role; its ARN. AWS takes some seconds to know it everywhere.

    Parameters
    ----------
    aws, config, identity
        Whose it is.
    policy
        What it may do.
    trust
        The template of who may take it.

    Raises
    ------
    CloudError
        When there is one of its name that is somebody else's.
    """
    name, tags = names.role(identity.name, aws.region), ec2_tags(cluster_tags(config, identity))
    request: dict[str, Any] = {
        "RoleName": name,
        "AssumeRolePolicyDocument": templates.render(trust),
        "Description": f"For the manager beside the scheduler of Dask cluster {identity.name}",
        "Tags": tags,
    }
    made = aws.call("iam", "create_role", fine=["EntityAlreadyExists"], **request)
    role = made.get("Role") or _own(aws, name, identity)
    text = json.dumps(json.loads(policy), separators=(",", ":"))
    aws.call("iam", "put_role_policy", RoleName=name, PolicyName=POLICY, PolicyDocument=text)
    return str(role["Arn"])


def put_in_profile(aws: AWS, config: AWSConfig, identity: Identity) -> None:
    """Make the instance profile of a cluster's own role, which has its name."""
    name, tags = names.role(identity.name, aws.region), ec2_tags(cluster_tags(config, identity))
    named = {"InstanceProfileName": name}
    aws.call("iam", "create_instance_profile", fine=["EntityAlreadyExists"], Tags=tags, **named)
    aws.call("iam", "add_role_to_instance_profile", fine=FULL, RoleName=name, **named)


def _own(aws: AWS, name: str, identity: Identity) -> Mapping[str, Any]:
    """The role that a call made whose answer was lost."""
    role: Mapping[str, Any] = aws.call("iam", "get_role", RoleName=name)["Role"]
    if ledger.identity({tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}) != identity:
        raise CloudError(
            f"There is a role {name!r} already, which is not this cluster's. Delete it, or name the cluster otherwise."
        )
    return role
