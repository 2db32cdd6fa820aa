"""What EC2 is told and what it answers: pure builders of requests, pure parsers of answers."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.provider import Machine, State
from cloudprovider.providers import _ec2_names as names
from cloudprovider.providers._aws_wire import ec2_tags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._ec2_config import EC2Config
    from cloudprovider.providers._ec2_plan import Plan

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
STATES = {
    "pending": State.starting,
    "running": State.running,
    # It may start again, but not what ran on it: ours end by terminating, and a sweep ends what was stopped.
    "stopping": State.gone,
    "stopped": State.gone,
    "shutting-down": State.gone,
    "terminated": State.gone,
}
#: What a sweep ends.
ALIVE = ("pending", "running", "stopping", "stopped")
#: Tags of a launch template are on what each launch makes. A machine that has no such part is refused.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_LaunchTemplateTagSpecificationRequest.html
TAGGED = ("instance", "volume", "network-interface")
SPOT_REQUEST = "spot-instances-request"


def machine_tags(config: EC2Config, identity: Identity, boot: Boot) -> list[dict[str, str]]:
    """The tags of one role's machines and of all that comes with them."""
    extra = {"Name": names.machine_name(identity.name, boot.role), **config.tags}
    return ec2_tags(ledger.for_machine(identity, boot.role, boot.group, extra))


def _machine(
    config: EC2Config, identity: Identity, boot: Boot, plan: Plan, groups: Sequence[str]
) -> dict[str, Any]:
    """What RunInstances and a launch template say of a machine in the same words."""
    kind, tags = plan.kinds[boot.role], machine_tags(config, identity, boot)
    return {
        "ImageId": kind.image,
        **({"KeyName": config.key_name} if config.key_name else {}),
        "IamInstanceProfile": dict(plan.landing.profiles[boot.role]),
        "InstanceInitiatedShutdownBehavior": "terminate",
        # The container shares the machine's network, so that answers need not cross a hop: with 1 they reach
        # no container with a network of its own, and nobody whom a proxy on the machine would let in.
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": kind.root_device,
                "Ebs": {
                    "VolumeSize": kind.disk_gib,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "AssociatePublicIpAddress": config.public,
                "DeleteOnTermination": True,
                "Groups": [*plan.landing.groups, *groups],
            }
        ],
        "TagSpecifications": [{"ResourceType": part, "Tags": tags} for part in TAGGED],
    }


def run_instances_request(
    config: EC2Config,
    identity: Identity,
    boot: Boot,
    plan: Plan,
    *,
    pool: tuple[str, str],
    token: str,
    user_data: bytes,
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """The RunInstances call that starts the scheduler's machine.

    Parameters
    ----------
    config, identity, boot, plan
        What runs how, and whose it is.
    pool
        The instance type and the zone.
    token
        The same for a call that is retried, so that nothing is made twice.
    user_data
        As the machine is to read it.
    groups
        Ids of security groups beside the landing's.
    """
    instance_type, zone = pool
    request = _machine(config, identity, boot, plan, groups)
    request["NetworkInterfaces"][0]["SubnetId"] = plan.landing.network.roomiest[zone]
    return {
        **config.instance_args,
        **request,
        "InstanceType": instance_type,
        "UserData": user_data,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
    }


def launch_template_request(
    config: EC2Config,
    identity: Identity,
    boot: Boot,
    plan: Plan,
    *,
    user_data: bytes,
    token: str,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """The CreateLaunchTemplate call of the workers' machines.

    Parameters
    ----------
    config, identity, boot, plan
        What runs how, and whose it is.
    user_data
        As a machine is to read it.
    token
        The same for a call that is retried.
    tags
        Of the template itself.
    """
    data = {**config.launch_template_args, **_machine(config, identity, boot, plan, ())}
    data["UserData"] = base64.b64encode(user_data).decode()
    if config.markets(boot.role) == ("spot",):
        data["TagSpecifications"].append({**data["TagSpecifications"][0], "ResourceType": SPOT_REQUEST})
    return {
        "LaunchTemplateName": names.template(identity.name),
        "LaunchTemplateData": data,
        "ClientToken": token,
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": ec2_tags(tags)}],
    }


def create_fleet_request(
    config: EC2Config,
    identity: Identity,
    boot: Boot,
    plan: Plan,
    count: int,
    *,
    market: str,
    zones: Sequence[str],
    token: str,
) -> dict[str, Any]:
    """The CreateFleet call that starts up to 1,000 machines of one boot, and makes no standing fleet.

    Parameters
    ----------
    config, identity, boot, plan
        What runs how, and whose it is.
    count
        Machines.
    market
        `on-demand` or `spot`.
    zones
        Where they may be.
    token
        The same for a call that is retried, so that nothing is made twice.
    """
    kind, subnets = plan.kinds[boot.role], plan.landing.network.roomiest
    overrides = [
        {
            "InstanceType": name,
            "SubnetId": subnets[zone],
            **({"Priority": float(rank)} if config.instance_type is not None else {}),
        }
        for rank, name in enumerate(kind.types)
        for zone in zones
        if zone in kind.zones[name]
    ]
    template = {"LaunchTemplateName": names.template(identity.name), "Version": "$Default"}
    return {
        "Type": "instant",
        "ClientToken": token,
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}],
        "TargetCapacitySpecification": {"TotalTargetCapacity": count, "DefaultTargetCapacityType": market},
        **_allocation(market, named=config.instance_type is not None),
        "TagSpecifications": [
            {"ResourceType": "fleet", "Tags": ec2_tags(ledger.for_cluster(identity, config.tags))}
        ],
    }


def _allocation(market: str, *, named: bool) -> dict[str, Any]:
    """In which order a fleet tries its pools: the user's where types are named, else by price.

    Spot pools with most room come first in either, for those are interrupted least.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-allocation-strategy.html
    """
    if market == "spot":
        strategy = "capacity-optimized-prioritized" if named else "price-capacity-optimized"
        return {"SpotOptions": {"AllocationStrategy": strategy, "InstanceInterruptionBehavior": "terminate"}}
    return {"OnDemandOptions": {"AllocationStrategy": "prioritized" if named else "lowest-price"}}


def ordered(
    answer: Mapping[str, Any], identity: Identity, boot: Boot, plan: Plan, now: float
) -> list[Machine]:
    """The machines of a CreateFleet answer, which has neither their tags nor their addresses."""
    zones = {subnet: zone for zone, subnet in plan.landing.network.roomiest.items()}
    return [
        Machine(
            id=id,
            role=boot.role,
            group=boot.group,
            state=State.starting,
            cluster=identity.name,
            zone=entry.get("AvailabilityZone") or zones.get(_subnet(entry)),
            kind=entry.get("InstanceType", ""),
            market="spot" if entry.get("Lifecycle") == "spot" else "on-demand",
            created=now,
            expires=identity.expires,
        )
        for entry in answer.get("Instances", ())
        for id in entry.get("InstanceIds", ())
    ]


def _subnet(entry: Mapping[str, Any]) -> str:
    overrides = entry.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    return str(entry.get("SubnetId") or overrides.get("SubnetId", ""))


def refused_pools(answer: Mapping[str, Any], plan: Plan) -> list[tuple[str, str, str]]:
    """What a CreateFleet answer could not start: the error's code and message, and the pool."""
    zones = {subnet: zone for zone, subnet in plan.landing.network.roomiest.items()}
    found = {}
    for entry in answer.get("Errors", ()):
        overrides = entry.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = zones.get(overrides.get("SubnetId", ""), "")
        pool = " in ".join(filter(None, (overrides.get("InstanceType", ""), zone)))
        found[entry.get("ErrorCode", ""), pool] = entry.get("ErrorMessage", "")
    return [(code, message, pool) for (code, pool), message in found.items()]


def machine(instance: Mapping[str, Any]) -> Machine:
    """Read one instance of a RunInstances or DescribeInstances answer."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
    state = STATES[instance["State"]["Name"]]
    launched, expires = _seconds(instance.get("LaunchTime")), tags.get(ledger.EXPIRES, "")
    return Machine(
        id=instance["InstanceId"],
        role=tags.get(ledger.ROLE, "worker"),
        state=state,
        cluster=tags.get(ledger.CLUSTER, ""),
        group=tags.get(ledger.GROUP, "default"),
        private_address=instance.get("PrivateIpAddress") or None,
        public_address=instance.get("PublicIpAddress") or None,
        zone=instance.get("Placement", {}).get("AvailabilityZone"),
        kind=instance.get("InstanceType", ""),
        market="spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
        created=launched or 0.0,
        # A machine that is pending costs nothing yet; then it bills from its launch.
        billed_from=None if state is State.starting else launched,
        ended=_ended(instance) if state is State.gone else None,
        reason=_reason(instance) if state is State.gone else "",
        expires=int(expires) if expires.isdecimal() else None,
    )


def _reason(instance: Mapping[str, Any]) -> str:
    """Why an instance ended: the text that says most, such as 'Client.InstanceInitiatedShutdown: ...'."""
    said = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason", "")
    return str(said).rstrip(".")


def _ended(instance: Mapping[str, Any]) -> float | None:
    """When an instance was told to end, from which on it costs nothing: 'User initiated (2026-11-23 18:00:00 GMT)'."""
    said = instance.get("StateTransitionReason", "")
    match = re.search(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)", said)
    if match is None:
        return None
    return datetime.strptime(match.group(1), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def _seconds(moment: Any) -> float | None:
    return None if moment is None else float(getattr(moment, "timestamp", lambda: moment)())
