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
from cloudprovider.providers import ec2, ecs
from cloudprovider.security import make_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ACCOUNT, REGION = "123456789012", "us-east-1"
WHO = "manager"

Policy = dict[str, Any]


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
    policies: ClassVar[tuple[str, ...]]
    options: ClassVar[Mapping[str, Any]]
    made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def shipped(cls) -> dict[str, Policy]:
        """The policies of its managers, as `dask cloud policy` prints them."""
        return {name: policy(name) for name in cls.policies}

    def begun(self) -> Life:
        """With what its user would have made, by the account's own credentials."""
        return self

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

    def attach(self) -> None:
        self.made["attached"] = self.provider()
        self.made["attached"].attach()
        assert 3 == len(self.made["attached"].list(self.name))

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


# -- what is measured --------------------------------------------------------------------------------------

Key = tuple[str, str, str]  # the policy, its statement, and the action


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
    return document(name, Wanted(account=ACCOUNT, region=REGION, **options))


def covers(document: Policy, sid: str, part: dict[str, Any], needs: list[Need]) -> bool:
    """Whether a part of a statement allows anything that a life needed."""
    statement = next(one for one in document["Statement"] if one["Sid"] == sid)
    return any(allows([{"Statement": [{**statement, **part}]}], need) for need in needs)


def grow(cloud: Any, life: Life, shipped: Mapping[str, Policy]) -> Grown:
    """Live a whole life by what shipped policies allow, given action by action as the cloud refuses it.

    A refusal that no shipped policy can help is raised: a life needs more than they allow.
    """
    grown = Grown()
    given: dict[Key, Policy] = {}

    def allow() -> None:
        cloud.login({"Version": "2012-10-17", "Statement": [*given.values()]}, name=WHO)

    allow()
    with cloud.active(cloud.login(name=WHO)):
        for name, step in life.steps.items():
            while True:
                before = len(cloud.calls)
                said = _attempt(step)
                calls = cloud.calls[before:]
                denied = [call.denied for call in calls if call.denied]
                if not denied:
                    break
                wanted = next((action for action in denied if action in said), denied[0])
                key, statement = _helps(calls, wanted, shipped, given)
                grown.said[key] = said
                given[key] = statement
                allow()
            assert not said, f"{name}: {said}"
    grown.needs += [_need(one) for call in cloud.calls for one in call.needs]
    return grown


def _attempt(step: Callable[[], Any]) -> str:
    try:
        step()
    except CloudError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _need(said: Mapping[str, Any]) -> Need:
    return Need(action=said["action"], resource=said["resource"], context=said["context"])


def _helps(
    calls: list[Any], action: str, shipped: Mapping[str, Policy], given: Mapping[Key, Policy]
) -> tuple[Key, Policy]:
    """The statement of a shipped policy that allows what was refused; one action of it."""
    need = next(_need(call.needs[-1]) for call in calls if call.denied == action)
    for title, shown in shipped.items():
        for statement, name in statements(shown):
            key, alone = (title, statement["Sid"], name), {**statement, "Action": name}
            if name == action and key not in given and allows([{"Statement": [alone]}], need):
                return key, alone
    raise AssertionError(f"No shipped policy allows {need.action} on {need.resource} with {need.context}.")
