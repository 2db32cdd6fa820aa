"""What service accounts of a Google Cloud project's machines there are, and what they may do: made once, bound a cluster.

One account is for all machines; schedulers of autonomous clusters have another, because their manager orders and ends
machines. What an account may do to machines is bound a cluster, by a condition that names the cluster's own.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider import templates
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._gcp import code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gcp import GCP

__all__ = [
    "accounts",
    "bind",
    "binding_of",
    "bindings",
    "change_policy",
    "commands",
    "is_of",
    "scheduler_bindings",
]

#: Seconds in which others may change a policy under us, again and again.
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
LOGS, SECRETS = "roles/logging.logWriter", "roles/secretmanager.secretAccessor"
#: Lets who has it start machines that run under the account whose policy says so.
ACT_AS = "roles/iam.serviceAccountUser"
DENIED = (403, "PERMISSION_DENIED", "forbidden", "IAM_PERMISSION_DENIED")

Policy = dict[str, Any]


def accounts(gcp: GCP, *, autonomous: bool) -> tuple[str, str, bool]:
    """The emails of the machines' and the schedulers' service accounts, and whether one of them is new.

    They are made unless they are there; schedulers have the machines' where their clusters are not autonomous.
    """
    machine, scheduler = (_email(gcp.project, name) for name in (names.ACCOUNT, names.SCHEDULER_ACCOUNT))
    with _explained(gcp.project, autonomous=autonomous):
        wanted = [partial(_make, gcp, machine, {names.MACHINE_ROLE: _machine_role()})]
        if autonomous:
            wanted.append(partial(_make, gcp, scheduler, _scheduler_roles()))
        fresh = any(side_by_side(wanted))
        if autonomous:
            _let_act(gcp, machine, scheduler, ACCOUNT_S if fresh else 0.0)
    return machine, scheduler if autonomous else machine, fresh


def _email(project: str, name: str) -> str:
    return f"{name}@{project.partition(':')[0]}.iam.gserviceaccount.com"


def _machine_role() -> dict[str, Any]:
    return {
        "title": "Dask machine",
        "description": "Ends machines of Dask clusters",
        "stage": "GA",
        "includedPermissions": [*PERMISSIONS],
    }


def _scheduler_roles() -> dict[str, dict[str, Any]]:
    """The custom roles of schedulers, by their ids: conditions know the names of machines, and of nothing they need."""
    policies = {names.SCHEDULER_ROLE: "gcp-scheduler", names.SEEING_ROLE: "gcp-scheduler-sees"}
    return {id: json.loads(templates.render(f"policies/{name}.json")) for id, name in policies.items()}


def _make(gcp: GCP, email: str, roles: Mapping[str, Mapping[str, Any]]) -> bool:
    """Make an account and its roles unless they are there; whether the account was not."""
    project = gcp.project
    found, *_ = side_by_side(
        [
            partial(gcp.ask, "iam", "GET", f"projects/{project}/serviceAccounts/{email}", fine=[404]),
            *(partial(_make_role, gcp, id, role) for id, role in roles.items()),
        ]
    )
    if not found:
        title = next(iter(roles.values()))["title"]
        about = {"displayName": title, "description": wire.described_as({ledger.LANDING: "dask"})}
        body = {"accountId": email.partition("@")[0], "serviceAccount": about}
        gcp.ask("iam", "POST", f"projects/{project}/serviceAccounts", body, fine=[409])
    return not found


def _make_role(gcp: GCP, id: str, role: Mapping[str, Any]) -> None:
    """Make a custom role unless it is there."""
    path = f"projects/{gcp.project}/roles"
    known = gcp.ask("iam", "GET", f"{path}/{id}", fine=[404])
    if not known:
        gcp.ask("iam", "POST", path, {"roleId": id, "role": role}, fine=[409])
    elif known.get("deleted"):
        gcp.ask("iam", "POST", f"{path}/{id}:undelete", {})


def _let_act(gcp: GCP, machine: str, scheduler: str, patience_s: float) -> None:
    """Let schedulers start machines that run under the machines' account."""
    wanted = {"role": ACT_AS, "members": [f"serviceAccount:{scheduler}"]}
    path = f"projects/{gcp.project}/serviceAccounts/{machine}"
    change_policy(gcp, lambda policy: _with(policy, [wanted]), patience_s, service="iam", path=path)


def bind(gcp: GCP, machine: str, scheduler: str, identity: Identity, *, fresh: bool) -> None:
    """Let the landing's own accounts read secrets, write logs, and do with this cluster's machines what they must.

    Parameters
    ----------
    gcp, identity
        Whose cluster it is.
    machine, scheduler
        Emails of the landing's own accounts; empty for the user's own, which are given nothing.
    fresh
        Whether one of them is new.
    """
    wanted = bindings(gcp.project, machine, identity) if machine else []
    if scheduler and scheduler != machine:
        wanted += scheduler_bindings(gcp.project, scheduler, identity)
    if not wanted:
        return
    with _explained(gcp.project, autonomous=scheduler not in {"", machine}):
        change_policy(gcp, lambda policy: _with(policy, wanted), ACCOUNT_S if fresh else 0.0)


@contextmanager
def _explained(project: str, *, autonomous: bool) -> Iterator[None]:
    """Say what somebody else may do, when we may not."""
    try:
        yield
    except CredentialsError as error:
        if code(error) not in DENIED:
            raise
        raise CredentialsError(f"{error} {commands(project, autonomous=autonomous)}") from error


def bindings(project: str, email: str, identity: Identity) -> list[dict[str, Any]]:
    """What the machines' account may do: what every cluster needs, and to end the machines of this one."""
    return [*_basics(email), binding_of(project, email, identity)]


def _basics(email: str) -> list[dict[str, Any]]:
    """What every machine's account may do: write logs, and read the secrets that are for machines."""
    members = [f"serviceAccount:{email}"]
    # What is one account's: a binding with both accounts would be taken from one by a start without the other.
    title = "dask-machine-secrets" if email.startswith(names.ACCOUNT) else "dask-scheduler-secrets"
    return [
        {"role": LOGS, "members": members},
        {"role": SECRETS, "members": members, "condition": {"title": title, "expression": READS}},
    ]


def binding_of(project: str, email: str, identity: Identity) -> dict[str, Any]:
    """What lets machines end the machines of one cluster, for as long as it may live."""
    expression = (
        f'resource.type == "compute.googleapis.com/Instance" && {_until(identity)} && '
        f"({_scheduler(identity)} || {_worker(identity, 'instances')})"
    )
    return _bound(project, names.MACHINE_ROLE, email, identity, f"dask-{identity.name}", expression)


def scheduler_bindings(project: str, email: str, identity: Identity) -> list[dict[str, Any]]:
    """What the manager on the scheduler's machine may do: order and end its cluster's machines, and see others."""
    expression = (
        f"{_until(identity)} && "
        f"({_scheduler(identity)} || {_worker(identity, 'instances')} || {_worker(identity, 'disks')})"
    )
    title = f"dask-{identity.name}/scheduler"
    return [
        *_basics(email),
        {"role": f"projects/{project}/roles/{names.SEEING_ROLE}", "members": [f"serviceAccount:{email}"]},
        _bound(project, names.SCHEDULER_ROLE, email, identity, title, expression),
    ]


def _until(identity: Identity) -> str:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(identity.expires + GRACE_S))
    return f'request.time < timestamp("{until}")'


def _scheduler(identity: Identity) -> str:
    return f'resource.name.endsWith("/instances/{names.scheduler(identity.name)}")'


def _worker(identity: Identity, kind: str) -> str:
    # A cluster's name may begin with another's: a worker's ends after what is drawn by chance.
    whose = f"/{kind}/dask-{identity.name}-w-"
    return (
        f'resource.name.extract("{whose}{{id}}") != "" && resource.name.extract("{whose}{{id}}-") == "" && '
        '!resource.name.endsWith("-scheduler")'
    )


def _bound(
    project: str, role: str, email: str, identity: Identity, title: str, expression: str
) -> dict[str, Any]:
    """A binding of a cluster's, which a sweep finds by its title."""
    labels = ledger.for_cluster(identity, {ledger.SERVICE: wire.SERVICE})
    return {
        "role": f"projects/{project}/roles/{role}",
        "members": [f"serviceAccount:{email}"],
        "condition": {
            "title": title,
            "description": wire.described_as(labels),
            "expression": expression,
        },
    }


def is_of(binding: Mapping[str, Any], cluster: str) -> bool:
    """Whether a binding is a cluster's own."""
    labels = wire.labels_in(str(binding.get("condition", {}).get("description", "")))
    return labels.get(ledger.SERVICE) == wire.SERVICE and labels.get(ledger.CLUSTER) == cluster


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


def change_policy(
    gcp: GCP,
    change: Callable[[Policy], bool],
    patience_s: float = 0.0,
    *,
    service: str = "cloudresourcemanager",
    path: str = "",
) -> None:
    """Change a policy, again when somebody else did meanwhile.

    Parameters
    ----------
    gcp
        Whose project it is.
    change
        Changes a policy, and says whether there was anything to change.
    patience_s
        Seconds to wait for an account that was just made to become known.
    service, path
        Which resource's, and which service has it. Default: the project's.
    """
    path, start = path or f"projects/{gcp.project}", time.monotonic()
    while True:
        policy = _policy(gcp, service, path)
        if not change(policy):
            return
        body = {"policy": {**policy, "version": 3}}
        try:
            if gcp.ask(service, "POST", f"{path}:setIamPolicy", body, fine=[409, "aborted"]):
                return
        except CloudError as error:
            if "does not exist" not in str(error) or time.monotonic() - start > patience_s:
                raise
        if time.monotonic() - start > max(POLICY_S, patience_s):
            raise CloudError(f"The policy of {path} changes all the time: try again in a minute.")
        time.sleep(random.uniform(0.1, PAUSE_S))  # noqa: S311  (so that two do not meet again)


def _policy(gcp: GCP, service: str, path: str) -> Policy:
    """A resource's policy, with its conditions."""
    if service == "iam":  # it takes its options in the query
        asked: dict[str, Any] = {"options.requestedPolicyVersion": 3}
        return dict(gcp.ask(service, "POST", f"{path}:getIamPolicy", **asked))
    body = {"options": {"requestedPolicyVersion": 3}}
    return dict(gcp.ask(service, "POST", f"{path}:getIamPolicy", body))


def commands(project: str, *, autonomous: bool = False) -> str:
    """What somebody who may give roles runs once, for those who may not; of an autonomous cluster, twice as much."""
    machine, scheduler = (_email(project, name) for name in (names.ACCOUNT, names.SCHEDULER_ACCOUNT))
    lines = _by_hand(project, machine, {names.MACHINE_ROLE: _machine_role()})
    options = f"service_account='{machine}'"
    if autonomous:
        lines += _by_hand(project, scheduler, _scheduler_roles())
        allow = f"gcloud iam service-accounts add-iam-policy-binding {machine} --project {project}"
        lines.append(f"{allow} --member serviceAccount:{scheduler} --role {ACT_AS}")
        options += f" and scheduler_service_account='{scheduler}'"
    return (
        f"Somebody who may make service accounts and give roles runs, once:\n\n{chr(10).join(lines)}\n\n"
        f"and you pass {options}, for which no rights are needed but iam.serviceAccounts.actAs on it."
    )


def _by_hand(project: str, email: str, roles: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The commands that make an account which may do its part for every cluster of the project."""
    bind = f"gcloud projects add-iam-policy-binding {project} --member serviceAccount:{email}"
    account = email.partition("@")[0]
    machines = 'resource.name.extract("/instances/dask-{name}") != "" || resource.name.extract("/disks/dask-{name}") != ""'
    lines = [f"gcloud iam service-accounts create {account} --project {project}"]
    for id, role in roles.items():
        permissions = ",".join(role["includedPermissions"])
        condition = "None" if id == names.SEEING_ROLE else f"'title={account}s,expression={machines}'"
        lines += [
            f"gcloud iam roles create {id} --project {project} --permissions {permissions}",
            f"{bind} --role projects/{project}/roles/{id} --condition {condition}",
        ]
    return [
        *lines,
        f"{bind} --role {LOGS} --condition None",
        f"{bind} --role {SECRETS} --condition 'title={account}-secrets,expression={READS}'",
    ]
