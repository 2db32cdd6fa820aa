"""Dask on Amazon ECS: one machine is one task, on Fargate or on the ECS cluster's own capacity."""

from __future__ import annotations

import dataclasses
import re
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider import tags as ledger
from cloudprovider import templates
from cloudprovider.errors import CapacityError, CloudError, CredentialsError, QuotaError
from cloudprovider.images import default_image, require_image
from cloudprovider.provider import Created, Machine, Provider, State, Swept
from cloudprovider.providers import _aws_ends, _aws_names, _ecs_manager
from cloudprovider.providers import _aws_starts as starts
from cloudprovider.providers import _ecs_ends as ends
from cloudprovider.providers import _ecs_landing as land
from cloudprovider.providers import _ecs_names as names
from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._aws import AWS
from cloudprovider.providers._aws_landing import LOG_GROUP
from cloudprovider.providers._aws_quotas import FARGATE, Share, quotas
from cloudprovider.providers._aws_wire import sources_of
from cloudprovider.providers._calls import Pace, side_by_side
from cloudprovider.providers._ecs_config import GB, ECSConfig, FargateConfig, config_for
from cloudprovider.providers._ecs_starts import register
from cloudprovider.security import Secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.provider import Identity, Quota
    from cloudprovider.providers._ecs_config import TaskConfig
    from cloudprovider.tunnel import Tunnel

__all__ = ["ECSConfig", "ECSProvider", "FargateConfig", "policy"]

#: Seconds in which the group of a cluster that died may go.
LEFT_PATIENCE_S = 5.0
MAX_CREATE = 10  # RunTask: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html


def policy(name: str = "aws-fargate", **values: str) -> str:
    """A policy as JSON: what a manager needs (`aws-fargate`), what makes the landing, or a role's own.

    Parameters
    ----------
    name
        Of a file under `templates/policies`.
    **values
        `account`, `region`, `partition`, `ecs_cluster`, `log_group`, and of an autonomous cluster's role
        `cluster_name`, `execution_role`, `task_role`; all have defaults.
    """
    holes = {
        "account": "*",
        "region": "*",
        "partition": "aws",
        "cluster_name": "*",
        "ecs_cluster": land.ECS_CLUSTER,
        "log_group": LOG_GROUP,
        **values,
    }
    of_account = f"arn:{holes['partition']}:iam::{holes['account']}:role"
    ours = {
        "execution_role": f"{of_account}/{land.EXECUTION_ROLE}",
        "task_role": f"{of_account}/{land.TASK_ROLE}",
    }
    return templates.render(f"policies/{name}.json", **{**ours, **holes})


class ECSProvider(Provider):
    """Machines are tasks. Thread-safe; one object serves one cluster, and finds any other."""

    config: TaskConfig
    boot_s = 60.0
    #: Seconds a sweep waits for the scheduler's network interface to go; 120 is its `stopTimeout`.
    patience_s = 180.0

    def __init__(self, config: TaskConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.aws = AWS(config.region)
        self._calls = Pace(20, 20)  # RunTask
        # A call counts when it arrives, which no clock of ours knows: one call's machines stay in reserve.
        burst = max(MAX_CREATE, config.launch_burst - MAX_CREATE)
        self._launches = {market: Pace(burst, config.launch_rate) for market in ("spot", "on-demand")}
        self._landing: land.Landing | None = None
        self._boots: dict[str, Boot] = {}
        self._definitions: dict[str, str] = {}
        self._group: str | None = None
        self._public: dict[str, str] = {}
        self._claimed: bool | None = None  # None: prepare() has not been tried
        self._beside = (
            False  # whether this is on the scheduler's machine, which it reaches without a public address
        )

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        """Find or make the landing, and make what the cluster owns before its first machine."""
        # What there may be of this name is not ours before it is claimed.
        self._claimed = bool(self._claimed)
        if self.config.tunnel:
            from cloudprovider.providers import _ecs_tunnel

            _ecs_tunnel.plugin()
        made = tuple(
            dataclasses.replace(
                b, image=b.image or default_image(), secret=f"env:{wire.SECRET}", scheduler=None
            )
            for b in boots
        )
        images = dict.fromkeys(boot.image for boot in made)
        if self.config.autonomous:
            images[_ecs_manager.image(self.config)] = None
        landing, *_ = side_by_side(
            [
                partial(land.find_or_make, self.aws, self.config),
                partial(self._claim, secrets.client),
                *(partial(starts.pack, boot) for boot in made),
                *(partial(require_image, image, self.config.architecture.lower()) for image in images),
            ]
        )
        mine = self.aws, self.config, self.identity
        self._landing = landing
        new = [boot for boot in made if boot.role not in self._definitions]
        # A cluster's own role is made after the group that says so, and its scheduler's definition after that.
        later = [boot for boot in new if boot.autonomous and self.config.scheduler_role is None]
        now = [boot for boot in new if boot not in later]
        self._group, _, *definitions = side_by_side(
            [
                partial(starts.make_group, *mine, landing.network.vpc, self.config.sources()),
                partial(starts.store, *mine, "machine", secrets.machine),
                *(partial(register, *mine, landing, boot) for boot in now),
            ]
        )
        self._definitions |= {boot.role: arn for boot, arn in zip(now, definitions, strict=True)}
        if later:
            self._landing = _ecs_manager.with_role(*mine, landing)
        self._definitions |= {boot.role: register(*mine, self._landing, boot) for boot in later}
        self._boots = {boot.role: boot for boot in made}
        return made

    def attach(self) -> Secrets:
        """Find the cluster of this name, and read its client secret."""
        cluster = self.identity.name
        secret = {"Name": _aws_names.parameter(cluster, "client"), "WithDecryption": True}
        stored, groups, *found = side_by_side(
            [
                partial(self.aws.call, "ssm", "get_parameter", fine=["ParameterNotFound"], **secret),
                partial(_aws_ends.groups_of, self.aws, cluster),
                *(partial(self._definition, cluster, role) for role in _aws_names.ROLES),
            ]
        )
        if not stored or not all(found):
            there = ", ".join(ends.clusters(self.aws)) or "none"
            raise CloudError(f"There is no cluster {cluster!r} in {self.aws.region}. There: {there}.")
        self._read(found)
        self._group = next((group["GroupId"] for group in groups), None)
        if self.config.allow_from is None and groups:
            self.config = dataclasses.replace(self.config, allow_from=tuple(sources_of(groups[0])))
        return Secrets(client=stored["Parameter"]["Value"])

    def resume(self) -> None:
        """Find the cluster as the manager beside its scheduler does, which needs no secret and no way in."""
        cluster = self.identity.name
        found = side_by_side(partial(self._definition, cluster, role) for role in _aws_names.ROLES)
        if not all(found):
            raise CloudError(f"Cluster {cluster!r} has no task definitions any more in {self.aws.region}.")
        self._beside = True
        self._read(found)

    def _read(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Know the cluster by its task definitions."""
        tags = {tag["key"]: tag["value"] for tag in found[0].get("tags", ())}
        self.identity = ledger.identity(tags) or self.identity
        definitions = [answer["taskDefinition"] for answer in found]
        self.config, self._landing = wire.replaced(config_for(self.config, definitions[0]), definitions[0])
        self._boots = {boot.role: boot for boot in map(wire.boot_of, definitions)}
        self._definitions = {
            role: definition["taskDefinitionArn"]
            for role, definition in zip(_aws_names.ROLES, definitions, strict=True)
        }

    def boot(self, role: str) -> Boot:
        """The boot this cluster's machines of a role run, after `prepare`, `attach` or `resume`."""
        return self._boots[role]

    def create(self, boot: Boot, count: int) -> Created:
        """Order `count` machines, on the first market that has them."""
        made: list[Machine] = []
        refused: CloudError | None = None
        for market in self.config.markets(boot.role):
            if len(made) < count:
                some, refused = self._order(boot, count - len(made), market)
                made += some
            if refused is None or not isinstance(refused, (CapacityError, QuotaError)):
                break
        if refused is not None and len(made) < count:
            refused = wire.refusal(refused, len(made), count, self._name)
            if isinstance(refused, CapacityError) and self.config.markets(boot.role) == ("spot",):
                refused = CapacityError(f"{refused} spot='fallback' orders on demand what spot refuses.")
            return Created(machines=tuple(made), refusal=refused)
        return Created(machines=tuple(made))

    def describe(self, ids: Collection[str]) -> list[Machine]:
        """What ECS says of these machines, 100 a call."""
        return self._machines(ends.tasks_of(self.aws, self._where, ids, include=["TAGS"]))

    def _machines(self, tasks: Sequence[Mapping[str, Any]]) -> list[Machine]:
        addresses = self._public_addresses(tasks) if self.config.public and not self._beside else {}
        return [dataclasses.replace(m, public_address=addresses.get(m.id)) for m in map(wire.machine, tasks)]

    def delete(self, ids: Collection[str]) -> None:
        """End these machines; unknown ids are no error."""
        ends.stop(self.aws, self._where, sorted(set(ids)), f"dask {self.identity.name} gave it back")

    def list(self, cluster: str | None = None) -> list[Machine]:
        """Live machines of a cluster, or of every cluster, by tag: of those on the capacity that is ours."""
        return [*self._living(self._places(cluster), cluster, (self.config.compatibility,))]

    def _anywhere(self, cluster: str) -> Sequence[Machine]:
        """Live machines of a cluster, whichever capacity they are on."""
        return self._living(self._places(cluster), cluster)

    def _living(
        self, places: Sequence[str], cluster: str | None, capacity: Collection[str] = ("FARGATE", "EC2")
    ) -> Sequence[Machine]:
        tasks = ends.living(self.aws, places, cluster)
        return [
            machine
            for machine in self._machines([task for task in tasks if task["launchType"] in capacity])
            if machine.state is not State.gone and machine.cluster and cluster in {None, machine.cluster}
        ]

    def ended(self, cluster: str) -> Sequence[Machine]:
        """Machines of a cluster that have ended, for as long as ECS remembers them: about an hour."""
        tasks = ends.stopped(self.aws, self._places(cluster), cluster)
        found = [wire.machine(task) for task in tasks if task["launchType"] == self.config.compatibility]
        return [machine for machine in found if machine.cluster == cluster and machine.state is State.gone]

    def sweep(self, cluster: str) -> Swept:
        """Remove everything of this cluster, machines first; the landing stays."""
        if self._claimed is False and cluster == self.identity.name:
            return Swept()  # the name may be somebody else's, and nothing under it is ours
        return self._sweep(cluster, self.patience_s)

    def _sweep(self, cluster: str, patience_s: float) -> Swept:
        place = self._places(cluster)[-1]
        return ends.sweep(self.aws, place, cluster, partial(self._living, [place], cluster), patience_s)

    def expired(self) -> tuple[str, ...]:
        """The clusters whose `expires` has passed, and that have left something but no live machine."""
        return tuple(name for name in ends.expired(self.aws) if self._is_abandoned(name))

    def sweep_expired(self) -> tuple[str, ...]:
        """Remove what `expired` clusters left; return their names."""
        return _aws_ends.swept(self.expired(), partial(self._sweep, patience_s=1.0))

    def _is_abandoned(self, cluster: str) -> bool:
        try:
            return not self._anywhere(cluster)
        except CredentialsError:  # it is in an ECS cluster of which we may know nothing
            return False

    def allow(self, sources: Collection[str]) -> None:
        """Make the scheduler's ingress rules exactly these CIDR sources."""
        starts.allow(self.aws, self.identity.name, sources)

    def logs(self, id: str, lines: int = 100) -> str:
        """The last log lines of one machine, dead or alive; those of a manager beside it stand first."""
        group = self._landing.log_group if self._landing else self.config.log_group or LOG_GROUP
        parts = (names.MANAGER, names.CONTAINER) if self.config.autonomous else (names.CONTAINER,)
        streams = (names.log_stream(self.identity.name, id, part) for part in parts)
        found = side_by_side(
            partial(_aws_ends.log_lines, self.aws, group, stream, lines) for stream in streams
        )
        return "\n".join(filter(None, found))

    def tunnel(self, machine: Machine) -> Tunnel:
        """The way to a scheduler through ECS Exec, with no rule open to anybody; not opened yet."""
        from cloudprovider.providers import _ecs_tunnel

        return _ecs_tunnel.tunnel(self.aws, self._where, machine.id, machine.private_address or "")

    def rate(self, machine: Machine) -> Rate:
        """What a machine costs while it bills."""
        from cloudprovider.bill import Rate
        from cloudprovider.prices import fargate_rate

        match = re.fullmatch(r"([\d.]+) vCPU, ([\d.]+) GiB, (\w+)(?:, (\d+) GiB disk)?", machine.kind)
        if self.config.compatibility != "FARGATE":
            return Rate(per_hour=0.0, left_out=("the ECS cluster's own container instances",))
        if match is None:
            return Rate(per_hour=0.0, unknown=("a task whose size ECS does not say",))
        vcpu, memory, architecture, storage = match.groups(default="20")
        size = float(vcpu), float(memory), float(storage)
        return fargate_rate(self.aws.region, architecture, machine.market, *size, public=self.config.public)

    def likely(self, role: str, market: str = "on-demand") -> Machine:
        """A task of a role's size."""
        storage = getattr(self.config, "ephemeral_storage", None) if role == "worker" else None
        kind = wire.kind_of(*self.config.size(role), self.config.architecture, storage or 20)
        return Machine(id="", role=role, state=State.starting, kind=kind, market=market)

    def quotas(self, role: str = "worker") -> Sequence[Quota]:
        """Fargate's vCPUs in the markets of a role; container instances have no such limit."""
        if self.config.compatibility != "FARGATE":
            return ()
        each, scheduler = (self.config.size(name)[0] / GB for name in (role, "scheduler"))
        taken = {"on-demand": 0.0 if role == "scheduler" else scheduler}
        shares = [
            Share(code=FARGATE[market], each=each, taken=taken.get(market, 0.0))
            for market in self.config.markets(role)
        ]
        return quotas(self.aws, "fargate", shares)

    def now(self) -> float:
        """The time by AWS's clock, as its last answer said."""
        return self.aws.now()

    def diagnosis(self, machine: Machine, logs: str) -> CloudError:
        """What to tell the user of a machine that ended before Dask answered on it."""
        return ends.diagnosis(machine, logs)

    @property
    def _where(self) -> str:
        return self._landing.ecs_cluster if self._landing else self.config.ecs_cluster or land.ECS_CLUSTER

    def _places(self, cluster: str | None) -> Sequence[str]:
        """The ECS clusters that may have a cluster's machines: our own cluster's are where we put them."""
        if self._landing and cluster == self.identity.name:
            return [self._where]
        return ends.places(self.aws, self._where, cluster)

    @property
    def _name(self) -> str:
        service = "Fargate" if self.config.compatibility == "FARGATE" else f"ECS cluster {self._where}"
        return f"{service} in {self.aws.region}"

    @property
    def _placed(self) -> land.Landing:
        if self._landing is None:
            raise CloudError("Machines were ordered before prepare() or attach().")
        return self._landing

    def _claim(self, secret: str) -> None:
        """Take the cluster's name, and know that it is ours."""
        name = self.identity.name
        sweep = partial(ends.sweep, self.aws, self._where, name, list, LEFT_PATIENCE_S)
        starts.claim(self.aws, self.config, self.identity, secret, self._anywhere, sweep)
        self._claimed = True

    def _order(self, boot: Boot, count: int, market: str) -> tuple[Sequence[Machine], CloudError | None]:
        """Order on one market, 10 a call, several calls side by side; stop at the first refusal."""
        over = threading.Event()
        sizes = [min(MAX_CREATE, count - start) for start in range(0, count, MAX_CREATE)]
        answers = side_by_side(partial(self._run, boot, size, market, over) for size in sizes)
        machines = [machine for some, _ in answers for machine in some]
        return machines, next((refused for _, refused in answers if refused), None)

    def _run(
        self, boot: Boot, count: int, market: str, over: threading.Event
    ) -> tuple[Sequence[Machine], CloudError | None]:
        """One RunTask call."""
        if over.is_set():
            return [], None
        self._calls.take()
        self._launches[market].take(count)
        request = wire.run_task_request(
            self.config,
            self.identity,
            boot,
            self._placed,
            count,
            market=market,
            token=uuid.uuid4().hex,
            definition=self._definitions.get(boot.role, ""),
            groups=[self._group] if self._group and boot.role == "scheduler" else (),
        )
        try:
            answer = starts.patiently(
                partial(self.aws.call, "ecs", "run_task", **request), fresh=self._placed.fresh
            )
        except CloudError as error:
            over.set()
            return [], error
        tasks = answer.get("tasks", ())
        if len(tasks) == count:
            return [self._own(task, boot, market) for task in tasks], None
        over.set()
        return [self._own(task, boot, market) for task in tasks], wire.failure(answer.get("failures", ()))

    def _own(self, task: Mapping[str, Any], boot: Boot, market: str) -> Machine:
        """A task of a RunTask answer, which need not show its tags yet."""
        return dataclasses.replace(
            wire.machine(task),
            role=boot.role,
            group=boot.group,
            cluster=self.identity.name,
            market=market,
            expires=self.identity.expires,
        )

    def _public_addresses(self, tasks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The public addresses of schedulers, each looked up once."""
        wanted = {
            interface: id
            for id, interface in wire.scheduler_interfaces(tasks).items()
            if id not in self._public
        }
        if wanted:
            answer = self.aws.call(
                "ec2",
                "describe_network_interfaces",
                fine=["InvalidNetworkInterfaceID.NotFound"],
                NetworkInterfaceIds=sorted(wanted),
            )
            for interface in answer.get("NetworkInterfaces", ()):
                if address := interface.get("Association", {}).get("PublicIp"):
                    self._public[wanted[interface["NetworkInterfaceId"]]] = address
        return dict(self._public)

    def _definition(self, cluster: str, role: str) -> dict[str, Any]:
        return self.aws.call(
            "ecs",
            "describe_task_definition",
            taskDefinition=names.family(cluster, role),
            include=["TAGS"],
            fine=["ClientException"],
        )
