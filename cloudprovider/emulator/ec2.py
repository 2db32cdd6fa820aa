"""What Fargate needs of EC2: networks whose addresses can be bound here, interfaces, routes."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, ClassVar

from moto.ec2 import ec2_backends
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import EC2Backend

from cloudprovider.emulator.ec2_images import enliven
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudprovider.emulator.network import Network


class NoFreeAddress(Exception):  # noqa: N818  (what EC2 calls it)
    """A subnet has no address left."""


class LiveEC2(EC2Backend):  # type: ignore[misc]
    """moto's EC2 with a default VPC and public addresses that lead to machines, and a way to the internet."""

    network: Network
    own_images: ClassVar[dict[str, list[Any]]] = {}
    launcher: Any  # starts instances: told the region, the parameters of RunInstances, and how many

    def __init__(self, region_name: str, account_id: str) -> None:
        self.live_instances: dict[str, Any] = {}
        super().__init__(region_name, account_id)
        for image in self.amis.values():
            enliven(image)

    def _load_amis(self) -> None:
        """AWS's thousand images, which moto makes once a process and region."""
        if self.region_name not in self.own_images:
            super()._load_amis()
            self.own_images[self.region_name] = list(self.amis.values())
        for made in self.own_images[self.region_name]:
            image, snapshot = copy.copy(made), copy.copy(made.ebs_snapshot)
            image.ec2_backend = snapshot.ec2_backend = self
            image.launch_permissions, image.ebs_snapshot = [*made.launch_permissions], snapshot
            self.amis[image.id] = image
            self.snapshots[snapshot.id] = snapshot

    def run_instances(
        self, image_id: str, count: int, user_data: Any, security_group_names: list[str], **options: Any
    ) -> Any:
        """Start live instances for a service of moto's, such as an Auto Scaling group."""
        given = _as_asked(image_id, user_data, security_group_names, options)
        made = self.launcher(self.region_name, given, count)
        return self.reservations[made[0].reservation_id]

    def instances_by_id(self) -> dict[str, Any]:
        """Every instance, oldest first."""
        return self.live_instances

    def forget(self, instance: Any) -> None:
        """An instance that ended long ago is seen no more."""
        self.live_instances.pop(instance.id, None)
        self.tags.pop(instance.id, None)
        reservation = self.reservations[instance.reservation_id]
        reservation.instances.remove(instance)
        if not reservation.instances:
            del self.reservations[instance.reservation_id]

    def get_instance_by_id(self, instance_id: str) -> Any:
        """The instance of this id; None when there is none."""
        return self.live_instances.get(instance_id)

    def create_default_vpc(self) -> Any:
        """The VPC that every account has in every region: a public subnet in each zone."""
        vpc = self.create_vpc(str(self.network.block), is_default=True)
        for zone in self.describe_availability_zones():
            subnet = self.create_default_subnet(zone.name)
            subnet.map_public_ip_on_launch = True
        gateway = self.create_internet_gateway()
        self.attach_internet_gateway(gateway.id, vpc.id)
        table = self.describe_route_tables(filters={"vpc-id": [vpc.id], "association.main": ["true"]})[0]
        self.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
        return vpc

    def allocate_address(self, domain: str, address: str | None = None, tags: Any = None) -> Any:
        """Allocate an elastic address; it leads to a machine as soon as one has it."""
        return super().allocate_address(domain, address or self.network.public_address(""), tags)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Delete a group that no network interface uses."""
        if any(group_id in (group.id for group in interface.group_set) for interface in self.enis.values()):
            raise DependencyViolationError(f"resource {group_id} has a dependent object")
        super().delete_security_group(name, group_id)


LiveEC2.__module__ = EC2Backend.__module__  # moto finds its URLs through the module's name


def _as_asked(image: str, user_data: Any, groups: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of RunInstances that say what a service of moto's wants."""
    given: dict[str, Any] = {
        "ImageId": image,
        "InstanceType": options.get("instance_type"),
        "SubnetId": options.get("subnet_id"),
        "KeyName": options.get("key_name"),
        "UserData": str(user_data) if user_data else None,
        "LaunchTemplate": options.get("launch_template"),
        "SecurityGroupIds": [name for name in groups or [] if name.startswith("sg-")],
        "SecurityGroups": [name for name in groups or [] if not name.startswith("sg-")],
    }
    if options.get("placement") and not options.get("subnet_id"):
        given["Placement"] = {"AvailabilityZone": options["placement"]}
    given["TagSpecifications"] = [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind, tags in (options.get("tags") or {}).items()
    ]
    return {name: value for name, value in given.items() if value}


def install() -> None:
    """Make moto's EC2 live in this process."""
    ec2_backends.clear()
    ec2_backends.backend = LiveEC2


def subnet(ec2: Any, id: str) -> Any:
    """The subnet of this id.

    Raises
    ------
    AWSError
        When there is none.
    """
    for of_zone in ec2.subnets.values():
        if id in of_zone:
            return of_zone[id]
    raise AWSError("InvalidSubnetID.NotFound", f"The subnet ID '{id}' does not exist")


@functools.cache
def _offerings(region: str) -> dict[str, frozenset[str]]:
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    zones: dict[str, set[str]] = {}
    for one in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, ()):
        zones.setdefault(one["InstanceType"], set()).add(one["Location"])
    return {kind: frozenset(found) for kind, found in zones.items()}


def zones_offering(region: str, kind: str) -> frozenset[str]:
    """The zones of a region that have an instance type."""
    return _offerings(region).get(kind, frozenset())


def offered(region: str) -> list[str]:
    """The instance types that a region has."""
    return sorted(_offerings(region))


def free_addresses(ec2: Any, subnet_id: str) -> int:
    """How many addresses a subnet has left; AWS keeps five of each."""
    subnet = ec2.get_subnet(subnet_id)
    return int(subnet.cidr.num_addresses) - 5 - len(subnet._subnet_ips)


def attach_interface(
    ec2: Any, subnet_id: str, groups: Collection[str], description: str, *, public: bool, spare: int = 0
) -> Any:
    """A network interface with an address of its subnet.

    Raises
    ------
    NoFreeAddress
        When the subnet has none beyond `spare`.
    """
    if free_addresses(ec2, subnet_id) <= spare:
        raise NoFreeAddress(subnet_id)
    subnet = ec2.get_subnet(subnet_id)
    address = subnet.get_available_subnet_ip(instance=description)
    interface = ec2.create_network_interface(
        subnet=subnet, private_ip_address=address, group_ids=list(groups), description=description
    )
    interface.status = "in-use"
    interface.requester_managed = True
    if public:
        interface.public_ip = ec2.network.public_address(address)
    return interface


def release_interface(ec2: Any, interface: Any) -> None:
    """The interface is gone, and its address free."""
    interface.subnet.del_subnet_ip(interface.private_ip_address)
    ec2.enis.pop(interface.id, None)


def default_routes(ec2: Any, subnet_id: str) -> list[Any]:
    """The routes by which a subnet's packets leave their network."""
    subnet = ec2.get_subnet(subnet_id)
    filters = {"association.subnet-id": [subnet_id]}
    tables = ec2.describe_route_tables(filters=filters) or ec2.describe_route_tables(
        filters={"vpc-id": [subnet.vpc_id], "association.main": ["true"]}
    )
    return [
        route for table in tables for route in table.routes if route.destination_cidr_block == "0.0.0.0/0"
    ]


def has_way_out(ec2: Any, subnet_id: str, *, public: bool) -> bool:
    """Whether a machine in this subnet reaches what is outside its network.

    A public address needs a route to an internet gateway; without one it takes a NAT gateway,
    a transit gateway, an instance that forwards, or the like.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-networking.html
    """
    routes = default_routes(ec2, subnet_id)
    if any(route.gateway is not None and public for route in routes):
        return True
    ways = ("nat_gateway", "transit_gateway", "instance", "interface", "vpc_pcx", "carrier_gateway")
    return any(getattr(route, way, None) is not None for route in routes for way in ways)


def endpoints(ec2: Any, subnet_id: str) -> set[str]:
    """The AWS services that this subnet's network reaches without any way out, such as `ssm`."""
    vpc = ec2.get_subnet(subnet_id).vpc_id
    return {
        endpoint.service_name.partition(f".{ec2.region_name}.")[2]
        for endpoint in ec2.vpc_end_points.values()
        if endpoint.vpc_id == vpc
    }
