"""What an embedded AWS with networks of its own lets through, in a network namespace of its own.

Run as ``python network_scenarios.py fargate|ec2``; prints JSON: what came of each scenario, or its error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import session_manager_plugin
from contract import until
from distributed import Client
from embedded import SMALL

from cloudprovider import AccessError, EC2Cluster, FargateCluster
from cloudprovider.emulator import Emulator

HERE = "100.64.0.2"  # this computer, as the cloud sees it
STRANGER = "203.0.113.7"
#: The services that a machine without a way out calls, and its image's registry.
SERVICES = ("ssm", "ssmmessages", "logs", "ecr.dkr")
SERIES = {
    "fargate": (
        FargateCluster,
        SMALL,
        10,
        ("groups", "ways", "public", "stranger", "inside", "tunnel", "killed"),
    ),
    "ec2": (
        EC2Cluster,
        {"progress": False, "instance_type": "m7i.large"},
        3,
        ("public", "apart", "inside", "tunnel"),
    ),
}


SERVE = """
import socket, sys
sockets = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]
print("up", flush=True)
sys.stdin.read()
"""
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


def passes(address: str, port: int, within: float = 1.5) -> bool:
    """Whether a connection comes about."""
    try:
        socket.create_connection((address, port), within).close()
    except OSError:
        return False
    return True


def answered(url: str, method: str = "GET", within: float = 2, **headers: str) -> tuple[int, str]:
    """What is at a URL: status and text; 0 when nothing answers."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=within) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except (OSError, ValueError):
        return 0, ""


def side_by_side(probes):
    """The answers of probes, most of which wait in vain."""
    with ThreadPoolExecutor(len(probes)) as pool:
        return list(pool.map(lambda probe: passes(*probe), probes))


EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def only(port: int, *, group: str = "", block: str = "") -> dict:
    """What lets one port through."""
    peer = {"UserIdGroupPairs": [{"GroupId": group}]} if group else {"IpRanges": [{"CidrIp": f"{block}/32"}]}
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}


class Scenarios:
    """Each method is one scenario on a new account; what it returns is reported."""

    def __init__(self, cloud: Emulator, series: str) -> None:
        self.cloud = cloud
        self.kind, self.options, self.count, _ = SERIES[series]
        self.ec2 = boto3.client("ec2")

    def made(self, **options):
        return self.kind(**{**self.options, **options})

    def rules(self) -> list[str]:
        groups = self.ec2.describe_security_groups()["SecurityGroups"]
        ranges = [rule for group in groups for rule in group["IpPermissions"]]
        return sorted(entry["CidrIp"] for rule in ranges for entry in rule["IpRanges"])

    def landing(self) -> dict:
        groups = [{"Name": "group-name", "Values": ["dask-landing"]}]
        [group] = self.ec2.describe_security_groups(Filters=groups)["SecurityGroups"]
        pair = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}
        return {"GroupId": group["GroupId"], "IpPermissions": [pair]}

    def private_subnet(self) -> str:
        """A subnet without any way out, whose VPC has endpoints of what machines need."""
        subnets = self.ec2.describe_subnets()["Subnets"]
        vpc = subnets[0]["VpcId"]
        subnet = self.ec2.create_subnet(
            VpcId=vpc, CidrBlock="172.31.240.0/24", AvailabilityZone=subnets[0]["AvailabilityZone"]
        )["Subnet"]["SubnetId"]
        table = self.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        self.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        for service in SERVICES:
            self.ec2.create_vpc_endpoint(
                VpcId=vpc, ServiceName=f"com.amazonaws.us-east-1.{service}", VpcEndpointType="Interface"
            )
        return subnet

    def addresses(self) -> list[str]:
        """Every public address of a machine."""
        interfaces = self.ec2.describe_network_interfaces()["NetworkInterfaces"]
        return [one["Association"]["PublicIp"] for one in interfaces if "Association" in one]

    def group(self, name: str) -> str:
        """A new security group, which lets all out and nothing in."""
        vpc = self.ec2.describe_subnets()["Subnets"][0]["VpcId"]
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]

    def groups(self):
        """What passes between two computers as their groups change."""
        one, other = self.group("one"), self.group("other")
        ec2 = self.ec2
        with (
            self.cloud.inside(security_groups=[one]) as far,
            self.cloud.inside(security_groups=[other]) as near,
        ):
            command = far.command([sys.executable, "-c", SERVE, far.address, "9000", "9001"])
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as server:
                assert server.stdout.readline() == "up\n"

                def knock(port: int = 9000) -> bool:
                    argv = [sys.executable, "-c", KNOCK, far.address, str(port)]
                    return near.run(argv, capture_output=True).returncode == 0

                told = {"at first": knock()}
                ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[only(9000, group=other)])
                told |= {"from the group": knock(), "at another port": knock(9001)}
                ec2.revoke_security_group_egress(GroupId=other, IpPermissions=[EVERYTHING])
                told["not let out"] = knock()
                ec2.authorize_security_group_egress(
                    GroupId=other, IpPermissions=[only(9000, block=far.address)]
                )
                told["let out again"] = knock()
                place = [{"Name": "private-ip-address", "Values": [near.address]}]
                [interface] = ec2.describe_network_interfaces(Filters=place)["NetworkInterfaces"]
                ec2.modify_network_interface_attribute(
                    NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=[one]
                )
                told["in another group"] = knock()
                ec2.authorize_security_group_ingress(
                    GroupId=one, IpPermissions=[only(9000, block=near.address)]
                )
                told["by its address"] = knock()
                return told

    def ways(self):
        """How a subnet's computers get out, and how they are seen."""
        ec2, subnets = self.ec2, self.ec2.describe_subnets()["Subnets"]
        vpc = subnets[0]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.240.0/24")["Subnet"]["SubnetId"]
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        address = ec2.allocate_address(Domain="vpc")
        gateway = ec2.create_nat_gateway(
            SubnetId=subnets[0]["SubnetId"], AllocationId=address["AllocationId"]
        )
        other = ec2.create_vpc(CidrBlock="172.31.0.0/16")["Vpc"]["VpcId"]
        other_subnet = ec2.create_subnet(VpcId=other, CidrBlock=subnets[0]["CidrBlock"])["Subnet"]["SubnetId"]
        with (
            socket.create_server((HERE, 0)) as listener,
            self.cloud.inside(subnet) as host,
            self.cloud.inside(other_subnet) as twin,
            self.cloud.inside() as first,
        ):
            argv = [sys.executable, "-c", KNOCK, HERE, str(listener.getsockname()[1])]
            without = host.run(argv, capture_output=True).returncode == 0
            nat = gateway["NatGateway"]["NatGatewayId"]
            ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
            through = host.run(argv, capture_output=True).returncode == 0
            listener.settimeout(5)
            seen_as = listener.accept()[1][0] if through else ""
            return {
                "without a route": without,
                "through the gateway": through,
                "seen as its address": seen_as == address["PublicIp"],
                "same address in two VPCs": twin.address == first.address,
            }

    def public(self):
        """The default cluster: who gets where."""
        with self.made(n_workers=self.count) as cluster, Client(cluster) as client:
            client.wait_for_workers(self.count, timeout=60)
            total = client.gather(client.map(lambda x: x * x, range(100)))
            workers = [worker.rpartition(":") for worker in cluster.scheduler_info["workers"]]
            private = [host.removeprefix("tls://") for host, _, _ in workers]
            ports = {int(port) for _, _, port in workers}
            scheduler = cluster.scheduler_machine
            others = sorted(set(self.addresses()) - {scheduler.public_address})
            shut = [(address, port) for address in others for port in (22, 8787, *ports)]
            shut += [(address, int(port)) for (_, _, port), address in zip(workers, private, strict=True)]
            shut += [(scheduler.public_address, 22), (scheduler.private_address, 8786)]
            opened = side_by_side([(scheduler.public_address, port) for port in (8786, 8787)])
            return {
                "sum": sum(total),
                "machines": len(workers),
                "in the VPC": all(address.startswith("172.31.") for address in private),
                "workers' public addresses": len(others),
                "seen as": answered(os.environ["DASK_CLOUD__ADDRESS_URL"])[1],
                "rules": self.rules(),
                "open": opened,
                "shut": [probe for probe, came in zip(shut, side_by_side(shut), strict=True) if came],
                "dashboard": answered(cluster.dashboard_link, within=20)[0],
                "rule": self.rule(cluster, client),
                "metadata": self.metadata(client),
                "worker's own": client.submit(answered, os.environ["DASK_CLOUD__ADDRESS_URL"]).result()[1]
                in others,
            }

    def metadata(self, client) -> list:
        """What two machines are told of themselves, and the first of the second."""
        first, second = sorted(client.scheduler_info()["workers"])[:2]
        names = [client.scheduler_info()["workers"][worker]["name"] for worker in (first, second)]
        if self.kind is FargateCluster:
            url = "http://169.254.170.2/v4/{}/task"
            asked = [
                (first, url.format(names[0])),
                (second, url.format(names[1])),
                (first, url.format(names[1])),
            ]
            told = [client.run(answered, url, workers=[worker])[worker] for worker, url in asked]
            instance = client.run(answered, "http://169.254.169.254/latest/meta-data/", workers=[first])[
                first
            ]
            return [name in text for name, (_, text) in zip(names, told[:2], strict=True)] + [
                told[2][0],
                instance[0],
            ]
        told = client.run(own_instance, workers=[first, second])
        return [told[worker] == name for worker, name in zip((first, second), names, strict=True)]

    def stranger(self):
        """A cluster whose rules admit somebody else."""
        try:
            self.made(allow_from=STRANGER, start_timeout="5s")
        except AccessError as error:
            return str(error)
        return "it was reached"

    def rule(self, cluster, client) -> dict:
        """The caller's rule is taken away, and given again by `allow()`."""
        address = cluster.scheduler_machine.public_address
        cluster.allow(STRANGER)
        without = passes(address, 8786)
        lives = client.submit(sum, [1, 2]).result(timeout=30)
        cluster.allow()
        return {"without": without, "with": passes(address, 8786), "lives": lives, "rules": self.rules()}

    def apart(self):
        """Two clusters, one landing group, and then its rule taken away."""
        with self.made(n_workers=1) as one, self.made(n_workers=1) as other, Client(one) as client:
            client.wait_for_workers(1, timeout=60)
            private, public = other.scheduler_machine.private_address, other.scheduler_machine.public_address

            def reached(address):
                return client.submit(passes, address, 8786, pure=False).result(timeout=30)

            with_rule, outside = reached(private), reached(public)
            self.ec2.revoke_security_group_ingress(**self.landing())
            without = reached(private)
            self.ec2.authorize_security_group_ingress(**self.landing())
            return {"with": with_rule, "without": without, "by its public address": outside}

    def inside(self):
        """A private cluster made by a program inside the VPC."""
        subnet = self.private_subnet()
        with self.cloud.inside(public=True) as host:
            done = host.run(
                [sys.executable, __file__, "inside", self.kind.__name__, json.dumps(self.options), subnet],
                capture_output=True,
                timeout=90,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            own = {host.public_address}
        told = json.loads(done.stdout)
        return {**told, "public": sorted(set(told["public"]) - own)}

    def tunnel(self):
        """A private cluster, from outside: through the tunnel, and not otherwise."""
        subnet = self.private_subnet()
        with self.made(n_workers=2, public=False, tunnel=True, subnets=[subnet]) as cluster:
            with Client(cluster) as client:
                client.wait_for_workers(2, timeout=60)
                result = client.submit(sum, range(1000)).result(timeout=30)
            return {
                "result": result,
                "rules": self.rules(),
                "public": self.addresses(),
                "without": passes(cluster.scheduler_machine.private_address, 8786),
                "page": answered(cluster.dashboard_link, within=20)[0],
            }

    def killed(self):
        """The cloud's process is killed with machines in it; nothing is to be left. The last scenario."""
        self.made(n_workers=1).detach()
        before = len(neighbours()), len(links())
        os.kill(self.cloud.pid, signal.SIGKILL)
        until(lambda: not neighbours() and links() == ["lo"], 20, "nothing is left")
        return {"before": before, "processes": neighbours(), "links": links()}


def own_instance() -> str:
    """The id that the metadata service tells the instance that asks."""
    base = "http://169.254.169.254/latest"
    _, token = answered(f"{base}/api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return answered(f"{base}/meta-data/instance-id", **{"X-aws-ec2-metadata-token": token})[1]


def links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def neighbours() -> list[str]:
    """The other processes of this process namespace, which has only what was started here."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if int(folder.name) != os.getpid() and not ended:
                found.append((folder / "cmdline").read_bytes().decode().replace("\0", " "))
    return found


def use_inside(name: str, options: str, subnet: str) -> dict[str, object]:
    """Make a private cluster from where its addresses can be reached."""
    kind = {"FargateCluster": FargateCluster, "EC2Cluster": EC2Cluster}[name]
    given = {"public": False, "subnets": [subnet], "allow_from": "172.31.0.0/16", "n_workers": 2}
    with kind(**json.loads(options), **given) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        interfaces = boto3.client("ec2").describe_network_interfaces()["NetworkInterfaces"]
        url = os.environ["AWS_ENDPOINT_URL"]
        return {
            "result": client.submit(sum, range(1000)).result(timeout=30),
            "address": cluster.scheduler_address,
            "public": [one["Association"]["PublicIp"] for one in interfaces if "Association" in one],
            "way out": [
                client.submit(passes, HERE, 22).result(timeout=30),
                client.submit(answered, f"{url}/_cloud/address").result(timeout=30)[0],
            ],
        }


def told(cloud: Emulator, scenario) -> dict[str, object]:
    """What came of a scenario, and that nothing of its clusters is left; or its error."""
    start = time.monotonic()
    try:
        report: dict[str, object] = {"came": scenario()}
        if scenario.__name__ != "killed":
            until(lambda: not any("dask" in left for left in cloud.leftovers()), 30, "nothing is left")
    except Exception:  # noqa: BLE001  (the other scenarios are to be told as well)
        report = {"error": traceback.format_exc()}
    if scenario.__name__ != "killed":
        cloud.reset()
    return {**report, "seconds": round(time.monotonic() - start, 1)}


def main(series: str) -> None:
    """Run every scenario of a series, and tell what came of each."""
    reports = {}
    with tempfile.TemporaryDirectory() as folder, Emulator("aws", network="namespaces") as cloud:
        session_manager_plugin.install(Path(folder))
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        with cloud.active():
            scenarios = Scenarios(cloud, series)
            for name in SERIES[series][3]:
                reports[name] = told(cloud, getattr(scenarios, name))
    sys.stdout.write(json.dumps(reports))


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        sys.stdout.write(json.dumps(use_inside(*sys.argv[2:])))
    else:
        main(sys.argv[1])
