"""What EC2 is told and what it answers, without any cloud."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
from datetime import UTC, datetime

import botocore.session
import pytest
from botocore.validate import ParamValidator
from cloudruntime.boot import Boot, Leases

from cloudprovider.errors import (
    BootError,
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
)
from cloudprovider.provider import Identity, Machine, State
from cloudprovider.providers import _aws, _aws_landing, _ec2_ends, _ec2_landing, _ec2_names
from cloudprovider.providers import _ec2_wire as wire
from cloudprovider.providers._ec2_plan import Kind, Plan
from cloudprovider.providers.ec2 import EC2Config, policy

IDENTITY = Identity(name="it", owner="me", created=1_800_000_000, expires=1_800_086_400)
LANDING = _ec2_landing.Landing(
    log_group="/dask",
    network=_aws_landing.Network(
        vpc="vpc-1",
        subnets=("subnet-1", "subnet-2"),
        roomiest={"us-east-1a": "subnet-1", "us-east-1b": "subnet-2"},
    ),
    groups=("sg-1",),
    profiles={
        "scheduler": {"Name": "dask-machine"},
        "worker": {"Arn": "arn:aws:iam::1:instance-profile/own"},
    },
)
BOTH = ("us-east-1a", "us-east-1b")
KIND = Kind(
    types=("m7i.large", "m6i.large"),
    zones={"m7i.large": BOTH, "m6i.large": ("us-east-1b",)},
    vcpu=2,
    gpus=0,
    image="ami-1",
    root_device="/dev/xvda",
    disk_gib=30,
)
BOOTS = {
    role: Boot(cluster="it", role=role, image="i", secret="ssm:/dask/it/machine", leases=Leases(expires=1))
    for role in ("scheduler", "worker")
}
PLAN = Plan(
    identity=IDENTITY, landing=LANDING, zones=BOTH, kinds={"scheduler": KIND, "worker": KIND}, boots=BOOTS
)


@functools.cache
def model():
    return botocore.session.get_session().get_service_model("ec2")


def assert_valid(operation, request):
    """The request fits EC2's own model."""
    report = ParamValidator().validate(request, model().operation_model(operation).input_shape)
    assert not report.has_errors(), report.generate_report()


def run_instances(config=None, **options):
    return wire.run_instances_request(
        config or EC2Config.of(),
        IDENTITY,
        BOOTS["scheduler"],
        PLAN,
        pool=("m7i.large", "us-east-1b"),
        token="t",
        user_data=b"#cloud-config",
        **options,
    )


def launch_template(config=None):
    config = config or EC2Config.of()
    options = {"user_data": b"#cloud-config", "token": "t", "tags": {"dask-cluster": "it"}}
    return wire.launch_template_request(config, IDENTITY, BOOTS["worker"], PLAN, **options)


def create_fleet(config=None, market="on-demand", zones=BOTH):
    config = config or EC2Config.of()
    return wire.create_fleet_request(
        config, IDENTITY, BOOTS["worker"], PLAN, 10, market=market, zones=zones, token="t"
    )


CONFIGS = [
    {},
    {"public": False, "tunnel": True},
    {"key_name": "mine", "tags": {"team": "a"}, "disk_size": 100},
    {"spot": True, "instance_type": ["m7i.large", "m6i.large"]},
    {"instance_args": {"EbsOptimized": True}, "launch_template_args": {"EbsOptimized": True}},
]


@pytest.mark.parametrize("options", CONFIGS)
def test_requests_fit_the_service_s_model(options):
    """All that is sent is what EC2 knows."""
    config = EC2Config.of(**options)
    request = run_instances(config, groups=["sg-2"])
    assert_valid("RunInstances", {**request, "UserData": request["UserData"].decode()})
    assert_valid("CreateLaunchTemplate", launch_template(config))
    for market in config.markets("worker"):
        assert_valid("CreateFleet", create_fleet(config, market))


def test_machine_of_the_scheduler():
    """The scheduler's is where it was told to be, in its own group, with its type and one token."""
    request = run_instances(groups=["sg-2"])
    [interface] = request["NetworkInterfaces"]

    assert ("m7i.large", 1, 1, "t") == tuple(
        request[key] for key in ("InstanceType", "MinCount", "MaxCount", "ClientToken")
    )
    assert "subnet-2" == interface["SubnetId"]
    assert ["sg-1", "sg-2"] == interface["Groups"]
    assert {"Name": "dask-machine"} == request["IamInstanceProfile"]
    assert "InstanceMarketOptions" not in request


def test_launch_template_has_no_zone_and_no_type():
    """A fleet says those; all else is in the template, its user data in base64."""
    request = launch_template()
    data = request["LaunchTemplateData"]

    assert "dask-it" == request["LaunchTemplateName"]
    assert b"#cloud-config" == base64.b64decode(data["UserData"])
    assert not {"InstanceType", "SubnetId"} & {*data, *data["NetworkInterfaces"][0]}
    assert ["sg-1"] == data["NetworkInterfaces"][0]["Groups"]
    assert {"Arn": "arn:aws:iam::1:instance-profile/own"} == data["IamInstanceProfile"]


@pytest.mark.parametrize(("spot", "tagged"), [(False, False), ("fallback", False), (True, True)])
def test_spot_requests_are_tagged_where_every_launch_has_one(spot, tagged):
    """A template's tag on what a launch does not make refuses the launch."""
    parts = [
        s["ResourceType"]
        for s in launch_template(EC2Config.of(spot=spot))["LaunchTemplateData"]["TagSpecifications"]
    ]
    assert {"instance", "volume", "network-interface"} <= set(parts)
    assert tagged == ("spot-instances-request" in parts)


def test_pools_are_those_that_are_offered():
    """A fleet tries the types where they are, in the zones it is told."""
    [config] = create_fleet()["LaunchTemplateConfigs"]
    pools = [(o["InstanceType"], o["SubnetId"]) for o in config["Overrides"]]
    assert [("m7i.large", "subnet-1"), ("m7i.large", "subnet-2"), ("m6i.large", "subnet-2")] == pools
    [config] = create_fleet(zones=["us-east-1a"])["LaunchTemplateConfigs"]
    assert [{"InstanceType": "m7i.large", "SubnetId": "subnet-1"}] == config["Overrides"]


@pytest.mark.parametrize(
    ("named", "market", "strategy"),
    [
        (None, "on-demand", "lowest-price"),
        (None, "spot", "price-capacity-optimized"),
        (["m7i.large", "m6i.large"], "on-demand", "prioritized"),
        (["m7i.large", "m6i.large"], "spot", "capacity-optimized-prioritized"),
    ],
)
def test_order_of_preference(named, market, strategy):
    """Types that the user names keep their order; else the cheapest come first."""
    request = create_fleet(EC2Config.of(instance_type=named), market)
    options = request["SpotOptions" if market == "spot" else "OnDemandOptions"]
    priorities = [o.get("Priority") for o in request["LaunchTemplateConfigs"][0]["Overrides"]]

    assert strategy == options["AllocationStrategy"]
    assert ([0.0, 0.0, 1.0] if named else [None] * 3) == priorities
    assert {"TotalTargetCapacity": 10, "DefaultTargetCapacityType": market} == request[
        "TargetCapacitySpecification"
    ]


def test_scheduler_tries_all_types_in_a_zone_first():
    """The best zone's types come before any of the next zone's."""
    assert [
        ("m7i.large", "us-east-1a"),
        ("m7i.large", "us-east-1b"),
        ("m6i.large", "us-east-1b"),
    ] == PLAN.pools("scheduler")


def fleet_answer(**overrides):
    spec = {
        "LaunchTemplateAndOverrides": {"Overrides": {"SubnetId": "subnet-2", "InstanceType": "m6i.large"}}
    }
    return {
        "Lifecycle": "spot",
        "InstanceType": "m6i.large",
        "InstanceIds": ["i-1", "i-2"],
        **spec,
        **overrides,
    }


def test_machines_of_a_fleet():
    """A fleet's answer says where each machine is, of which type and on which market."""
    answer = {"Instances": [fleet_answer(), fleet_answer(Lifecycle="on-demand", InstanceIds=["i-3"])]}
    machines = wire.ordered(answer, IDENTITY, BOOTS["worker"], PLAN, 5.0)

    assert [("i-1", "spot"), ("i-2", "spot"), ("i-3", "on-demand")] == [(m.id, m.market) for m in machines]
    assert {("us-east-1b", "m6i.large", "it", 5.0)} == {
        (m.zone, m.kind, m.cluster, m.created) for m in machines
    }


def test_refused_pools_of_a_fleet():
    """Each error is told once for a pool."""
    error = {"ErrorCode": "InsufficientInstanceCapacity", "ErrorMessage": "none", **fleet_answer()}
    answer = {"Errors": [error, error]}
    assert [("InsufficientInstanceCapacity", "none", "m6i.large in us-east-1b")] == wire.refused_pools(
        answer, PLAN
    )


def test_plan_survives_its_parameters():
    """What another process reads is what was written, options included, however large."""
    config = EC2Config.of(spot="fallback", tags={"team": "a"}, instance_type="m7i.large")
    plan = dataclasses.replace(
        PLAN,
        boots={**BOOTS, "worker": dataclasses.replace(BOOTS["worker"], environment={"WORDS": "é'\n\"{{"})},
    )
    parts = plan.parts(config)
    found, options = Plan.loads(parts)

    assert plan == found
    assert config == dataclasses.replace(EC2Config.of(), **options)
    assert all("{{" not in part and len(part) <= 8192 for part in parts)


def instance(**facts):
    tags = {
        "dask-cluster": "it",
        "dask-role": "scheduler",
        "dask-group": "default",
        "dask-expires": "1800086400",
    }
    return {
        "InstanceId": "i-1",
        "InstanceType": "m7i.large",
        "State": {"Name": "running"},
        "LaunchTime": datetime.fromtimestamp(1_800_000_100, UTC),
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "PrivateIpAddress": "10.0.0.5",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        **facts,
    }


def test_machine_that_runs():
    """Everything EC2 says of a machine has its place."""
    machine = wire.machine(instance(PublicIpAddress="3.0.0.1", InstanceLifecycle="spot"))
    expected = Machine(
        id="i-1",
        role="scheduler",
        state=State.running,
        cluster="it",
        private_address="10.0.0.5",
        public_address="3.0.0.1",
        zone="us-east-1a",
        kind="m7i.large",
        market="spot",
        created=1_800_000_100.0,
        billed_from=1_800_000_100.0,
        expires=1_800_086_400,
    )
    assert expected == machine


def test_every_state_of_the_service_is_known():
    """No state that EC2's model has is missing from the table."""
    assert set(model().shape_for("InstanceStateName").enum) == set(wire.STATES)


def test_pending_costs_nothing_and_terminated_says_why():
    """A machine bills from its launch until it was told to end."""
    assert wire.machine(instance(State={"Name": "pending"})).billed_from is None
    gone = wire.machine(
        instance(
            State={"Name": "terminated"},
            StateTransitionReason="User initiated (2027-01-15 08:20:00 GMT)",
            StateReason={
                "Code": "Client.UserInitiatedShutdown",
                "Message": "Client.UserInitiatedShutdown: User initiated shutdown",
            },
        )
    )
    assert datetime(2027, 1, 15, 8, 20, tzinfo=UTC).timestamp() == gone.ended
    assert "Client.UserInitiatedShutdown: User initiated shutdown" == gone.reason


# -- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        ("InsufficientInstanceCapacity", CapacityError, "zones="),
        ("InsufficientHostCapacity", CapacityError, "zones="),
        ("SpotMaxPriceTooLow", CapacityError, "fallback"),
        ("MaxSpotInstanceCountExceeded", QuotaError, "fallback"),
        ("VcpuLimitExceeded", QuotaError, "servicequotas"),
        ("InstanceLimitExceeded", QuotaError, "servicequotas"),
        ("RequestLimitExceeded", QuotaError, "minute"),
        ("Unsupported", ConfigError, "another type"),
        ("InvalidAMIID.NotFound", ConfigError, "ami="),
        ("InvalidKeyPair.NotFound", ConfigError, "key_name="),
        ("InvalidLaunchTemplateName.NotFoundException", CloudError, "next order"),
        ("UnauthorizedOperation", CredentialsError, "dask cloud policy aws-ec2"),
    ],
)
def test_every_refusal_says_what_to_do(code, kind, advice):
    """Each code of EC2's is an error of its kind, with the way on."""
    error = _aws.AWS("us-east-1", policy="aws-ec2").refusal("CreateFleet", code, "EC2 said so.")

    assert kind is type(error)
    assert advice in str(error)
    assert "EC2 said so." in str(error)


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("exec /usr/bin/python: exec format error", "architecture="),
        ("docker: Error response from daemon: manifest for x:1 not found: manifest unknown", "image="),
        ("Error response from daemon: pull access denied for x", "image="),
        ("failed to register layer: write /x: no space left on device", "disk_size="),
        ("dial tcp 10.0.0.1:443: i/o timeout", "NAT gateway"),
        ("dask-cloud.service: Main process exited, code=exited, status=63/n/a", "versions do not match"),
    ],
)
def test_diagnosis_of_a_boot(log, advice):
    """What the log of a machine that came to nothing shows is explained, and the log shown."""
    machine = Machine(id="i-1", role="worker", state=State.gone, reason="Client.InstanceInitiatedShutdown")
    error = _ec2_ends.diagnosis(machine, log)

    assert BootError is type(error)
    assert advice in str(error)
    assert log == error.logs


def test_diagnosis_of_what_never_ran():
    """A machine that EC2 itself could not start is no boot that failed."""
    machine = Machine(
        id="i-1", role="worker", state=State.gone, reason="Server.InsufficientInstanceCapacity: no capacity"
    )
    assert isinstance(_ec2_ends.diagnosis(machine, ""), CapacityError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instance_typ": "m7i.large"}, "did you mean 'instance_type'"),
        ({"instance_type": "m7i.large", "cpu": 4}, "leave out cpu"),
        ({"instance_type": []}, "names no type"),
        ({"cpu": 0}, "more than nothing"),
        ({"memory": "much"}, "amount of memory"),
        ({"architecture": "mips"}, "x86_64"),
        ({"spot": "always"}, "fallback"),
        ({"disk_size": 0}, "GiB"),
        ({"boot": "docker"}, "container"),
        ({"boot": "uv", "image": "mine"}, "leave out image="),
        ({"lock": "uv.lock"}, "boot='uv'"),
        ({"instance_args": {"UserData": "x"}}, "UserData"),
        ({"security_groups": ["a", "b", "c", "d", "e"]}, "at most 4"),
    ],
)
def test_wrong_options(options, said):
    """What cannot work is refused before any call, in words."""
    with pytest.raises(ConfigError, match=said):
        EC2Config.of(**options)


def test_machines_are_reached_by_ssm_when_asked():
    """Only the machines that Systems Manager must reach get the role for it."""
    assert () == EC2Config.of().reached_by_ssm
    assert ("scheduler",) == EC2Config.of(tunnel=True).reached_by_ssm
    assert ("scheduler", "worker") == EC2Config.of(ssm_access=True).reached_by_ssm


def test_policies_fit_iam():
    """Each policy is one that IAM takes as a managed one, once its white space is left out."""
    for name in ("aws-ec2", "aws-ec2-landing", "aws-ec2-machine", "aws-ec2-machine-ssm", "aws-ec2-trust"):
        document = json.loads(policy(name, account="123456789012", region="eu-central-1"))
        assert len(json.dumps(document, separators=(",", ":"))) <= 6144
        assert document["Statement"]


def test_names():
    """Names are functions of the cluster's, and fit what AWS takes."""
    assert "dask-it" == _ec2_names.template("it")
    assert "it/i-1" == _ec2_names.log_stream("it", "i-1")
    assert len(_ec2_names.template("x" * 40)) <= 128
