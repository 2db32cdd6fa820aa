"""What Compute Engine is told and what it answers: pure builders of requests, pure parsers of answers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.provider import FRONT_PORT, SCHEDULER_PORT, Machine, State
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers._gce_boot import METADATA

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gce_plan import Plan

# https://cloud.google.com/compute/docs/instances/instance-lifecycle
STATES = {
    "DEPROVISIONING": State.gone,
    "PENDING": State.starting,
    "PENDING_STOP": State.running,
    "PROVISIONING": State.starting,
    "REPAIRING": State.running,
    "RUNNING": State.running,
    "STAGING": State.starting,
    "STOPPING": State.gone,
    # Nothing runs on it any more, but its disk bills: whoever sees it deletes it.
    "STOPPED": State.gone,
    "SUSPENDED": State.gone,
    "SUSPENDING": State.gone,
    "TERMINATED": State.gone,
}
#: Machines that are gone, and yet there.
POWERED_OFF = frozenset({"STOPPED", "SUSPENDED", "TERMINATED"})
#: Statuses of machines whose resources have been found.
FOUND = frozenset({"STAGING", "RUNNING"})
#: Secret Manager takes no narrower one; what a machine may do then is what its service account's roles say.
# https://cloud.google.com/secret-manager/docs/access-secret-version
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
#: Where connections through IAP come from: https://cloud.google.com/iap/docs/using-tcp-forwarding
IAP = "35.235.240.0/20"
#: What maxRunDuration may be, in seconds: https://cloud.google.com/compute/docs/instances/limit-vm-runtime
SHORTEST_S, LONGEST_S = 30, 120 * 86400
#: Machines on one page of a list.
PAGE = 500
SERVICE = "gce"
#: The priority of the rule that closes machines to the world; rules have 1,000 unless they say otherwise.
CLOSED = 2000


def cluster_labels(config: GCPConfig, identity: Identity) -> dict[str, str]:
    """The labels of what a cluster owns for all its machines."""
    return ledger.for_cluster(identity, {**config.tags, ledger.SERVICE: SERVICE})


def machine_labels(config: GCPConfig, identity: Identity, boot: Boot) -> dict[str, str]:
    """The labels of one role's machines and of their disks."""
    extra = {**config.tags, ledger.SERVICE: SERVICE}
    return ledger.for_machine(identity, boot.role, boot.group, extra)


def properties(
    config: GCPConfig,
    identity: Identity,
    boot: Boot,
    plan: Plan,
    *,
    market: str,
    user_data: bytes,
    now: float,
) -> dict[str, Any]:
    """What insert and bulkInsert say of a machine in the same words.

    Parameters
    ----------
    config, identity, boot, plan
        What runs how, and whose it is.
    market
        `on-demand` or `spot`.
    user_data
        As the machine is to read it.
    now
        Seconds since the epoch.
    """
    kind, labels = plan.kinds[boot.role], machine_labels(config, identity, boot)
    account = plan.landing.scheduler if boot.role == "scheduler" else plan.landing.account
    known = {
        **METADATA,
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "TRUE" if config.os_login else "FALSE",
        "user-data": user_data.decode(),
    }
    image = {"source_image": kind.image, "disk_size_gb": kind.disk_gib, "disk_type": kind.disk_type}
    gpus = [
        {"accelerator_type": name, "accelerator_count": count} for name, count in kind.accelerators.items()
    ]
    return {
        **config.instance_args,
        "labels": labels,
        "tags": {"items": network_tags(identity.name, boot.role)},
        "metadata": {"items": [{"key": key, "value": value} for key, value in known.items()]},
        "disks": [{"boot": True, "auto_delete": True, "initialize_params": {**image, "labels": labels}}],
        "network_interfaces": [_interface(config, boot, plan)],
        "service_accounts": [{"email": account, "scopes": [*SCOPES]}],
        "scheduling": _scheduling(identity, market, still=kind.gpus > 0, now=now),
        # A driver that is not Google's own may be unsigned.
        "shielded_instance_config": {
            "enable_secure_boot": not (kind.own_image and kind.gpus),
            "enable_vtpm": True,
            "enable_integrity_monitoring": True,
        },
        **({"guest_accelerators": gpus} if gpus else {}),
    }


def network_tags(cluster: str, role: str) -> list[str]:
    """The network tags of one role's machines."""
    return [names.TAG, names.firewall(cluster)] if role == "scheduler" else [names.TAG]


def is_outside(config: GCPConfig, role: str, *, nat: bool) -> bool:
    """Whether a role's machines have an address that the world can see: `nat` is another way out."""
    return config.public and (role == "scheduler" or not nat)


def _interface(config: GCPConfig, boot: Boot, plan: Plan) -> dict[str, Any]:
    """Where a machine's address is; workers have one outside only where there is no other way out."""
    landing = plan.landing
    outside = is_outside(config, boot.role, nat=landing.nat)
    configs = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}] if outside else []
    where = {"network": landing.network}
    if landing.subnetwork:
        where["subnetwork"] = landing.subnetwork
    return {**where, **({"access_configs": configs} if configs else {})}


def _scheduling(identity: Identity, market: str, *, still: bool, now: float) -> dict[str, Any]:
    """How a machine ends: whatever ends it deletes it, with its disk.

    Parameters
    ----------
    identity
        Says when it must have ended.
    market
        `on-demand` or `spot`.
    still
        Whether it cannot be moved while it runs: those with GPUs cannot, nor those on spot.
    now
        Seconds since the epoch.
    """
    left = min(LONGEST_S, max(SHORTEST_S, round(identity.expires - now)))
    return {
        "provisioning_model": "SPOT" if market == "spot" else "STANDARD",
        "instance_termination_action": "DELETE",
        "max_run_duration": {"seconds": left},
        "automatic_restart": False,
        "on_host_maintenance": "TERMINATE" if still or market == "spot" else "MIGRATE",
    }


def insert_request(name: str, pool: tuple[str, str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The insert that starts one machine of a type in a zone.

    Parameters
    ----------
    name
        What it is called.
    pool
        The machine type and the zone.
    properties
        What `properties` makes.
    """
    kind, zone = pool
    [disk] = properties["disks"]
    image = {
        **disk["initialize_params"],
        "disk_type": f"zones/{zone}/diskTypes/{disk['initialize_params']['disk_type']}",
    }
    gpus = [
        {**gpu, "accelerator_type": f"zones/{zone}/acceleratorTypes/{gpu['accelerator_type']}"}
        for gpu in properties.get("guest_accelerators", ())
    ]
    return {
        "zone": zone,
        "instance_resource": {
            **properties,
            "name": name,
            "machine_type": f"zones/{zone}/machineTypes/{kind}",
            "disks": [{**disk, "initialize_params": image}],
            **({"guest_accelerators": gpus} if gpus else {}),
        },
    }


def bulk_request(
    machines: Sequence[str],
    kind: str,
    zones: Sequence[str],
    properties: Mapping[str, Any],
    there: Sequence[str] = (),
) -> dict[str, Any]:
    """The bulkInsert that starts up to 1,000 machines of a type: in a zone, or wherever in a region there is room.

    Parameters
    ----------
    machines
        What they are called: as many as there are to be. Some are better than none.
    kind, zones
        The machine type, and where it may be.
    properties
        What `properties` makes.
    there
        All zones of the region: those that are not denied are allowed.
    """
    resource: dict[str, Any] = {
        "count": len(machines),
        "min_count": 1,
        "per_instance_properties": {name: {} for name in machines},
        "instance_properties": {**properties, "machine_type": kind},
    }
    if len(zones) == 1:
        return {"zone": zones[0], "bulk_insert_instance_resource_resource": resource}
    preference = {zone: "ALLOW" if zone in zones else "DENY" for zone in (*there, *zones)}
    locations = {f"zones/{zone}": {"preference": word} for zone, word in preference.items()}
    resource["location_policy"] = {"locations": locations, "target_shape": "ANY"}
    return {"bulk_insert_instance_resource_resource": resource}


def _rule(name: str, network: str, description: str, to: str, **more: Any) -> dict[str, Any]:
    """What all firewall rules have in common; `to` is the network tag of the machines they are for."""
    rule = {"name": name, "network": network, "description": description, "direction": "INGRESS"}
    return {**rule, "target_tags": [to], **more}


def people_request(
    name: str, network: str, description: str, to: str, sources: Collection[str]
) -> dict[str, Any]:
    """The firewall rule that lets people at some CIDR blocks reach Dask and its front on a scheduler."""
    ports = [str(SCHEDULER_PORT), str(FRONT_PORT)]
    allowed = [{"I_p_protocol": "tcp", "ports": ports}]
    return _rule(name, network, description, to, source_ranges=sorted(sources), allowed=allowed)


def landing_requests(landing_network: str) -> list[dict[str, Any]]:
    """The firewall rules of all machines: they may reach each other, and what else is allowed needs a rule of its own.

    Every network called default lets the whole world try SSH and RDP, at the lowest priority there is.
    https://cloud.google.com/firewall/docs/firewalls#more_rules_default_vpc
    """
    within, closed = names.landing_firewalls(last(landing_network))
    about = described_as({ledger.LANDING: "dask"})
    every = [{"I_p_protocol": "all"}]
    return [
        _rule(within, landing_network, about, names.TAG, source_tags=[names.TAG], allowed=every),
        _rule(
            closed,
            landing_network,
            about,
            names.TAG,
            source_ranges=["0.0.0.0/0"],
            denied=every,
            priority=CLOSED,
        ),
    ]


def described_as(labels: Mapping[str, str]) -> str:
    """Labels for what can have none but has a description."""
    return json.dumps(dict(labels), separators=(",", ":"))


def labels_in(description: str) -> dict[str, str]:
    """The labels in such a description; empty when it is somebody else's."""
    try:
        said = json.loads(description)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def sources_of(config: GCPConfig) -> tuple[str, ...]:
    """Who may reach the scheduler from outside its network."""
    return (IAP,) if config.tunnel else config.sources()


def cluster_filter(cluster: str | None) -> str:
    """The filter of a list for what belongs to a cluster, or to any."""
    return f'labels.{ledger.CLUSTER} = "{cluster}"' if cluster else f"labels.{ledger.CLUSTER}:*"


#: What `machine` reads of a list of instances, without their user data, which is some 25 kB each.
LISTED = (
    "nextPageToken,unreachables,items/*/warning,items/*/instances(name,zone,machineType,status,statusMessage,labels,"
    "creationTimestamp,lastStartTimestamp,lastStopTimestamp,scheduling/provisioningModel,"
    "networkInterfaces(networkIP,accessConfigs/natIP))"
)


class Told:
    """A part of an answer in JSON, by the names that the client's own classes have; what is not in it is empty."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def __getattr__(self, name: str) -> Any:
        """What is said under a name."""
        value = self._said.get(re.sub(r"_([a-z])", lambda found: found[1].upper(), name), {})
        if isinstance(value, list):
            return [Told(one) if isinstance(one, dict) else one for one in value]
        return Told(value) if isinstance(value, dict) and name != "labels" else value

    def __bool__(self) -> bool:
        """Whether anything is said."""
        return bool(self._said)

    def __iter__(self) -> Iterator[Any]:
        """Nothing: a list that is said is a list."""
        return iter(())

    def __str__(self) -> str:
        """Nothing: a word that is said is a word."""
        return ""


def machine(instance: Any) -> Machine:
    """Read one instance of an answer."""
    labels = instance.labels
    state = STATES.get(instance.status, State.starting)
    expires = labels.get(ledger.EXPIRES, "")
    created = seconds(instance.creation_timestamp)
    interface = instance.network_interfaces[0] if instance.network_interfaces else None
    outside = [config.nat_i_p for config in interface.access_configs] if interface else []
    return Machine(
        id=instance.name,
        role=labels.get(ledger.ROLE, "worker"),
        state=state,
        cluster=labels.get(ledger.CLUSTER, ""),
        group=labels.get(ledger.GROUP, "default"),
        private_address=(interface.network_i_p or None) if interface else None,
        public_address=next(filter(None, outside), None),
        zone=last(instance.zone) or None,
        kind=last(instance.machine_type),
        market="spot" if instance.scheduling.provisioning_model == "SPOT" else "on-demand",
        created=created or 0.0,
        # A machine bills from when it runs: https://cloud.google.com/compute/docs/instances/instance-lifecycle
        billed_from=None if state is State.starting else seconds(instance.last_start_timestamp) or created,
        ended=seconds(instance.last_stop_timestamp) if state is State.gone else None,
        reason=_reason(instance) if state is State.gone else "",
        expires=int(expires) if expires.isdecimal() else None,
    )


def _reason(instance: Any) -> str:
    """Why a machine that is still there is gone."""
    if instance.status_message:
        return str(instance.status_message).rstrip(".")
    return "it is ending" if instance.status == "STOPPING" else "it powered off"


def last(link: str) -> str:
    """The name at the end of a link."""
    return str(link).rpartition("/")[2]


def seconds(moment: str) -> float | None:
    """A moment of an answer as seconds since the epoch; None where there is none."""
    return datetime.fromisoformat(moment).timestamp() if moment else None
