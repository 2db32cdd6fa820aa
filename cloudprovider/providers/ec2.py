"""Dask on Amazon EC2: one machine is one instance, ordered by the hundred in a call."""

from __future__ import annotations

import dataclasses
import re
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import templates
from cloudprovider.errors import CapacityError, CloudError, QuotaError
from cloudprovider.provider import Created, Machine, Provider, State, Swept
from cloudprovider.providers import _aws_ends, _aws_names, _ec2_boot, _ec2_manager, _vm_boot
from cloudprovider.providers import _aws_starts as shared
from cloudprovider.providers import _ec2_ends as ends
from cloudprovider.providers import _ec2_landing as land
from cloudprovider.providers import _ec2_names as names
from cloudprovider.providers import _ec2_starts as starts
from cloudprovider.providers import _ec2_wire as wire
from cloudprovider.providers._aws import AWS, code
from cloudprovider.providers._aws_landing import LOG_GROUP
from cloudprovider.providers._aws_wire import sources_of
from cloudprovider.providers._calls import Pace, side_by_side
from cloudprovider.providers._ec2_config import EC2Config
from cloudprovider.providers._ec2_plan import Plan
from cloudprovider.security import Secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.provider import Identity, Quota
    from cloudprovider.tunnel import Tunnel

__all__ = ["EC2Config", "EC2Provider", "policy"]

#: Machines of one CreateFleet: what an account may launch at once.
MAX_CREATE = 1000
#: Seconds in which the group of a cluster that died may go.
LEFT_PATIENCE_S = 5.0
#: Seconds that the question for quotas waits for the types to be chosen.
PLAN_S = 30.0
#: Refusals after which the scheduler's next type or zone is tried.
ELSEWHERE = ("Unsupported", "UnsupportedOperation")
LOST_TEMPLATE = r"InvalidLaunchTemplate(Name|Id)"


def policy(name: str = "aws-ec2", **values: str) -> str:
    """A policy as JSON: what a manager needs (`aws-ec2`), what makes the landing, or a role's own.

    Parameters
    ----------
    name
        Of a file under `templates/policies`.
    **values
        `account`, `region`, `partition`, `log_group`, and of an autonomous cluster's role `cluster_name` and
        `machine_role`; all have defaults.
    """
    holes = {
        "account": "*",
        "region": "*",
        "partition": "aws",
        "cluster_name": "*",
        "log_group": LOG_GROUP,
        **values,
    }
    worker = f"arn:{holes['partition']}:iam::{holes['account']}:role/{land.MACHINE.name}"
    return templates.render(f"policies/{name}.json", **{"machine_role": worker, **holes})


class EC2Provider(Provider):
    """Machines are instances. Thread-safe; one object serves one cluster, and finds any other."""

    config: EC2Config
    wave = MAX_CREATE
    look = ends.MAX_IDS
    boot_s = 45.0
    #: Seconds a sweep waits for the machines' interfaces to go; 150 is the longest its services take to stop.
    patience_s = 240.0

    def __init__(self, config: EC2Config, identity: Identity) -> None:
        super().__init__(config, identity)
        self.aws = AWS(config.region, policy="aws-ec2")
        # https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
        self._launches = Pace(config.launch_burst, config.launch_rate)
        self._plan: Plan | None = None
        self._planned = threading.Event()
        self._group: str | None = None
        self._zone: str | None = None  # the scheduler's
        self._spot: dict[tuple[str, str], float | None] = {}  # prices an hour by type and zone
        self._template: Boot | None = None  # what the launch template boots
        self._templating = threading.Lock()
        self._claimed: bool | None = None  # None: prepare() has not been tried

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        """Find or make the landing, and make what the cluster owns before its first machine."""
        # What there may be of this name is not ours before it is claimed.
        self._claimed = bool(self._claimed)
        if self.config.tunnel:
            from cloudprovider.providers import _ec2_tunnel

            _ec2_tunnel.plugin()
        self.config = _vm_boot.settled(self.config)
        made = starts.booting(self.config, boots)
        (choices, images), landing, known, *_ = side_by_side(
            [
                partial(starts.choose, self.aws, self.config),
                partial(land.find_or_make, self.aws, self.config),
                partial(starts.check_image, self.config, made),
                partial(self._claim, secrets.client),
                *(partial(_ec2_boot.pack, boot) for boot in made),
            ]
        )
        starts.check_architectures(choices, made, known)
        self.chosen = tuple(f"{role.capitalize()}: {choices[role].reason}" for role in _aws_names.ROLES)
        mine = self.aws, self.config, self.identity
        own_role = self.config.autonomous and self.config.scheduler_role is None
        if own_role:
            landing = _ec2_manager.with_role(self.aws, self.identity, landing)
        self._plan = starts.planned(self.config, self.identity, landing, choices, images, made)
        self._planned.set()
        self._group, *_ = side_by_side(
            [
                partial(shared.make_group, *mine, landing.network.vpc, self.config.sources()),
                *(
                    partial(shared.store, *mine, whose, value)
                    for whose, value in _ec2_boot.secrets(secrets.machine, made).items()
                ),
                partial(starts.store, *mine, self._plan),
            ]
        )
        if own_role:  # after the group, which says that there is one
            _ec2_manager.make_role(*mine, landing)
        return tuple(self._plan.boots.values())

    def attach(self) -> Secrets:
        """Find the cluster of this name, and read its client secret."""
        cluster = self.identity.name
        client = {"Name": _aws_names.parameter(cluster, "client"), "WithDecryption": True}
        stored, parts, groups = side_by_side(
            [
                partial(self.aws.call, "ssm", "get_parameter", fine=["ParameterNotFound"], **client),
                self._stored_plan,
                partial(_aws_ends.groups_of, self.aws, cluster),
            ]
        )
        if not stored or not parts:
            there = ", ".join(ends.clusters(self.aws)) or "none"
            raise CloudError(f"There is no cluster {cluster!r} on EC2 in {self.aws.region}. There: {there}.")
        self._read(parts)
        self._group = next((group["GroupId"] for group in groups), None)
        if self.config.allow_from is None and groups:
            self.config = dataclasses.replace(self.config, allow_from=tuple(sources_of(groups[0])))
        return Secrets(client=stored["Parameter"]["Value"])

    def resume(self) -> None:
        """Find the cluster as the manager beside its scheduler does, which needs no secret and no way in."""
        if not (parts := self._stored_plan()):
            raise CloudError(f"Cluster {self.identity.name!r} has no plan any more in {self.aws.region}.")
        self._read(parts)

    def _stored_plan(self) -> Sequence[Mapping[str, Any]]:
        path = f"{_aws_names.parameter(self.identity.name, names.PLAN)}/"
        request = {"Path": path, "WithDecryption": True}
        return self.aws.pages("ssm", "get_parameters_by_path", "Parameters", **request)

    def _read(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Know the cluster by its stored plan."""
        values = [part["Value"] for part in sorted(parts, key=lambda part: str(part["Name"]))]
        self._plan, options = Plan.loads(values)
        self._planned.set()
        self.identity = self._plan.identity
        self.config = dataclasses.replace(self.config, **options)

    def boot(self, role: str) -> Boot:
        """The boot this cluster's machines of a role run, after `prepare`, `attach` or `resume`."""
        return self._made.boots[role]

    def create(self, boot: Boot, count: int) -> Created:
        """Order `count` machines, in the first market, zone and type that have them."""
        if boot.role == "scheduler":
            return self._create_schedulers(boot, count)
        made: list[Machine] = []
        refused: CloudError | None = None
        for market in self.config.markets(boot.role):
            if len(made) < count:
                some, refused = self._order(boot, count - len(made), market)
                made += some
            if not isinstance(refused, (CapacityError, QuotaError)):
                break
        if refused is None or len(made) >= count:
            return Created(machines=tuple(made))
        if isinstance(refused, CapacityError) and self.config.markets(boot.role) == ("spot",):
            refused = CapacityError(f"{refused} spot='fallback' orders on demand what spot refuses.")
        return Created(machines=tuple(made), refusal=self._short(refused, len(made), count))

    def describe(self, ids: Collection[str]) -> list[Machine]:
        """What EC2 says of these machines, 1,000 a call."""
        return [*self._noted(wire.machine(instance) for instance in ends.described(self.aws, ids))]

    def delete(self, ids: Collection[str]) -> None:
        """End these machines; unknown ids are no error."""
        ends.terminate(self.aws, ids)

    def list(self, cluster: str | None = None) -> list[Machine]:
        """Live machines of a cluster, or of every cluster in the account, by tag."""
        found = self._noted(wire.machine(instance) for instance in ends.living(self.aws, cluster))
        return [machine for machine in found if machine.state is not State.gone]

    def ended(self, cluster: str) -> Sequence[Machine]:
        """Machines of a cluster that have ended, for as long as EC2 remembers them: about an hour."""
        return [*map(wire.machine, ends.dead(self.aws, cluster))]

    def sweep(self, cluster: str) -> Swept:
        """Remove everything of this cluster, machines first; the landing stays."""
        if self._claimed is False and cluster == self.identity.name:
            return Swept()  # the name may be somebody else's, and nothing under it is ours
        return ends.sweep(self.aws, cluster, self.patience_s)

    def expired(self) -> tuple[str, ...]:
        """The clusters whose `expires` has passed, and that have left something but no live machine."""
        return tuple(name for name in ends.expired(self.aws) if not self.list(name))

    def sweep_expired(self) -> tuple[str, ...]:
        """Remove what `expired` clusters left; return their names."""
        return _aws_ends.swept(self.expired(), partial(ends.sweep, self.aws, patience_s=1.0))

    def allow(self, sources: Collection[str]) -> None:
        """Make the scheduler's ingress rules exactly these CIDR sources."""
        shared.allow(self.aws, self.identity.name, sources)

    def logs(self, id: str, lines: int = 100) -> str:
        """The last log lines of one machine, dead or alive: of its container, or else of its console.

        Those of a manager beside it stand first.
        """
        group = self._plan.landing.log_group if self._plan else self.config.log_group or LOG_GROUP

        def read(part: str = "") -> str:
            return _aws_ends.log_lines(self.aws, group, names.log_stream(self.identity.name, id, part), lines)

        manager = read(names.MANAGER) if self.config.autonomous else ""
        return "\n".join(filter(None, (manager, read() or ends.console(self.aws, id, lines))))

    def tunnel(self, machine: Machine) -> Tunnel:
        """The way to a scheduler through AWS Systems Manager, with no rule open to anybody; not opened yet."""
        from cloudprovider.providers import _ec2_tunnel

        return _ec2_tunnel.tunnel(self.aws, machine.id, machine.private_address or "")

    def rate(self, machine: Machine) -> Rate:
        """What a machine costs while it bills."""
        from cloudprovider.prices import ec2_rate

        return ec2_rate(
            self.aws.region,
            machine.kind,
            machine.market,
            disk_gib=self._plan.kinds[machine.role].disk_gib if self._plan else 0,
            public=self.config.public,
            spot_price=self._spot_price(machine) if machine.market == "spot" else None,
        )

    def _spot_price(self, machine: Machine) -> float | None:
        """What a machine's type cost in its zone when it was first asked for; None when EC2 does not say."""
        from cloudprovider.providers._ec2_types import spot_prices

        pool = machine.kind, machine.zone or ""
        if pool not in self._spot:
            known = spot_prices(self.aws, sorted({machine.kind, *self._made.kinds["worker"].types}))
            self._spot = {pool: None, **known, **self._spot}
        return self._spot[pool]

    def likely(self, role: str, market: str = "on-demand") -> Machine:
        """A machine of a role's first type."""
        kind = self._made.kinds[role].types[0]
        return Machine(id="", role=role, state=State.starting, kind=kind, market=market)

    def quotas(self, role: str = "worker") -> Sequence[Quota]:
        """The account's vCPUs for the types of a role, in each of its markets."""
        from cloudprovider.providers._ec2_types import quotas_of

        self._planned.wait(PLAN_S)  # it is asked beside prepare(), which chooses the types first
        sizes = {name: (kind.types[0], kind.vcpu) for name, kind in self._made.kinds.items()}
        return quotas_of(self.aws, sizes, role, self.config.markets(role))

    def now(self) -> float:
        """The time by AWS's clock, as its last answer said."""
        return self.aws.now()

    def diagnosis(self, machine: Machine, logs: str) -> CloudError:
        """What to tell the user of a machine that ended before Dask answered on it."""
        return ends.diagnosis(machine, logs)

    @property
    def _made(self) -> Plan:
        if self._plan is None:
            raise CloudError("Machines were ordered before prepare() or attach().")
        return self._plan

    def _claim(self, secret: str) -> None:
        """Take the cluster's name, and know that it is ours."""
        sweep = partial(ends.sweep, self.aws, self.identity.name, LEFT_PATIENCE_S)
        shared.claim(self.aws, self.config, self.identity, secret, self.list, sweep)
        self._claimed = True

    def _noted(self, machines: Iterable[Machine]) -> Sequence[Machine]:
        """Machines that EC2 described, and the scheduler's zone from among them."""
        found = [*machines]
        for machine in found:
            if machine.role == "scheduler" and machine.cluster == self.identity.name and machine.zone:
                self._zone = machine.zone
        return found

    def _short(self, error: CloudError, made: int, count: int) -> CloudError:
        """Why fewer machines came than were asked for, with how many."""
        kept = f" The cluster keeps the {made}." if made else ""
        return type(error)(f"EC2 in {self.aws.region} started {made} of {count} machines: {error}{kept}")

    # -- the scheduler -----------------------------------------------------------------------------------

    def _create_schedulers(self, boot: Boot, count: int) -> Created:
        """Order by RunInstances, whose answer has the private address: workers can be ordered at once."""
        made: list[Machine] = []
        for _ in range(count):
            try:
                made.append(self._run(boot))
            except CloudError as error:
                return Created(machines=tuple(made), refusal=self._short(error, len(made), count))
        return Created(machines=tuple(made))

    def _run(self, boot: Boot) -> Machine:
        """Start one machine in the first zone that has one of its types."""
        plan, user_data = self._made, starts.user_data(self.aws, self.config, self.identity, boot, self._made)
        refused: CloudError = CapacityError("No zone has a type for it.")
        for pool in plan.pools(boot.role):
            self._launches.take()
            request = wire.run_instances_request(
                self.config,
                self.identity,
                boot,
                plan,
                pool=pool,
                token=uuid.uuid4().hex,
                user_data=user_data,
                groups=[self._group] if self._group else (),
            )
            call = partial(self.aws.call, "ec2", "run_instances", **request)
            try:
                [instance] = shared.patiently(call, fresh=plan.landing.fresh)["Instances"]
            except CloudError as error:
                refused = error
                if not isinstance(error, CapacityError) and code(error) not in ELSEWHERE:
                    raise
            else:
                [machine] = self._noted([wire.machine(instance)])
                return machine
        raise refused

    # -- workers -----------------------------------------------------------------------------------------

    def _order(self, boot: Boot, count: int, market: str) -> tuple[Sequence[Machine], CloudError | None]:
        """Order on one market, 1,000 a call; stop at the first refusal."""
        made: list[Machine] = []
        while len(made) < count:
            size = min(MAX_CREATE, count - len(made))
            self._launches.take(size)
            try:
                some, refused = self._fleet(boot, size, market)
            except CloudError as error:
                some, refused = [], error
            made += some
            if refused is not None:
                return made, refused
        return made, None

    def _fleet(self, boot: Boot, count: int, market: str) -> tuple[Sequence[Machine], CloudError | None]:
        """One CreateFleet call, and another when its launch template was deleted under us."""
        self._ensure_template(boot)
        try:
            return self._ask(boot, count, market)
        except CloudError as error:
            if not re.search(LOST_TEMPLATE, str(error)):
                raise
        self._template = None
        self._ensure_template(boot)
        return self._ask(boot, count, market)

    def _ask(self, boot: Boot, count: int, market: str) -> tuple[Sequence[Machine], CloudError | None]:
        plan, zones = self._made, self._zones
        order = partial(self._create_fleet, boot, count, market, zones)
        answer = shared.patiently(order, fresh=plan.landing.fresh)
        machines = wire.ordered(answer, self.identity, boot, plan, self.aws.now())
        return machines, None if len(machines) >= count else starts.refusal(self.aws, answer, plan)

    def _create_fleet(self, boot: Boot, count: int, market: str, zones: Sequence[str]) -> dict[str, Any]:
        """The answer of a CreateFleet call that started anything; else why it did not."""
        request = wire.create_fleet_request(
            self.config,
            self.identity,
            boot,
            self._made,
            count,
            market=market,
            zones=zones,
            token=uuid.uuid4().hex,  # a second call with the same one gets the first one's answer
        )
        answer = self.aws.call("ec2", "create_fleet", **request)
        if not answer.get("Instances"):
            raise starts.refusal(self.aws, answer, self._made)
        return answer

    def _ensure_template(self, boot: Boot) -> None:
        """Make the workers' launch template, which says where their scheduler is."""
        with self._templating:
            if self._template == boot:
                return
            if self._template is not None:
                ends.delete_templates(self.aws, self.identity.name)
            mine = self.aws, self.config, self.identity
            starts.make_template(*mine, boot, self._made, uuid.uuid4().hex)
            self._template = boot

    @property
    def _zones(self) -> Sequence[str]:
        """Where workers may be: in the scheduler's zone, for traffic between zones is slower and costs."""
        plan = self._made
        if starts.several_zones(self.config):
            return plan.zones
        if self._zone is None:
            self.list(self.identity.name)
        return (self._zone or plan.zones[0],)
