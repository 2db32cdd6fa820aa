"""`dask cloud ...` where no cloud is asked: prices, policies, templates, exit codes, completion, and its reference."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cloudprovider import errors, templates
from cloudprovider.cli import COMMANDS, cloud, plain_errors
from cloudprovider.cli.asking import in_words
from cloudprovider.cli.codes import CODES, Code, code_of
from cloudprovider.cli.text import columns, length, strong, wrapped

ROOT = Path(__file__).parent.parent


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cloud, arguments)


# -- price -------------------------------------------------------------------------------------------------

QUOTE = (
    "price", "fargate", "--n-workers", "10", "--worker-cpu", "4", "--worker-memory", "16 GiB",
    "--region", "eu-central-1",
)  # fmt: skip


def test_price_of_fargate():
    """A Fargate cluster's price is that of its scheduler and workers by the table, dated."""
    quote = json.loads(run(*QUOTE, "--json").output)
    assert quote["per_hour"] == pytest.approx(sum(line["per_hour"] for line in quote["machines"]))
    assert {("scheduler", 1), ("worker", 10)} == {(m["role"], m["machines"]) for m in quote["machines"]}
    assert f"by prices of {quote['date']}" in run(*QUOTE).output


def test_price_of_spot():
    """Spot is cheaper, for the workers alone."""
    prices = [json.loads(run(*QUOTE, *more, "--json").output) for more in ((), ("--spot",))]
    steady, spot = ({m["role"]: m["per_hour"] for m in one["machines"]} for one in prices)
    assert steady["scheduler"] == spot["scheduler"]
    assert steady["worker"] > spot["worker"] > 0


def test_price_of_what_is_not_sold():
    """A size, a type or a region that there is not is refused with the nearest."""
    size = run("price", "fargate", "--worker-cpu", "3", "--region", "us-east-1")
    kind = run("price", "ec2", "--instance-type", "m7i.xlrge", "--region", "us-east-1")
    region = run("price", "ec2", "--region", "us-eest-1")
    assert [2, 2, 2] == [result.exit_code for result in (size, kind, region)]
    for said, result in (("4 vCPU with 8 GiB", size), ("'m7i.xlarge'", kind), ("'us-east-1'", region)):
        assert said in result.output


def test_price_of_ec2():
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
def test_price_of_other_clouds(command, machines, parts):
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
def test_price_of_what_other_clouds_do_not_have(command, words):
    """A wrong region or type is refused with the nearest right one."""
    result = run("price", *command)

    assert (2, True) == (result.exit_code, words in result.output)


def test_price_nobody_knows():
    """A spot machine's price, of which there is no table, is unknown and never nothing."""
    result = run("price", "ec2", "--instance-type", "m7i.xlarge", "--spot", "--region", "us-east-1")
    assert (0, True) == (result.exit_code, "at least $" in result.output)
    assert "Its price is unknown, so it is not in it: spot m7i.xlarge machines in us-east-1" in result.output


def test_price_needs_no_credentials():
    """A price is said with neither credentials nor a network."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    command = [sys.executable, "-c", "from cloudprovider.cli import cloud; cloud()", *QUOTE]
    nowhere = {**environ, "https_proxy": "http://127.0.0.1:9"}
    priced = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=60, check=False)
    assert (0, True) == (priced.returncode, "10 workers" in priced.stdout)


# -- text --------------------------------------------------------------------------------------------------


def test_columns():
    """Columns are as wide as their longest cell, and no line ends in blanks."""
    assert ["  a    bb", "  ccc   d"] == columns([("a", "bb"), ("ccc", "d")], right={1}, indent=2)
    assert [] == columns([])


def test_length():
    """A length of time is as short as it can be said."""
    said = [length(seconds) for seconds in (-1, 59, 3599, 3600, 90_000)]
    assert ["0 s", "59 s", "59 min", "1 h 00 min", "1 d 01 h"] == said


def test_bold_only_where_it_is_shown(monkeypatch):
    """Nothing but a line in bold is marked up, and nothing where the user wants no colour."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert click.style("a", bold=True) == strong("a")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "a" == strong("a")


def test_prose():
    """Prose is 80 columns wide, links stay whole, and what follows stands further in."""
    link = f"https://example.com/{'a' * 70}"
    said = wrapped([f"{'word ' * 20}us-east-1 {link}"], indent=2)
    assert f"    {link}" in said
    assert [True] * 2 == [80 >= len(line) for line in said if link not in line]


# -- exit codes --------------------------------------------------------------------------------------------


def test_every_error_has_its_code():
    """Each kind of error ends a command with its own code, and every code has its meaning."""
    kinds = {
        errors.CloudError: Code.failed,
        errors.ConfigError: Code.wrong,
        errors.CredentialsError: Code.rights,
        errors.CapacityError: Code.room,
        errors.QuotaError: Code.room,
        errors.AccessError: Code.unreachable,
        errors.BootError: Code.failed,
        OSError: Code.failed,
    }
    assert kinds == {kind: code_of(kind("x")) for kind in kinds}
    assert set(Code) == set(CODES)


def test_what_a_cluster_is_in_use_for():
    """A client, work, or a manager is a use; the manager on the scheduler's own machine is none."""
    nobody = {"clients": [], "working": False, "lead": None}
    assert "" == in_words(nobody)
    assert "" == in_words({**nobody, "lead": {"who": "itself", "standby": True}})
    assert "led by me" == in_words({**nobody, "lead": {"who": "me", "standby": False}})
    assert "2 clients, has work" == in_words({**nobody, "clients": ["a", "b"], "working": True})


def test_interrupted():
    """Ctrl-C ends a command with the code that shells give it, and without a traceback."""
    with pytest.raises(SystemExit) as end, plain_errors():
        raise KeyboardInterrupt
    assert Code.interrupted == end.value.code


def test_every_command_speaks_json():
    """Each command has `--json`, but for the one that prints nothing else."""
    context = click.Context(cloud)
    commands = {name: cloud.get_command(context, name) for name in COMMANDS}
    group = commands.pop("price")
    commands |= group.commands
    without = {
        name for name, one in commands.items() if "--json" not in {o for p in one.params for o in p.opts}
    }
    assert without <= {"policy"}


# -- templates ---------------------------------------------------------------------------------------------


def test_templates_are_listed_and_written(tmp_path):
    """What the package brings is listed, and a file or a folder of it is written out as it is."""
    names = json.loads(run("template", "--json").stdout)
    assert {"templates/", "templates/policies/", "templates/task-definition.json"} <= set(names)
    assert names == run("template").stdout.splitlines()
    said = json.loads(run("template", "task-definition.json", str(tmp_path), "--json").stdout)
    assert [str(tmp_path / "task-definition.json")] == said["files"]
    assert templates.read("task-definition.json") == (tmp_path / "task-definition.json").read_text()
    assert 0 == run("template", "templates/", str(tmp_path / "all")).exit_code
    written = {path.relative_to(tmp_path / "all").as_posix() for path in (tmp_path / "all").rglob("*.*")}
    assert set(templates.names()) <= written


def test_templates_overwrite_nothing(tmp_path):
    """What is there already stays, unless by force, and then nothing else is written either."""
    (tmp_path / "aws-fargate.json").write_text("mine")
    refused = run("template", "policies", str(tmp_path))
    assert (1, ["aws-fargate.json"]) == (refused.exit_code, [path.name for path in tmp_path.iterdir()])
    assert "aws-fargate.json is there already: --force" in refused.stderr
    assert 0 == run("template", "policies", str(tmp_path), "--force").exit_code
    assert "mine" != (tmp_path / "aws-fargate.json").read_text()


def test_unknown_template(tmp_path):
    """A template that there is not is refused with the nearest, and one without a place with how to say it."""
    result = run("template", "task-defnition.json", str(tmp_path))
    assert (3, True) == (result.exit_code, "did you mean" in result.stderr)
    assert "task-definition.json" in result.stderr
    assert 2 == run("template", "task-definition.json").exit_code


# -- completion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell):
    """Each shell gets its script from the program itself."""
    script = CliRunner().invoke(
        cloud, [], prog_name="dask-cloud", env={"_DASK_CLOUD_COMPLETE": f"{shell}_source"}
    )
    assert (0, True) == (script.exit_code, "_DASK_CLOUD_COMPLETE" in script.output)


# -- the reference -----------------------------------------------------------------------------------------


def test_the_reference_is_up_to_date():
    """`docs/cli.md` is what `docs/generate_cli.py` writes of the commands and of the exit codes."""
    page = ROOT / "docs" / "generate_cli.py"
    spec = importlib.util.spec_from_file_location("generate_cli", page)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = generator.TARGET.read_text("utf-8")
    assert generator.generated() == written, "run docs/generate_cli.py"
    assert all(f"| {code.value} | " in written for code in Code)
