"""ECSCluster end to end on the embedded AWS: an ECS cluster of the user's, on its own container instances."""

from __future__ import annotations

import json
import os
import pathlib
import time

import boto3
import embedded
import pytest
from contract import until
from distributed import Client
from fargate_account import EXECUTION, SECRETS, TRUST

from cloudprovider import (
    CapacityError,
    CloudError,
    ConfigError,
    ECSCluster,
    FargateCluster,
    tags,
)
from cloudprovider.events import Phase
from cloudprovider.providers import _aws_names

NAME, SMALL = embedded.BATCH, embedded.ECS.options


@pytest.fixture
def batch(emulated_aws):
    """An account with an ECS cluster of the user's that has room for 8 machines."""
    yield embedded.ECS(emulated_aws)
    emulated_aws.clear()


def count(cloud, operation) -> int:
    return sum(call.operation == operation for call in cloud.calls)


def test_starts_computes_and_leaves_nothing(batch):
    """From an ECS cluster of the user's to a result, on its own capacity, and back to what there was."""
    with ECSCluster(n_workers=5, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(5, timeout=60)
        assert 499500 == client.submit(sum, range(1000)).result(timeout=30)
        ecs = boto3.client("ecs")
        arns = ecs.list_tasks(cluster=NAME)["taskArns"]
        tasks = ecs.describe_tasks(cluster=NAME, tasks=arns)["tasks"]
        [instance] = batch.hosts
        assert 6 == len(tasks) == instance["runningTasksCount"]
        assert {"EC2"} == {task["launchType"] for task in tasks}
        assert {instance["containerInstanceArn"]} == {task["containerInstanceArn"] for task in tasks}
        assert 2048 - 6 * 256 == _left(instance, "CPU")
    assert batch.nothing_left()
    assert 2048 == _left(batch.hosts[0], "CPU")
    assert 2 == count(batch.cloud, "RunTask")


def _left(instance, what) -> int:
    return next(one["integerValue"] for one in instance["remainingResources"] if one["name"] == what)


def test_cost_leaves_the_container_instances_out(batch):
    """Its machines cost nothing by themselves, and the bill says that the instances are not in it."""
    with batch.start(n_workers=2) as cluster:
        bill = cluster.cost()
    assert (0.0, 0.0) == (bill.spent, bill.per_hour)
    assert "the ECS cluster's own container instances" in bill.left_out
    assert 3 == sum(line.machines for line in bill.lines)
    [instance] = batch.hosts
    assert {instance["ec2InstanceId"]} == {entry.machine for entry in batch.cloud.ledger}


def test_nothing_is_made_that_the_user_named(batch):
    """With all of the landing named, only what a cluster owns is made."""
    iam, logs, ec2 = (boto3.client(name) for name in ("iam", "logs", "ec2"))
    for role in ("starts", "runs"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.attach_role_policy(RoleName="starts", PolicyArn=EXECUTION)
    iam.put_role_policy(RoleName="starts", PolicyName="secrets", PolicyDocument=json.dumps(SECRETS))
    logs.create_log_group(logGroupName="/own")
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]]
    group = ec2.create_security_group(GroupName="own", Description="own")["GroupId"]
    before, calls = set(batch.cloud.leftovers()), len(batch.cloud.calls)
    own = {
        "execution_role": "starts",
        "role": "runs",
        "log_group": "/own",
        "subnets": subnets,
        "security_groups": [group],
    }
    with ECSCluster(n_workers=1, **own, **SMALL) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        assert 2 == len(logs.describe_log_streams(logGroupName="/own")["logStreams"])
    until(lambda: before == set(batch.cloud.leftovers()), 30, "all is as before")
    made = {
        call.operation
        for call in batch.cloud.calls[calls:]
        if call.operation.startswith(("Create", "PutRole"))
    }
    assert {"CreateSecurityGroup"} == made  # the scheduler's own
    assert 1 == count(batch.cloud, "CreateCluster")  # the user's


def test_no_container_instances(batch):
    """An ECS cluster without any capacity is an error that says so, and nothing is left."""
    batch.remove_hosts()
    with pytest.raises(CapacityError, match=r"No Container Instances.*add container instances"):
        ECSCluster(n_workers=1, **SMALL)
    assert batch.nothing_left()


def test_lost_instance_is_survived(batch):
    """When an instance is terminated its machines are replaced on another, and work goes on."""
    with ECSCluster(n_workers=7, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(7, timeout=60)
        lost = batch.host(machines=2)
        cluster.scale(9)
        client.wait_for_workers(9, timeout=60)
        before = set(cluster.workers)
        spare = batch.host()
        boto3.client("ec2").terminate_instances(InstanceIds=[lost])
        until(lambda: 2 == len(cluster.events.of(Phase.lost)), 60, "the loss is noticed")
        until(lambda: 2 == len(set(cluster.observed) - before), 60, "others have come")
        said = {event.message for event in cluster.events.of(Phase.lost)}
        assert 2 == sum(f"Host EC2 (instance {lost}) terminated" in message for message in said)
        running = {one["ec2InstanceId"]: one["runningTasksCount"] for one in batch.hosts}
        assert 2 == running[spare]
        assert [0, 1, 2] == client.gather(client.map(lambda x: x, range(3)))
    assert batch.nothing_left()


def test_capacity_provider(batch):
    """Machines run on the instances of the capacity provider that the user names, and wait for them."""
    ecs = boto3.client("ecs")
    group = {"autoScalingGroupArn": "own-group", "managedScaling": {"status": "ENABLED"}}
    ecs.create_capacity_provider(name="own", autoScalingGroupProvider=group)
    ecs.put_cluster_capacity_providers(
        cluster=NAME, capacityProviders=["own"], defaultCapacityProviderStrategy=[]
    )
    batch.host(machines=2, capacity_provider="own")
    with ECSCluster(n_workers=2, capacity_provider="own", **SMALL) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        assert ["PROVISIONING", "RUNNING", "RUNNING"] == sorted(
            machine.state for machine in batch.cloud.machines() if not machine.id.startswith("i-")
        )
        batch.host(capacity_provider="own")
        cluster.wait_for_workers(2, timeout=60)
        assert {"own"} == {one["capacityProviderName"] for one in batch.hosts if one["runningTasksCount"]}
    assert batch.nothing_left()


def test_one_worker_a_gpu(batch):
    """A machine with two GPUs runs two workers, each of which has one of its own first."""
    batch.host(gpus=4)

    def device(dask_worker):
        return os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0], dask_worker.state.total_resources

    with ECSCluster(n_workers=4, worker_gpu=2, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(4, timeout=60)
        seen = client.run(device).values()
        names = {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        assert 2 == len({name.rpartition("-")[0] for name in names})
    assert [{"GPU": 1}] * 4 == [resources for _, resources in seen]
    assert 4 == len({gpu for gpu, _ in seen})


def test_no_gpus_left(batch):
    """GPUs that no container instance has are a refusal, told as one."""
    with pytest.raises(CapacityError, match="RESOURCE:GPU"):
        ECSCluster(n_workers=1, worker_gpu=1, **SMALL)
    assert batch.nothing_left()


def test_machines_share_a_file_system(batch):
    """What one machine writes below a volume's path another reads."""
    efs, ec2 = boto3.client("efs"), boto3.client("ec2")
    system = efs.create_file_system(CreationToken="data")["FileSystemId"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        efs.create_mount_target(FileSystemId=system, SubnetId=subnet["SubnetId"])

    def write(text):
        pathlib.Path(os.environ["SHARED"], "said").write_text(text)

    def read():
        return pathlib.Path(os.environ["SHARED"], "said").read_text()

    shared = {"volumes": {"/data": system}, "environment": {"SHARED": "/data"}}
    with ECSCluster(n_workers=2, **shared, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        one, other = client.scheduler_info()["workers"]
        client.submit(write, "hello", workers=[one]).result(timeout=30)
        assert "hello" == client.submit(read, workers=[other]).result(timeout=30)


def test_file_system_that_is_not_there(batch):
    """The error of a start says which option is wrong, and nothing is left."""
    with pytest.raises(ConfigError, match=r"volumes= .*mount target"):
        ECSCluster(n_workers=1, volumes={"/data": "fs-0123"}, **SMALL)
    assert batch.nothing_left()


def test_architecture_that_no_instance_has(batch):
    """An order that no instance can take says what they lack."""
    batch.cloud.add_image("registry.example/arm:1", architectures=["X86_64", "ARM64"])
    with pytest.raises(ConfigError, match="architecture="):
        ECSCluster(n_workers=1, architecture="arm64", image="registry.example/arm:1", **SMALL)
    assert batch.nothing_left()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"public": True}, "no public address"), ({"ecs_cluster": None}, "needs ecs_cluster=")],
)
def test_what_cannot_be(batch, options, said):
    """A public address, or no ECS cluster, is refused before any call."""
    before = len(batch.cloud.calls)
    with pytest.raises(ConfigError, match=said):
        ECSCluster(**{**SMALL, **options})
    assert before == len(batch.cloud.calls)


def test_ecs_cluster_that_is_not_there(batch):
    """An ECS cluster that the account does not have is an error that names the keyword, and none is made."""
    with pytest.raises(ConfigError, match="ecs_cluster="):
        ECSCluster(**{**SMALL, "ecs_cluster": "none-such"})
    assert [f"cluster/{NAME}"] == [
        arn.rpartition(":")[2] for arn in boto3.client("ecs").list_clusters()["clusterArns"]
    ]
    assert batch.nothing_left()


def test_running_cluster_s_name_is_not_free(batch):
    """A cluster that has run for an hour keeps its name, whichever ECS cluster another would use."""
    with ECSCluster(name="mine", n_workers=1, **SMALL) as cluster:
        hour_ago = str(int(time.time()) - 3600)
        boto3.client("ssm").add_tags_to_resource(
            ResourceType="Parameter",
            ResourceId=_aws_names.parameter("mine", "client"),
            Tags=[{"Key": tags.CREATED, "Value": hour_ago}],
        )
        with pytest.raises(CloudError, match="There is a cluster 'mine'"):
            FargateCluster(name="mine", n_workers=1, progress=False)
        cluster.wait_for_workers(1, timeout=60)
        with Client(cluster) as client:
            assert 1 == client.submit(lambda: 1).result(timeout=30)
    assert batch.nothing_left()
