"""What a Google Cloud project needs once for Dask, which costs nothing at rest: found, or made.

Whoever comes second finds what the first made; whoever comes at the same second is told that it exists
already, which is fine. What the user names is used as it is, and is given no roles.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, ConfigError, CredentialsError
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._gcp import code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gcp import GCP

__all__ = ["Landing", "bind", "binding_of", "bindings", "change_policy", "commands", "find_or_make"]

#: Seconds in which others may change a project's policy under us, again and again.
POLICY_S = 60.0
#: Seconds in which a service account that was just made becomes known.
# https://cloud.google.com/iam/docs/service-accounts-create
ACCOUNT_S, PAUSE_S = 90.0, 1.5
#: What a machine may do by the custom role: end itself, and its cluster's others.
PERMISSIONS = ("compute.instances.delete",)
#: Which secrets it may read, and how many seconds it may still end machines when its cluster should have ended.
READS = (
    'resource.type == "secretmanager.googleapis.com/SecretVersion" && '
    'resource.name.extract("/secrets/dask-{name}-machine/versions/") != ""'
)
GRACE_S = 86_400
DENIED = (403, "PERMISSION_DENIED", "forbidden", "IAM_PERMISSION_DENIED")

Policy = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What clusters share in a project and region.

    Parameters
    ----------
    network, subnetwork
        Where machines get their addresses, as a request wants them; without a subnetwork the network has one
        in every region.
    account
        Email of the service account that machines run under.
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
    own = config.service_account is not None
    host = config.host_project or gcp.project
    (network, subnetwork), nat, place, (email, fresh), *_ = side_by_side(
        [
            partial(_network, gcp, config, host),
            partial(_has_nat, gcp, config, host),
            region,
            (lambda: (config.service_account, False)) if own else partial(_account, gcp),
            *(partial(_rule, gcp, host, rule) for rule in wire.landing_requests(_link(config, host))),
        ]
    )
    return Landing(
        network=network,
        subnetwork=subnetwork,
        account=email,
        zones=tuple(sorted(wire.last(zone) for zone in place.zones)),
        nat=nat,
        fresh=fresh,
    )


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


# -- the service account and what it may do --------------------------------------------------------------


def _account(gcp: GCP) -> tuple[str, bool]:
    """The email of the machines' service account, made unless it is there; and whether it is new."""
    email = f"{names.ACCOUNT}@{gcp.project.partition(':')[0]}.iam.gserviceaccount.com"
    with _explained(gcp.project):
        return email, _make_account(gcp, email)


def bind(gcp: GCP, config: GCPConfig, landing: Landing, identity: Identity) -> None:
    """Let the landing's own account read the machines' secrets, write logs, and end this cluster's machines."""
    if config.service_account is not None:
        return
    wanted = bindings(gcp.project, landing.account, identity)
    with _explained(gcp.project):
        change_policy(gcp, lambda policy: _with(policy, wanted), ACCOUNT_S if landing.fresh else 0.0)


@contextmanager
def _explained(project: str) -> Iterator[None]:
    """Say what somebody else may do, when we may not."""
    try:
        yield
    except CredentialsError as error:
        if code(error) not in DENIED:
            raise
        raise CredentialsError(f"{error} {commands(project)}") from error


def _make_account(gcp: GCP, email: str) -> bool:
    """Make the account and its role unless they are there; whether they were not."""
    project = gcp.project
    role = {
        "title": "Dask machine",
        "description": "Ends machines of Dask clusters",
        "stage": "GA",
        "includedPermissions": [*PERMISSIONS],
    }
    found, known = side_by_side(
        [
            partial(gcp.ask, "iam", "GET", f"projects/{project}/serviceAccounts/{email}", fine=[404]),
            partial(gcp.ask, "iam", "GET", f"projects/{project}/roles/{names.MACHINE_ROLE}", fine=[404]),
        ]
    )
    if not known:
        body = {"roleId": names.MACHINE_ROLE, "role": role}
        gcp.ask("iam", "POST", f"projects/{project}/roles", body, fine=[409])
    elif known.get("deleted"):
        gcp.ask("iam", "POST", f"projects/{project}/roles/{names.MACHINE_ROLE}:undelete", {})
    if not found:
        about = {"displayName": "Dask machines", "description": wire.described_as({ledger.LANDING: "dask"})}
        body = {"accountId": names.ACCOUNT, "serviceAccount": about}
        gcp.ask("iam", "POST", f"projects/{project}/serviceAccounts", body, fine=[409])
    return not found


def bindings(project: str, email: str, identity: Identity) -> list[dict[str, Any]]:
    """What the machines' account may do: what every cluster needs, and to end the machines of this one."""
    members = [f"serviceAccount:{email}"]
    reads = {"title": "dask-machine-secrets", "expression": READS}
    return [
        {"role": "roles/logging.logWriter", "members": members},
        {"role": "roles/secretmanager.secretAccessor", "members": members, "condition": reads},
        binding_of(project, email, identity),
    ]


def binding_of(project: str, email: str, identity: Identity) -> dict[str, Any]:
    """What lets machines end the machines of one cluster, for as long as it may live."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(identity.expires + GRACE_S))
    whose = f"/instances/dask-{identity.name}"
    # A cluster's name may begin with another's: a worker's ends after what is drawn by chance.
    expression = (
        'resource.type == "compute.googleapis.com/Instance" && '
        f'request.time < timestamp("{until}") && '
        f'(resource.name.endsWith("{whose}-scheduler") || '
        f'(resource.name.extract("{whose}-w-{{id}}") != "" && '
        f'resource.name.extract("{whose}-w-{{id}}-") == "" && '
        '!resource.name.endsWith("-scheduler")))'
    )
    return {
        "role": f"projects/{project}/roles/{names.MACHINE_ROLE}",
        "members": [f"serviceAccount:{email}"],
        "condition": {
            "title": f"dask-{identity.name}",
            "description": wire.described_as(ledger.for_cluster(identity, {ledger.SERVICE: wire.SERVICE})),
            "expression": expression,
        },
    }


def _with(policy: Policy, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Add bindings to a policy, in place of older ones of the same title; whether that changes it."""
    there = policy.setdefault("bindings", [])
    missing = [binding for binding in wanted if not any(_covers(one, binding) for one in there)]
    titles = {_title(binding) for binding in missing} - {""}
    there[:] = [one for one in there if _title(one) not in titles] + [dict(binding) for binding in missing]
    return bool(missing)


def _covers(binding: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    same = all(binding.get(key) == wanted.get(key) for key in ("role", "condition"))
    return same and set(wanted["members"]) <= set(binding.get("members", ()))


def _title(binding: Mapping[str, Any]) -> str:
    return str(binding.get("condition", {}).get("title", ""))


def change_policy(gcp: GCP, change: Callable[[Policy], bool], patience_s: float = 0.0) -> None:
    """Change the project's policy, again when somebody else did meanwhile.

    Parameters
    ----------
    gcp
        Whose project it is.
    change
        Changes a policy, and says whether there was anything to change.
    patience_s
        Seconds to wait for an account that was just made to become known.
    """
    path, start = f"projects/{gcp.project}", time.monotonic()
    while True:
        asked = {"options": {"requestedPolicyVersion": 3}}
        policy = gcp.ask("cloudresourcemanager", "POST", f"{path}:getIamPolicy", asked)
        if not change(policy):
            return
        body = {"policy": {**policy, "version": 3}}
        try:
            if gcp.ask("cloudresourcemanager", "POST", f"{path}:setIamPolicy", body, fine=[409, "aborted"]):
                return
        except CloudError as error:
            if "does not exist" not in str(error) or time.monotonic() - start > patience_s:
                raise
        if time.monotonic() - start > max(POLICY_S, patience_s):
            raise CloudError(f"The policy of {gcp.project} changes all the time: try again in a minute.")
        time.sleep(random.uniform(0.1, PAUSE_S))  # noqa: S311  (so that two do not meet again)


def commands(project: str) -> str:
    """What somebody who may give roles runs once, for those who may not."""
    email = f"{names.ACCOUNT}@{project.partition(':')[0]}.iam.gserviceaccount.com"
    role = f"projects/{project}/roles/{names.MACHINE_ROLE}"
    bind = f"gcloud projects add-iam-policy-binding {project} --member serviceAccount:{email}"
    machines = (
        'resource.type == "compute.googleapis.com/Instance" && '
        'resource.name.extract("/instances/dask-{name}") != ""'
    )
    lines = (
        f"gcloud iam service-accounts create {names.ACCOUNT} --project {project}",
        f"gcloud iam roles create {names.MACHINE_ROLE} --project {project} --permissions {','.join(PERMISSIONS)}",
        f"{bind} --role roles/logging.logWriter --condition None",
        f"{bind} --role roles/secretmanager.secretAccessor --condition 'title=dask-machine-secrets,expression={READS}'",
        f"{bind} --role {role} --condition 'title=dask-machines,expression={machines}'",
    )
    return (
        f"Somebody who may make service accounts and give roles runs, once:\n\n{chr(10).join(lines)}\n\n"
        f"and you pass service_account='{email}', for which no rights are needed but iam.serviceAccounts.actAs on it."
    )
