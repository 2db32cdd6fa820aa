"""The ways to a FargateCluster on the embedded AWS: rules, the tunnel, pages in a browser, Jupyter."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
import session_manager_plugin
from browsing import CHROMIUM, chromium
from contract import until
from distributed import Client
from embedded import SMALL

from cloudprovider import AccessError, ConfigError, FargateCluster


@pytest.fixture
def cloud(emulated_aws):
    yield emulated_aws
    emulated_aws.clear()


@pytest.fixture
def private(cloud):
    """A subnet whose machines reach the outside through a NAT gateway, and are reached by nobody."""
    ec2 = boto3.client("ec2")
    default = [{"Name": "is-default", "Values": ["true"]}]
    [vpc] = ec2.describe_vpcs(Filters=default)["Vpcs"]
    subnets = ec2.describe_subnets()["Subnets"]
    taken = [ipaddress.ip_network(subnet["CidrBlock"]) for subnet in subnets]
    blocks = ipaddress.ip_network(vpc["CidrBlock"]).subnets(new_prefix=20)
    block = next(block for block in blocks if not any(block.overlaps(other) for other in taken))
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock=str(block))["Subnet"]["SubnetId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=subnets[0]["SubnetId"], AllocationId=address)["NatGateway"]
    table = ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    ec2.create_route(
        RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway["NatGatewayId"]
    )
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    return subnet


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The plugin's stand-in, first in PATH."""
    session_manager_plugin.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def rules() -> list[str]:
    """Every address block from outside that any security group lets in."""
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    ranges = [rule for group in groups for rule in group["IpPermissions"]]
    return sorted(
        [entry["CidrIp"] for rule in ranges for entry in rule["IpRanges"]]
        + [entry["CidrIpv6"] for rule in ranges for entry in rule["Ipv6Ranges"]]
    )


def count(cloud, operation) -> int:
    return sum(call.operation == operation and not call.error for call in cloud.calls)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_tunnel(cloud, private, plugin):
    """Private machines compute and show their pages through the tunnel, with no rule open to anybody."""
    with FargateCluster(n_workers=2, public=False, tunnel=True, subnets=[private], **SMALL) as cluster:
        programs = [cluster._tunnel.scheduler.pid, cluster._tunnel.pages.pid]
        with Client(cluster) as client:
            client.wait_for_workers(2, timeout=60)
            assert 499500 == client.submit(sum, range(1000)).result(timeout=30)
        with urllib.request.urlopen(cluster.dashboard_link, timeout=20) as page:
            assert "Dask" in page.read().decode()
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
        assert [] == rules()
        assert all(map(alive, programs))
    assert not any(map(alive, programs))
    assert 2 == count(cloud, "StartSession") == count(cloud, "TerminateSession")
    until(lambda: not [left for left in cloud.leftovers() if "dask" in left], 30, "nothing is left")


def test_plugin_ends_with_a_killed_client(cloud, private, plugin):
    """After `kill -9` of the client none of its tunnel's programs is left."""
    script = f"""
        from cloudprovider import FargateCluster
        cluster = FargateCluster(public=False, tunnel=True, subnets=[{private!r}], **{SMALL!r})
        print(cluster._tunnel.scheduler.pid, cluster._tunnel.pages.pid, flush=True)
        import time; time.sleep(600)
    """
    client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    programs = [int(pid) for pid in client.stdout.readline().split()]
    assert 2 == sum(map(alive, programs))
    client.kill()
    client.communicate(timeout=10)
    until(lambda: not any(map(alive, programs)), 5, "the programs end")


def test_missing_plugin_is_found_before_any_call(cloud, tmp_path, monkeypatch):
    """Without the plugin the error says where to get it, before anything is asked of the cloud."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="session-manager-plugin"):
        FargateCluster(public=False, tunnel=True, **SMALL)
    assert [] == cloud.calls


def test_tunnel_that_may_not_open(cloud, private, plugin):
    """A role of the user's own that lacks the tunnel's rights is an error that names them, and leaves nothing."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    boto3.client("iam").create_role(RoleName="bare", AssumeRolePolicyDocument=document)
    with pytest.raises(AccessError, match="ssmmessages"):
        FargateCluster(public=False, tunnel=True, subnets=[private], role="bare", start_timeout="5s", **SMALL)
    until(lambda: not [left for left in cloud.leftovers() if "dask" in left], 30, "nothing is left")


def test_found_by_name_through_the_tunnel(cloud, private, plugin):
    """A cluster behind a tunnel is found by its name alone, and reached through a tunnel again."""
    FargateCluster(name="deep", n_workers=1, public=False, tunnel=True, subnets=[private], **SMALL).detach()
    with FargateCluster.from_name("deep", progress=False) as again, Client(again) as client:
        assert 5 == client.submit(lambda: 5).result(timeout=60)
        assert [] == rules()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_dashboard_lives_in_a_browser(cloud, tmp_path):
    """The user's browser opens the dashboard and a worker's page, and both show what Bokeh streams to them."""
    async with (
        FargateCluster(n_workers=2, asynchronous=True, **SMALL) as cluster,
        Client(cluster, asynchronous=True) as client,
        chromium(tmp_path / "profile") as browser,
    ):
        await client.wait_for_workers(2, timeout=60)
        name, worker = min((info["name"], info) for info in cluster.scheduler_info["workers"].values())
        await browser.open(cluster.dashboard_link.replace("/status", "/workers"))
        assert name in await browser.text(until=name)
        await browser.open(cluster.dashboard_link)
        assert "Data Transfer" in await browser.text(until="Data Transfer")
        link = "/proxy/{}/{}/status".format(worker["services"]["dashboard"], worker["host"])
        await browser.open(cluster.dashboard_link.replace("/status", link))
        assert "Executing" in await browser.text(until="Executing")


def answer(url: str, context: ssl.SSLContext | None = None) -> int:
    """The status of what is at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=10, context=context) as page:
            return page.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_jupyter(cloud):
    """Jupyter serves who has its token, and is not to be reached without the cluster's certificate."""
    with FargateCluster(jupyter=True, **SMALL) as cluster:
        address, _, token = cluster.jupyter_link.partition("/lab?token=")
        status = f"{address}/api/status"
        until(lambda: answer(status) != 502, 60, "Jupyter serves")
        assert token == json.loads(cluster.estate.client_secret)["token"]
        assert [403, 403, 200] == [answer(status + query) for query in ("", "?token=x", f"?token={token}")]

        front = "https://{}:{}".format(
            cluster.scheduler_machine.public_address, cluster.scheduler_info["services"]["front"]
        )
        with pytest.raises(OSError):  # noqa: PT011  (TLS 1.3 says it by an alert or by hanging up)
            answer(f"{front}/jupyter/api/status?token={token}", ssl._create_unverified_context())
        assert token not in str(cluster.get_logs()) + repr(cluster)


def test_no_jupyter_unless_asked_for(cloud):
    """Without `jupyter=True` there is neither a link nor a page."""
    with FargateCluster(**SMALL) as cluster:
        assert "" == cluster.jupyter_link
        assert 502 == answer(cluster.dashboard_link.replace("/status", "/jupyter/lab"))


def test_allow_and_from_name_admit_the_present_address(cloud):
    """From a new address `from_name` admits it beside the old one, and `allow()` makes it the only one."""
    FargateCluster(name="cafe", allow_from="203.0.113.7", **SMALL).detach()
    assert ["203.0.113.7/32"] == rules()
    with FargateCluster.from_name("cafe", progress=False) as again:
        assert ["127.0.0.1/32", "203.0.113.7/32"] == rules()
        again.allow()
        assert ["127.0.0.1/32"] == rules()
        again.allow("198.51.100.0/24")
        assert ["198.51.100.0/24"] == rules()
        again.detach()
    with FargateCluster.from_name("cafe", allow_from="127.0.0.0/8", progress=False):
        assert ["127.0.0.0/8"] == rules()
