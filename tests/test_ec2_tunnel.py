"""The tunnel to an EC2 instance: waited for until its agent is online, on the embedded AWS."""

from __future__ import annotations

import json
import time

import boto3
import pytest
import session_manager_plugin

from cloudprovider.errors import ConfigError
from cloudprovider.providers import _ec2_tunnel
from cloudprovider.providers._aws import AWS
from cloudprovider.tunnel import NotYetError

CORE = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
IMAGE = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The plugin's stand-in, and nothing else, in PATH."""
    session_manager_plugin.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))


def profile(name: str, *policies: str) -> dict[str, str]:
    """An instance profile of a new role with these policies."""
    iam = boto3.client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    for policy in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return {"Name": name}


def started(**request) -> str:
    """An instance that runs; its id."""
    image = boto3.client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
    ec2 = boto3.client("ec2")
    answer = ec2.run_instances(
        ImageId=image, InstanceType="m7i.large", MinCount=1, MaxCount=1, UserData="#!/bin/sh\n", **request
    )
    instance = answer["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})
    return instance


def private_subnet(*services: str) -> str:
    """A subnet without a way out, in a VPC with endpoints of these services."""
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    for service in services:
        ec2.create_vpc_endpoint(
            VpcId=vpc, ServiceName=f"com.amazonaws.us-east-1.{service}", VpcEndpointType="Interface"
        )
    zone = "us-east-1a"  # without one any zone is taken, and not every zone has every machine type
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)
    return subnet["Subnet"]["SubnetId"]


def online(instance: str, timeout_s: float = 0.0) -> bool:
    """Whether the agent of an instance is known as online, within a time."""
    deadline = time.monotonic() + timeout_s
    while True:
        filters = [{"Key": "InstanceIds", "Values": [instance]}]
        answer = boto3.client("ssm").describe_instance_information(Filters=filters)
        try:
            return _ec2_tunnel.target(instance, answer) == instance
        except NotYetError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)


@pytest.mark.usefixtures("emulated_aws")
def test_agent_is_online_by_role_and_way():
    """An agent comes online where the role allows it and the subnet has a way out, or both endpoints."""
    core = profile("core", CORE)
    allowed = started(IamInstanceProfile=core)
    bare = started(IamInstanceProfile=profile("bare"))
    none = started()
    lost = started(IamInstanceProfile=core, SubnetId=private_subnet("ssm"))
    reached = started(IamInstanceProfile=core, SubnetId=private_subnet("ssm", "ssmmessages"))

    assert online(allowed, 30)
    assert online(reached, 30)
    assert [False] * 3 == [online(instance) for instance in (bare, none, lost)]


@pytest.mark.usefixtures("emulated_aws")
def test_session_needs_an_agent():
    """A session to an instance whose agent is not online is refused, and one to an online agent opens."""
    ssm = boto3.client("ssm")
    allowed, none = started(IamInstanceProfile=profile("core", CORE)), started()
    parameters = {"host": ["127.0.0.1"], "portNumber": ["22"], "localPortNumber": ["0"]}
    request = {"DocumentName": "AWS-StartPortForwardingSessionToRemoteHost", "Parameters": parameters}
    assert online(allowed, 30)
    session = ssm.start_session(Target=allowed, **request)["SessionId"]
    ssm.terminate_session(SessionId=session)
    with pytest.raises(ssm.exceptions.TargetNotConnected):
        ssm.start_session(Target=none, **request)


@pytest.mark.usefixtures("emulated_aws", "plugin")
def test_agent_that_never_comes_is_an_error_that_says_what_it_takes():
    """At the deadline the error names the role's rights, the endpoints and the agent."""
    tunnel = _ec2_tunnel.tunnel(AWS("us-east-1"), started(), "127.0.0.1")
    with pytest.raises(
        NotYetError, match=r"never reported.*ssm:UpdateInstanceInformation.*ssmmessages.*agent"
    ):
        tunnel.open(1.5)


def test_agent_that_was_lost_is_not_there_yet():
    """An agent that no longer reports is told as Systems Manager tells it."""
    answer = {"InstanceInformationList": [{"InstanceId": "i-1", "PingStatus": "ConnectionLost"}]}
    with pytest.raises(NotYetError, match="ConnectionLost"):
        _ec2_tunnel.target("i-1", answer)


def test_missing_plugin_is_found_before_any_call(emulated_aws, tmp_path, monkeypatch):
    """Without the plugin the error says where to get it, and nothing has been asked of the cloud."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="session-manager-working-with-install-plugin"):
        _ec2_tunnel.tunnel(AWS("us-east-1"), "i-0123456789abcdef0", "10.0.0.5")
    assert [] == emulated_aws.calls
