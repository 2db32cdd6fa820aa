"""What can be made to go wrong in the embedded AWS goes wrong as it does in AWS."""

from __future__ import annotations

import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from fargate_account import Account

NO_RETRIES = Config(retries={"total_max_attempts": 1})
NO_CAPACITY = (
    "Capacity is unavailable at this time. Please try again later or in a different availability zone"
)


@pytest.fixture(scope="session")
def ecs(emulated_aws_process):
    """An ECS client that tries once."""
    with emulated_aws_process.active():
        return boto3.client("ecs", config=NO_RETRIES)


def outcomes(call, count):
    """The error codes of some calls in a row; empty for those that succeed."""
    codes = []
    for _ in range(count):
        try:
            call()
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
        else:
            codes.append("")
    return codes


def test_each_third_call_is_throttled(emulated_aws, ecs):
    """A throttle of every third call hits each third one, with the service's own error, and can be cleared."""
    fault = emulated_aws.inject("throttle", "ListClusters", every=3)

    assert ["", "", "ThrottlingException"] * 2 == outcomes(ecs.list_clusters, 6)
    fault.clear()
    assert [""] * 3 == outcomes(ecs.list_clusters, 3)


def test_throttling_is_retried_by_the_sdk(emulated_aws):
    """What is throttled once succeeds with boto3's own retries."""
    emulated_aws.inject("throttle", every=2)
    client = boto3.client("ecs")
    for _ in range(3):
        client.list_clusters()

    assert {"", "ThrottlingException"} == {call.error for call in emulated_aws.calls}


def test_error_after_effect(account, emulated_aws, ecs):
    """A 500 after RunTask made its tasks: they exist, and the same token finds them again."""
    definition = account.define()
    network = {"subnets": list(account.subnets), "assignPublicIp": "ENABLED"}
    order = {
        "cluster": "dask",
        "taskDefinition": definition,
        "count": 3,
        "launchType": "FARGATE",
        "clientToken": "one",
        "networkConfiguration": {"awsvpcConfiguration": network},
    }
    emulated_aws.inject("error-after-effect", "ecs:RunTask", times=1)
    with pytest.raises(ClientError, match="ServerException") as caught:
        ecs.run_task(**order)
    again = ecs.run_task(**order)["tasks"]

    assert 500 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert 3 == len(emulated_aws.machines())
    assert {machine.id for machine in emulated_aws.machines()} == {
        task["taskArn"].rpartition("/")[2] for task in again
    }


def test_lost_answer(emulated_aws, ecs):
    """A lost answer closes the connection; what was asked for was done."""
    emulated_aws.inject("lost-answer", "CreateCluster", times=1)
    with pytest.raises(ConnectionClosedError):
        ecs.create_cluster(clusterName="lost")

    assert 1 == len(ecs.list_clusters()["clusterArns"])


def test_lost_answer_is_retried_by_the_sdk(account, emulated_aws):
    """boto3 repeats RunTask with the same token, so nothing is made twice."""
    definition = account.define()
    emulated_aws.inject("lost-answer", "RunTask", times=1)

    assert 4 == len(account.run(definition, 4))
    assert 4 == len(emulated_aws.machines())


def test_room_for_five_of_ten(account, emulated_aws):
    """Where there is room for five of ten, five come, and five failures say why not."""
    definition = account.define()
    emulated_aws.inject("capacity", room=5)
    answer = account.order(definition, 10)

    assert 5 == len(answer["tasks"])
    assert [NO_CAPACITY] * 5 == [failure["reason"] for failure in answer["failures"]]
    assert [] == account.order(definition, 1)["tasks"]


def test_no_spot(account, emulated_aws):
    """Spot capacity can be out while there is on-demand."""
    definition = account.define()
    with emulated_aws.inject("capacity", room=0, market="spot"):
        assert [] == account.spot(definition, 2)
        assert 2 == len(account.run(definition, 2))
    assert 2 == len(account.spot(definition, 2))


def test_quota(account, emulated_aws, ecs):
    """A quota of vCPUs refuses the call in the words of AWS."""
    definition = account.define()
    emulated_aws.inject("quota", room=1)
    account.run(definition, 4)
    network = {"awsvpcConfiguration": {"subnets": list(account.subnets)}}
    with pytest.raises(ClientError, match="reached the limit on the number of vCPUs"):
        ecs.run_task(
            cluster="dask", taskDefinition=definition, launchType="FARGATE", networkConfiguration=network
        )

    assert 4 == len(emulated_aws.machines())


def test_quota_of_the_profile(emulated_aws, clients):
    """The quota that Service Quotas tells is the one that tasks are refused by, market by market."""
    emulated_aws.reset(quotas={"L-3032A538": 0.25})
    account = Account(**clients).prepare()
    definition = account.define()
    account.run(definition)
    with pytest.raises(ClientError, match="limit on the number of vCPUs"):
        account.run(definition)

    assert 1 == len(account.spot(definition))


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ecs", "list_clusters", "AccessDeniedException"),
        ("ec2", "describe_vpcs", "UnauthorizedOperation"),
        ("iam", "list_roles", "AccessDenied"),
        ("ssm", "describe_parameters", "AccessDeniedException"),
    ],
)
def test_denied(emulated_aws, service, call, code):
    """A denied operation answers with its service's own error, which names the action."""
    emulated_aws.inject("denied", f"{service}:*")
    with pytest.raises(ClientError, match=f"not authorized to perform: {service}:") as caught:
        getattr(boto3.client(service), call)()

    assert code == caught.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ecs", "list_clusters", "ExpiredTokenException"),
        ("ec2", "describe_vpcs", "RequestExpired"),
        ("sts", "get_caller_identity", "ExpiredToken"),
    ],
)
def test_expired_credentials(emulated_aws, service, call, code):
    """Expired credentials answer with the service's own error."""
    emulated_aws.inject("expired-credentials")
    with pytest.raises(ClientError) as caught:
        getattr(boto3.client(service), call)()

    assert code == caught.value.response["Error"]["Code"]


def test_any_error(emulated_aws, ecs):
    """Any error of AWS can be answered."""
    emulated_aws.inject(
        "error", "ListClusters", code="ClientException", message="no reason", status=400, times=1
    )

    assert ["ClientException", ""] == outcomes(ecs.list_clusters, 2)


def test_image_that_cannot_be_pulled(account, emulated_aws):
    """An image that the registry does not deliver ends its tasks, and only them."""
    definition = account.define()
    with emulated_aws.inject("image-pull", image="ghcr.io/*"):
        [task] = account.until(account.run(definition), "STOPPED")

    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    account.until(account.run(definition), "RUNNING")


def test_no_address_left(account, emulated_aws):
    """When a subnet has no address left, its tasks stop with AWS's reason; addresses come back."""
    definition = account.define()
    [subnet] = account.subnets[:1]
    network = {"awsvpcConfiguration": {"subnets": [subnet], "assignPublicIp": "ENABLED"}}
    emulated_aws.inject("addresses", subnet=subnet, room=2)
    arns = account.run(definition, 3, networkConfiguration=network)
    tasks = account.until(arns, "RUNNING", "STOPPED")
    account.until([task["taskArn"] for task in tasks if task["lastStatus"] == "STOPPED"], "STOPPED")
    reasons = [task.get("stoppedReason", "") for task in tasks]

    assert 2 == reasons.count("")
    assert "Unexpected EC2 error while attempting to Create Network Interface" in max(reasons)
    assert max(reasons).endswith(f"enabled in subnet '{subnet}': InsufficientFreeAddressesInSubnet")
    running = next(task["taskArn"] for task in tasks if task["lastStatus"] == "RUNNING")
    account.ecs.stop_task(cluster="dask", task=running)
    account.until([running], "STOPPED")
    account.until(account.run(definition, networkConfiguration=network), "RUNNING")


def test_eventual_consistency(account, emulated_aws):
    """A new task may not be shown for a while: MISSING is not death."""
    emulated_aws.inject("stale", seconds=1)
    [arn] = account.run(account.define())
    first = account.ecs.describe_tasks(cluster="dask", tasks=[arn])
    listed = account.ecs.list_tasks(cluster="dask")["taskArns"]
    time.sleep(1.1)

    assert ["MISSING"] == [failure["reason"] for failure in first["failures"]]
    assert [] == listed
    assert [arn] == account.ecs.list_tasks(cluster="dask")["taskArns"]
    assert 1 == len(account.describe([arn]))


def test_new_role_is_not_usable_yet(account, emulated_aws):
    """A role may take some seconds until ECS can assume it."""
    definition = account.define()
    with emulated_aws.inject("role-propagation", seconds=3600):
        with pytest.raises(ClientError, match="ECS was unable to assume the role"):
            account.run(definition)

    assert 1 == len(account.run(definition))


def test_policy_is_enough_or_names_what_is_missing(account, emulated_aws):
    """Under a policy every call needs its action and what it takes along, such as iam:PassRole."""
    definition = account.define()
    actions = ["ecs:RunTask", "ecs:DescribeTasks"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    tags = [{"key": "a", "value": "b"}]
    for lacking in ("ecs:TagResource", "iam:PassRole"):
        overrides = {"executionRoleArn": account.role}
        with emulated_aws.inject("policy", allowed=[policy]):
            with pytest.raises(ClientError, match=f"perform: {lacking}"):
                account.run(definition, tags=tags, overrides=overrides)
        actions.append(lacking)

    with emulated_aws.inject("policy", allowed=[policy]):
        assert 1 == len(account.run(definition, tags=tags, overrides=overrides))


def test_wrong_faults_are_refused(emulated_aws):
    """A fault that there is not, or with a figure that there is not, is a ValueError with the right name."""
    with pytest.raises(ValueError, match="did you mean 'throttle'"):
        emulated_aws.inject("throtle")
    with pytest.raises(ValueError, match="no 'evry'"):
        emulated_aws.inject("throttle", evry=3)
