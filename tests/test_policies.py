"""What `dask cloud policy` prints: the shipped policies, as options change them, in each form."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from cloudprovider.cli import cloud
from cloudprovider.errors import ConfigError
from cloudprovider.policies import MOST, NAMES, PROVIDERS, Wanted, document, listed, parted, written

AWS = ("aws-fargate", "aws-ecs", "aws-ec2")
EVERYTHING = {"landing": True, "tunnel": True, "autonomous": True}
ALLOWED = {"aws": "Statement", "azure": "Actions", "gcp": "includedPermissions"}


def run(*arguments):
    """What the command prints."""
    done = CliRunner().invoke(cloud, ["policy", *arguments])
    assert 0 == done.exit_code, done.output
    return done.stdout


def actions(name, **options):
    """All that a policy allows, with its resources."""
    return {
        (action, resource)
        for statement in document(name, Wanted(**options))["Statement"]
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }


@pytest.mark.parametrize("name", [*PROVIDERS, *NAMES])
def test_printed_as_it_is_tested(name):
    """What is printed is the document that the tests of each cloud hold managers to."""
    printed = (
        json.loads(run(name, "--account", "123456789012")) if "azure" not in name else json.loads(run(name))
    )
    wanted = Wanted() if "azure" in name else Wanted(account="123456789012")

    assert document(name, wanted) == printed
    assert printed[ALLOWED[PROVIDERS.get(name, name).partition("-")[0]]]


@pytest.mark.parametrize("name", AWS)
def test_options_change_rights_on_aws(name):
    """Each option adds what it needs, and nothing else; without it there is no trace of it."""
    plain, whole = actions(name), actions(name, **EVERYTHING)
    tunnel = actions(name, tunnel=True) - plain
    autonomous = actions(name, autonomous=True) - plain
    landing = actions(name, landing=True) - plain

    assert {"ssm:StartSession", "ssm:TerminateSession"} <= {action for action, _ in tunnel}
    assert "iam:DeleteRole" in {action for action, _ in autonomous}
    assert {"iam:CreateRole", "logs:CreateLogGroup"} <= {action for action, _ in landing}
    assert plain | tunnel | autonomous | landing <= whole
    assert not re.search(r"dask-tunnel|dask-machine-ssm|StartSession", str(plain))


def test_a_role_of_ones_own_takes_the_place_of_ours():
    """Roles that the user names are handed over, and ours are neither handed over nor looked at."""
    start = "arn:aws:iam::123456789012:role/start"
    fargate = actions("fargate", account="123456789012", role="work", execution_role=start)
    ec2 = actions("ec2", account="123456789012", role="work")

    work = "arn:aws:iam::123456789012:role/work"
    assert {("iam:PassRole", start), ("iam:PassRole", work), ("iam:GetRole", work)} <= fargate
    assert ("iam:PassRole", work) in ec2
    assert not re.search("role/dask-(task|execution|machine)|instance-profile", str(fargate | ec2))


def test_ecs_clusters_of_ones_own():
    """On container instances nothing is asked that only Fargate has, in the ECS cluster that the user names."""
    known = actions("ecs", account="123456789012", region="eu-central-1", ecs_cluster="batch", landing=True)

    assert not {"ecs:DescribeClusters", "ecs:CreateCluster"} & {action for action, _ in known}
    assert ("ecs:StopTask", "arn:aws:ecs:eu-central-1:123456789012:task/batch/*") in known


@pytest.mark.parametrize("name", ["gcp", "azure"])
def test_options_change_roles(name):
    """A role of Google Cloud's or Azure's has the permissions of all that is asked for, once each and in order."""
    key = ALLOWED[name]
    plain, more = document(name)[key], document(name, Wanted(landing=True, tunnel=True))[key]
    added = {one for part in ("landing", "tunnel") for one in document(f"{name}-{part}")[key]}

    assert sorted({*plain, *added}) == more


def test_options_that_change_nothing_are_refused():
    """A part that a policy does not have is an error that names it, and so is a policy that there is not."""
    with pytest.raises(ConfigError, match="--tunnel changes nothing about aws-fargate-execution"):
        document("aws-fargate-execution", Wanted(tunnel=True))
    with pytest.raises(ConfigError, match=r"no policy 'aws'; there are fargate"):
        document("aws")


# -- forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AWS)
def test_policies_fit_iam(name):
    """IAM takes each policy; the rights of all options together are printed as several, with nothing lost."""
    where = {"account": "123456789012", "region": "ap-southeast-2"}
    for options in ({}, {"landing": True}, {"tunnel": True}, {"autonomous": True}):
        assert 1 == len(parted(name, document(name, Wanted(**where, **options))))
    whole = document(name, Wanted(**where, **EVERYTHING))
    parts = parted(name, whole)

    assert whole["Statement"] == [one for part in parts.values() for one in part["Statement"]]
    assert all(len(json.dumps(part, separators=(",", ":"))) <= MOST for part in parts.values())
    assert len(parts) == written(name, whole, "terraform").count('resource "aws_iam_policy"')
    assert len(parts) == written(name, whole, "cli").count("aws iam create-policy")


def test_terraform_of_aws():
    """The resource has the document itself, which HCL reads as it is."""
    text = run("fargate", "--format", "terraform", "--region", "eu-central-1")
    start, _, rest = text.partition("policy = jsonencode(")

    assert 'resource "aws_iam_policy" "dask_aws_fargate"' in start
    assert document("fargate", Wanted(region="eu-central-1")) == json.loads(rest.strip().removesuffix(")\n}"))
    assert "${" not in text


def test_terraform_of_google_cloud():
    """The custom role has every permission, and its project when that is known."""
    text = run("gcp", "--format", "terraform", "--account", "my-project")

    assert 'resource "google_project_iam_custom_role" "dask_gcp"' in text
    assert 'project     = "my-project"' in text
    assert set(document("gcp")["includedPermissions"]) <= set(re.findall(r'"([\w.]+)"', text))


def test_terraform_of_azure():
    """The role definition has every action, on the subscription that is named or the provider's own."""
    subscription = "00000000-0000-4000-8000-000000000000"
    text = run("azure", "--format", "terraform", "--account", subscription)
    other = run("azure", "--format", "terraform")

    assert f'scope       = "/subscriptions/{subscription}"' in text
    assert "data.azurerm_subscription.current.id" in other
    said = document("azure")
    assert {*said["Actions"], *said["DataActions"]} <= set(re.findall(r'"([\w./]+)"', text))


@pytest.mark.parametrize("name", ["ecs", "ec2", "gcp", "azure"])
def test_terraform_is_written_as_terraform_writes_it(name):
    """Terraform reads what is printed, and would format it no other way."""
    if not (terraform := shutil.which("terraform")):
        pytest.skip("Terraform is not installed here.")
    parts = ["--landing", "--tunnel"]
    text = run(name, *parts, "--format", "terraform") + "\n"
    done = subprocess.run(
        [terraform, "fmt", "-diff", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert "" == done.stdout


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("ec2", "aws iam create-policy --policy-name dask-aws-ec2 --policy-document '"),
        ("gcp", "gcloud iam roles create daskGcp --project="),
        ("azure", "az role definition create --role-definition '"),
    ],
)
def test_commands(name, tool):
    """Each cloud's own tool is told the whole of it in one line."""
    [line] = run(name, "--format", "cli").splitlines()

    assert line.startswith(tool)
    assert 2 >= line.count("'") or name == "gcp"


def test_too_long_for_one_policy():
    """JSON that IAM would not take whole is printed, and that it would not is said beside."""
    done = CliRunner().invoke(
        cloud, ["policy", "ec2", "--landing", "--tunnel", "--autonomous", "--region", "us-east-1"]
    )

    assert "2 policies" in done.stderr
    assert json.loads(done.stdout)["Statement"]
