"""What one cluster has in a cloud: its identity, keys, scheduler, fleet and bill.

It knows nothing of Dask's protocol or of event loops: synchronous, as providers are, so that all of it can
be removed when the interpreter exits.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudprovider import access, security
from cloudprovider.bill import Bill, Meter, duration
from cloudprovider.blackbox import why
from cloudprovider.budget import Budget, amount_of
from cloudprovider.config import seconds
from cloudprovider.errors import AccessError, CloudError, CloudWarning, QuotaError
from cloudprovider.events import Phase
from cloudprovider.fleet import Fleet, Notice
from cloudprovider.provider import State, contact, find
from cloudprovider.quotas import Limits, too_many

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.blackbox import Why
    from cloudprovider.config import Config
    from cloudprovider.events import Events
    from cloudprovider.provider import Identity, Machine, Provider

__all__ = ["Beside", "Estate"]

logger = logging.getLogger("cloudprovider")

#: Seconds between looks at machines that have ended: a cloud forgets them, ECS after an hour.
LOOK_S = 1200.0
#: Of a machine's log, as many lines say why it ended.
LAST_LINES = 50


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a manager begins with that runs beside the scheduler, on its machine.

    Parameters
    ----------
    identity
        The cluster's, by its mandate.
    keys
        The machine's secret, with which it connects: the client's is for people's credentials alone.
    """

    identity: Identity
    keys: str = field(repr=False)


class Estate:
    """What one cluster has in a cloud, from its first call to its last. Thread-safe.

    Parameters
    ----------
    config
        The cloud's options.
    provider_class
        Makes the provider.
    events
        Where what happens is recorded.
    where
        What messages call the cluster, such as `FargateCluster`; its name is added.
    beside
        What a manager beside the scheduler begins with; None for every other one.
    """

    def __init__(
        self,
        config: Config,
        provider_class: type[Provider],
        events: Events,
        where: str,
        beside: Beside | None = None,
    ) -> None:
        self.config = config
        self.identity = beside.identity if beside else config.identity()
        self.events = events
        self.client_secret = beside.keys if beside else ""
        self._beside = beside is not None
        self.where = f"{where} {self.identity.name!r}"
        self._provider_class = provider_class
        self._provider: Provider | None = None
        self._fleet: Fleet | None = None
        self._scheduler: Machine | None = None
        self._limits = Limits(lambda: self.provider.quotas("worker"))
        self._meter = Meter()
        self._rates: dict[tuple[str, str, str, str | None], Rate] = {}
        self._settled: set[str] = set()  # of ended machines, those of which the cloud has said all it will
        self._next_look = time.monotonic() + LOOK_S
        self._stopping = threading.Event()
        self._removed = threading.Event()

    # -- its parts -------------------------------------------------------------------------------------

    @property
    def provider(self) -> Provider:
        """The cloud's service.

        Raises
        ------
        CloudError
            Before the start; as for `fleet` and `scheduler`.
        """
        if self._provider is None:
            raise CloudError(f"{self.where} has not started.")
        return self._provider

    @property
    def fleet(self) -> Fleet:
        """Its workers' machines."""
        if self._fleet is None:
            raise CloudError(f"{self.where} has not started.")
        return self._fleet

    @property
    def scheduler(self) -> Machine:
        """Its scheduler's machine, as last described."""
        if self._scheduler is None:
            raise CloudError(f"{self.where} has no scheduler yet.")
        return self._scheduler

    @property
    def machines(self) -> dict[str, Machine]:
        """Live workers' machines by id; none before the start."""
        return dict(self._fleet.machines) if self._fleet else {}

    @property
    def missing(self) -> int:
        """Workers' machines still to order."""
        return max(0, self._fleet.missing) if self._fleet else 0

    @property
    def start_timeout_s(self) -> float:
        """Seconds from an order to the first answer."""
        return seconds(self.config.start_timeout, "start_timeout")

    @property
    def token(self) -> str:
        """Jupyter's."""
        return str(json.loads(self.client_secret)["token"])

    # -- how it comes to be ----------------------------------------------------------------------------

    def make(self) -> None:
        """Make everything the cluster needs before its first worker, and order its scheduler."""
        config = self.config
        if config.public and not config.tunnel and config.allow_from is None:
            self.events.emit(Phase.access, "Learning the address you come from.")
            self.config = config = dataclasses.replace(config, allow_from=access.own_address())
        own = config.security
        secrets = security.make_secrets(self.identity) if own is True else security.secrets_of(own)
        self.client_secret = secrets.client
        self._go_on()
        self._provider = self._provider_class(config, self.identity)
        self.events.emit(Phase.landing, f"Preparing {self.where}.")
        if config.n_workers:
            self._limits.begin()  # beside what comes next, so that nobody waits for it
        self.provider.prepare(
            [config.boot_for(role, self.identity) for role in ("scheduler", "worker")], secrets
        )
        for choice in self.provider.chosen:
            self.events.emit(Phase.landing, f"{choice}.", choice=choice)
        self._new_fleet()
        self.fleet.ask(self.check_quota(self.machines_for(config.n_workers)))
        self._go_on()
        self.events.emit(Phase.ordered, "Ordering the scheduler.", role="scheduler", count=1)
        created = self.provider.create(self._paid_for(self.provider.boot("scheduler")), 1)
        if not created.machines:
            raise created.refusal or CloudError(f"{self.where} got no scheduler, and no reason.")
        [self._scheduler] = created.machines

    def _paid_for(self, boot: Boot) -> Boot:
        """The scheduler's Boot with how long the budget pays, should this manager be killed before it has said so.

        Raises
        ------
        ConfigError
            When the budget does not pay for the first minutes.
        """
        if self.config.budget is None:
            return boot
        budget, provider = Budget(usd=amount_of(self.config.budget)), self.provider
        roles = ("scheduler", *["worker"] * self.fleet.target)
        on_demand = {role: provider.rate(provider.likely(role)) for role in {*roles}}
        rates = [on_demand[role] for role in roles]
        spot = getattr(self.config, "spot", False)  # costs less, and who knows how much
        budget.check_order(rates[:1] if spot else rates)
        if spot and any(rate.unknown for rate in rates):
            return boot
        paid_s = budget.promise(rates, provider.boot_s)
        return dataclasses.replace(boot, leases=dataclasses.replace(boot.leases, budget=paid_s))

    def find(self) -> None:
        """Find what another process made.

        Raises
        ------
        CloudError
            When there is no such cluster, or its scheduler has ended.
        """
        asked = self.config.allow_from is not None
        self._provider = self._provider_class(self.config, self.identity)
        if self._beside:
            self.provider.resume()
        else:
            self.client_secret = find(self.provider).client
        self.identity = self.provider.identity
        scheduler, worker = (self.provider.boot(role) for role in ("scheduler", "worker"))
        self.config = dataclasses.replace(
            self.provider.config,
            workers_per_machine=worker.processes,
            jupyter=scheduler.jupyter,
            autonomous=scheduler.autonomous,
        )
        machines = self.provider.list(self.identity.name)
        self._scheduler = next((m for m in machines if m.role == "scheduler"), None)
        if self._scheduler is None:
            raise CloudError(
                f"Cluster {self.identity.name!r} has no scheduler any more; "
                f"`dask cloud sweep {self.identity.name}` removes what it left."
            )
        self._new_fleet()
        self.fleet.adopt(m for m in machines if m.role == "worker")
        if not self._beside:
            self._admit(asked=asked)

    def follow(self) -> None:
        """See which machines the manager that leads keeps."""
        self.fleet.follow(m for m in self.provider.list(self.identity.name) if m.role == "worker")

    def meet(self, ids: Collection[str]) -> None:
        """Keep those of these machines that are workers of this cluster, whoever ordered them."""
        machines = self.provider.list(self.identity.name)
        self.fleet.meet(m for m in machines if m.role == "worker" and m.id in ids)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise CloudError(f"{self.where} was closed while it started.")

    def _new_fleet(self) -> None:
        self._fleet = Fleet(
            self.provider, self._worker_boot, self.events, start_timeout_s=self.start_timeout_s
        )

    def _worker_boot(self) -> Boot:
        address = self.scheduler.private_address
        if address is None:
            raise CloudError("Workers were ordered before the scheduler had an address.")
        return dataclasses.replace(self.provider.boot("worker"), scheduler=f"tls://{contact(address)}")

    @property
    def workers_per_machine(self) -> int:
        """Dask workers on each machine, as the provider settled it."""
        return self.provider.boot("worker").processes

    def machines_for(self, n_workers: int) -> int:
        """Machines that so many Dask workers need."""
        return -(-n_workers // self.workers_per_machine)

    def check_quota(self, machines: int) -> int:
        """How many of so many workers' machines the account may run, saying so when they are fewer.

        Where nobody knows, all of them; what else the account runs is not known.

        Raises
        ------
        QuotaError
            When it may not run even one of them.
        """
        if machines < 1 or not (said := too_many(quotas := self._limits.known(), machines)):
            return machines
        room = sum(quota.machines for quota in quotas)
        if room == 0:
            raise QuotaError(said)
        said += f" No more than {room} are ordered."
        self.events.emit(Phase.quota, said, total=machines)
        warnings.warn(said, CloudWarning, stacklevel=2)
        return room

    # -- while it is there -----------------------------------------------------------------------------

    @property
    def placed(self) -> bool:
        """Whether the scheduler's machine has the address that workers need."""
        return self.scheduler.private_address is not None

    @property
    def addressed(self) -> bool:
        """Whether the scheduler's machine has the addresses that workers and we need."""
        inside = self._beside or not self.config.public or self.config.tunnel
        return self.placed and (inside or self.scheduler.public_address is not None)

    @property
    def contact(self) -> str:
        """Where the scheduler listens for us, without a tunnel."""
        machine = self.scheduler
        outside = self.config.public and not self._beside
        host = machine.public_address if outside else machine.private_address
        return f"tls://{contact(host or '')}"

    def look_at_scheduler(self) -> Machine:
        """What the cloud says of the scheduler's machine now."""
        for machine in self.provider.describe([self.scheduler.id]):
            self._scheduler = machine
        return self.scheduler

    def allow(self, sources: Collection[str]) -> None:
        """Make the ingress rules exactly these CIDR blocks; without any, our present address."""
        self.config = dataclasses.replace(self.config, allow_from=tuple(sources) or access.own_address())
        self.provider.allow(self.config.sources())

    def _admit(self, *, asked: bool) -> None:
        """Let in who attaches: what `allow_from` says, else our present address beside those that are in."""
        there = self.config.sources()
        if not self.config.public or self.config.tunnel or not there:
            return
        if not asked:
            try:
                own = access.own_address()
            except AccessError as error:
                logger.info("%s", error)
                return
            if access.admitted(own, there):
                return
            self.events.emit(
                Phase.access, f"Admitting your present address, {own}, beside {', '.join(there)}."
            )
            there = (*there, own)
        self.allow(there)

    def cost(self) -> Bill:
        """What it has cost until now."""
        notes: tuple[str, ...] = ()
        if not self._removed.is_set():
            try:
                self.look_at_unbilled()
            except CloudError as error:
                notes = (f"It is what we knew: the cloud could not be asked. {error}",)
        self._read_meter()
        bill = self._meter.bill(self.provider.now())
        return dataclasses.replace(bill, notes=(*bill.notes, *notes))

    def committed(self) -> Bill:
        """The same, with what an hour of every machine costs that was ordered, also while it boots."""
        live = [machine for machine in self._ever() if machine.state is not State.gone]
        per_hour = sum(self._rate(machine).per_hour for machine in live)
        return dataclasses.replace(self.cost(), per_hour=per_hour)

    def known(self) -> Bill:
        """What it has cost until now by what is known here: the cloud is not asked.

        A machine that runs, and of which the cloud has not said since when it bills, counts from its order.
        """
        if self._provider is None:
            return Bill(spent=0.0, per_hour=0.0)
        now, ever = self._provider.now(), self._ever()
        booting = {*self._fleet.not_arrived()} if self._fleet else set()
        priced = [(machine, rate) for machine in ever if (rate := self._rates.get(_priced_by(machine)))]
        for machine, rate in priced:
            self._meter.see(machine, rate, now)
        up = {m.id: m.created for m in ever if m.state is State.running or m.id not in booting}
        bill = self._meter.bill(now, up)
        if new := len(ever) - len(priced):
            bill = dataclasses.replace(bill, notes=(*bill.notes, f"{new} machines are too new to be in it."))
        return bill

    def price(self) -> None:
        """Learn what an hour of each machine costs, so that `known` has its price; some clouds are asked."""
        try:
            self._read_meter()
        except CloudError as error:
            logger.info("What machines cost could not be read: %s", error)

    def _rate(self, machine: Machine) -> Rate:
        if (rate := self._rates.get(by := _priced_by(machine))) is None:
            known = {rate.source for rate in self._rates.values()}
            rate = self._rates[by] = self.provider.rate(machine)
            if rate.source not in known and rate.source and (said := rate.source.stale(self.provider.now())):
                logger.warning("%s", said)
        return rate

    def known_rate(self, machine: Machine) -> Rate | None:
        """What a machine costs, as far as it was learnt already."""
        return self._rates.get(_priced_by(machine))

    def _read_meter(self) -> None:
        for machine in self._ever():
            self._meter.see(machine, self._rate(machine), self.provider.now())

    @property
    def begun(self) -> bool:
        """Whether a machine of it was ordered, or found."""
        return self._scheduler is not None

    @property
    def removed(self) -> bool:
        """Whether all of it is gone."""
        return self._removed.is_set()

    @property
    def paid(self) -> str:
        """What a closed cluster cost, as the end of a sentence; empty where nothing costs anything."""
        bill = self._meter.bill()
        if bill.spent == 0 or not self._removed.is_set():
            return ""
        machines = sum(line.machines for line in bill.lines)
        return f": {bill.total} for {machines} machines in {duration(bill.until - (bill.since or 0))}"

    def why(self, id: str, heard: str = "") -> Why:
        """Why a machine of this cluster ended, also by what its scheduler heard; see `CloudCluster.why`."""
        had = {machine.id: machine for machine in self._ever()}
        # The cloud may still know what another manager's fleet had.
        machine = had.get(id) or next(iter(self.provider.describe([id])), None)
        if machine is None:
            near = difflib.get_close_matches(id, had, n=3, cutoff=0.3)
            raise CloudError(
                f"{self.where} has had no machine {id!r} that is known here."
                + (f" Did you mean {' or '.join(near)}?" if near else "")
            )
        return why(machine, self.provider.logs(id, LAST_LINES), heard)

    def look_at_unbilled(self) -> None:
        """Ask the cloud since when machines bill, and until when, where we only have our own guess."""
        ended = self._fleet.ended if self._fleet else {}
        unsettled = ended.keys() - self._settled
        unknown = {machine.id for machine in self._ever() if machine.billed_from is None}
        ids = unsettled | (unknown - self._settled)
        # The scheduler is asked for in any case: the answer says what time it is there.
        ids |= {machine.id for machine in [self._scheduler] if machine}
        self._note(self.provider.describe(ids) if ids else [], asked=ids)

    def _note(self, machines: Collection[Machine], asked: Collection[str]) -> None:
        """Keep what the cloud says of machines; what it no longer knows is settled with our guess."""
        fleet, said = self._fleet, {machine.id: machine for machine in machines}
        for id, machine in said.items():
            if self._scheduler and id == self._scheduler.id:
                self._scheduler = machine
            elif fleet and id in fleet.ended:
                before = fleet.ended[id]
                fleet.ended[id] = dataclasses.replace(
                    before,
                    billed_from=machine.billed_from or before.billed_from,
                    ended=machine.ended or before.ended,
                )
                self._settled |= {id} if machine.ended else set()
            elif fleet and id in fleet.machines:
                fleet.machines[id] = machine
        if fleet:
            self._settled |= {id for id in asked if id in fleet.ended and id not in said}

    def reconcile(
        self, arrived: Collection[str], leaving: Mapping[str, Notice] | None = None
    ) -> CloudError | None:
        """One pass of the fleet, and now and then a look at what has ended, before the cloud forgets it."""
        refusal = self.fleet.reconcile(arrived, leaving)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_S
            if self.fleet.ended.keys() - self._settled:
                self.look_at_unbilled()
        return refusal

    def _ever(self) -> list[Machine]:
        """Every machine there has been."""
        own = [self._scheduler] if self._scheduler else []
        fleet = self._fleet
        return [*own, *list(fleet.machines.values()), *list(fleet.ended.values())] if fleet else own

    # -- how it goes -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Make and order nothing from now on, not even in a call that is under way."""
        self._stopping.set()
        if self._fleet:
            self._fleet.stop()

    def remove(self) -> None:
        """Delete what we know of, and sweep what we do not; once."""
        if self._provider is None or self._removed.is_set():
            return
        self.stop()
        known = [machine.id for machine in ([self._scheduler] if self._scheduler else [])]
        if self._fleet:
            self._fleet.settle()
            known += self._fleet.machines
        if known:
            self._provider.delete(known)
        swept = self._provider.sweep(self.identity.name)
        # What the cloud says of our machines' ends: the receipt wants it to the second.
        unsettled = {machine.id for machine in self._ever()} - self._settled
        described = self._provider.describe(unsettled) if unsettled else []
        self._note(described, asked=unsettled)
        for machine in [*self._ever(), *described]:
            self._meter.see(machine, self._rate(machine), self._provider.now())
        if swept.left:
            self.events.emit(Phase.closing, f"Left for the next sweep: {', '.join(swept.left)}.")
        self._meter.close(self._provider.now())
        self._removed.set()


def _priced_by(machine: Machine) -> tuple[str, str, str, str | None]:
    """What a machine's price depends on, within one cluster."""
    return machine.role, machine.kind, machine.market, machine.zone
