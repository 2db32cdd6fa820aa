"""`dask cloud ...`: what is shown, what it does, and how it fails."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import boto3
import pytest
from click.testing import CliRunner
from contract import until
from embedded import SMALL, nothing_left, running

from cloudprovider import EC2Cluster, FargateCluster, ProcessCluster, discovery
from cloudprovider.cli import COMMANDS, cloud
from cloudprovider.cli.logs import fresh
from cloudprovider.providers._aws_names import parameter
from cloudprovider.providers._ec2_names import plan_part
from cloudprovider.providers._ecs_wire import PLACED, place_of
from cloudprovider.providers.gce import GCEProvider, GCPConfig
from cloudprovider.providers.local import LocalConfig, LocalProvider
from cloudprovider.security import make_secrets

LOCAL = ("--cloud", "local")
FARGATE = ("--cloud", "fargate")
#: The smallest cluster on EC2.
MACHINES = {"progress": False, "instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where this module's clusters of processes are."""
    return str(tmp_path_factory.mktemp("clusters"))


@pytest.fixture
def run(directory, monkeypatch):
    """Run a command with clusters of processes in this module's own directory."""
    monkeypatch.setenv("DASK_CLOUD__LOCAL__DIRECTORY", directory)

    def run(*arguments, **options):
        return CliRunner().invoke(cloud, arguments, **options)

    return run


@pytest.fixture(scope="module")
def cluster(directory):
    """A cluster that runs while its tests look at it."""
    with ProcessCluster(name="shown", directory=directory, n_workers=1, progress=False) as cluster:
        yield cluster


@pytest.fixture
def left(directory):
    """A cluster of a scheduler alone that somebody has left running."""
    provider = leftover(directory, "left")
    provider.create(provider.boot("scheduler"), 1)
    yield provider
    for record in (provider.config.root / "left").glob("machines/*.json"):
        with suppress(ProcessLookupError):
            os.killpg(json.loads(record.read_text())["pid"], signal.SIGKILL)
    provider.sweep("left")


def leftover(directory, name, **changed):
    """A cluster of which only what costs nothing is left."""
    config = LocalConfig.of(name=name, directory=directory)
    whose = dataclasses.replace(config.identity(), **changed)
    provider = LocalProvider(config, whose)
    boots = [config.boot_for(role, whose) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(whose))
    return provider


def columns_of(result, *columns):
    """Of the rows that a command printed as JSON, one list a column, each through its function."""
    rows = json.loads(result.stdout)
    return [[read(row[name]) for row in rows] for name, read in columns]


def typed(answer, *arguments, directory):
    """The exit code of a command in a terminal in which this is typed."""
    master, terminal = pty.openpty()
    environ = {**os.environ, "DASK_CLOUD__LOCAL__DIRECTORY": directory}
    with dask_cloud(*arguments, stdin=terminal, env=environ) as asking:
        os.write(master, answer.encode())
        asking.communicate(timeout=60)
    os.close(master)
    os.close(terminal)
    return asking.returncode


def dask_cloud(*arguments, **options):
    """Start the command line in a process of its own."""
    code = "from cloudprovider.cli import cloud; cloud()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes, **options)


# -- all commands ------------------------------------------------------------------------------------------


def test_dask_knows_the_command():
    """`dask cloud` is a command of Dask's own, and `dask-cloud` the same."""
    done = subprocess.run(
        [sys.executable, "-m", "dask", "cloud", "--help"], capture_output=True, text=True, check=True
    )
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "price fargate", "price ec2", "price gcp", "price azure"])
def test_every_command_explains_itself(run, command):
    """Each command can be asked what it does, and says it in a sentence."""
    result = run(*command.split(), "--help")
    assert (0, True) == (result.exit_code, "." in result.output)


def test_called_wrongly(run):
    """What is no command, or lacks its name, ends with 2."""
    wrong = [("lst",), ("show",), ("scale", "x", "-1"), ("sweep", "--older-than", "soon"), ("price",)]
    assert [2] * len(wrong) == [run(*arguments).exit_code for arguments in wrong]


def test_no_markup(run, cluster):
    """What is written into a pipe has no colours, and fits 80 columns."""
    for command in (("list", *LOCAL), ("show", "shown", *LOCAL), ("price", "ec2", "--region", "us-east-1")):
        output = run(*command).output
        assert "\x1b" not in output
        assert 80 >= max(map(len, output.splitlines()))


def test_classes_of_every_cloud():
    """The table with which the command line goes past the cluster classes agrees with them."""
    for name, row in discovery.CLOUDS.items():
        cls = discovery.cluster_class(name)
        assert isinstance(discovery.provider(name), cls.provider_class)
        assert cls.config_class is getattr(importlib.import_module(row.module), row.config)


def test_error_is_one_message(run, emulated_aws):
    """What a cloud refuses is one message and an exit code that says what kind it is, not a traceback."""
    with emulated_aws.inject("expired-credentials"):
        result = run("list", *FARGATE)
    assert 4 == result.exit_code
    assert "Error: CredentialsError" in result.stderr


def test_no_permission_to_list(run, emulated_aws):
    """Who may not list is told which permission lacks."""
    with emulated_aws.inject("denied", operation="DescribeInstances"):
        result = run("list", "--cloud", "ec2")
    assert (4, True) == (result.exit_code, "ec2:DescribeInstances" in result.stderr)


def test_cloud_that_cannot_be_asked(run, emulated_aws, cluster):
    """A cloud that refuses is mentioned, by words and exit code; the others are listed all the same."""
    with emulated_aws.inject("expired-credentials"):
        result = run("list", "--json")
        named = run("list", *FARGATE, *LOCAL, "--json")
    assert (9, 9) == (result.exit_code, named.exit_code)
    assert "Left out: fargate, ecs. CredentialsError" in result.stderr
    assert ["shown"] == [row["cluster"] for row in json.loads(named.stdout)]
    assert ["shown"] == [row["cluster"] for row in json.loads(result.stdout)]


def test_wrong_region_is_no_empty_list(run, emulated_aws):
    """A region that there is not is an error, though no cloud was named."""
    result = run("list", "--region", "eu-centrall-1")
    assert (2, True) == (result.exit_code, "did you mean 'eu-central-1'" in result.output)


# -- list --------------------------------------------------------------------------------------------------


def test_list(run, cluster):
    """Running clusters are listed, for people and for programs."""
    assert "shown" in run("list", *LOCAL).output
    [row] = json.loads(run("list", *LOCAL, "--json").output)
    assert ("shown", "local", 1) == (row["cluster"], row["cloud"], row["workers"])
    assert cluster.identity.expires == row["expires"]


def test_list_of_nothing(run, tmp_path, monkeypatch):
    """No cluster is said in words, and as an empty list."""
    monkeypatch.setenv("DASK_CLOUD__LOCAL__DIRECTORY", str(tmp_path))
    assert "No cluster runs" in run("list", *LOCAL).output
    assert [] == json.loads(run("list", *LOCAL, "--json").output)


def imported():
    """What a listing of all clouds imports, in a process of its own."""
    code = (
        "import sys\nfrom cloudprovider.cli import cloud\n"
        "try:\n    cloud(['list'])\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, code, modules = done.stdout.splitlines()
    assert "0" == code
    return {*modules.split(), *(name.partition(".")[0] for name in modules.split())}


def test_list_is_light(emulated_aws):
    """Listing imports no `distributed`, no emulator's server, no table's drawing, and no other cloud's SDK."""
    modules = imported()
    assert {"boto3", "cloudprovider"} <= modules
    assert not {"distributed", "tornado", "moto", "flask", "rich", "cryptography"} & modules
    assert not {"azure.core", "azure.mgmt", "google.auth", "google.cloud"} & modules


# -- show --------------------------------------------------------------------------------------------------


def test_show(run, cluster):
    """A cluster's machines are shown with their role, state and zone, and so is its end."""
    output = run("show", "shown", *LOCAL).output
    assert "ends in 23 h" in output
    for machine in (cluster.scheduler_machine, *cluster.workers.values()):
        assert f"{machine.id}  running  local" in output


def test_show_for_programs(run, cluster):
    """As JSON, every machine has what a script may ask for."""
    shown = json.loads(run("show", "shown", *LOCAL, "--json").output)
    assert {"scheduler", "worker"} == {machine["role"] for machine in shown["machines"]}
    [worker] = [machine for machine in shown["machines"] if machine["role"] == "worker"]
    assert [*cluster.workers] == [worker["id"]]
    assert ("running", "on-demand", "process", 0.0) == tuple(
        worker[name] for name in ("state", "market", "kind", "spent")
    )
    assert (cluster.identity.expires, cluster.identity.owner) == (shown["expires"], shown["owner"])


@pytest.mark.parametrize("command", ["show", "logs", "open", "scale shwn 1", "down --yes", "sweep --yes"])
def test_nearest_name(run, cluster, command):
    """A name that does not exist is refused with the nearest that does, wherever a name is taken."""
    first, *more = command.split()
    result = run(first, *([] if "shwn" in more else ["shwn"]), *more, *LOCAL)
    assert 3 == result.exit_code
    assert "No cluster 'shwn' runs in local; did you mean 'shown'?" in result.stderr


def test_impossible_name(run):
    """A name that no cluster can have is refused before any cloud is asked."""
    result = run("show", "Not a name")
    assert (2, True) == (result.exit_code, "ConfigError: name='Not a name'" in result.output)


# -- logs --------------------------------------------------------------------------------------------------


def test_logs(run, cluster):
    """The logs of every live machine are shown."""
    output = run("logs", "shown", *LOCAL).output
    assert cluster.scheduler_machine.id in output
    assert all(worker in output for worker in cluster.workers)


def test_logs_of_one_machine(run, cluster):
    """One machine's last lines are shown, as many as asked for, also for programs."""
    [worker] = cluster.workers
    output = run("logs", "shown", "--machine", worker, "--lines", "2", *LOCAL, "--json").output
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(worker, "worker")] * 2 == [(line["machine"], line["role"]) for line in lines]


def test_logs_of_a_dead_machine(run, cluster):
    """What a machine wrote can be read after its end."""
    [worker] = cluster.workers
    cluster.provider.create(cluster.provider.boot("worker"), 1)  # without a scheduler's address it ends
    dead = until(lambda: _dead(cluster, worker), 30, "the machine has ended")
    output = run("logs", "shown", "--machine", dead, *LOCAL).output
    assert f"== worker, ended {dead}" in output
    assert 2 <= len(output.splitlines())
    everything = run("logs", "shown", *LOCAL).output
    assert everything.index(f"== worker, ended {dead}") < everything.index(f"== worker {worker}")
    shown = json.loads(run("show", "shown", *LOCAL, "--json").output)
    why = next(machine["why"] for machine in shown["ended"] if machine["id"] == dead)
    assert why.startswith(f"Worker {dead} (process, on-demand, local) ended after ")
    assert "it said" in why
    assert why in " ".join(run("show", "shown", *LOCAL).output.split())


def test_logs_of_an_unknown_machine(run, cluster):
    """A machine that there is not is refused with the nearest; the beginning of an id is enough."""
    [worker] = cluster.workers
    unknown = run("logs", "shown", "--machine", f"{worker}x", *LOCAL)
    assert (3, True) == (unknown.exit_code, f"did you mean '{worker}'" in unknown.stderr)
    assert f"== worker {worker}" in run("logs", "shown", "--machine", worker[:-1], *LOCAL).output
    assert 3 == run("logs", "shown", "--machine", "local-", *LOCAL).exit_code


def _dead(cluster, other):
    home = cluster.config.root / "shown"
    ids = {path.stem for path in (home / "machines").glob("*.json")}
    return next(iter(ids - {machine.id for machine in cluster.provider.list("shown")} - {other}), None)


def test_logs_follow_until_nothing_runs(directory, left):
    """Following goes on with what is written later, and ends when the cluster has."""
    environ = {**os.environ, "DASK_CLOUD__LOCAL__DIRECTORY": directory}
    [scheduler] = left.list("left")
    with dask_cloud("logs", "left", *LOCAL, "--follow", env=environ) as following:
        assert f"== scheduler {scheduler.id}" == following.stdout.readline().strip()
        until(lambda: left.logs(scheduler.id), 30, "it has written something")
        left.delete([scheduler.id])
        said = following.stdout.read()  # communicate() would lose what came in one piece with the first line
    assert 0 == following.returncode
    assert left.logs(scheduler.id).splitlines() == said.splitlines()


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("abc", "bcd", "d"),
        ("aaa", "aaaa", "a"),
        ("abc", "xyz", "xyz"),
        ("ab", "", ""),
    ],
)
def test_fresh_lines(before, now, new):
    """What is new in a log is what comes after what was seen of it."""
    assert list(new) == list(fresh(list(before), list(now)))


# -- open --------------------------------------------------------------------------------------------------


def test_open(directory, cluster):
    """The dashboard is served on loopback until Ctrl-C, and the cluster is then as it was."""
    environ = {**os.environ, "DASK_CLOUD__LOCAL__DIRECTORY": directory}
    opened = dask_cloud("open", "shown", *LOCAL, "--no-browser", "--json", env=environ)
    url = json.loads(opened.stdout.readline())["url"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=30) as page:
        assert 200 == page.status
    opened.send_signal(signal.SIGINT)
    _, said = opened.communicate(timeout=60)
    assert (0, False) == (opened.returncode, "Traceback" in said)
    assert {*cluster.workers, cluster.scheduler_machine.id} == {m.id for m in cluster.provider.list("shown")}


def test_open_until_the_cluster_ends(directory, left):
    """Where there is no cluster any more no page is served, which is said."""
    environ = {**os.environ, "DASK_CLOUD__LOCAL__DIRECTORY": directory}
    opened = dask_cloud("open", "left", *LOCAL, "--no-browser", env=environ)
    assert opened.stdout.readline().startswith("http://127.0.0.1:")
    left.sweep("left")
    _, said = opened.communicate(timeout=60)
    assert (1, True) == (opened.returncode, "Error: Cluster 'left' has ended." in said)


def test_open_what_is_not_served(run, cluster):
    """Jupyter of a cluster that has none is refused, with how to have it."""
    result = run("open", "shown", "jupyter", "--no-browser", *LOCAL)
    assert (1, True) == (result.exit_code, "jupyter=True" in result.output)


# -- scale, down, sweep ------------------------------------------------------------------------------------


def test_scale(run, left):
    """A cluster that somebody left is scaled up and down, and runs on."""
    result = run("scale", "left", "1", *LOCAL, "--json")
    assert 0 == result.exit_code, result.output
    assert {"cluster": "left", "asked": 1, "before": 0, "workers": 1} == json.loads(result.stdout)
    assert ["scheduler", "worker"] == sorted(machine.role for machine in left.list("left"))
    assert "has 0 workers; before it had 1" in run("scale", "left", "0", *LOCAL).output
    assert ["scheduler"] == [machine.role for machine in left.list("left")]


def test_down(run, directory, left):
    """A cluster is ended after a yes, with nothing left; without one, or where nobody can be asked, it runs on."""
    unasked = run("down", "left", *LOCAL)
    assert (8, True) == (
        unasked.exit_code,
        "End 1 machine of left on local: this takes --yes" in unasked.stderr,
    )
    assert (8, 1) == (typed("n\n", "down", "left", *LOCAL, directory=directory), len(left.list("left")))
    result = run("down", "left", *LOCAL, "--yes")
    assert 0 == result.exit_code, result.output
    assert "Closed ProcessCluster 'left'" in result.output
    assert not (left.config.root / "left").exists()


def test_down_without_its_scheduler(run, left):
    """A cluster whose scheduler has died is ended by the API, which is said."""
    [scheduler] = left.list("left")
    address = f"tls://{scheduler.private_address}:8786"
    left.create(dataclasses.replace(left.boot("worker"), scheduler=address), 1)
    left.delete([scheduler.id])
    assert "no scheduler" in run("list", *LOCAL).stdout
    result = run("down", "left", *LOCAL, "--yes", "--json")
    assert 0 == result.exit_code, result.output
    assert not json.loads(result.stdout)["asked"]
    assert "API alone" in result.stderr
    assert [] == left.list("left")


def test_sweep(run, directory, left):
    """A sweep says first what would go, ends after a yes a cluster that somebody left, and says what it removed."""
    said = run("sweep", "left", *LOCAL, "--json")
    assert (8, [1], [""]) == (said.exit_code, *columns_of(said, ("machines", len), ("in_use", str)))
    unasked = run("sweep", "left", *LOCAL)
    assert (8, True) == (unasked.exit_code, "left  local  1 machine" in unasked.stdout)
    assert 1 == len(left.list("left"))
    assert 0 == typed("y\n", "sweep", "left", *LOCAL, directory=directory)
    assert [] == left.list("left")


def test_sweep_refuses_what_is_in_use(run, cluster):
    """A cluster whose scheduler has a manager, a client or work is not swept, unless by force."""
    led = run("sweep", "shown", *LOCAL, "--yes")
    assert (7, True) == (led.exit_code, "led by" in led.stdout)
    with cluster.get_client() as client:
        working = client.submit(time.sleep, 600)
        until(lambda: any(client.processing().values()), 30, "it computes")
        result = run("sweep", "shown", *LOCAL, "--yes")
        forced = run("sweep", "shown", *LOCAL, "--force", "--json")
        working.cancel()
    assert (7, True) == (result.exit_code, "shown in use; --force" in result.stderr)
    assert "1 client, has work" in result.stdout
    assert (8, "") == (forced.exit_code, json.loads(forced.stdout)[0]["in_use"])
    assert 2 == len(cluster.provider.list("shown"))


def test_sweep_of_what_cannot_be_asked(run, left):
    """A cluster whose scheduler nobody can ask is in use until its lease is over, unless by force."""
    secrets = make_secrets(left.identity)  # other keys
    home = left.config.root / "left"
    (home / "client.secret").write_text(secrets.client)
    refused = run("sweep", "left", *LOCAL, "--yes")
    assert (7, 1) == (refused.exit_code, len(left.list("left")))
    assert "Whether left is in use could not be asked: What answers at" in refused.stderr
    assert "maybe: its lease is not over" in refused.stdout
    tags = json.loads((home / "tags.json").read_text())
    (home / "tags.json").write_text(json.dumps({**tags, "dask-expires": str(int(time.time()) - 60)}))
    over = run("sweep", "left", *LOCAL, "--yes")
    assert (0, True) == (over.exit_code, "Ended 1 machine and removed 1 resource." in over.stdout), (
        over.output
    )
    assert [] == left.list("left")


def test_sweep_by_age(run, cluster):
    """Running clusters are swept by their age, only those that are older."""
    young = run("sweep", "--older-than", "2h", *LOCAL, "--yes")
    assert (0, 2) == (young.exit_code, len(cluster.provider.list("shown")))
    said = json.loads(run("sweep", "--older-than", "0s", *LOCAL, "--json").output)
    assert "shown" in [target["cluster"] for target in said]


def test_sweep_of_the_expired(run, directory):
    """Without a name, what expired clusters left is swept, and nothing of others."""
    leftover(directory, "past", expires=int(time.time()) - 60)
    leftover(directory, "future")
    [said] = json.loads(run("sweep", *LOCAL, "--json").output)
    assert ("past", []) == (said["cluster"], said["machines"])
    assert "removed 1 resource." in run("sweep", *LOCAL, "--yes").output
    assert "nothing to sweep" in run("sweep", *LOCAL).output
    assert "removed 1 resource." in run("sweep", "future", *LOCAL, "--yes").output


def test_another_version(run, left):
    """A cluster whose records another version wrote is listed and ended; what needs them says so in a sentence."""
    boot = left.config.root / "left" / "worker.boot"
    boot.write_text(json.dumps({**json.loads(boot.read_text()), "version": 99}))
    assert "left" in run("list", *LOCAL).stdout
    scaled = run("scale", "left", "1", *LOCAL)
    assert (1, True) == (scaled.exit_code, "made by another version of dask-cloud" in scaled.stderr)
    assert "another version" in run("show", "left", *LOCAL).stdout
    ended = run("down", "left", *LOCAL, "--yes")
    assert (0, []) == (ended.exit_code, left.list("left")), ended.output


def test_task_definition_of_another_version():
    """A task definition of which another version wrote the label is no reason to list nothing."""
    definition = {"containerDefinitions": [{"dockerLabels": {PLACED: '{"landing": "{}"}'}}]}
    assert "" == place_of(definition)


# -- completion --------------------------------------------------------------------------------------------


def test_completion(run, cluster):
    """A shell completes commands, and the names of running clusters."""
    asked = {"_DASK_CLOUD_COMPLETE": "bash_complete"}
    commands = run(prog_name="dask-cloud", env={**asked, "COMP_WORDS": "dask-cloud s", "COMP_CWORD": "1"})
    assert {"plain,scale", "plain,show", "plain,sweep"} == set(commands.output.split())
    names = run(prog_name="dask-cloud", env={**asked, "COMP_WORDS": "dask-cloud show sh", "COMP_CWORD": "2"})
    assert ["plain,shown"] == names.output.split()


# -- on a cloud --------------------------------------------------------------------------------------------


def test_whole_life_on_fargate(run, emulated_aws):
    """A cluster on Fargate is found without being told where, with its price; scaled, and ended to the last."""
    FargateCluster(name="afar", n_workers=1, spot=True, **SMALL).detach()
    shown = json.loads(run("show", "afar", "--json").stdout)
    assert ("fargate", "USD") == (shown["cloud"], shown["cost"]["currency"])
    assert {"scheduler": "on-demand", "worker": "spot"} == {m["role"]: m["market"] for m in shown["machines"]}
    assert all(machine["spent"] > 0 and machine["zone"] for machine in shown["machines"])
    assert shown["cost"]["per_hour"] > 0

    assert (20 * 60, 0, False) == (shown["leases"]["idle"], len(shown["clients"]), shown["working"])
    assert any("scheduler" in moment["what"] for moment in shown["timeline"])

    people = run("show", "afar").stdout
    assert 80 >= max(len(line) for line in people.splitlines() if "https://" not in line)
    assert "1 worker: 0.25 vCPU, 0.5 GiB, X86_64, spot" in people
    assert "It ends after 20 min without work, 10 min without client and work" in people
    assert "dask-cloud-runtime" in run("logs", "afar").stdout

    assert 2 == json.loads(run("scale", "afar", "2", "--json").stdout)["workers"]
    assert 3 == len(running(emulated_aws))
    ended = run("down", "afar", "--yes")
    assert 0 == ended.exit_code, ended.output
    assert "Closed FargateCluster 'afar': $" in ended.stdout
    assert nothing_left(emulated_aws)

    after = run("show", "afar").stdout
    assert "has ended: none of its machines runs" in after
    assert "3 machines ended" in after
    assert 3 == " ".join(after.split()).count(" ended after ")
    assert "== scheduler, ended" in run("logs", "afar", "--lines", "1").stdout


def test_clouds_side_by_side(run, emulated_aws, cluster):
    """Clusters of all clouds are listed together; one on EC2 is shown with its price, and swept to the last."""
    EC2Cluster(name="abroad", **MACHINES).detach()
    rows = json.loads(run("list", "--json").stdout)
    assert [("abroad", "ec2"), ("shown", "local")] == [(row["cluster"], row["cloud"]) for row in rows]
    [scheduler] = json.loads(run("show", "abroad", "--json").stdout)["machines"]
    assert ("c7i.large", True) == (scheduler["kind"], scheduler["spent"] > 0)
    boto3.client("ssm").put_parameter(
        Name=parameter("abroad", plan_part(0)), Value="e30=", Type="SecureString", Overwrite=True
    )
    boto3.client("ec2").delete_tags(
        Resources=[scheduler["id"]], Tags=[{"Key": "dask-expires"}, {"Key": "dask-group"}]
    )
    assert "another version" in " ".join(run("show", "abroad").stdout.split())
    assert [None] == [row["expires"] for row in json.loads(run("list", "--cloud", "ec2", "--json").stdout)]
    assert 7 == run("sweep", "abroad", "--yes").exit_code
    swept = run("sweep", "abroad", "--force", "--yes")
    assert (0, True) == (swept.exit_code, "Ended 1 machine and" in swept.output), swept.output
    assert nothing_left(emulated_aws)


@pytest.mark.parametrize("vendor", ["gcp", pytest.param("azure", marks=pytest.mark.slow)])
def test_emulate(vendor, run, monkeypatch):
    """The embedded clouds serve until Ctrl-C, and say how to use them; the command line then lists their clusters."""
    served = dask_cloud("emulate", vendor, "--engine", "none", "--profile", "instant", "--json")
    said = json.loads(served.stdout.readline())
    assert (vendor, True) == (said["cloud"], said["url"].startswith("http://127.0.0.1:"))
    for name, value in said["environment"].items():
        monkeypatch.setenv(name, value)
    assert [] == json.loads(run("list", "--cloud", vendor, "--json").stdout)
    if vendor == "gcp":
        assert not {"google.cloud.compute_v1", "boto3", "azure.core", "distributed"} & imported()
        forgotten(run)
    served.send_signal(signal.SIGINT)
    served.communicate(timeout=30)
    assert 0 == served.returncode


def forgotten(run):
    """A cloud that forgets machines at once knows from its operations which there were, and that they ended."""
    small = {"instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}
    config = GCPConfig.of(name="bygone", allow_from="127.0.0.1/32", **small)
    provider = GCEProvider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
    provider.delete([scheduler.id])
    until(lambda: not provider.list("bygone"), 30, "the machine is gone")
    shown = run("show", "bygone", "--cloud", "gcp")
    assert 0 == shown.exit_code, shown.output
    assert "Cluster bygone on gcp, made by" in shown.stdout
    assert f"Scheduler {scheduler.id} ({scheduler.zone}) ended: deleted." in " ".join(shown.stdout.split())
