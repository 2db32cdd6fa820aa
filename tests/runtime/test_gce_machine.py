"""Machines on Compute Engine: who they are, where their keys are, what they hear of their end."""

from __future__ import annotations

import bz2
import json
import os
import sys

import pytest
from cloudruntime import gce, identity, packing, secrets
from cloudruntime.boot import Boot
from cloudruntime.exits import Exit
from machine_services import EMAIL, PROJECT, GCEService

BUNDLE = {"ca": "the ca", "cert": "the cert", "key": "the key"}
NAME = f"projects/{PROJECT}/secrets/dask-it-machine"


@pytest.fixture
def service():
    with GCEService() as service:
        service.secrets[NAME] = json.dumps(BUNDLE)
        yield service


def test_it_is_who_the_metadata_service_says(service):
    """Its name is its id, its private address is what it binds, whatever else is set."""
    environ = {**service.environ, identity.METADATA: "gce", identity.MACHINE: "another"}

    assert identity.Identity(id="dask-it-w-abc123", address="127.0.0.1") == identity.learn(environ)


def test_no_answer_is_an_error_that_names_the_service():
    """What is not there is named."""
    service = gce.Metadata({"GCE_METADATA_HOST": "127.0.0.1:9"}, patience_s=0)
    with pytest.raises(ValueError, match=r"metadata service at http://127\.0\.0\.1:9.* does not answer"):
        service.need("instance/name")


class TestSecret:
    """A machine reads its secret from Secret Manager by its own service account."""

    def test_it_is_read_once(self, service):
        """One read a machine, whatever its environment says of proxies to the metadata service."""
        assert BUNDLE == secrets.fetch(f"gcp-secret:{NAME}", dict(service.environ))
        assert 1 == service.times(":access")

    def test_what_passes_is_waited_out(self, service):
        """A role that is not known everywhere yet, a secret that is not, a quota, and a bad moment."""
        service.refusals = [(403, "denied"), (404, "no"), (429, "quota"), (503, "later")]

        assert json.dumps(BUNDLE) == gce.secret(NAME, service.environ)
        assert 5 == service.times(":access")

    def test_a_lasting_refusal_says_what_is_missing(self, service):
        """The message names the account, the permission and the secret, and shows what Google said."""
        service.refusals = [(403, "Permission denied on resource")] * 9
        with pytest.raises(
            ValueError, match=f"{EMAIL} lacks secretmanager.versions.access on {NAME}: 403: Permission denied"
        ):
            gce.secret(NAME, service.environ, patience_s=0)

    def test_patience_ends(self, service):
        """A secret that does not come is an error, not an endless wait."""
        with pytest.raises(ValueError, match="Secret Manager has no projects/p/secrets/none"):
            gce.secret("projects/p/secrets/none", service.environ, patience_s=0.3)

    def test_a_wrong_request_is_not_repeated(self, service):
        """Another time would not do."""
        service.refusals = [(400, "Resource name is invalid")]
        with pytest.raises(ValueError, match=r"does not give .*: 400: Resource name is invalid"):
            gce.secret(NAME, service.environ)

        assert 1 == service.times(":access")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, []),
        ({"instance/preempted": "TRUE"}, [("preempted", 30.0)]),
        ({"instance/maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE"}, []),
        (
            {"instance/maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"},
            [("host maintenance that ends the machine", 60.0)],
        ),
    ],
)
def test_only_what_ends_the_machine_is_a_notice(service, data, expected):
    """A live migration is none: the machine works on."""
    service.data |= data

    assert expected == gce.looks(service.environ)()


@pytest.mark.parametrize("role", ["scheduler", "worker"])
@pytest.mark.parametrize(
    ("cloud", "others"), [("gce", {"aws.py", "azure.py"}), ("azure", {"aws.py", "gce.py"})]
)
def test_a_machine_carries_the_modules_of_its_own_cloud(role, cloud, others):
    """And nothing that only machines of other clouds need."""
    boot = Boot(cluster="it", role=role)
    carried = bz2.decompress(packing.whole(boot, cloud)).decode().split("\0")
    names = {part.partition("\n")[0] for part in carried}
    ours = {part.partition("\n")[0] for part in bz2.decompress(packing.early(boot)).decode().split("\0")}

    assert {f"{cloud}.py", "web.py", f"{role}.py", "supervisor.py", "secrets.py"} <= names
    assert not others & names
    assert not {"azure.py", "gce.py", "web.py"} & ours


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_a_preemption_moves_what_the_machine_holds(machines, connect, secrets):
    """The machine drains within its half minute, and ends by itself."""
    network = f"127.78.{os.getpid() % 250}"

    def start(role, number, **options):
        service = GCEService(f"dask-it-{number}", f"{network}.{number}")
        service.secrets[NAME] = secrets.machine
        service.__enter__()
        environ = {**service.environ, identity.METADATA: "gce", "DASK_CLOUD_POLL_S": "0.3"}
        running = machines.start(role, secret=f"gcp-secret:{NAME}", environ=environ, **options)
        running.id, running.address = service.id, service.address
        return running, service

    scheduler, one = start("scheduler", 1)
    worker, two = start("worker", 2, scheduler=scheduler)
    _, three = start("worker", 3, scheduler=scheduler)
    try:
        client = connect(scheduler)
        client.wait_for_workers(2, timeout=30)
        futures = client.scatter([b"x" * 1000 for _ in range(10)], broadcast=False)
        two.data["instance/preempted"] = "TRUE"
        code, line = worker.ends(40)

        assert Exit.interrupted == code, worker.log
        assert "preempted, drained" in line
        assert 10 == len(client.gather(futures))
    finally:
        for service in (one, two, three):
            service.__exit__()
