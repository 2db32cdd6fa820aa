"""`dask cloud ...`: what is shown, what it does, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cloudprovider import ProcessCluster, templates
from cloudprovider.cli import POLICIES, cloud


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command with clusters of processes in this test's own directory."""
    monkeypatch.setenv("DASK_CLOUD__LOCAL__DIRECTORY", str(tmp_path))

    def run(*arguments):
        return CliRunner().invoke(cloud, arguments)

    return run


@pytest.fixture
def cluster(tmp_path):
    with ProcessCluster(name="shown", directory=str(tmp_path), n_workers=1, progress=False) as cluster:
        yield cluster


def test_dask_knows_the_command():
    """`dask cloud` is a command of Dask's own, and `dask-cloud` the same."""
    done = subprocess.run(
        [sys.executable, "-m", "dask", "cloud", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("demo", "emulate", "list", "logs", "policy", "sweep"):
        assert command in done.stdout


def test_list(run, cluster):
    """Running clusters are listed, for people and for programs."""
    assert "shown" in run("list", "--cloud", "local").output
    [row] = json.loads(run("list", "--cloud", "local", "--json").output)
    assert ("shown", "local", 1) == (row["cluster"], row["cloud"], row["workers"])
    assert cluster.identity.expires == row["expires"]


def test_list_of_nothing(run):
    """No cluster is said in words, and as an empty list."""
    assert "No cluster runs" in run("list", "--cloud", "local").output
    assert [] == json.loads(run("list", "--cloud", "local", "--json").output)


def test_logs(run, cluster):
    """The logs of every live machine are shown."""
    output = run("logs", "shown", "--cloud", "local").output
    assert cluster.scheduler_machine.id in output
    assert all(worker in output for worker in cluster.workers)


def test_sweep_asks_first(run, cluster):
    """A sweep of a live cluster asks; without a yes nothing ends."""
    assert 0 != run("sweep", "shown", "--cloud", "local").exit_code
    assert cluster.provider.list("shown")


def test_sweep(run, tmp_path):
    """A sweep ends a cluster that somebody left, and says what it removed."""
    ProcessCluster(name="left", directory=str(tmp_path), progress=False).detach()
    result = run("sweep", "left", "--cloud", "local", "--yes")
    assert 0 == result.exit_code, result.output
    assert "Ended 1 machines" in result.output
    assert [] == json.loads(run("list", "--cloud", "local", "--json").output)


def test_sweep_of_the_expired(run):
    """Without a name, what expired clusters left is swept."""
    assert "Swept 0 expired clusters" in run("sweep", "--cloud", "local").output


def test_policy(run):
    """The least-privilege policy is JSON that IAM takes."""
    policy = json.loads(run("policy", "aws-fargate").output)
    assert "2012-10-17" == policy["Version"]
    assert any("ecs:RunTask" in statement["Action"] for statement in policy["Statement"])


def test_every_policy_can_be_printed(run):
    """Each policy that is shipped, but for the trust of roles, is a choice of the command."""
    shipped = {
        name.removeprefix("policies/").removesuffix(".json")
        for name in templates.names()
        if name.startswith("policies/")
    }
    assert shipped - {"aws-ecs-trust", "aws-ec2-trust"} == set(POLICIES)
    for name in POLICIES:
        assert json.loads(run("policy", name).output)["Statement"]


def test_error_is_one_message(run, emulated_aws):
    """What a cloud refuses is one message and exit code 1, not a traceback."""
    with emulated_aws.inject("expired-credentials"):
        result = run("list", "--cloud", "fargate")
    assert 1 == result.exit_code
    assert "Error: CredentialsError" in result.output
