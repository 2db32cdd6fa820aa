"""The whole life of a manager as steps, and which right each step needs: measured by leaving rights out."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import boto3
from contract import until

from cloudprovider.emulator.aws_policy import Need, allows
from cloudprovider.errors import CloudError
from cloudprovider.policies import Wanted, document, listed
from cloudprovider.provider import State
from cloudprovider.providers import _gcp, azure, ec2, ecs, gce
from cloudprovider.security import make_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

ACCOUNT, REGION = "123456789012", "us-east-1"
WHO = "manager"

Policy = dict[str, Any]
Key = tuple[str, str, str]  # the policy, its part, and the action


@dataclass
class Life:
    """What a manager does on one service, in steps that can each be tried again.

    Parameters
    ----------
    cloud
        The embedded AWS.
    name
        Of the cluster.
    """

    cloud: Any
    name: str = "it"
    cloud_name: ClassVar[str] = "aws"
    policies: ClassVar[tuple[str, ...]]
    options: ClassVar[Mapping[str, Any]]
    made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def shipped(cls) -> dict[str, Policy]:
        """The policies of its managers, as `dask cloud policy` prints them."""
        return {name: policy(name) for name in cls.policies}

    @classmethod
    def rights(cls) -> dict[Key, Any]:
        """Each single right of its policies."""
        return {
            (name, statement["Sid"], action): {**statement, "Action": action}
            for name, document in cls.shipped().items()
            for statement, action in statements(document)
        }

    @classmethod
    def listed(cls) -> list[Key]:
        """The rights that are this life's to show."""
        return [*cls.rights()]

    def allowing(self, rights: list[Any]) -> Policy:
        """A policy of these rights."""
        return {"Version": "2012-10-17", "Statement": rights}

    def helps(self, right: Any, need: Need) -> bool:
        """Whether a right is what is needed."""
        return allows([{"Statement": [right]}], need)

    def begun(self) -> Life:
        """With what its user would have made, by the account's own credentials."""
        return self

    def landed(self) -> Life:
        """With a landing that somebody has made, and the roles that services make at a first order."""
        self.begun()
        first = type(self)(self.cloud, "first")
        for step in ("prepare", "scheduler", "workers"):
            first.steps[step]()
        return self

    def again(self, step: str) -> None:
        """Make a step that was refused midway one that can be tried again, by the account's own credentials."""

    def provider(self, name: str = "") -> Any:
        """A provider of this cluster as another process would make it, by the same credentials."""
        raise NotImplementedError

    @property
    def steps(self) -> dict[str, Callable[[], Any]]:
        """The steps in their order."""
        return {
            "prepare": self.prepare,
            "quotas": self.quotas,
            "scheduler": self.scheduler,
            "workers": self.workers,
            "arrival": self.arrival,
            "allow": lambda: self.first.allow(["203.0.113.5/32"]),
            "logs": lambda: self.first.logs(self.made["scheduler"].id),
            "cost": lambda: [self.first.rate(worker) for worker in self.made["workers"]],
            "attach": self.attach,
            "list": lambda: self.provider("other").list(),
            "a machine that is lost": self.lose,
            "scale down": lambda: self.first.delete([self.made["workers"][0].id]),
            "prepare again": self.prepare,
            "a name that is taken": self.taken,
            "no such name": self.no_such_name,
            "sweep what expired": lambda: self.provider("other").sweep_expired(),
            "sweep": self.sweep,
        }

    # -- the steps -----------------------------------------------------------------------------------------

    @property
    def first(self) -> Any:
        """The provider that started the cluster."""
        return self.made["provider"]

    def prepare(self) -> None:
        provider = self.made.setdefault("provider", self.provider())
        secrets = self.made.setdefault("secrets", make_secrets(provider.identity))
        boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, secrets)

    def quotas(self) -> None:
        self.first.quotas()

    def scheduler(self) -> None:
        created = self.first.create(self.first.boot("scheduler"), 1)
        if created.refusal:
            raise created.refusal
        [self.made["scheduler"]] = created.machines

    def workers(self) -> None:
        boot = dataclasses.replace(self.first.boot("worker"), scheduler="tls://10.0.0.5:8786")
        created = self.first.create(boot, 2)
        if created.refusal:
            raise created.refusal
        self.made["workers"] = created.machines

    def arrival(self) -> None:
        until(lambda: self.first.describe([self.made["scheduler"].id])[0].private_address, 30, "an address")

    def lose(self) -> None:
        victim = self.made["workers"][1].id
        if "lost" not in self.made:
            until(lambda: self.first.describe([victim]), 30, "it is seen")
            self.cloud.kill(victim)
            self.made["lost"] = victim
        until(lambda: self._is_gone(victim), 30, "the loss is seen")

    def _is_gone(self, id: str) -> bool:
        found = self.first.describe([id])
        return bool(found) and found[0].state is State.gone

    def attach(self) -> None:
        self.made["attached"] = self.provider()
        self.made["attached"].attach()
        assert self.made["attached"].list(self.name)

    def taken(self) -> None:
        stranger = self.provider()
        stranger.identity = dataclasses.replace(stranger.identity, owner="stranger")
        boots = [stranger.config.boot_for(role, stranger.identity) for role in ("scheduler", "worker")]
        with _only("already"):
            stranger.prepare(boots, make_secrets(stranger.identity))

    def no_such_name(self) -> None:
        with _only("There is no cluster"):
            self.provider("nobody").attach()

    def sweep(self) -> None:
        swept = self.made["attached"].sweep(self.name)
        assert not swept.left


@contextlib.contextmanager
def _only(said: str) -> Iterator[None]:
    """Let an error of these words pass, and no other."""
    try:
        yield
    except CloudError as error:
        if said not in str(error):
            raise


class Fargate(Life):
    """On Fargate."""

    policies = ("aws-fargate", "aws-fargate-landing")
    options: ClassVar = {"spot": "fallback"}
    config: ClassVar[Any] = ecs.FargateConfig

    def provider(self, name: str = "") -> ecs.ECSProvider:
        config = self.config.of(name=name or self.name, allow_from="127.0.0.1/32", **self.options)
        provider = ecs.ECSProvider(config, config.identity())
        provider.aws = self.made.setdefault("aws", provider.aws)
        return provider


class ECS(Fargate):
    """On container instances of the user's."""

    policies = ("aws-ecs", "aws-ecs-landing")
    options: ClassVar = {"ecs_cluster": "batch"}
    config = ecs.ECSConfig

    def begun(self) -> Life:
        boto3.client("ecs").create_cluster(clusterName="batch")
        self.cloud.add_container_instance("batch", cpu=16, memory=64, interfaces=8)
        return self


class EC2(Life):
    """On EC2."""

    policies = ("aws-ec2", "aws-ec2-landing")
    options: ClassVar = {
        "spot": "fallback",
        "instance_type": "m7i.large",
        "scheduler_instance_type": "c7i.large",
        "image": "registry.example/dask-cloud-runtime:1",
    }

    def begun(self) -> Life:
        self.cloud.add_image("registry.example/dask-cloud-runtime:1", carries_runtime=True)
        return self

    def provider(self, name: str = "") -> ec2.EC2Provider:
        config = ec2.EC2Config.of(name=name or self.name, allow_from="127.0.0.1/32", **self.options)
        provider = ec2.EC2Provider(config, config.identity())
        provider.aws = self.made.setdefault("aws", provider.aws)
        return provider


class GCP(Life):
    """On Google Compute Engine."""

    cloud_name = "gcp"
    policies = ("gcp", "gcp-landing")
    options: ClassVar = {
        "instance_type": "n2-standard-2",
        "scheduler_instance_type": "e2-standard-2",
        "spot": "fallback",
    }
    key = "includedPermissions"

    def provider(self, name: str = "") -> Any:
        config = gce.GCPConfig.of(name=name or self.name, allow_from="127.0.0.1/32", **self.options)
        provider = gce.GCEProvider(config, config.identity())
        provider.gcp = self.made.setdefault("gcp", provider.gcp)
        return provider

    def begun(self) -> Life:
        self.made["owner"] = _gcp.GCP()
        self.made["owner"].call("projects", "get")  # its credentials are found now
        return self

    def again(self, step: str) -> None:
        """Remove a scheduler that was ordered, and whose operation nobody could look at."""
        owner = self.made["owner"]
        for page in owner.pages("instances", "aggregated_list") if step == "scheduler" else ():
            for one in [one for scope in page.items.values() for one in scope.instances]:
                zone = one.zone.rpartition("/")[2]
                owner.done(owner.change("instances", "delete", zone=zone, instance=one.name))

    @classmethod
    def rights(cls) -> dict[Key, Any]:
        return {(name, cls.key, one): one for name, role in cls.shipped().items() for one in role[cls.key]}

    def allowing(self, rights: list[Any]) -> Policy:
        return {self.key: rights}

    def helps(self, right: Any, need: Need) -> bool:
        return bool(right == need.action)


class GCPBelow(GCP):
    """On Google Compute Engine, with machines under an account of the user's: no rights are given then."""

    policies = ("gcp",)

    def landed(self) -> Life:
        GCP(self.cloud, "first").prepare()
        return self.begun()

    options: ClassVar = {
        **GCP.options,
        "service_account": "dask-machine@dask-emulated.iam.gserviceaccount.com",
    }


class Azure(Life):
    """On Azure's virtual machines."""

    cloud_name = "azure"
    policies = ("azure", "azure-offers")
    options: ClassVar = {
        "instance_type": "Standard_D2s_v5",
        "scheduler_instance_type": "Standard_D2s_v5",
        "spot": "fallback",
    }

    def begun(self) -> Life:
        Azure(self.cloud, "first").prepare()
        return self

    landed = begun

    def provider(self, name: str = "") -> Any:
        config = azure.AzureVMConfig.of(name=name or self.name, allow_from="127.0.0.1/32", **self.options)
        provider = azure.AzureProvider(config, config.identity())
        provider.azure = self.made.setdefault("azure", provider.azure)
        return provider

    @classmethod
    def rights(cls) -> dict[Key, Any]:
        return {
            (name, kind, one): (kind, one)
            for name, role in cls.shipped().items()
            for kind in ("Actions", "DataActions")
            for one in role.get(kind, ())
        }

    def allowing(self, rights: list[Any]) -> Policy:
        return {kind: [one for other, one in rights if other == kind] for kind in ("Actions", "DataActions")}

    def helps(self, right: Any, need: Need) -> bool:
        return bool(right[1].lower() == need.action.lower())


class AzureLanding(Azure):
    """The first cluster of a resource group."""

    policies = ("azure-landing", "azure", "azure-offers")

    @classmethod
    def listed(cls) -> list[Key]:
        return [key for key in cls.rights() if key[0] == "azure-landing"]

    @property
    def steps(self) -> dict[str, Callable[[], Any]]:
        return {"prepare": self.prepare}

    def begun(self) -> Life:
        return self


# -- what is measured --------------------------------------------------------------------------------------


@dataclass
class Grown:
    """What came of a life that began without any right, and was given each that it was refused.

    Parameters
    ----------
    said
        Of each action that it was given, the error by which it was missed; empty where none was raised.
    needs
        All that the calls of the life needed.
    """

    said: dict[Key, str] = field(default_factory=dict)
    needs: list[Need] = field(default_factory=list)


def statements(document: Policy) -> Iterator[tuple[Policy, str]]:
    """Each statement of a policy with each of its actions."""
    for statement in document["Statement"]:
        for action in listed(statement["Action"]):
            yield statement, action


def policy(name: str, **options: Any) -> Policy:
    """A policy as `dask cloud policy` prints it for this account."""
    account = "*" if name.startswith("azure") else ACCOUNT
    return document(name, Wanted(account=account, region=REGION, **options))


def covers(document: Policy, sid: str, part: dict[str, Any], needs: list[Need]) -> bool:
    """Whether a part of a statement allows anything that a life needed."""
    statement = next(one for one in document["Statement"] if one["Sid"] == sid)
    return any(allows([{"Statement": [{**statement, **part}]}], need) for need in needs)


def grow(cloud: Any, life: Life, tolerated: Collection[str] = ()) -> Grown:
    """Live a whole life by what shipped policies allow, given right by right as the cloud refuses it.

    A refusal that no shipped policy can help is raised: a life needs more than they allow. What is `tolerated` makes
    no error, and is given at once.
    """
    grown, rights = Grown(), life.rights()
    given: dict[Key, Any] = {}
    with cloud.active(cloud.login(life.allowing([]), name=WHO)):
        for name, step in life.steps.items():
            while True:
                before = len(cloud.calls)
                said = _attempt(step)
                denied = [call for call in cloud.calls[before:] if call.denied]
                if not denied:
                    break
                lacking = {}
                for call in denied:
                    for key, right in rights.items():
                        if key not in given and life.helps(right, _need(call)):
                            lacking.setdefault(call.denied, key)
                assert lacking, f"No shipped policy allows what {name} needs: {denied[0].needs[-1]}"
                key = next(
                    (key for action, key in lacking.items() if action in said), next(iter(lacking.values()))
                )
                unsaid = {key: "" for action, key in lacking.items() if action in tolerated}
                grown.said |= unsaid or {key: said}
                given |= {key: rights[key] for key in unsaid or [key]}
                cloud.login(life.allowing([*given.values()]), name=WHO)
                life.again(name)
            assert not said, f"{name}: {said}"
    grown.needs += [_need(call, one) for call in cloud.calls for one in call.needs]
    return grown


def live(cloud: Any, life: Life, policies: Collection[Policy]) -> set[str]:
    """Live a whole life by policies, and nothing beyond them; what was refused."""
    with cloud.active(cloud.login(*policies, name=WHO)):
        before = len(cloud.calls)
        for step in life.steps.values():
            step()
    return {call.denied for call in cloud.calls[before:]} - {""}


def _attempt(step: Callable[[], Any]) -> str:
    try:
        step()
    except CloudError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _need(call: Any, said: Mapping[str, Any] | None = None) -> Need:
    """What a call needed, or was refused: that stands last."""
    said = said or next(one for one in reversed(call.needs) if one["action"] == call.denied)
    return Need(action=said["action"], resource=said["resource"], context=said["context"])
