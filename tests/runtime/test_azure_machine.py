"""Machines on Azure: who they are, where their keys are, what they hear of their end."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest
from cloudruntime import azure, identity, secrets
from cloudruntime.exits import Exit
from machine_services import CLIENT_ID, AzureService

BUNDLE = {"ca": "the ca", "cert": "the cert", "key": "the key"}
NAME = "dask-it-machine"


@pytest.fixture
def service():
    with AzureService() as service:
        service.secrets[NAME] = json.dumps(BUNDLE)
        yield service


def test_it_is_who_the_metadata_service_says(service):
    """Its name is its id, its private address is what it binds, whatever else is set."""
    environ = {**service.environ, identity.METADATA: "azure", identity.MACHINE: "another"}

    assert identity.Identity(id=service.id, address="127.0.0.1") == identity.learn(environ)


def test_no_answer_is_an_error_that_names_the_service():
    """What is not there is named."""
    here = azure.Metadata({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}, patience_s=0)
    with pytest.raises(
        ValueError, match=r"metadata service at http://127\.0\.0\.1:9 gives no instance: no answer"
    ):
        here.need("instance", "2021-02-01")


class TestSecret:
    """A machine reads its secret from a key vault by its own identity."""

    def test_it_is_read_with_a_token_for_what_the_vault_names(self, service):
        """The vault says whose token it wants, so that every cloud of Azure's works."""
        url = f"http://{service.place}/secrets/{NAME}?client_id={CLIENT_ID}"

        assert BUNDLE == secrets.fetch(f"keyvault:{url}", dict(service.environ))
        assert ["https://vault.azure.net"] == list(service.tokens.values())

    def test_what_passes_is_waited_out(self, service):
        """A role that is not known everywhere yet, a secret that is not, a quota, and a bad moment."""
        service.refusals = [(403, "Forbidden"), (404, "no"), (429, "later"), (500, "broken")]

        assert json.dumps(BUNDLE) == azure.secret(f"http://{service.place}/secrets/{NAME}", service.environ)
        assert [] == service.refusals

    def test_a_lasting_refusal_says_what_is_missing(self, service):
        """The message names the role, the secret and the vault, and shows what Azure said."""
        service.refusals = [(403, "Caller is not authorized")] * 9
        with pytest.raises(
            ValueError, match=rf"Key Vault Secrets User\) .*/secrets/{NAME}: 403: Caller is not authorized"
        ):
            azure.secret(f"http://{service.place}/secrets/{NAME}", service.environ, patience_s=0)

    def test_an_identity_that_is_not_the_machine_s_is_named(self, service):
        """It may be known soon, but not for ever."""
        with pytest.raises(ValueError, match="gives no identity/oauth2/token: 400: Identity not found"):
            azure.secret(
                f"http://{service.place}/secrets/{NAME}?client_id=other", service.environ, patience_s=0.1
            )


class TestEvents:
    """Scheduled events tell what ends a machine."""

    @pytest.mark.parametrize("kind", ["Preempt", "Reboot", "Redeploy", "Terminate"])
    def test_what_a_machine_does_not_outlive_is_a_notice(self, service, kind):
        """With the time until it may begin."""
        service.announce(kind, 100)
        [(words, left_s)] = azure.Events(service.environ).look()

        assert f"{kind} by Platform" == words
        assert 90 < left_s <= 100

    def test_a_pause_and_what_happens_to_others_are_none(self, service):
        """A freeze is over in seconds; machines of a scale set hear of each other's events."""
        service.announce("Freeze", 900)
        service.announce("Preempt", 30, ["another"])

        assert [] == azure.Events(service.environ).look()

    def test_what_has_begun_leaves_no_time(self, service):
        """Azure then names no moment."""
        service.announce("Reboot", 0, NotBefore="", EventStatus="Started")

        assert [("Reboot by Platform", 0.0)] == azure.Events(service.environ).look()

    def test_only_what_is_for_the_machine_alone_is_acknowledged(self, service):
        """Others in the same event may not be ready yet."""
        mine = service.announce("Terminate", 300)
        shared = service.announce("Redeploy", 600, [service.id, "another"])
        events = azure.Events(service.environ)
        events.look()
        events.over()

        assert [shared] == [one["EventId"] for one in service.events]
        assert mine != shared


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_an_eviction_moves_what_the_machine_holds(machines, connect, secrets):
    """The machine drains within its half minute, ends by itself, and tells Azure that it is ready."""
    network = f"127.79.{os.getpid() % 250}"

    def start(role, number, **options):
        service = AzureService(f"dask-it-{number}", f"{network}.{number}")
        service.secrets[NAME] = secrets.machine
        service.__enter__()
        environ = {**service.environ, identity.METADATA: "azure", "DASK_CLOUD_POLL_S": "0.3"}
        reference = f"keyvault:http://{service.place}/secrets/{NAME}"
        running = machines.start(role, secret=reference, environ=environ, **options)
        running.id, running.address = service.id, service.address
        return running, service

    scheduler, one = start("scheduler", 1)
    worker, two = start("worker", 2, scheduler=scheduler)
    _, three = start("worker", 3, scheduler=scheduler)
    try:
        client = connect(scheduler)
        client.wait_for_workers(2, timeout=30)
        futures = client.scatter([b"x" * 1000 for _ in range(10)], broadcast=False)
        two.announce("Preempt", 30)
        begun = time.monotonic()
        code, line = worker.ends(40)

        assert Exit.interrupted == code, worker.log
        assert "Preempt by Platform, drained" in line
        assert [] == two.events, f"not acknowledged after {time.monotonic() - begun:.0f} s"
        assert 10 == len(client.gather(futures))
    finally:
        for service in (one, two, three):
            service.__exit__()
