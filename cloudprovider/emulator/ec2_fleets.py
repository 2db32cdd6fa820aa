"""EC2 fleets of type `instant`: one call that orders from a launch template wherever there is room.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instant-fleet.html
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2
from cloudprovider.emulator.ec2_errors import combination, invalid, missing
from cloudprovider.emulator.ec2_instances import backend
from cloudprovider.emulator.ec2_orders import order, template_version
from cloudprovider.emulator.ec2_prices import instance_price
from cloudprovider.emulator.wire import AWSError
from cloudprovider.emulator.wire_xml import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.ec2_instances import Instances
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.wire import Request

#: Parts of an override that RunInstances calls the same, and those it calls otherwise.
SAME = ("InstanceType", "ImageId", "KeyName", "SubnetId", "BlockDeviceMappings", "MetadataOptions")
#: Parts of an override that the answer tells again.
TOLD = ("InstanceType", "MaxPrice", "SubnetId", "AvailabilityZone", "WeightedCapacity", "Priority", "ImageId")
LARGEST = 10_000  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/fleet-quotas.html: target capacity
#: Where EC2 calls a refusal otherwise when a fleet meets it.
FLEET_CODES = {"Unsupported": "InvalidFleetConfiguration"}

Document = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """One override: instances of one type in one place.

    Parameters
    ----------
    template
        Id and version of its launch template.
    override
        As the call gives it.
    position
        Among all of the call.
    """

    template: tuple[str, int]
    override: Document
    position: int

    @property
    def weight(self) -> float:
        """What one instance of it adds to the capacity."""
        return float(self.override.get("WeightedCapacity", 1))

    @property
    def priority(self) -> float:
        """The lowest is tried first; those without one are tried last."""
        return float(self.override.get("Priority", math.inf))

    def told(self) -> Document:
        """The template and the override as an answer tells them."""
        id, version = self.template
        overrides = {name: self.override[name] for name in TOLD if name in self.override}
        return {
            "LaunchTemplateSpecification": {"LaunchTemplateId": id, "Version": str(version)},
            "Overrides": overrides,
        }


class Fleets:
    """The fleets of one account."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {"CreateFleet": self.create}.get(operation)

    def create(self, request: Request) -> Document:
        """CreateFleet: what was started, and why not more."""
        given = named(request)
        token = given.get("ClientToken", "")
        if known := self._instances.remembered(request, token, given):
            answer: Document = known
            return answer
        target = given["TargetCapacitySpecification"]
        _check(given, target)
        pools = _pools(request.region, given["LaunchTemplateConfigs"])
        if given.get("DryRun"):
            raise AWSError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        fleet = _Fleet(self._instances, request.region, given, pools, token)
        for market, capacity in _capacities(target).items():
            fleet.fill(market, capacity)
        answer = {"FleetId": fleet.id, "Errors": fleet.errors, "Instances": fleet.told()}
        self._instances.remember(request, token, given, answer)
        return answer


class _Fleet:
    """One fleet while it is filled."""

    def __init__(
        self, instances: Instances, region: str, given: Mapping[str, Any], pools: list[Pool], token: str
    ) -> None:
        self.id = f"fleet-{uuid.uuid4()}"
        self.errors: list[Document] = []
        self._instances = instances
        self._region = region
        self._given = given
        self._pools = pools
        self._token = token
        self._made: list[tuple[Pool, str, list[LiveInstance]]] = []

    def fill(self, market: str, capacity: float) -> None:
        """Start instances of one market until they are enough, or no pool has room."""
        options = self._given.get("SpotOptions" if market == "spot" else "OnDemandOptions") or {}
        left = capacity
        pools = self._ordered(market, options)
        if options.get("AllocationStrategy") == "diversified":
            share = math.ceil(capacity / len(pools))
            for pool in pools:
                left -= self._start(pool, market, min(left, share))
        for pool in pools:
            if left <= 0:
                break
            left -= self._start(pool, market, left)
        least = options.get("MinTargetCapacity")
        if least and capacity - left < least:
            self._give_up(market)

    def told(self) -> list[Document]:
        """What was started, as the answer tells it: an entry for each pool."""
        return [
            {
                "LaunchTemplateAndOverrides": pool.told(),
                "Lifecycle": market,
                "InstanceIds": [one.id for one in made],
                "InstanceType": made[0].instance_type,
                "AvailabilityZone": made[0].availability_zone,
                "SubnetId": made[0].subnet_id,
            }
            for pool, market, made in self._made
            if made
        ]

    def _start(self, pool: Pool, market: str, capacity: float) -> float:
        """Start what one pool has room for; how much capacity that adds."""
        wanted = math.ceil(capacity / pool.weight)
        if wanted < 1:
            return 0
        try:
            made = self._launch(pool, market, wanted)
        except AWSError as error:
            self._refused(pool, market, error)
            return 0
        self._made.append((pool, market, made))
        if len(made) < wanted:
            try:  # the rest is what the pool refuses
                self._launch(pool, market, 1)
            except AWSError as error:
                self._refused(pool, market, error)
        return len(made) * pool.weight

    def _launch(self, pool: Pool, market: str, wanted: int) -> list[LiveInstance]:
        asked = order(backend(self._region), _asked(pool, market, self._given), self._instances.fresh_s())
        return self._instances.launch(self._region, asked, 1, wanted, self._token, fleet=self.id)

    def _refused(self, pool: Pool, market: str, error: AWSError) -> None:
        self.errors.append(
            {
                "LaunchTemplateAndOverrides": pool.told(),
                "Lifecycle": market,
                "ErrorCode": FLEET_CODES.get(error.code, error.code),
                "ErrorMessage": error.message,
            }
        )

    def _ordered(self, market: str, options: Mapping[str, Any]) -> list[Pool]:
        """The pools as the strategy tries them."""
        strategy = options.get("AllocationStrategy", "lowest-price")
        by_price = {pool.position: self._price(pool, market) for pool in self._pools}
        if strategy == "prioritized":
            return sorted(self._pools, key=lambda pool: (pool.priority, pool.position))
        if strategy in ("lowest-price", "diversified"):
            return sorted(self._pools, key=lambda pool: (by_price[pool.position], pool.position))
        # Which pools are the deepest is not published: here it is those with the most room.
        rooms = {pool.position: -self._room(pool, market) for pool in self._pools}
        if strategy == "capacity-optimized-prioritized":
            return sorted(self._pools, key=lambda one: (rooms[one.position] >= 0, one.priority, one.position))
        if strategy == "price-capacity-optimized":
            return sorted(
                self._pools,
                key=lambda one: (rooms[one.position] >= 0, by_price[one.position], one.position),
            )
        return sorted(self._pools, key=lambda pool: (rooms[pool.position], pool.position))

    def _price(self, pool: Pool, market: str) -> float:
        """What a unit of capacity costs there; what has no price is the dearest."""
        kind, zone = pool.override.get("InstanceType", ""), pool.override.get("AvailabilityZone", "")
        if (subnet := pool.override.get("SubnetId")) and not zone:
            zone = ec2.subnet(backend(self._region), subnet).availability_zone
        price = instance_price(self._region, kind, zone, market)
        return math.inf if math.isnan(price) else price / pool.weight

    def _room(self, pool: Pool, market: str) -> int:
        try:
            asked = order(backend(self._region), _asked(pool, market, self._given))
        except AWSError:
            return 0
        return self._instances.room(self._region, asked)

    def _give_up(self, market: str) -> None:
        for _, own, made in self._made:
            if own == market:
                for one in made:
                    self._instances.life.terminate(one, force=True)
        self._made = [entry for entry in self._made if entry[1] != market]


def _check(given: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    if given.get("Type", "maintain") != "instant":
        raise AWSError("NotImplemented", "The emulated EC2 has fleets of type instant only.", 501)
    total = target["TotalTargetCapacity"]
    if not 0 < total <= LARGEST:
        raise AWSError("InvalidTargetCapacitySpecification", f"The target capacity {total} is not allowed.")
    parts = target.get("OnDemandTargetCapacity", 0) + target.get("SpotTargetCapacity", 0)
    if parts > total:
        raise AWSError(
            "InvalidTargetCapacitySpecification",
            "The sum of the on-demand and the spot target capacity exceeds the total target capacity.",
        )


def _capacities(target: Mapping[str, Any]) -> dict[str, float]:
    """How much capacity of each market is wanted."""
    on_demand, spot = target.get("OnDemandTargetCapacity", 0), target.get("SpotTargetCapacity", 0)
    rest = target["TotalTargetCapacity"] - on_demand - spot
    if target.get("DefaultTargetCapacityType", "on-demand") == "spot":
        spot += rest
    else:
        on_demand += rest
    return {market: most for market, most in (("on-demand", on_demand), ("spot", spot)) if most > 0}


def _pools(region: str, configs: list[Document]) -> list[Pool]:
    pools: list[Pool] = []
    for config in configs:
        given = config.get("LaunchTemplateSpecification")
        if not given:
            raise missing("LaunchTemplateSpecification")
        if not given.get("Version"):
            raise missing("LaunchTemplateSpecification.Version")
        version = template_version(backend(region), given)
        if version.data.get("InstanceMarketOptions"):
            raise combination("The launch template's InstanceMarketOptions cannot be used with an EC2 Fleet.")
        template = (version.template.id, version.number)
        for override in config.get("Overrides") or [{}]:
            if "InstanceRequirements" in override:
                raise AWSError("NotImplemented", "The emulated EC2 has no InstanceRequirements.", 501)
            pools.append(Pool(template, override, len(pools)))
    if not pools:
        raise invalid("A fleet needs at least one launch template configuration.")
    return pools


def orders(region: str, given: Mapping[str, Any]) -> list[Document]:
    """What RunInstances would be asked for in each pool of a fleet, in each of its markets."""
    target = given.get("TargetCapacitySpecification") or {"TotalTargetCapacity": 0}
    markets = [*_capacities(target)] or ["on-demand"]
    return [
        _asked(pool, market, given)
        for pool in _pools(region, given["LaunchTemplateConfigs"])
        for market in markets
    ]


def _asked(pool: Pool, market: str, given: Mapping[str, Any]) -> Document:
    """What RunInstances would be asked for instances of a pool."""
    id, version = pool.template
    asked: Document = {"LaunchTemplate": {"LaunchTemplateId": id, "Version": str(version)}}
    asked |= {name: pool.override[name] for name in SAME if name in pool.override}
    if zone := pool.override.get("AvailabilityZone"):
        asked["Placement"] = {"AvailabilityZone": zone}
    if market == "spot":
        asked["InstanceMarketOptions"] = {"MarketType": "spot"}
    tags = [one for one in given.get("TagSpecifications") or [] if one.get("ResourceType") != "fleet"]
    if tags:
        asked["TagSpecifications"] = tags
    return asked
