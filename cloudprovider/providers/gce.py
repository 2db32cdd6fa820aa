"""Dask on Google Compute Engine: one machine is one instance, ordered by the thousand in a call."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import templates
from cloudprovider.config import listed
from cloudprovider.errors import CapacityError, CloudError, CredentialsError, QuotaError
from cloudprovider.provider import Created, Machine, Provider, State, Swept
from cloudprovider.providers import _gce_boot, _vm_boot
from cloudprovider.providers import _gce_ends as ends
from cloudprovider.providers import _gce_landing as land
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_rights as rights
from cloudprovider.providers import _gce_starts as starts
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import side_by_side
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.providers._gce_plan import Plan
from cloudprovider.providers._gce_watch import Watch
from cloudprovider.providers._gcp import GCP, code
from cloudprovider.security import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.provider import Identity, Quota
    from cloudprovider.tunnel import Tunnel

__all__ = ["GCEProvider", "GCPConfig", "policy"]

#: Machines of one bulkInsert: https://cloud.google.com/compute/docs/instances/multiple/about-bulk-creation
MAX_CREATE = 1000
#: Seconds in which an order of one machine is decided, and one of many.
ONE_S, MANY_S = 120.0, 600.0
#: Seconds between two looks at a machine whose resources are still looked for, at the least and at the most.
LOOK_S, LONGEST_LOOK_S = 0.2, 2.0
#: Seconds in which the machines of a cluster that died may go.
#: Who knows no cluster looks back so far.
DAY_S = 86_400.0
LEFT_PATIENCE_S = 30.0
#: Seconds that the question for quotas waits for the types to be chosen.
PLAN_S = 30.0
#: How Google says that it does not know a service account, or not yet.
NEW_ACCOUNT = r"(?i)service ?account"
#: Codes after which the scheduler's next type or zone is tried, beside those of no capacity.
ELSEWHERE = ("UNSUPPORTED_OPERATION", "RESOURCE_NOT_FOUND")


def policy(name: str = "gcp", **values: str) -> str:
    """A custom role as JSON: what a manager needs (`gcp`), what makes the landing, or a machine's own.

    Parameters
    ----------
    name
        Of a file under `templates/policies`.
    **values
        None are needed.
    """
    del values
    return templates.render(f"policies/{name}.json")


class GCEProvider(Provider):
    """Machines are instances. Thread-safe; one object serves one cluster, and finds any other."""

    config: GCPConfig
    wave = MAX_CREATE
    look = 2 * wire.PAGE
    boot_s = 40.0
    #: Seconds a sweep waits for machines to be gone; 120 is the longest their services take to stop.
    patience_s = 240.0

    def __init__(self, config: GCPConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.gcp = GCP(config.project, config.place)
        self._plan: Plan | None = None
        self._planned = threading.Event()
        self._rule: Any = None  # the operation that makes the scheduler's firewall rule
        self._watch = Watch(self.gcp, identity.name)
        self._claimed: bool | None = None  # None: prepare() has not been tried
        self._region: Any = None
        self._asking = threading.Lock()

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        """Find or make the landing, and make what the cluster owns before its first machine."""
        # What there may be of this name is not ours before it is claimed.
        self._claimed = bool(self._claimed)
        if self.config.tunnel:
            from cloudprovider.providers import _gce_tunnel

            _gce_tunnel.plugin()
        self.config = _vm_boot.settled(self.config)
        made = starts.booting(self.gcp, self.config, boots)
        (choices, images), landing, known, *_ = side_by_side(
            [
                partial(starts.choose, self.gcp, self.config, self._place),
                partial(land.find_or_make, self.gcp, self.config, self._place),
                partial(starts.check_images, self.config, made),
                partial(self._claim, secrets.client),
                *(partial(_gce_boot.pack, boot) for boot in made),
            ]
        )
        plan = starts.planned(self.config, self.identity, landing, choices, images, made, known)
        self.chosen = tuple(f"{role.capitalize()}: {choices[role].reason}" for role in names.ROLES)
        self._plan = plan
        self._planned.set()
        mine, client = (self.gcp, self.config, self.identity), plan.dumps(self.config, secrets.client)
        self._rule, *_ = side_by_side(
            [
                partial(starts.make_rule, *mine, landing),
                partial(starts.store, *mine, "machine", secrets.machine),
                partial(starts.store, *mine, "client", client, made=True),
                partial(self._bind, landing),
            ]
        )
        return tuple(plan.boots.values())

    def attach(self) -> Secrets:
        """Find the cluster of this name, and read its client secret."""
        cluster = self.identity.name
        if not (secret := starts.stored(self.gcp, cluster)):
            there = ", ".join(ends.clusters(self.gcp)) or "none"
            raise CloudError(f"There is no cluster {cluster!r} in {self.gcp.project}. There: {there}.")
        client = self._read(secret)
        if self.config.allow_from is None and not self.config.tunnel:
            rule = self.gcp.call(
                "firewalls", "get", fine=[404], project=self._host, firewall=names.firewall(cluster)
            )
            if rule is not None:
                self.config = dataclasses.replace(self.config, allow_from=tuple(rule.source_ranges))
        return Secrets(client=client)

    def resume(self) -> None:
        """Find the cluster as the manager beside its scheduler does, which was told the plan."""
        self._read(os.environ.get(_vm_boot.PLAN, ""))

    def _read(self, secret: str) -> str:
        """Know the cluster by its plan; returns the client's own part of what is stored."""
        self._plan, options, client = Plan.loads(secret)
        self._planned.set()
        self.identity = self._plan.identity
        self.config = dataclasses.replace(self.config, **options)
        return client

    def boot(self, role: str) -> Boot:
        """The boot this cluster's machines of a role run, after `prepare`, `attach` or `resume`."""
        return self._made.boots[role]

    def create(self, boot: Boot, count: int) -> Created:
        """Order `count` machines, in the first market, type and zone that have them."""
        if boot.role == "scheduler":
            return self._create_schedulers(boot, count)
        made: list[Machine] = []
        refused: CloudError | None = None
        for market in self.config.markets(boot.role):
            for kind in self._made.kinds[boot.role].types:
                if len(made) < count:
                    some, refused = self._order(boot, count - len(made), kind, market)
                    made += some
                if not isinstance(refused, (CapacityError, QuotaError)):
                    break
        if refused is None or len(made) >= count:
            return Created(machines=tuple(made))
        if isinstance(refused, CapacityError) and self.config.markets(boot.role) == ("spot",):
            refused = CapacityError(f"{refused} spot='fallback' orders on demand what spot refuses.")
        return Created(machines=tuple(made), refusal=self._short(refused, len(made), count))

    def describe(self, ids: Collection[str]) -> list[Machine]:
        """What Compute Engine says of these machines, 500 a call; what is no more it only says by silence."""
        return [*self._watch.look(ids)]

    def delete(self, ids: Collection[str]) -> None:
        """End these machines; unknown ids are no error."""
        self._watch.end(ids)

    def list(self, cluster: str | None = None) -> list[Machine]:
        """Live machines of a cluster, or of every cluster in the project, by label."""
        return [machine for machine in self._watch.listed(cluster) if machine.state is not State.gone]

    def ended(self, cluster: str) -> Sequence[Machine]:
        """Machines of a cluster that have ended within its lifetime, or a day, as operations tell."""
        zones = self._plan.landing.zones if self._plan else map(wire.last, self._place().zones)
        since = self._plan.identity.created if self._plan else self.gcp.now() - DAY_S
        return ends.ended(self.gcp, cluster, zones, since)

    def sweep(self, cluster: str) -> Swept:
        """Remove everything of this cluster, machines first; the landing stays."""
        if self._claimed is False and cluster == self.identity.name:
            return Swept()  # the name may be somebody else's, and nothing under it is ours
        swept = ends.sweep(self.gcp, self._host, cluster, self.patience_s)
        if cluster == self.identity.name:
            self._watch.told(swept.machines)
        return swept

    def expired(self) -> tuple[str, ...]:
        """The clusters whose `expires` has passed, and that have left something but no live machine."""
        over = ends.expired(self.gcp, self._host)
        return tuple(name for name in over if not self.list(name))

    def sweep_expired(self) -> tuple[str, ...]:
        """Remove what `expired` clusters left; return their names."""
        over = self.expired()
        for name in over:
            ends.sweep(self.gcp, self._host, name, 1.0)
        return over

    def allow(self, sources: Collection[str]) -> None:
        """Make the scheduler's ingress rule let in exactly these CIDR sources."""
        starts.allow(self.gcp, self.config, self.identity, self._made.landing, sources)

    def logs(self, id: str, lines: int = 100) -> str:
        """The last log lines of one machine, dead or alive: of its container, or else of its serial port."""
        return ends.log_lines(self.gcp, id, lines, partial(self._zone_of, id))

    def tunnel(self, machine: Machine) -> Tunnel:
        """The way to a scheduler through Identity-Aware Proxy, with no rule open to anybody else; not opened yet."""
        from cloudprovider.providers import _gce_tunnel

        return _gce_tunnel.tunnel(self.gcp.project, machine.zone or "", machine.id)

    def rate(self, machine: Machine) -> Rate:
        """What a machine costs while it bills."""
        from cloudprovider.prices import gce_rate

        plan = self._plan
        kind = plan.kinds[machine.role] if plan else None
        return gce_rate(
            self.gcp.region,
            machine.kind,
            machine.market,
            disk_gib=kind.disk_gib if kind else 0,
            disk_type=kind.disk_type if kind else "pd-balanced",
            gpus=kind.accelerators if kind else None,
            public=wire.is_outside(self.config, machine.role, nat=bool(plan and plan.landing.nat)),
        )

    def likely(self, role: str, market: str = "on-demand") -> Machine:
        """A machine of a role's first type."""
        kind = self._made.kinds[role].types[0]
        return Machine(id="", role=role, state=State.starting, kind=kind, market=market)

    def quotas(self, role: str = "worker") -> Sequence[Quota]:
        """The region's quotas on what the machines of a role take, the tightest in each of its markets."""
        from cloudprovider.providers._gce_quotas import Limits

        self._planned.wait(PLAN_S)  # it is asked beside prepare(), which chooses the types first
        plan = self._made
        limits = Limits.of(self._place(), self.gcp.project, plan.kinds, nat=plan.landing.nat)
        return limits.quotas(self.config, role, self.config.markets(role))

    def now(self) -> float:
        """The time by Google's clock, as its last answer said."""
        return self.gcp.now()

    def diagnosis(self, machine: Machine, logs: str) -> CloudError:
        """What to tell the user of a machine that ended before Dask answered on it."""
        return ends.diagnosis(machine, logs)

    @property
    def _made(self) -> Plan:
        if self._plan is None:
            raise CloudError("Machines were ordered before prepare() or attach().")
        return self._plan

    @property
    def _host(self) -> str:
        return self.config.host_project or self.gcp.project

    def _place(self) -> Any:
        """The region as regions.get tells it, asked once."""
        with self._asking:
            if self._region is None:
                self._region = self.gcp.call("regions", "get", region=self.gcp.region)
            return self._region

    def _claim(self, secret: str) -> None:
        """Take the cluster's name, and know that it is ours."""
        sweep = partial(ends.sweep, self.gcp, self._host, self.identity.name, LEFT_PATIENCE_S)
        starts.claim(self.gcp, self.config, self.identity, secret, self.list, sweep)
        self._claimed = True

    def _bind(self, landing: land.Landing) -> None:
        """Give the landing's own accounts what they may do for this cluster."""
        machine = "" if self.config.service_account else landing.account
        apart = landing.scheduler != landing.account and not self.config.scheduler_service_account
        scheduler = landing.scheduler if apart else ""
        rights.bind(self.gcp, machine, scheduler, self.identity, fresh=landing.fresh)

    def _short(self, error: CloudError, made: int, count: int) -> CloudError:
        """Why fewer machines came than were asked for, with how many."""
        kept = f" The cluster keeps the {made}." if made else ""
        said = f"Compute Engine in {self.gcp.region} started {made} of {count} machines: {error}{kept}"
        short = type(error)(said)
        short.__cause__ = error
        return short

    def _zone_of(self, id: str) -> str | None:
        """Where a machine is; None when it is nowhere."""
        if self._watch.zone(id) is None:
            self.list(self.identity.name)
        return self._watch.zone(id)

    # -- the scheduler -----------------------------------------------------------------------------------

    def _create_schedulers(self, boot: Boot, count: int) -> Created:
        """Order by insert, until its resources are found: workers can be ordered as soon as it has its address."""
        made: list[Machine] = []
        for name in names.machine_names(self.identity.name, boot.role, count):
            try:
                made.append(self._insert(boot, name))
            except CloudError as error:
                return Created(machines=tuple(made), refusal=self._short(error, len(made), count))
        return Created(machines=tuple(made))

    def _insert(self, boot: Boot, name: str) -> Machine:
        """Start one machine in the first zone that has one of its types."""
        plan, refused = self._made, CloudError("No zone has a type for it.")
        properties = self._properties(boot, "on-demand")
        for pool in plan.pools(boot.role):
            request = wire.insert_request(name, pool, properties)
            try:
                return self._placed(partial(self._insert_in, name, pool[1], request))
            except CloudError as error:
                refused = error
                if not isinstance(error, CapacityError) and code(error) not in ELSEWHERE:
                    raise
        raise refused

    def _placed(self, insert: Callable[[], Machine]) -> Machine:
        """The machine that an insert makes, while the scheduler's firewall rule is made."""
        found: list[Machine] = side_by_side([insert, self._finish_rule])
        return found[0]

    def _insert_in(self, name: str, zone: str, request: dict[str, Any]) -> Machine:
        """Start a machine in a zone, and look at it until the zone has found room for it or has none."""
        plan = self._made
        operation = self._patiently(
            partial(self.gcp.change, "instances", "insert", **request), fresh=plan.landing.fresh
        )
        deadline, pause = time.monotonic() + ONE_S, LOOK_S
        while True:
            one = self.gcp.call("instances", "get", fine=[404], instance=name, zone=zone)
            if one is not None and one.status in wire.FOUND and wire.machine(one).private_address:
                return self._watch.note([one])[0]
            if one is None or one.status not in wire.FOUND:
                operation = self.gcp.done_so_far(operation)
            if time.monotonic() > deadline:
                ends.delete(self.gcp, {name: zone})
                raise CapacityError(f"{zone} did not find room for {name} within {ONE_S:g} s.")
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_LOOK_S)

    def _finish_rule(self) -> None:
        """Wait for the firewall rule, which is made while the machine is."""
        rule, self._rule = self._rule, None
        self.gcp.done(rule, fine=["RESOURCE_ALREADY_EXISTS"])

    def _patiently(self, call: Callable[[], Any], *, fresh: bool) -> Any:
        """Make a call, and again while a service account that was just made is not known everywhere yet."""
        deadline = time.monotonic() + (rights.ACCOUNT_S if fresh else 0.0)
        while True:
            try:
                return call()
            except CloudError as error:
                unknown = not isinstance(error, CredentialsError) and re.search(NEW_ACCOUNT, str(error))
                if time.monotonic() > deadline or not unknown:
                    raise
            time.sleep(rights.PAUSE_S)

    def _properties(self, boot: Boot, market: str) -> dict[str, Any]:
        plan = self._made
        kind = plan.kinds[boot.role]
        told = dataclasses.replace(self.config, project=self.gcp.project, region=self.gcp.region)
        told_plan = plan.dumps(self.config, "") if boot.autonomous else ""
        data = _gce_boot.user_data(
            told, self.identity, boot, gpus=kind.gpus, cos=not kind.own_image, plan=told_plan
        )
        return wire.properties(
            self.config, self.identity, boot, plan, market=market, user_data=data, now=self.gcp.now()
        )

    # -- workers -----------------------------------------------------------------------------------------

    def _order(
        self, boot: Boot, count: int, kind: str, market: str
    ) -> tuple[Sequence[Machine], CloudError | None]:
        """Order of one type on one market, 1,000 a call; stop at the first refusal."""
        made: list[Machine] = []
        while len(made) < count:
            machines = names.machine_names(self.identity.name, boot.role, min(MAX_CREATE, count - len(made)))
            try:
                some, refused = self._bulk(boot, machines, kind, market)
            except CloudError as error:
                some, refused = [], error
            made += some
            if refused is not None:
                return made, refused
        return made, None

    def _bulk(
        self, boot: Boot, machines: Sequence[str], kind: str, market: str
    ) -> tuple[Sequence[Machine], CloudError | None]:
        """One bulkInsert: the machines that it made, and why they are fewer than asked for."""
        plan, zones = self._made, self._zones(boot.role, kind)
        if not zones:
            return [], CapacityError(f"{kind} is not in the scheduler's zone; zones= names others.")
        properties = self._properties(boot, market)
        request = wire.bulk_request(machines, kind, zones, properties, plan.landing.zones)
        client, where = (
            ("instances", {}) if "zone" in request else ("region_instances", {"region": self.gcp.region})
        )
        now = self.gcp.now()
        order = partial(self.gcp.change, client, "bulk_insert", **where, **request)
        operation = self.gcp.ended(self._patiently(order, fresh=plan.landing.fresh), MANY_S)
        told = operation.instances_bulk_insert_operation_metadata.per_location_status.values()
        whole = not operation.error.errors and sum(one.created_vm_count for one in told) == len(machines)
        if whole and "zone" in request:
            ordered = [self._ordered(name, boot, (kind, zones[0], market), now) for name in machines]
            self._watch.expect(ordered)
            return ordered, None
        wanted = set(machines)
        found = [one for one in self.list(self.identity.name) if one.id in wanted]
        return found, None if len(found) == len(machines) else self._why(operation)

    def _why(self, operation: Any) -> CloudError:
        """Why an order of many made fewer: its own errors, or those of the inserts that it was made of."""
        if operation.error.errors:
            return self.gcp.failure(operation)
        told = operation.instances_bulk_insert_operation_metadata.per_location_status
        group = f'operationGroupId = "{operation.operation_group_id}"'
        for place in sorted(told, key=lambda place: -told[place].failed_to_create_vm_count):
            for one in self.gcp.items("zone_operations", zone=wire.last(place), filter=group):
                if one.error.errors and one.operation_type == "insert":
                    return self.gcp.failure(one)
        return CapacityError("it gave no reason for the rest. Try again later, or in other zones= or types.")

    def _ordered(self, name: str, boot: Boot, pool: tuple[str, str, str], now: float) -> Machine:
        """A machine that an order has made, which says no more of it."""
        kind, zone, market = pool
        return Machine(
            id=name,
            role=boot.role,
            group=boot.group,
            state=State.starting,
            cluster=self.identity.name,
            zone=zone,
            kind=kind,
            market=market,
            created=now,
            expires=self.identity.expires,
        )

    def _zones(self, role: str, kind: str) -> Sequence[str]:
        """Where workers may be: in the scheduler's zone, for traffic between zones is slower and costs."""
        there = self._made.kinds[role].zones[kind]
        if len(listed(self.config.zones)) > 1:
            return there
        zone = self._zone_of(names.scheduler(self.identity.name))
        return tuple(one for one in there if zone in {one, None})
