"""The ends on EC2: what goes with a cluster, what others left, and what an early end of a machine means."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CloudError
from cloudprovider.providers import _aws_ends as shared
from cloudprovider.providers import _aws_names, _ec2_boot, _ec2_names, _vm_diagnosis
from cloudprovider.providers import _ec2_wire as wire
from cloudprovider.providers._aws import because, code
from cloudprovider.providers._calls import chunks, side_by_side
from cloudprovider.providers._ec2_plan import PARTS
from cloudprovider.providers._vm_diagnosis import causes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from cloudprovider.provider import Machine, Swept
    from cloudprovider.providers._aws import AWS

__all__ = [
    "clusters",
    "console",
    "dead",
    "delete_templates",
    "described",
    "diagnosis",
    "expired",
    "living",
    "sweep",
    "terminate",
]

SERVICE = "ec2"
MAX_IDS = (
    1000  # of one DescribeInstances or TerminateInstances; larger requests are slow, and throttled first
)
#: Ids that EC2 does not know, or not yet; its message names them.
UNKNOWN = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
NO_TEMPLATE = ("InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.NotFound")

NO_ROUTE = (
    "Its subnet has no route out: pass public=True, or subnets= with a route to a NAT gateway, or with VPC "
    "endpoints for SSM, CloudWatch Logs and the registry. Its security groups must let it out, too."
)
PULL = (
    "It could not pull its image. Is image= right, and does its registry answer? Machines log in to none: it must "
    "be public, or be on the ami= already."
)
FORBIDDEN = "May the machines' role read the cluster's secret? `dask cloud policy aws-ec2-machine` prints what it needs."
NO_LOG = "Is log_group= right, and may the machines' role write to it?"
#: What the log of a machine that came to nothing means.
CAUSES = causes(
    no_route=NO_ROUTE,
    pull=PULL,
    image="ami",
    more=(
        (r"failed to initialize logging driver|the specified log group does not exist", NO_LOG),
        (r"AccessDenied|not authorized to perform: ssm:GetParameter", FORBIDDEN),
    ),
)


def described(aws: AWS, ids: Collection[str]) -> list[dict[str, Any]]:
    """What DescribeInstances says of these, 1,000 a call; unknown ones are left out."""
    answers = side_by_side(
        partial(_tolerant, partial(aws.call, "ec2", "describe_instances"), some)
        for some in chunks(sorted(set(ids)), MAX_IDS)
    )
    return [instance for answer in answers for instance in _instances(answer.get("Reservations", ()))]


def _instances(reservations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [instance for some in reservations for instance in some["Instances"]]


def terminate(aws: AWS, ids: Collection[str]) -> None:
    """End instances, 1,000 a call; unknown ones are no error."""
    side_by_side(
        partial(_tolerant, partial(aws.call, "ec2", "terminate_instances"), some)
        for some in chunks(sorted(set(ids)), MAX_IDS)
    )


def _tolerant(call: Callable[..., dict[str, Any]], ids: Sequence[str]) -> dict[str, Any]:
    """Make a call about instances, and again without those that EC2 says it does not know."""
    left = list(ids)
    while left:
        try:
            return call(InstanceIds=left)
        except CloudError as error:
            missing = set(re.findall(r"[\w-]+", str(error.__cause__)))
            if code(error) not in UNKNOWN or not missing.intersection(left):
                raise
        left = [id for id in left if id not in missing]
    return {}


def living(aws: AWS, cluster: str | None) -> list[dict[str, Any]]:
    """The instances of a cluster, or of all, that are there or may start again."""
    return _in_state(aws, cluster, wire.ALIVE)


def dead(aws: AWS, cluster: str) -> list[dict[str, Any]]:
    """The instances of a cluster that have ended, while EC2 remembers them and their tags.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-termination-works.html
    """
    return _in_state(aws, cluster, ("shutting-down", "terminated"))


def _in_state(aws: AWS, cluster: str | None, states: Iterable[str]) -> list[dict[str, Any]]:
    filters = [*shared.tag_filter(cluster), {"Name": "instance-state-name", "Values": [*states]}]
    page = {"PageSize": MAX_IDS}
    found = aws.pages("ec2", "describe_instances", "Reservations", Filters=filters, PaginationConfig=page)
    return _instances(found)


def sweep(aws: AWS, cluster: str, patience_s: float) -> Swept:
    """Remove all that a cluster owns: its machines, then what they need no more."""

    def end() -> list[str]:
        ids = [instance["InstanceId"] for instance in living(aws, cluster)]
        terminate(aws, ids)
        return ids

    parameters = ("machine", "client", *_ec2_boot.MORE.values(), *map(_ec2_names.plan_part, range(PARTS)))
    return shared.sweep(
        aws,
        cluster,
        end=end,
        free=[partial(delete_templates, aws, cluster), partial(shared.parameters, aws, cluster, parameters)],
        ending=partial(_ending, aws, cluster),
        unfinished=partial(_unfinished, aws),
        patience_s=patience_s,
        profiles=True,
    )


def _ending(aws: AWS, cluster: str) -> list[str]:
    """Instances that are on their way out, by whomever they were ended."""
    return [instance["InstanceId"] for instance in _in_state(aws, cluster, ["shutting-down"])]


def _unfinished(aws: AWS, ids: Collection[str]) -> list[str]:
    """Which of these still have their disks and interfaces."""
    return [i["InstanceId"] for i in described(aws, ids) if i["State"]["Name"] != "terminated"]


def _templates(aws: AWS, cluster: str | None) -> list[dict[str, Any]]:
    """The launch templates of a cluster, or of all."""
    filters = shared.tag_filter(cluster)
    return aws.pages("ec2", "describe_launch_templates", "LaunchTemplates", Filters=filters)


def delete_templates(aws: AWS, cluster: str) -> list[str]:
    """Delete the launch templates of a cluster."""
    found = [template["LaunchTemplateName"] for template in _templates(aws, cluster)]
    for name in found:
        aws.call("ec2", "delete_launch_template", LaunchTemplateName=name, fine=NO_TEMPLATE)
    return found


def clusters(aws: AWS) -> list[str]:
    """The names of all clusters that have a plan."""
    filters = [{"Key": "Name", "Option": "Contains", "Values": [f"/{_ec2_names.plan_part(0)}"]}]
    found = aws.pages("ssm", "describe_parameters", "Parameters", ParameterFilters=filters)
    every = {_aws_names.cluster_of_parameter(parameter["Name"]) for parameter in found}
    return sorted(filter(None, every))


def expired(aws: AWS) -> list[str]:
    """Clusters whose `expires` has passed and that have left more than expires by itself: two calls."""
    found = side_by_side([partial(_templates, aws, None), partial(shared.groups_of, aws, None)])
    owners = shared.owners_of([resource for some in found for resource in some], SERVICE)
    return shared.overdue(owners, aws.now())


def console(aws: AWS, id: str, lines: int) -> str:
    """The last lines of a machine's serial console; empty when there are none yet."""
    request = {"InstanceId": id, "fine": UNKNOWN}
    try:
        answer = aws.call("ec2", "get_console_output", Latest=True, **request)
    except CloudError as error:
        if code(error) not in {"UnsupportedOperation", "InvalidParameterCombination"}:
            raise
        # Only machines of the Nitro system say what is on it now; others what was soon after their start.
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html
        answer = aws.call("ec2", "get_console_output", **request)
    return "\n".join(str(answer.get("Output") or "").splitlines()[-lines:])


def diagnosis(machine: Machine, logs: str) -> CloudError:
    """What to tell the user of a machine that ended before Dask answered on it."""
    return _vm_diagnosis.diagnosis(machine, logs, CAUSES, because, "EC2")
