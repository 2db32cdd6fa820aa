"""The embedded AWS runs Fargate tasks as AWS does: states, times, addresses, logs, secrets, ends."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError
from contract import until

from cloudprovider.emulator.images import dask_image

BYE = "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(7)); print('up', flush=True); time.sleep(99)"
STUBBORN = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
TIMES = ["createdAt", "connectivityAt", "pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt"]


def details(task):
    """The details of a task's network interface."""
    return {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}


def test_order_is_answered_before_there_is_an_address(account):
    """RunTask answers with PROVISIONING tasks that know their subnet and have no address yet."""
    [task] = account.order(account.define())["tasks"]

    assert "PROVISIONING" == task["lastStatus"]
    assert "RUNNING" == task["desiredStatus"]
    assert "PRECREATED" == task["attachments"][0]["status"]
    assert {"subnetId"} == set(details(task))
    assert 32 == len(task["taskArn"].rpartition("/")[2])


def test_running_task_has_its_own_address(account):
    """A running task has an interface with an address of its subnet, which EC2 describes as in use."""
    [task] = account.until(account.run(account.define()), "RUNNING")
    found = details(task)
    [interface] = account.ec2.describe_network_interfaces(NetworkInterfaceIds=[found["networkInterfaceId"]])[
        "NetworkInterfaces"
    ]
    [subnet] = account.ec2.describe_subnets(SubnetIds=[found["subnetId"]])["Subnets"]

    assert found["privateIPv4Address"] == interface["PrivateIpAddress"]
    assert found["macAddress"] == interface["MacAddress"]
    assert "in-use" == interface["Status"]
    assert ipaddress.ip_address(found["privateIPv4Address"]) in ipaddress.ip_network(subnet["CidrBlock"])
    assert task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] == found["privateIPv4Address"]
    assert interface["PrivateIpAddress"] == interface["Association"]["PublicIp"]


def test_machines_have_different_addresses(account):
    """Ten tasks have ten addresses, and their interfaces are gone when they have stopped."""
    tasks = account.until(account.run(account.define(), 10), "RUNNING")
    addresses = {details(task)["privateIPv4Address"] for task in tasks}
    for task in tasks:
        account.ecs.stop_task(cluster="dask", task=task["taskArn"])
    stopped = account.until([task["taskArn"] for task in tasks], "STOPPED")

    assert 10 == len(addresses)
    assert {"DELETED"} == {task["attachments"][0]["status"] for task in stopped}
    assert [] == account.ec2.describe_network_interfaces()["NetworkInterfaces"]


def test_program_runs_with_its_environment(account):
    """Definition and call say the environment, the call wins, and what it writes is in CloudWatch."""
    code = "import os; print(os.environ['A'], os.environ['B'], os.environ['AWS_EXECUTION_ENV'])"
    definition = account.define(
        code,
        {
            "environment": [
                {"name": "A", "value": "definition"},
                {"name": "B", "value": "a 'quote'\nand a line"},
            ]
        },
    )
    override = {"name": "dask", "environment": [{"name": "A", "value": "call"}]}
    [arn] = account.run(definition, overrides={"containerOverrides": [override]})
    account.until([arn], "STOPPED")

    assert ["call a 'quote'", "and a line AWS_ECS_FARGATE"] == account.lines(arn)


def test_command_is_overridden(account):
    """A call's command replaces the definition's; the entry point stays."""
    override = {"name": "dask", "command": ["print('other')"]}
    [arn] = account.run(account.define(), overrides={"containerOverrides": [override]})
    account.until([arn], "STOPPED")

    assert ["other"] == account.lines(arn)


def test_exit_code_and_times(account):
    """A program that ends stops its task with its exit code, and every moment of its life is told in order."""
    [arn] = account.run(account.define("raise SystemExit(5)"))
    [task] = account.until([arn], "STOPPED")

    assert 5 == task["containers"][0]["exitCode"]
    assert ("EssentialContainerExited", "Essential container in task exited") == (
        task["stopCode"],
        task["stoppedReason"],
    )
    moments = [task[name] for name in [*TIMES, "executionStoppedAt", "stoppedAt"]]
    assert sorted(moments) == moments


def test_stop_is_a_signal(account):
    """StopTask sends SIGTERM, so a program can end as it wants."""
    [arn] = account.run(account.define(BYE))
    account.until([arn], "RUNNING")
    while not account.lines(arn):
        pass
    answer = account.ecs.stop_task(cluster="dask", task=arn, reason="enough")["task"]
    [task] = account.until([arn], "STOPPED")

    assert "STOPPED" == answer["desiredStatus"]
    assert 7 == task["containers"][0]["exitCode"]
    assert ("UserInitiated", "enough") == (task["stopCode"], task["stoppedReason"])


def test_stop_timeout_kills(account):
    """A program that ignores SIGTERM is killed when its definition's stopTimeout has passed."""
    [arn] = account.run(account.define(STUBBORN, {"stopTimeout": 2}))
    account.until([arn], "RUNNING")
    while not account.lines(arn):
        pass
    account.ecs.stop_task(cluster="dask", task=arn)
    [task] = account.until([arn], "STOPPED")

    assert 137 == task["containers"][0]["exitCode"]
    assert 2 <= (task["stoppedAt"] - task["stoppingAt"]).total_seconds() < 8


def test_stop_before_start(account):
    """A task that is stopped while it is provisioned never runs, and never bills."""
    [arn] = account.run(account.define())
    account.ecs.stop_task(cluster="dask", task=arn)
    [task] = account.until([arn], "STOPPED")

    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]


def test_stop_twice_and_stop_nothing(account):
    """Stopping a stopped task is no error; a task there never was is an InvalidParameterException."""
    [arn] = account.run(account.define())
    account.ecs.stop_task(cluster="dask", task=arn)
    account.ecs.stop_task(cluster="dask", task=arn, reason="again")
    with pytest.raises(ClientError, match="The referenced task was not found"):
        account.ecs.stop_task(cluster="dask", task="0" * 32)
    with pytest.raises(ClientError, match="ClusterNotFoundException"):
        account.ecs.stop_task(cluster="other", task=arn)


def test_missing_tasks_are_failures(account):
    """DescribeTasks tells of tasks there are, and names the others as MISSING."""
    [arn] = account.run(account.define())
    answer = account.ecs.describe_tasks(cluster="dask", tasks=[arn, "0" * 32])

    assert [arn] == [task["taskArn"] for task in answer["tasks"]]
    [failure] = answer["failures"]
    assert ("MISSING", True) == (failure["reason"], failure["arn"].endswith("task/dask/" + "0" * 32))


def test_describe_a_hundred_at_most(account):
    """DescribeTasks takes a hundred tasks, and at least one."""
    for tasks in ([], ["0" * 32] * 101):
        with pytest.raises(ClientError, match="InvalidParameterException"):
            account.ecs.describe_tasks(cluster="dask", tasks=tasks)


def test_list_is_filtered_and_paged(account):
    """ListTasks shows live tasks, by who started them, in pages."""
    definition = account.define()
    mine = account.run(definition, 3, startedBy="me")
    others = account.run(definition, 2)
    account.ecs.stop_task(cluster="dask", task=others[0])
    pages = account.ecs.get_paginator("list_tasks").paginate(cluster="dask", PaginationConfig={"PageSize": 2})
    listed = [page["taskArns"] for page in pages]

    assert [2, 2] == [len(page) for page in listed]
    assert {*mine, others[1]} == {arn for page in listed for arn in page}
    assert set(mine) == set(account.ecs.list_tasks(cluster="dask", startedBy="me")["taskArns"])
    assert [others[0]] == account.ecs.list_tasks(cluster="dask", desiredStatus="STOPPED")["taskArns"]
    with pytest.raises(ClientError, match="startedBy"):
        account.ecs.list_tasks(cluster="dask", startedBy="me", family="dask")


def test_tags_are_the_calls_and_the_definitions(account):
    """A task has the tags of its call, and its definition's when the call says so; both can be found."""
    definition = account.define(
        tags=[{"key": "from", "value": "definition"}, {"key": "kept", "value": "yes"}]
    )
    [arn] = account.run(definition, tags=[{"key": "from", "value": "call"}], propagateTags="TASK_DEFINITION")
    [task] = account.describe([arn])
    found = boto3.client("resourcegroupstaggingapi").get_resources(
        TagFilters=[{"Key": "from", "Values": ["call"]}], ResourceTypeFilters=["ecs:task"]
    )["ResourceTagMappingList"]

    assert {"from": "call", "kept": "yes"} == {tag["key"]: tag["value"] for tag in task["tags"]}
    assert [arn] == [resource["ResourceARN"] for resource in found]


def test_token_makes_a_call_idempotent(account):
    """The same clientToken with the same parameters makes nothing twice, with others it is a conflict."""
    definition = account.define()
    first = account.run(definition, 3, clientToken="token")
    second = account.run(definition, 3, clientToken="token")

    assert first == second
    assert 3 == len(account.ecs.list_tasks(cluster="dask")["taskArns"])
    with pytest.raises(ClientError, match="ConflictException") as caught:
        account.run(definition, 4, clientToken="token")
    assert first == caught.value.response["resourceIds"]


def test_ten_at_most(account):
    """RunTask makes at most ten tasks."""
    with pytest.raises(ClientError, match="InvalidParameterException"):
        account.run(account.define(), 11)


def test_overrides_have_a_limit(account):
    """Overrides beyond 8,192 characters, or for a container there is not, are refused."""
    definition = account.define()
    long = {"name": "dask", "environment": [{"name": "A", "value": "x" * 8192}]}
    with pytest.raises(ClientError, match="Container Overrides length must be at most 8192"):
        account.run(definition, overrides={"containerOverrides": [long]})
    with pytest.raises(ClientError, match="is not a container in the TaskDefinition"):
        account.run(definition, overrides={"containerOverrides": [{"name": "other"}]})


@pytest.mark.parametrize(
    ("cpu", "memory", "right"),
    [
        ("256", "512", True),
        ("256", "4096", False),
        (".5 vCPU", "3 GB", True),
        ("1024", "2500", False),
        ("8192", "16384", True),
        ("8192", "17408", False),
        ("300", "1024", False),
    ],
)
def test_sizes_are_fargates(account, cpu, memory, right):
    """A definition whose CPU and memory Fargate does not have together is refused."""
    if right:
        account.define(cpu=cpu, memory=memory)
    else:
        with pytest.raises(ClientError, match="No Fargate configuration exists for given values"):
            account.define(cpu=cpu, memory=memory)


def test_definition_needs_its_execution_role(account):
    """Logs and secrets on Fargate need an execution role in the definition, and one that ECS can assume."""
    with pytest.raises(ClientError, match="execution role ARN to support log driver awslogs"):
        account.define(executionRoleArn="")
    definition = account.define(executionRoleArn="arn:aws:iam::123456789012:role/none")
    with pytest.raises(ClientError, match="ECS was unable to assume the role"):
        account.run(definition)


def test_inactive_definition_starts_nothing(account):
    """A deregistered revision starts no task; a deleted one is gone, and its number is never used again."""
    definition = account.define()
    with pytest.raises(ClientError, match="InvalidParameterException"):
        account.ecs.delete_task_definitions(taskDefinitions=[])
    account.ecs.deregister_task_definition(taskDefinition=definition)
    with pytest.raises(ClientError, match="TaskDefinition is inactive"):
        account.run(definition)
    assert [] == account.ecs.list_task_definitions()["taskDefinitionArns"]
    account.ecs.delete_task_definitions(taskDefinitions=[definition])

    assert [] == account.ecs.list_task_definitions(status="INACTIVE")["taskDefinitionArns"]
    assert ("dask:1", "dask:2") == (definition, account.define())


def test_secrets_come_from_the_store(account):
    """A container's secrets are read from the parameter store and the secrets manager by the execution role."""
    account.ssm.put_parameter(Name="/dask/one", Value="first", Type="SecureString")
    secret = boto3.client("secretsmanager").create_secret(
        Name="dask-two", SecretString=json.dumps({"k": "v"})
    )
    references = {
        "ONE": "arn:aws:ssm:us-east-1:123456789012:parameter/dask/one",
        "BY_NAME": "/dask/one",
        "TWO": secret["ARN"],
        "KEY": f"{secret['ARN']}:k::",
    }
    code = "import os; print(*(os.environ[n] for n in ('ONE', 'BY_NAME', 'TWO', 'KEY')))"
    secrets = [{"name": name, "valueFrom": reference} for name, reference in references.items()]
    [arn] = account.run(account.define(code, {"secrets": secrets}))
    account.until([arn], "STOPPED")

    assert ['first first {"k": "v"} v'] == account.lines(arn)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/dask/none", "invalid ssm parameters: /dask/none"),
        ("/other/one", r"AccessDeniedException.*not authorized to perform: ssm:GetParameters"),
    ],
)
def test_secret_that_cannot_be_read(account, name, reason):
    """A task whose secret is missing, or not its role's to read, fails to start with AWS's reason, unbilled."""
    account.ssm.put_parameter(Name="/other/one", Value="x", Type="String")
    reference = f"arn:aws:ssm:us-east-1:123456789012:parameter{name}"
    [arn] = account.run(account.define(container={"secrets": [{"name": "A", "valueFrom": reference}]}))
    [task] = account.until([arn], "STOPPED")

    assert "TaskFailedToStart" == task["stopCode"]
    assert task["stoppedReason"].startswith(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval "
        "failed: unable to retrieve secrets from ssm: "
    )
    assert re.search(reason, task["stoppedReason"])
    assert "pullStartedAt" not in task


def test_log_group_that_is_not_there(account):
    """A task whose log group does not exist fails to start with AWS's reason."""
    account.logs.delete_log_group(logGroupName="/dask")
    [task] = account.until(account.run(account.define()), "STOPPED")

    assert "ResourceInitializationError: failed to validate logger args" in task["stoppedReason"]
    assert "The specified log group does not exist" in task["stoppedReason"]


def test_image_that_is_not_there(account):
    """A task whose image no registry has fails to start with AWS's reason."""
    image = "ghcr.io/dask/dask:0.0.0"
    [task] = account.until(account.run(account.define(container={"image": image})), "STOPPED")

    assert "TaskFailedToStart" == task["stopCode"]
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert task["stoppedReason"].endswith(f"{image}: not found")


def test_image_of_another_architecture(account, emulated_aws):
    """An image that was not built for the task's architecture cannot be pulled."""
    emulated_aws.add_image("team/dask:1", architectures=["X86_64"])
    definition = account.define(
        container={"image": "team/dask:1"}, runtimePlatform={"cpuArchitecture": "ARM64"}
    )
    [task] = account.until(account.run(definition), "STOPPED")

    assert "does not contain descriptor matching platform 'linux/arm64'" in task["stoppedReason"]


def test_program_that_is_not_there(account):
    """A container whose program does not exist cannot be started, and says so."""
    [task] = account.until(account.run(account.define(container={"entryPoint": ["no-such"]})), "STOPPED")

    assert task["containers"][0]["reason"].startswith("CannotStartContainerError: ")


def test_no_way_out(account):
    """Without a public address in a public subnet nothing is reached: first secrets, then logs, then images."""
    network = {"subnets": list(account.subnets), "assignPublicIp": "DISABLED"}
    where = {"networkConfiguration": {"awsvpcConfiguration": network}}
    account.ssm.put_parameter(Name="/dask/one", Value="first", Type="SecureString")
    secrets = {"secrets": [{"name": "A", "valueFrom": "/dask/one"}]}
    plain = {"logConfiguration": {"logDriver": "json-file"}}
    definitions = [account.define(container=secrets), account.define(), account.define(container=plain)]
    arns = [account.run(definition, **where)[0] for definition in definitions]
    reasons = [task["stoppedReason"] for task in account.until(arns, "STOPPED")]

    assert "unable to pull secrets or registry auth" in reasons[0]
    assert "The task cannot find the Amazon CloudWatch log group" in reasons[1]
    assert reasons[2].startswith("CannotPullContainerError")
    assert reasons[2].endswith("i/o timeout")


def test_nat_gateway_is_a_way_out(account):
    """With a NAT gateway a task without a public address starts."""
    vpc = account.ec2.describe_subnets(SubnetIds=[account.subnets[0]])["Subnets"][0]["VpcId"]
    block = account.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["CidrBlock"].replace("0.0/16", "200.0/24")
    private = account.ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]
    nat = account.ec2.create_nat_gateway(SubnetId=account.subnets[0], ConnectivityType="private")[
        "NatGateway"
    ]
    table = account.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    account.ec2.associate_route_table(RouteTableId=table, SubnetId=private)
    account.ec2.create_route(
        RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat["NatGatewayId"]
    )
    network = {"subnets": [private], "assignPublicIp": "DISABLED"}
    arns = account.run(account.define(), networkConfiguration={"awsvpcConfiguration": network})

    [task] = account.until(arns, "RUNNING")
    [interface] = account.ec2.describe_network_interfaces(
        NetworkInterfaceIds=[details(task)["networkInterfaceId"]]
    )["NetworkInterfaces"]
    assert private == details(task)["subnetId"]
    assert "Association" not in interface


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"subnets": ["subnet-0"]}, "The subnet ID 'subnet-0' does not exist"),
        ({"securityGroups": ["sg-0"]}, "The security group 'sg-0' does not exist"),
        ({"securityGroups": [f"sg-{n}" for n in range(6)]}, "securityGroups can have at most 5 items"),
    ],
)
def test_networks_that_are_not_there(account, network, message):
    """Subnets and security groups that do not exist, or are too many, are refused by name."""
    given = {"awsvpcConfiguration": {"subnets": list(account.subnets), **network}}
    with pytest.raises(ClientError, match=message):
        account.run(account.define(), networkConfiguration=given)


def test_group_in_use_is_not_deleted(account):
    """A security group that a task uses cannot be deleted until the task has stopped."""
    group = account.ec2.create_security_group(GroupName="dask-x", Description="x")["GroupId"]
    network = {"subnets": list(account.subnets), "assignPublicIp": "ENABLED", "securityGroups": [group]}
    [arn] = account.run(account.define(), networkConfiguration={"awsvpcConfiguration": network})
    account.until([arn], "RUNNING")
    with pytest.raises(ClientError, match="DependencyViolation"):
        account.ec2.delete_security_group(GroupId=group)
    account.ecs.stop_task(cluster="dask", task=arn)
    account.until([arn], "STOPPED")
    account.ec2.delete_security_group(GroupId=group)


def test_metadata_service_names_the_task(account):
    """A task learns its own name and address from its metadata service."""
    code = (
        "import json, os, urllib.request as u; "
        "t = json.load(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'] + '/task')); "
        "print(t['TaskARN'], t['Containers'][0]['Networks'][0]['IPv4Addresses'][0])"
    )
    [arn] = account.run(account.define(code))
    [task] = account.until([arn], "STOPPED")

    [line] = account.lines(arn)
    name, address = line.split()
    assert arn == name
    assert ipaddress.ip_address(address) in ipaddress.ip_network("127.0.0.0/8")
    assert "STOPPED" == task["lastStatus"]


def test_task_role_gives_credentials(account):
    """Code in a task reaches the same emulated cloud, with the credentials of its task role."""
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    [arn] = account.run(account.define(code, taskRoleArn=account.role))
    account.until([arn], "STOPPED")

    assert ["123456789012"] == account.lines(arn)


def test_address_can_be_bound(account):
    """A task's address is its own: it can listen there on any port."""
    code = (
        "import json, os, socket, time, urllib.request as u; "
        "t = json.load(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'])); "
        "s = socket.create_server((t['Networks'][0]['IPv4Addresses'][0], 8786)); print('up', flush=True); "
        "time.sleep(99)"
    )
    arns = account.run(account.define(code), 2)
    tasks = account.until(arns, "RUNNING")
    while not all(account.lines(arn) for arn in arns):
        pass

    for task in tasks:
        socket.create_connection((details(task)["privateIPv4Address"], 8786), 5).close()


def test_spot_is_interrupted_with_notice(account, emulated_aws):
    """A spot interruption is SIGTERM, and afterwards the task says what it was; on-demand is never taken."""
    definition = account.define(BYE)
    [arn] = account.spot(definition)
    [other] = account.run(definition)
    account.until([arn, other], "RUNNING")
    while not account.lines(arn):
        pass
    emulated_aws.interrupt(arn)
    [task] = account.until([arn], "STOPPED")

    assert ("SpotInterruption", "Your Spot Task was interrupted.") == (
        task["stopCode"],
        task["stoppedReason"],
    )
    assert ("FARGATE_SPOT", 7) == (task["capacityProviderName"], task["containers"][0]["exitCode"])
    with pytest.raises(ValueError, match="on-demand"):
        emulated_aws.interrupt(other)


def test_strategy_is_the_clusters(account):
    """A capacity provider that the cluster does not have is refused; base and weight share tasks out."""
    definition = account.define()
    strategy = [
        {"capacityProvider": "FARGATE", "base": 1, "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 2},
    ]
    network = {"awsvpcConfiguration": {"subnets": list(account.subnets), "assignPublicIp": "ENABLED"}}
    order = {"taskDefinition": definition, "count": 7, "networkConfiguration": network}
    answer = account.ecs.run_task(cluster="dask", capacityProviderStrategy=strategy, **order)
    account.ecs.create_cluster(clusterName="bare")

    markets = [task["capacityProviderName"] for task in answer["tasks"]]
    assert (3, 4) == (markets.count("FARGATE"), markets.count("FARGATE_SPOT"))
    with pytest.raises(ClientError, match="not associated with the cluster"):
        account.ecs.run_task(cluster="bare", capacityProviderStrategy=strategy, **order)


def test_killed_machine_stops(account, emulated_aws):
    """A machine that is killed stops with the exit code of SIGKILL."""
    [arn] = account.run(account.define())
    account.until([arn], "RUNNING")
    emulated_aws.kill(arn)
    [task] = account.until([arn], "STOPPED")

    assert 137 == task["containers"][0]["exitCode"]


def test_containers_of_a_task_share_its_life(account):
    """Each container has its own process, log and metadata; all have the task's role, and end with the essential one."""
    tell = (
        "import boto3, json, os, urllib.request as u; "
        "own = json.load(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'])); "
        "print(own['Name'], boto3.client('sts').get_caller_identity()['Arn'], flush=True); "
    )
    beside = [{"name": "short", "command": ["exit(3)"]}, {"name": "long", "command": [tell + BYE]}]
    [arn] = account.run(account.define(tell + BYE, beside=beside, taskRoleArn=account.role))
    account.until([arn], "RUNNING")
    until(lambda: account.lines(arn)[1:] == account.lines(arn, "long")[1:] == ["up"], 30, "both are up")
    task = until(
        lambda: (now := account.describe([arn])[0])["containers"][1].get("exitCode") and now, 30, "one ended"
    )
    assert ("RUNNING", 3) == (task["lastStatus"], task["containers"][1]["exitCode"])

    account.ecs.stop_task(cluster="dask", task=arn)
    [task] = account.until([arn], "STOPPED")

    who = f"arn:aws:sts::123456789012:assumed-role/execution/{arn.rpartition('/')[2]}"
    assert [f"dask {who}", f"long {who}"] == [account.lines(arn)[0], account.lines(arn, "long")[0]]
    assert {"dask": 7, "short": 3, "long": 7} == {one["name"]: one["exitCode"] for one in task["containers"]}


def test_end_of_the_essential_container_ends_the_others(account):
    """When the essential container ends, the others get SIGTERM, and the task says which end it was."""
    beside = [{"name": "long", "command": [BYE]}]
    wait = "import time; time.sleep(1)"
    [arn] = account.run(account.define(wait, beside=beside))
    [task] = account.until([arn], "STOPPED")

    assert "Essential container in task exited" == task["stoppedReason"]
    assert {"dask": 0, "long": 7} == {one["name"]: one["exitCode"] for one in task["containers"]}


def test_container_is_started_again_as_its_policy_says(account, emulated_aws):
    """A container that ran long enough is started again beside the others, unless it ended as it may."""
    emulated_aws.reset(time_scale=0.01)
    account.prepare()
    code = "import time; print('up', flush=True); time.sleep({}); exit({})"
    policy = {"enabled": True, "ignoredExitCodes": [4], "restartAttemptPeriod": 60}
    lives = {"again": (1, 1), "done": (1, 4), "early": (0, 1)}
    beside = [
        {"name": name, "command": [code.format(*life)], "restartPolicy": policy}
        for name, life in lives.items()
    ]
    [arn] = account.run(account.define(beside=beside))
    account.until([arn], "RUNNING")
    until(lambda: ["up"] * 3 == account.lines(arn, "again")[:3], 60, "it runs for the third time")

    assert [["up"], ["up"]] == [account.lines(arn, "done"), account.lines(arn, "early")]
    assert "RUNNING" == account.describe([arn])[0]["lastStatus"]
    account.ecs.stop_task(cluster="dask", task=arn)
    account.until([arn], "STOPPED")


def test_clusters_count_and_keep_their_tasks(account):
    """A cluster counts its tasks, is made only once, and is not deleted while it has any."""
    arns = account.run(account.define(), 2)
    account.until(arns, "RUNNING")
    account.ecs.create_cluster(clusterName="dask")
    [cluster] = account.ecs.describe_clusters(clusters=["dask"])["clusters"]

    assert (2, 0) == (cluster["runningTasksCount"], cluster["pendingTasksCount"])
    assert ["FARGATE", "FARGATE_SPOT"] == cluster["capacityProviders"]
    with pytest.raises(ClientError, match="ClusterContainsTasksException"):
        account.ecs.delete_cluster(cluster="dask")


def test_registry_knows_the_images(emulated_aws):
    """The registry answers for the tags there are, and only for those."""
    base = emulated_aws.environ["DASK_CLOUD__REGISTRY_URL"]
    repository, _, tag = dask_image().partition("/")[2].rpartition(":")
    request = urllib.request.Request(f"{base}/{repository}/manifests/{tag}", method="HEAD")
    with urllib.request.urlopen(request) as answer:
        assert 200 == answer.status
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{base}/{repository}/manifests/none")


CHANNELS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ssmmessages:*", "Resource": "*"}],
}
FORWARD = {
    "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
    "Parameters": {"host": ["127.0.0.1"], "portNumber": ["8786"], "localPortNumber": ["0"]},
}


def agent(task):
    """The status of a task's ECS Exec agent."""
    return task["containers"][0]["managedAgents"][0]["lastStatus"]


def target(task):
    """What a session calls a task."""
    container = task["containers"][0]
    return f"ecs:dask_{task['taskArn'].rpartition('/')[2]}_{container['runtimeId']}"


def test_sessions_need_the_agent(account):
    """A session opens to a running task whose agent may use its channels, and to no other."""
    definition = account.define(taskRoleArn=account.role)
    [deaf] = account.until(account.run(definition, enableExecuteCommand=True), "RUNNING")
    account.iam.put_role_policy(
        RoleName="execution", PolicyName="channels", PolicyDocument=json.dumps(CHANNELS)
    )
    [able] = account.until(account.run(definition, enableExecuteCommand=True), "RUNNING")
    session = account.ssm.start_session(Target=target(able), **FORWARD)

    assert ("PENDING", "RUNNING") == (agent(deaf), agent(able))
    assert session["SessionId"] == account.ssm.terminate_session(SessionId=session["SessionId"])["SessionId"]
    assert session["StreamUrl"].startswith("wss://")
    with pytest.raises(ClientError, match="TargetNotConnected"):
        account.ssm.start_session(Target=target(deaf), **FORWARD)
    with pytest.raises(ClientError, match="task role"):
        account.run(account.define(), enableExecuteCommand=True)


def test_what_is_not_there_says_so(account):
    """An operation that the emulated AWS does not have is answered as such, not as a failure of AWS."""
    with pytest.raises(ClientError, match="The emulated AWS has no ecs:ExecuteCommand"):
        account.ecs.execute_command(cluster="dask", task="a", command="sh", interactive=True)


def test_account_settings_have_defaults(account):
    """What nobody has set has AWS's default among the effective settings, and is not listed otherwise."""

    def said(**request):
        settings = account.ecs.list_account_settings(**request)["settings"]
        return {setting["name"]: setting["value"] for setting in settings}

    assert {} == said()
    assert {"taskLongArnFormat": "enabled"} == said(name="taskLongArnFormat", effectiveSettings=True)
    account.ecs.put_account_setting(name="containerInsights", value="enabled")
    assert {"containerInsights": "enabled"} == said()
    assert "enabled" == said(effectiveSettings=True)["containerInsights"]
    assert {} == said(name="containerInsights", value="disabled", effectiveSettings=True)
