"""What ECSProvider asks of a cloud, and what it makes of the answers, on an embedded AWS without processes."""

from __future__ import annotations

import dataclasses
import json
import time
from fnmatch import fnmatchcase

import boto3
import pytest
from contract import until

from cloudprovider import FargateCluster
from cloudprovider import tags as ledger
from cloudprovider.errors import CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.provider import State
from cloudprovider.providers.ecs import ECSConfig, ECSProvider, FargateConfig, policy
from cloudprovider.quotas import Limits
from cloudprovider.security import make_secrets

SMALL = {"worker_cpu": 0.25, "worker_memory": "0.5 GiB", "scheduler_cpu": 0.25, "scheduler_memory": "0.5 GiB"}


def make(name="it", **options) -> ECSProvider:
    config = FargateConfig.of(name=name, **{"allow_from": "198.51.100.7/32", **SMALL, **options})
    return ECSProvider(config, config.identity())


def prepared(name="it", **options) -> ECSProvider:
    return prepare(make(name, **options))


def prepare(provider, secrets=None) -> ECSProvider:
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, secrets or make_secrets(provider.identity))
    return provider


def workers(provider, count):
    boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://10.0.0.5:8786")
    return provider.create(boot, count)


def scheduler(provider):
    [machine] = provider.create(provider.boot("scheduler"), 1).machines
    return machine


def called(cloud, operation) -> int:
    return sum(call.operation == operation for call in cloud.calls)


def definitions(cluster="it"):
    ecs = boto3.client("ecs")
    return [
        ecs.describe_task_definition(taskDefinition=f"dask-{cluster}-{role}")["taskDefinition"]
        for role in ("scheduler", "worker")
    ]


def depth(calls) -> int:
    """How many calls come one after the other, at the least: the longest chain in which none overlap."""
    chain, end = 0, 0.0
    for call in sorted(calls, key=lambda call: call.end):
        if call.start >= end:
            chain, end = chain + 1, call.end
    return chain


# -- the landing -----------------------------------------------------------------------------------------


def test_landing_is_made_once(cloud):
    """The second cluster of an account finds what the first one made, and makes only its own."""
    prepared("one")
    first = len(cloud.calls)
    prepared("two")
    made = [call.operation for call in cloud.calls[first:] if call.operation.startswith(("Create", "Put"))]
    made.remove("PutRolePolicy")  # in a role's first minute, lest its maker has not come to it yet

    assert ["CreateSecurityGroup", "PutParameter", "PutParameter"] == sorted(made)


def test_landing_is_tagged_and_has_what_it_should(cloud):
    """The ECS cluster has both Fargate markets, the log group a retention, and all the landing's tag."""
    prepared(log_retention_days=7).sweep("it")
    [cluster] = boto3.client("ecs").describe_clusters(clusters=["dask"], include=["TAGS"])["clusters"]
    [logs] = boto3.client("logs").describe_log_groups(logGroupNamePrefix="/dask")["logGroups"]

    assert {"FARGATE", "FARGATE_SPOT"} == set(cluster["capacityProviders"])
    assert [{"key": ledger.LANDING, "value": "dask"}] == cluster["tags"]
    assert 7 == logs["retentionInDays"]
    assert [] == cloud.leftovers()


def test_name_that_could_not_be_claimed_is_not_swept(cloud):
    """Who fails before the name is known to be theirs cleans up nothing under it."""
    first = prepared("same")
    machine = scheduler(first)
    second = make("same")
    with cloud.inject("denied", operation="PutParameter"), pytest.raises(CredentialsError):
        prepare(second)

    assert () == second.sweep("same").machines
    assert [machine.id] == [m.id for m in first.list("same")]


def test_what_the_user_names_is_never_made(cloud):
    """With everything named, the only things made are the cluster's own."""
    ec2, iam, logs = boto3.client("ec2"), boto3.client("iam"), boto3.client("logs")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)["GroupId"]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2]]
    trust = policy("aws-ecs-trust")
    for role in ("mine-start", "mine-run"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
    allowed = policy("aws-fargate-execution", log_group="mine")
    iam.put_role_policy(RoleName="mine-start", PolicyName="it", PolicyDocument=allowed)
    logs.create_log_group(logGroupName="mine")
    boto3.client("ecs").create_cluster(clusterName="mine")
    before = len(cloud.calls)
    provider = prepared(
        ecs_cluster="mine",
        execution_role="mine-start",
        role="mine-run",
        log_group="mine",
        subnets=subnets,
        security_groups=[group],
    )
    machine = scheduler(provider)
    made = [c.operation for c in cloud.calls[before:] if c.operation.startswith(("Create", "Put"))]

    assert ["CreateSecurityGroup", "PutParameter", "PutParameter"] == sorted(made)
    assert machine.id
    assert {"mine-start"} == {d["executionRoleArn"].rpartition("/")[2] for d in definitions()}
    provider.sweep("it")


def rounds_of_a_start(cloud) -> tuple[int, int]:
    """Calls in a row until a scheduler is ordered: the first time in an account, and with a landing."""
    cloud.reset(profile="fargate", time_scale=12.0)  # 0.6 s a call: what is side by side overlaps
    started = []
    # In its first minute a role of ours is given its policy again; these are named instead.
    found = {"execution_role": "dask-execution", "role": "dask-task"}
    for name, options in (("first", {}), ("second", found)):
        provider = make(name, **options)
        for service in ("ec2", "ecs", "iam", "logs", "ssm"):
            provider.aws.client(service)
        before = len(cloud.calls)
        scheduler(prepare(provider))
        started.append(depth(cloud.calls[before:]))
    first, second = started
    return first, second


def test_few_calls_come_one_after_the_other(cloud):
    """Three rounds of calls and RunTask start a scheduler; five and RunTask the first time in an account."""
    # A busy machine pulls calls apart that were made side by side, and never the other way round.
    tries = [rounds_of_a_start(cloud)]
    while len(tries) < 3 and not (tries[-1][0] <= 6 and tries[-1][1] <= 4):
        tries.append(rounds_of_a_start(cloud))

    assert tries[-1][0] <= 6
    assert tries[-1][1] <= 4


def test_role_that_is_not_known_everywhere_yet(cloud):
    """A role that was just made is waited for, as IAM takes its time."""
    with cloud.inject("role-propagation", seconds=4):
        assert scheduler(prepared()).id


# -- orders ----------------------------------------------------------------------------------------------


def test_ten_machines_a_call(cloud):
    """11 machines are two calls, and 101 are described in two."""
    provider = prepared()
    assert 11 == len(workers(provider, 11).machines)
    assert 2 == called(cloud, "RunTask")

    ids = [machine.id for machine in (*workers(provider, 90).machines, *workers(provider, 1).machines)]
    before = called(cloud, "DescribeTasks")
    provider.describe([*ids, *ids, "0" * 32, *(f"{n:032x}" for n in range(1, 10))])
    assert 2 == called(cloud, "DescribeTasks") - before


def test_private_address_before_it_runs(cloud):
    """The scheduler's address is known before its image is pulled: workers are ordered one boot deep."""
    cloud.reset(profile="fargate", time_scale=0.1)
    provider = prepared()
    machine = scheduler(provider)
    now = until(
        lambda: next((m for m in provider.describe([machine.id]) if m.private_address), None),
        10,
        "an address",
    )

    assert State.starting is now.state
    assert now.public_address
    for _ in range(3):
        provider.describe([machine.id])
    assert 1 == called(cloud, "DescribeNetworkInterfaces")


def test_private_machines_have_no_public_address(cloud):
    """public=False gives no machine a public address; without another way out the error says what is missing."""
    provider = prepared(public=False, allow_from="10.0.0.0/8")
    machine = scheduler(provider)
    until(lambda: provider.describe([machine.id])[0].state is State.gone, 10, "it ended")
    [ended] = provider.describe([machine.id])

    assert ended.public_address is None
    assert 0 == called(cloud, "DescribeNetworkInterfaces")
    assert "no route out" in str(provider.diagnosis(ended, ""))


# -- security --------------------------------------------------------------------------------------------


def test_no_rule_is_open_to_the_world(cloud):
    """The scheduler can be reached by the named source alone, members by members, workers by nobody else."""
    provider = prepared()
    scheduler(provider)
    worker = workers(provider, 1).machines[0]
    until(lambda: provider.describe([worker.id])[0].private_address, 10, "an address")
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    ours = {g["GroupName"]: g for g in groups if g["GroupName"].startswith("dask-")}
    [rule] = ours["dask-it-scheduler"]["IpPermissions"]

    assert {"dask-landing", "dask-it-scheduler"} == set(ours)
    assert ["198.51.100.7/32"] == [entry["CidrIp"] for entry in rule["IpRanges"]]
    assert (8786, 8787) == (rule["FromPort"], rule["ToPort"])
    assert not [r for r in ours["dask-landing"]["IpPermissions"] if r.get("IpRanges") or r.get("Ipv6Ranges")]
    interfaces = boto3.client("ec2").describe_network_interfaces()["NetworkInterfaces"]
    [worker_interface] = [
        i for i in interfaces if i["PrivateIpAddress"] == provider.describe([worker.id])[0].private_address
    ]
    assert ["dask-landing"] == [group["GroupName"] for group in worker_interface["Groups"]]


def test_allow_makes_the_rules_exactly_so(cloud):
    """A changed address replaces the old one, in either address family."""
    provider = prepared()
    provider.allow(["203.0.113.0/24", "2001:db8::/64"])
    filters = [{"Name": "group-name", "Values": ["dask-it-scheduler"]}]
    [group] = boto3.client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    rules = group["IpPermissions"]

    assert ["203.0.113.0/24"] == [entry["CidrIp"] for rule in rules for entry in rule.get("IpRanges", ())]
    assert ["2001:db8::/64"] == [entry["CidrIpv6"] for rule in rules for entry in rule.get("Ipv6Ranges", ())]


def test_no_key_anywhere_but_in_the_secrets(cloud):
    """Definitions, orders and tags hold no key and no token: only the two encrypted parameters do."""
    provider = make()
    secrets = make_secrets(provider.identity)
    provider.prepare(
        [provider.config.boot_for(r, provider.identity) for r in ("scheduler", "worker")], secrets
    )
    machine = workers(provider, 1).machines[0]
    [task] = boto3.client("ecs").describe_tasks(cluster="dask", tasks=[machine.id], include=["TAGS"])["tasks"]
    text = json.dumps([definitions(), task], default=str)
    stored = boto3.client("ssm").describe_parameters()["Parameters"]

    assert "PRIVATE KEY" not in text
    assert json.loads(secrets.machine)["token"] not in text
    assert "PRIVATE" not in repr(secrets)
    assert {("/dask/it/client", "SecureString"), ("/dask/it/machine", "SecureString")} == {
        (parameter["Name"], parameter["Type"]) for parameter in stored
    }


def test_environment_survives_a_quote_and_a_newline(cloud):
    """User variables reach the definition whatever is in them."""
    value = 'it\'s "quoted"\nand \\ two lines é'
    prepared(environment={"WORDS": value})
    for definition in definitions():
        [container] = definition["containerDefinitions"]
        assert {"name": "WORDS", "value": value} in container["environment"]


def strange():
    provider = make()
    provider.identity = dataclasses.replace(provider.identity, owner="other")
    return provider


# -- ends ------------------------------------------------------------------------------------------------


def test_sweep_says_what_has_to_wait(cloud):
    """A task that has not stopped within the patience, and the group that waits for it, are named."""
    cloud.reset(profile="fargate", time_scale=1.0)
    provider = prepared()
    scheduler(provider)
    until(lambda: provider.list("it")[0].private_address, 30, "an address")
    provider.patience_s = 0.5
    swept = provider.sweep("it")

    group, task = swept.left
    assert group.startswith("sg-")
    assert (task,) == swept.machines


def test_expired_is_cheap_and_spares_the_living(cloud):
    """Looking for what others left is two calls; what still has a machine is not touched."""
    old = make("old", max_lifetime="8s")  # its secrets expire with it: it must start before
    prepare(old)
    scheduler(old)
    dead = make("dead", max_lifetime="1s")
    prepare(dead)
    prepared("young")
    over = max(old.identity.expires, dead.identity.expires)
    until(lambda: time.time() > over + 1, 60, "they expired")
    before = len(cloud.calls)
    assert ("dead",) == make("x").sweep_expired()
    looked = [call.operation for call in cloud.calls[before:]][:2]

    assert {"DescribeSecurityGroups", "ListTaskDefinitionFamilies"} == set(looked)
    assert 1 == len(make("old").list("old"))
    assert make("young").attach().client


# -- what can be wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("ssm:PutParameter", "ssm:PutParameter"),
        ("ecs:RegisterTaskDefinition", "ecs:RegisterTaskDefinition"),
        ("ec2:DescribeSubnets", "ec2:DescribeSubnets"),
        ("iam:GetRole", "iam:GetRole"),
    ],
)
def test_missing_permission_is_named(cloud, operation, action):
    """Who may not prepare a cluster is told which right is missing, and where the rights are printed."""
    with cloud.inject("denied", operation=operation), pytest.raises(CredentialsError, match=action) as caught:
        prepared()
    assert "dask cloud policy aws-fargate" in str(caught.value)
    make().sweep("it")
    assert [] == cloud.leftovers()


def test_no_credentials(cloud, monkeypatch):
    """No credentials at all are an error that says where they come from."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CredentialsError, match="aws configure"):
        prepared()


def test_wrong_region_is_found_before_any_call(cloud):
    """A region that does not exist is an error that names the nearest."""
    before = len(cloud.calls)
    with pytest.raises(ConfigError, match=r"did you mean .*'us-east-1'"):
        prepared(region="us-est-1")
    assert before == len(cloud.calls)


def test_no_default_vpc(cloud):
    """An account without a default VPC gets an error that says how to make one."""
    ec2 = boto3.client("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    with pytest.raises(CloudError, match="create-default-vpc"):
        prepared()


def test_image_that_does_not_exist(cloud):
    """A tag that the registry does not have is an error before any machine and before any definition."""
    with pytest.raises(ConfigError, match=r"has no dask/dask:1\.2\.3"):
        prepared(image="ghcr.io/dask/dask:1.2.3")
    assert 0 == called(cloud, "RegisterTaskDefinition")


def test_image_for_other_machines(cloud):
    """An image that is not for the architecture is refused before a task cannot start it."""
    cloud.add_image("team/intel:1", architectures=["X86_64"])

    with pytest.raises(ConfigError, match=r"is for x86_64 only, but the machines are arm64"):
        prepared(image="team/intel:1", architecture="arm64")


def test_bad_extra_arguments_are_config_errors(cloud):
    """A RunTask argument that AWS does not know is an error that says where it came from."""
    provider = prepared(task_args={"cont": 2})
    refused = workers(provider, 1).refusal

    assert isinstance(refused, ConfigError)
    assert "task_args" in str(refused)


def test_prices_of_machines(cloud):
    """What a machine costs follows from what ECS says of it."""
    provider = prepared(worker_cpu=1, worker_memory="4 GiB", ephemeral_storage=120)
    machine = workers(provider, 1).machines[0]
    rate = provider.rate(machine)

    assert "1 vCPU, 4 GiB, X86_64, 120 GiB disk" == machine.kind
    assert {"vCPU", "memory", "storage", "public IPv4"} == set(rate.parts)
    assert fnmatchcase(machine.id, "[0-9a-f]" * 32)


def test_quotas_are_the_vcpus_of_each_market(cloud):
    """The account's vCPUs of the markets workers come from; the scheduler takes some of those on demand."""
    figures = {"L-3032A538": 6.0, "L-36FBB829": 4.0}
    cloud.reset(profile="instant", quotas=figures)
    small = {"worker_cpu": 2, "worker_memory": 8}

    [on_demand] = make(**small).quotas()
    assert (6.0, 2.0, 0.25, 2) == (on_demand.limit, on_demand.each, on_demand.taken, on_demand.machines)
    for part in ("Fargate On-Demand vCPU", "L-3032A538", "us-east-1"):
        assert part in on_demand.name
    assert "servicequotas/home/services/fargate/quotas/L-3032A538" in on_demand.advice
    [spot] = make(spot=True, **small).quotas()
    assert (4.0, 0.0, 2) == (spot.limit, spot.taken, spot.machines)
    assert [2, 2] == [quota.machines for quota in make(spot="fallback", **small).quotas()]
    assert 4 == called(cloud, "GetServiceQuota")


def test_quotas_that_are_not_known(cloud):
    """One that Service Quotas does not know makes the whole unknown; container instances have none."""
    cloud.inject(
        "error", "GetServiceQuota", code="NoSuchResourceException", message="There is none.", times=1
    )
    assert () == make(spot="fallback").quotas()
    with cloud.inject("denied", "GetServiceQuota"):
        assert () == Limits(make().quotas).known()
    config = ECSConfig.of(name="it", ecs_cluster="batch", tunnel=True)
    assert () == ECSProvider(config, config.identity()).quotas()


def test_no_machine_without_a_quota_for_one(cloud):
    """A start for which the quota has no room is refused before the first machine, and leaves nothing."""
    cloud.inject("quota", room=0)
    with pytest.raises(QuotaError, match=r"L-3032A538.*room for 0"):
        FargateCluster(n_workers=1, progress=False, **SMALL)

    assert (0, 1) == (called(cloud, "RunTask"), called(cloud, "GetServiceQuota"))
    assert [] == cloud.leftovers()
