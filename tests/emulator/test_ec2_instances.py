"""EC2 instances of the embedded AWS: ordered, described, stopped, started, terminated."""

from __future__ import annotations

import base64
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from ec2_account import TYPE, ids_of

TAGS = {"instance": "a", "volume": "b", "network-interface": "c"}


def tags_of(resources):
    """The tags of some resources by key."""
    return [{tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in resources]


def test_order_is_told_at_once_and_runs_soon(machines):
    """RunInstances answers with pending instances that have their address; then they run."""
    made = machines.run(2)

    assert ["pending", "pending"] == [one["State"]["Name"] for one in made]
    assert [0, 1] == [one["AmiLaunchIndex"] for one in made]
    running = machines.until(ids_of(made), "running")
    assert [one["PrivateIpAddress"] for one in made] == [one["PrivateIpAddress"] for one in running]
    assert [one["LaunchTime"] for one in made] == [one["LaunchTime"] for one in running]
    assert "" == running[0]["StateTransitionReason"]


def test_counts_between_least_and_most(machines, bare):
    """As many are started as there is room for, at least MinCount, at most MaxCount."""
    bare.inject("capacity", room=3)

    assert 3 == len(machines.run(MinCount=2, MaxCount=9))
    with pytest.raises(ClientError, match=r"InsufficientInstanceCapacity.*m7i.xlarge capacity") as caught:
        machines.run(MinCount=1, MaxCount=2)
    assert 500 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_same_token_makes_nothing_twice(machines):
    """A call repeated with its token answers the same; with other parameters it is refused."""
    first = machines.run(2, ClientToken="x")

    assert ids_of(first) == ids_of(machines.run(2, ClientToken="x"))
    assert 2 == len(machines.look())
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        machines.run(3, ClientToken="x")


def test_everything_made_with_an_instance_is_tagged(machines):
    """Tags of the order are on each instance, its volumes and its interfaces."""
    wanted = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": v}]} for kind, v in TAGS.items()]
    made = ids_of(machines.run(2, TagSpecifications=wanted))
    where = [{"Name": "attachment.instance-id", "Values": made}]
    ec2 = machines.ec2

    assert [{"k": "a"}] * 2 == tags_of(machines.look(*made))
    assert [{"k": "b"}] * 2 == tags_of(ec2.describe_volumes(Filters=where)["Volumes"])
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [{"k": "c"}] * 2 == [{tag["Key"]: tag["Value"] for tag in one["TagSet"]} for one in interfaces]


def test_request_of_a_spot_instance_is_tagged_and_ends_with_it(machines):
    """A spot instance has a request with tags of its own, closed when it is terminated."""
    wanted = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "k", "Value": "v"}]}]
    [made] = machines.spot(TagSpecifications=wanted)
    [told] = machines.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]

    assert ("spot", told["SpotInstanceRequestId"]) == (
        made["InstanceLifecycle"],
        made["SpotInstanceRequestId"],
    )
    assert ("active", "fulfilled", [{"Key": "k", "Value": "v"}]) == (
        told["State"],
        told["Status"]["Code"],
        told["Tags"],
    )
    machines.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    machines.until([made["InstanceId"]], "terminated")
    [told] = machines.ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert ("closed", "instance-terminated-by-user") == (told["State"], told["Status"]["Code"])


def test_profile_goes_to_every_instance(machines):
    """Each instance of an order has the instance profile, by name or by ARN."""
    machines.profile("worker")
    made = machines.run(3, IamInstanceProfile={"Name": "worker"})
    arns = {one["IamInstanceProfile"]["Arn"] for one in made}

    assert ["arn:aws:iam::123456789012:instance-profile/worker"] == list(arns)
    assert arns == {
        machines.run(IamInstanceProfile={"Arn": arns.copy().pop()})[0]["IamInstanceProfile"]["Arn"]
    }


def test_root_volume_is_the_images_as_the_order_changes_it(machines):
    """An ECS-optimised image boots from 30 GiB of gp3; the order may make it larger and encrypted."""
    plain, changed = (
        machines.run()[0],
        machines.run(
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 100, "Encrypted": True}}]
        )[0],
    )
    volumes = {
        one["Attachments"][0]["InstanceId"]: (one["Size"], one["VolumeType"], one["Encrypted"])
        for one in machines.ec2.describe_volumes()["Volumes"]
    }

    assert (30, "gp3", False) == volumes[plain["InstanceId"]]
    assert (100, "gp3", True) == volumes[changed["InstanceId"]]
    [image] = machines.ec2.describe_images(ImageIds=[machines.image])["Images"]
    [root] = image["BlockDeviceMappings"]
    assert ("/dev/xvda", 30, True) == (root["DeviceName"], root["Ebs"]["VolumeSize"], image["EnaSupport"])


def test_interface_says_subnet_groups_and_address(machines):
    """An interface of the order says where the instance is, who reaches it, and whether it is public."""
    subnet = machines.ec2.describe_subnets()["Subnets"][2]
    group = machines.ec2.create_security_group(GroupName="own", Description="x")["GroupId"]
    interface = {"DeviceIndex": 0, "SubnetId": subnet["SubnetId"], "Groups": [group]}
    [private] = machines.run(NetworkInterfaces=[{**interface, "AssociatePublicIpAddress": False}])
    [ordered] = machines.run(NetworkInterfaces=[{**interface, "AssociatePublicIpAddress": True}])
    [private, public] = machines.until([private["InstanceId"], ordered["InstanceId"]], "running")

    assert ("", False) == (ordered["PublicDnsName"], "PublicIpAddress" in ordered)  # nobody knows it yet
    assert "PublicIpAddress" not in private
    assert public["PublicDnsName"]
    assert public["PublicIpAddress"] == public["NetworkInterfaces"][0]["Association"]["PublicIp"]
    assert [group] == [one["GroupId"] for one in private["SecurityGroups"]]
    assert (subnet["SubnetId"], subnet["AvailabilityZone"]) == (
        private["SubnetId"],
        private["Placement"]["AvailabilityZone"],
    )


def test_termination_takes_everything_along(machines, bare):
    """A terminated instance is told for a while, without address; its volume and interface are gone."""
    made = ids_of(machines.run(2))
    machines.until(made, "running")
    before = time.gmtime()
    changes = machines.ec2.terminate_instances(InstanceIds=made)["TerminatingInstances"]
    gone = machines.until(made, "terminated")

    assert {("running", "shutting-down")} == {
        (one["PreviousState"]["Name"], one["CurrentState"]["Name"]) for one in changes
    }
    assert "Client.UserInitiatedShutdown" == gone[0]["StateReason"]["Code"]
    assert gone[0]["StateTransitionReason"].startswith(f"User initiated ({time.strftime('%Y-%m-%d', before)}")
    assert "PrivateIpAddress" not in gone[0]
    assert [] == gone[0]["NetworkInterfaces"]
    assert [] == bare.leftovers()
    assert ["terminated"] * 2 == [one.state for one in bare.machines()]
    again = machines.ec2.terminate_instances(InstanceIds=made)["TerminatingInstances"]
    assert {"terminated"} == {one["CurrentState"]["Name"] for one in again}


def test_all_or_none_is_terminated(machines):
    """When one of the ids is no instance's, none of the others is terminated."""
    [made] = ids_of(machines.run())
    with pytest.raises(ClientError, match=r"InvalidInstanceID.NotFound.*i-0123456789abcdef0") as caught:
        machines.ec2.terminate_instances(InstanceIds=[made, "i-0123456789abcdef0"])

    assert made not in str(caught.value)
    machines.until([made], "running")
    with pytest.raises(ClientError, match=r"InvalidInstanceID.Malformed"):
        machines.look("x-1")


def test_protected_instance_is_not_terminated(machines):
    """An instance with termination protection is kept until that is taken off."""
    [made] = ids_of(machines.run(DisableApiTermination=True))
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        machines.ec2.terminate_instances(InstanceIds=[made])

    machines.ec2.modify_instance_attribute(InstanceId=made, DisableApiTermination={"Value": False})
    machines.ec2.terminate_instances(InstanceIds=[made])
    machines.until([made], "terminated")


def test_stopped_instance_starts_again(machines):
    """A stopped instance keeps its address and its volume, and can be started; a spot one cannot be stopped."""
    [made] = machines.run()
    id = made["InstanceId"]
    machines.until([id], "running")
    machines.ec2.stop_instances(InstanceIds=[id])
    [stopped] = machines.until([id], "stopped")

    assert made["PrivateIpAddress"] == stopped["PrivateIpAddress"]
    assert 1 == len(stopped["BlockDeviceMappings"])
    machines.ec2.start_instances(InstanceIds=[id])
    machines.until([id], "running")
    spot = ids_of(machines.spot())
    with pytest.raises(ClientError, match=r"UnsupportedOperation.*one-time Spot"):
        machines.ec2.stop_instances(InstanceIds=spot)
    machines.ec2.terminate_instances(InstanceIds=[id])
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        machines.ec2.start_instances(InstanceIds=[id])


def test_description_is_paged_and_filtered(machines):
    """DescribeInstances gives pages that join without loss, and only what its filters let through."""
    tagged = [{"ResourceType": "instance", "Tags": [{"Key": "name", "Value": "one"}]}]
    made = ids_of(machines.run(12)) + ids_of(machines.run(TagSpecifications=tagged))
    pages = list(machines.ec2.get_paginator("describe_instances").paginate(MaxResults=5))
    found = [ids_of(group["Instances"]) for page in pages for group in page["Reservations"]]

    assert 3 == len(pages)
    assert made == [id for group in found for id in group]

    def ask(*filters):
        answer = machines.ec2.describe_instances(
            Filters=[{"Name": name, "Values": values} for name, values in filters]
        )
        return [id for group in answer["Reservations"] for id in ids_of(group["Instances"])]

    assert made[-1:] == ask(("tag:name", ["o*"]))
    assert made[:-1] == [id for id in made if id not in ask(("tag-key", ["name"]))]
    assert [] == ask(("instance-state-name", ["stopped"]))
    assert made == ask(("instance-type", [TYPE]), ("instance-state-name", ["pending", "running"]))
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*filter 'colour' is invalid"):
        ask(("colour", ["red"]))
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        machines.ec2.describe_instances(InstanceIds=made, MaxResults=5)
    with pytest.raises(ClientError, match="InvalidNextToken"):
        machines.ec2.describe_instances(NextToken="x", MaxResults=5)


def test_tags_of_today_are_told(machines):
    """Tags that an instance gets later are told, and those that are taken away are not."""
    [made] = ids_of(machines.run())
    machines.ec2.create_tags(Resources=[made], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    machines.ec2.delete_tags(Resources=[made], Tags=[{"Key": "a"}])

    assert [{"b": "2"}] == tags_of(machines.look(made))


def test_new_instances_are_not_seen_at_once(machines, bare):
    """Where descriptions are stale, a new instance is unknown by its id and absent from lists, for a while."""
    with bare.inject("stale", seconds=1.0):
        [made] = ids_of(machines.run())
        with pytest.raises(ClientError, match=r"InvalidInstanceID.NotFound"):
            machines.look(made)
        assert [] == machines.look()
        deadline = time.monotonic() + 20
        while not machines.look():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_console_is_base64(machines):
    """GetConsoleOutput answers base64, nothing when nothing was said."""
    [made] = ids_of(machines.run())
    answer = machines.ec2.get_console_output(InstanceId=made)

    assert (made, "") == (answer["InstanceId"], answer["Output"])


def test_launch_template_is_below_the_call(machines):
    """What the call does not say is the template's: image, type, user data, options, tags."""
    data = base64.b64encode(b"#!/bin/sh\n").decode()
    template = machines.template(
        UserData=data,
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": "template"}]}],
    )
    given = {"MinCount": 1, "MaxCount": 1, "LaunchTemplate": {"LaunchTemplateId": template}}
    [made] = machines.ec2.run_instances(**given)["Instances"]
    [other] = machines.ec2.run_instances(InstanceType="c7i.large", **given)["Instances"]
    told = machines.ec2.describe_instance_attribute

    assert (TYPE, "c7i.large") == (made["InstanceType"], other["InstanceType"])
    assert ("required", 1) == (
        made["MetadataOptions"]["HttpTokens"],
        made["MetadataOptions"]["HttpPutResponseHopLimit"],
    )
    tags = {tag["Key"]: tag["Value"] for tag in made["Tags"]}
    assert {
        "k": "template",
        "aws:ec2launchtemplate:id": template,
        "aws:ec2launchtemplate:version": "1",
    } == tags
    id = made["InstanceId"]
    assert data == told(InstanceId=id, Attribute="userData")["UserData"]["Value"]
    behaviour = told(InstanceId=id, Attribute="instanceInitiatedShutdownBehavior")
    assert "terminate" == behaviour["InstanceInitiatedShutdownBehavior"]["Value"]


def test_image_by_the_name_of_a_parameter(machines):
    """An image may be named by the public parameter that holds its id."""
    name = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
    [made] = machines.run(ImageId=f"resolve:ssm:{name}")

    assert machines.image == made["ImageId"]


def test_what_moto_says_right_is_said_the_same(machines):
    """Of an instance, moto's own description of its parts agrees with ours: interfaces, volumes, status."""
    [made] = machines.run()
    machines.until(ids_of([made]), "running")
    [interface] = machines.ec2.describe_network_interfaces()["NetworkInterfaces"]
    [volume] = machines.ec2.describe_volumes()["Volumes"]
    [seen] = machines.look(made["InstanceId"])
    [own] = seen["NetworkInterfaces"]

    for key in (
        "NetworkInterfaceId",
        "PrivateIpAddress",
        "SubnetId",
        "VpcId",
        "MacAddress",
        "Groups",
        "Status",
    ):
        assert interface[key] == own[key]
    assert interface["Attachment"]["InstanceId"] == made["InstanceId"]
    [device] = seen["BlockDeviceMappings"]
    [attachment] = volume["Attachments"]
    assert (volume["VolumeId"], attachment["Device"]) == (device["Ebs"]["VolumeId"], device["DeviceName"])
    [status] = machines.ec2.describe_instance_status()["InstanceStatuses"]
    assert ("running", "ok") == (status["InstanceState"]["Name"], status["InstanceStatus"]["Status"])


def test_auto_scaling_starts_live_instances(machines):
    """Instances that another service orders of EC2 live as those do that are ordered by the call."""
    template = machines.template()
    boto3.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="g",
        MinSize=2,
        MaxSize=2,
        AvailabilityZones=["us-east-1a"],
        LaunchTemplate={"LaunchTemplateId": template},
    )
    found = machines.until(ids_of(machines.look()), "running")

    assert [TYPE] * 2 == [one["InstanceType"] for one in found]
