"""What a cluster owns on ECS before its first machine: its name, secrets, task definitions, security group."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.images import carries_runtime
from cloudprovider.providers import _aws_landing as land
from cloudprovider.providers import _ecs_ends as ends
from cloudprovider.providers import _ecs_names as names
from cloudprovider.providers import _ecs_wire as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity, Machine
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers.ecs import TaskConfig

__all__ = ["allow", "claim", "make_group", "pack", "patiently", "register", "store"]

#: Seconds in which a role that was just made becomes usable, the pause between tries, and how ECS says so.
ROLE_S, ROLE_PAUSE_S = 45.0, 1.5
NEW_ROLE = r"assume the (service linked )?role|service linked role|role is not valid"
#: A name whose cluster has no machine is free again after this, and how long its group may take to go.
LEFT_S, LEFT_PATIENCE_S = 900.0, 5.0


def claim(
    aws: AWS,
    config: TaskConfig,
    identity: Identity,
    ecs_cluster: str,
    secret: str,
    live: Callable[[str], Collection[Machine]],
) -> None:
    """Take the cluster's name by storing its client secret, which only one can.

    Raises
    ------
    CloudError
        When there is a cluster of that name, or was until just now.
    """
    if _put(aws, config, identity, "client", secret):
        return
    owner = _owner(aws, identity.name)
    if owner != identity:  # else it is a retried call
        now = time.time()
        old = owner is not None and (owner.expires < now or owner.created < now - LEFT_S)
        if not old or live(identity.name):
            raise _taken(identity.name, owner, aws.region)
        ends.sweep(aws, ecs_cluster, identity.name, list, LEFT_PATIENCE_S)
        if _put(aws, config, identity, "client", secret):
            return
    _put(aws, config, identity, "client", secret, overwrite=True)


def _taken(name: str, owner: Identity | None, region: str) -> CloudError:
    return CloudError(
        f"There is a cluster {name!r} in {region} already, of {owner.owner if owner else 'somebody'}. Attach "
        f"to it with from_name({name!r}), end it with `dask cloud sweep {name}`, or choose another name."
    )


def _owner(aws: AWS, cluster: str) -> Identity | None:
    """Whose the name is, as the tags of its client secret say."""
    request = {"ResourceType": "Parameter", "ResourceId": names.parameter(cluster, "client")}
    answer = aws.call("ssm", "list_tags_for_resource", **request)
    return ledger.identity({tag["Key"]: tag["Value"] for tag in answer["TagList"]})


def store(aws: AWS, config: TaskConfig, identity: Identity, whose: str, secret: str) -> None:
    """Store a secret under a name that is ours."""
    if not _put(aws, config, identity, whose, secret):
        _put(aws, config, identity, whose, secret, overwrite=True)


def _put(
    aws: AWS, config: TaskConfig, identity: Identity, whose: str, secret: str, *, overwrite: bool = False
) -> bool:
    """Store a secret; whether there was none."""
    request = wire.parameter_request(identity, whose, secret, config.tags)
    if overwrite:  # PutParameter takes tags only from who makes it
        del request["Tags"]
        request["Overwrite"] = True
    return bool(aws.call("ssm", "put_parameter", fine=["ParameterAlreadyExists"], **request))


def pack(boots: Iterable[Boot]) -> str:
    """The runtime for boots whose image does not carry it, packed once a process; else empty."""
    if all(carries_runtime(boot.image) for boot in boots):
        return ""
    from cloudruntime.packing import packed

    return packed()


def register(aws: AWS, config: TaskConfig, identity: Identity, landing: land.Landing, boot: Boot) -> str:
    """Register the task definition of one role; its ARN."""
    request = wire.task_definition_request(config, identity, boot, landing, aws.region, pack([boot]))
    call = partial(aws.call, "ecs", "register_task_definition", **request)
    return str(patiently(call, fresh=landing.fresh)["taskDefinition"]["taskDefinitionArn"])


def make_group(aws: AWS, config: TaskConfig, identity: Identity, landing: land.Landing) -> str | None:
    """Make the scheduler's own security group with its rules; None where the user has groups and no rules."""
    sources = config.sources()
    if not sources and config.security_groups is not None:
        return None
    request = land.group_request(
        names.scheduler_group(identity.name),
        landing.network.vpc,
        f"Who may reach the scheduler of Dask cluster {identity.name}",
        ledger.for_machine(identity, "scheduler", extra=config.tags),
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
        except CredentialsError as error:
            if time.monotonic() > deadline or not re.search(NEW_ROLE, str(error), re.IGNORECASE):
                raise
        time.sleep(ROLE_PAUSE_S)
