"""What a cluster on EC2 settles before its first machine, and the launch template of its workers."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.config import listed
from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.images import default_image, require_architecture, require_image
from cloudprovider.providers import _aws_starts as starts
from cloudprovider.providers import _ec2_boot, _ec2_images, _ec2_types, _vm_boot
from cloudprovider.providers import _ec2_names as names
from cloudprovider.providers import _ec2_wire as wire
from cloudprovider.providers._aws_names import ROLES
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._ec2_plan import Plan, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._ec2_config import EC2Config
    from cloudprovider.providers._ec2_images import MachineImage
    from cloudprovider.providers._ec2_landing import Landing
    from cloudprovider.providers._ec2_types import Choice

__all__ = [
    "booting",
    "check_architectures",
    "check_image",
    "choose",
    "make_template",
    "planned",
    "refusal",
    "store",
]

#: Of several refusals the one that says most of what to do, and how they rank.
TELLING = (CredentialsError, QuotaError, CapacityError, ConfigError, CloudError)


def booting(config: EC2Config, boots: Sequence[Boot]) -> tuple[Boot, ...]:
    """The boots with their image and where their secret is, checked before any call."""
    made = [
        dataclasses.replace(
            boot, image="" if config.boot == "uv" else boot.image or default_image(), scheduler=None
        )
        for boot in boots
    ]
    made = [dataclasses.replace(boot, secret=_ec2_boot.secret(boot)) for boot in made]
    _ec2_boot.check(config, made)
    return tuple(made)


def check_image(config: EC2Config, boots: Sequence[Boot]) -> dict[str, frozenset[str] | None]:
    """Refuse a container image that its registry does not have; which architectures each is for."""
    images = [boot.image for boot in boots if boot.image]
    if config.autonomous:
        images.append(_vm_boot.image_of_manager(config))
    return {image: require_image(image) for image in dict.fromkeys(images)}


def check_architectures(
    choices: Mapping[str, Choice], boots: Sequence[Boot], known: Mapping[str, frozenset[str] | None]
) -> None:
    """Refuse a container image that is not for the machines that were chosen."""
    for boot in boots:
        if boot.image:
            choice = choices[boot.role]
            machines = f"machines like {choice.types[0].name}"
            require_architecture(boot.image, known[boot.image], choice.architecture, machines)


def choose(aws: AWS, config: EC2Config) -> tuple[dict[str, Choice], dict[str, MachineImage]]:
    """The instance types of each role, and the machine images they boot from."""
    known = (lambda: None) if config.ami else partial(_ec2_images.recommended, aws)
    choices, recommended = side_by_side([partial(_ec2_types.choose_all, aws, config), known])
    wanted = {role: (choice.architecture, choice.gpus > 0) for role, choice in choices.items()}
    images = _ec2_images.find_all(aws, config, set(wanted.values()), recommended)
    return choices, {role: images[kind] for role, kind in wanted.items()}


def planned(
    config: EC2Config,
    identity: Identity,
    landing: Landing,
    choices: Mapping[str, Choice],
    images: Mapping[str, MachineImage],
    boots: Sequence[Boot],
) -> Plan:
    """How the machines are made, and with how many workers each."""
    zones = _ec2_types.ranked_zones(choices, tuple(landing.network.roomiest))
    gpus = choices["worker"].gpus
    per_machine = config.workers_per_machine or max(1, gpus)
    settled = {
        boot.role: dataclasses.replace(boot, processes=per_machine) if boot.role == "worker" else boot
        for boot in boots
    }
    kinds = {role: kind_of(choices[role], images[role], zones, config.disk_size) for role in ROLES}
    return Plan(identity=identity, landing=landing, zones=zones, kinds=kinds, boots=settled)


def store(aws: AWS, config: EC2Config, identity: Identity, plan: Plan) -> None:
    """Keep the plan where any process finds it."""
    side_by_side(
        partial(starts.store, aws, config, identity, names.plan_part(part), text)
        for part, text in enumerate(plan.parts(config))
    )


def user_data(aws: AWS, config: EC2Config, identity: Identity, boot: Boot, plan: Plan) -> bytes:
    """What a machine is told at its first boot."""
    where: dict[str, Any] = {"region": aws.region, "log_group": plan.landing.log_group}
    return _ec2_boot.user_data(config, identity, boot, gpus=plan.kinds[boot.role].gpus, **where)


def make_template(
    aws: AWS, config: EC2Config, identity: Identity, boot: Boot, plan: Plan, token: str
) -> None:
    """Make the workers' launch template, unless another process has."""
    request = wire.launch_template_request(
        config,
        identity,
        boot,
        plan,
        user_data=user_data(aws, config, identity, boot, plan),
        token=token,
        tags=starts.cluster_tags(config, identity),
    )
    taken = ["InvalidLaunchTemplateName.AlreadyExistsException"]
    aws.call("ec2", "create_launch_template", fine=taken, **request)


def refusal(aws: AWS, answer: Mapping[str, Any], plan: Plan) -> CloudError:
    """Why a CreateFleet answer has fewer machines than were asked for: the most telling of its errors."""
    errors = [
        (aws.refusal("CreateFleet", code, message), pool)
        for code, message, pool in wire.refused_pools(answer, plan)
    ]
    if not errors:
        return CloudError("EC2 gave no reason.")
    error, _ = min(errors, key=lambda entry: _rank(entry[0]))
    pools = ", ".join(dict.fromkeys(pool for other, pool in errors if pool and type(other) is type(error)))
    return type(error)(f"{error} (Refused: {pools}.)" if pools else str(error))


def _rank(error: CloudError) -> int:
    return next(rank for rank, kind in enumerate(TELLING) if isinstance(error, kind))


def several_zones(config: EC2Config) -> bool:
    """Whether the user wants workers in more than the scheduler's zone."""
    return len(listed(config.zones)) > 1
