"""The policies of managers on AWS: enough for a whole life, nothing more, and each part of them is missed."""

from __future__ import annotations

import contextlib
import functools
import json

import boto3
import pytest
from botocore.exceptions import ClientError
from rights import (
    ACCOUNT,
    EC2,
    ECS,
    GCP,
    REGION,
    WHO,
    Azure,
    AzureLanding,
    Fargate,
    GCPBelow,
    covers,
    grow,
    listed,
    live,
    policy,
)

#: The lives that are measured; those on Azure take its SDK too long for every run, and ECS has part of Fargate's.
KINDS = {kind.__name__: kind for kind in (Fargate, ECS, EC2, GCP, AzureLanding, Azure)}
LONG = ("ECS", "AzureLanding", "Azure")
#: What a shipped policy allows beside what a life needs, and why.
REASONS = {
    ("aws-fargate", "role/dask-*-"): "who sweeps an autonomous cluster sees that it has no role of its own",
    ("aws-ecs", "role/dask-*-"): "the same",
    ("aws-ec2", "role/dask-*-"): "the same",
    (
        "aws-ec2",
        "sts:DecodeAuthorizationMessage",
    ): "what EC2's refusals say, where they do not say it in words",
    ("aws-ec2", "key-pair/*"): "instance_args= may name a key pair",
    ("aws-ec2", ":image/*"): "ami= may be one of the account's own",
    ("aws-ec2", "snapshot/*"): "block devices in instance_args= may begin as snapshots",
    ("aws-ec2", "spot-instances-request/*"): "without spot='fallback' a spot order tags its request",
    ("gcp", "compute.acceleratorTypes.list"): "gpu_type= adds GPUs to a type that has none",
    ("gcp", "compute.images.get"): "machine_image= may be one of a project's own",
    ("gcp", "compute.images.getFromFamily"): "the same",
    ("gcp", "compute.images.useReadOnly"): "the same",
    ("gcp", "compute.regionOperations.get"): "with several zones= workers are ordered in the region",
    ("gcp-landing", "iam.roles.undelete"): "a landing's role that was deleted is taken back",
    (
        "azure",
        "Microsoft.KeyVault/vaults/secrets/recover/action",
    ): "a vault may forbid to purge, or be slow to",
    ("azure-offers", "Microsoft.KeyVault/locations/operationResults/read"): "vaults take longer than here",
    ("azure-offers", "Microsoft.KeyVault/locations/operations/read"): "the same",
    ("azure-offers", "Microsoft.Network/locations/operations/read"): "networks take longer than here",
}
#: Rights without which a manager goes on, and what it then does less well.
TOLERATED = {
    "ec2:DescribeSpotPriceHistory": "the price of a spot machine is then unknown",
    "servicequotas:GetServiceQuota": "quotas are then unknown",
    "compute.routers.list": "a Cloud NAT is then taken for none",
    "Microsoft.Compute/locations/operations/read": "an order is then followed by its machines alone",
    "Microsoft.Compute/virtualMachineScaleSets/delete": "empty scale sets, which cost nothing, are then left",
    "Microsoft.KeyVault/vaults/secrets/purge/action": "deleted secrets then go when their vault forgets them",
}
#: What a manager tries that has only the rights of its own policy, and goes on without.
TRIED = {
    "iam:PutRolePolicy": "in a role's first minute its maker may still be about to give it its policy",
    "resourcemanager.projects.getIamPolicy": "a cluster that may bind nothing has no binding to look for",
}


def _cases():
    """Each right of each shipped policy that a life needs."""
    for name, kind in KINDS.items():
        for key in kind.listed():
            if (key[0], key[2]) not in REASONS:
                marks = [pytest.mark.slow] if name in LONG else []
                yield pytest.param(name, *key, marks=marks, id="-".join((name, *key)))


CONDITIONS = [
    (kind.__name__, name, statement["Sid"], key)
    for kind in (Fargate, EC2)
    for name, document in kind.shipped().items()
    for statement in document["Statement"]
    for tests in statement.get("Condition", {}).values()
    for key in tests
]


@pytest.fixture(scope="module")
def grown(bare_processes):
    """A life on each service that began without any right, and was given each that it was refused."""

    @functools.cache
    def of(name):
        kind = KINDS[name]
        cloud = bare_processes(kind.cloud_name)
        cloud.reset(profile="instant", time_scale=1.0, seed=0)
        with cloud.active():
            life = kind(cloud).begun()
        return grow(cloud, life, TOLERATED)

    return of


@pytest.mark.parametrize(("kind", "name", "part", "action"), [*_cases()])
def test_each_right_is_missed(grown, kind, name, part, action):
    """Without any one right of a policy a life on that service fails, with an error that names the right."""
    missed = grown(kind).said

    assert (name, part, action) in missed, "no call of a whole life needs it"
    assert action in (missed[name, part, action] or (TOLERATED[action] and action))


@pytest.mark.parametrize("kind", [Fargate, EC2, GCPBelow, Azure])
def test_whole_life_of_a_colleague(bare_processes, kind):
    """Where somebody has made the landing, its own policy is not needed: a manager's is enough for a whole life."""
    cloud = bare_processes(kind.cloud_name)
    cloud.reset(profile="instant", time_scale=1.0, seed=0)
    with cloud.active():
        life = kind(cloud, "later").landed()
    own = [document for name, document in kind.shipped().items() if not name.endswith("landing")]

    assert live(cloud, life, own) <= set(TRIED)


@pytest.mark.parametrize("kind", ["Fargate", pytest.param("ECS", marks=pytest.mark.slow), "EC2"])
def test_no_resource_is_too_many(grown, kind):
    """Each resource that a policy of AWS names is one that a life needs, or there is a reason."""
    spare = [
        (name, resource)
        for name, document in KINDS[kind].shipped().items()
        for statement in document["Statement"]
        if not all((name, action) in REASONS for action in listed(statement["Action"]))
        for resource in listed(statement["Resource"])
        if not covers(document, statement["Sid"], {"Resource": resource}, grown(kind).needs)
    ]

    assert [] == [
        one for one in spare if not any(one[0] == name and part in one[1] for name, part in REASONS)
    ]


# -- conditions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strangers(bare_process):
    """What in an account is no Dask cluster's, and a manager's clients whose policies can be changed."""
    bare_process.reset()
    with bare_process.active():
        made = _strangers(boto3.Session())
    with bare_process.active(bare_process.login(name=WHO)):
        session = boto3.Session()
        clients = {name: session.client(name) for name in ("ec2", "ecs", "iam", "ssm")}
    return bare_process, clients, made


def _strangers(session) -> dict[str, str]:
    ec2, ecs, iam = (session.client(name) for name in ("ec2", "ecs", "iam"))
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    for name in ("dask-task", "dask-machine"):
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="theirs")
    for name in ("dask", "theirs"):
        ecs.create_cluster(clusterName=name)
    container = {"name": "dask", "image": "busybox", "memory": 64}
    defined = ecs.register_task_definition(family="dask-it-worker", containerDefinitions=[container])
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    [machine] = ec2.run_instances(ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"]
    return {
        "image": image,
        "machine": machine["InstanceId"],
        "group": ec2.create_security_group(GroupName="theirs", Description="theirs")["GroupId"],
        "definition": defined["taskDefinition"]["taskDefinitionArn"],
    }


CONTAINER = {"name": "dask", "image": "busybox", "memory": 64}
RULE = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
#: By statement: a call that its condition alone forbids, what that is refused for, and what it takes beside.
FORBIDDEN = {
    "RunTasks": (
        "ecs:RunTask",
        lambda c, _: c["ecs"].run_task(cluster="theirs", taskDefinition="dask-it-worker"),
    ),
    "ListTasks": ("ecs:ListTasks", lambda c, _: c["ecs"].list_tasks(cluster="theirs")),
    "TagAtBirth": (
        "ecs:TagResource",
        lambda c, m: c["ecs"].tag_resource(resourceArn=m["definition"], tags=[{"key": "k", "value": "v"}]),
    ),
    "SchedulerGroupTags": (
        "ec2:CreateTags",
        lambda c, m: c["ec2"].create_tags(Resources=[m["group"]], Tags=[{"Key": "k", "Value": "v"}]),
    ),
    "SchedulerGroup": (
        "ec2:CreateSecurityGroup",
        lambda c, _: c["ec2"].create_security_group(GroupName="new", Description="new", VpcId="vpc-1"),
    ),
    "OwnSchedulerGroup": (
        "ec2:AuthorizeSecurityGroupIngress",
        lambda c, m: c["ec2"].authorize_security_group_ingress(GroupId=m["group"], IpPermissions=[RULE]),
    ),
    "EcsCluster": ("ecs:CreateCluster", lambda c, _: c["ecs"].create_cluster(clusterName="new")),
    "EcsClusterTags": (
        "ecs:TagResource",
        lambda c, _: c["ecs"].tag_resource(
            resourceArn=f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/dask", tags=[{"key": "k", "value": "v"}]
        ),
    ),
    "EcsServiceLinkedRole": (
        "iam:CreateServiceLinkedRole",
        lambda c, _: c["iam"].create_service_linked_role(AWSServiceName="lex.amazonaws.com"),
    ),
    "OrderMachines": (
        "ec2:RunInstances",
        lambda c, m: c["ec2"].run_instances(
            ImageId=m["image"], InstanceType="m5.large", MinCount=1, MaxCount=1
        ),
    ),
    "LaunchTemplate": (
        "ec2:CreateLaunchTemplate",
        lambda c, m: c["ec2"].create_launch_template(
            LaunchTemplateName="new", LaunchTemplateData={"ImageId": m["image"]}
        ),
    ),
    "OwnMachines": (
        "ec2:TerminateInstances",
        lambda c, m: c["ec2"].terminate_instances(InstanceIds=[m["machine"]]),
    ),
}
FORBIDDEN |= {
    "SharedGroup": FORBIDDEN["SchedulerGroup"],
    "SharedGroupRule": FORBIDDEN["OwnSchedulerGroup"],
    "FleetServiceLinkedRoles": FORBIDDEN["EcsServiceLinkedRole"],
}
#: To hand a role to another service takes a call of that service, which the policy does not allow.
PASSED = {
    "Fargate": (
        "iam:AddRoleToInstanceProfile",
        lambda c, _: c["iam"].add_role_to_instance_profile(
            InstanceProfileName="theirs", RoleName="dask-task"
        ),
    ),
    "EC2": (
        "ecs:RegisterTaskDefinition",
        lambda c, _: c["ecs"].register_task_definition(
            family="new",
            containerDefinitions=[CONTAINER],
            taskRoleArn=f"arn:aws:iam::{ACCOUNT}:role/dask-machine",
        ),
    ),
}


def _forbidden(kind, sid):
    if sid == "PassRoles":
        along, call = PASSED[kind]
        return "iam:PassRole", call, [{"Effect": "Allow", "Action": along, "Resource": "*"}]
    if (kind, sid) == ("EC2", "TagAtBirth"):
        return (*FORBIDDEN["SchedulerGroupTags"], [])
    return (*FORBIDDEN[sid], [])


@pytest.mark.parametrize(("kind", "name", "sid", "key"), CONDITIONS)
def test_each_condition_is_missed(strangers, kind, name, sid, key):
    """A call that one condition of a policy forbids is refused by its action, and would be allowed without it."""
    cloud, clients, made = strangers
    action, call, along = _forbidden(kind, sid)
    shipped = KINDS[kind].shipped()
    whole = [one for document in shipped.values() for one in document["Statement"]]

    cloud.login({"Statement": [*whole, *along]}, name=WHO)
    with pytest.raises(ClientError, match=f"perform: {action}"):
        call(clients, made)
    looser = [
        _without(one, key) if one in shipped[name]["Statement"] and one["Sid"] == sid else one
        for one in whole
    ]
    cloud.login({"Statement": [*looser, *along]}, name=WHO)
    before = len(cloud.calls)
    with contextlib.suppress(ClientError):  # what it asks for need not make sense
        call(clients, made)
    assert {""} == {one.denied for one in cloud.calls[before:]}


def _without(statement, key):
    tests = {
        operator: {name: value for name, value in keys.items() if name != key}
        for operator, keys in statement["Condition"].items()
    }
    return {**statement, "Condition": {operator: keys for operator, keys in tests.items() if keys}}


# -- tunnels -----------------------------------------------------------------------------------------------

DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
FORWARD = {"portNumber": ["8786"], "localPortNumber": ["8786"], "host": ["10.0.0.5"]}


@pytest.mark.parametrize(
    ("name", "sid", "tag", "document", "said"),
    [
        ("aws-ec2-tunnel", "", "dask-cluster", DOCUMENT, ""),
        ("aws-ec2-tunnel", "", "other", DOCUMENT, "ssm:StartSession"),
        ("aws-ec2-tunnel", "", "dask-cluster", "AWS-StartSSHSession", "ssm:StartSession"),
        ("aws-ec2-tunnel", "OpenTunnel", "dask-cluster", DOCUMENT, "ssm:StartSession"),
        ("aws-ec2-tunnel", "ForwardPorts", "dask-cluster", DOCUMENT, "ssm:StartSession"),
    ],
)
def test_tunnels_of_ec2(strangers, name, sid, tag, document, said):
    """With the tunnels' policy ports of a cluster's machines are forwarded, and nothing is done elsewhere."""
    cloud, clients, made = strangers
    everything = [{"Effect": "Allow", "Action": "ec2:*Tags", "Resource": "*"}]
    cloud.login({"Statement": everything}, name=WHO)
    clients["ec2"].create_tags(Resources=[made["machine"]], Tags=[{"Key": tag, "Value": "it"}])
    shipped = policy(name)
    kept = [one for one in shipped["Statement"] if one["Sid"] != sid]
    cloud.login({"Statement": kept}, name=WHO)
    before = len(cloud.calls)
    with contextlib.suppress(ClientError):  # no agent runs in it
        clients["ssm"].start_session(Target=made["machine"], DocumentName=document, Parameters=FORWARD)
    cloud.login({"Statement": everything}, name=WHO)
    clients["ec2"].delete_tags(Resources=[made["machine"]], Tags=[{"Key": tag}])

    assert [said] == [one.denied for one in cloud.calls[before:] if one.operation == "StartSession"]


@pytest.mark.parametrize("name", ["aws-ec2-tunnel", "aws-fargate-tunnel"])
@pytest.mark.parametrize("sid", ["", "CloseTunnel"])
def test_tunnels_are_closed(strangers, name, sid):
    """With the tunnels' policy a session is ended, and without that statement it is not."""
    cloud, clients, _ = strangers
    kept = [one for one in policy(name)["Statement"] if one["Sid"] != sid]
    cloud.login({"Statement": kept}, name=WHO)
    before = len(cloud.calls)
    with contextlib.suppress(ClientError):
        clients["ssm"].terminate_session(SessionId="somebody-0123456789abcdef0")

    assert ["ssm:TerminateSession" if sid else ""] == [one.denied for one in cloud.calls[before:]]
