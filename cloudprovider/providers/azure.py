"""Dask on Azure virtual machines: workers are ordered by the thousand, as one Flexible scale set each time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets as random
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import templates
from cloudprovider.errors import CapacityError, CloudError, QuotaError
from cloudprovider.provider import Created, Machine, Provider, State, Swept
from cloudprovider.providers import _azure_boot, _azure_secrets, _vm_boot
from cloudprovider.providers import _azure_ends as ends
from cloudprovider.providers import _azure_landing as land
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_starts as starts
from cloudprovider.providers import _azure_wire as wire
from cloudprovider.providers._azure import Azure
from cloudprovider.providers._azure_config import AzureVMConfig
from cloudprovider.providers._azure_plan import PARTS, Plan
from cloudprovider.providers._calls import side_by_side
from cloudprovider.security import Secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.provider import Identity, Quota
    from cloudprovider.providers._azure import Operation
    from cloudprovider.tunnel import Tunnel

__all__ = ["AzureProvider", "AzureVMConfig", "policy"]

#: Machines of a Flexible scale set.
# https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-orchestration-modes
MAX_CREATE = 1000
#: Seconds in which what a cluster that died left may go.
LEFT_PATIENCE_S = 5.0
#: Seconds that the question for quotas waits for the sizes to be chosen.
PLAN_S = 30.0
#: Seconds for which Azure must not have known a machine that it has shown, before it is called gone.
ABSENT_S = 3.0
#: Of machines that Dask has not seen, how many have their console kept, and after how many seconds anew.
CONSOLES, CONSOLE_S, LINES = 2, 5.0, 400


def policy(name: str = "azure", **values: str) -> str:
    """A role as JSON: what a manager needs (`azure`), what makes the landing, or the machines' own.

    Parameters
    ----------
    name
        Of a file under `templates/policies`.
    **values
        `subscription` and `resource_group`; both have defaults.
    """
    holes = {"subscription": "*", "resource_group": "*"}
    return templates.render(f"policies/{name}.json", **{**holes, **values})


class AzureProvider(Provider):
    """Machines are virtual machines. Thread-safe; one object serves one cluster, and finds any other."""

    config: AzureVMConfig
    wave = MAX_CREATE
    look = MAX_CREATE
    boot_s = 60.0
    #: Seconds a sweep waits for machines, and what comes with them, to go.
    patience_s = 300.0

    def __init__(self, config: AzureVMConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.azure = Azure(config.subscription)
        self._own_group = config.resource_group is not None
        self._plan: Plan | None = None
        self._planned = threading.Event()
        self._network = "", ""  # ids of the scheduler's security group and public address
        self._addresses: dict[str, tuple[str | None, str | None]] = {}  # of schedulers, private and public
        self._orders: dict[str, Operation] = {}  # of schedulers that are being made
        self._known: dict[str, Machine] = {}
        self._sets: set[str] = set()  # orders of ours
        self._deleted: set[str] = set()
        self._absent: dict[str, float] = {}  # since when
        self._consoles: dict[str, tuple[float, str]] = {}
        self._claimed: bool | None = None  # None: prepare() has not been tried

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        """Find or make the landing, and make what the cluster owns before its first machine."""
        # What there may be of this name is not ours before it is claimed.
        self._claimed = bool(self._claimed)
        if self.config.tunnel:
            from cloudprovider.providers import _azure_tunnel

            _azure_tunnel.program()
        self.config = _vm_boot.settled(self.config)
        made = starts.booting(self.config, boots)
        self._settle()
        (choices, images), landing, known, *_ = side_by_side(
            [
                partial(starts.choose, self.azure, self.config),
                partial(land.find_or_make, self.azure, self.config, own_group=self._own_group),
                partial(starts.check_image, self.config, made),
                *(partial(_azure_boot.pack, boot) for boot in made),
            ]
        )
        starts.check_architectures(choices, made, known)
        self.chosen = tuple(f"{role.capitalize()}: {choices[role].reason}" for role in names.ROLES)
        self._plan = starts.planned(self.config, self.identity, landing, choices, images, made)
        self._planned.set()
        self._claim(secrets.client)
        mine = self.azure, self.config, self._plan
        self._network, _ = side_by_side(
            [
                partial(starts.make_network, *mine),
                partial(starts.store, *mine, secrets.machine, secrets.client),
            ]
        )
        return tuple(self._plan.boots.values())

    def attach(self) -> Secrets:
        """Find the cluster of this name, and read its client secret."""
        self._settle()
        cluster, group = self.identity.name, self._group
        vault = names.vault(self.azure.subscription, group, "client")
        claim, found = side_by_side(
            [
                partial(starts.claimed, self.azure, group, cluster),
                partial(self.azure.call, "keyvault", "vaults.get", group, vault, fine=land.NOT_THERE),
            ]
        )
        url = found["properties"]["vaultUri"] if claim and found else ""
        wanted = ["client", *map(names.plan_part, range(PARTS))]
        client, *parts = (
            side_by_side(
                partial(_azure_secrets.get, self.azure, url, names.secret(cluster, whose)) for whose in wanted
            )
            if url
            else [None]
        )
        if client is None or not any(parts):
            there = ", ".join(sorted(ends.claims(self.azure, group))) or "none"
            raise CloudError(f"There is no cluster {cluster!r} on Azure in {group}. There: {there}.")
        self._read([part for part in parts if part is not None])
        if self.config.allow_from is None:
            self.config = dataclasses.replace(self.config, allow_from=self._sources())
        return Secrets(client=client)

    def resume(self) -> None:
        """Find the cluster as the manager beside its scheduler does, which was told the plan."""
        self._settle()
        self._read([os.environ.get(_vm_boot.PLAN, "")])

    def _read(self, parts: Sequence[str]) -> None:
        """Know the cluster by its plan."""
        self._plan, options = Plan.loads(parts)
        self._planned.set()
        self.identity = self._plan.identity
        self.config = dataclasses.replace(self.config, **options)

    def boot(self, role: str) -> Boot:
        """The boot this cluster's machines of a role run, after `prepare`, `attach` or `resume`."""
        return self._made.boots[role]

    def create(self, boot: Boot, count: int) -> Created:
        """Order `count` machines, in the first market and of the first size that has them."""
        self._clear()
        if boot.role == "scheduler":
            return self._create_schedulers(boot, count)
        made: list[Machine] = []
        refused: CloudError | None = None
        for market in self.config.markets(boot.role):
            for size in self._made.kinds[boot.role].types:
                if len(made) < count and (refused is None or _elsewhere(refused)):
                    some, refused = self._order(boot, count - len(made), size, market)
                    made += some
        if refused is None or len(made) >= count:
            return Created(machines=tuple(made))
        if isinstance(refused, CapacityError) and self.config.markets(boot.role) == ("spot",):
            refused = CapacityError(f"{refused} spot='fallback' orders on demand what spot refuses.")
        return Created(machines=tuple(made), refusal=self._short(refused, len(made), count))

    def describe(self, ids: Collection[str]) -> list[Machine]:
        """What Azure says of these machines; one that it no longer has is gone."""
        vms = ends.described(self.azure, self._group, ids)
        found = [self._noted(wire.machine(vm, self.azure.now())) for vm in vms]
        lost = [self._lost(id) for id in sorted(set(ids) - {machine.id for machine in found})]
        # Stopped from inside, or never made: it bills until it is deleted.
        idle = [
            m.id for m, vm in zip(found, vms, strict=True) if m.state is State.gone and not ends.is_going(vm)
        ]
        self._keep_consoles([m.id for m in found if m.state is State.running or m.id in idle])
        if idle:
            self.delete(idle)
        return [*found, *(machine for machine in lost if machine is not None)]

    def delete(self, ids: Collection[str]) -> None:
        """End these machines; unknown ids are no error."""
        ends.delete(self.azure, self._group, ids)
        self._deleted.update(ids)

    def list(self, cluster: str | None = None) -> list[Machine]:
        """Live machines of a cluster, or of every cluster in the resource group, by tag."""
        self._settle()
        now = self.azure.now()
        found = [wire.machine(vm, now) for vm in ends.living(self.azure, self._group, cluster)]
        return [self._noted(machine) for machine in found if machine.state is not State.gone]

    def sweep(self, cluster: str) -> Swept:
        """Remove everything of this cluster, machines first; the landing stays."""
        if self._claimed is False and cluster == self.identity.name:
            return Swept()  # the name may be somebody else's, and nothing under it is ours
        self._settle()
        swept = ends.sweep(self.azure, self._group, cluster, self.patience_s)
        self._deleted.update(swept.machines)
        return swept

    def expired(self) -> tuple[str, ...]:
        """The clusters whose `expires` has passed, and that have left something but no live machine."""
        self._settle()
        owners = ends.claims(self.azure, self._group).values()
        now = self.azure.now()
        over = sorted(owner.name for owner in owners if owner.expires < now)
        return tuple(name for name in over if not self.list(name))

    def sweep_expired(self) -> tuple[str, ...]:
        """Remove what `expired` clusters left; return their names."""
        over = self.expired()
        for name in over:
            ends.sweep(self.azure, self._group, name, LEFT_PATIENCE_S)
        return over

    def allow(self, sources: Collection[str]) -> None:
        """Make the scheduler's ingress rules exactly these CIDR sources."""
        starts.allow(self.azure, self.config, self._made, sources)

    def logs(self, id: str, lines: int = 100) -> str:
        """The last lines of a machine's serial console, while it is there; then the last that we read."""
        text = ends.console(self.azure, self._group, id, max(lines, LINES))
        if text:
            self._consoles[id] = self.azure.now(), text
        _, text = self._consoles.get(id, (0.0, ""))
        return "\n".join(text.splitlines()[-lines:])

    def tunnel(self, machine: Machine) -> Tunnel:
        """The way to a scheduler through a Bastion that is there, with no rule open to the internet; not opened yet."""
        from cloudprovider.providers import _azure_tunnel

        if not (bastion := self._made.landing.bastion):
            return super().tunnel(machine)
        kind = "Microsoft.Compute/virtualMachines"
        target = names.id_of(self.azure.subscription, self._group, kind, machine.id)
        return _azure_tunnel.tunnel(bastion, target)

    def rate(self, machine: Machine) -> Rate:
        """What a machine costs while it bills."""
        from cloudprovider.prices import azure_rate

        kind = self._plan.kinds[machine.role] if self._plan else None
        return azure_rate(
            self.config.region or "",
            machine.kind,
            machine.market,
            disk_gib=0 if kind is None or machine.kind in kind.ephemeral else kind.disk_gib,
            disk_type=self.config.disk_type,
            public=self.config.public,
        )

    def likely(self, role: str, market: str = "on-demand") -> Machine:
        """A machine of a role's first type."""
        kind = self._made.kinds[role].types[0]
        return Machine(id="", role=role, state=State.starting, kind=kind, market=market)

    def quotas(self, role: str = "worker") -> Sequence[Quota]:
        """The subscription's cores for the sizes of a role, in each of its markets."""
        from cloudprovider.providers._azure_quotas import Limits

        self._planned.wait(PLAN_S)  # it is asked beside prepare(), which chooses the sizes first
        limits = Limits.ask(self.azure, self.config.region or "")
        return limits.quotas(self._made.kinds, role, self.config.markets(role))

    def now(self) -> float:
        """The time by Azure's clock, as its last answer said."""
        return self.azure.now()

    def diagnosis(self, machine: Machine, logs: str) -> CloudError:
        """What to tell the user of a machine that ended before Dask answered on it."""
        return ends.diagnosis(machine, logs)

    # -- what it knows -----------------------------------------------------------------------------------

    @property
    def _made(self) -> Plan:
        if self._plan is None:
            raise CloudError("Machines were ordered before prepare() or attach().")
        return self._plan

    @property
    def _group(self) -> str:
        self._settle()
        return self.config.resource_group or ""

    def _settle(self) -> None:
        """Know the region and the resource group."""
        if not (self.config.region and self.config.resource_group):
            self.config = land.settled(self.azure, self.config)

    def _claim(self, secret: str) -> None:
        """Take the cluster's name, and know that it is ours."""
        sweep = partial(ends.sweep, self.azure, self._group, self.identity.name, LEFT_PATIENCE_S)
        starts.claim(self.azure, self.config, self.identity, secret, self.list, sweep)
        self._claimed = True

    def _noted(self, machine: Machine) -> Machine:
        """A machine with the addresses that are known of it, and why it could not be made."""
        ours = machine.cluster == self.identity.name  # nobody wants to reach the schedulers of others
        if ours and machine.role == "scheduler" and machine.id not in self._addresses:
            self._addresses[machine.id] = self._addresses_of(machine.id)
        private, public = self._addresses.get(machine.id, (None, None))
        machine = dataclasses.replace(machine, private_address=private, public_address=public)
        if machine.state is State.gone:
            why = self._failure(machine.id) or machine.reason or self._by(machine)
            machine = dataclasses.replace(machine, reason=why)
        self._known[machine.id] = machine
        self._absent.pop(machine.id, None)
        return machine

    def _failure(self, id: str) -> str:
        """Why an order that was accepted failed after all; empty when it did not, or is not known."""
        try:
            if order := self._orders.get(id):
                order.over()
        except CloudError as error:
            return str(error)
        return ""

    def _lost(self, id: str) -> Machine | None:
        """A machine that was there and is not any more; None while Azure may only have forgotten it for a moment."""
        now, machine = self.azure.now(), self._known.get(id)
        if machine is None or machine.state is State.gone:
            return machine
        why = self._failure(id)
        since = self._absent.setdefault(id, now)
        if not why and id not in self._deleted and now - since < ABSENT_S:
            return None
        gone = dataclasses.replace(machine, state=State.gone, ended=now, reason=why or self._by(machine))
        self._known[id] = gone
        return gone

    def _by(self, machine: Machine) -> str:
        """Who deleted a machine, as far as we know: Azure does not say."""
        if machine.id in self._deleted:
            return "it was deleted"
        if machine.market == "spot":
            return "it was evicted, or deleted itself"
        return "it was deleted, by itself or by somebody else"

    def _addresses_of(self, scheduler: str) -> tuple[str | None, str | None]:
        """The private and the public address of a scheduler that another process has made."""
        interface, address = side_by_side(
            partial(self.azure.call, "network", f"{kind}.get", self._group, scheduler, fine=land.NOT_THERE)
            for kind in ("network_interfaces", "public_ip_addresses")
        )
        return _private(interface), address.get("properties", {}).get("ipAddress")

    def _sources(self) -> tuple[str, ...] | None:
        """Who may reach the scheduler; None where it has no rules of its own."""
        operation, name = "network_security_groups.get", names.scheduler(self.identity.name)
        rules = self.azure.call("network", operation, self._group, name, fine=land.NOT_THERE)
        return tuple(sorted(wire.sources_of(rules))) if rules else None

    def _keep_consoles(self, ids: Collection[str]) -> None:
        """Read the last lines of a few machines that Dask has not seen: they end with the machine."""
        now = self.azure.now()
        old = [id for id in ids if now - self._consoles.get(id, (0.0, ""))[0] > CONSOLE_S]
        for id in old[:CONSOLES]:
            self.logs(id)
            self._consoles.setdefault(id, (now, ""))

    def _short(self, error: CloudError, made: int, count: int) -> CloudError:
        """Why fewer machines came than were asked for, with how many."""
        kept = f" The cluster keeps the {made}." if made else ""
        where = self.config.region
        return type(error)(f"Azure in {where} started {made} of {count} machines: {error}{kept}")

    # -- the scheduler -----------------------------------------------------------------------------------

    def _create_schedulers(self, boot: Boot, count: int) -> Created:
        """Make its interface first, which has an address at once: workers can be ordered beside it."""
        made: list[Machine] = []
        for _ in range(count):
            try:
                made.append(self._run(boot))
            except CloudError as error:
                return Created(machines=tuple(made), refusal=self._short(error, len(made), count))
        return Created(machines=tuple(made))

    def _run(self, boot: Boot) -> Machine:
        """Start one machine of the first size that is to be had."""
        plan, data = self._made, starts.user_data(self.azure, self.config, boot, self._made)
        refused: CloudError = CapacityError("No size can be had.")
        for size in plan.kinds[boot.role].types:
            try:
                return self._start(boot, size, data)
            except CloudError as error:
                refused = error
                if not _elsewhere(error):
                    raise
        raise refused

    def _start(self, boot: Boot, size: str, data: bytes) -> Machine:
        mine, group, name = (self.config, self._made, boot), self._group, names.scheduler(self.identity.name)
        rules, address = self._network
        request = wire.interface_request(*mine, size=size, security_group=rules, address=address)
        where = "network_interfaces.begin_create_or_update"
        interface = self.azure.make("network", where, group, name, request)
        order = self.azure.begin(
            "compute",
            "virtual_machines.begin_create_or_update",
            group,
            name,
            wire.machine_request(*mine, size=size, interface=interface["id"], user_data=data),
        )
        if order is None:
            raise CloudError(f"Azure neither made {name} nor said why.")
        self._orders[name] = order
        operation = "public_ip_addresses.get"
        said = self.azure.call("network", operation, group, name) if address else {}
        self._addresses[name] = _private(interface), said.get("properties", {}).get("ipAddress")
        return self._noted(wire.machine(order.accepted, self.azure.now()))

    # -- workers -----------------------------------------------------------------------------------------

    def _order(
        self, boot: Boot, count: int, size: str, market: str
    ) -> tuple[Sequence[Machine], CloudError | None]:
        """Order of one size on one market, 1,000 a scale set; stop at the first refusal."""
        made: list[Machine] = []
        while len(made) < count:
            number = min(MAX_CREATE, count - len(made))
            try:
                some, refused = self._scale_set(boot, number, size, market)
            except CloudError as error:
                some, refused = [], error
            made += some
            if refused is not None:
                return made, refused
        return made, None

    def _scale_set(
        self, boot: Boot, count: int, size: str, market: str
    ) -> tuple[Sequence[Machine], CloudError | None]:
        """One scale set, and those of its machines that come."""
        name = names.order(self.identity.name, random.token_hex(3))
        data = starts.user_data(self.azure, self.config, boot, self._made)
        what: dict[str, Any] = {"name": name, "size": size, "market": market, "user_data": data}
        request = wire.scale_set_request(self.config, self._made, boot, count, **what)
        operation = "virtual_machine_scale_sets.begin_create_or_update"
        order = self.azure.begin("compute", operation, self._group, name, request)
        if order is None:
            raise CloudError(f"Azure neither made {name} nor said why.")
        self._sets.add(name)
        vms, refused = starts.arrivals(self.azure, self._group, name, count, order)
        now = self.azure.now()
        return [self._noted(wire.machine(vm, now)) for vm in vms], refused

    def _clear(self) -> None:
        """Delete scale sets of ours that have no machine any more: they cost nothing, but there may be 2,500."""
        here = [machine for machine in [*self._known.values()] if machine.state is not State.gone]
        used = {names.scale_set_of(machine.id) for machine in here if machine.id not in self._deleted}
        operation = "virtual_machine_scale_sets.begin_delete"
        for name in self._sets - used:
            with contextlib.suppress(CloudError):  # the next order tries again, and a sweep
                if self.azure.begin("compute", operation, self._group, name, fine=ends.BUSY):
                    self._sets.discard(name)


def _elsewhere(error: CloudError) -> bool:
    """Whether another size or market may have what this one refused."""
    return isinstance(error, (CapacityError, QuotaError))


def _private(interface: dict[str, Any]) -> str | None:
    configurations = interface.get("properties", {}).get("ipConfigurations") or [{}]
    address = configurations[0].get("properties", {}).get("privateIPAddress")
    return str(address) if address else None
