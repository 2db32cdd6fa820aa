"""What ECS is told and what it answers, without any cloud."""

from __future__ import annotations

import dataclasses
import functools
import json
from datetime import UTC, datetime

import botocore.session
import pytest
from botocore.validate import ParamValidator
from cloudruntime.boot import Boot, Leases
from cloudruntime.packing import packed
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import tags as ledger
from cloudprovider.errors import (
    BootError,
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
)
from cloudprovider.provider import Identity, Machine, State
from cloudprovider.providers import _aws_landing, _aws_names, _aws_wire
from cloudprovider.providers import _ecs_ends as ends
from cloudprovider.providers import _ecs_landing as land
from cloudprovider.providers import _ecs_names as names
from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._ecs_config import SIZES, ECSConfig, FargateConfig, nearest_sizes
from cloudprovider.providers.ecs import policy

IDENTITY = Identity(name="it", owner="me", created=1_800_000_000, expires=1_800_086_400)
LANDING = land.Landing(
    ecs_cluster="dask",
    execution_role="arn:aws:iam::123456789012:role/dask-execution",
    task_role="arn:aws:iam::123456789012:role/dask-task",
    scheduler_role="arn:aws:iam::123456789012:role/dask-tunnel",
    log_group="/dask",
    network=_aws_landing.Network(vpc="vpc-1", subnets=("subnet-1", "subnet-2")),
    groups=("sg-1",),
)
IMAGE = "ghcr.io/dask/dask:2026.8.0-py3.11"
WORKER = Boot(cluster="it", role="worker", image=IMAGE, secret="env:DASK_CLOUD_SECRET")


@functools.cache
def model(service):
    return botocore.session.get_session().get_service_model(service)


def assert_valid(service, operation, request):
    """The request fits the service's own model."""
    shape = model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def definition(config=None, boot=WORKER, text=""):
    return wire.task_definition_request(
        config or FargateConfig.of(), IDENTITY, boot, LANDING, "us-east-1", text
    )


def order(config=None, boot=WORKER, market="on-demand", **options):
    config = config or FargateConfig.of()
    return wire.run_task_request(config, IDENTITY, boot, LANDING, 10, market=market, token="t", **options)


variables = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).filter(
        lambda n: not n.startswith("DASK_CLOUD_")
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60),
    max_size=4,
)


@given(
    environment=variables,
    role=st.sampled_from(["scheduler", "worker"]),
    nthreads=st.none() | st.integers(1, 64),
    expires=st.integers(1, 2**40),
    text=st.sampled_from(["", "cGFja2Vk"]),
)
def test_boot_survives_the_task_definition(environment, role, nthreads, expires, text):
    """What another process reads from a task definition is the Boot that was put there, whatever it holds."""
    boot = dataclasses.replace(
        WORKER, role=role, environment=environment, nthreads=nthreads, leases=Leases(expires=expires)
    )
    request = definition(boot=boot, text=text)

    assert_valid("ecs", "RegisterTaskDefinition", request)
    assert boot == wire.boot_of(json.loads(json.dumps(request)))


def test_config_and_landing_survive_the_task_definition():
    """Another process orders machines as the first one did, without being told how."""
    config = FargateConfig.of(spot="fallback", public=True, architecture="arm64", tags={"team": "a"})
    found, landing = wire.replaced(FargateConfig.of(), definition(config))

    assert ("fallback", "arm64", {"team": "a"}) == (found.spot, found.architecture, found.tags)
    assert LANDING == landing


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"architecture": "arm64", "worker_cpu": 16, "worker_memory": "120 GiB", "ephemeral_storage": 200},
        {"repository_credentials": "arn:aws:secretsmanager:us-east-1:123456789012:secret:dask/hub-a1"},
        {
            "task_definition_args": {
                "volumes": [{"name": "data"}],
                "containerDefinitions": [
                    {"mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}
                ],
            }
        },
    ],
)
def test_task_definitions_fit_the_service_s_model(options):
    """Every option makes a request that ECS's own model allows."""
    request = definition(FargateConfig.of(**options), text=packed(WORKER))
    [container] = request["containerDefinitions"]

    assert_valid("ecs", "RegisterTaskDefinition", request)
    assert 120 == container["stopTimeout"]
    assert container["linuxParameters"] == {"initProcessEnabled": True}
    assert container["entryPoint"][:2] == ["python", "-c"]
    assert container["secrets"] == [{"name": "DASK_CLOUD_SECRET", "valueFrom": "/dask/it/machine"}]


def test_own_capacity_has_no_fargate_parts():
    """On container instances of the user's there is neither a Fargate size nor a public address."""
    config = ECSConfig.of(ecs_cluster="mine", tunnel=True, worker_cpu=3, worker_memory="5 GiB")
    request = definition(config)

    assert_valid("ecs", "RegisterTaskDefinition", request)
    assert (["EC2"], "3072", "5120") == (
        request["requiresCompatibilities"],
        request["cpu"],
        request["memory"],
    )
    assert "EC2" == order(config)["launchType"]
    assert "DISABLED" == order(config)["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"]
    provider = dataclasses.replace(config, capacity_provider="asg")
    assert [{"capacityProvider": "asg", "weight": 1}] == order(provider)["capacityProviderStrategy"]


@pytest.mark.parametrize("role", ["scheduler", "worker"])
@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_orders_fit_the_service_s_model(role, market):
    """RunTask carries 10 machines, their tags, and nothing that a retried call would make twice."""
    boot = dataclasses.replace(
        WORKER, role=role, scheduler=None if role == "scheduler" else "tls://10.0.0.5:8786"
    )
    request = order(FargateConfig.of(task_args={"platformVersion": "1.4.0"}), boot, market, groups=["sg-2"])
    tags = {tag["key"]: tag["value"] for tag in request["tags"]}

    assert_valid("ecs", "RunTask", request)
    assert IDENTITY == ledger.identity(tags)
    assert (role, "t", "it") == (tags[ledger.ROLE], request["clientToken"], request["startedBy"])
    assert ("spot" == market) == ("capacityProviderStrategy" in request)


def test_overrides_hold_the_scheduler_s_address_only():
    """What differs by call is all that an override holds, far under the 8,192 characters ECS takes."""
    boot = dataclasses.replace(WORKER, scheduler="tls://[2001:db8::5]:8786", environment={"A": "x" * 9000})
    overrides = order(boot=boot)["overrides"]

    assert overrides == {
        "containerOverrides": [
            {
                "name": "dask",
                "environment": [{"name": "DASK_CLOUD_SCHEDULER", "value": "tls://[2001:db8::5]:8786"}],
            }
        ]
    }
    assert len(json.dumps(overrides)) < 8192


def test_definition_with_the_runtime_has_room_for_the_user():
    """With the runtime brought along, half of the 64 KB stays for the user's environment."""
    boot = dataclasses.replace(WORKER, environment={"BIG": "x" * 32 * 1024})
    assert len(json.dumps(definition(boot=boot, text=packed(boot)))) < 64 * 1024


def test_definition_that_is_too_large_is_refused_before_any_call():
    """An environment that ECS would not take is an error that says how large it is."""
    boot = dataclasses.replace(WORKER, environment={"BIG": "x" * 70_000})
    with pytest.raises(ConfigError, match=r"its variables are 70\d\d\d: ECS takes 65536"):
        definition(boot=boot)


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_roles_and_tags_of_a_definition(role):
    """The scheduler alone runs under the role that may open a tunnel, and everything is tagged."""
    request = definition(boot=dataclasses.replace(WORKER, role=role))
    wanted = LANDING.scheduler_role if role == "scheduler" else LANDING.task_role

    assert wanted == request["taskRoleArn"]
    assert f"dask-it-{role}" == request["family"]
    assert {"key": ledger.CLUSTER, "value": "it"} in request["tags"]


def test_ephemeral_storage_is_the_workers():
    """The scheduler needs no disk beyond the included one."""
    config = FargateConfig.of(ephemeral_storage=100)
    scheduler = dataclasses.replace(WORKER, role="scheduler")

    assert definition(config)["ephemeralStorage"] == {"sizeInGiB": 100}
    assert "ephemeralStorage" not in definition(config, scheduler)


@pytest.mark.parametrize(
    "arguments",
    [{"family": "x"}, {"tags": []}, {"containerDefinitions": [{"image": "x"}]}, {"networkMode": "host"}],
)
def test_own_arguments_cannot_take_the_place_of_ours(arguments):
    """What a cluster stands on cannot be overwritten by `task_definition_args`."""
    with pytest.raises(ConfigError, match=r"which this project sets itself"):
        definition(FargateConfig.of(task_definition_args=arguments))


def test_secrets_expire_with_the_cluster():
    """Where the store can expire a secret, it does."""
    request = _aws_wire.parameter_request(IDENTITY, "client", "{}", {"team": "a"})
    [rule] = json.loads(request["Policies"])

    assert_valid("ssm", "PutParameter", request)
    assert "SecureString" == request["Type"]
    assert "2027-01-16T08:00:00.000Z" == rule["Attributes"]["Timestamp"]


@given(st.sets(st.ip_addresses(v=4).map("{}/32".format) | st.ip_addresses(v=6).map("{}/128".format)))
def test_rules_are_read_as_they_were_written(sources):
    """parse(build(sources)) == sources, for both address families; there is no rule without a source."""
    request = {"GroupId": "sg-1", "IpPermissions": _aws_wire.ingress(sources)}

    assert sources == _aws_wire.sources_of(request)
    if sources:
        assert_valid("ec2", "AuthorizeSecurityGroupIngress", request)
        assert {(8786, 8787)} == {(rule["FromPort"], rule["ToPort"]) for rule in request["IpPermissions"]}


def test_landing_requests_fit_their_models():
    """The landing's groups and roles are requests that AWS's models allow."""
    assert_valid(
        "ec2", "CreateSecurityGroup", _aws_wire.group_request("dask-landing", "vpc-1", "Dask", _aws_wire.MARK)
    )
    assert_valid("iam", "CreateRole", land.ROLES["dask-task"].request)
    assert_valid(
        "ec2",
        "DescribeSubnets",
        _aws_landing.subnets_request(FargateConfig.of(zones="us-east-1a", vpc="vpc-1")),
    )


def subnet(id, vpc="vpc-1", free=10, *, public=True):
    return {
        "SubnetId": id,
        "VpcId": vpc,
        "AvailabilityZone": "us-east-1a",
        "AvailableIpAddressCount": free,
        "MapPublicIpOnLaunch": public,
    }


def test_subnets_that_are_full_are_left_out():
    """Machines go where there are addresses."""
    network = _aws_landing.network_of([subnet("a", free=0), subnet("b")], FargateConfig.of(), "us-east-1")
    assert ("b",) == network.subnets


@pytest.mark.parametrize(("public", "wanted"), [(True, ("a",)), (False, ("b",))])
def test_subnets_of_a_vpc_are_of_the_right_kind(public, wanted):
    """In a VPC with both kinds, public machines go to public subnets and private ones to private subnets."""
    config = FargateConfig.of(vpc="vpc-1", public=public, allow_from="10.0.0.0/8")
    network = _aws_landing.network_of([subnet("a"), subnet("b", public=False)], config, "us-east-1")
    assert wanted == network.subnets


@pytest.mark.parametrize(
    ("found", "options", "kind", "said"),
    [
        ([], {}, CloudError, "no default VPC.*create-default-vpc"),
        ([], {"zones": ["us-east-1z"]}, CloudError, "in zones us-east-1z"),
        ([], {"vpc": "vpc-9"}, ConfigError, "vpc-9 has no subnets"),
        ([], {"subnets": ["subnet-9"]}, ConfigError, "subnet-9"),
        ([subnet("a", free=0)], {}, CapacityError, "free address"),
        ([subnet("a"), subnet("b", vpc="vpc-2")], {"subnets": ["a", "b"]}, ConfigError, "several VPCs"),
    ],
)
def test_no_place_for_machines_says_what_to_do(found, options, kind, said):
    """Missing networks are errors before any machine, with what to do next."""
    with pytest.raises(kind, match=said):
        _aws_landing.network_of(found, FargateConfig.of(**options), "us-east-1")


def test_every_size_of_fargate_is_allowed_and_its_own_nearest():
    """The documented table, no more and no less: 8 and 16 vCPU included."""
    for cpu, some in SIZES.items():
        for memory in some:
            config = FargateConfig.of(worker_cpu=cpu / 1024, worker_memory=memory / 1024)
            assert (cpu, memory) == config.size("worker")
            assert (cpu, memory) == nearest_sizes(cpu, memory)[0]
    assert (61440, 122880) == (max(SIZES[8192]), max(SIZES[16384]))


@pytest.mark.parametrize(
    ("cpu", "memory", "said"),
    [
        (3, "8 GiB", "2 vCPU with 8 GiB"),
        (8, "18 GiB", "8 vCPU with 20 GiB; 8 vCPU with 16 GiB"),
        (1, "16 GiB", "2 vCPU with 16 GiB"),
        (0.25, "3 GiB", "0.25 vCPU with 2 GiB"),
        (4, "16 GB", "4 vCPU with 15 GiB"),
    ],
)
def test_impossible_sizes_name_the_nearest(cpu, memory, said):
    """A pair that Fargate does not have is refused before any call, with those it has."""
    with pytest.raises(ConfigError, match=f"Fargate has no size of .*{said}"):
        FargateConfig.of(worker_cpu=cpu, worker_memory=memory)


@given(st.integers(1, 2**18), st.integers(1, 2**20))
def test_nearest_sizes_are_sizes(cpu, memory):
    """Whatever is asked for, what is named exists."""
    found = nearest_sizes(cpu, memory)
    assert 3 == len(found)
    assert all(mib in SIZES[units] for units, mib in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spot": "always"}, "spot='always' must be"),
        ({"architecture": "riscv"}, "architecture='riscv'"),
        ({"ephemeral_storage": 20}, "21 to 200"),
        ({"log_retention_days": 2}, "log_retention_days=2"),
        ({"task_args": {"count": 2}}, "task_args has count"),
        ({"worker_cpus": 2}, "did you mean 'worker_cpu'"),
        ({"security_groups": list("abcde")}, "at most 4"),
        ({"repository_credentials": "arn:aws:secretsmanager:us-east-1:1:secret:hub"}, "execution_role="),
    ],
)
def test_bad_options_are_refused_before_any_call(options, said):
    """Each option that cannot work is an error that says which and why."""
    with pytest.raises(ConfigError, match=said):
        FargateConfig.of(**options)


def test_own_capacity_needs_a_cluster_and_has_no_public_addresses():
    """ECSCluster says what it needs."""
    with pytest.raises(ConfigError, match="needs ecs_cluster="):
        ECSConfig.of(tunnel=True)
    with pytest.raises(ConfigError, match="no public address"):
        ECSConfig.of(ecs_cluster="mine", public=True)


def test_markets():
    """The scheduler is always on demand; the fallback is the second choice."""
    assert ("on-demand",) == FargateConfig.of().markets("worker")
    assert ("spot",) == FargateConfig.of(spot=True).markets("worker")
    assert ("spot", "on-demand") == FargateConfig.of(spot="fallback").markets("worker")
    assert ("on-demand",) == FargateConfig.of(spot=True).markets("scheduler")


def task(**changes):
    """A task of a DescribeTasks answer, as the documentation shows it."""
    return {
        "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/dask/0123456789abcdef",
        "lastStatus": "PENDING",
        "availabilityZone": "us-east-1b",
        "cpu": "2048",
        "memory": "8192",
        "attributes": [{"name": "ecs.cpu-architecture", "value": "arm64"}],
        "createdAt": datetime(2026, 1, 1, tzinfo=UTC),
        "attachments": [
            {
                "type": "ElasticNetworkInterface",
                "details": [
                    {"name": "networkInterfaceId", "value": "eni-1"},
                    {"name": "privateIPv4Address", "value": "10.0.0.5"},
                ],
            }
        ],
        "containers": [{"name": "dask"}],
        "tags": land.ecs_tags(ledger.for_machine(IDENTITY, "scheduler")),
        **changes,
    }


def test_machine_of_a_task():
    """A task's answer says all of a machine that its state allows."""
    expected = Machine(
        id="0123456789abcdef",
        role="scheduler",
        state=State.starting,
        cluster="it",
        private_address="10.0.0.5",
        zone="us-east-1b",
        kind="2 vCPU, 8 GiB, ARM64",
        created=1767225600.0,
        expires=IDENTITY.expires,
    )
    assert expected == wire.machine(task())
    assert wire.scheduler_interfaces([task()]) == {"0123456789abcdef": "eni-1"}


def test_machine_of_a_task_with_hardly_anything():
    """The first answer after an order may lack almost everything."""
    bare = wire.machine({"taskArn": "arn:aws:ecs:us-east-1:1:task/dask/f", "lastStatus": "PROVISIONING"})
    assert Machine(id="f", role="worker", state=State.starting) == bare


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stoppedReason": "Your Spot Task was interrupted."}, "Your Spot Task was interrupted"),
        (
            {
                "stoppedReason": "Essential container in task exited",
                "containers": [{"name": "dask", "exitCode": 71}],
            },
            "Essential container in task exited; idle: the cluster had nothing to do",
        ),
        (
            {
                "stoppedReason": "OutOfMemory",
                "containers": [{"name": "dask", "reason": "OutOfMemoryError: killed"}],
            },
            "OutOfMemory; OutOfMemoryError: killed",
        ),
    ],
)
def test_reason_of_a_stopped_task(changes, reason):
    """A machine that is gone says why, in ECS's words, its container's and those of its exit code."""
    found = wire.machine(task(lastStatus="STOPPED", capacityProviderName="FARGATE_SPOT", **changes))

    assert (State.gone, "spot") == (found.state, found.market)
    assert found.reason.startswith(reason)


def test_states_are_those_of_the_service():
    """Every state that ECS documents is one of ours, and only an end is final."""
    assert {"PROVISIONING", "PENDING", "RUNNING", "STOPPED"} <= set(wire.STATES)
    assert State.gone is wire.STATES["STOPPING"]


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        ("Capacity is unavailable at this time. Please try again later", CapacityError, "other zones"),
        ("RESOURCE:CPU", CapacityError, "container instances"),
        (
            "You've reached the limit on the number of tasks you can run concurrently",
            QuotaError,
            "servicequotas",
        ),
        ("MISSING", CloudError, "MISSING"),
    ],
)
def test_refusals_say_how_many_came(reason, kind, said):
    """A partial order is an error that counts, and says what to do."""
    refused = wire.refusal(wire.failure([{"reason": reason}]), 3, 10, "Fargate in us-east-1")

    assert kind is type(refused)
    assert str(refused).startswith("Fargate in us-east-1 started 3 of 10 tasks: ")
    assert str(refused).endswith(" The cluster keeps the 3.")
    assert said in str(refused)


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        (
            (
                "CannotPullContainerError: ref pull has been retried 5 time(s): failed to resolve reference "
                "ghcr.io/dask/dask:x: ghcr.io/dask/dask:x: not found"
            ),
            ConfigError,
            "Is image= right",
        ),
        (
            (
                "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref "
                "docker.io/library/x: failed to do request: dial tcp 1.2.3.4:443: i/o timeout"
            ),
            BootError,
            "no route out: pass public=True",
        ),
        (
            (
                "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval "
                "failed: unable to retrieve secrets from ssm: RequestCanceled: request context canceled caused by: "
                "context deadline exceeded"
            ),
            BootError,
            "no route out",
        ),
        (
            (
                "ResourceInitializationError: unable to pull secrets or registry auth: AccessDeniedException: User is "
                "not authorized to perform: ssm:GetParameters"
            ),
            CredentialsError,
            "aws-fargate-execution",
        ),
        (
            "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'",
            ConfigError,
            "architecture=",
        ),
        (
            "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit",
            QuotaError,
            "copy",
        ),
        ("OutOfMemoryError: Container killed due to memory usage", BootError, "more"),
        ("Capacity is unavailable at this time.", CapacityError, "Try again later"),
        ("Unexpected EC2 error: InsufficientFreeAddressesInSubnet", CapacityError, "no free addresses"),
        ("Essential container in task exited; failed: Dask ended with an error", BootError, "its log"),
        ("", BootError, "no reason"),
    ],
)
def test_diagnosis_of_a_machine_that_came_to_nothing(reason, kind, said):
    """What ended a machine before Dask answered becomes the right error, with what to do next."""
    machine = Machine(id="f", role="worker", state=State.gone, reason=reason)
    found = ends.diagnosis(machine, "its log")

    assert kind is type(found)
    assert said in str(found)


def test_diagnosis_sees_a_wrong_architecture_in_the_log():
    """An image for other processors says so only in its log."""
    machine = Machine(id="f", role="worker", state=State.gone, reason="Essential container in task exited")
    assert "architecture=" in str(ends.diagnosis(machine, "exec /usr/bin/python: exec format error"))


@given(
    st.from_regex(ledger.NAME, fullmatch=True),
    st.sampled_from(_aws_names.ROLES),
    st.sampled_from(["default", "gpu", "worker"]),
)
def test_whose_a_family_is(cluster, role, group):
    """The name of a cluster can be read from the names of its task definitions, whatever it is called."""
    assert cluster == names.cluster_of(names.family(cluster, role, group))


def test_families_of_others_are_nobody_s():
    """A task definition that only looks like ours belongs to no cluster."""
    assert all(
        names.cluster_of(f) is None for f in ("dask-x", "other-worker", "dask-x-worker2", "dask--worker")
    )


@pytest.mark.parametrize(
    "name", ["aws-fargate", "aws-fargate-landing", "aws-fargate-execution", "aws-fargate-tunnel"]
)
def test_policies_allow_no_service_as_a_whole(name):
    """No policy has an action with a wildcard, and all of them are policies."""
    document = json.loads(policy(name, account="123456789012", region="us-east-1"))
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
    assert len(json.dumps(document, separators=(",", ":"))) < 6144  # of a managed policy
