"""How a cluster's machines on Compute Engine are made: settled before the first, and kept where any process finds it."""

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
from cloudprovider.providers._gce_landing import Landing
from cloudprovider.providers._gce_names import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gce_images import MachineImage
    from cloudprovider.providers._gce_types import Choice

__all__ = ["Kind", "Plan", "kind_of"]

#: Of one version of a secret: https://cloud.google.com/secret-manager/quotas
MAX_SECRET = 65_536
#: What of the Config another process must know to order more machines like the first.
OPTIONS = (
    "boot", "disk_size", "disk_type", "gpu", "gpu_type", "host_project", "instance_args", "instance_type", "lock",
    "machine_image", "network", "os_login", "public", "service_account", "spot", "start_timeout", "subnetwork", "tags",
    "tunnel", "user_data", "zones",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One role's machines.

    Parameters
    ----------
    types
        Names of machine types in order of preference.
    zones
        By type, the zones that have it.
    vcpu
        What the first type has.
    gpus, gpu_name
        How many GPUs, and which.
    attached
        Whether an order asks for them, beside its type.
    image
        What they boot from.
    disk_gib, disk_type
        The size of their boot disk, and its type.
    usage
        By market, what one of them counts against the region's quotas.
    """

    types: tuple[str, ...]
    zones: Mapping[str, tuple[str, ...]]
    vcpu: int
    image: str
    disk_gib: int
    disk_type: str
    gpus: int = 0
    gpu_name: str = ""
    attached: bool = False
    own_image: bool = False
    usage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def accelerators(self) -> dict[str, int]:
        """How many of which accelerators an order asks for."""
        return {self.gpu_name: self.gpus} if self.attached else {}

    def shares(self, market: str, limits: Mapping[str, float]) -> Mapping[str, float]:
        """What one of them counts against the region's quotas, of which these are the limits.

        Spot VMs count as others do until a project has been given quotas for them, which are 0 before.
        """
        # https://cloud.google.com/compute/docs/instances/spot#quotas
        own = self.usage.get(market, {})
        return own if any(limits.get(metric) for metric in own) else self.usage.get("on-demand", own)

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The kind that a document says."""
        zones = {name: tuple(some) for name, some in said["zones"].items()}
        return cls(**{**said, "types": tuple(said["types"]), "zones": zones})


def kind_of(choice: Choice, image: MachineImage, config: GCPConfig, markets: Sequence[str]) -> Kind:
    """What the choice of types, the image and the options make together."""
    from cloudprovider.providers._gce_types import quotas_of

    wanted = listed(config.zones)
    zones = {
        kind.name: tuple(one for one in wanted or choice.zones[kind.name] if one in choice.zones[kind.name])
        for kind in choice.types
    }
    first = next((kind for kind in choice.types if zones[kind.name]), choice.types[0])
    return Kind(
        types=tuple(name for name, some in zones.items() if some),
        zones=zones,
        vcpu=first.vcpu,
        gpus=first.gpus,
        gpu_name=first.gpu_name,
        attached=first.attached,
        image=image.id,
        own_image=image.own,
        disk_gib=max(config.disk_size or 0, image.root_size_gib),
        disk_type=config.disk_type or first.boot_disk,
        usage={market: quotas_of(first, market) for market in dict.fromkeys((*markets, "on-demand"))},
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a cluster's machines are made.

    Parameters
    ----------
    identity
        Whose they are.
    landing
        What the project has for them.
    kinds, boots
        By role.
    """

    identity: Identity
    landing: Landing
    kinds: Mapping[str, Kind]
    boots: Mapping[str, Boot]

    def pools(self, role: str) -> list[tuple[str, str]]:
        """Every machine type and zone for a role: the first type in all its zones first."""
        kind = self.kinds[role]
        return [(name, zone) for name in kind.types for zone in kind.zones[name]]

    def dumps(self, config: GCPConfig, client: str) -> str:
        """The client's secret, and with it the plan and the options it was made with.

        Raises
        ------
        ConfigError
            When it is larger than a secret may be.
        """
        document = {
            "identity": dataclasses.asdict(self.identity),
            "landing": dataclasses.asdict(dataclasses.replace(self.landing, fresh=False)),
            "kinds": {role: dataclasses.asdict(kind) for role, kind in self.kinds.items()},
            "boots": {role: boot.dumps() for role, boot in self.boots.items()},
            "options": {name: getattr(config, name) for name in OPTIONS},
        }
        text = json.dumps(document, separators=(",", ":"), sort_keys=True)
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        whole = json.dumps({"client": client, "plan": packed})
        if len(whole) > MAX_SECRET:
            raise ConfigError(
                f"environment=, user_data= and worker_options= make a secret of {len(whole)} bytes, more than "
                f"Secret Manager's {MAX_SECRET}: put large values into the image."
            )
        return whole

    @classmethod
    def loads(cls, secret: str) -> tuple[Self, dict[str, Any], str]:
        """The plan in such a secret, the options it was made with, and the client's own part."""
        stored = json.loads(secret)
        said = json.loads(zlib.decompress(base64.b64decode(stored["plan"])))
        plan = cls(
            identity=Identity(**said["identity"]),
            landing=Landing.loads(said["landing"]),
            kinds={role: Kind.loads(said["kinds"][role]) for role in ROLES},
            boots={role: Boot.loads(said["boots"][role]) for role in ROLES},
        )
        return plan, dict(said["options"]), str(stored["client"])
