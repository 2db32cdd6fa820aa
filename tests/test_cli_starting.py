"""`dask cloud up`: what is asked for, and that it is there when the command has ended."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cloudprovider import ProcessCluster
from cloudprovider.cli import cloud
from cloudprovider.cli.starting import plan

LOCAL = ("--cloud", "local")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Where this test's clusters of processes are."""
    monkeypatch.setenv("DASK_CLOUD__LOCAL__DIRECTORY", str(tmp_path / "clusters"))
    return str(tmp_path / "clusters")


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cloud, arguments)


def test_up(directory, tmp_path):
    """A cluster that a file asks for is started once, stays when the command has ended, and is scaled after that."""
    file = tmp_path / "nightly.yaml"
    file.write_text("cluster: ProcessCluster\nname: nightly\nn-workers: 1\nidle_timeout: 5 minutes\n")
    started = run("up", str(file), "--worker-nthreads", "1", "--quiet", "--json")
    assert 0 == started.exit_code, started.output
    said = json.loads(started.stdout)
    assert ("nightly", "local", True, 1) == tuple(
        said[key] for key in ("cluster", "cloud", "started", "workers")
    )
    assert (300, said["expires"]) == (said["leases"]["idle"], said["leases"]["expires"])

    again = run("up", str(file))
    assert (0, True) == (again.exit_code, "runs on local already, with 1 worker" in again.stdout), (
        again.output
    )
    for line in (
        "It ends after 5 min without work",
        'ProcessCluster.from_name("nightly")',
        "dask cloud open nightly",
        "dask cloud down nightly",
    ):
        assert line in again.stdout
    scaled = run("up", str(file), "--n-workers", "2")
    assert "it has 2 workers now, and had 1" in scaled.stdout
    with ProcessCluster.from_name("nightly", directory=directory, progress=False) as cluster:
        assert {1} == {cluster.provider.boot("worker").nthreads}
        cluster.shutdown_on_close = True


def test_up_without_room_for_all(directory):
    """A cluster that the cloud gives fewer machines than asked for stays with what came, which is said."""
    result = run("up", "local", "--name", "short", "--n-workers", "3", "--capacity", "2", "--quiet")
    assert (9, True) == (result.exit_code, "Not all of 3 workers came. " in result.stderr), result.output
    assert "capacity=2" in result.stderr
    assert "Cluster short runs on local with 1 worker." in result.stdout
    assert 0 == run("down", "short", *LOCAL, "--yes").exit_code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("localy",), "neither a file nor a provider; did you mean 'local'?"),
        (("FargatCluster",), "did you mean 'FargateCluster'"),
        (("nowhere.yaml",), "neither a file nor a provider"),
        (("local", "--idle-timeot", "3m"), "no option 'idle_timeot'; did you mean 'idle_timeout'"),
        (("local", "--n-workers", "-1"), "-1 is not in the range"),
        (("local", "idle_timeout"), "no option: they begin with --"),
        (("--tunnel", "local"), "Say FILE or PROVIDER before --tunnel"),
        (("fargate", "--worker-cpu", "3"), "4 vCPU with 8 GiB"),
        (("fargate", "--no-public"), "Pass tunnel=True"),
    ],
)
def test_up_with_what_cannot_work(arguments, words):
    """What is no provider, no file or no option is refused before any call, with the nearest that is."""
    result = run("up", *arguments)
    assert (2, True) == (result.exit_code, words in result.stderr), result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a list", "must be a mapping with `cluster: fargate`"),
        ("n-workers: 2", "must be a mapping with `cluster: fargate`"),
        ("cluster: [", "cannot be read as YAML"),
        ("cluster: fargat", "which is no provider; did you mean 'fargate'"),
        ("cluster: local\nidle-timeot: 3", "no option 'idle_timeot'; did you mean 'idle_timeout'"),
    ],
)
def test_up_with_a_file_that_cannot_work(tmp_path, text, words):
    """What is wrong in a file is said."""
    file = tmp_path / "file.yaml"
    file.write_text(text)
    result = run("up", str(file))
    assert (2, True) == (result.exit_code, words in result.stderr), result.stderr


def test_options_as_they_are_typed():
    """Options of a cluster class are typed with dashes, with `=` or without, and values are YAML's."""
    typed = [
        "--worker-cpu",
        "4",
        "--spot",
        "fallback",
        "--tunnel",
        "--no-public",
        "--tags={a: b}",
        "--zones",
        "[a, b]",
    ]
    wanted = plan("fargate", typed, n_workers=3, name=None)
    options = {"worker_cpu": 4, "spot": "fallback", "tunnel": True, "public": False, "tags": {"a": "b"}}
    assert {**options, "zones": ["a", "b"], "n_workers": 3} == wanted.options
    assert ("fargate", None, 3) == (wanted.cloud, wanted.name, wanted.n_workers)
