"""What a cluster on Compute Engine settles and owns before its first machine: its name, secrets, rule and plan."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import time
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError
from cloudprovider.images import default_image, require_architecture, require_image
from cloudprovider.providers import _gce_boot, _gce_images, _gce_types, _vm_boot
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._gce_plan import Plan, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity, Machine
    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gce_images import MachineImage
    from cloudprovider.providers._gce_landing import Landing
    from cloudprovider.providers._gce_types import Choice
    from cloudprovider.providers._gcp import GCP

__all__ = [
    "allow",
    "booting",
    "check_images",
    "choose",
    "claim",
    "make_rule",
    "planned",
    "store",
    "stored",
]

#: A name whose cluster has no machine is free again after this.
LEFT_S = 900.0
#: Tells who made a secret from others of the same owner, name and second.
MARK = "dask-mark"
#: The least time from now until a secret expires: https://cloud.google.com/secret-manager/docs/secret-expiration
EXPIRES_S = 90.0


def booting(gcp: GCP, config: GCPConfig, boots: Sequence[Boot]) -> tuple[Boot, ...]:
    """The boots with their image and where their secret is, checked before any call."""
    made = [
        dataclasses.replace(
            boot,
            image="" if config.boot == "uv" else boot.image or default_image(),
            scheduler=None,
            secret=_gce_boot.secret(gcp.project, boot.cluster),
        )
        for boot in boots
    ]
    _gce_boot.check(config, made)
    return tuple(made)


def check_images(config: GCPConfig, boots: Sequence[Boot]) -> dict[str, frozenset[str] | None]:
    """Refuse a container image that its registry does not have; which architectures each is for."""
    images = [boot.image for boot in boots if boot.image]
    if config.autonomous:
        images.append(_vm_boot.image_of_manager(config))
    return {image: require_image(image) for image in dict.fromkeys(images)}


def choose(
    gcp: GCP, config: GCPConfig, region: Callable[[], Any]
) -> tuple[dict[str, Choice], dict[str, MachineImage]]:
    """The machine types of each role, and the images they boot from."""
    zones = sorted(wire.last(zone) for zone in region().zones)
    choices = _gce_types.choose_all(gcp, config, zones)
    wanted = {role: choice.types[0].architecture for role, choice in choices.items()}
    images = _gce_images.find_all(gcp, config, sorted(set(wanted.values())))
    return choices, {role: images[architecture] for role, architecture in wanted.items()}


def planned(
    config: GCPConfig,
    identity: Identity,
    landing: Landing,
    choices: Mapping[str, Choice],
    images: Mapping[str, MachineImage],
    boots: Sequence[Boot],
    known: Mapping[str, frozenset[str] | None],
) -> Plan:
    """How the machines are made, and with how many workers each.

    Raises
    ------
    ConfigError
        When a container image is not for the machines that were chosen.
    """
    for boot in boots:
        first = choices[boot.role].types[0]
        if boot.image:
            machines = f"machines like {first.name}"
            require_architecture(boot.image, known[boot.image], first.architecture, machines)
    per_machine = config.workers_per_machine or max(1, choices["worker"].types[0].gpus)
    settled = {
        boot.role: dataclasses.replace(boot, processes=per_machine) if boot.role == "worker" else boot
        for boot in boots
    }
    kinds = {role: kind_of(choices[role], images[role], config, config.markets(role)) for role in names.ROLES}
    return Plan(identity=identity, landing=landing, kinds=kinds, boots=settled)


# -- the name and the secrets ------------------------------------------------------------------------------


def claim(
    gcp: GCP,
    config: GCPConfig,
    identity: Identity,
    secret: str,
    live: Callable[[str], Collection[Machine]],
    sweep: Callable[[], Any],
) -> None:
    """Take the cluster's name by making its client secret, which only one can.

    Parameters
    ----------
    gcp, config, identity, secret
        Whose it is to be.
    live
        The live machines of a cluster.
    sweep
        Removes what a cluster that died left under the name.

    Raises
    ------
    CloudError
        When there is a cluster of that name, or was until just now.
    """
    if _make(gcp, config, identity, "client", secret):
        return
    labels = _labels(gcp, identity.name)
    if labels.get(MARK) == _mark(secret):  # a retried call
        return
    owner, now = ledger.identity(labels), gcp.now()
    old = owner is not None and (owner.expires < now or owner.created < now - LEFT_S)
    if (labels and not old) or live(identity.name):
        raise _taken(identity.name, owner, gcp.project)
    sweep()
    if not _make(gcp, config, identity, "client", secret):
        raise _taken(identity.name, None, gcp.project)


def _taken(name: str, owner: Identity | None, project: str) -> CloudError:
    return CloudError(
        f"There is a cluster {name!r} in {project} already, of {owner.owner if owner else 'somebody'}. Attach "
        f"to it with from_name({name!r}), end it with `dask cloud sweep {name}`, or choose another name."
    )


def _mark(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:40]


def _path(gcp: GCP, cluster: str, whose: str) -> str:
    return f"projects/{gcp.project}/secrets/{names.secret(cluster, whose)}"


def _labels(gcp: GCP, cluster: str) -> dict[str, str]:
    """The labels of a cluster's client secret; none when it has just gone."""
    return dict(gcp.ask("secretmanager", "GET", _path(gcp, cluster, "client"), fine=[404]).get("labels", {}))


def _make(gcp: GCP, config: GCPConfig, identity: Identity, whose: str, secret: str) -> bool:
    """Make a secret without a value yet; whether there was none."""
    until = max(identity.expires, gcp.now() + EXPIRES_S)
    body = {
        "labels": {**wire.cluster_labels(config, identity), MARK: _mark(secret)},
        "replication": {"automatic": {}},
        "expireTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
    }
    named = names.secret(identity.name, whose)
    path = f"projects/{gcp.project}/secrets"
    return bool(gcp.ask("secretmanager", "POST", path, body, fine=[409], secretId=named))


def store(
    gcp: GCP, config: GCPConfig, identity: Identity, whose: str, value: str, *, made: bool = False
) -> None:
    """Store a secret under a name that is ours, made already or not."""
    if not made:
        _make(gcp, config, identity, whose, value)
    body = {"payload": {"data": base64.b64encode(value.encode()).decode()}}
    gcp.ask("secretmanager", "POST", f"{_path(gcp, identity.name, whose)}:addVersion", body)


def stored(gcp: GCP, cluster: str) -> str:
    """What a cluster's client secret holds; empty when there is no such cluster."""
    path = f"{_path(gcp, cluster, 'client')}/versions/latest:access"
    answer = gcp.ask("secretmanager", "GET", path, fine=[404])
    return base64.b64decode(answer["payload"]["data"]).decode() if answer else ""


# -- who may reach the scheduler -----------------------------------------------------------------------------


def make_rule(gcp: GCP, config: GCPConfig, identity: Identity, landing: Landing) -> Any:
    """Begin to make the firewall rule of the cluster's scheduler; None where nobody may reach it from outside."""
    if not (sources := wire.sources_of(config)):
        return None
    rule = _rule(config, identity, landing, sources)
    host = _host(gcp, config)
    made = gcp.change("firewalls", "insert", fine=[409], project=host, firewall_resource=rule)
    if made is None:  # a retried call
        allow(gcp, config, identity, landing, sources)
    return made


def allow(
    gcp: GCP, config: GCPConfig, identity: Identity, landing: Landing, sources: Collection[str]
) -> None:
    """Make the scheduler's rule let in exactly these CIDR blocks."""
    where: dict[str, Any] = {"project": _host(gcp, config)}
    name = names.firewall(identity.name)
    if not sources:
        gcp.done(gcp.change("firewalls", "delete", fine=[404], firewall=name, **where))
        return
    rule = _rule(config, identity, landing, sources)
    changed = gcp.change("firewalls", "patch", fine=[404], firewall=name, firewall_resource=rule, **where)
    gcp.done(changed or gcp.change("firewalls", "insert", firewall_resource=rule, **where))


def _rule(
    config: GCPConfig, identity: Identity, landing: Landing, sources: Collection[str]
) -> dict[str, Any]:
    name, about = names.firewall(identity.name), wire.described_as(wire.cluster_labels(config, identity))
    return wire.people_request(name, landing.network, about, name, sources)


def _host(gcp: GCP, config: GCPConfig) -> str:
    return config.host_project or gcp.project
