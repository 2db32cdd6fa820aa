"""Machines on EC2: who they are, where their keys are, what they hear of their end, and their lease."""

from __future__ import annotations

import bz2
import json
import os
import signal
import sys
import time

import psutil
import pytest
from cloudruntime import aws, gpus, identity, packing, rest, secrets
from cloudruntime.boot import Boot
from cloudruntime.exits import Exit
from cloudruntime.notices import POLL
from metadata_service import MetadataService

BUNDLE = {"ca": "the ca", "cert": "the cert", "key": "the key"}
NAME = "/dask/it/machine"


@pytest.fixture
def service():
    with MetadataService() as service:
        service.parameters[NAME] = json.dumps(BUNDLE)
        yield service


class TestIdentity:
    """A machine learns who it is from version 2 of the metadata service."""

    def test_it_is_who_the_service_says(self, service):
        """The instance id names it, its private address is what it binds, whatever else is set."""
        environ = {**service.environ, identity.METADATA: "ec2", identity.MACHINE: "another"}

        assert identity.Identity(id="i-0123456789abcdef0", address="127.0.0.1") == identity.learn(environ)

    def test_a_token_that_has_expired_is_renewed(self, service):
        """A machine lives longer than a token."""
        here = aws.Metadata(service.environ)
        here.need("meta-data/instance-id")
        service.tokens.clear()

        assert "eu-central-1" == here.need("meta-data/placement/region")
        assert 2 == service.asked["api/token"]
        assert here.get("meta-data/spot/instance-action") is None

    def test_no_answer_is_an_error_that_names_the_service(self):
        """What is not there is named, and so is a cloud that this runtime does not know."""
        url = "http://127.0.0.1:9"
        with pytest.raises(ValueError, match=f"metadata service at {url} does not answer"):
            aws.Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": url}, patience_s=0).need("meta-data/x")
        with pytest.raises(ValueError, match="DASK_CLOUD_METADATA='moon'"):
            identity.learn({identity.METADATA: "moon"})
        with pytest.raises(ValueError, match="speaks http"):
            aws.Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "file:///etc/passwd"})


class TestSecret:
    """A machine reads its secret from Systems Manager under its own role."""

    def test_it_is_read_with_a_signature_that_aws_s_own_library_makes(self, service):
        """One call, signed with the role's credentials and session token."""
        assert BUNDLE == secrets.fetch(f"ssm:{NAME}", dict(service.environ))
        assert 1 == service.asked["ssm"]

    def test_two_parameters_are_one_secret(self, service):
        """What does not fit into one parameter comes with another, in the same call."""
        service.parameters["/dask/it/more/machine"] = json.dumps({"rest": "more"})

        assert {**BUNDLE, "rest": "more"} == secrets.fetch(
            f"ssm:{NAME},/dask/it/more/machine", dict(service.environ)
        )
        assert 1 == service.asked["ssm"]

    def test_throttling_is_waited_out(self, service):
        """A thousand machines that start at once share a low rate."""
        service.refusals = [(400, "ThrottlingException"), (503, "x#ServiceUnavailable"), (500, "")]

        assert [json.dumps(BUNDLE)] == aws.parameters([NAME], service.environ)
        assert 4 == service.asked["ssm"]

    def test_a_wrong_clock_is_corrected(self, service):
        """A machine whose clock is an hour behind signs by the clock of AWS."""
        service.ahead_s = 3600

        assert [json.dumps(BUNDLE)] == aws.parameters([NAME], service.environ)
        assert 2 == service.asked["ssm"]

    @pytest.mark.parametrize(
        ("refusal", "message"),
        [
            ("AccessDeniedException", f"role dask-machine lacks ssm:GetParameters on {NAME}.*said Access"),
            ("ValidationException", "Systems Manager in eu-central-1 does not give .* said Validation"),
            ("InvalidSignatureException", "does not give .* said InvalidSignature"),
        ],
    )
    def test_a_refusal_says_what_is_missing(self, service, refusal, message):
        """The message names the role, the permission and the parameter, and ends the boot at once."""
        service.refusals = [(400, refusal)] * 3
        with pytest.raises(ValueError, match=message):
            aws.parameters([NAME], service.environ)

    def test_patience_ends(self, service):
        """A parameter that does not come is an error, not an endless wait."""
        with pytest.raises(ValueError, match=r"does not give /dask/no/machine\. ParameterNotFound"):
            aws.parameters([NAME, "/dask/no/machine"], service.environ, patience_s=0.2)


class TestRest:
    """What of the runtime did not fit into user data comes with the secret."""

    @pytest.mark.parametrize("role", ["scheduler", "worker"])
    def test_both_together_are_the_whole(self, role, tmp_path):
        """Early and late modules are those that a role needs, each once, and each a program."""
        boot = Boot(cluster="it", role=role)
        first = dict(part.split("\n", 1) for part in bz2.decompress(packing.early(boot)).decode().split("\0"))
        (tmp_path / rest.REST).write_text(first[rest.REST])
        bundle = {rest.REST: packing.late("machine"), f"{rest.REST}-{role}": packing.late(role), **BUNDLE}
        rest.unpack(bundle, str(tmp_path))
        second = {path.name: path.read_text() for path in tmp_path.glob("*.py")}

        assert not set(first) & set(second)
        assert {f"{role}.py", "supervisor.py"} <= set(second)
        assert {"__main__.py", "secrets.py", "aws.py", "rest.py"} <= set(first)
        for name, source in {**first, **second}.items():
            assert name == rest.REST or compile(source, name, "exec")

    def test_the_rest_of_another_version_is_refused(self, tmp_path):
        """Modules of two versions never run together."""
        (tmp_path / rest.REST).write_text(rest.digest(["one"]))
        with pytest.raises(ValueError, match="with the version of dask-cloud that made the cluster"):
            rest.unpack({rest.REST: "another"}, str(tmp_path))

    def test_an_image_that_carries_the_runtime_keeps_its_own(self, tmp_path):
        """What a secret brings for other images does not replace it."""
        rest.unpack({rest.REST: packing.late("machine")}, str(tmp_path))

        assert [] == list(tmp_path.iterdir())


@pytest.fixture
def start(machines, secrets):
    """Starts machines, each with a metadata service of its own."""
    services = []

    def start(role, **options):
        number = len(services)
        service = MetadataService(f"i-{number}", f"127.77.{os.getpid() % 250}.{number + 1}")
        services.append(service)
        service.__enter__()
        service.parameters[NAME] = secrets.machine
        environ = {**service.environ, identity.METADATA: "ec2", POLL: "0.3"}
        running = machines.start(role, secret=f"ssm:{NAME}", environ=environ, **options)
        running.id, running.address = f"i-{number}", service.data["meta-data/local-ipv4"]
        return running, service

    yield start
    for service in services:
        service.__exit__()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
class TestNotices:
    """What the cloud says of a machine's end makes it leave before."""

    def test_an_interruption_moves_what_the_machine_holds(self, start, connect):
        """The machine drains within the time that is left, ends by itself, and says in which words it was told."""
        scheduler, _ = start("scheduler")
        one, its = start("worker", scheduler=scheduler)
        start("worker", scheduler=scheduler)
        client = connect(scheduler)
        client.wait_for_workers(2, timeout=30)
        futures = client.scatter([b"x" * 1000 for _ in range(10)], broadcast=False)
        moment = its.interrupt(60)
        code, line = one.ends(40)

        assert Exit.interrupted == code, one.log
        assert f"spot interruption: terminate at {moment}, drained" in line
        assert 10 == len(client.gather(futures))

    def test_an_interruption_hurries_a_machine_that_leaves_at_leisure(self, start, connect):
        """A recommendation gives it minutes; an interruption that follows leaves it what the cloud leaves."""
        scheduler, _ = start("scheduler")
        only, its = start("worker", scheduler=scheduler)
        client = connect(scheduler)
        client.wait_for_workers(1, timeout=30)
        held = client.scatter(b"x")
        its.recommend()
        only.says(r"rebalance recommendation of 2026-11-05T08:22:00Z: draining")
        moment = its.interrupt(4)
        code, line = only.ends(30)

        assert Exit.interrupted == code, only.log
        assert f"spot interruption: terminate at {moment}" in line
        assert "not drained: nowhere to go" in line
        assert held.key

    def test_a_metadata_service_that_falls_silent_is_no_reason_to_end(self, start, connect):
        """The machine works on without it."""
        scheduler, _ = start("scheduler")
        worker, its = start("worker", scheduler=scheduler)
        client = connect(scheduler)
        client.wait_for_workers(1, timeout=30)
        its.__exit__()
        time.sleep(2)

        assert worker.process.poll() is None
        assert 3 == client.submit(sum, [1, 2]).result(timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
class TestLease:
    """The machine's own timer ends it when nobody renews its lease."""

    def test_a_supervisor_that_runs_renews_it_and_one_that_hangs_does_not(self, machines, tmp_path):
        """Code that holds the interpreter lock does not end the machine; a stopped supervisor does."""
        lease = tmp_path / "lease"
        lease.touch()
        os.utime(lease, (0, 0))
        machine = machines.start("scheduler", environ={"DASK_CLOUD_LEASE": str(lease)})
        machine.says("at tls://")
        renewed = lease.stat().st_mtime
        assert renewed > time.time() - 60

        dask = psutil.Process(machine.process.pid).children()[0]
        dask.suspend()
        deadline = time.monotonic() + 30
        while lease.stat().st_mtime == renewed:
            assert time.monotonic() < deadline, (
                "a busy Dask process keeps the supervisor from renewing the lease"
            )
            time.sleep(0.1)
        machine.process.send_signal(signal.SIGSTOP)
        renewed = lease.stat().st_mtime
        time.sleep(7)

        assert renewed == lease.stat().st_mtime

    def test_a_lease_that_is_gone_is_said_and_not_made_anew(self, machines, tmp_path):
        """Only the machine's boot makes a lease."""
        machine = machines.start("scheduler", environ={"DASK_CLOUD_LEASE": str(tmp_path / "none")})

        machine.says("the lease cannot be renewed")
        machine.says("at tls://")
        assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_workers_use_the_machine_as_it_is(machines, connect, tmp_path):
    """Dask spills to the machine's scratch folder, and each worker has a GPU of its own to begin with."""
    scratch = tmp_path / "scratch"
    environ = {"DASK_CLOUD_SCRATCH": str(scratch), gpus.VISIBLE: "GPU-a,GPU-b"}
    scheduler = machines.start("scheduler")
    worker = machines.start("worker", scheduler=scheduler, processes=2, environ=environ)
    client = connect(scheduler)
    client.wait_for_workers(2, timeout=30)
    seen = client.run(
        lambda dask_worker: (dask_worker.name, dask_worker.local_directory, os.environ[gpus.VISIBLE])
    )

    assert {f"{worker.id}-0": "GPU-a,GPU-b", f"{worker.id}-1": "GPU-b,GPU-a"} == {
        name: visible for name, _, visible in seen.values()
    }
    assert all(folder.startswith(str(scratch)) for _, folder, _ in seen.values())
    assert 2.0 == sum(client.submit(lambda: 1, resources={"GPU": 1}, pure=False).result(20) for _ in range(2))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, ["0", "1"]),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, ["GPU-a", "GPU-b"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_gpus_are_those_of_the_container(environ, expected, monkeypatch):
    """What hides GPUs from CUDA hides them from workers."""
    for name in (gpus.VISIBLE, gpus.GIVEN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert expected == gpus.devices()


def test_without_enough_gpus_workers_share_nothing(monkeypatch):
    """More workers than GPUs is the user's own choice; none is then given a GPU of its own."""
    monkeypatch.setenv(gpus.VISIBLE, "0")

    assert {} == gpus.options(0, 2)
    assert {"CUDA_VISIBLE_DEVICES": "0"} == gpus.options(0, 1)["env"]
