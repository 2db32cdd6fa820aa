"""How a cluster's machines on Azure are made: settled before the first, and kept where any process finds it."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloudruntime.boot import Boot

from cloudprovider.config import listed
from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity
from cloudprovider.providers._azure_landing import Landing
from cloudprovider.providers._azure_names import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._azure_config import AzureVMConfig
    from cloudprovider.providers._azure_images import MachineImage
    from cloudprovider.providers._azure_types import Choice

__all__ = ["PARTS", "Kind", "Plan", "kind_of"]

#: Characters of one secret, and into how many a plan may be cut.
# https://learn.microsoft.com/azure/key-vault/secrets/about-secrets
PART, PARTS = 25_000, 5
#: What of the Config another process must know to order more machines like the first.
OPTIONS = (
    "boot", "disk_type", "ephemeral_os_disk", "instance_type", "lock", "machine_identity", "public", "region",
    "resource_group", "security_group", "spot", "ssh_key", "start_timeout", "subscription", "tags", "tunnel",
    "user_data", "vm_args", "zones",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One role's machines.

    Parameters
    ----------
    types
        Names of sizes in order of preference.
    zones
        By size, the zones it may be in; empty where they are Azure's to choose.
    ephemeral
        By size, on which storage of the machine's own its OS disk is; sizes without room for it are not in it.
    accelerated
        The sizes whose network interface may be accelerated.
    quotas
        By market, and by name of a usage, how many cores of it one machine takes.
    gpus
        How many it has.
    image, plan
        What it boots from.
    disk_gib
        The size of its OS disk.
    """

    types: tuple[str, ...]
    zones: Mapping[str, tuple[str, ...]]
    ephemeral: Mapping[str, str]
    accelerated: tuple[str, ...]
    quotas: Mapping[str, Mapping[str, int]]
    gpus: int
    image: Mapping[str, str]
    disk_gib: int
    plan: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The kind that a document says."""
        zones = {name: tuple(some) for name, some in said["zones"].items()}
        lists = {name: tuple(said[name]) for name in ("types", "accelerated")}
        return cls(**{**said, **lists, "zones": zones})


def kind_of(config: AzureVMConfig, choice: Choice, image: MachineImage, markets: Sequence[str]) -> Kind:
    """What the choice of sizes and the image make together."""
    from cloudprovider.providers._azure_types import quotas_of

    disk_gib = config.disk_size or image.root_size_gib
    places = {size.name: size.placement(disk_gib) for size in choice.types if config.ephemeral_os_disk}
    wanted = listed(config.zones)
    return Kind(
        types=tuple(size.name for size in choice.types),
        zones={
            size.name: tuple(zone for zone in wanted if zone in choice.zones[size.name])
            for size in choice.types
        },
        ephemeral={name: place for name, place in places.items() if place},
        accelerated=tuple(size.name for size in choice.types if size.accelerated),
        quotas={market: quotas_of(choice.types[0], market) for market in markets},
        gpus=choice.types[0].gpus,
        image=image.reference,
        disk_gib=disk_gib,
        plan=image.plan,
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a cluster's machines are made.

    Parameters
    ----------
    identity
        Whose they are.
    landing
        What the resource group has for them.
    key
        The public key of whoever may log in.
    kinds, boots
        By role.
    """

    identity: Identity
    landing: Landing
    key: str
    kinds: Mapping[str, Kind]
    boots: Mapping[str, Boot]

    def parts(self, config: AzureVMConfig) -> list[str]:
        """The plan and the options it was made with, as texts that each fit a secret.

        Raises
        ------
        ConfigError
            When it is too large.
        """
        document = {
            "identity": dataclasses.asdict(self.identity),
            "landing": dataclasses.asdict(self.landing),
            "key": self.key,
            "kinds": {role: dataclasses.asdict(kind) for role, kind in self.kinds.items()},
            "boots": {role: boot.dumps() for role, boot in self.boots.items()},
            "options": {name: getattr(config, name) for name in OPTIONS},
        }
        text = json.dumps(document, separators=(",", ":"), sort_keys=True)
        packed = base64.b85encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) > PART * PARTS:
            raise ConfigError(
                f"environment=, user_data= and worker_options= make {len(packed)} characters together, more "
                f"than {PART * PARTS}: put large values into the image."
            )
        return [packed[start : start + PART] for start in range(0, len(packed), PART)]

    @classmethod
    def loads(cls, parts: Sequence[str]) -> tuple[Self, dict[str, Any]]:
        """The plan that such texts say, and the options it was made with."""
        said = json.loads(zlib.decompress(base64.b85decode("".join(parts))))
        plan = cls(
            identity=Identity(**said["identity"]),
            landing=Landing.loads(said["landing"]),
            key=said["key"],
            kinds={role: Kind.loads(said["kinds"][role]) for role in ROLES},
            boots={role: Boot.loads(said["boots"][role]) for role in ROLES},
        )
        return plan, dict(said["options"])
