"""EC2 instances with something inside: booted, metadata and role, notices, guests that power off, the ledger."""

from __future__ import annotations

import json
import math
import os
import time
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError
from ec2_account import Machines, ids_of

TOKEN = "X-aws-ec2-metadata-token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
READ_DASK = {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/dask/*"}


@pytest.fixture(scope="session")
def whole_clients(emulated_aws_process):
    """Clients of the emulated AWS whose machines have an inside."""
    with emulated_aws_process.active():
        return Machines.clients()


@pytest.fixture
def whole(emulated_aws, whole_clients):
    """An account whose machines have an inside."""
    del emulated_aws
    return Machines(**whole_clients).prepare()


class Asker:
    """Asks the metadata service of an instance."""

    def __init__(self, cloud, id):
        self.base = f"{cloud.endpoint}/_cloud/imds/{id}/latest"
        self.headers = {}

    def ask(self, path, method="GET", **headers):
        """What it answers: a text, or the status of a refusal."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"{self.base}/{path}", headers={**self.headers, **named}, method=method
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def trusted(self, ttl="60"):
        """Take a token, and use it from now on."""
        self.headers = {}
        self.headers = {TOKEN: self.ask("api/token", "PUT", **{TTL: ttl})}
        return self


def script(*commands):
    """User data that runs commands of a shell."""
    return json.dumps({"runcmd": list(commands)}).join(("#cloud-config\n", "\n"))


def lines(machines, id, wanted, timeout_s=30):
    """The console, once it has a word."""
    deadline = time.monotonic() + timeout_s
    while wanted not in (text := machines.ec2.get_console_output(InstanceId=id)["Output"]):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def test_metadata_needs_a_token(machines, bare):
    """Version 2 takes a token of its own instance; version 1 is answered where it is allowed, and only there."""
    strict, open_one = ids_of([*machines.run(), *machines.run(MetadataOptions={"HttpTokens": "optional"})])
    asker, other = Asker(bare, strict), Asker(bare, open_one)

    assert 401 == asker.ask("meta-data/instance-id")
    assert [400, 400, 400] == [
        asker.ask("api/token", "PUT", **headers) for headers in ({}, {TTL: "0"}, {TTL: "21601"})
    ]
    assert 403 == asker.ask("api/token", "PUT", **{TTL: "60", "X-Forwarded-For": "1.2.3.4"})
    assert strict == asker.trusted().ask("meta-data/instance-id")
    assert open_one == other.ask("meta-data/instance-id")
    other.headers = asker.headers
    assert 401 == other.ask("meta-data/instance-id")
    assert 401 == asker.ask("meta-data/instance-id", **{TOKEN: "x"})
    assert 404 == Asker(bare, "i-0123456789abcdef0").ask("meta-data/instance-id")
    [off] = ids_of(machines.run(MetadataOptions={"HttpEndpoint": "disabled"}))
    assert 403 == Asker(bare, off).ask("api/token", "PUT", **{TTL: "60"})


def test_tokens_expire(machines, bare):
    """A token is good for as many seconds as were asked for."""
    [id] = ids_of(machines.run())
    asker = Asker(bare, id).trusted("1")
    deadline = time.monotonic() + 20
    while asker.ask("meta-data/instance-id") != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_metadata_says_what_the_api_says(machines, bare):
    """Addresses, placement, type, user data, identity and tags are those of the API; folders are listed."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "colour", "Value": "red"}]}]
    options = {"InstanceMetadataTags": "enabled"}
    [made] = machines.run(UserData="#!/bin/sh\n", TagSpecifications=tags, MetadataOptions=options)
    [made] = machines.until([made["InstanceId"]], "running")
    ask = Asker(bare, made["InstanceId"]).trusted().ask

    assert (made["PrivateIpAddress"], made["PublicIpAddress"], made["PrivateDnsName"]) == (
        ask("meta-data/local-ipv4"),
        ask("meta-data/public-ipv4"),
        ask("meta-data/local-hostname"),
    )
    assert (made["Placement"]["AvailabilityZone"], "us-east-1", made["InstanceType"]) == (
        ask("meta-data/placement/availability-zone"),
        ask("meta-data/placement/region"),
        ask("meta-data/instance-type"),
    )
    assert ("#!/bin/sh\n", "amazonaws.com", "on-demand") == (
        ask("user-data"),
        ask("meta-data/services/domain"),
        ask("meta-data/instance-life-cycle"),
    )
    assert made["InstanceId"] == json.loads(ask("dynamic/instance-identity/document"))["instanceId"]
    assert ("colour", "red") == (ask("meta-data/tags/instance"), ask("meta-data/tags/instance/colour"))
    assert {"placement/", "instance-id"} <= set(ask("meta-data/").splitlines())
    assert [404] * 3 == [ask(f"meta-data/{path}") for path in ("spot/instance-action", "iam/info", "none")]


def test_credentials_act_as_the_role_and_no_more(machines, bare, monkeypatch):
    """An SDK on the machine takes the role's credentials, which may do what its policies allow."""
    machines.profile("worker", READ_DASK)
    [id] = ids_of(machines.run(IamInstanceProfile={"Name": "worker"}))
    for name in ("/dask/one", "/other/one"):
        machines.ssm.put_parameter(Name=name, Value="x", Type="SecureString")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{bare.endpoint}/_cloud/imds/{id}")
    session = boto3.session.Session()
    ssm, who = session.client("ssm"), f"arn:aws:sts::123456789012:assumed-role/worker/{id}"

    assert who == session.client("sts").get_caller_identity()["Arn"]
    assert "x" == ssm.get_parameter(Name="/dask/one", WithDecryption=True)["Parameter"]["Value"]
    with pytest.raises(ClientError, match=rf"AccessDeniedException.*{who}.*ssm:GetParameter on resource"):
        ssm.get_parameter(Name="/other/one")
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:TerminateInstances"):
        session.client("ec2").terminate_instances(InstanceIds=[id])
    assert "AWS_ACCESS_KEY_ID" not in os.environ


def test_interruption_is_noticed_then_comes(machines, bare):
    """A notice with its time is on the metadata service for two minutes of the cloud; then EC2 terminates."""
    bare.reset(time_scale=0.02)
    [id, spared] = ids_of(machines.prepare().spot(2))
    machines.until([id, spared], "running")
    ask = Asker(bare, id).trusted().ask
    before = time.time()
    bare.interrupt(id)
    notice = json.loads(ask("meta-data/spot/instance-action"))
    told = time.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ")

    assert "terminate" == notice["action"]
    assert notice["time"] == ask("meta-data/spot/termination-time")
    assert before <= time.mktime(told) - time.timezone + 1
    [gone] = machines.until([id], "terminated")
    assert time.time() - before >= 2
    assert ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination") == (
        gone["StateReason"]["Code"],
        gone["StateTransitionReason"],
    )
    assert ["running"] == [one["State"]["Name"] for one in machines.look(spared)]
    [request] = machines.ec2.describe_spot_instance_requests(
        Filters=[{"Name": "instance-id", "Values": [id]}]
    )["SpotInstanceRequests"]
    assert "instance-terminated-no-capacity" == request["Status"]["Code"]


def test_rebalance_is_only_recommended(machines, bare):
    """A recommendation is told without a notice, and the instance lives; on-demand ones are never taken."""
    [spot], [kept] = ids_of(machines.spot()), ids_of(machines.run())
    machines.until([spot, kept], "running")
    bare.interrupt(spot, rebalance=True)
    ask = Asker(bare, spot).trusted().ask

    assert "noticeTime" in json.loads(ask("meta-data/events/recommendations/rebalance"))
    assert 404 == ask("meta-data/spot/instance-action")
    with pytest.raises(ValueError, match="on-demand"):
        bare.interrupt(kept)
    with pytest.raises(LookupError, match="no machine"):
        bare.interrupt("i-0123456789abcdef0")


def test_interruptions_come_by_the_seed(machines, bare):
    """At a rate an hour spot instances are interrupted, the same ones by the same seed."""
    bare.reset(seed=944, time_scale=0.001, spot_interruptions=1.0)  # the second first, the others hours later
    made = ids_of(machines.prepare().spot(3))
    kept = ids_of(machines.run())
    machines.until(made[1:2], "terminated")

    assert ["running"] * 3 == [one["State"]["Name"] for one in machines.look(made[0], made[2], *kept)]


def test_host_failure_tells_nobody(machines, bare):
    """When its host fails an instance ends at once, in EC2's words for its own failures."""
    [id] = ids_of(machines.run())
    machines.until([id], "running")
    bare.kill(id)
    [gone] = machines.until([id], "terminated")

    assert "Server.InternalError" == gone["StateReason"]["Code"]


def test_ledger_bills_machine_disk_and_address(machines, bare):
    """An instance, its volume and its public address bill each by the second, a minute at least."""
    made = ids_of([*machines.run(), *machines.spot()])
    machines.until(made, "running")
    machines.ec2.terminate_instances(InstanceIds=made)
    machines.until(made, "terminated")
    entries = [one for one in bare.ledger if one.machine == made[0]]
    price = {one.kind: one.price for one in entries}

    assert {"m7i.xlarge", "gp3 30 GiB", "public IPv4"} == set(price)
    assert pytest.approx(0.2016 / 60, rel=0.01) == price["m7i.xlarge"]
    assert pytest.approx(30 * 0.08 / 730 / 60, rel=0.01) == price["gp3 30 GiB"]
    assert pytest.approx(0.005 / 60) == price["public IPv4"]
    [spot] = [one for one in bare.ledger if one.market == "spot"]
    assert made[1] == spot.machine
    assert 0 < spot.price < price["m7i.xlarge"]
    settled = bare.ledger
    time.sleep(0.2)
    assert [one.seconds for one in settled] == [one.seconds for one in bare.ledger]
    assert not any(math.isnan(one.price) for one in settled)


def test_user_data_is_run_and_heard_on_the_console(whole, emulated_aws):
    """What the user data runs is heard on the console; to terminate the instance ends it."""
    [id] = ids_of(whole.run(UserData=script("echo hello from inside")))

    assert "hello from inside" in lines(whole, id, "hello from inside")
    whole.ec2.terminate_instances(InstanceIds=[id])
    whole.until([id], "terminated")
    assert [] == [one.pid for one in emulated_aws.machines() if one.pid]
    assert [] == emulated_aws.leftovers()


@pytest.mark.parametrize(("behaviour", "state"), [("terminate", "terminated"), ("stop", "stopped")])
def test_guest_that_powers_off_ends_its_instance(whole, behaviour, state):
    """A guest that shuts down terminates or stops its instance, as was ordered, in EC2's words."""
    data = script("shutdown -h now")
    [id] = ids_of(whole.run(UserData=data, InstanceInitiatedShutdownBehavior=behaviour))
    [ended] = whole.until([id], state)

    assert "Client.InstanceInitiatedShutdown" == ended["StateReason"]["Code"]


def test_reset_ends_what_runs_inside(whole, emulated_aws):
    """After a reset nothing of any machine runs."""
    [id] = ids_of(whole.run(UserData=script("echo up; sleep 600")))
    lines(whole, id, "up")
    emulated_aws.reset()

    assert [] == emulated_aws.machines()
