"""What a machine on Azure is told at its first boot, and how it ends itself."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import os
import sys
from importlib import metadata

import pytest
from machine_services import CLIENT_ID, AzureService
from user_data import (
    OWN_CONFIG,
    SCRIPT,
    Host,
    as_cloud_init_reads,
    configurations,
    needs_cloud_init,
    needs_systemd,
    schema_of,
    units_of,
    written,
)

from cloudprovider.errors import ConfigError
from cloudprovider.images import default_image
from cloudprovider.provider import Identity
from cloudprovider.providers import _azure_boot as boots
from cloudprovider.providers._azure_config import AzureVMConfig

CARRIES = "ghcr.io/dask/dask-cloud-runtime:2026.8.0-py3.11"
IDENTITY = Identity(
    name="team-analytics-nightly-etl-2026-production"[:40], owner="me", created=0, expires=1_900_000_000
)
VAULT = "https://dask-machine-0123456789ab.vault.azure.net/"
LOCK = f"distributed=={metadata.version('distributed')}\n"
UNIT = "/etc/systemd/system/dask-cloud.service"
END, ENGINE = "/etc/dask-cloud-end", "/run/dask-cloud/engine"
ENDING = f"/bin/sh {END} https://management.azure.com {CLIENT_ID}"
VARIANTS = [
    {},
    {"gpus": 2, "own": OWN_CONFIG},
    {"image": CARRIES, "role": "scheduler", "own": SCRIPT},
    {"boot": "uv", "lock": LOCK},
]


def boot_for(role="worker", image=None, own=None, **options):
    config = AzureVMConfig.of(environment={"GREETING": "two\nlines", "TZ": "UTC"}, user_data=own, **options)
    boot = dataclasses.replace(
        config.boot_for(role, IDENTITY),
        image="" if config.boot == "uv" else image or default_image(),
        secret=boots.secret(VAULT, IDENTITY.name, CLIENT_ID),
        scheduler=None if role == "scheduler" else "tls://10.255.255.254:8786",
    )
    return config, boot


def made(*, gpus=0, **options):
    config, boot = boot_for(**options)
    return boots.user_data(config, IDENTITY, boot, client_id=CLIENT_ID, gpus=gpus)


def files(data):
    """What all parts write, the last of each path."""
    found = {}
    for config in configurations(gzip.decompress(data).decode()):
        found |= written(config)
    return found


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_it_leaves_two_thirds_of_what_azure_takes(role):
    """With all of the runtime; in base64, too, it is less than the limit of what it is the base64 of."""
    data = made(role=role)

    assert len(data) < boots.MAX_CUSTOM_DATA / 3
    assert len(base64.b64encode(data)) < boots.MAX_CUSTOM_DATA
    assert len(made(role=role, image=CARRIES)) < 4096


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_boot_survives_custom_data(variant):
    """What another process reads from custom data is the Boot that was put there."""
    _, boot = boot_for(**{key: value for key, value in variant.items() if key != "gpus"})

    assert boot == boots.boot_of(made(**variant))
    assert f"keyvault:{VAULT}secrets/dask-{IDENTITY.name}-machine?client_id={CLIENT_ID}" == boot.secret


@needs_cloud_init
@pytest.mark.parametrize("variant", VARIANTS)
def test_cloud_init_merges_and_allows_it(variant, tmp_path):
    """The user's own commands come first, then the engine, the service last; cloud-init's own check finds nothing."""
    kinds, config = as_cloud_init_reads(made(**variant))
    own = variant.get("own")

    assert "" == schema_of(config, tmp_path)
    assert [["sh", ENGINE], ["systemctl", "start", "--no-block", "dask-cloud.service"]] == config["runcmd"][
        -2:
    ]
    if own == OWN_CONFIG:
        assert ["echo", "mine"] == config["runcmd"][0]
    if own == SCRIPT:
        assert "text/x-shellscript" == kinds[0]


@needs_cloud_init
@needs_systemd
@pytest.mark.parametrize("variant", VARIANTS)
def test_systemd_reads_the_units(variant, tmp_path):
    """Each setting of theirs is known to systemd, also of the files that add to the service."""
    _, config = as_cloud_init_reads(made(**variant))
    units, wrong = units_of(config, tmp_path)

    assert ["dask-cloud-lease.service", "dask-cloud-lease.timer", "dask-cloud.service"] == sorted(units)
    assert [] == wrong


def test_gpus_are_the_engine_s():
    """Images with GPUs have NVIDIA's toolkit."""
    assert b"--gpus 4 " in files(made(gpus=4))[UNIT]
    assert b"--gpus" not in files(made())[UNIT]


def test_too_much_is_refused_before_any_call():
    """The error says how many bytes, of what, and whose limit it is."""
    noise = base64.b85encode(os.urandom(60_000)).decode()
    config, boot = boot_for(own=f"{SCRIPT}# {noise}\n")
    with pytest.raises(ConfigError, match=r"bytes of user_data=.*Azure takes 65535"):
        boots.check(config, [boot])
    boots.check(dataclasses.replace(config, user_data=SCRIPT), [boot])


@pytest.mark.skipif(sys.platform != "linux", reason="a machine's scripts are for GNU's tools")
class TestEngine:
    """A machine installs a container engine where its image has none."""

    @pytest.fixture
    def host(self, tmp_path):
        host = Host(tmp_path, files(made()))
        host.command("sleep")
        return host

    def test_an_engine_that_is_there_is_kept(self, host):
        """Nothing is installed on an image that has one."""
        host.command("systemctl")
        host.command("tdnf")
        done = host.run(ENGINE)

        assert 0 == done.returncode
        assert not any("tdnf" in call for call in host.calls)

    def test_an_installation_that_fails_is_tried_again(self, host, tmp_path):
        """A package server may have a bad moment."""
        host.command("systemctl", f"test $1 = daemon-reload || test -e {tmp_path}/done")
        host.command(
            "tdnf",
            f"test -e {tmp_path}/once && touch {tmp_path}/done; touch {tmp_path}/once; test -e {tmp_path}/done",
        )
        done = host.run(ENGINE)

        assert 0 == done.returncode, done.stderr
        assert ["tdnf install -qy moby-engine moby-cli"] * 2 == [
            c for c in host.calls if c.startswith("tdnf")
        ]
        assert "systemctl daemon-reload" == host.calls[-1]

    def test_without_an_engine_the_machine_ends(self, host, tmp_path):
        """It says so, and does not wait for its lease."""
        host.command("systemctl", "exit 1")
        host.command("tdnf", "exit 1")
        host.files[ENGINE] = host.files[ENGINE].replace(
            f"exec {ENDING}".encode(), b"exec sh -c 'echo ended $EXIT_STATUS: $ENDED'"
        )
        done = host.run(ENGINE)

        assert (
            "no container engine could be installed\nended 1: no container engine could be installed"
            in done.stdout
        )
        assert 4 == sum(call.startswith("tdnf") for call in host.calls)


@pytest.mark.skipif(sys.platform != "linux", reason="a machine's scripts are for GNU's tools")
class TestEnd:
    """A machine deletes itself through Azure Resource Manager, by its own identity."""

    @pytest.fixture
    def service(self):
        with AzureService() as service:
            yield service

    @pytest.fixture
    def host(self, tmp_path):
        host = Host(tmp_path, files(made()))
        host.command("shutdown")
        host.command("journalctl", "echo 'ended: secret: \"quoted\" \\ and more'")
        (tmp_path / "run/dask-cloud/lease").touch()
        return host

    def end(self, host, service, status):
        """Run the script as the service's end does."""
        environ = {**service.environ, "DASK_CLOUD_LINGER_S": "0.2", "EXIT_STATUS": status}
        return host.run(END, service.manager, CLIENT_ID, **environ).stdout

    def test_it_deletes_itself(self, host, service, tmp_path):
        """One call, with a token of its own, and the lease ends at once."""
        said = self.end(host, service, "0")

        assert f"DELETE {service.resource}" == service.asked[-1]
        assert "dask-cloud: this machine is being deleted\n" == said
        assert not (tmp_path / "run/dask-cloud/lease").exists()
        assert {} == service.tags

    @pytest.mark.parametrize("refusal", [(403, "AuthorizationFailed: no authorization"), (429, "later")])
    def test_a_refusal_is_said_and_nothing_powers_off(self, host, service, refusal):
        """A machine that only powers off is billed on: without a lease the timer tries again."""
        service.refusals = [refusal]
        said = self.end(host, service, "0")

        assert "cannot delete itself yet: " in said
        assert refusal[1] in said
        assert "is being deleted" in self.end(host, service, "")
        assert [] == host.calls

    def test_a_cloud_that_does_not_answer_is_said(self, host, service):
        """The network may not be there yet, or not any more."""
        service.__exit__()

        assert "cannot delete itself yet: curl: (7)" in self.end(host, service, "0")

    @pytest.mark.parametrize("status", ["1", "64", "125", "137"])
    def test_a_failure_leaves_its_last_line_for_a_while(self, host, service, status):
        """In a tag, as the console goes with the machine; what a tag cannot hold is left out."""
        self.end(host, service, status)

        assert {boots.ENDED: "ended: secret: quoted  and more"} == service.tags
        assert 1 == service.times("DELETE")

    def test_whoever_knows_why_says_it(self, host, service):
        """Where Dask never ran, its log has no last line."""
        environ = {**service.environ, "DASK_CLOUD_LINGER_S": "0", "EXIT_STATUS": "1", "ENDED": "no engine"}
        host.run(END, service.manager, CLIENT_ID, **environ)

        assert {boots.ENDED: "no engine"} == service.tags

    @pytest.mark.parametrize("status", ["71", "75"])
    def test_an_end_that_was_meant_leaves_nothing(self, host, service, status):
        """The exit codes of leases and notices are no failures."""
        self.end(host, service, status)

        assert {} == service.tags

    def test_the_lease_ends_it(self):
        """What the timer runs ends a machine as the end of its container does."""
        found = files(made())

        assert f"{ENDING}\n".encode() in found["/etc/dask-cloud-lease"]
        assert f"ExecStopPost={ENDING}\n".encode() in found[UNIT]
        assert not any(b"shutdown" in text for text in found.values())
