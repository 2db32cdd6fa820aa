"""What an order of EC2 instances asks for: the call's parameters over its launch template's, checked."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.ec2_errors import combination, invalid, missing
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USER_DATA = (
    16384  # raw bytes: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
)
DEFAULT_TYPE = "m1.small"
VERSIONS = {"$Latest": "latest_version", "$Default": "default_version"}
#: Parameters that a launch template and a call must agree on by name, and those that a call's value replaces.
APART = ("SubnetId", "SecurityGroupIds", "SecurityGroups", "PrivateIpAddress")
ARCHITECTURES = (
    "The architecture '{kind}' of the specified instance type does not match the architecture '{image}' of the "
    "specified AMI. Specify an instance type and an AMI that have matching architectures, and try again. You can "
    "use 'describe-instance-types' or 'describe-images' to discover the architecture of the instance type or AMI."
)

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Instances of one kind, wherever they will be.

    Parameters
    ----------
    image
        Of moto: the machine image.
    type
        The instance type.
    facts
        What DescribeInstanceTypes tells of it.
    given
        All parameters, in the names of RunInstances.
    subnet, zone
        Where; empty where it is open.
    groups
        Ids of the security groups; empty for the network's default one.
    market
        `on-demand` or `spot`.
    profile
        Of moto: the instance profile; None for none.
    user_data
        In base64, as given.
    tags
        By resource type.
    template
        Id and version number of the launch template; None without one.
    """

    image: Any
    type: str
    facts: Mapping[str, Any]
    given: Document
    subnet: str
    zone: str
    groups: tuple[str, ...]
    market: str
    profile: Any
    user_data: str = ""
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    template: tuple[str, int] | None = None

    @property
    def vcpus(self) -> int:
        """Of one instance."""
        return int(self.facts["VCpuInfo"]["DefaultVCpus"])


def template_version(backend: Any, given: Mapping[str, Any]) -> Any:
    """The version of a launch template that a specification means."""
    id, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    if id and name:
        raise combination("The launch template ID and the launch template name may not both be specified.")
    if not id and not name:
        raise missing("LaunchTemplateId or LaunchTemplateName")
    template = find_template(backend, id, name)
    wanted = str(given.get("Version", "$Default"))
    if wanted in VERSIONS:
        return getattr(template, VERSIONS[wanted])()
    for version in template.versions:
        if str(version.number) == wanted:
            return version
    raise AWSError(
        "InvalidLaunchTemplateId.VersionNotFound",
        f"Could not find the specified version {wanted} for the launch template with ID {template.id}.",
    )


def find_template(backend: Any, id: str | None, name: str | None) -> Any:
    """A launch template by its id or its name."""
    if id:
        if template := backend.launch_templates.get(id):
            return template
        raise AWSError(
            "InvalidLaunchTemplateId.NotFound",
            f"The specified launch template, with template ID {id}, does not exist.",
        )
    if template := backend.launch_templates.get(backend.launch_template_name_to_ids.get(name)):
        return template
    raise AWSError(
        "InvalidLaunchTemplateName.NotFoundException",
        f"The specified launch template, with template name {name}, does not exist.",
    )


def merged(backend: Any, given: Mapping[str, Any]) -> tuple[Document, tuple[str, int] | None]:
    """The parameters of an order with its launch template's below them, and which template that was."""
    if "LaunchTemplate" not in given:
        return dict(given), None
    version = template_version(backend, given["LaunchTemplate"])
    own = {name: value for name, value in version.data.items() if value is not None}
    interfaces = given.get("NetworkInterfaces") or own.get("NetworkInterfaces")
    if interfaces and not given.get("NetworkInterfaces") and any(name in given for name in APART):
        interfaces = [_placed(interfaces[0], given), *interfaces[1:]]
        given = {name: value for name, value in given.items() if name not in APART}
    tags = [*own.get("TagSpecifications", []), *given.get("TagSpecifications", [])]
    both: Document = {**own, **given, "TagSpecifications": tags}
    for name in ("MetadataOptions", "Placement"):
        if name in own and name in given:
            both[name] = {**own[name], **given[name]}
    if interfaces:
        both["NetworkInterfaces"] = interfaces
    if "BlockDeviceMappings" in own and "BlockDeviceMappings" in given:
        devices = {one["DeviceName"]: one for one in own["BlockDeviceMappings"]}
        devices |= {one["DeviceName"]: one for one in given["BlockDeviceMappings"]}
        both["BlockDeviceMappings"] = list(devices.values())
    return both, (version.template.id, version.number)


def _placed(interface: Mapping[str, Any], given: Mapping[str, Any]) -> Document:
    """A template's interface in the subnet that an override names."""
    changes = {"SubnetId": given.get("SubnetId"), "Groups": given.get("SecurityGroupIds")}
    return {**interface, **{name: value for name, value in changes.items() if value}}


def order(backend: Any, given: Mapping[str, Any], fresh_s: float = 0.0) -> Order:
    """What a call of RunInstances orders.

    Parameters
    ----------
    backend
        moto's, of the region.
    given
        The call's parameters.
    fresh_s
        How old an instance profile must be before EC2 knows it.
    """
    both, template = merged(backend, given)
    image = _image(backend, both)
    name = both.get("InstanceType", DEFAULT_TYPE)
    facts = type_facts(name)
    _check_architecture(image, facts)
    _check_key(backend, both.get("KeyName"))
    interface = _interface(both)
    return Order(
        image=image,
        type=name,
        facts=facts,
        given=both,
        subnet=interface.get("SubnetId") or both.get("SubnetId", ""),
        zone=(both.get("Placement") or {}).get("AvailabilityZone", ""),
        groups=_groups(backend, both, interface),
        market=_market(both, facts),
        profile=_profile(backend, both.get("IamInstanceProfile"), fresh_s),
        user_data=checked_user_data(both.get("UserData")),
        tags=tags_by_type(both.get("TagSpecifications", [])),
        template=template,
    )


def type_facts(name: str) -> Mapping[str, Any]:
    """What is known of an instance type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    if name not in INSTANCE_TYPES:
        raise invalid(f"Invalid value '{name}' for InstanceType.")
    facts: Mapping[str, Any] = INSTANCE_TYPES[name]
    return facts


def _image(backend: Any, both: Mapping[str, Any]) -> Any:
    id = both.get("ImageId", "")
    if not id:
        raise missing("ImageId")
    if id.startswith("resolve:ssm:"):
        id = _resolved(backend, id.removeprefix("resolve:ssm:"))
    if not id.startswith("ami-"):
        raise AWSError("InvalidAMIID.Malformed", f'Invalid id: "{id}" (expecting "ami-...")')
    image = backend.amis.get(id)
    if image is None:
        raise AWSError("InvalidAMIID.NotFound", f"The image id '[{id}]' does not exist")
    if image.state != "available":
        raise AWSError("InvalidAMIID.Unavailable", f"The image ID '{id}' is not available")
    return image


def _resolved(backend: Any, name: str) -> str:
    from moto.ssm import ssm_backends

    found = ssm_backends[backend.account_id][backend.region_name].get_parameters([name])
    if not found:
        raise invalid(f"The parameter {name} of Systems Manager Parameter Store does not exist.")
    return str(next(iter(found.values())).value)


def _check_architecture(image: Any, facts: Mapping[str, Any]) -> None:
    known = facts["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in known:
        kind = next((one for one in known if one != "i386"), known[0])
        raise invalid(ARCHITECTURES.format(kind=kind, image=image.architecture))


def _check_key(backend: Any, name: str | None) -> None:
    if name and name not in backend.key_pairs:
        raise AWSError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")


def _interface(both: Mapping[str, Any]) -> Mapping[str, Any]:
    """The primary interface that is asked for."""
    interfaces: Sequence[Mapping[str, Any]] = both.get("NetworkInterfaces") or []
    if not interfaces:
        return {}
    head = "Network interfaces and an instance-level"
    if both.get("SubnetId"):
        raise combination(f"{head} subnet ID may not be specified on the same request")
    if both.get("SecurityGroupIds") or both.get("SecurityGroups"):
        raise combination(f"{head} security groups may not be specified on the same request")
    for one in interfaces:
        if "DeviceIndex" not in one:
            raise invalid("Each network interface requires a device index.")
    return min(interfaces, key=lambda one: int(one["DeviceIndex"]))


def _groups(backend: Any, both: Mapping[str, Any], interface: Mapping[str, Any]) -> tuple[str, ...]:
    ids = interface.get("Groups") or both.get("SecurityGroupIds") or []
    for id in ids:
        if backend.get_security_group_from_id(id) is None:
            raise AWSError("InvalidGroup.NotFound", f"The security group '{id}' does not exist")
    named = []
    for name in both.get("SecurityGroups") or []:
        group = backend.get_security_group_by_name_or_id(name)
        if group is None:
            raise AWSError(
                "InvalidGroup.NotFound", f"The security group '{name}' does not exist in default VPC"
            )
        named.append(group.id)
    return (*ids, *named)


def _market(both: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    options = both.get("InstanceMarketOptions") or {}
    kind = options.get("MarketType", "")
    if kind not in ("", "spot"):
        raise invalid(f"The emulated EC2 has no market {kind}.")
    if not kind:
        return "on-demand"
    if "spot" not in facts["SupportedUsageClasses"]:
        raise invalid(f"The instance type {facts['InstanceType']} is not available as a Spot Instance.")
    spot = options.get("SpotOptions") or {}
    if spot.get("InstanceInterruptionBehavior", "terminate") != "terminate" and (
        spot.get("SpotInstanceType") != "persistent"
    ):
        raise invalid(
            "The interruption behaviors stop and hibernate need a persistent Spot Instance request."
        )
    return "spot"


def _profile(backend: Any, given: Mapping[str, Any] | None, fresh_s: float) -> Any:
    if not given:
        return None
    arn, name = given.get("Arn"), given.get("Name")
    profile = roles.profile(backend.account_id, arn, name)
    if profile is None:
        raise _no_profile(arn, name)
    if time.time() - profile.create_date.replace(tzinfo=dt.UTC).timestamp() < fresh_s:
        raise _no_profile(arn, name)
    if not profile.roles:
        raise invalid(f'IAM Instance Profile "{profile.arn}" has no associated IAM Roles')
    return profile


def _no_profile(arn: str | None, name: str | None) -> AWSError:
    what, word = ("arn", "ARN") if arn else ("name", "name")
    return invalid(
        f"Value ({arn or name}) for parameter iamInstanceProfile.{what} is invalid. "
        f"Invalid IAM Instance Profile {word}"
    )


def checked_user_data(given: Any) -> str:
    """User data in base64, as given.

    Raises
    ------
    AWSError
        When it is no base64, or too long.
    """
    text = str(given or "")
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise invalid("Invalid BASE64 encoding of user data.") from error
    if len(raw) > USER_DATA:
        raise invalid(f"User data is limited to {USER_DATA} bytes")
    return text


def tags_by_type(specifications: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Tags by the type of resource that they are for."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for one in specifications:
        found[one.get("ResourceType", "")] |= {
            tag["Key"]: tag.get("Value", "") for tag in one.get("Tags", [])
        }
    return dict(found)
