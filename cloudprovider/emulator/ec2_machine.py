"""One EC2 instance: what EC2 remembers of it, and how its API tells it."""

from __future__ import annotations

import functools
import time
import uuid
from typing import TYPE_CHECKING, Any

from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models.block_device import BlockDeviceMapping, BlockDeviceType
from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment
from moto.ec2.models.instances import (
    Instance,
    InstancePlacement,
    InstanceState,
    MetadataOptions,
    StateReason,
)
from moto.ec2.utils import random_instance_id, random_volume_id

from cloudprovider.emulator import ec2
from cloudprovider.emulator.wire import service_model
from cloudprovider.emulator.wire_xml import written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.ec2_orders import Order
    from cloudprovider.emulator.wire_xml import Written

#: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
LIVE = frozenset({"pending", "running"})
PRODUCT = "Linux/UNIX"

Document = dict[str, Any]


class LiveInstance(Instance):  # type: ignore[misc]
    """An instance that moto keeps, and that lives by `cloudprovider.emulator.ec2_life`.

    `life` ends and starts it when moto is asked to, such as by an Auto Scaling group.
    """

    life: Any

    def __init__(self, backend: Any, order: Order, reservation: str, index: int, client_token: str) -> None:
        self.ec2_backend = backend
        self.order = order
        self.reservation_id = reservation
        self.id = random_instance_id()
        self.owner_id = backend.account_id
        self.region_name = backend.region_name
        self.client_token = client_token
        self.ami_launch_index = index
        self.launch_time = utcnow()
        self.created = time.time()
        self._state = InstanceState("pending", 0)
        self._reason = ""
        self.state_reason = StateReason()
        self.lifecycle = "spot" if order.market == "spot" else None
        self._settle(order)
        # What only the emulator has of it.
        self.spot_request = f"sir-{uuid.uuid4().hex[:8]}" if order.market == "spot" else ""
        self.spot_cancelled = False
        self.guest: Any = None
        self.console: list[str] = []
        self.inside = True  # whether it has one, where the cloud's engine gives any
        self.rebooting = False
        self.ended: float | None = None
        self.notice: Document | None = None  # of an interruption: action and time
        self.rebalance = ""  # when a rebalance was recommended
        self.address = ""
        self.fragment: Written | None = None  # how the API tells it, as long as nothing changes

    def _settle(self, order: Order) -> None:
        """What moto asks of its instances."""
        given = order.given
        self.image_id = order.image.id
        self.instance_type = order.type
        self.architecture = order.image.architecture
        self.platform = order.image.platform
        self.virtualization_type = order.image.virtualization_type
        self.root_device_name = order.image.root_device_name
        self.root_device_type = "ebs"
        self.hypervisor = "xen"  # "The value xen is used for both Xen and Nitro hypervisors": API_Instance
        self.kernel = self.ramdisk = None
        self.kernel_id = "None"
        self.product_codes: list[str] = []
        self.user_data = Base64EncodedString(order.user_data) if order.user_data else None
        self.security_groups: list[Any] = []
        self.key_name = given.get("KeyName")
        self.ebs_optimized = given.get("EbsOptimized", False)
        monitored = (given.get("Monitoring") or {}).get("Enabled", False)
        self.monitoring_state = "enabled" if monitored else "disabled"
        self.source_dest_check = True
        self.disable_api_termination = given.get("DisableApiTermination", False)
        self.disable_api_stop = given.get("DisableApiStop", False)
        self.instance_initiated_shutdown_behavior = given.get("InstanceInitiatedShutdownBehavior", "stop")
        self.hibernation_options = given.get("HibernationOptions")
        self.sriov_net_support = "simple"
        self.metadata_options = MetadataOptions(_metadata_options(order))
        self.iam_instance_profile = (
            {"Arn": order.profile.arn, "Id": order.profile.id} if order.profile is not None else None
        )
        self._spot_fleet_id = self._fleet_id = None
        self._placement = InstancePlacement()
        self._private_ips: set[str] = set()
        self._subnet_id: str | None = None
        self.nics: dict[int, Any] = {}
        self.block_device_mapping = BlockDeviceMapping()
        self.associate_public_ip = False

    # -- what it has ---------------------------------------------------------------------------------

    @property
    def market(self) -> str:
        """`on-demand` or `spot`."""
        return self.order.market

    @property
    def runs(self) -> bool:
        """Whether it is switched on."""
        return bool(self.state == "running")

    @property
    def moment(self) -> InstanceState:
        """Its state, another object after each change."""
        return self._state

    @property
    def persistent(self) -> bool:
        """Whether it is a spot instance whose request outlives it."""
        options = (self.order.given.get("InstanceMarketOptions") or {}).get("SpotOptions") or {}
        return bool(options.get("SpotInstanceType") == "persistent")

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        found: Mapping[str, str] = self.ec2_backend.tags.get(self.id, {})
        return found

    @property
    def private_ip(self) -> str | None:
        """Its address; None when it is terminated."""
        return self.nics[0].private_ip_address if self.nics else None

    @property
    def private_ip_address(self) -> str | None:
        """Its address; None when it is terminated."""
        return self.private_ip

    @property
    def public_ip(self) -> str | None:
        """Its public address, if it has one now."""
        return self.nics[0].public_ip if self.nics else None

    @property
    def public_ip_address(self) -> str | None:
        """Its public address, if it has one now."""
        return self.public_ip

    @property
    def private_dns_name(self) -> str:
        """Its name within its network."""
        return hostname(self.region_name, self.private_ip)

    @property
    def metadata(self) -> Any:
        """How its metadata service is set."""
        return self.metadata_options

    # -- what moto asks of it ------------------------------------------------------------------------

    def start(self) -> InstanceState:
        """Start it, and tell which state it had."""
        return self.life.start(self)

    def stop(self) -> InstanceState:
        """Stop it, and tell which state it had."""
        return self.life.stop(self)

    def terminate(self) -> InstanceState:
        """Terminate it, and tell which state it had."""
        return self.life.terminate(self)

    def reboot(self) -> None:
        """Let its operating system begin again."""
        self.life.reboot(self)

    def __del__(self) -> None:
        """Keep its address: it is given back when it is terminated."""

    # -- its life ------------------------------------------------------------------------------------

    def enter(self, state: str, reason: str = "", code: str = "", message: str = "") -> InstanceState:
        """It is in another state from now on; tells which it was in."""
        before = self._state
        self._state = InstanceState(state, CODES[state])
        self._reason, self.state_reason = reason, StateReason(message, code)
        self.fragment = None
        return before

    def attach(self, subnet: Any, *, public: bool) -> None:
        """Give it its interfaces and volumes, which bear the order's tags.

        Raises
        ------
        ec2.NoFreeAddress
            When the subnet has no address left.
        """
        order, backend = self.order, self.ec2_backend
        interfaces = order.given.get("NetworkInterfaces") or [{"DeviceIndex": 0}]
        self._subnet_id, self._placement.zone = subnet.id, subnet.availability_zone
        for given in interfaces:
            index = int(given["DeviceIndex"])
            groups = given.get("Groups") or order.groups
            interface = ec2.attach_interface(
                backend, subnet.id, groups, given.get("Description", ""), public=public and not index
            )
            interface.requester_managed = False
            interface.public_ip_auto_assign = False
            interface.delete_on_termination = given.get("DeleteOnTermination", True)
            self.attach_eni(interface, index)
            _tag(backend, interface.id, order.tags.get("network-interface"))
        self.security_groups = list(self.nics[0]._group_set)
        self.associate_public_ip = public
        self.address = self.nics[0].private_ip_address
        for device in devices(order):
            self._add_volume(subnet, device)

    def _add_volume(self, subnet: Any, device: Mapping[str, Any]) -> None:
        backend, ebs = self.ec2_backend, device["Ebs"]
        zone = backend.get_zone_by_name(subnet.availability_zone)
        volume = Volume(
            backend,
            volume_id=random_volume_id(),
            size=ebs["VolumeSize"],
            zone=zone,
            encrypted=ebs.get("Encrypted", False),
            kms_key_id=_key(backend, ebs),
            volume_type=ebs["VolumeType"],
            iops=ebs.get("Iops", 3000 if ebs["VolumeType"] == "gp3" else None),
            throughput=ebs.get("Throughput", 125 if ebs["VolumeType"] == "gp3" else None),
        )
        backend.volumes[volume.id] = volume
        volume.attachment = VolumeAttachment(volume, self, device["DeviceName"], "attached")
        self.block_device_mapping[device["DeviceName"]] = BlockDeviceType(
            volume_id=volume.id,
            status="in-use",
            size=volume.size,
            attach_time=self.launch_time,
            delete_on_termination=ebs.get("DeleteOnTermination", True),
            volume_type=volume.volume_type,
        )
        _tag(backend, volume.id, self.order.tags.get("volume"))

    def release(self) -> None:
        """Give back what goes with it."""
        for interface in self.nics.values():
            if interface.delete_on_termination:
                ec2.release_interface(self.ec2_backend, interface)
            else:
                interface.instance, interface.attachment_id, interface.status = None, None, "available"
        self.nics = {}
        for mapping in self.block_device_mapping.values():
            volume = self.ec2_backend.volumes.get(mapping.volume_id)
            if volume is not None and mapping.delete_on_termination:
                del self.ec2_backend.volumes[volume.id]
            elif volume is not None:
                volume.attachment = None
        self.block_device_mapping = BlockDeviceMapping()
        self.security_groups = []
        self.fragment = None

    # -- how the API tells it ------------------------------------------------------------------------

    def told(self) -> Written:
        """The instance as DescribeInstances writes it."""
        if self.fragment is None:
            self.fragment = written(_shape("Instance"), self.describe(), "Instance")
        return self.fragment

    def describe(self) -> Document:
        """The instance as DescribeInstances tells it."""
        order, facts = self.order, self.order.facts
        document: Document = {
            "InstanceId": self.id,
            "ImageId": self.image_id,
            "State": {"Code": self.state_code, "Name": self.state},
            "PrivateDnsName": self.private_dns_name,
            "PublicDnsName": (self.public_dns_name or "") if self.state != "pending" else "",
            "StateTransitionReason": self._reason,
            "KeyName": self.key_name,
            "AmiLaunchIndex": self.ami_launch_index,
            "ProductCodes": [],
            "InstanceType": self.instance_type,
            "LaunchTime": self.launch_time,
            "Placement": {
                "AvailabilityZone": self._placement.zone,
                "GroupName": (order.given.get("Placement") or {}).get("GroupName", ""),
                "Tenancy": "default",
            },
            "Monitoring": {"State": self.monitoring_state},
            "Architecture": self.architecture,
            "BlockDeviceMappings": [
                {
                    "DeviceName": name,
                    "Ebs": {
                        "VolumeId": one.volume_id,
                        "Status": "attached",
                        "AttachTime": one.attach_time,
                        "DeleteOnTermination": one.delete_on_termination,
                    },
                }
                for name, one in self.block_device_mapping.items()
            ],
            "ClientToken": self.client_token,
            "CpuOptions": {
                "CoreCount": facts["VCpuInfo"].get("DefaultCores", 1),
                "ThreadsPerCore": facts["VCpuInfo"].get("DefaultThreadsPerCore", 1),
            },
            "EbsOptimized": self.ebs_optimized,
            "EnaSupport": True,
            "Hypervisor": self.hypervisor,
            "IamInstanceProfile": self.iam_instance_profile,
            "InstanceLifecycle": self.lifecycle,
            "SpotInstanceRequestId": self.spot_request or None,
            "RootDeviceName": self.root_device_name,
            "RootDeviceType": self.root_device_type,
            "VirtualizationType": self.virtualization_type,
            "PlatformDetails": PRODUCT,
            "UsageOperation": "RunInstances",
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }
        if self.state_reason.code:
            document["StateReason"] = {"Code": self.state_reason.code, "Message": self.state_reason.message}
        options = self.metadata_options
        document["MetadataOptions"] = {
            "State": "applied" if self.state != "pending" else "pending",
            "HttpTokens": options.http_tokens,
            "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
            "HttpEndpoint": options.http_endpoint,
            "HttpProtocolIpv6": options.http_protocol_ipv6,
            "InstanceMetadataTags": options.instance_metadata_tags,
        }
        return document | self._network()

    def _network(self) -> Document:
        """What is there as long as it is not terminated."""
        if not self.nics:
            return {"NetworkInterfaces": [], "SecurityGroups": []}
        first = self.nics[0]
        return {
            "PrivateIpAddress": first.private_ip_address,
            "PublicIpAddress": self._told(first),
            "SubnetId": first.subnet.id,
            "VpcId": first.subnet.vpc_id,
            "SourceDestCheck": self.source_dest_check,
            "SecurityGroups": _groups(self.security_groups),
            "NetworkInterfaces": [self._interface(one) for one in self.nics.values()],
        }

    def _told(self, interface: Any) -> str | None:
        """The public address of an interface, which nobody is told before the instance runs.

        "This name is not available until the instance enters the running state" is said of its public name:
        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html
        """
        return None if self.state == "pending" else interface.public_ip

    def _interface(self, one: Any) -> Document:
        name = hostname(self.region_name, one.private_ip_address)
        address: Document = {
            "Primary": True,
            "PrivateDnsName": name,
            "PrivateIpAddress": one.private_ip_address,
        }
        document: Document = {
            "Attachment": {
                "AttachTime": one.attach_time,
                "AttachmentId": one.attachment_id,
                "DeleteOnTermination": one.delete_on_termination,
                "DeviceIndex": one.device_index,
                "Status": "attached",
                "NetworkCardIndex": 0,
            },
            "Description": one.description,
            "Groups": _groups(one.group_set),
            "Ipv6Addresses": [],
            "MacAddress": one.mac_address,
            "NetworkInterfaceId": one.id,
            "OwnerId": self.owner_id,
            "PrivateDnsName": name,
            "PrivateIpAddress": one.private_ip_address,
            "PrivateIpAddresses": [address],
            "SourceDestCheck": one.source_dest_check,
            "Status": "in-use",
            "SubnetId": one.subnet.id,
            "VpcId": one.subnet.vpc_id,
            "InterfaceType": "interface",
        }
        if public := self._told(one):
            association = {
                "IpOwnerId": "amazon",
                "PublicDnsName": self.public_dns_name or "",
                "PublicIp": public,
            }
            document["Association"] = address["Association"] = association
        return document


def hostname(region: str, address: str | None) -> str:
    """The name of an address within its network; empty without one."""
    if not address:
        return ""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def devices(order: Order) -> list[Document]:
    """The volumes of an instance: the image's root, changed as the order says, and what the order adds."""
    size, kind = order.image.root_volume
    root = order.image.root_device_name
    found: dict[str, Document] = {root: {"DeviceName": root, "Ebs": {"VolumeSize": size, "VolumeType": kind}}}
    for given in order.given.get("BlockDeviceMappings") or []:
        name = given["DeviceName"]
        if "NoDevice" in given:
            found.pop(name, None)
        elif "Ebs" in given:
            before = found.get(name, {"Ebs": {"VolumeSize": 8, "VolumeType": "gp2"}})
            found[name] = {"DeviceName": name, "Ebs": {**before["Ebs"], **given["Ebs"]}}
    return list(found.values())


def _metadata_options(order: Order) -> Document:
    """How the metadata service is set: an image that supports IMDSv2 only makes tokens required.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
    """
    own = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2} if order.image.imds_support else {}
    return {**own, **(order.given.get("MetadataOptions") or {})}


def _groups(groups: Any) -> list[Document]:
    return [{"GroupId": group.id, "GroupName": group.name} for group in groups]


def _key(backend: Any, ebs: Mapping[str, Any]) -> str | None:
    if not ebs.get("Encrypted"):
        return None
    if not ebs.get("KmsKeyId") and not backend.default_kms_key_id:
        backend._create_default_encryption_key()
    return str(ebs.get("KmsKeyId") or backend.default_kms_key_id)


def _tag(backend: Any, id: str, tags: Mapping[str, str] | None) -> None:
    if tags:
        backend.tags[id].update(tags)


@functools.cache
def _shape(name: str) -> Any:
    model = service_model("ec2")
    assert model is not None
    return model.shape_for(name)
