"""The ends on AWS: what goes with a cluster, and in which order, whatever its machines are."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.provider import Swept
from cloudprovider.providers import _aws_names as names
from cloudprovider.providers._aws import code
from cloudprovider.providers._calls import moments, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from cloudprovider.provider import Identity
    from cloudprovider.providers._aws import AWS

__all__ = ["groups_of", "log_lines", "overdue", "owners_of", "parameters", "sweep", "swept"]

logger = logging.getLogger("cloudprovider")

#: What has gone, or never was.
NO_ROLE = ("NoSuchEntity",)
#: How IAM says that one may not.
DENIED = ("AccessDenied",)


def sweep(
    aws: AWS,
    cluster: str,
    *,
    end: Callable[[], Sequence[str]],
    free: Sequence[Callable[[], Sequence[str]]],
    ending: Callable[[], Sequence[str]],
    unfinished: Callable[[Collection[str]], Sequence[str]],
    patience_s: float,
    profiles: bool,
) -> Swept:
    """Remove all that a cluster owns: its machines, then what they need no more.

    Parameters
    ----------
    aws, cluster
        Whose it is.
    end
        Ends the machines that live, and says which.
    free
        Each removes what does not wait for the machines, and says what.
    ending
        Machines that somebody else has told to end.
    unfinished
        Which of some machines have not ended yet: their network interfaces go only then.
    patience_s
        Seconds to wait for that.
    profiles
        Whether its role has an instance profile.
    """
    ended: dict[str, None] = {}
    deadline = time.monotonic() + patience_s

    def end_more() -> bool:
        """End what lives; whether there was anything new."""
        new = [id for id in end() if id not in ended]
        ended.update(dict.fromkeys(new))
        return bool(new)

    end_more()
    groups = groups_of(aws, cluster)
    role, kept = _remove_role(aws, cluster, groups, profiles=profiles)
    *removed, others = side_by_side([*free, ending])
    gone, left = _remove_groups(aws, [] if kept else groups, end_more, patience_s)
    waiting: Sequence[str] = list({*ended, *others})
    for _ in moments(max(0.0, deadline - time.monotonic())):
        waiting = unfinished(waiting)
        if not waiting:
            break
    resources = [*role, *(name for some in removed for name in some), *gone]
    return Swept(machines=tuple(ended), resources=tuple(resources), left=(*kept, *left, *waiting))


def swept(clusters: Iterable[str], sweep: Callable[[str], Swept]) -> tuple[str, ...]:
    """Those of these clusters of which something was removed; what one may not remove is left to who may."""
    done = []
    for name in clusters:
        try:
            sweep(name)
        except CredentialsError as error:
            logger.info("What cluster %r left was not swept: %s", name, error)
        else:
            done.append(name)
    return tuple(done)


def parameters(aws: AWS, cluster: str, whose: Iterable[str]) -> list[str]:
    """Delete a cluster's parameters, of those that are there."""
    every = [names.parameter(cluster, one) for one in whose]
    return list(aws.call("ssm", "delete_parameters", Names=every).get("DeletedParameters", ()))


def log_lines(aws: AWS, group: str, stream: str, count: int) -> str:
    """The last lines of a log stream; empty while there is none."""
    request = {"logGroupName": group, "logStreamName": stream, "limit": count, "startFromHead": False}
    answer = aws.call("logs", "get_log_events", fine=["ResourceNotFoundException"], **request)
    return "\n".join(event["message"] for event in answer.get("events", ()))


def groups_of(aws: AWS, cluster: str | None) -> list[dict[str, Any]]:
    """The security groups of a cluster, or of all."""
    return aws.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=tag_filter(cluster))


def tag_filter(cluster: str | None) -> list[dict[str, Any]]:
    """The filter of an EC2 call for what belongs to a cluster, or to any."""
    if cluster is None:
        return [{"Name": "tag-key", "Values": [ledger.CLUSTER]}]
    return [{"Name": f"tag:{ledger.CLUSTER}", "Values": [cluster]}]


def _remove_role(
    aws: AWS, cluster: str, groups: Iterable[Mapping[str, Any]], *, profiles: bool
) -> tuple[Sequence[str], Sequence[str]]:
    """Delete the role of a cluster's own, when one of its groups says that there may be one.

    Returns what is gone, and what is left to who may know of roles: its group then stays as well, so that they
    find it.
    """
    if not any(tag["Key"] == ledger.AUTONOMOUS for group in groups for tag in group.get("Tags", ())):
        return [], []
    name = names.role(cluster, aws.region)
    try:
        role = aws.call("iam", "get_role", fine=NO_ROLE, RoleName=name).get("Role", {})
        if {"Key": ledger.CLUSTER, "Value": cluster} not in role.get("Tags", ()):
            return [], []
        _delete_role(aws, name, profiles=profiles)
    except CredentialsError as error:
        if code(error) not in DENIED:
            raise
        logger.warning("%s", error)
        return [], [name]
    return [name], []


def _delete_role(aws: AWS, name: str, *, profiles: bool) -> None:
    if profiles:
        profile = {"InstanceProfileName": name}
        aws.call("iam", "remove_role_from_instance_profile", fine=NO_ROLE, RoleName=name, **profile)
        aws.call("iam", "delete_instance_profile", fine=NO_ROLE, **profile)
    for policy in aws.call("iam", "list_role_policies", fine=NO_ROLE, RoleName=name).get("PolicyNames", ()):
        aws.call("iam", "delete_role_policy", fine=NO_ROLE, RoleName=name, PolicyName=policy)
    aws.call("iam", "delete_role", fine=NO_ROLE, RoleName=name)


def _remove_groups(
    aws: AWS, groups: Iterable[Mapping[str, Any]], end: Callable[[], bool], patience_s: float
) -> tuple[list[str], list[str]]:
    """Delete the groups, which must wait until the scheduler's network interface is gone."""
    left = [group["GroupId"] for group in groups]
    gone: list[str] = []
    for _ in moments(patience_s):
        for id in list(left):
            if _remove_group(aws, id):
                left.remove(id)
                gone.append(id)
        # A machine that was ordered just before may only be listed now.
        if not end() and not left:
            break
    return gone, left


def _remove_group(aws: AWS, id: str) -> bool:
    try:
        aws.call("ec2", "delete_security_group", GroupId=id, fine=["InvalidGroup.NotFound"])
    except CloudError as error:
        if code(error) != "DependencyViolation":
            raise
        return False
    return True


def owners_of(resources: Iterable[Mapping[str, Any]], service: str) -> dict[str, Identity]:
    """Whose resources of EC2's these are, by cluster, of those that this service made."""
    every = ({tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())} for resource in resources)
    owners = (ledger.identity(tags) for tags in every if tags.get(ledger.SERVICE) == service)
    return {owner.name: owner for owner in owners if owner}


def overdue(owners: Mapping[str, Identity], now: float) -> list[str]:
    """The clusters whose `expires` has passed."""
    return sorted(name for name, owner in owners.items() if owner.expires < now)
