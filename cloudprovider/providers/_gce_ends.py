"""The ends on Compute Engine: what goes with a cluster, what others left, and what an early end of a machine means."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.provider import Machine, State, Swept
from cloudprovider.providers import _gce_boot, _vm_diagnosis
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import moments, side_by_side
from cloudprovider.providers._gce_rights import change_policy, is_of
from cloudprovider.providers._gcp_errors import because
from cloudprovider.providers._vm_diagnosis import causes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from cloudprovider.provider import Identity
    from cloudprovider.providers._gcp import GCP

__all__ = [
    "clusters",
    "delete",
    "diagnosis",
    "ended",
    "endings",
    "expired",
    "instances",
    "log_lines",
    "sweep",
]

#: Deletions under way at a time: GCE has no bulk form of instances.delete.
WIDTH = 32
#: How zones are told that have nothing to say.
NOTHING = "NO_RESULTS_ON_PAGE"
#: What operations do that end a machine, and how a user reads it.
# https://cloud.google.com/compute/docs/instances/create-use-spot
ENDS = {
    "compute.instances.automaticRestart": "its host failed",
    "compute.instances.hostError": "its host failed",
    "compute.instances.preempted": "preempted: Google took the spot machine back",
    "compute.instances.scheduledVmTermination": "its run time was over",
    "delete": "deleted",
    "stop": "stopped",
}
NO_ROUTE = (
    "Its subnetwork has no way out: pass public=True, or a network= with Cloud NAT, or with Private Google Access and "
    "an image= in Artifact Registry. A firewall rule must let it out, too."
)
PULL = (
    "It could not pull its image. Is image= right, and does its registry answer? Machines log in to none: it must "
    "be public, or be on the machine_image= already."
)
FORBIDDEN = (
    "May the machines' service account read the cluster's secret? In a project's first minutes Google may not know yet "
    "that it may; `dask cloud policy gcp-machine` prints what it needs."
)
#: What the log of a machine that came to nothing means.
CAUSES = causes(
    no_route=NO_ROUTE,
    pull=PULL,
    image="machine_image",
    more=((r"PERMISSION_DENIED|secretmanager\.versions\.access", FORBIDDEN),),
)


def instances(gcp: GCP, cluster: str | None) -> tuple[list[Any], bool]:
    """The instances of a cluster, or of all, 500 a call; and whether every zone answered."""
    pages = gcp.told(
        "aggregated/instances",
        fields=wire.LISTED,
        filter=wire.cluster_filter(cluster),
        maxResults=wire.PAGE,
    )
    scopes = [scope for page in pages for scope in page.get("items", {}).values()]
    codes = {scope["warning"].get("code", "") for scope in scopes if "warning" in scope}
    whole = codes <= {NOTHING} and not any(page.get("unreachables") for page in pages)
    return [wire.Told(instance) for scope in scopes for instance in scope.get("instances", ())], whole


def delete(gcp: GCP, machines: Mapping[str, str]) -> dict[str, Any]:
    """Begin to delete machines, by name and zone, side by side; their operations, None for unknown ones."""
    calls = [
        partial(gcp.change, "instances", "delete", fine=[404, "resourceNotReady"], instance=name, zone=zone)
        for name, zone in machines.items()
    ]
    return dict(zip(machines, side_by_side(calls, width=WIDTH), strict=True))


def endings(gcp: GCP, machines: Collection[Machine], since: float) -> dict[str, tuple[str, float]]:
    """Why and when machines ended that are no more, as the operations of their zones say: a call a zone.

    Parameters
    ----------
    gcp
        Whose they are.
    machines
        What there was.
    since
        Seconds since the epoch before which nothing is asked.
    """
    zones, wanted = {machine.zone for machine in machines if machine.zone}, {one.id for one in machines}
    every = _operations(gcp, zones, since)
    return {id: _ending(one) for one in every if (id := wire.last(one.target_link)) in wanted}


def ended(gcp: GCP, cluster: str, zones: Iterable[str], since: float) -> list[Machine]:
    """The machines of a cluster that ended in these zones, as their operations say, which last for two weeks.

    What they were is forgotten: kind, market and age. https://cloud.google.com/compute/docs/viewing-operations
    """
    found: dict[str, Machine] = {}
    for one in _operations(gcp, zones, since):
        if names.is_machine_of(cluster, id := wire.last(one.target_link)):
            reason, moment = _ending(one)
            role = "scheduler" if id == names.scheduler(cluster) else "worker"
            found[id] = Machine(
                id=id,
                role=role,
                state=State.gone,
                cluster=cluster,
                zone=wire.last(one.zone),
                market="",
                ended=moment,
                reason=reason,
            )
    return [*found.values()]


def _operations(gcp: GCP, zones: Iterable[str], since: float) -> list[Any]:
    """What ended machines in zones, a call a zone; what says why comes last."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    kinds = " OR ".join(f'(operationType = "{kind}")' for kind in ENDS)
    asked = f'(insertTime > "{moment}") AND ({kinds})'
    found = side_by_side(
        partial(gcp.items, "zone_operations", zone=zone, filter=asked, max_results=wire.PAGE)
        for zone in sorted(set(zones))
    )
    return sorted((one for some in found for one in some), key=_telling)


def _telling(operation: Any) -> bool:
    """Whether an operation says why: a deletion may only follow what does."""
    return str(operation.operation_type) != "delete"


def _ending(operation: Any) -> tuple[str, float]:
    moment = operation.end_time or operation.start_time or operation.insert_time
    why = ENDS[operation.operation_type]
    return operation.status_message.rstrip(".") or why, wire.seconds(moment) or time.time()


# -- sweeping ------------------------------------------------------------------------------------------------


def sweep(gcp: GCP, host: str, cluster: str, patience_s: float) -> Swept:
    """Remove all that a cluster owns: its machines, then what they need no more.

    Parameters
    ----------
    gcp
        Whose it is.
    host
        The project whose network it was in.
    cluster
        Its name.
    patience_s
        Seconds to wait for machines to be gone.
    """
    ended: dict[str, None] = {}
    removed = side_by_side(
        [
            partial(_end_all, gcp, cluster, patience_s, ended),
            partial(_remove_rule, gcp, host, cluster),
            *(partial(_remove_secret, gcp, names.secret(cluster, whose)) for whose in ("client", "machine")),
        ]
    )
    if not removed[0]:  # by it machines that are left end themselves
        removed.append(_remove_binding(gcp, cluster))
    left, resources = tuple(removed[0]), tuple(name for some in removed[1:] for name in some)
    return Swept(machines=tuple(ended), resources=resources, left=left)


def _end_all(gcp: GCP, cluster: str, patience_s: float, ended: dict[str, None]) -> list[str]:
    """Delete a cluster's machines until none is listed, or patience ends; those that are left."""
    there: list[str] = []
    for _ in moments(patience_s):
        found, whole = instances(gcp, cluster)
        there = [instance.name for instance in found]
        if not there and whole:
            return []
        new = {one.name: wire.last(one.zone) for one in found if one.name not in ended}
        delete(gcp, new)
        ended.update(dict.fromkeys(new))
    return there or ["zones that do not answer"]


def _remove_rule(gcp: GCP, host: str, cluster: str) -> list[str]:
    name = names.firewall(cluster)
    removed = gcp.done(
        gcp.change("firewalls", "delete", fine=[404], project=host, firewall=name),
        fine=["RESOURCE_NOT_FOUND"],
    )
    return [] if removed is None else [name]


def _remove_secret(gcp: GCP, name: str) -> list[str]:
    # The answer of a deletion is an empty document, as is that of none.
    path = f"projects/{gcp.project}/secrets/{name}"
    if not gcp.ask("secretmanager", "GET", path, fine=[404]):
        return []
    gcp.ask("secretmanager", "DELETE", path, fine=[404])
    return [name]


def _remove_binding(gcp: GCP, cluster: str) -> list[str]:
    """Take back what let machines end the cluster's; who may not has not given it either."""
    removed = list[str]()

    def without(policy: dict[str, Any]) -> bool:
        there = policy.get("bindings", [])
        kept = [one for one in there if not is_of(one, cluster)]
        removed[:] = [str(one["condition"]["title"]) for one in there if is_of(one, cluster)]
        policy["bindings"] = kept
        return bool(removed)

    try:
        change_policy(gcp, without)
    except CredentialsError:
        return []
    return removed


def clusters(gcp: GCP) -> list[str]:
    """The names of all clusters that have a client secret."""
    return sorted({owner.name for owner in _owners(_secrets(gcp))})


def _secrets(gcp: GCP) -> list[dict[str, str]]:
    """The labels of all secrets of clusters."""
    found: list[dict[str, str]] = []
    query: dict[str, Any] = {"filter": f"labels.{ledger.SERVICE}={wire.SERVICE}", "pageSize": 1000}
    while True:
        answer = gcp.ask("secretmanager", "GET", f"projects/{gcp.project}/secrets", **query)
        found += [dict(secret.get("labels", {})) for secret in answer.get("secrets", ())]
        if not (token := answer.get("nextPageToken")):
            return found
        query["pageToken"] = token


def _rules(gcp: GCP, host: str) -> list[dict[str, str]]:
    """The labels of all firewall rules of clusters."""
    every = gcp.items("firewalls", project=host)
    return [wire.labels_in(rule.description) for rule in every if names.cluster_of(rule.name)]


def _bindings(gcp: GCP) -> list[dict[str, str]]:
    """The labels of all bindings of clusters; none where we may not know."""
    asked = {"options": {"requestedPolicyVersion": 3}}
    path = f"projects/{gcp.project}:getIamPolicy"
    answer = gcp.ask("cloudresourcemanager", "POST", path, asked, fine=[403])
    return [
        wire.labels_in(binding.get("condition", {}).get("description", ""))
        for binding in answer.get("bindings", ())
    ]


def _owners(labels: Iterable[Mapping[str, str]]) -> list[Identity]:
    owners = [ledger.identity(some) for some in labels if some.get(ledger.SERVICE) == wire.SERVICE]
    return [owner for owner in owners if owner]


def expired(gcp: GCP, host: str) -> list[str]:
    """Clusters whose `expires` has passed and that have left something: three calls."""
    found = side_by_side([partial(_secrets, gcp), partial(_rules, gcp, host), partial(_bindings, gcp)])
    owners = _owners(labels for some in found for labels in some)
    now = gcp.now()
    return sorted({owner.name for owner in owners if owner.expires < now})


# -- what a machine said -------------------------------------------------------------------------------------


def log_lines(gcp: GCP, id: str, lines: int, zone: Callable[[], str | None]) -> str:
    """The last lines of a machine: of its container, or else of its serial port while it is there.

    Parameters
    ----------
    gcp, id, lines
        Whose, and how many.
    zone
        Says where it is; None when it is nowhere.
    """
    body = {
        "resourceNames": [f"projects/{gcp.project}"],
        "filter": _gce_boot.log_filter(gcp.project, id),
        "orderBy": "timestamp desc",
        "pageSize": min(1000, lines),
    }
    entries = gcp.ask("logging", "POST", "entries:list", body).get("entries", ())
    if entries:
        return "\n".join(_text(entry) for entry in reversed(entries))
    where = zone()
    if where is None:
        return ""
    port = gcp.call("instances", "get_serial_port_output", fine=[404, 400], instance=id, zone=where)
    return "\n".join(port.contents.splitlines()[-lines:]) if port else ""


def _text(entry: Mapping[str, Any]) -> str:
    return str(entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")).rstrip("\n")


def diagnosis(machine: Machine, logs: str) -> CloudError:
    """What to tell the user of a machine that ended before Dask answered on it."""
    return _vm_diagnosis.diagnosis(machine, logs, CAUSES, because, "Google Cloud")
