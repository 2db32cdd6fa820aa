"""The handle on the embedded AWS: its life, its environment, what it remembers, what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from fargate_account import Account

from cloudprovider.emulator import Emulator
from cloudprovider.emulator.ledger import MINIMUM_S
from cloudprovider.emulator.profiles import Rate

TREE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); time.sleep(99)"


def alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended before it was read, or while
        return False


def wait_for_end(pids, timeout_s=10.0):
    """Those of some processes that still exist when they all should have ended."""
    deadline = time.monotonic() + timeout_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]


def test_environment_is_restored(emulated_aws):
    """`active` hides what would lead elsewhere, and puts back exactly what was there."""
    os.environ.pop("AWS_PROFILE", None)
    os.environ.update(AWS_PROFILE="mine", AWS_ENDPOINT_URL_ECS="http://else.example", AWS_REGION="eu-west-1")
    before = dict(os.environ)
    try:
        with emulated_aws.active():
            inside = dict(os.environ)
        after = dict(os.environ)
    finally:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_ECS"):
            del os.environ[name]

    assert before == after
    assert emulated_aws.endpoint == inside["AWS_ENDPOINT_URL"]
    assert "us-east-1" == inside["AWS_REGION"]
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_ECS"} & set(inside)


def test_calls_are_remembered(emulated_aws):
    """Each call is there with its service, its operation, its time and its error."""
    before = time.time()
    boto3.client("sts").get_caller_identity()
    with pytest.raises(ClientError):
        boto3.client("ecs").run_task(taskDefinition="none")

    good, bad = emulated_aws.calls
    assert ("sts", "GetCallerIdentity", "") == (good.service, good.operation, good.error)
    assert ("ecs", "RunTask", "ClusterNotFoundException") == (bad.service, bad.operation, bad.error)
    assert before <= good.start <= good.end <= bad.start <= bad.end <= time.time()


def test_address_is_the_callers(emulated_aws):
    """The address service answers with the caller's own address as plain text."""
    with urllib.request.urlopen(emulated_aws.environ["DASK_CLOUD__ADDRESS_URL"]) as answer:
        assert "127.0.0.1" == answer.read().decode()


def test_machines_are_processes(account, emulated_aws):
    """Each machine is a process with the state, the address and the tags that the cloud tells."""
    [arn] = account.run(account.define(), tags=[{"key": "a", "value": "b"}])
    account.until([arn], "RUNNING")

    [machine] = emulated_aws.machines()
    assert arn.endswith(machine.id)
    assert ("RUNNING", "0.25 vCPU, 0.5 GB", "on-demand", {"a": "b"}) == (
        machine.state,
        machine.kind,
        machine.market,
        machine.tags,
    )
    assert alive(machine.pid)
    assert machine.address.startswith("127.")


def test_ledger_bills_by_the_second_with_a_minimum(account, emulated_aws):
    """A task bills from the start of its pull until it has stopped, at least a minute, its address too."""
    on_demand, spot = account.run(account.define())[0], account.spot(account.define())[0]
    account.until([on_demand, spot], "RUNNING")
    for arn in (on_demand, spot):
        account.ecs.stop_task(cluster="dask", task=arn)
    tasks = account.until([on_demand, spot], "STOPPED")
    entries = {(entry.market, entry.kind): entry for entry in emulated_aws.ledger}
    times = {task["taskArn"].rpartition("/")[2]: task for task in tasks}

    size = "0.25 vCPU, 0.5 GB"
    assert {("on-demand", size), ("spot", size), ("on-demand", "public IPv4")} == set(entries)
    one = entries["on-demand", size]
    task = times[one.machine]
    # The wire tells whole milliseconds.
    told = (task["stoppedAt"] - task["pullStartedAt"]).total_seconds()
    assert pytest.approx(told, abs=0.002) == one.seconds
    assert pytest.approx(MINIMUM_S / 3600 * (0.25 * 0.04048 + 0.5 * 0.004445)) == one.price
    assert entries["spot", size].price < one.price
    assert pytest.approx(MINIMUM_S / 3600 * 0.005) == entries["on-demand", "public IPv4"].price


def test_leftovers_are_all_but_the_landing(account, emulated_aws):
    """What carries the landing's tag is not left over; everything else is, until it is deleted."""
    account.ec2.create_security_group(
        GroupName="shared",
        Description="x",
        TagSpecifications=[
            {"ResourceType": "security-group", "Tags": [{"Key": "dask-landing", "Value": "1"}]}
        ],
    )
    own = account.ec2.create_security_group(GroupName="own", Description="x")["GroupId"]
    account.ssm.put_parameter(Name="/dask/one", Value="x", Type="String")
    account.iam.tag_role(RoleName="execution", Tags=[{"Key": "dask-landing", "Value": "1"}])
    account.ecs.create_cluster(clusterName="kept", tags=[{"key": "dask-landing", "value": "1"}])
    definition = account.define()
    [arn] = account.run(definition)
    account.until([arn], "RUNNING")

    kinds = [line.partition(":")[0] for line in emulated_aws.leftovers()]
    assert kinds == [
        "ec2 network interface",
        "ec2 security group",
        "ecs cluster",
        "ecs task definition",
        "ecs task",
        "log group",
        "ssm parameter",
    ]

    account.ecs.stop_task(cluster="dask", task=arn)
    account.until([arn], "STOPPED")
    account.ecs.deregister_task_definition(taskDefinition=definition)
    account.ecs.delete_task_definitions(taskDefinitions=[definition])
    account.ecs.delete_cluster(cluster="dask")
    account.ec2.delete_security_group(GroupId=own)
    account.ssm.delete_parameter(Name="/dask/one")
    account.logs.delete_log_group(logGroupName="/dask")
    assert [] == emulated_aws.leftovers()


def test_reset_forgets_and_ends(account, emulated_aws):
    """After a reset the account is as on its first day, and no process is left."""
    emulated_aws.add_image("team/dask:1")
    arns = account.run(account.define(), 3)
    account.until(arns, "RUNNING")
    pids = [machine.pid for machine in emulated_aws.machines()]
    emulated_aws.reset()

    assert [] == wait_for_end(pids)
    assert ([], [], [], []) == (
        emulated_aws.calls,
        emulated_aws.machines(),
        emulated_aws.ledger,
        emulated_aws.leftovers(),
    )
    assert [] == account.ecs.list_clusters()["clusterArns"]


def test_unknown_words_are_named():
    """A wrong cloud, profile or engine is refused before any process starts."""
    with pytest.raises(ValueError, match="There is no cloud 'asw'"):
        Emulator("asw")
    with pytest.raises(ValueError, match="did you mean 'fargate'"):
        Emulator("aws", profile="fargat")
    with pytest.raises(ValueError, match="There is no engine 'docker'"):
        Emulator("aws", engine="docker")
    with pytest.raises(RuntimeError, match="not running"):
        _ = Emulator("aws").endpoint


def test_figures_of_a_profile_are_changed_one_by_one(emulated_aws):
    """Any figure of a profile can be another, until the next profile; a wrong name is refused with the nearest."""
    emulated_aws.reset(profile="fargate", latency_s=0.3, calls=(), launches=Rate(5, 1))
    begin = time.monotonic()
    boto3.client("sts").get_caller_identity()
    assert time.monotonic() - begin >= 0.3
    emulated_aws.reset(profile="instant", figures={"latency_s": 0.4}, time_scale=0.5)
    emulated_aws.reset(seed=1)
    begin = time.monotonic()
    boto3.client("sts").get_caller_identity()
    assert time.monotonic() - begin >= 0.2
    with pytest.raises(ValueError, match="did you mean 'running_s'"):
        emulated_aws.reset(runing_s=5)
    with pytest.raises(ValueError, match="no figure 'colour'"):
        Emulator("aws", figures={"colour": 1})


def test_unknown_region_is_no_host(emulated_aws):
    """A region that AWS does not have has no endpoint that answers."""
    client = boto3.client(
        "ecs", region_name="eu-nowhere-1", config=boto3.session.Config(retries={"total_max_attempts": 1})
    )
    with pytest.raises(ConnectionClosedError):
        client.list_clusters()
    assert [] == boto3.client("ecs", region_name="eu-central-1").list_clusters()["clusterArns"]


@pytest.fixture
def own_cloud():
    """An emulated AWS of the test's own, with one machine that has a child."""
    with Emulator("aws") as cloud, cloud.active():
        yield cloud


def started(cloud):
    """Start a machine with a child; the processes of both, and of the cloud."""
    account = Account(**Account.clients()).prepare()
    arns = account.run(account.define(TREE), 2)
    account.until(arns, "RUNNING")
    pids = [machine.pid for machine in cloud.machines()]
    deadline = time.monotonic() + 20
    while len(family := [*pids, *children(pids)]) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [cloud.pid, *family]


def children(pids):
    """The children of some processes."""
    found = []
    for pid in pids:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
    return found


def test_kill_leaves_no_process(own_cloud):
    """When the emulator is killed with SIGKILL, its machines and what they started are gone too."""
    pids = started(own_cloud)
    os.kill(own_cloud.pid, signal.SIGKILL)

    assert [] == wait_for_end(pids)


def test_close_leaves_no_process(own_cloud):
    """When the emulator is closed, its machines and what they started are gone too."""
    pids = started(own_cloud)
    own_cloud.close()

    assert [] == wait_for_end(pids)


def test_dies_with_its_parent():
    """When the process that started it is killed, the emulator ends."""
    code = (
        "import time; from cloudprovider.emulator import Emulator; "
        "cloud = Emulator('aws', engine='none').start(); print(cloud.pid, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()

    assert [] == wait_for_end([pid])


def test_outlives_the_thread_that_started_it():
    """An emulator that was started in a thread lives on when the thread has ended."""
    cloud = Emulator("aws", engine="none")
    thread = threading.Thread(target=cloud.start)
    thread.start()
    thread.join()
    time.sleep(0.2)
    try:
        assert [] == cloud.calls
    finally:
        cloud.close()


def test_clouds_do_not_share_addresses(emulated_aws):
    """Two emulated clouds on one computer have networks of their own."""
    with Emulator("aws", engine="none") as other:
        blocks = set()
        for cloud in (emulated_aws, other):
            with cloud.active():
                blocks |= {vpc["CidrBlock"] for vpc in boto3.client("ec2").describe_vpcs()["Vpcs"]}

    assert 2 == len(blocks)


def test_command_line_of_aws(emulated_aws):
    """The AWS command line works against it."""
    command = [
        sys.executable,
        "-m",
        "awscli",
        "ecs",
        "create-cluster",
        "--cluster-name",
        "cli",
        "--output",
        "text",
    ]
    try:
        import awscli  # noqa: F401
    except ImportError:
        pytest.skip("awscli is not installed")
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert "cluster/cli" in done.stdout, done.stderr
    assert ["CreateCluster"] == [call.operation for call in emulated_aws.calls]


def test_module_serves_until_interrupted():
    """`python -m cloudprovider.emulator` says how to use it, and ends on Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "cloudprovider.emulator",
        "aws",
        "--engine",
        "none",
        "--profile",
        "instant",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        endpoint = process.stdout.readline().strip()
        lines = [process.stdout.readline() for _ in range(4)]
        with urllib.request.urlopen(f"{endpoint}/_cloud/address") as answer:
            assert 200 == answer.status
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(20)

    assert f"export AWS_ENDPOINT_URL={endpoint}\n" in lines
