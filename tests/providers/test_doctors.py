"""What a doctor finds in accounts of the embedded clouds, healthy and sick, and that it makes nothing there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from datetime import date, timedelta

import boto3
import pytest
import requests
from click.testing import CliRunner
from embedded import ACCOUNTS, BATCH

from cloudprovider import prices
from cloudprovider.cli import cloud as command_line
from cloudprovider.doctor import Verdict, examine
from cloudprovider.providers import azure, ec2, ecs, gce
from cloudprovider.providers._azure import Azure
from cloudprovider.providers._gcp import GCP
from cloudprovider.security import make_secrets

CLOUDS = ("fargate", "ec2", "gcp", "azure")
VENDORS = ("fargate", "gcp", "azure")
#: The day of each cloud's price table.
TABLES = {name: date.fromisoformat(prices.dated(name)) for name in CLOUDS}
#: What looking takes on AWS beside what starting takes.
READS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ec2:DescribeRouteTables", "ec2:DescribeVpcEndpoints", "iam:SimulatePrincipalPolicy"],
            "Resource": "*",
        }
    ],
}
#: Calls that change nothing, in each cloud's words; sign-in is none of the API's.
READING = re.compile(
    r"(Describe|Get|List|Simulate)\w*"
    r"|token|.*\.(get|list|aggregatedList|getFromFamily|getIamPolicy|testIamPermissions|batchGet)"
    r"|\w+\.(Get|List)\w*"
)
#: The variables with which each cloud's credentials are given.
KEYS = {
    "aws": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "gcp": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "azure": ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
}
NO_IMAGE = "ghcr.io/dask/dask:0-py2.7"
#: Machines without public addresses, reached from a network of one's own.
PRIVATE = {"public": False, "allow_from": "10.0.0.0/8"}


@pytest.fixture(params=CLOUDS)
def account(request, bare_processes):
    """An account of each cloud in turn, as on its first day; its machines are states only."""
    kind = ACCOUNTS[request.param]
    process = bare_processes(kind.emulator)
    process.reset(profile="instant", time_scale=1.0, seed=0)
    with process.active():
        yield kind(process)
        process.clear()


def prepare(provider):
    """Make what a cluster owns before its first machine."""
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    return provider


def only(*names):
    """The accounts of these clouds alone."""
    return pytest.mark.parametrize("account", names, indirect=True)


def findings(account, **options):
    """What the doctor finds on a day on which the price table is fresh."""
    today = TABLES[account.name] + timedelta(days=1)
    return examine(account.name, today=today, **options)


def of(found, topic, verdict=None):
    """What was found under a topic, as one text each: sentence and fix."""
    return [
        f"{one.found} {one.fix}" for one in found if one.topic == topic and verdict in {None, one.verdict}
    ]


def the(found, topic, verdict=Verdict.problem):
    """The one thing that was found so under a topic."""
    [text] = of(found, topic, verdict)
    return text


def changed(cloud, since):
    """The calls that may have changed something; what EC2 rehearsed has not."""
    calls = [call for call in cloud.calls[since:] if call.error != "DryRunOperation"]
    return [call.operation for call in calls if not READING.fullmatch(call.operation)]


def policies(account):
    """What whoever starts clusters on AWS has, by us."""
    module, name = (ec2, "aws-ec2") if account.name == "ec2" else (ecs, "aws-fargate")
    return [json.loads(module.policy(one, account="123456789012")) for one in (name, f"{name}-landing")]


def without(policy, *actions):
    """The same policy, without some actions."""
    kept = [
        {
            **one,
            "Action": [
                a
                for a in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
                if a not in actions
            ],
        }
        for one in policy["Statement"]
    ]
    return {**policy, "Statement": [one for one in kept if one["Action"]]}


@contextlib.contextmanager
def somebody(account, *given):
    """Be a user of AWS with these policies alone."""
    with account.cloud.active(account.cloud.login(*given)):
        yield


def role(name):
    """A role of ours as the cloud would have it."""
    module = gce if name.startswith("gcp") else azure
    return json.loads(module.policy(name))


# -- health ------------------------------------------------------------------------------------------------


def test_a_healthy_account_is_all_well(account):
    """With the shipped policies and nothing else there is nothing to mend; nothing is made, and nothing is asked to be."""
    before = len(account.cloud.calls)
    with contextlib.ExitStack() as stack:
        if account.emulator == "aws":
            stack.enter_context(somebody(account, *policies(account), READS))
        found = findings(account)

    assert [] == [one for one in found if one.verdict is not Verdict.ok]
    assert [] == [one for one in found if one.fix]
    topics = {"credentials", "clock", "permissions", "landing", "network", "quotas", "machines", "leftovers"}
    assert topics <= {one.topic for one in found}
    assert {"versions", "image", "address", "prices"} <= {one.topic for one in found}
    assert [] == changed(account.cloud, before)
    assert ([], []) == (account.cloud.leftovers(), account.cloud.machines())
    markets = [text.partition(":")[0] for text in of(found, "quotas")]
    assert ["on-demand", "spot", *(["addresses"] if account.name == "azure" else [])] == markets


# -- sicknesses of every cloud -----------------------------------------------------------------------------


def test_each_sickness_is_told_with_its_fix(account):
    """A wrong image, a quota that is too small, no way out, old prices and leftovers: each is found at once."""
    dead = account.provider("dead", max_lifetime="1h")
    dead.identity = dataclasses.replace(dead.identity, expires=int(time.time()) - 60)
    prepare(dead)
    before = len(account.cloud.calls)
    account.cloud.inject("quota", room=1)
    found = examine(
        account.name, today=TABLES[account.name] + timedelta(days=500), image=NO_IMAGE, n_workers=4, **PRIVATE
    )

    assert "has no dask/dask:0-py2.7" in the(found, "image")
    assert "image=" in the(found, "image")
    assert "room for 0 workers" in the(found, "quotas")
    assert "Ask for more at https://" in the(found, "quotas")
    assert "room for 0 workers" in the(found, "quotas", Verdict.warning), "spot is not what is ordered"
    assert "No way leads out" in the(found, "network")
    assert "nat" in the(found, "network").lower()
    assert "pip install --upgrade" in the(found, "prices", Verdict.warning)
    assert "dead" in the(found, "leftovers", Verdict.warning)
    assert "dask cloud sweep" in the(found, "leftovers", Verdict.warning)
    assert "10.0.0.0/8" in the(found, "address", Verdict.ok)
    assert [] == changed(account.cloud, before)


@only(*VENDORS)
def test_credentials_that_are_not_there_or_not_taken(account, monkeypatch):
    """Without credentials, or with expired ones, that alone is told, and what could not be looked at."""
    with account.cloud.inject("expired-credentials"):
        expired = findings(account)
    for name in KEYS[account.emulator]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # none that a machine of Azure has
    missing = findings(account)

    words = {
        "aws": ("sso login", "aws configure"),
        "gcp": ("auth application-default",) * 2,
        "azure": ("az login",) * 2,
    }
    renew, log_in = words[account.emulator]
    assert renew in the(expired, "credentials")
    assert log_in in the(missing, "credentials")
    for found in (expired, missing):
        assert "permissions" in the(found, "the rest", Verdict.unknown)
        assert {"credentials"} == {one.topic for one in found if one.verdict is Verdict.problem}
        assert of(found, "image"), "what asks no cloud is looked at all the same"


@only(*VENDORS)
def test_clocks_that_disagree(account):
    """A clock that is wrong is told, with what sets it right, also where the cloud takes no call because of it."""
    account.cloud.inject("clock-skew", seconds=1200)
    text = the(findings(account), "clock")
    assert "clock is 20.0 minutes slow" in text
    assert "NTP" in text


# -- AWS ---------------------------------------------------------------------------------------------------


@only("fargate", "ec2")
def test_what_may_not_be_done_on_aws_is_named(account):
    """Each missing action is named, of starting and of what clusters share, with the policy that has it."""
    order = "ecs:RunTask" if account.name == "fargate" else "ec2:CreateFleet"
    own, landing = policies(account)
    with somebody(
        account, without(own, order, "ssm:PutParameter"), without(landing, "iam:CreateRole"), READS
    ):
        found = findings(account)

    text = the(found, "permissions")
    assert f"{order} (on " in text
    assert "ssm:PutParameter (on parameter)" in text
    assert f"dask cloud policy {'aws-ec2' if account.name == 'ec2' else 'aws-fargate'} " in text
    assert "user/somebody" in text
    assert "iam:CreateRole" in the(found, "landing")
    assert "log group /dask" in the(found, "landing")


@only("fargate", "ec2")
def test_who_may_not_simulate_has_ec2_asked(account):
    """Without the right to simulate, EC2's rehearsals tell what they can, and the rest is unknown."""
    own, landing = policies(account)
    with somebody(account, own, landing):
        found = findings(account)

    text, heard = the(found, "permissions", Verdict.unknown), the(found, "permissions", Verdict.ok)
    assert "You may not simulate policies" in text
    assert "iam:SimulatePrincipalPolicy" in text
    assert "EC2 would allow ec2:CreateSecurityGroup" in heard
    assert (account.name == "ec2") is ("ec2:RunInstances, ec2:CreateLaunchTemplate" in heard)
    assert [] == account.cloud.leftovers()


@only("fargate")
def test_what_ec2_refuses_to_rehearse(account):
    """A rehearsal that EC2 refuses is a problem, and makes nothing."""
    given = [without(one, "ec2:CreateSecurityGroup") for one in policies(account)]
    with somebody(account, *given):
        found = findings(account)
    assert "ec2:CreateSecurityGroup" in the(found, "permissions")
    assert [] == account.cloud.leftovers()


@only("fargate")
def test_the_accounts_own_keys(account):
    """Who comes with the account's own keys is told that these are not for every day."""
    found = findings(account)
    assert "root" in the(found, "permissions", Verdict.warning)
    assert "Make a user or a role" in the(found, "permissions", Verdict.warning)


@only("fargate")
def test_roles_of_the_users(account):
    """Who names roles needs to pass those alone, and to make none."""
    own, landing = policies(account)
    roles = {"role": "mine", "execution_role": "arn:aws:iam::123456789012:role/start"}
    passed = (
        json.dumps(own).replace("role/dask-task", "role/mine").replace("role/dask-execution", "role/start")
    )
    with somebody(account, passed, without(landing, "iam:CreateRole"), READS):
        ours, theirs = findings(account), findings(account, **roles)
        autonomous = findings(account, **roles, autonomous=True)

    assert "iam:PassRole (on role/dask-execution, role/dask-task)" in the(ours, "permissions")
    assert [] == of(theirs, "permissions", Verdict.problem)
    assert "policy aws-fargate-roles" in the(autonomous, "permissions")


@only("fargate")
def test_networks_of_aws(account):
    """No internet gateway, no such group, and no default VPC: each is found with what makes it."""
    client = boto3.client("ec2")
    [table] = client.describe_route_tables()["RouteTables"]
    client.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    found = findings(account, security_groups=["sg-0123456789abcdef0"])
    gateway, group = sorted(of(found, "network", Verdict.problem))
    assert "No route leads to an internet gateway" in gateway
    assert "aws ec2 create-route" in gateway
    assert "no security group sg-0123456789abcdef0" in group

    for subnet in client.describe_subnets()["Subnets"]:
        client.delete_subnet(SubnetId=subnet["SubnetId"])
    text = the(findings(account), "network")
    assert "There is no default VPC" in text
    assert "aws ec2 create-default-vpc" in text


@only("fargate")
def test_private_machines_that_need_no_way_out(account):
    """With endpoints for all that they ask and an image in ECR, machines need no way out."""
    client = boto3.client("ec2")
    [vpc] = client.describe_vpcs()["Vpcs"]
    image = {"image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dask:1", **PRIVATE}
    assert "endpoints for ecr.api" in the(findings(account, **image), "network")
    for service in ("ecr.api", "ecr.dkr", "logs", "s3", "ssm"):
        client.create_vpc_endpoint(VpcId=vpc["VpcId"], ServiceName=f"com.amazonaws.us-east-1.{service}")
    found = findings(account, **image)
    assert [] == of(found, "network", Verdict.problem)
    assert "by the endpoints of their VPC" in of(found, "network")[-1]


@only("ecs")
def test_an_ecs_cluster_without_instances(account):
    """Tasks need container instances: that there are none, or no such cluster, is told."""
    options = {"ecs_cluster": BATCH, "allow_from": "10.0.0.0/8"}
    assert f"ECS cluster {BATCH} has 1 container instances" in the(
        findings_of_ecs(**options), "capacity", Verdict.ok
    )
    account.remove_hosts()
    assert "has no container instance" in the(findings_of_ecs(**options), "capacity")
    found = findings_of_ecs(**{**options, "ecs_cluster": "elsewhere"})
    assert "There is no ECS cluster 'elsewhere'" in the(found, "capacity")
    assert "aws ecs list-clusters" in the(found, "capacity")


def findings_of_ecs(**options):
    return examine("ecs", **options)


# -- Google Cloud ------------------------------------------------------------------------------------------


@only("gcp")
def test_what_may_not_be_done_on_google_cloud_is_named(account):
    """Each missing permission is named, with the role that has it; without any, the project may be the wrong one."""
    given = role("gcp")
    given["includedPermissions"].remove("compute.instances.create")
    account.cloud.inject("policy", allowed=[given])
    lacking = of(findings(account), "permissions", Verdict.problem)
    assert "You lack compute.instances.create in" in lacking[0]
    assert "`dask cloud policy gcp`" in lacking[0]
    assert "iam.serviceAccounts.create" in lacking[1]
    assert "`dask cloud policy gcp-landing`" in lacking[1]
    assert "service_account=" in lacking[1]

    account.cloud.inject("policy", allowed=[{"includedPermissions": []}])
    assert "none of the" in the(findings(account), "permissions")


@only("gcp")
def test_permissions_that_cannot_be_tested(account):
    """Where Google tests none, that is unknown, and the credentials are not to blame."""
    url = f"{account.cloud.endpoint}/_cloud/services/cloudresourcemanager"
    account.cloud.inject("error", "projects.testIamPermissions", status=400, message="One is not valid.")
    refused = findings(account)
    account.cloud.clear()
    requests.post(url, json={}, timeout=10).raise_for_status()
    disabled = findings(account)

    assert "One is not valid" in the(refused, "permissions", Verdict.unknown)
    assert "gcloud services enable cloudresourcemanager" in the(disabled, "permissions", Verdict.unknown)
    assert "cloudresourcemanager.googleapis.com" in the(disabled, "apis")
    for found in (refused, disabled):
        assert 1 == len(of(found, "credentials", Verdict.ok))


@only("gcp")
def test_a_service_account_of_the_users(account):
    """Whether machines may be started under it is asked of itself; that there is none is told."""
    email = f"mine@{GCP().project}.iam.gserviceaccount.com"
    assert f"There is no service account {email}" in the(
        findings(account, service_account=email), "permissions"
    )
    body = {"accountId": "machines", "serviceAccount": {}}
    made = GCP().ask("iam", "POST", f"projects/{GCP().project}/serviceAccounts", body)
    found = findings(account, service_account=made["email"])
    assert [] == [one for one in found if one.verdict is not Verdict.ok]


@only("gcp")
def test_apis_and_networks_of_google_cloud(account):
    """An API that is not enabled, a network that is not there, or not in the region: each with its command."""
    url = f"{account.cloud.endpoint}/_cloud/services/secretmanager"
    requests.post(url, json={}, timeout=10).raise_for_status()
    found = findings(account, network="nowhere")
    assert "has not enabled secretmanager.googleapis.com" in the(found, "apis")
    assert "`gcloud services enable secretmanager.googleapis.com --project dask-emulated`" in the(
        found, "apis"
    )
    assert "There is no network 'nowhere'" in the(found, "network")
    assert "gcloud compute networks create nowhere" in the(found, "network")

    custom = {"name": "empty", "auto_create_subnetworks": False}
    GCP().done(GCP().change("networks", "insert", network_resource=custom))
    assert "has no subnetwork in us-central1" in the(findings(account, network="empty"), "network")


@only("gcp")
def test_quota_that_others_use(account):
    """What runs already is taken off what a region has."""
    cluster = prepare(account.provider("busy"))
    cluster.create(cluster.boot("scheduler"), 1)
    with account.cloud.inject("quota", room=4, market="on-demand"):
        text = the(findings(account), "quotas")
    said = "room for 0 workers of 2 vCPU beside the scheduler, with 2 in use; CPUS in us-central1 is 4 vCPU"
    assert said in text
    assert "1 run and bill, of busy" in the(findings(account), "machines", Verdict.ok)


# -- Azure -------------------------------------------------------------------------------------------------


def group(name="mine"):
    """A resource group of the user's."""
    Azure().call("resources", "resource_groups.create_or_update", name, {"location": "westeurope"})
    return {"resource_group": name}


@only("azure")
def test_what_may_not_be_done_on_azure_is_named(account):
    """Each missing action is named, data actions too, with the role that has it."""
    where = group()
    given = role("azure")
    actions = [one for one in given["Actions"] if not one.endswith("virtualMachines/write")]
    reads = ["Microsoft.Authorization/permissions/read", *role("azure-offers")["Actions"]]
    account.cloud.inject("policy", allowed=[{"actions": actions + reads, "dataActions": []}])
    found = findings(account, **where)
    text = the(found, "permissions")
    assert "Microsoft.Compute/virtualMachines/write" in text
    assert "Microsoft.KeyVault/vaults/secrets/setSecret/action" in text
    assert "`dask cloud policy azure " in text
    assert "resourceGroups/mine" in text
    assert "Microsoft.KeyVault/vaults/write" in the(found, "landing")
    assert "`dask cloud policy azure-landing " in the(found, "landing")

    account.cloud.inject("policy", allowed=[{"actions": actions}])
    found = findings(account, **where)
    assert "Reader" in the(found, "permissions", Verdict.unknown)
    assert "Microsoft.Compute/skus/read" in the(found, "permissions")
    assert "`dask cloud policy azure-offers " in the(found, "permissions")
    assert "may not be read" in the(found, "providers", Verdict.unknown)


@only("azure")
def test_what_a_subscription_of_azure_has(account):
    """A resource provider that it does not use, too few public addresses, a group or network that is not there."""
    account.cloud.reset(figures={"quotas": {"PublicIPAddresses": 5}})
    Azure().call("resources", "providers.unregister", "Microsoft.KeyVault")
    found = findings(account, **group(), vnet="nowhere", n_workers=5)
    assert "addresses: room for 4 workers beside the scheduler" in the(found, "quotas")
    assert "public=False" in the(found, "quotas")
    assert "not registered for Microsoft.KeyVault" in the(found, "providers")
    assert "`az provider register --namespace Microsoft.KeyVault`" in the(found, "providers")
    assert "There is no virtual network 'nowhere'" in the(found, "network")
    assert "az network vnet list" in the(found, "network")

    found = findings(account, resource_group="elsewhere", region="westeurope")
    assert "There is no resource group 'elsewhere'" in the(found, "landing")


@only("azure")
def test_a_virtual_network_of_the_users(account):
    """Which subnet is asked where there are several."""
    where = group()
    space = {"addressSpace": {"addressPrefixes": ["127.50.0.0/16"]}}
    subnets = [
        {"name": name, "properties": {"addressPrefix": f"127.50.{number}.0/24"}}
        for number, name in enumerate(("one", "two"))
    ]
    request = {"location": "westeurope", "properties": {**space, "subnets": subnets}}
    Azure().make("network", "virtual_networks.begin_create_or_update", "mine", "net", request)
    assert "has the subnets one, two: which?" in the(findings(account, **where, vnet="net"), "network")


# -- the command -------------------------------------------------------------------------------------------


@only("gcp")
def test_the_command(account):
    """It ends with 1 where there is a problem and 0 otherwise, in 80 columns without colour, or in JSON."""
    healthy = CliRunner().invoke(command_line, ["doctor", "gcp"], color=True)
    assert (0, "gcp: ") == (healthy.exit_code, healthy.stdout[:5])
    assert "\x1b" not in healthy.stdout
    assert 80 >= max(map(len, healthy.stdout.splitlines()))

    sick = CliRunner().invoke(command_line, ["doctor", "gcp", "--image", NO_IMAGE, "--spot=fallback"])
    assert 1 == sick.exit_code
    assert re.search(r"(?m)^  problem  image +ghcr.io has no dask/dask:0-py2.7\.\n +-> Check", sick.stdout)

    for arguments in (["doctor", "gcp", "--json"], ["doctor", "--json", "gcp"], ["doctor", "--json"]):
        [said] = json.loads(CliRunner().invoke(command_line, arguments).stdout)
        assert ("gcp", True) == (said["cloud"], said["seconds"] < 60)
        assert {"topic", "verdict", "found", "fix"} == set(said["findings"][0])


@only("fargate")
def test_without_a_cloud(account, monkeypatch):
    """Every cloud that has credentials is looked at, and what is the same is told once; without any, how to get some."""
    done = CliRunner().invoke(command_line, ["doctor"])
    headings = re.findall(r"(?m)^(\w+): ", done.stdout)
    assert ["fargate", "ec2"] == headings, "ECS needs an option"
    assert re.search(r"and \d+ findings as above", done.stdout)
    assert 1 == done.stdout.count("Python 3.")

    for name in KEYS["aws"]:
        monkeypatch.delenv(name)
    nowhere = CliRunner().invoke(command_line, ["doctor"])
    assert 1 == nowhere.exit_code
    assert all(
        word in nowhere.stdout for word in ("aws configure", "gcloud auth", "az login", "dask cloud demo")
    )


@only("fargate")
def test_options_that_cannot_work(account):
    """An option that cannot work is a finding as well, and one that is none is refused."""
    done = CliRunner().invoke(command_line, ["doctor", "fargate", "--worker-cpu", "3"])
    assert 1 == done.exit_code
    assert "problem  options" in done.stdout
    assert 2 == CliRunner().invoke(command_line, ["doctor", "fargate", "--worker-cpus", "2"]).exit_code
    assert 2 == CliRunner().invoke(command_line, ["doctor", "farm"]).exit_code
    help = CliRunner().invoke(command_line, ["doctor", "fargate", "--help"]).stdout
    assert "--worker-memory" in help
    assert "vCPUs of each machine" in help
    assert account.cloud
