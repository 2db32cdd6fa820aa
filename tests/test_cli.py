"""`dask cloud ...`: what is shown, what it does, and how it fails."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest
from click.testing import CliRunner
from contract import until
from embedded import SMALL, nothing_left, running

from cloudprovider import EC2Cluster, FargateCluster, ProcessCluster, discovery, templates
from cloudprovider.cli import COMMANDS, cloud
from cloudprovider.cli.logs import fresh
from cloudprovider.cli.offline import POLICIES
from cloudprovider.cli.text import columns, length
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
        output = run(*command, color=True).output
        assert "\x1b" not in output
        assert 80 >= max(map(len, output.splitlines()))


def test_classes_of_every_cloud():
    """The table with which the command line goes past the cluster classes agrees with them."""
    for name, row in discovery.CLOUDS.items():
        cls = discovery.cluster_class(name)
        assert isinstance(discovery.provider(name), cls.provider_class)
        assert cls.config_class is getattr(importlib.import_module(row.module), row.config)


def test_error_is_one_message(run, emulated_aws):
    """What a cloud refuses is one message and exit code 1, not a traceback."""
    with emulated_aws.inject("expired-credentials"):
        result = run("list", *FARGATE)
    assert 1 == result.exit_code
    assert "Error: CredentialsError" in result.output


def test_cloud_that_cannot_be_asked(run, emulated_aws, cluster):
    """A cloud that nobody named and that refuses is mentioned; the others are listed all the same."""
    with emulated_aws.inject("expired-credentials"):
        result = run("list", "--json")
    assert 0 == result.exit_code
    assert "fargate is left out. CredentialsError" in result.stderr
    assert ["shown"] == [row["cluster"] for row in json.loads(result.stdout)]


def test_wrong_region_is_no_empty_list(run, emulated_aws):
    """A region that there is not is an error, though no cloud was named."""
    result = run("list", "--region", "eu-centrall-1")
    assert (1, True) == (result.exit_code, "did you mean 'eu-central-1'" in result.output)


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


def test_list_is_light(emulated_aws):
    """Listing all clouds imports no `distributed`, and neither an emulator's server nor a table's drawing."""
    code = (
        "import sys\nfrom cloudprovider.cli import cloud\n"
        "try:\n    cloud(['list'])\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, code, modules = done.stdout.splitlines()
    assert "0" == code
    assert {"boto3", "cloudprovider"} <= set(modules.split())
    assert not {"distributed", "tornado", "moto", "flask", "rich", "cryptography"} & set(modules.split())


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


@pytest.mark.parametrize("command", [("show",), ("logs",), ("open",), ("down", "--yes"), ("sweep", "--yes")])
def test_nearest_name(run, cluster, command):
    """A name that does not exist is refused with the nearest that does."""
    result = run(command[0], "shwn", *command[1:], *LOCAL)
    assert 1 == result.exit_code
    assert "No cluster 'shwn' runs in local; did you mean 'shown'?" in result.output


def test_impossible_name(run):
    """A name that no cluster can have is refused before any cloud is asked."""
    result = run("show", "Not a name")
    assert (1, True) == (result.exit_code, "ConfigError: name='Not a name'" in result.output)


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
    assert f"== ended {dead}" in output
    assert 2 <= len(output.splitlines())


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
    assert (1, True) == (opened.returncode, "Error: CloudError: Cluster 'left' has ended." in said)


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


def test_down(run, left):
    """A cluster is ended after a yes, with nothing left; without one it runs on."""
    refused = run("down", "left", *LOCAL, input="n\n")
    assert (1, 1) == (refused.exit_code, len(left.list("left")))
    result = run("down", "left", *LOCAL, input="y\n")
    assert 0 == result.exit_code, result.output
    assert "Closed ProcessCluster 'left'" in result.output
    assert not (left.config.root / "left").exists()


def test_down_without_its_scheduler(run, left):
    """A cluster whose scheduler has died is ended by the API, which is said."""
    [scheduler] = left.list("left")
    address = f"tls://{scheduler.private_address}:8786"
    left.create(dataclasses.replace(left.boot("worker"), scheduler=address), 1)
    left.delete([scheduler.id])
    result = run("down", "left", *LOCAL, "--yes", "--json")
    assert 0 == result.exit_code, result.output
    assert not json.loads(result.stdout)["asked"]
    assert "the API alone" in result.stderr
    assert [] == left.list("left")


def test_sweep_says_first_what_would_go(run, cluster):
    """Without a yes nothing ends; as JSON it is only said."""
    result = run("sweep", "shown", *LOCAL)
    assert (1, True) == (result.exit_code, "2 machines" in result.output)
    [said] = json.loads(run("sweep", "shown", *LOCAL, "--json").output)
    assert ("shown", 2, "") == (said["cluster"], len(said["machines"]), said["in_use"])
    assert 2 == len(cluster.provider.list("shown"))


def test_sweep(run, left):
    """A sweep ends a cluster that somebody left, and says what it removed."""
    result = run("sweep", "left", *LOCAL, "--yes")
    assert 0 == result.exit_code, result.output
    assert "Ended 1 machine and removed 1 resource." in result.output
    assert [] == left.list("left")


def test_sweep_refuses_what_is_in_use(run, cluster):
    """A cluster whose scheduler has a client or work is not swept, unless by force."""
    with cluster.get_client() as client:
        working = client.submit(time.sleep, 600)
        until(lambda: any(client.processing().values()), 30, "it computes")
        result = run("sweep", "shown", *LOCAL, "--yes")
        forced = run("sweep", "shown", *LOCAL, "--force", "--json")
        working.cancel()
    assert (1, True) == (result.exit_code, "shown in use; --force" in result.output)
    assert "1 client, has work" in result.output
    assert "" == json.loads(forced.stdout)[0]["in_use"]
    assert 2 == len(cluster.provider.list("shown"))


def test_sweep_of_what_cannot_be_asked(run, left):
    """That nobody could ask a scheduler is said, and does not keep its cluster."""
    secrets = make_secrets(left.identity)  # other keys
    (left.config.root / "left" / "client.secret").write_text(secrets.client)
    result = run("sweep", "left", *LOCAL, "--yes")
    assert 0 == result.exit_code, result.output
    assert "Whether left is in use could not be asked: What answers at" in result.stderr
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


# -- on a cloud --------------------------------------------------------------------------------------------


def test_whole_life_on_fargate(run, emulated_aws):
    """A cluster on Fargate is found without being told where, with its price; scaled, and ended to the last."""
    FargateCluster(name="afar", n_workers=1, spot=True, **SMALL).detach()
    shown = json.loads(run("show", "afar", "--json").stdout)
    assert ("fargate", "USD") == (shown["cloud"], shown["cost"]["currency"])
    assert {"scheduler": "on-demand", "worker": "spot"} == {m["role"]: m["market"] for m in shown["machines"]}
    assert all(machine["spent"] > 0 and machine["zone"] for machine in shown["machines"])
    assert shown["cost"]["per_hour"] > 0

    people = run("show", "afar").stdout
    assert 80 >= max(map(len, people.splitlines()))
    assert "1 worker: 0.25 vCPU, 0.5 GiB, X86_64, spot" in people
    assert "dask-cloud-runtime" in run("logs", "afar").stdout

    assert 2 == json.loads(run("scale", "afar", "2", "--json").stdout)["workers"]
    assert 3 == len(running(emulated_aws))
    ended = run("down", "afar", "--yes")
    assert 0 == ended.exit_code, ended.output
    assert "Closed FargateCluster 'afar': $" in ended.stdout
    assert nothing_left(emulated_aws)


def test_clouds_side_by_side(run, emulated_aws, cluster):
    """Clusters of all clouds are listed together; one on EC2 is shown with its price, and swept to the last."""
    EC2Cluster(name="abroad", **MACHINES).detach()
    rows = json.loads(run("list", "--json").stdout)
    assert [("abroad", "ec2"), ("shown", "local")] == [(row["cluster"], row["cloud"]) for row in rows]
    [scheduler] = json.loads(run("show", "abroad", "--json").stdout)["machines"]
    assert ("c7i.large", True) == (scheduler["kind"], scheduler["spent"] > 0)
    swept = run("sweep", "abroad", "--yes")
    assert (0, True) == (swept.exit_code, "Ended 1 machine and" in swept.output), swept.output
    assert nothing_left(emulated_aws)


@pytest.mark.parametrize("vendor", ["gcp", "azure"])
def test_emulate(vendor):
    """The embedded clouds serve until Ctrl-C, and say how to use them; the command line then lists their clusters."""
    served = dask_cloud("emulate", vendor)
    endpoint = served.stdout.readline().strip()
    assert endpoint.startswith("http://127.0.0.1:")
    environ = dict(os.environ)
    for line in served.stdout:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            environ[name] = value
        if line.startswith("export no_proxy"):
            break
    listing = dask_cloud("list", "--cloud", vendor, "--json", env=environ)
    assert [] == json.loads(listing.communicate(timeout=60)[0])
    served.send_signal(signal.SIGINT)
    served.communicate(timeout=30)
    assert 0 == served.returncode


# -- price -------------------------------------------------------------------------------------------------

QUOTE = (
    "price", "fargate", "--n-workers", "10", "--worker-cpu", "4", "--worker-memory", "16 GiB",
    "--region", "eu-central-1",
)  # fmt: skip


def test_price_of_fargate(run):
    """A Fargate cluster's price is that of its scheduler and workers by the table, dated."""
    quote = json.loads(run(*QUOTE, "--json").output)
    assert quote["per_hour"] == pytest.approx(sum(line["per_hour"] for line in quote["machines"]))
    assert {("scheduler", 1), ("worker", 10)} == {(m["role"], m["machines"]) for m in quote["machines"]}
    assert f"by prices of {quote['date']}" in run(*QUOTE).output


def test_price_of_spot(run):
    """Spot is cheaper, for the workers alone."""
    prices = [json.loads(run(*QUOTE, *more, "--json").output) for more in ((), ("--spot",))]
    steady, spot = ({m["role"]: m["per_hour"] for m in one["machines"]} for one in prices)
    assert steady["scheduler"] == spot["scheduler"]
    assert steady["worker"] > spot["worker"] > 0


def test_price_of_what_is_not_sold(run):
    """A size, a type or a region that there is not is refused with the nearest."""
    size = run("price", "fargate", "--worker-cpu", "3", "--region", "us-east-1")
    kind = run("price", "ec2", "--instance-type", "m7i.xlrge", "--region", "us-east-1")
    region = run("price", "ec2", "--region", "us-eest-1")
    assert [1, 1, 1] == [result.exit_code for result in (size, kind, region)]
    for said, result in (("4 vCPU with 8 GiB", size), ("'m7i.xlarge'", kind), ("'us-east-1'", region)):
        assert said in result.output


def test_price_of_ec2(run):
    """A named type is priced with its disk and address, and the scheduler with a type that fits it."""
    named = ("price", "ec2", "--instance-type", "m7i.xlarge", "--region", "us-east-1", "--n-workers", "2")
    quote = json.loads(run(*named, "--disk-size", "30", "--json").output)
    worker = next(line for line in quote["machines"] if line["role"] == "worker")
    assert ("m7i.xlarge, 30 GiB disk", 2) == (worker["kind"], worker["machines"])
    assert 2 * 0.2099 == pytest.approx(worker["per_hour"], abs=0.0002)
    private = json.loads(run(*named, "--private", "--json").output)
    assert "public IPv4" not in private["parts"]


@pytest.mark.parametrize(
    ("command", "machines", "parts"),
    [
        (
            ("gcp", "--region", "europe-west4", "--instance-type", "n2-standard-4", "--n-workers", "2"),
            [(1, "e2-standard-2, 10 GiB disk"), (2, "n2-standard-4, 10 GiB disk")],
            {"machine", "disk", "public IPv4"},
        ),
        (
            (
                "gcp", "--region", "us-central1", "--gpu", "1", "--gpu-type", "nvidia-tesla-t4", "--cpu", "4",
                "--memory", "15 GiB", "--scheduler-instance-type", "e2-standard-4",
            ),
            [(1, "e2-standard-4, 10 GiB disk"), (1, "n1-standard-4, 10 GiB disk")],
            {"machine", "disk", "public IPv4", "nvidia-tesla-t4 GPUs"},
        ),
        (
            ("azure", "--region", "westeurope", "--instance-type", "Standard_D4s_v5", "--spot"),
            [(1, "Standard_D2als_v7, 30 GiB disk"), (1, "Standard_D4s_v5, 30 GiB disk")],
            {"machine", "disk", "public IPv4"},
        ),
        (
            ("azure", "--region", "eastus", "--gpu", "2", "--n-workers", "8", "--private"),
            [(1, "Standard_D2als_v7, 30 GiB disk"), (2, "Standard_NC64as_T4_v3, 30 GiB disk")],
            {"machine", "disk"},
        ),
    ],
)  # fmt: skip
def test_price_of_other_clouds(run, command, machines, parts):
    """What is named is priced, and what is not is the cheapest that fits; a worker has each of a machine's GPUs."""
    quote = json.loads(run("price", *command, "--json").output)

    assert machines == [(one["machines"], one["kind"]) for one in quote["machines"]]
    assert parts == set(quote["parts"])
    assert [] == quote["unknown"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("gcp", "--region", "us-central"), "no region 'us-central'; did you mean 'us-central1'"),
        (
            ("gcp", "--region", "us-central1", "--instance-type", "n2-standrd-4"),
            "did you mean 'n2-standard-4'",
        ),
        (("azure", "--region", "westeurop"), "no region 'westeurop'; did you mean 'westeurope'"),
        (("azure", "--region", "westeurope", "--cpu", "9999"), "no x86_64 size with 9999 vCPU"),
    ],
)
def test_price_of_what_other_clouds_do_not_have(run, command, words):
    """A wrong region or type is refused with the nearest right one."""
    result = run("price", *command)

    assert (1, True) == (result.exit_code, words in result.output)


def test_price_nobody_knows(run):
    """A spot machine's price, of which there is no table, is unknown and never nothing."""
    result = run("price", "ec2", "--instance-type", "m7i.xlarge", "--spot", "--region", "us-east-1")
    assert (0, True) == (result.exit_code, "at least $" in result.output)
    assert "Its price is unknown, so it is not in it: spot m7i.xlarge machines in us-east-1" in result.output


def test_price_needs_no_credentials():
    """A price is said with neither credentials nor a network."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    priced = dask_cloud(*QUOTE, env={**environ, "https_proxy": "http://127.0.0.1:9"})
    said, _ = priced.communicate(timeout=60)
    assert (0, True) == (priced.returncode, "10 workers" in said)


# -- policy ------------------------------------------------------------------------------------------------


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
    allowed = {"aws": "Statement", "azure": "Actions", "gcp": "includedPermissions"}
    for name in POLICIES:
        assert json.loads(run("policy", name).output)[allowed[name.partition("-")[0]]]


# -- text --------------------------------------------------------------------------------------------------


def test_columns():
    """Columns are as wide as their longest cell, and no line ends in blanks."""
    assert ["  a    bb", "  ccc   d"] == columns([("a", "bb"), ("ccc", "d")], right={1}, indent=2)
    assert [] == columns([])


def test_length():
    """A length of time is as short as it can be said."""
    said = [length(seconds) for seconds in (-1, 59, 3599, 3600, 90_000)]
    assert ["0 s", "59 s", "59 min", "1 h 00 min", "1 d 01 h"] == said
