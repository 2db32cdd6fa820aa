"""FargateCluster end to end on the embedded AWS: real managers, real API calls, real Dask processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

import boto3
import pytest
from contract import until
from distributed import Client, wait
from embedded import SMALL, nothing_left, running

from cloudprovider import (
    BootError,
    CapacityError,
    CloudError,
    CloudWarning,
    ConfigError,
    CredentialsError,
    FargateCluster,
)
from cloudprovider.events import Phase


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


@pytest.fixture
def cluster(cloud):
    with FargateCluster(n_workers=2, **SMALL) as cluster:
        cluster.wait_for_workers(2, timeout=60)
        yield cluster


def count(cloud, operation, error="") -> int:
    return sum(call.operation == operation and (not error or call.error == error) for call in cloud.calls)


def test_starts_computes_and_leaves_nothing(cloud):
    """From nothing to a result and back to nothing, with a bill."""
    with FargateCluster(n_workers=10, **SMALL) as cluster:
        client = cluster.get_client()
        client.wait_for_workers(10, timeout=60)
        assert 499500 == client.submit(sum, range(1000)).result(timeout=30)
        bill = cluster.cost()
        assert bill.spent > 0
        assert {"scheduler", "worker"} == {line.role for line in bill.lines}
        assert {11} == {sum(line.machines for line in bill.lines)}
        client.close()
    assert nothing_left(cloud)
    assert 2 == count(cloud, "RunTask")
    assert 0 < cluster.cost().spent


def test_rules_and_keys(cluster, cloud):
    """Nothing is open to the world, and no key is in definitions, overrides, tags, logs or repr."""
    ec2, ecs = boto3.client("ec2"), boto3.client("ecs")
    rules = [r for g in ec2.describe_security_groups()["SecurityGroups"] for r in g["IpPermissions"]]
    opened = [r["CidrIp"] for rule in rules for r in rule["IpRanges"]]
    opened += [r["CidrIpv6"] for rule in rules for r in rule["Ipv6Ranges"]]
    assert ["127.0.0.1/32"] == opened

    shown = repr(cluster) + repr(cluster.provider.__dict__) + str(cluster.get_logs())
    for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
        shown += str(ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"]))
    tasks = ecs.list_tasks(cluster="dask")["taskArns"]
    shown += str(ecs.describe_tasks(cluster="dask", tasks=tasks, include=["TAGS"]))
    shown += "".join(cluster.provider.logs(task.rpartition("/")[2], 1000) for task in tasks)
    token = json.loads(cluster.estate.client_secret)["token"]
    assert "PRIVATE KEY" not in shown
    assert token not in shown


def test_keys_are_not_in_user_code_s_environment(cluster):
    """User code finds neither keys nor boot data in its environment."""
    with Client(cluster) as client:
        environment = client.submit(lambda: dict(os.environ)).result(timeout=30)
    assert not [key for key, value in environment.items() if "PRIVATE" in value]
    assert "DASK_CLOUD_SECRET" not in environment


def test_environment_with_a_quote_and_a_newline(cloud):
    """Environment variables arrive as they are."""
    odd = {"ODD": 'it\'s "odd"\nand $HOME ${x} %{y}', "EMPTY": ""}
    with FargateCluster(n_workers=1, environment=odd, **SMALL) as cluster, Client(cluster) as client:
        seen = client.submit(lambda: {k: os.environ.get(k) for k in ("ODD", "EMPTY")}).result(timeout=60)
    assert odd == seen


def test_threads_and_memory_are_the_machine_s(cloud):
    """A worker's threads and memory are what was ordered, not what this computer has."""
    size = {**SMALL, "worker_cpu": 4, "worker_memory": "8 GiB"}
    with FargateCluster(n_workers=1, **size) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        [worker] = cluster.scheduler_info["workers"].values()
        assert (4, 8 * 2**30) == (worker["nthreads"], worker["memory_limit"])


def test_room_for_five_of_ten(cloud):
    """The five that came are kept and used, and the warning says so."""
    cloud.inject("capacity", room=6)
    with pytest.warns(CloudWarning, match="5 of 10"):
        cluster = FargateCluster(n_workers=10, **SMALL)
    with cluster, Client(cluster) as client:
        client.wait_for_workers(5, timeout=60)
        assert 5 == len(cluster.workers)
        assert [0, 1, 2] == client.gather(client.map(lambda x: x, range(3)))
    cloud.clear()
    assert nothing_left(cloud)


def test_refused_scale_raises_in_the_caller(cluster, cloud):
    """`scale` raises what the cloud refused; the next call tries again."""
    fault = cloud.inject("capacity", room=0)
    with pytest.raises(CapacityError, match="0 of 3"):
        cluster.scale(5)
    fault.clear()
    cluster.scale(5)
    cluster.wait_for_workers(5, timeout=60)


def test_no_capacity_at_all_leaves_nothing(cloud):
    """A start that gets no scheduler is an error with what to do, and leaves nothing."""
    cloud.inject("capacity", room=0)
    with pytest.raises(CapacityError, match="zones"):
        FargateCluster(n_workers=2, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_throttling_on_every_third_call(cloud):
    """Throttled calls are retried: the cluster starts, works and leaves nothing."""
    cloud.inject("throttle", every=3)
    with FargateCluster(n_workers=2, **SMALL) as cluster, Client(cluster) as client:
        assert 3 == client.submit(lambda: 3).result(timeout=60)
    cloud.clear()
    assert nothing_left(cloud)


def test_error_after_the_tasks_were_made(cloud):
    """A 500 on RunTask after its effect makes nothing twice."""
    cloud.inject("error-after-effect", "RunTask", times=2)
    with FargateCluster(n_workers=3, **SMALL) as cluster:
        cluster.wait_for_workers(3, timeout=60)
        assert 4 == len(running(cloud))
    assert nothing_left(cloud)


def test_spot_interruption_is_survived(cloud):
    """A spot machine is taken back: its data moves in time, and another takes its place."""
    with FargateCluster(n_workers=2, spot=True, **SMALL) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        futures = client.scatter(list(range(10)), hash=False)
        victim = next(m.id for m in cloud.machines() if m.market == "spot" and m.state == "RUNNING")
        cloud.interrupt(victim)
        until(lambda: victim in cluster.fleet.ended, 60, "the machine has ended")
        until(lambda: len(cluster.observed - {victim}) == 2, 60, "another connects")
        assert list(range(10)) == client.gather(futures)
        assert {"on-demand"} == {m.market for m in cloud.machines() if m.tags["dask-role"] == "scheduler"}


def test_spot_falls_back_to_on_demand(cloud):
    """What spot refuses is ordered on demand."""
    cloud.inject("capacity", room=1, market="spot")
    with FargateCluster(n_workers=3, spot="fallback", **SMALL) as cluster:
        cluster.wait_for_workers(3, timeout=60)
        markets = sorted(machine.market for machine in cluster.workers.values())
        assert ["on-demand", "on-demand", "spot"] == markets


def test_killed_machine_is_replaced(cluster, cloud):
    """A machine that dies without notice is replaced."""
    victim = min(cluster.workers)
    cloud.kill(victim)
    until(lambda: victim not in cluster.workers, 30, "the loss is noticed")
    until(lambda: len(cluster.observed - {victim}) == 2, 60, "another connects")


def test_image_that_does_not_exist(cloud):
    """A tag the registry does not have is an error before any machine."""
    with pytest.raises(ConfigError, match="no-such-tag"):
        FargateCluster(image="ghcr.io/dask/dask:no-such-tag", **SMALL)
    assert 0 == count(cloud, "RunTask")
    assert nothing_left(cloud)


def test_image_that_cannot_be_pulled(cloud):
    """A pull that fails ends the start with what AWS said and what to do."""
    cloud.inject("image-pull")
    with pytest.raises(BootError, match="CannotPull"):
        FargateCluster(n_workers=1, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_worker_image_that_can_never_be_pulled_is_no_billing_loop(cluster, cloud):
    """After three failed boots the fleet stops, and waiting ends with a BootError."""
    cloud.inject("image-pull")
    before = count(cloud, "RunTask")
    cluster.scale(3)
    with pytest.raises(BootError, match="in a row"):
        cluster.wait_for_workers(3, timeout=60)
    time.sleep(3)
    assert count(cloud, "RunTask") - before <= 4


def test_image_without_distributed(cloud, tmp_path):
    """An image that lacks distributed is a BootError that says so."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    cloud.add_image("registry.example/bare:1", python=tmp_path / "bare" / "bin" / "python")
    with pytest.raises(BootError, match="distributed"):
        FargateCluster(n_workers=1, image="registry.example/bare:1", **SMALL)
    assert nothing_left(cloud)


def test_scheduler_that_dies_while_starting(cloud):
    """A scheduler that ends before it answers is a BootError with its last log lines."""
    with pytest.raises(BootError, match="no_such_option"):
        FargateCluster(n_workers=1, scheduler_options={"no_such_option": 1}, **SMALL)
    assert nothing_left(cloud)


def test_no_route_out(cloud):
    """Private addresses in a subnet without a way out are explained."""
    with pytest.raises(BootError, match=r"(?i)nat|route|endpoint"):
        FargateCluster(n_workers=1, public=False, allow_from="127.0.0.0/8", **SMALL)
    assert nothing_left(cloud)


def test_addresses_run_out(cloud):
    """A subnet without free addresses is a capacity error that says what to add."""
    cloud.inject("addresses")
    with pytest.raises(CloudError, match=r"(?i)address"):
        FargateCluster(n_workers=1, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_missing_permission_is_named(cloud):
    """An action that is denied is named, with where to get the policy."""
    cloud.inject("denied", "RunTask")
    with pytest.raises(CredentialsError, match="RunTask"):
        FargateCluster(n_workers=1, **SMALL)
    cloud.clear()
    assert nothing_left(cloud)


def test_no_credentials(cloud):
    """Without credentials the error says how to get some, before anything is made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(name)
    with pytest.raises(CredentialsError, match=r"(?i)credentials"):
        FargateCluster(**SMALL)


def test_expired_credentials_at_the_start(cloud):
    """Expired credentials are said at once."""
    cloud.inject("expired-credentials")
    with pytest.raises(CredentialsError, match=r"(?i)expired"):
        FargateCluster(**SMALL)


def test_close_with_expired_credentials(cloud):
    """Machines end all the same, asked over TLS; what is left bills nothing and `sweep` removes it."""
    cluster = FargateCluster(n_workers=2, **SMALL)
    cluster.wait_for_workers(2, timeout=60)
    fault = cloud.inject("expired-credentials")
    cluster.close()
    fault.clear()
    until(lambda: not running(cloud), 60, "no machine runs")
    assert cloud.leftovers()
    assert any("dask cloud sweep" in event.message for event in cluster.events)
    done = subprocess.run(
        [sys.executable, "-m", "dask", "cloud", "sweep", cluster.name, "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert nothing_left(cloud)


def test_wrong_region(cloud):
    """A region that does not exist is an error before any call."""
    with pytest.raises(ConfigError, match="us-esat-1"):
        FargateCluster(region="us-esat-1", **SMALL)
    assert [] == cloud.calls


def test_impossible_size(cloud):
    """A size that Fargate does not have is an error before any call, with the nearest."""
    with pytest.raises(ConfigError, match="nearest"):
        FargateCluster(worker_cpu=1, worker_memory="64 GiB", progress=False)
    assert [] == cloud.calls


def test_two_users_at_the_same_second(cloud):
    """Two users who start at once in one account share the landing and nothing else."""
    results, errors = [], []

    def use(number):
        try:
            with FargateCluster(n_workers=1, **SMALL) as cluster, Client(cluster) as client:
                results.append(client.submit(lambda: number).result(timeout=60))
        except CloudError as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [] == errors
    assert [1, 2] == sorted(results)
    assert nothing_left(cloud)


def test_create_close_create(cloud):
    """A cluster of the same name can be made as soon as the first is closed."""
    for _ in range(2):
        with FargateCluster(name="again", n_workers=1, **SMALL) as cluster:
            cluster.wait_for_workers(1, timeout=60)
    assert nothing_left(cloud)


def test_same_name_twice_is_refused(cluster, cloud):
    """A second cluster of a running cluster's name is an error, and the first goes on."""
    with pytest.raises(CloudError, match=cluster.name):
        FargateCluster(name=cluster.name, n_workers=1, **SMALL)
    with Client(cluster) as client:
        assert 1 == client.submit(lambda: 1).result(timeout=30)


def test_found_by_name(cloud):
    """A detached cluster is found by name, scales, and is closed by whoever found it."""
    first = FargateCluster(name="mine", n_workers=1, **SMALL)
    first.wait_for_workers(1, timeout=60)
    first.detach()
    listed = subprocess.run(
        [sys.executable, "-m", "dask", "cloud", "list", "--cloud", "fargate"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mine" in listed.stdout
    with FargateCluster.from_name("mine", progress=False) as again:
        again.scale(2)
        again.wait_for_workers(2, timeout=60)
    assert nothing_left(cloud)


def answer_without_a_certificate(host, port) -> bytes:
    """What a TLS server says to a client that has no certificate; raises when it refuses the connection."""
    context = ssl._create_unverified_context()
    with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return tls.recv(1)


def test_dashboard_through_the_local_proxy(cluster):
    """The dashboard answers on this machine's loopback, through the cluster's certificate."""
    with urllib.request.urlopen(cluster.dashboard_link, timeout=20) as page:
        assert "Dask" in page.read().decode()


@pytest.mark.parametrize("service", ["scheduler", "front"])
def test_without_a_certificate_the_machine_refuses(cluster, service):
    """The port is open and speaks TLS, and says nothing to who has no certificate of this cluster's."""
    port = 8786 if service == "scheduler" else cluster.scheduler_info["services"]["front"]
    # TLS 1.3 tells it by an alert, or by hanging up; a port that is closed would be another error.
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        if not answer_without_a_certificate(cluster.scheduler_machine.public_address, port):
            raise ConnectionResetError("hung up without a word")


def test_interpreter_lock_held_for_a_minute(cloud):
    """User code that holds the interpreter lock for a minute loses neither its machine nor its result."""
    with FargateCluster(n_workers=2, **SMALL) as cluster, Client(cluster) as client:

        def hold(seconds):
            import ctypes

            ctypes.PyDLL(None).sleep(seconds)
            return seconds

        futures = client.map(hold, [61, 61], pure=False)
        wait(futures, timeout=120)
        assert [61, 61] == client.gather(futures)
        assert [] == cluster.events.of(Phase.lost)


def test_killed_client_leaves_nothing_that_bills(cloud):
    """After `kill -9` of the client the machines end by their leases, and the next start sweeps the rest."""
    script = """
        from cloudprovider import FargateCluster
        cluster = FargateCluster(n_workers=1, progress=False, client_timeout="3s", scheduler_timeout="3s",
                                 max_lifetime="30s")
        cluster.wait_for_workers(1)
        print("ready", flush=True)
        import time; time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    born = time.time()
    assert "ready" in process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    until(lambda: not running(cloud), 60, "no machine runs after the lease")
    time.sleep(max(0.0, born + 32 - time.time()))
    with FargateCluster(**SMALL) as cluster:
        until(lambda: len({left for left in cloud.leftovers() if cluster.name not in left}) <= 4, 30, "swept")
    assert nothing_left(cloud)


def test_script_that_ends_without_close(cloud):
    """A script that forgets `close()` leaves nothing."""
    script = """
        from cloudprovider import FargateCluster
        cluster = FargateCluster(n_workers=1, progress=False)
        cluster.wait_for_workers(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
    assert nothing_left(cloud)
