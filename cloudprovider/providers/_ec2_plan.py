"""How a cluster's machines on EC2 are made: settled before the first, and kept where any process finds it."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudruntime.boot import Boot

from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity
from cloudprovider.providers._aws_names import ROLES
from cloudprovider.providers._ec2_landing import Landing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._ec2_config import EC2Config
    from cloudprovider.providers._ec2_images import MachineImage
    from cloudprovider.providers._ec2_types import Choice

__all__ = ["Kind", "Plan", "kind_of"]

#: Characters of one parameter, and how many of them one call deletes beside the secrets.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
PART, PARTS = 8000, 6
#: What of the Config another process must know to order more machines like the first.
OPTIONS = (
    "autonomous", "boot", "disk_size", "instance_type", "key_name", "launch_template_args", "lock", "log_group", "public",
    "role", "scheduler_role", "spot", "ssm_access", "start_timeout", "tags", "tunnel", "user_data", "zones",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One role's machines.

    Parameters
    ----------
    types
        Names of instance types in order of preference.
    zones
        By type, the zones with a subnet of ours that have it.
    vcpu, gpus
        What the first type has.
    image, root_device
        What they boot from.
    disk_gib
        The size of their root volume.
    """

    types: tuple[str, ...]
    zones: Mapping[str, tuple[str, ...]]
    vcpu: int
    gpus: int
    image: str
    root_device: str
    disk_gib: int

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The kind that a document says."""
        zones = {name: tuple(some) for name, some in said["zones"].items()}
        return cls(**{**said, "types": tuple(said["types"]), "zones": zones})


def kind_of(choice: Choice, image: MachineImage, zones: Sequence[str], disk_size: int | None) -> Kind:
    """What the choice of types, the image and the network make together."""
    offered = choice.within(zones)
    return Kind(
        types=tuple(kind.name for kind in offered.types),
        zones={kind.name: tuple(z for z in zones if z in choice.zones[kind.name]) for kind in offered.types},
        vcpu=offered.types[0].vcpu,
        gpus=choice.gpus,
        image=image.id,
        root_device=image.root_device,
        disk_gib=disk_size or image.root_size_gib,
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a cluster's machines are made.

    Parameters
    ----------
    identity
        Whose they are.
    landing
        What the account has for them.
    zones
        Where they may be, the best first.
    kinds, boots
        By role.
    """

    identity: Identity
    landing: Landing
    zones: tuple[str, ...]
    kinds: Mapping[str, Kind]
    boots: Mapping[str, Boot]

    def pools(self, role: str) -> list[tuple[str, str]]:
        """Every instance type and zone for a role: all types in the best zone first."""
        kind = self.kinds[role]
        return [(name, zone) for zone in self.zones for name in kind.types if zone in kind.zones[name]]

    def parts(self, config: EC2Config) -> list[str]:
        """The plan and the options it was made with, as texts that each fit a parameter.

        Raises
        ------
        ConfigError
            When it is too large.
        """
        document = {
            "identity": dataclasses.asdict(self.identity),
            "landing": dataclasses.asdict(dataclasses.replace(self.landing, fresh=False)),
            "zones": self.zones,
            "kinds": {role: dataclasses.asdict(kind) for role, kind in self.kinds.items()},
            "boots": {role: boot.dumps() for role, boot in self.boots.items()},
            "options": {name: getattr(config, name) for name in OPTIONS},
        }
        text = json.dumps(document, separators=(",", ":"), sort_keys=True)
        # Not base85: a parameter may not hold "{{".
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) > PART * PARTS:
            raise ConfigError(
                f"environment=, user_data= and worker_options= make {len(packed)} characters together, more "
                f"than {PART * PARTS}: put large values into the image."
            )
        return [packed[start : start + PART] for start in range(0, len(packed), PART)]

    @classmethod
    def loads(cls, parts: Sequence[str]) -> tuple[Self, dict[str, Any]]:
        """The plan that such texts say, and the options it was made with."""
        said = json.loads(zlib.decompress(base64.b64decode("".join(parts))))
        plan = cls(
            identity=Identity(**said["identity"]),
            landing=Landing.loads(said["landing"]),
            zones=tuple(said["zones"]),
            kinds={role: Kind.loads(said["kinds"][role]) for role in ROLES},
            boots={role: Boot.loads(said["boots"][role]) for role in ROLES},
        )
        return plan, dict(said["options"])
