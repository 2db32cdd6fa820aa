"""EC2 fleets of type instant on the embedded AWS: from which pools they take, and what they say of the rest."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError
from ec2_account import fleet_ids

A, B, C = ({"AvailabilityZone": f"us-east-1{zone}"} for zone in "abc")


def test_fleet_answers_with_ids_of_instances_that_live(machines):
    """One call starts as many as are wanted, with the template's type and tags and the fleet's own."""
    template = machines.template(
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "t"}]}]
    )
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "b", "Value": "f"}]}]
    answer = machines.fleet(template, 5, TagSpecifications=tags)
    found = machines.until(fleet_ids(answer), "running")

    assert (5, []) == (len(found), answer["Errors"])
    [group] = answer["Instances"]
    assert "on-demand" == group["Lifecycle"]
    assert {"LaunchTemplateId": template, "Version": "1"} == group["LaunchTemplateAndOverrides"][
        "LaunchTemplateSpecification"
    ]
    own = {tag["Key"]: tag["Value"] for tag in found[0]["Tags"]}
    assert own | {"a": "t", "b": "f", "aws:ec2:fleet-id": answer["FleetId"]} == own


def test_partial_fleet_names_what_each_pool_refused(machines, bare):
    """Where a pool has not enough, the next is tried; what is still lacking has an error for each pool."""
    bare.reset(capacity={"us-east-1a": 2, "us-east-1b": 1, "us-east-1c/m7i.xlarge": 0})
    answer = machines.prepare().fleet(machines.template(), 9, A, B, C)
    errors = {
        one["LaunchTemplateAndOverrides"]["Overrides"]["AvailabilityZone"]: one["ErrorCode"]
        for one in answer["Errors"]
    }

    assert 3 == len(fleet_ids(answer))
    assert dict.fromkeys(("us-east-1a", "us-east-1b", "us-east-1c"), "InsufficientInstanceCapacity") == errors
    zones = {one["AvailabilityZone"]: len(one["InstanceIds"]) for one in answer["Instances"]}
    assert {"us-east-1a": 2, "us-east-1b": 1} == zones


def test_capacity_comes_back_when_instances_end(machines, bare):
    """Room that terminated instances held is room again."""
    bare.reset(capacity={"spot": 2})
    template = machines.prepare().template()
    first = fleet_ids(machines.fleet(template, 2, market="spot"))
    assert [] == fleet_ids(machines.fleet(template, 1, market="spot"))

    machines.ec2.terminate_instances(InstanceIds=first)
    machines.until(first, "terminated")
    assert 1 == len(fleet_ids(machines.fleet(template, 1, market="spot")))


def test_type_that_a_zone_lacks_is_an_error_of_its_pool(machines):
    """A type that is not offered in a zone is refused there as a fleet says it, and taken elsewhere."""
    answer = machines.fleet(machines.template(), 1, {"AvailabilityZone": "us-east-1e"}, B)
    [error] = answer["Errors"]

    assert "InvalidFleetConfiguration" == error["ErrorCode"]
    assert (
        "(m7i.xlarge) is not supported in your requested Availability Zone (us-east-1e)"
        in error["ErrorMessage"]
    )
    assert ["us-east-1b"] == [one["AvailabilityZone"] for one in answer["Instances"]]


@pytest.mark.parametrize(
    ("strategy", "market", "first"),
    [
        ("lowest-price", "on-demand", "m7i.large"),
        ("prioritized", "on-demand", "m7i.4xlarge"),
        ("lowest-price", "spot", "m7i.large"),
        ("capacity-optimized", "spot", "m7i.2xlarge"),
        ("capacity-optimized-prioritized", "spot", "m7i.4xlarge"),
        ("price-capacity-optimized", "spot", "m7i.large"),
    ],
)
def test_strategy_chooses_the_pool(machines, bare, strategy, market, first):
    """Each strategy starts with the cheapest pool, the first by priority, or the one with the most room."""
    bare.reset(capacity={"m7i.large": 9, "m7i.4xlarge": 5})
    overrides = [
        {"InstanceType": "m7i.2xlarge", "Priority": 2.0, **A},
        {"InstanceType": "m7i.large", "Priority": 3.0, **A},
        {"InstanceType": "m7i.4xlarge", "Priority": 1.0, **A},
    ]
    options = {"SpotOptions" if market == "spot" else "OnDemandOptions": {"AllocationStrategy": strategy}}
    template = machines.prepare().template()
    answer = machines.fleet(template, 3, *overrides, market=market, **options)

    assert [first] == [one["InstanceType"] for one in answer["Instances"]]
    assert [market] == [one["Lifecycle"] for one in answer["Instances"]]


def test_diversified_uses_every_pool(machines):
    """A diversified fleet spreads over its pools."""
    answer = machines.fleet(
        machines.template(), 6, A, B, C, market="spot", SpotOptions={"AllocationStrategy": "diversified"}
    )

    assert [2, 2, 2] == [len(one["InstanceIds"]) for one in answer["Instances"]]


def test_least_capacity_or_nothing(machines, bare):
    """A fleet that cannot have its least capacity has nothing."""
    bare.reset(capacity={"on-demand": 2})
    answer = machines.prepare().fleet(machines.template(), 5, OnDemandOptions={"MinTargetCapacity": 4})

    assert [] == answer["Instances"]
    assert {"shutting-down", "terminated"} >= {one["State"]["Name"] for one in machines.look()}


def test_same_token_makes_one_fleet(machines):
    """A fleet repeated with its token answers the same ids, and starts nothing."""
    template = machines.template()
    first = machines.fleet(template, 3, ClientToken="t")

    assert fleet_ids(first) == fleet_ids(machines.fleet(template, 3, ClientToken="t"))
    assert 3 == len(machines.look())


def test_template_deleted_under_a_fleet(machines):
    """A fleet, and an order, of a launch template that is gone are refused by its id."""
    template = machines.template()
    machines.ec2.delete_launch_template(LaunchTemplateId=template)

    for call in (
        lambda: machines.fleet(template, 1),
        lambda: machines.run(LaunchTemplate={"LaunchTemplateId": template}),
        lambda: machines.ec2.describe_launch_templates(LaunchTemplateIds=[template]),
        lambda: machines.ec2.delete_launch_template(LaunchTemplateId=template),
    ):
        with pytest.raises(ClientError, match=f"InvalidLaunchTemplateId.NotFound.*{template}"):
            call()


def test_templates_have_names_versions_and_tags(machines):
    """A template is found by its name and its tags; a name is used once; an unknown version is refused."""
    ec2 = machines.ec2
    tags = [{"ResourceType": "launch-template", "Tags": [{"Key": "k", "Value": "v"}]}]
    data = {"ImageId": machines.image, "InstanceType": "m7i.large"}
    ec2.create_launch_template(LaunchTemplateName="one", LaunchTemplateData=data, TagSpecifications=tags)
    machines.template("two")

    def names(**given):
        return [
            one["LaunchTemplateName"] for one in ec2.describe_launch_templates(**given)["LaunchTemplates"]
        ]

    assert ["one", "two"] == names()
    assert ["one"] == names(Filters=[{"Name": "tag:k", "Values": ["v"]}])
    assert ["two"] == names(LaunchTemplateNames=["two"])
    with pytest.raises(ClientError, match=r"InvalidLaunchTemplateName.NotFoundException"):
        names(LaunchTemplateNames=["three"])
    with pytest.raises(ClientError, match=r"InvalidLaunchTemplateName.AlreadyExistsException"):
        machines.template("two")
    specification = {"LaunchTemplateName": "one", "Version": "2"}
    with pytest.raises(ClientError, match=r"InvalidLaunchTemplateId.VersionNotFound"):
        machines.run(LaunchTemplate=specification)
    ec2.create_launch_template_version(
        LaunchTemplateName="one", LaunchTemplateData={**data, "InstanceType": "m7i.2xlarge"}
    )
    given = {"MinCount": 1, "MaxCount": 1, "LaunchTemplate": specification}
    assert "m7i.2xlarge" == ec2.run_instances(**given)["Instances"][0]["InstanceType"]


def test_fleet_needs_a_version(machines):
    """A fleet must say which version of the template it means."""
    template = machines.template()
    with pytest.raises(ClientError, match=r"MissingParameter.*Version"):
        machines.ec2.create_fleet(
            Type="instant",
            LaunchTemplateConfigs=[{"LaunchTemplateSpecification": {"LaunchTemplateId": template}}],
            TargetCapacitySpecification={"TotalTargetCapacity": 1},
        )


def test_fifty_in_well_under_a_second_and_a_thousand_in_few(machines):
    """The emulated cloud itself costs next to nothing: large orders and descriptions are quick."""
    template = machines.template()
    begin = time.monotonic()
    machines.fleet(template, 50)
    ordered = time.monotonic() - begin
    many = fleet_ids(machines.fleet(template, 1000))
    found = machines.until(many, "running", 60)

    assert ordered < 1
    assert 1000 == len(found) == len({one["PrivateIpAddress"] for one in found})
