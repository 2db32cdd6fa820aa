"""The embedded AWS with networks of its own: what is not allowed does not pass, for tasks and for instances."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: A series of scenarios is run by the first test that asks for it.
pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).with_name("network_scenarios.py")
#: With a process namespace as well: what is left after a scenario is then seen, and ends with it.
OWN = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
COMMANDS = {
    "root": ["unshare", *OWN],
    "user": ["unshare", "--user", "--map-root-user", *OWN],
}
PROBE = "import sys; from cloudprovider.emulator.kernel import unavailable; sys.exit(unavailable())"


def why_not(command: list[str]) -> str:
    """Why no networks can be made here this way; empty when they can."""
    try:
        done = subprocess.run(
            [*command, sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def ways(*preferred: str) -> list[str]:
    """The command of the first way that works here.

    As an ordinary user only the second can; where the kernel forbids user namespaces, perhaps the first.
    """
    reasons = {}
    for name in preferred:
        if not (reason := why_not(COMMANDS[name])):
            return COMMANDS[name]
        reasons[name] = reason.splitlines()[-1]
    pytest.skip(f"no network namespaces here: {reasons}")


def reports(series: str, command: list[str]) -> dict:
    """What came of each scenario of a series."""
    done = subprocess.run(
        [*command, sys.executable, str(PROGRAM), series],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fargate() -> dict:
    """What came of FargateCluster, as an ordinary user where the kernel lets one."""
    return reports("fargate", ways("user", "root"))


@pytest.fixture(scope="module")
def ec2() -> dict:
    """What came of EC2Cluster, as root where the tests are run as root."""
    return reports("ec2", ways("root", "user"))


@pytest.fixture(params=["fargate", "ec2"])
def report(request) -> dict:
    """What came of either."""
    return request.getfixturevalue(request.param)


def came(report: dict, scenario: str):
    """What came of a scenario; fails with its error."""
    assert "error" not in report[scenario], report[scenario]["error"]
    return report[scenario]["came"]


def test_default_cluster_computes(report):
    """Machines have addresses of the VPC and compute; the caller sees the dashboard, by the one rule for its address."""
    told = came(report, "public")

    assert 328350 == told["sum"]
    assert told["in the VPC"]
    assert "100.64.0.2" == told["seen as"]
    assert ["100.64.0.2/32"] == told["rules"]
    assert [True, True] == told["open"]
    assert 200 == told["dashboard"]


def test_ten_workers_compute(fargate):
    """Ten workers, each behind its own port of the router, are one cluster."""
    assert 10 == came(fargate, "public")["machines"]


def test_nothing_else_is_reached_from_outside(report):
    """No worker is reached at any port of its public or private address, nor the scheduler but at its two ports."""
    told = came(report, "public")

    assert told["machines"] == told["workers' public addresses"]
    assert [] == told["shut"]


def test_allow_changes_what_passes(report):
    """Without the rule no new connection passes while the one there is lives on; `allow()` opens it again."""
    told = came(report, "public")["rule"]

    assert {"without": False, "with": True, "lives": 3, "rules": ["100.64.0.2/32"]} == told


def test_metadata_is_each_machines_own(fargate, ec2):
    """At the real link-local addresses each machine is told of itself, by the address that it asks from."""
    assert [True, True, 404, 404] == came(fargate, "public")["metadata"]
    assert [True, True] == came(ec2, "public")["metadata"]


def test_machines_are_seen_by_their_public_addresses(report):
    """What a machine sends leaves the VPC with the machine's public address."""
    assert came(report, "public")["worker's own"]


def test_error_names_the_missing_rule(fargate):
    """Where the rules admit somebody else the AccessError says who is admitted, who asks, and what to call."""
    told = came(fargate, "stranger")

    assert "Your address is 100.64.0.2 now, but its rules admit only 203.0.113.7/32." in told
    assert "cluster.allow()" in told


def test_security_groups_are_enforced_both_ways(fargate):
    """What passes follows each change: of rules in and out, by group and by address, and of who is in a group."""
    expected = {
        "at first": False,
        "from the group": True,
        "at another port": False,
        "not let out": False,
        "let out again": True,
        "in another group": False,
        "by its address": True,
    }
    assert expected == came(fargate, "groups")


def test_routes_lead_where_they_say(fargate):
    """A subnet has no way out until its table has one, then is seen as its NAT gateway; VPCs may have the same blocks."""
    expected = {
        "without a route": False,
        "through the gateway": True,
        "seen as its address": True,
        "same address in two VPCs": True,
    }
    assert expected == came(fargate, "ways")


def test_clusters_reach_each_other_by_the_landings_rule_alone(ec2):
    """A worker reaches another cluster's scheduler by the landing group's rule, and without that rule not at all."""
    told = came(ec2, "apart")

    assert {"with": True, "without": False, "by its public address": False} == told


def test_private_cluster_from_inside_the_network(report):
    """From inside the VPC a private cluster just works; it has no public address, and its machines no way out."""
    told = came(report, "inside")

    assert 499500 == told["result"]
    assert told["address"].startswith("tls://172.31.240.")
    assert [] == told["public"]
    assert [False, 0] == told["way out"]


def test_private_cluster_through_the_tunnel(report):
    """From outside a private cluster is reached through the tunnel alone, with no rule open to anybody."""
    told = came(report, "tunnel")

    assert {"result": 499500, "rules": [], "public": [], "without": False, "page": 200} == told


def test_killed_cloud_leaves_nothing(fargate):
    """After `kill -9` of the cloud no process, no link and no network of its machines is left."""
    told = came(fargate, "killed")

    assert all(count > 1 for count in told["before"])
    assert [] == told["processes"]
    assert ["lo"] == told["links"]


def test_network_that_cannot_be_had_says_why():
    """Where networks cannot be made the error names what is missing, before anything is started."""
    script = (
        "from pathlib import Path\n"
        "from cloudprovider.emulator import Emulator\n"
        "Path('/proc/sys/user/max_net_namespaces').write_text('0')\n"
        "try:\n    Emulator('aws', network='namespaces').start()\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    command = [*ways("user"), sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert 0 == done.returncode, done.stderr
    assert "the kernel allows this user no network namespace" in done.stdout
    assert "unshare --user --map-root-user --net --mount" in done.stdout


def test_unknown_network_is_refused():
    """A network that there is not is refused with the nearest that there is."""
    from cloudprovider.emulator import Emulator

    with pytest.raises(ValueError, match="did you mean 'namespaces'"):
        Emulator("aws", network="namespace")
