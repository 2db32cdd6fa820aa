"""Tasks on an ECS cluster's own container instances, as AWS places, runs and ends them."""

from __future__ import annotations

import json
import re

import boto3
import pytest
from botocore.exceptions import ClientError

SOON = {"Delay": 0.1, "MaxAttempts": 300}


@pytest.fixture
def cloud(emulated_aws):
    return emulated_aws


def linux(account):
    """An image of EC2 for x86-64 that is no Windows."""
    images = account.ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    return next(image["ImageId"] for image in images if "Platform" not in image)


def amounts(resources):
    """CPU units and MiB of a list of resources."""
    found = {resource["name"]: resource["integerValue"] for resource in resources}
    return found["CPU"], found["MEMORY"]


def instance(account, index=0):
    """What DescribeContainerInstances says of one of the cluster's instances."""
    arns = account.ecs.list_container_instances(cluster="dask")["containerInstanceArns"]
    answer = account.ecs.describe_container_instances(cluster="dask", containerInstances=arns)
    return sorted(answer["containerInstances"], key=lambda one: one["registeredAt"])[index]


def define(account, **definition):
    """A definition of 0.25 vCPU and 0.5 GiB for container instances."""
    return account.define(requiresCompatibilities=["EC2"], **definition)


def order(account, definition, count=1, **parameters):
    """Call RunTask for tasks on container instances; the whole answer."""
    network = {"awsvpcConfiguration": {"subnets": list(account.subnets)}}
    where = {} if "capacityProviderStrategy" in parameters else {"launchType": "EC2"}
    return account.ecs.run_task(
        **{
            "cluster": "dask",
            "taskDefinition": definition,
            "count": count,
            "networkConfiguration": network,
            **where,
            **parameters,
        }
    )


def arns(answer):
    """The ARNs of the tasks of a RunTask answer."""
    return [task["taskArn"] for task in answer["tasks"]]


def provider(account, name="own", *, managed=False):
    """Make a capacity provider, and let the cluster use it."""
    group = f"arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:0:autoScalingGroupName/{name}-group"
    scaling = {"status": "ENABLED" if managed else "DISABLED"}
    account.ecs.create_capacity_provider(
        name=name, autoScalingGroupProvider={"autoScalingGroupArn": group, "managedScaling": scaling}
    )
    account.ecs.put_cluster_capacity_providers(
        cluster="dask", capacityProviders=[name], defaultCapacityProviderStrategy=[]
    )
    return name


def test_agent_registers_an_instance(account):
    """What an agent registers is described, with all of it left; the cluster counts it."""
    image = linux(account)
    [host] = account.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="m5.xlarge")[
        "Instances"
    ]
    account.ec2.get_waiter("instance_running").wait(InstanceIds=[host["InstanceId"]], WaiterConfig=SOON)
    registered = account.ecs.register_container_instance(
        cluster="dask",
        instanceIdentityDocument=json.dumps({"instanceId": host["InstanceId"], "region": "us-east-1"}),
        instanceIdentityDocumentSignature="signed",
        totalResources=[
            {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 15743},
        ],
        attributes=[{"name": "purpose", "value": "dask"}],
    )["containerInstance"]

    assert registered == {**instance(account), "tags": []}
    assert host["InstanceId"] == registered["ec2InstanceId"]
    assert (
        (4096, 15743)
        == amounts(registered["registeredResources"])
        == amounts(registered["remainingResources"])
    )
    assert {"name": "purpose", "value": "dask"} in registered["attributes"]
    [cluster] = account.ecs.describe_clusters(clusters=["dask"])["clusters"]
    assert 1 == cluster["registeredContainerInstancesCount"]


def test_instance_of_an_auto_scaling_group_belongs_to_its_capacity_provider(account):
    """An instance is its group's capacity provider's, by the tag that the group gives it."""
    name = provider(account)
    image = linux(account)
    tags = [{"Key": "aws:autoscaling:groupName", "Value": f"{name}-group"}]
    [host] = account.ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="m5.xlarge",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"]
    account.ec2.get_waiter("instance_running").wait(InstanceIds=[host["InstanceId"]], WaiterConfig=SOON)
    registered = account.ecs.register_container_instance(
        cluster="dask", instanceIdentityDocument=json.dumps({"instanceId": host["InstanceId"]})
    )["containerInstance"]

    assert name == registered["capacityProviderName"]


def test_task_runs_on_an_instance(account, cloud):
    """A task is a process with an address of its own, holds its share, gives it back; only its instance bills."""
    host = cloud.add_container_instance("dask", cpu=4, memory=16)
    code = "import os, time; print(os.environ['AWS_EXECUTION_ENV'], flush=True); time.sleep(60)"
    [arn] = arns(order(account, define(account, code=code)))
    [task] = account.until([arn], "RUNNING")

    assert "EC2" == task["launchType"]
    assert instance(account)["containerInstanceArn"] == task["containerInstanceArn"]
    assert not {"platformVersion", "ephemeralStorage", "capacityProviderName"} & set(task)
    details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
    assert details["privateIPv4Address"].startswith("127.")
    [seen] = account.ec2.describe_instances(InstanceIds=[host])["Reservations"][0]["Instances"]
    assert seen["Placement"]["AvailabilityZone"] == task["availabilityZone"]
    assert (3840, 15872) == amounts(instance(account)["remainingResources"])
    assert 1 == instance(account)["runningTasksCount"]
    listed = account.ecs.list_tasks(cluster="dask", containerInstance=task["containerInstanceArn"])
    assert [arn] == listed["taskArns"]
    assert [] == account.ecs.list_tasks(cluster="dask", launchType="FARGATE")["taskArns"]

    account.ecs.stop_task(cluster="dask", task=arn)
    account.until([arn], "STOPPED")
    assert ["AWS_ECS_EC2"] == account.lines(arn)
    assert (4096, 16384) == amounts(instance(account)["remainingResources"])
    assert {host} == {entry.machine for entry in cloud.ledger}


def test_no_instances(account):
    """Without any instance the whole order is refused, in ECS's words."""
    with pytest.raises(
        ClientError, match=r"InvalidParameterException.*No Container Instances were found in your cluster\."
    ):
        order(account, define(account))


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({"cpu": "2048", "memory": "512"}, "RESOURCE:CPU"),
        ({"cpu": "256", "memory": "2048"}, "RESOURCE:MEMORY"),
    ],
)
def test_room_for_some(account, cloud, size, reason):
    """What fits is placed; what does not is a failure that names the instance and what it lacks."""
    cloud.add_container_instance("dask", cpu=4, memory=4, interfaces=20)
    answer = order(account, define(account, **size), 3)

    assert 2 == len(answer["tasks"])
    assert [{"arn": instance(account)["containerInstanceArn"], "reason": reason}] == answer["failures"]


def test_interfaces_run_out(account, cloud):
    """An instance gives as many tasks an interface as its type has beside the primary one."""
    cloud.add_container_instance("dask", cpu=4, memory=16)
    answer = order(account, define(account), 4)

    assert 3 == len(answer["tasks"])
    assert ["RESOURCE:ENI"] == [failure["reason"] for failure in answer["failures"]]


def test_architecture_and_zone_must_fit(account, cloud):
    """An instance of the other architecture, or in a zone of none of the subnets, lacks an attribute."""
    cloud.add_container_instance("dask", architecture="arm64")
    assert ["ATTRIBUTE"] == [one["reason"] for one in order(account, define(account))["failures"]]
    arm = define(account, runtimePlatform={"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"})
    assert [] == order(account, arm)["failures"]
    attributes = {one["name"]: one.get("value") for one in instance(account)["attributes"]}
    zone = attributes["ecs.availability-zone"]
    other = [
        s["SubnetId"] for s in account.ec2.describe_subnets()["Subnets"] if s["AvailabilityZone"] != zone
    ]
    network = {"awsvpcConfiguration": {"subnets": other}}
    failures = order(account, arm, networkConfiguration=network)["failures"]
    assert ["ATTRIBUTE"] == [one["reason"] for one in failures]


def test_public_address_is_refused(account, cloud):
    """A task on a container instance can have no public address."""
    cloud.add_container_instance("dask")
    network = {"awsvpcConfiguration": {"subnets": list(account.subnets), "assignPublicIp": "ENABLED"}}
    with pytest.raises(ClientError, match="Assign public IP is not supported for this launch type"):
        order(account, define(account), networkConfiguration=network)


def test_definition_for_ec2_does_not_run_on_fargate(account):
    """A definition without the compatibility is refused on Fargate."""
    with pytest.raises(ClientError, match="does not support launch_type FARGATE"):
        account.order(define(account))


def test_bin_packing_and_spreading(account, cloud):
    """`binpack` fills the fullest instance that has room; `spread` takes turns."""
    for _ in range(2):
        cloud.add_container_instance("dask", interfaces=20)
    packed = order(account, define(account), 4, placementStrategy=[{"type": "binpack", "field": "memory"}])
    assert 1 == len({task["containerInstanceArn"] for task in packed["tasks"]})
    spread = order(
        account,
        define(account, family="other"),
        4,
        placementStrategy=[{"type": "spread", "field": "instanceId"}],
    )
    hosts = [task["containerInstanceArn"] for task in spread["tasks"]]
    assert [2, 2] == [hosts.count(host) for host in sorted(set(hosts))]


def test_capacity_provider_has_its_own_instances(account, cloud):
    """A strategy places on the instances of its capacity provider only, and tasks say its name."""
    name = provider(account)
    cloud.add_container_instance("dask")
    strategy = [{"capacityProvider": name, "weight": 1}]
    with pytest.raises(ClientError, match="No Container Instances were found in your capacity provider"):
        order(account, define(account), capacityProviderStrategy=strategy)
    host = cloud.add_container_instance("dask", capacity_provider=name)
    [task] = order(account, define(account), capacityProviderStrategy=strategy)["tasks"]

    assert (name, "EC2") == (task["capacityProviderName"], task["launchType"])
    assert task["containerInstanceArn"] == instance(account, 1)["containerInstanceArn"]
    assert host == instance(account, 1)["ec2InstanceId"]


def test_managed_scaling_lets_tasks_wait(account, cloud):
    """With managed scaling a task waits PROVISIONING for an instance, and starts when there is one."""
    name = provider(account, managed=True)
    strategy = [{"capacityProvider": name, "weight": 1}]
    answer = order(account, define(account), 2, capacityProviderStrategy=strategy)
    assert ([], ["PROVISIONING"] * 2) == (
        answer["failures"],
        [task["lastStatus"] for task in answer["tasks"]],
    )
    assert "containerInstanceArn" not in answer["tasks"][0]
    account.ecs.stop_task(cluster="dask", task=arns(answer)[0])
    cloud.add_container_instance("dask", capacity_provider=name)

    account.until(arns(answer)[:1], "STOPPED")
    [task] = account.until(arns(answer)[1:], "RUNNING")
    assert instance(account)["containerInstanceArn"] == task["containerInstanceArn"]


def test_terminated_instance_takes_its_tasks(account, cloud):
    """When EC2 terminates an instance, its tasks stop with the reason, and it is deregistered."""
    host = cloud.add_container_instance("dask")
    [arn] = arns(order(account, define(account)))
    account.until([arn], "RUNNING")
    account.ec2.terminate_instances(InstanceIds=[host])
    [task] = account.until([arn], "STOPPED")

    assert f"Host EC2 (instance {host}) terminated." == task["stoppedReason"]
    assert "TerminationNotice" == task["stopCode"]
    assert "exitCode" not in task["containers"][0]
    assert [] == account.ecs.list_container_instances(cluster="dask")["containerInstanceArns"]
    assert [] == [machine for machine in cloud.machines() if machine.pid]


def test_stopped_instance_is_not_heard(account, cloud):
    """A stopped instance stays registered, its agent is not connected, and nothing is placed on it."""
    host = cloud.add_container_instance("dask")
    [arn] = arns(order(account, define(account)))
    account.until([arn], "RUNNING")
    account.ec2.stop_instances(InstanceIds=[host])
    [task] = account.until([arn], "STOPPED")

    assert f"Host EC2 (instance {host}) stopped." == task["stoppedReason"]
    assert ("ACTIVE", False) == (instance(account)["status"], instance(account)["agentConnected"])
    assert ["AGENT"] == [one["reason"] for one in order(account, define(account))["failures"]]
    account.ec2.get_waiter("instance_stopped").wait(InstanceIds=[host], WaiterConfig=SOON)
    account.ec2.start_instances(InstanceIds=[host])
    account.ec2.get_waiter("instance_running").wait(InstanceIds=[host], WaiterConfig=SOON)
    assert [] == order(account, define(account))["failures"]


def test_deregistering_needs_force_when_tasks_run(account, cloud):
    """An instance with tasks is deregistered only by force, which ends them; then the cluster can go."""
    cloud.add_container_instance("dask")
    [arn] = arns(order(account, define(account)))
    account.until([arn], "RUNNING")
    name = {"cluster": "dask", "containerInstance": instance(account)["containerInstanceArn"]}
    with pytest.raises(ClientError, match="Found running tasks on the instance"):
        account.ecs.deregister_container_instance(**name)
    gone = account.ecs.deregister_container_instance(**name, force=True)["containerInstance"]
    [task] = account.until([arn], "STOPPED")

    assert "INACTIVE" == gone["status"]
    assert "Container instance deregistration forced by user." == task["stoppedReason"]
    account.ecs.delete_cluster(cluster="dask")


def test_cluster_with_instances_cannot_be_deleted(account, cloud):
    """A cluster with container instances stays."""
    cloud.add_container_instance("dask")
    with pytest.raises(ClientError, match="ClusterContainsContainerInstancesException"):
        account.ecs.delete_cluster(cluster="dask")


def test_draining_instance_gets_no_tasks(account, cloud):
    """A draining instance gets no new tasks and keeps those that belong to no service."""
    cloud.add_container_instance("dask")
    [arn] = arns(order(account, define(account)))
    account.ecs.update_container_instances_state(
        cluster="dask", containerInstances=[instance(account)["containerInstanceArn"]], status="DRAINING"
    )
    with pytest.raises(ClientError, match="No Container Instances were found"):
        order(account, define(account))
    account.until([arn], "RUNNING")


def test_start_task_names_the_instance(account, cloud):
    """StartTask starts a task on the instance that it names, and says which there is not."""
    cloud.add_container_instance("dask")
    answer = account.ecs.start_task(
        cluster="dask",
        taskDefinition=define(account),
        containerInstances=[instance(account)["containerInstanceArn"], "none-such"],
        networkConfiguration={"awsvpcConfiguration": {"subnets": list(account.subnets)}},
    )

    assert [instance(account)["containerInstanceArn"]] == [t["containerInstanceArn"] for t in answer["tasks"]]
    assert ["MISSING"] == [one["reason"] for one in answer["failures"]]


def test_instance_pulls_for_its_task(account, cloud):
    """A task without a way out starts: its instance, which has one, pulls its image and reads its secrets."""
    account.ssm.put_parameter(Name="/dask/token", Value="open", Type="SecureString")
    cloud.add_container_instance("dask")
    code = "import os; print(os.environ['TOKEN'], flush=True)"
    secrets = {"secrets": [{"name": "TOKEN", "valueFrom": "/dask/token"}]}
    [arn] = arns(order(account, define(account, code=code, container=secrets)))
    account.until([arn], "STOPPED")

    assert ["open"] == account.lines(arn)


def test_what_cannot_be_added(cloud):
    """An instance that cannot be is refused with what there is not."""
    with pytest.raises(LookupError, match="no ECS cluster 'none-such'"):
        cloud.add_container_instance("none-such")
    with pytest.raises(ValueError, match=re.escape("did you mean 'arm64'?")):
        cloud.add_container_instance(architecture="arm46")
    boto3.client("ecs").create_cluster(clusterName="default")
    with pytest.raises(ValueError, match="no capacity provider 'none-such'"):
        cloud.add_container_instance(capacity_provider="none-such")


def test_gpus_are_pinned_to_tasks(account, cloud):
    """Each task has GPUs of its own, which the host has no more; who finds none is told that."""
    cloud.add_container_instance("dask", cpu=48, memory=192, gpus=4)
    code = "import os, time; print(os.environ['NVIDIA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"
    gpus = {"resourceRequirements": [{"type": "GPU", "value": "2"}]}
    answer = order(account, define(account, code=code, container=gpus), 3)
    account.until(arns(answer), "RUNNING")
    account.ecs.stop_task(cluster="dask", task=arns(answer)[0])
    account.until(arns(answer)[:1], "STOPPED")

    def of(resources):
        return next(one["stringSetValue"] for one in instance(account)[resources] if one["name"] == "GPU")

    held = [set(line.split(",")) for arn in arns(answer) for line in account.lines(arn)]
    assert ["RESOURCE:GPU"] == [failure["reason"] for failure in answer["failures"]]
    assert [2, 2] == [len(some) for some in held]
    assert set(of("registeredResources")) == held[0] | held[1]
    assert held[0] == set(of("remainingResources"))


def test_fargate_has_no_gpus(account):
    """A definition for Fargate that asks for a GPU is refused."""
    with pytest.raises(ClientError, match="GPU"):
        account.define(container={"resourceRequirements": [{"type": "GPU", "value": "1"}]})
