"""The role of an autonomous cluster on AWS: enough for its manager, and for nothing that is another's."""

from __future__ import annotations

import dataclasses
import json
import re

import boto3
import pytest
from botocore.exceptions import ClientError
from contract import until
from rights import statements

from cloudprovider import autonomous
from cloudprovider import tags as ledger
from cloudprovider.emulator.aws_policy import Need, allows
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.policies import listed
from cloudprovider.providers import _ec2_manager, _ecs_manager
from cloudprovider.providers.ec2 import EC2Config, EC2Provider
from cloudprovider.providers.ec2 import policy as ec2_policy
from cloudprovider.providers.ecs import ECSProvider, FargateConfig
from cloudprovider.providers.ecs import policy as ecs_policy
from cloudprovider.security import make_secrets

ROLE = "dask-mine-us-east-1"
SMALL = {"worker_cpu": 0.25, "worker_memory": "0.5 GiB", "scheduler_cpu": 0.25, "scheduler_memory": "0.5 GiB"}
#: Of each service: its classes, options, what prints its policies, and who takes its roles.
SERVICES = {
    "fargate": (FargateConfig, ECSProvider, SMALL, ecs_policy, "ecs-tasks.amazonaws.com"),
    "ec2": (
        EC2Config,
        EC2Provider,
        {"instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"},
        ec2_policy,
        "ec2.amazonaws.com",
    ),
}
BOTH = pytest.mark.parametrize("service", SERVICES)


def make(service, name="mine", **options):
    """A provider of a cluster."""
    config_class, provider_class, small, *_ = SERVICES[service]
    given = {"allow_from": "198.51.100.7/32", "autonomous": True, **small, **options}
    config = config_class.of(name=name, **given)
    return provider_class(config, config.identity())


def prepared(service, name="mine", **options):
    """The same, with what the cluster owns before its first machine."""
    provider = make(service, name, **options)
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    return provider


def order(provider, role="worker", scheduler="tls://10.0.0.5:8786"):
    """A machine of a role."""
    boot = provider.boot(role)
    if role == "worker":
        boot = dataclasses.replace(boot, scheduler=scheduler)
    created = provider.create(boot, 1)
    assert created.refusal is None, created.refusal
    return [machine.id for machine in created.machines]


def own_policy(role=ROLE) -> str:
    """What a cluster's role may do."""
    iam = boto3.client("iam")
    assert ["dask"] == iam.list_role_policies(RoleName=role)["PolicyNames"]
    return json.dumps(iam.get_role_policy(RoleName=role, PolicyName="dask")["PolicyDocument"])


def beside(service, provider):
    """The provider that the manager beside a scheduler has, by its mandate."""
    told = json.loads(autonomous.mandate(provider.config, provider.identity))
    config_class, provider_class, *_ = SERVICES[service]
    config = config_class(**told["options"], name=provider.identity.name)
    return provider_class(config, provider.identity)


KEYS = ("action", "resource", "context")
#: What a role may do beside what its manager's calls need, and why.
SPARE = {
    "worker_": "groups of workers have definitions of their own",
    "ssm:GetParameters ": "the machine reads its secret itself",
    "logs:(Create|Put)": "the machine writes its log itself",
    ":image/|snapshot/": "ami= may be one of the account's own, and block devices may begin as snapshots",
    "key-pair/": "key_name= is the workers', too",
    "spot-instances-request/": "without spot='fallback' a spot order tags its request",
}


def spare(policy, calls) -> list[str]:
    """What a policy allows that none of some calls needed, each action on each resource."""
    needs = [Need(**{key: need[key] for key in KEYS}) for call in calls for need in call.needs]
    return [
        f"{action} {resource}"
        for statement, action in statements(json.loads(policy))
        for resource in listed(statement["Resource"])
        if not any(
            allows([{"Statement": [{**statement, "Action": action, "Resource": resource}]}], need)
            for need in needs
        )
    ]


@BOTH
def test_role_is_what_the_manager_needs(service, bare):
    """With its role's rights alone a manager finds its cluster, and orders, sees, reads and ends workers; it needs all."""
    provider = prepared(service, tags={"team": "blue"}, spot="fallback")
    [scheduler] = order(provider, "scheduler")
    role = own_policy()
    before = len(bare.calls)
    with bare.active(bare.login(role)):
        manager = beside(service, provider)
        manager.resume()
        assert provider.identity == manager.identity
        ids = [*order(manager), *order(manager, scheduler="tls://10.0.0.6:8786")]
        assert {*ids, scheduler} == {machine.id for machine in manager.list("mine")}
        until(lambda: all(machine.zone for machine in manager.describe(ids)), 30, "they are placed")
        assert "" == manager.logs(ids[0])
        assert manager.rate(manager.describe(ids)[0]).per_hour > 0
        assert manager.quotas()
        manager.delete(ids)
        until(lambda: [scheduler] == [machine.id for machine in manager.list("mine")], 30, "they have ended")
    calls = bare.calls[before:]
    assert [] == [call.denied for call in calls if call.denied]

    assert [] == [one for one in spare(role, calls) if not any(re.search(why, one) for why in SPARE)]


def fargate_tries(session, mine, machine):
    """What a cluster's role on Fargate must not do."""
    ecs, place = session.client("ecs"), mine._landing
    tags = [{"key": ledger.CLUSTER, "value": "mine"}]
    network = {"subnets": list(place.network.subnets[:1]), "securityGroups": list(place.groups)}
    run = {
        "cluster": "dask",
        "taskDefinition": "dask-mine-worker",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": network},
    }
    admin = {"taskRoleArn": place.task_role.replace("dask-task", "admin")}
    yield "another's machine", lambda: ecs.stop_task(cluster="dask", task=machine)
    yield "no tag", lambda: ecs.run_task(**run)
    yield (
        "another's tag",
        lambda: ecs.run_task(**run, tags=[{"key": ledger.CLUSTER, "value": "other"}]),
    )
    yield "another role", lambda: ecs.run_task(**run, tags=tags, overrides=admin)
    for definition in ("dask-other-worker", "dask-mine-scheduler"):
        yield definition, lambda d=definition: ecs.run_task(**{**run, "taskDefinition": d}, tags=tags)
    yield (
        "a definition of its own",
        lambda: ecs.register_task_definition(
            family="dask-mine-worker", containerDefinitions=[{"name": "dask", "image": "evil"}]
        ),
    )


def ec2_tries(session, mine, machine):
    """What a cluster's role on EC2 must not do."""
    ec2, plan = session.client("ec2"), mine._plan
    subnet = next(iter(plan.landing.network.roomiest.values()))

    def tagged(name, *kinds):
        tags = [{"Key": ledger.CLUSTER, "Value": name}]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    run = {
        "ImageId": plan.kinds["worker"].image,
        "InstanceType": "m7i.large",
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": subnet,
    }
    machines = tagged("mine", "instance", "volume", "network-interface")

    def fleet(template, *specifications):
        config = {"LaunchTemplateName": template, "Version": "$Default"}
        return ec2.create_fleet(
            Type="instant",
            LaunchTemplateConfigs=[
                {"LaunchTemplateSpecification": config, "Overrides": [{"SubnetId": subnet}]}
            ],
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
            TagSpecifications=list(specifications),
        )

    yield "another's machine", lambda: ec2.terminate_instances(InstanceIds=[machine])
    yield "no tag", lambda: ec2.run_instances(**run)
    yield "another's tag", lambda: ec2.run_instances(**run, TagSpecifications=tagged("other", "instance"))
    profile = {"Name": "admin"}
    yield (
        "another role",
        lambda: ec2.run_instances(**run, TagSpecifications=machines, IamInstanceProfile=profile),
    )
    yield "a fleet without a tag", lambda: fleet("dask-mine")
    yield "another's template", lambda: fleet("dask-other", *tagged("mine", "fleet"))
    yield (
        "a template without a tag",
        lambda: ec2.create_launch_template(
            LaunchTemplateName="free", LaunchTemplateData={"InstanceType": "m7i.large"}
        ),
    )
    yield (
        "a tag for what is there",
        lambda: ec2.create_tags(Resources=[machine], Tags=[{"Key": ledger.CLUSTER, "Value": "mine"}]),
    )


TRIES = {"fargate": fargate_tries, "ec2": ec2_tries}


@BOTH
def test_role_touches_nothing_else(service, bare):
    """What is another cluster's, what has not this cluster's tag, and any other role is refused, each by name."""
    mine, other = prepared(service), prepared(service, "other")
    [machine] = order(other)
    order(mine)
    make_admin(SERVICES[service][-1])
    with bare.active(bare.login(own_policy())):
        session = boto3.Session()  # boto3's own keeps the credentials that it began with
        ssm, iam = session.client("ssm"), session.client("iam")
        more = {"RoleName": ROLE, "PolicyName": "dask", "PolicyDocument": "{}"}
        tries = [
            *TRIES[service](session, mine, machine),
            ("its people's secret", lambda: ssm.get_parameter(Name="/dask/mine/client")),
            ("roles", lambda: iam.get_role(RoleName=ROLE)),
            ("more rights", lambda: iam.put_role_policy(**more)),
        ]
        for what, attempt in tries:
            with pytest.raises(ClientError, match="not authorized to perform") as refused:
                attempt()
            assert "no identity-based policy allows" in str(refused.value), what
    assert [machine] == [one.id for one in other.list("other")]


def make_admin(service) -> None:
    """A role, with its instance profile, that a service may take."""
    iam = boto3.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="admin", AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="admin")
    iam.add_role_to_instance_profile(InstanceProfileName="admin", RoleName="admin")


@BOTH
def test_role_comes_and_goes_with_its_cluster(service, bare):
    """The role is this cluster's by name and tags, trusts its service alone, and a sweep without memory removes it."""
    *_, print_policy, who = SERVICES[service]
    family = f"aws-{service}"
    parts = (family, f"{family}-landing", f"{family}-roles")
    with bare.active(bare.login(*map(print_policy, parts), name="people")):
        provider = prepared(service)
        order(provider, "scheduler")
    role = boto3.client("iam").get_role(RoleName=ROLE)["Role"]
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert who == statement["Principal"]["Service"]
    assert provider.identity == ledger.identity({tag["Key"]: tag["Value"] for tag in role["Tags"]})

    with bare.active(bare.login(*map(print_policy, parts), name="people")):
        swept = make(service, "nobody").sweep("mine")
    assert ROLE in swept.resources
    assert [] == spare(print_policy(f"{family}-roles"), bare.calls)
    until(lambda: not bare.leftovers(), 30, "nothing is left")


@BOTH
def test_expired_cluster_takes_its_role_along(service, bare):
    """What an autonomous cluster left past its hard end, its role included, goes with the next start."""
    prepared(service, max_lifetime="1 s")
    later = make(service, "later")
    until(lambda: ("mine",) == later.sweep_expired(), 30, "it has expired")
    until(lambda: not bare.leftovers(), 30, "nothing is left")


def test_sweep_goes_on_where_another_stopped(bare):
    """A sweep that ended amid the role's removal is finished by the next one."""
    prepared("ec2")
    profile = {"InstanceProfileName": ROLE, "RoleName": ROLE}
    boto3.client("iam").remove_role_from_instance_profile(**profile)
    make("ec2", "nobody").sweep("mine")
    until(lambda: not bare.leftovers(), 30, "nothing is left")


@BOTH
def test_without_the_right_to_make_roles(service, bare):
    """Who may not make roles is told which role to pass, with a policy for it that is then enough."""
    *_, print_policy, who = SERVICES[service]
    family = f"aws-{service}"
    prepared(service, "landing", autonomous=False).sweep("landing")
    people = bare.login(print_policy(family), name="people")
    with bare.active(people):
        with pytest.raises(CredentialsError, match=r"iam:CreateRole.*(?s:scheduler_role=)") as refused:
            prepared(service)
        make(service, "nobody").sweep("mine")
    until(lambda: not bare.leftovers(), 30, "nothing is left")
    document = json.loads(re.search(r"(?ms)^\{.*^\}", str(refused.value))[0])

    make_admin(who)
    boto3.client("iam").put_role_policy(
        RoleName="admin", PolicyName="theirs", PolicyDocument=json.dumps(document)
    )
    may_pass = {"Effect": "Allow", "Action": ["iam:GetRole", "iam:PassRole"], "Resource": "arn:*:role/admin"}
    more = json.dumps({"Version": "2012-10-17", "Statement": [may_pass]})
    with bare.active(bare.login(print_policy(family), more, name="people")):
        provider = prepared(service, scheduler_role="admin")
        order(provider, "scheduler")
    with bare.active(bare.login(json.dumps(document))):
        manager = beside(service, provider)
        manager.resume()
        order(manager)
    provider.sweep("mine")
    until(
        lambda: ["iam role: admin"] == [x for x in bare.leftovers() if "profile" not in x], 30, "all but it"
    )
    assert ["theirs"] == boto3.client("iam").list_role_policies(RoleName="admin")["PolicyNames"]


@BOTH
def test_role_of_somebody_else_is_neither_used_nor_removed(service, bare):
    """A role that happens to have the cluster's role's name stops the start, and stays."""
    iam = boto3.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=document)
    provider = make(service)
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    with pytest.raises(CloudError, match="not this cluster's"):
        provider.prepare(boots, make_secrets(provider.identity))
    provider.sweep("mine")
    assert [f"iam role: {ROLE}"] == bare.leftovers()


@BOTH
def test_new_role_is_waited_for(service, bare):
    """A role that AWS does not know everywhere yet delays the scheduler's order, and no more."""
    provider = prepared(service)
    with bare.inject("role-propagation", seconds=1.0):
        [machine] = order(provider, "scheduler")
    assert machine in [one.id for one in provider.list("mine")]


@BOTH
def test_tunnel_ends_at_the_clusters_role(service, bare):
    """Where the way to the scheduler is a tunnel, the role has what its far end needs, and is no larger than IAM takes."""
    provider = make(service, tunnel=True)
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.config = dataclasses.replace(
        provider.config, tunnel=False
    )  # a plugin need not be installed here
    make_role = {"fargate": _ecs_manager.with_role, "ec2": _ec2_manager.make_role}[service]
    provider.prepare(boots, make_secrets(provider.identity))
    assert "ssmmessages:" not in own_policy()

    landing = provider._landing if service == "fargate" else provider._plan.landing
    make_role(provider.aws, dataclasses.replace(provider.config, tunnel=True), provider.identity, landing)
    assert "ssmmessages:OpenDataChannel" in own_policy()
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    assert len(own_policy()) < 10_240


def test_containers_share_the_task(bare):
    """The manager gets a small share of the CPU, a limit to its memory, the keys, and a log of its own."""
    prepared("fargate", scheduler_cpu=1, scheduler_memory="4 GiB")
    found = boto3.client("ecs").describe_task_definition(taskDefinition="dask-mine-scheduler")
    dask, manager = found["taskDefinition"]["containerDefinitions"]
    assert (1024, 896, 128) == (
        int(found["taskDefinition"]["cpu"]),
        dask["cpu"],
        manager["cpu"],
    )
    assert ("manager", 512, False) == (manager["name"], manager["memory"], manager["essential"])
    assert list(autonomous.COMMAND) == manager["entryPoint"]
    assert dask["secrets"] == manager["secrets"]
    assert dask["logConfiguration"] == manager["logConfiguration"]
    assert {"enabled": True, "ignoredExitCodes": [0], "restartAttemptPeriod": 60} == manager["restartPolicy"]
    variables = {one["name"]: one["value"] for one in manager["environment"]}
    assert {"DASK_CLOUD_BOOT", "DASK_CLOUD_MANDATE"} == set(variables)
    assert "PRIVATE KEY" not in str(variables)
    [worker] = boto3.client("ecs").describe_task_definition(taskDefinition="dask-mine-worker")[
        "taskDefinition"
    ]["containerDefinitions"]
    assert 0 == worker["cpu"]
