"""What a cluster on AWS owns before its first machine: its name, secrets and security group."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError
from cloudprovider.images import carries_runtime
from cloudprovider.providers import _aws_ends as ends
from cloudprovider.providers import _aws_names as names
from cloudprovider.providers import _aws_wire as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity, Machine
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_config import AWSConfig

__all__ = ["allow", "claim", "cluster_tags", "make_group", "own_tags", "pack", "patiently", "store"]

#: Seconds in which a role that was just made becomes usable, and the pause between tries.
ROLE_S, ROLE_PAUSE_S = 45.0, 1.5
#: How ECS and EC2 say that they do not know a role yet.
NEW_ROLE = (
    r"assume the (service linked )?role|service linked role|role is not valid|invalid iam instance profile"
)
#: A name whose cluster has no machine is free again after this.
LEFT_S = 900.0


def own_tags(config: AWSConfig) -> Mapping[str, str]:
    """Further tags of what any service could have made, so that each sweeps only what is its own."""
    return {**config.tags, ledger.SERVICE: config.service}


def cluster_tags(config: AWSConfig, identity: Identity) -> dict[str, str]:
    """The tags of what a cluster owns for all its machines."""
    return ledger.for_cluster(identity, own_tags(config))


def claim(
    aws: AWS,
    config: AWSConfig,
    identity: Identity,
    secret: str,
    live: Callable[[str], Collection[Machine]],
    sweep: Callable[[], Any],
) -> None:
    """Take the cluster's name by storing its client secret, which only one can.

    Parameters
    ----------
    aws, config, identity, secret
        Whose it is to be.
    live
        The live machines of a cluster.
    sweep
        Removes what a cluster that died left under the name.

    Raises
    ------
    CloudError
        When there is a cluster of that name, or was until just now.
    """
    if _put(aws, config, identity, "client", secret):
        return
    owner, service = _owner(aws, identity.name)
    if owner != identity or _stored(aws, identity.name) != secret:  # else it is a retried call
        now = aws.now()
        old = owner is not None and (owner.expires < now or owner.created < now - LEFT_S)
        if not old or service != config.service or live(identity.name):
            raise _taken(identity.name, owner, aws.region)
        sweep()
        if _put(aws, config, identity, "client", secret):
            return
    _put(aws, config, identity, "client", secret, overwrite=True)


def _taken(name: str, owner: Identity | None, region: str) -> CloudError:
    return CloudError(
        f"There is a cluster {name!r} in {region} already, of {owner.owner if owner else 'somebody'}. Attach "
        f"to it with from_name({name!r}), end it with `dask cloud sweep {name}`, or choose another name."
    )


def _owner(aws: AWS, cluster: str) -> tuple[Identity | None, str]:
    """Whose the name is, and on which service, as the tags of its client secret say."""
    request = {"ResourceType": "Parameter", "ResourceId": names.parameter(cluster, "client")}
    answer = aws.call("ssm", "list_tags_for_resource", **request)
    tags = {tag["Key"]: tag["Value"] for tag in answer["TagList"]}
    return ledger.identity(tags), tags.get(ledger.SERVICE, "")


def _stored(aws: AWS, cluster: str) -> str:
    """The client secret under a name: two clusters of one owner and second differ in nothing else."""
    request = {"Name": names.parameter(cluster, "client"), "WithDecryption": True}
    answer = aws.call("ssm", "get_parameter", fine=["ParameterNotFound"], **request)
    return str(answer["Parameter"]["Value"]) if answer else ""


def store(aws: AWS, config: AWSConfig, identity: Identity, whose: str, secret: str) -> None:
    """Store a secret under a name that is ours."""
    if not _put(aws, config, identity, whose, secret):
        _put(aws, config, identity, whose, secret, overwrite=True)


def _put(
    aws: AWS, config: AWSConfig, identity: Identity, whose: str, secret: str, *, overwrite: bool = False
) -> bool:
    """Store a secret; whether there was none."""
    request = wire.parameter_request(identity, whose, secret, own_tags(config))
    if overwrite:  # PutParameter takes tags only from who makes it
        del request["Tags"]
        request["Overwrite"] = True
    return bool(aws.call("ssm", "put_parameter", fine=["ParameterAlreadyExists"], **request))


def pack(boot: Boot) -> str:
    """The runtime for a boot whose image does not carry it, packed once a process; else empty."""
    if carries_runtime(boot.image):
        return ""
    from cloudruntime.packing import packed

    return packed(boot)


def make_group(
    aws: AWS, config: AWSConfig, identity: Identity, vpc: str, sources: Sequence[str]
) -> str | None:
    """Make the scheduler's own security group with its rules; None where the user has groups and no rules."""
    own_role = config.autonomous and config.scheduler_role is None
    if not sources and config.security_groups is not None and not own_role:
        return None
    # The role of the cluster's own is found by its group, which is there before it and goes after it.
    mark = {ledger.AUTONOMOUS: "role"} if own_role else {}
    request = wire.group_request(
        names.scheduler_group(identity.name),
        vpc,
        f"Who may reach the scheduler of Dask cluster {identity.name}",
        ledger.for_machine(identity, "scheduler", extra={**own_tags(config), **mark}),
    )
    made = aws.call("ec2", "create_security_group", fine=["InvalidGroup.Duplicate"], **request)
    if not made:  # a retried call
        allow(aws, identity.name, sources)
        [made] = ends.groups_of(aws, identity.name)
    elif sources:
        _change(aws, "authorize", made["GroupId"], sources)
    return str(made["GroupId"])


def allow(aws: AWS, cluster: str, sources: Collection[str]) -> None:
    """Make the ingress rules of the scheduler's group exactly these CIDR sources."""
    group = next(iter(ends.groups_of(aws, cluster)), None)
    if group is None:
        raise CloudError(
            f"Cluster {cluster!r} has no security group of its own in {aws.region}: change the rules of "
            "your security_groups= instead."
        )
    wanted, there = set(sources), wire.sources_of(group)
    _change(aws, "authorize", group["GroupId"], wanted - there)
    _change(aws, "revoke", group["GroupId"], there - wanted)


def _change(aws: AWS, how: str, group: str, sources: Collection[str]) -> None:
    if not sources:
        return
    fine = ["InvalidPermission.Duplicate", "InvalidPermission.NotFound"]
    request = {"GroupId": group, "IpPermissions": wire.ingress(sources)}
    aws.call("ec2", f"{how}_security_group_ingress", fine=fine, **request)


def patiently(call: Callable[[], dict[str, Any]], *, fresh: bool) -> dict[str, Any]:
    """Make a call, and again while a role that was just made is not known everywhere yet."""
    deadline = time.monotonic() + (ROLE_S if fresh else 0.0)
    while True:
        try:
            return call()
        except CloudError as error:
            if time.monotonic() > deadline or not re.search(NEW_ROLE, str(error), re.IGNORECASE):
                raise
        time.sleep(ROLE_PAUSE_S)
