"""What a Google Cloud project needs once for Dask, which costs nothing at rest: found, or made.

Whoever comes second finds what the first made; whoever comes at the same second is told that it exists
already, which is fine. What the user names is used as it is, and is given no roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.errors import ConfigError, CredentialsError
from cloudprovider.providers import _gce_rights as rights
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gcp import GCP

__all__ = ["Landing", "find_or_make"]


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What clusters share in a project and region.

    Parameters
    ----------
    network, subnetwork
        Where machines get their addresses, as a request wants them; without a subnetwork the network has one
        in every region.
    account, scheduler
        Emails of the service accounts that workers' machines and the scheduler's run under.
    zones
        All zones of the region.
    nat
        Whether machines without an address outside have a way out.
    fresh
        Whether the account was made so recently that not all of Google may know it.
    """

    network: str
    subnetwork: str = ""
    account: str = ""
    scheduler: str = ""
    zones: tuple[str, ...] = ()
    nat: bool = False
    fresh: bool = False

    @classmethod
    def loads(cls, said: Mapping[str, Any]) -> Self:
        """The landing that a document says."""
        return cls(**{**said, "zones": tuple(said["zones"])})


def find_or_make(gcp: GCP, config: GCPConfig, region: Callable[[], Any]) -> Landing:
    """The landing: one round of calls where it is there.

    Parameters
    ----------
    gcp, config
        Who wants it.
    region
        Tells of the region.
    """
    host = config.host_project or gcp.project
    (network, subnetwork), nat, place, (account, scheduler, fresh), *_ = side_by_side(
        [
            partial(_network, gcp, config, host),
            partial(_has_nat, gcp, config, host),
            region,
            partial(_accounts, gcp, config),
            *(partial(_rule, gcp, host, rule) for rule in wire.landing_requests(_link(config, host))),
        ]
    )
    return Landing(
        network=network,
        subnetwork=subnetwork,
        account=account,
        scheduler=scheduler,
        zones=tuple(sorted(wire.last(zone) for zone in place.zones)),
        nat=nat,
        fresh=fresh,
    )


def _accounts(gcp: GCP, config: GCPConfig) -> tuple[str, str, bool]:
    """The service accounts of workers' machines and of the scheduler's; those that the user names are used as they are."""
    machine, scheduler = config.service_account, config.scheduler_service_account
    if machine and (scheduler or not config.autonomous):
        return machine, scheduler or machine, False
    made, manager, fresh = rights.accounts(gcp, autonomous=config.autonomous and scheduler is None)
    return machine or made, scheduler or manager, fresh


# -- the network -----------------------------------------------------------------------------------------


def _network(gcp: GCP, config: GCPConfig, host: str) -> tuple[str, str]:
    """The network, and its subnetwork where machines must name one."""
    found = gcp.call("networks", "get", project=host, network=config.network)
    link = _link(config, host)
    if config.subnetwork:
        return link, f"projects/{host}/regions/{gcp.region}/subnetworks/{config.subnetwork}"
    if found.auto_create_subnetworks:
        return link, ""
    here = [one for one in found.subnetworks if f"/regions/{gcp.region}/" in one]
    if not here:
        raise ConfigError(
            f"Network {config.network!r} of {host} has no subnetwork in {gcp.region}: pass network=, subnetwork= or "
            "region= of another."
        )
    return link, here[0].partition("/compute/v1/")[2] or here[0]


def _link(config: GCPConfig, host: str) -> str:
    return f"projects/{host}/global/networks/{config.network}"


def _has_nat(gcp: GCP, config: GCPConfig, host: str) -> bool:
    """Whether a Cloud NAT gives machines of the network a way out; who may not know takes it for none."""
    try:
        routers = gcp.items("routers", project=host, region=gcp.region)
    except CredentialsError:
        return False
    return any(router.nats and wire.last(router.network) == config.network for router in routers)


def _rule(gcp: GCP, host: str, rule: Mapping[str, Any]) -> None:
    """Make a firewall rule of all machines, unless it is there."""
    if gcp.call("firewalls", "get", fine=[404], project=host, firewall=rule["name"]) is not None:
        return
    try:
        made = gcp.change("firewalls", "insert", fine=[409], project=host, firewall_resource=rule)
    except CredentialsError as error:
        raise CredentialsError(
            f"{error} Somebody who may make firewall rules in {host} makes this one, once: `{_by_hand(host, rule)}`."
        ) from error
    gcp.done(made, fine=["RESOURCE_ALREADY_EXISTS"])


def _by_hand(host: str, rule: Mapping[str, Any]) -> str:
    """The command that makes a firewall rule."""
    tags = [*rule.get("source_tags", ())]
    return " ".join(
        (
            f"gcloud compute firewall-rules create {rule['name']} --project {host}",
            f"--network {wire.last(rule['network'])} --action {'allow' if 'allowed' in rule else 'deny'} --rules all",
            f"--priority {rule.get('priority', 1000)} --target-tags {','.join(rule['target_tags'])}",
            f"--source-tags {','.join(tags)}"
            if tags
            else f"--source-ranges {','.join(rule['source_ranges'])}",
        )
    )
