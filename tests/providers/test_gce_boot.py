"""What a machine on Compute Engine is told at its first boot, and how it ends itself."""

from __future__ import annotations

import base64
import dataclasses
import os
import sys
import time
from importlib import metadata

import pytest
from machine_services import PROJECT, ZONE, GCEService
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
from cloudprovider.providers import _gce_boot as boots
from cloudprovider.providers._cloud_init import ours
from cloudprovider.providers._gce_config import GCPConfig

CARRIES = "ghcr.io/dask/dask-cloud-runtime:2026.8.0-py3.11"
IDENTITY = Identity(
    name="team-analytics-nightly-etl-2026-production"[:40], owner="me", created=0, expires=1_900_000_000
)
LOCK = f"distributed=={metadata.version('distributed')}\n"
UNIT = "/etc/systemd/system/dask-cloud.service"
END = "/etc/dask-cloud-end"
VARIANTS = [
    {},
    {"gpus": 2, "own": OWN_CONFIG},
    {"image": CARRIES, "role": "scheduler", "own": SCRIPT},
    {"boot": "uv", "lock": LOCK, "gpus": 1},
]


def boot_for(role="worker", image=None, own=None, **options):
    config = GCPConfig.of(environment={"GREETING": "two\nlines", "TZ": "UTC"}, user_data=own, **options)
    boot = dataclasses.replace(
        config.boot_for(role, IDENTITY),
        image="" if config.boot == "uv" else image or default_image(),
        secret=boots.secret(PROJECT, IDENTITY.name),
        scheduler=None if role == "scheduler" else "tls://10.255.255.254:8786",
    )
    return config, boot


def made(*, gpus=0, cos=True, **options):
    config, boot = boot_for(**options)
    return boots.user_data(config, IDENTITY, boot, gpus=gpus, cos=cos)


def files(data):
    """What all parts write, the last of each path."""
    found = {}
    for config in configurations(data.decode()):
        found |= written(config)
    return found


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_it_is_text_and_leaves_seven_eighths_of_a_metadata_value(role):
    """With all of the runtime: metadata values are text, which a long name and references to keys make no longer."""
    data = made(role=role)

    assert data.isascii()
    assert len(data) < boots.MAX_USER_DATA / 8
    assert len(made(role=role, image=CARRIES)) < 8192


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_boot_survives_user_data(variant):
    """What another process reads from user data is the Boot that was put there."""
    _, boot = boot_for(**{key: value for key, value in variant.items() if key != "gpus"})

    assert boot == boots.boot_of(made(**variant))
    assert f"gcp-secret:projects/{PROJECT}/secrets/dask-{IDENTITY.name}-machine" == boot.secret


@needs_cloud_init
@pytest.mark.parametrize("variant", VARIANTS)
def test_cloud_init_merges_and_allows_it(variant, tmp_path):
    """The user's own commands come before ours, the service last, and cloud-init's own check finds nothing."""
    kinds, config = as_cloud_init_reads(made(**variant))
    own = variant.get("own")

    assert "" == schema_of(config, tmp_path)
    assert {"bootcmd", "write_files", "runcmd"} == set(config)
    assert ["systemctl", "start", "--no-block", "dask-cloud.service"] == config["runcmd"][-1]
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


def test_container_optimized_os_has_its_own_ways():
    """Its firewall is opened for what the network's rules let in, and its updates are none of a machine's business."""
    found = files(made())
    more = found["/etc/systemd/system/dask-cloud.service.d/gce.conf"].decode()

    assert "ExecStartPre=-iptables -w -A INPUT -p tcp -j ACCEPT" in more
    assert b"--log-driver gcplogs" in found[UNIT]
    assert {"cos-update-strategy": "update_disabled", "serial-port-logging-enable": "true"} == boots.METADATA


def test_gpus_are_given_as_devices_where_no_toolkit_gives_them():
    """Container-Optimized OS installs their driver at boot; another image is expected to have NVIDIA's toolkit."""
    found, other = files(made(gpus=2)), files(made(gpus=2, cos=False))

    assert b"--device /dev/nvidia0 --device /dev/nvidia1 --device /dev/nvidiactl" in found[UNIT]
    assert b"-e LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in found[UNIT]
    assert b"cos-extensions install gpu" in found["/run/dask-cloud/gpus"]
    assert b"--gpus 2" in other[UNIT]
    assert "/run/dask-cloud/gpus" not in other
    assert b"nvidia" not in files(made())[UNIT]


def test_what_a_user_says_of_libraries_holds():
    """An environment variable of the user's is not overwritten."""
    config, boot = boot_for()
    boot = dataclasses.replace(boot, environment={"LD_LIBRARY_PATH": "/mine"})
    found = files(boots.user_data(config, IDENTITY, boot, gpus=1))

    assert b"LD_LIBRARY_PATH" not in found[UNIT]


def test_uv_works_where_it_may_be_executed():
    """Container-Optimized OS keeps programs only in memory, and in a folder that is remounted."""
    found = files(made(boot="uv", lock=LOCK))
    more = found["/etc/systemd/system/dask-cloud.service.d/gce.conf"].decode()
    started = found["/etc/systemd/system/dask-cloud.service.d/uv.conf"].decode()

    assert "mount -o remount,exec /var/lib/dask-cloud-uv" in more
    assert "ExecStart=/var/lib/dask-cloud-uv/environment/bin/python" in started
    assert b"/opt" not in found["/run/dask-cloud/install"]
    assert (
        b"Environment=LD_LIBRARY_PATH=/var/lib/nvidia/lib64"
        in files(made(boot="uv", lock=LOCK, gpus=1))["/etc/systemd/system/dask-cloud.service.d/gpus.conf"]
    )


def test_too_much_is_refused_before_any_call():
    """The error says how many bytes, of what, and whose limit it is."""
    noise = base64.b85encode(os.urandom(220_000)).decode()
    config, boot = boot_for(own=f"{SCRIPT}# {noise}\n")
    with pytest.raises(ConfigError, match=r"bytes of user_data=.*Compute Engine takes 262144"):
        boots.check(config, [boot])
    boots.check(dataclasses.replace(config, user_data=SCRIPT), [boot])


def test_the_last_of_several_parts_is_ours():
    """Where a user's own data is merged, ours is found again."""
    assert ours(made(own=SCRIPT).decode()).startswith("#cloud-config")


def test_logs_are_found_by_the_machine_s_name():
    """What its container wrote, and what its console said before there was one."""
    found = boots.log_filter("p", "dask-it-w-1")

    assert '"projects/p/logs/gcplogs-docker-driver"' in found
    assert '"projects/p/logs/serialconsole.googleapis.com%2Fserial_port_1_output"' in found
    assert 'jsonPayload.instance.name="dask-it-w-1"' in found


@pytest.mark.skipif(sys.platform != "linux", reason="a machine's scripts are for GNU's tools")
class TestEnd:
    """A machine deletes itself through the API, by its own service account."""

    @pytest.fixture
    def service(self):
        with GCEService() as service:
            yield service

    @pytest.fixture
    def host(self, tmp_path):
        host = Host(tmp_path, files(made()))
        host.command("shutdown")
        (tmp_path / "run/dask-cloud/lease").touch()
        return host

    def test_it_deletes_itself(self, host, service, tmp_path):
        """One call, with a token of its own, and the lease ends at once."""
        done = host.run(END, **service.environ)

        assert (
            f"DELETE /compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{service.id}" == service.asked[-1]
        )
        assert "dask-cloud: this machine is being deleted\n" == done.stdout
        assert not (tmp_path / "run/dask-cloud/lease").exists()
        assert [] == host.calls

    @pytest.mark.parametrize(
        "refusal", [(403, "Required 'compute.instances.delete' permission"), (503, "later")]
    )
    def test_a_refusal_is_said_and_the_timer_tries_again(self, host, service, refusal):
        """What the timer runs finds no lease: it deletes the machine as soon as it may, however often it is refused."""
        service.refusals = [refusal]
        refused = host.run(END, **service.environ)
        host.files["/etc/dask-cloud-lease"] = host.files["/etc/dask-cloud-lease"].replace(
            f"/bin/sh {END}".encode(), host.files[END]
        )
        again = host.run("/etc/dask-cloud-lease", **service.environ)

        assert "cannot delete itself yet: " in refused.stdout
        assert refusal[1] in refused.stdout
        assert "is being deleted" in again.stdout
        assert 2 == service.times("DELETE")
        assert [] == host.calls

    def test_a_cloud_that_does_not_answer_is_said(self, host):
        """The network may not be there yet, or not any more."""
        done = host.run(END, GCE_METADATA_HOST="127.0.0.1:9")

        assert "cannot delete itself yet: curl: (7)" in done.stdout

    def test_a_machine_that_may_not_be_deleted_powers_off(self, host, service, tmp_path):
        """After a quarter of an hour only its disk is billed, not the machine."""
        service.refusals = [(403, "never")] * 9
        begun = tmp_path / "run/dask-cloud/ending"
        begun.touch()
        os.utime(begun, times=(time.time() - 14 * 60,) * 2)
        host.run(END, **service.environ)
        assert [] == host.calls
        os.utime(begun, times=(time.time() - 17 * 60,) * 2)
        done = host.run(END, **service.environ)

        assert ["shutdown -h now"] == host.calls
        assert "shutting down, which leaves its disk" in done.stdout

    def test_the_lease_ends_it(self, tmp_path):
        """What the timer runs ends a machine as the end of its container does."""
        found = files(made())

        assert b"/bin/sh /etc/dask-cloud-end\n" in found["/etc/dask-cloud-lease"]
        assert b"ExecStopPost=/bin/sh /etc/dask-cloud-end\n" in found[UNIT]
        assert not any(b"shutdown" in text for path, text in found.items() if path != END)
