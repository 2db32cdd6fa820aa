"""What EC2Provider asks of a cloud, and what it makes of the answers, on an embedded AWS without processes."""

from __future__ import annotations

import base64
import dataclasses
import json
import time

import boto3
import pytest
from contract import until

from cloudprovider import EC2Cluster
from cloudprovider import tags as ledger
from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.events import Events
from cloudprovider.fleet import Fleet
from cloudprovider.provider import State
from cloudprovider.providers.ec2 import EC2Config, EC2Provider, policy
from cloudprovider.providers.ecs import ECSProvider, FargateConfig
from cloudprovider.security import make_secrets

#: To ask about two types is quicker than about all that could be chosen.
TYPES = {"instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}


def make(name="it", **options) -> EC2Provider:
    config = EC2Config.of(name=name, **{"allow_from": "198.51.100.7/32", **TYPES, **options})
    return EC2Provider(config, config.identity())


def prepared(name="it", **options) -> EC2Provider:
    return prepare(make(name, **options))


def prepare(provider, secrets=None) -> EC2Provider:
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, secrets or make_secrets(provider.identity))
    return provider


def workers(provider, count):
    boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://10.0.0.5:8786")
    return provider.create(boot, count)


def scheduler(provider):
    created = provider.create(provider.boot("scheduler"), 1)
    if created.refusal:
        raise created.refusal
    [machine] = created.machines
    return machine


def called(cloud, operation) -> int:
    return sum(call.operation == operation for call in cloud.calls)


def instances(machines):
    ids = [machine.id for machine in machines]
    found = boto3.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
    return [instance for some in found for instance in some["Instances"]]


def template():
    request = {"LaunchTemplateName": "dask-it", "Versions": ["$Latest"]}
    [version] = boto3.client("ec2").describe_launch_template_versions(**request)["LaunchTemplateVersions"]
    return version["LaunchTemplateData"]


# -- the landing -----------------------------------------------------------------------------------------


def test_landing_is_made_once(cloud):
    """The second cluster of an account finds what the first one made, and makes only its own."""
    prepared("one")
    first = len(cloud.calls)
    prepared("two")
    made = [
        call.operation for call in cloud.calls[first:] if call.operation.startswith(("Create", "Put", "Add"))
    ]
    made.remove("PutRolePolicy")  # in a role's first minute, lest its maker has not come to it yet

    assert {"CreateSecurityGroup", "PutParameter"} == set(made)


def test_landing_serves_both_services(cloud):
    """A Fargate cluster's log group and security group are the ones that EC2's use, made once."""
    config = FargateConfig.of(name="far", allow_from="198.51.100.7/32")
    far = prepare(ECSProvider(config, config.identity()))
    before = len(cloud.calls)
    near = prepared("near")
    made = [call.operation for call in cloud.calls[before:] if call.operation.startswith("Create")]

    assert ["CreateInstanceProfile", "CreateRole", "CreateSecurityGroup"] == sorted(made)
    assert far._landing.groups == near._plan.landing.groups


def test_machines_role_may_do_little(cloud):
    """The role of machines reads the machines' secrets and writes the log; only SSM's has more."""
    prepared()
    iam = boto3.client("iam")
    document = iam.get_role_policy(RoleName="dask-machine", PolicyName="dask-machine")["PolicyDocument"]
    assert {"ssm:GetParameters", "logs:CreateLogStream", "logs:PutLogEvents"} == {
        action
        for s in document["Statement"]
        for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert "arn:aws:ssm:*:*:parameter/dask/*/machine" == document["Statement"][0]["Resource"]
    prepared("reached", ssm_access=True)
    more = iam.get_role_policy(RoleName="dask-machine-ssm", PolicyName="dask-machine-ssm")["PolicyDocument"]
    assert "ssm:UpdateInstanceInformation" in json.dumps(more)


def test_one_name_is_one_cluster_s_on_either_service(cloud):
    """A name that a Fargate cluster has is not to be had on EC2, however old it is; its things stay."""
    config = FargateConfig.of(name="same", allow_from="198.51.100.7/32")
    far = ECSProvider(config, config.identity())
    far.identity = dataclasses.replace(far.identity, created=far.identity.created - 3600)
    prepare(far)
    second = make("same")
    with pytest.raises(CloudError, match="There is a cluster 'same'"):
        prepare(second)

    assert () == second.sweep("same").resources
    found = ECSProvider(config, config.identity())
    assert found.attach().client


def test_what_the_user_names_is_never_made(cloud):
    """With everything named, the only things made are the cluster's own."""
    ec2, iam, logs = boto3.client("ec2"), boto3.client("iam"), boto3.client("logs")
    subnet = ec2.describe_subnets()["Subnets"][0]
    group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=subnet["VpcId"])["GroupId"]
    iam.create_role(RoleName="mine", AssumeRolePolicyDocument=policy("aws-ec2-trust"))
    iam.create_instance_profile(InstanceProfileName="mine")
    iam.add_role_to_instance_profile(InstanceProfileName="mine", RoleName="mine")
    logs.create_log_group(logGroupName="mine")
    ec2.create_key_pair(KeyName="mine")
    before = len(cloud.calls)
    provider = prepared(
        role="mine", log_group="mine", subnets=subnet["SubnetId"], security_groups=[group], key_name="mine"
    )
    machine = scheduler(provider)
    made = [c.operation for c in cloud.calls[before:] if c.operation.startswith(("Create", "Put"))]
    [instance] = instances([machine])

    assert {"CreateSecurityGroup", "PutParameter"} == set(made)
    assert "mine" == instance["KeyName"]
    assert subnet["SubnetId"] == instance["SubnetId"]
    assert instance["IamInstanceProfile"]["Arn"].endswith("instance-profile/mine")
    assert group in {g["GroupId"] for g in instance["SecurityGroups"]}


def test_role_that_is_not_known_everywhere_yet(cloud):
    """An instance profile that was just made is waited for, as IAM takes its time."""
    with cloud.inject("role-propagation", seconds=4):
        assert scheduler(prepared()).id


# -- orders ----------------------------------------------------------------------------------------------


def test_scheduler_s_address_comes_with_its_order(cloud):
    """RunInstances says the private address, so that workers can be ordered before anything boots."""
    provider = prepared()
    machine = scheduler(provider)

    assert machine.private_address
    assert ("scheduler", "it", "on-demand") == (machine.role, machine.cluster, machine.market)
    assert 0 == called(cloud, "DescribeInstances")


def test_machines_are_as_promised(cloud):
    """IMDSv2 with one hop, termination at shutdown, encrypted gp3, tags on all parts: on every machine."""
    provider = prepared(tags={"team": "a"}, disk_size=50)
    machines = [scheduler(provider), *workers(provider, 2).machines]
    ec2 = boto3.client("ec2")
    for machine, instance in zip(
        sorted(machines, key=lambda m: m.id),
        sorted(instances(machines), key=lambda i: i["InstanceId"]),
        strict=True,
    ):
        options = instance["MetadataOptions"]
        behaviour = ec2.describe_instance_attribute(
            InstanceId=machine.id, Attribute="instanceInitiatedShutdownBehavior"
        )
        [disk] = instance["BlockDeviceMappings"]
        [volume] = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        [interface] = instance["NetworkInterfaces"]
        [described] = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface["NetworkInterfaceId"]])[
            "NetworkInterfaces"
        ]
        tags = [
            {t["Key"]: t["Value"] for t in each}
            for each in (instance["Tags"], volume["Tags"], described["TagSet"])
        ]

        assert ("required", 1) == (options["HttpTokens"], options["HttpPutResponseHopLimit"])
        assert "terminate" == behaviour["InstanceInitiatedShutdownBehavior"]["Value"]
        assert (50, "gp3", True) == (volume["Size"], volume["VolumeType"], volume["Encrypted"])
        assert disk["Ebs"]["DeleteOnTermination"]
        assert interface["Attachment"]["DeleteOnTermination"]
        assert "KeyName" not in instance
        assert all(("it", "a", machine.role) == (t[ledger.CLUSTER], t["team"], t[ledger.ROLE]) for t in tags)


def test_machines_by_what_they_shall_have(cloud):
    """Without names of types there are the cheapest that fit, of which a fleet takes what it gets."""
    provider = prepared(instance_type=None, cpu=4, memory="16 GiB", scheduler_instance_type=None)
    [worker] = workers(provider, 1).machines
    cloud.inject("capacity", room=0, type=worker.kind)
    [other] = workers(provider, 1).machines

    assert {worker.kind, other.kind} <= set(provider._plan.kinds["worker"].types)
    assert other.kind != worker.kind


def test_workers_and_scheduler_differ_in_kind(cloud):
    """Each role has the type that was asked for it, and its own price."""
    provider = prepared(instance_type="m7i.xlarge", scheduler_instance_type="c7i.large")
    first, [worker] = scheduler(provider), workers(provider, 1).machines

    assert ("c7i.large", "m7i.xlarge") == (first.kind, worker.kind)
    rates = {machine.kind: provider.rate(machine) for machine in (first, worker)}
    assert rates["c7i.large"].per_hour < rates["m7i.xlarge"].per_hour
    assert all({"public IPv4"} <= set(rate.parts) for rate in rates.values())


def test_fifty_workers_are_one_order_within_a_second(cloud):
    """50 workers are a launch template and one call, and it takes no time of ours."""
    provider = prepared()
    scheduler(provider)
    before, start = len(cloud.calls), time.monotonic()
    created = workers(provider, 50)
    passed = time.monotonic() - start

    assert 50 == len(created.machines)
    assert ["CreateLaunchTemplate", "CreateFleet"] == [call.operation for call in cloud.calls[before:]]
    assert passed < 1.0


def test_a_thousand_machines_in_twenty_calls(cloud):
    """From prepare until all 1,000 are seen, by the fleet that orders and looks: at most 20 calls."""
    prepared("landing").sweep("landing")
    until(lambda: not cloud.leftovers(), 10, "nothing is left")
    # In its first minute a role of ours is given its policy again; it is named instead.
    provider = make(role="dask-machine")
    before = len(cloud.calls)
    prepare(provider)
    scheduler(provider)
    boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://10.0.0.5:8786")
    fleet = Fleet(provider, lambda: boot, Events())
    fleet.ask(1000)
    fleet.reconcile([])
    until(
        lambda: (
            fleet.reconcile([id for id, m in fleet.machines.items() if m.state is State.running])
            or not fleet.waiting
        ),
        60,
        "all have arrived",
    )
    calls = [call.operation for call in cloud.calls[before:]]

    assert 1000 == len(fleet.machines)
    assert len(calls) <= 20, calls


def test_workers_are_in_the_scheduler_s_zone(cloud):
    """Shuffles are cheap: all machines are in one zone, also those that another process orders."""
    provider = prepared()
    zone = scheduler(provider).zone
    assert {zone} == {machine.zone for machine in workers(provider, 4).machines}
    other = make()
    other.attach()
    assert {zone} == {machine.zone for machine in workers(other, 2).machines}


def test_several_zones_when_asked(cloud):
    """With several zones named, what one has no room for is in another, and each machine says where it is."""
    provider = prepared(zones=["us-east-1a", "us-east-1b"])
    cloud.inject("capacity", room=2, zone="us-east-1a")
    cloud.inject("capacity", room=3, zone="us-east-1b")
    created = workers(provider, 5)

    assert created.refusal is None
    assert ["us-east-1a"] * 2 + ["us-east-1b"] * 3 == sorted(machine.zone for machine in created.machines)


def test_types_in_order_of_preference(cloud):
    """What the first type has no capacity for is of the next; the machines say so."""
    provider = prepared(instance_type=["m7i.large", "m6i.large"])
    cloud.inject("capacity", room=2, type="m7i.large")
    created = workers(provider, 5)

    assert created.refusal is None
    assert ["m6i.large"] * 3 + ["m7i.large"] * 2 == sorted(machine.kind for machine in created.machines)


def test_no_capacity_in_one_zone_for_the_scheduler(cloud):
    """The scheduler goes to the next zone that has both roles' types, and the workers with it."""
    provider = prepared()
    cloud.inject("capacity", room=0, zone=provider._plan.zones[0])
    machine = scheduler(provider)

    assert machine.zone == provider._plan.zones[1]
    assert {machine.zone} == {worker.zone for worker in workers(provider, 3).machines}


def test_no_capacity_anywhere(cloud):
    """When no zone has room, the refusal says so, and what to do."""
    provider = prepared()
    cloud.inject("capacity", room=0)
    created = provider.create(provider.boot("scheduler"), 1)
    assert isinstance(created.refusal, CapacityError)
    refused = workers(provider, 3).refusal

    assert isinstance(refused, CapacityError)
    for part in ("0 of 3", "InsufficientInstanceCapacity", "zones="):
        assert part in str(refused)


def test_spot_has_the_price_of_now(cloud):
    """A spot machine's rate is what EC2 says its type costs in its zone, asked once."""
    provider = prepared(spot=True)
    machines = workers(provider, 3).machines
    rates = [provider.rate(machine) for machine in machines]

    assert 1 == called(cloud, "DescribeSpotPriceHistory")
    assert rates[0].per_hour > 0
    assert not rates[0].unknown
    on_demand = provider.rate(dataclasses.replace(machines[0], market="on-demand"))
    assert rates[0].per_hour < on_demand.per_hour


def test_quota_of_five_vcpus(cloud):
    """A quota that has no room for all keeps those that came and says which limit it was."""
    provider = prepared()
    cloud.inject("quota", room=5)
    created = workers(provider, 10)

    assert 2 == len(created.machines)
    assert isinstance(created.refusal, QuotaError)
    for part in ("2 of 10", "VcpuLimitExceeded", "servicequotas"):
        assert part in str(created.refusal)


def test_too_many_spot_machines(cloud):
    """The limit on spot is named, with how to go on without it."""
    provider = prepared(spot=True)
    cloud.inject("quota", room=4, market="spot")
    created = workers(provider, 10)

    assert isinstance(created.refusal, QuotaError)
    assert "MaxSpotInstanceCountExceeded" in str(created.refusal)
    assert "spot='fallback'" in str(created.refusal)


@pytest.mark.parametrize("fault", ["error-after-effect", "lost-answer"])
def test_template_is_not_made_twice(cloud, fault):
    """A launch template whose answer was lost after it took effect is asked for again, and is one."""
    provider = prepared()
    cloud.inject(fault, operation="CreateLaunchTemplate", times=1)
    created = workers(provider, 7)

    assert 7 == len(created.machines)
    assert 1 == len(boto3.client("ec2").describe_launch_templates()["LaunchTemplates"])


def test_launch_template_is_deleted_under_us(cloud):
    """An order whose launch template somebody deleted makes it again."""
    provider = prepared()
    workers(provider, 1)
    boto3.client("ec2").delete_launch_template(LaunchTemplateName="dask-it")
    created = workers(provider, 2)

    assert created.refusal is None
    assert 2 == len(created.machines)
    assert template()["UserData"]


def test_large_environments_take_several_parameters(cloud):
    """What does not fit one parameter is in several, found in order, and all of them are swept."""
    import random

    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=14000))
    provider = make(environment={"NOISE": noise}, image="ghcr.io/dask/dask-cloud-runtime:1")
    plan = prepared("shape")._plan
    boots = {role: provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")}
    plan = dataclasses.replace(plan, boots=boots)
    parts = plan.parts(provider.config)

    assert len(parts) > 1
    assert boots == type(plan).loads(parts)[0].boots


# -- what is seen ----------------------------------------------------------------------------------------


def test_unknown_ids_are_left_out(cloud):
    """Of many ids those that EC2 does not know, or not yet, are left out of answers and orders."""
    provider = prepared()
    ids = [machine.id for machine in workers(provider, 3).machines]
    strangers = [f"i-{number:017x}" for number in range(1, 40)]

    assert set(ids) == {machine.id for machine in provider.describe([*strangers, *ids])}
    provider.delete([*strangers, *ids])
    until(lambda: not provider.list("it"), 10, "all have ended")


def test_machines_that_are_not_shown_yet(cloud):
    """A machine that describe does not show yet is not gone."""
    provider = prepared()
    with cloud.inject("stale", seconds=2):
        [machine] = workers(provider, 1).machines
        assert [] == provider.describe([machine.id])
    until(lambda: provider.describe([machine.id]), 10, "it is shown")


def test_how_a_machine_ended(cloud):
    """A machine that is gone says why and since when."""
    provider = prepared()
    [machine] = workers(provider, 1).machines
    provider.delete([machine.id])
    [ended] = until(
        lambda: [m for m in provider.describe([machine.id]) if m.state is State.gone], 10, "it is gone"
    )

    assert "User" in ended.reason
    assert abs(ended.ended - time.time()) < 60


def test_logs_of_the_console(cloud):
    """Without a container's log there is the console's; without either, nothing."""
    provider = prepared()
    machine = scheduler(provider)
    assert isinstance(provider.logs(machine.id), str)
    assert 1 == called(cloud, "GetConsoleOutput")


# -- security --------------------------------------------------------------------------------------------


def test_no_rule_is_open_to_the_world(cloud):
    """The scheduler can be reached by the named source alone, members by members, workers by nobody else."""
    provider = prepared()
    machine, [worker] = scheduler(provider), workers(provider, 1).machines
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    ours = {g["GroupName"]: g for g in groups if g["GroupName"].startswith("dask-")}
    [rule] = ours["dask-it-scheduler"]["IpPermissions"]
    by_role = {
        i["InstanceId"]: {g["GroupName"] for g in i["SecurityGroups"]} for i in instances([machine, worker])
    }

    assert {"dask-landing", "dask-it-scheduler"} == set(ours)
    assert ["198.51.100.7/32"] == [entry["CidrIp"] for entry in rule["IpRanges"]]
    assert (8786, 8787) == (rule["FromPort"], rule["ToPort"])
    assert not [r for r in ours["dask-landing"]["IpPermissions"] if r.get("IpRanges") or r.get("Ipv6Ranges")]
    assert {"dask-landing", "dask-it-scheduler"} == by_role[machine.id]
    assert {"dask-landing"} == by_role[worker.id]


def test_private_machines_have_no_public_address(cloud):
    """public=False gives no machine a public address."""
    provider = prepared(public=False, allow_from="10.0.0.0/8")
    machines = [scheduler(provider), *workers(provider, 1).machines]
    assert [None, None] == [machine.public_address for machine in provider.describe([m.id for m in machines])]


def test_no_key_anywhere_but_in_the_secrets(cloud):
    """User data, tags and orders hold no key and no token: only the encrypted parameters do."""
    provider = make()
    secrets = make_secrets(provider.identity)
    boots = [provider.config.boot_for(r, provider.identity) for r in ("scheduler", "worker")]
    provider.prepare(boots, secrets)
    machines = [scheduler(provider), *workers(provider, 1).machines]
    ec2 = boto3.client("ec2")
    data = [
        ec2.describe_instance_attribute(InstanceId=machine.id, Attribute="userData")["UserData"]["Value"]
        for machine in machines
    ]
    import gzip

    text = "".join(gzip.decompress(base64.b64decode(each)).decode() for each in data)
    text += json.dumps([instances(machines), template()], default=str)
    ours = [{"Key": "Name", "Option": "BeginsWith", "Values": ["/dask/"]}]
    stored = boto3.client("ssm").describe_parameters(ParameterFilters=ours)["Parameters"]

    assert "PRIVATE KEY" not in text
    assert json.loads(secrets.machine)["token"] not in text
    assert {"/dask/it/client", "/dask/it/machine", "/dask/it/ec2/0"} <= {p["Name"] for p in stored}
    assert {"SecureString"} == {p["Type"] for p in stored}


def strange():
    provider = make()
    provider.identity = dataclasses.replace(provider.identity, owner="other")
    return provider


# -- ends ------------------------------------------------------------------------------------------------


def test_stopped_machines_are_swept(cloud):
    """A machine that somebody stopped is gone for Dask, and its disk goes with the sweep."""
    provider = prepared()
    [machine] = workers(provider, 1).machines
    until(lambda: provider.describe([machine.id])[0].state is State.running, 10, "it runs")
    boto3.client("ec2").stop_instances(InstanceIds=[machine.id])

    assert State.gone is provider.describe([machine.id])[0].state
    assert machine.id in provider.sweep("it").machines
    until(lambda: not cloud.leftovers(), 10, "nothing is left")


def test_expired_is_cheap_and_spares_the_living(cloud):
    """Looking for what others left is two calls; what still has a machine is not touched, nor are Fargate's."""
    old = make("old", max_lifetime="1s")
    prepare(old)
    scheduler(old)
    dead = make("dead", max_lifetime="1s")
    prepare(dead)
    config = FargateConfig.of(name="far", allow_from="198.51.100.7/32", max_lifetime="1s")
    prepare(ECSProvider(config, config.identity()))
    prepared("young")
    until(lambda: time.time() > dead.identity.expires + 2, 10, "they expired")
    before = len(cloud.calls)
    assert ("dead",) == make("x").sweep_expired()
    looked = [call.operation for call in cloud.calls[before:]][:2]

    assert {"DescribeSecurityGroups", "DescribeLaunchTemplates"} == set(looked)
    assert 1 == len(make("old").list("old"))
    assert make("young").attach().client
    assert ("far",) == tuple(ECSProvider(config, config.identity()).sweep_expired())
    assert 1 == len(make("old").list("old"))


# -- what can be wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    ["ssm:PutParameter", "ec2:DescribeSubnets", "ec2:DescribeInstanceTypes", "iam:GetInstanceProfile"],
)
def test_missing_permission_is_named(cloud, action):
    """Who may not prepare a cluster is told which right is missing, and where the rights are printed."""
    with cloud.inject("denied", operation=action), pytest.raises(CredentialsError, match=action) as caught:
        prepared()
    assert "dask cloud policy aws-ec2" in str(caught.value)
    make().sweep("it")
    assert [] == cloud.leftovers()


def test_refusal_that_only_sts_can_read(cloud):
    """EC2's encoded refusal is decoded where that is allowed: the error names the action and on what."""
    provider = prepared()
    with (
        cloud.inject("denied", operation="DescribeKeyPairs"),
        pytest.raises(Exception, match="Enc") as caught,
    ):
        boto3.client("ec2").describe_key_pairs()
    encoded = str(caught.value).partition("message: ")[2]
    short = (
        f"You are not authorized to perform this operation. Encoded authorization failure message: {encoded}"
    )
    with cloud.inject(
        "error", operation="CreateFleet", code="UnauthorizedOperation", message=short, status=403
    ):
        refused = workers(provider, 1).refusal
        assert isinstance(refused, CredentialsError)
        assert "may not call ec2:DescribeKeyPairs" in str(refused)
        with cloud.inject("denied", operation="DecodeAuthorizationMessage"):
            assert "may not call CreateFleet" in str(workers(provider, 1).refusal)


@pytest.mark.parametrize(("seconds", "side"), [(1200, "20 minutes slow"), (-1200, "20 minutes fast")])
def test_clock_that_is_wrong(cloud, seconds, side):
    """Calls that a wrong clock has refused are an error that says by how much, and on which side."""
    with cloud.inject("clock-skew", seconds=seconds), pytest.raises(CredentialsError, match=side):
        prepared()


def test_no_default_vpc(cloud):
    """An account without a default VPC gets an error that says how to make one."""
    ec2 = boto3.client("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    with pytest.raises(CloudError, match="create-default-vpc"):
        prepared()


def test_image_that_does_not_exist(cloud):
    """A tag that the registry does not have is an error before any machine."""
    with pytest.raises(ConfigError, match=r"has no dask/dask:1\.2\.3"):
        prepared(image="ghcr.io/dask/dask:1.2.3")
    assert 0 == called(cloud, "RunInstances")


def test_machine_image_of_another_region(cloud):
    """An ami= that is not there is an error before any machine."""
    with pytest.raises(ConfigError, match="ami='ami-0123456789abcdef0'"):
        prepared(ami="ami-0123456789abcdef0")
    assert 0 == called(cloud, "RunInstances")


def test_key_pair_that_does_not_exist(cloud):
    """A key_name= that is not there is a refusal that says what to check."""
    provider = prepared(key_name="nobody-s")
    with pytest.raises(ConfigError, match="key_name="):
        scheduler(provider)


def test_profile_that_does_not_exist(cloud):
    """A role= that is no instance profile is a refusal that names it."""
    provider = prepared(role="nobody-s")
    with pytest.raises(ConfigError, match="nobody-s"):
        scheduler(provider)


def test_quotas_are_the_vcpus_of_each_market(cloud):
    """The account's vCPUs of the markets workers come from; the scheduler takes some of those on demand."""
    cloud.reset(profile="instant", quotas={"L-1216C47A": 32.0, "L-34B43A08": 8.0})
    [on_demand] = prepared("one", instance_type="m7i.xlarge").quotas()
    assert (32.0, 4.0, 2.0) == (on_demand.limit, on_demand.each, on_demand.taken)
    [spot] = prepared("two", instance_type="m7i.xlarge", spot=True).quotas()
    assert (8.0, 4.0, 0.0) == (spot.limit, spot.each, spot.taken)


def test_no_machine_without_a_quota_for_one(cloud):
    """A start for whose types the quota has no room is refused before the first machine, and leaves nothing."""
    cloud.inject("quota", room=1, market="spot")
    with pytest.raises(QuotaError, match=r"L-34B43A08.*room for 0"):
        EC2Cluster(n_workers=1, spot=True, allow_from="198.51.100.7/32", progress=False, **TYPES)

    assert [0, 0, 1] == [called(cloud, name) for name in ("RunInstances", "CreateFleet", "GetServiceQuota")]
    assert [] == cloud.leftovers()
