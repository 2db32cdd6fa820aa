"""What an EC2 machine is told at its first boot: sizes, cloud-init's own opinion, and the scripts as they run."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib.util
import json
import os
import sys
import time
from importlib import metadata

import pytest
import yaml
from cloudruntime.boot import Boot
from hypothesis import given
from hypothesis import strategies as st
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

from cloudprovider import autonomous
from cloudprovider.errors import ConfigError
from cloudprovider.images import default_image, manager_image
from cloudprovider.provider import Identity
from cloudprovider.providers import _ec2_boot as boots
from cloudprovider.providers._ec2_config import EC2Config
from cloudprovider.security import make_secrets

CARRIES = "ghcr.io/dask/dask-cloud-runtime:2026.8.0-py3.11"
IDENTITY = Identity(
    name="team-analytics-nightly-etl-2026-production"[:40], owner="me", created=0, expires=1_900_000_000
)
ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "ap-southeast-3",
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.7",
    "EXTRA_SETTINGS": '{"bucket": "s3://a-bucket-of-ours/with/a/prefix", "retries": 5}',
    "GREETING": "two\nlines",
    "MLFLOW_TRACKING_URI": "https://mlflow.internal.example.com/api",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": "/opt/our/packages:/opt/more",
    "TZ": "Europe/Berlin",
}
LOCK = f"distributed=={metadata.version('distributed')}\n"


def boot_for(role, image=CARRIES, **options):
    config = EC2Config.of(environment=ENVIRONMENT, **options)
    boot = dataclasses.replace(
        config.boot_for(role, IDENTITY), image=image, secret=f"ssm:/dask/{IDENTITY.name}/machine"
    )
    return config, dataclasses.replace(
        boot, scheduler=None if role == "scheduler" else "tls://10.255.255.254:8786"
    )


def made(role="worker", image=CARRIES, gpus=0, **options):
    config, boot = boot_for(role, image, **options)
    where = {"region": "ap-southeast-3", "log_group": "/company/analytics/dask"}
    return boots.user_data(config, IDENTITY, boot, gpus=gpus, **where)


def document(data):
    return yaml.safe_load(gzip.decompress(data))


def parts_of(data):
    return configurations(gzip.decompress(data).decode())


def files(data):
    return written(document(data))


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_it_is_small_where_the_image_carries_the_runtime(role):
    """With references to the keys, a long name and an environment, it is a quarter of what EC2 takes."""
    assert len(made(role)) < 4096


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_it_leaves_room_where_the_boot_brings_the_runtime(role):
    """A quarter of what EC2 takes is left for the user's own, also when the image has nothing of ours."""
    assert len(made(role, default_image())) < 12_288


def test_the_rest_of_the_runtime_fits_beside_the_keys():
    """Secrets stay parameters of Systems Manager, whatever the cluster is called, and hold what one may hold."""
    keys = make_secrets(IDENTITY).machine
    _, brought = boot_for("scheduler", default_image())
    _, carried = boot_for("scheduler")
    stored = boots.secrets(keys, [brought])

    assert f"ssm:/dask/{IDENTITY.name}/machine,/dask/{IDENTITY.name}/scheduler/machine" == boots.secret(
        brought
    )
    assert {"machine", "scheduler/machine", "worker/machine"} == set(stored)
    assert all(len(value) <= 8192 and "{{" not in value for value in stored.values())
    assert json.loads(keys) == {k: v for k, v in json.loads(stored["machine"]).items() if k != "rest"}
    assert f"ssm:/dask/{IDENTITY.name}/machine" == boots.secret(carried)
    assert {"machine": keys} == boots.secrets(keys, [carried])
    with pytest.raises(ConfigError, match="elliptic curve"):
        boots.secrets(json.dumps({"ca": "x" * 4000}), [brought])


environments = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60),
    max_size=4,
)


@given(environment=environments, own=st.sampled_from([None, SCRIPT, OWN_CONFIG]), uv=st.booleans())
def test_the_boot_survives_user_data(environment, own, uv):
    """What another process reads from user data is the Boot that was put there, whatever it holds."""
    config, boot = boot_for("worker", **({"image": "", "boot": "uv", "lock": LOCK} if uv else {}))
    boot = dataclasses.replace(boot, environment=environment)
    config = dataclasses.replace(config, user_data=own)

    assert boot == boots.boot_of(
        boots.user_data(config, IDENTITY, boot, region="us-east-1", log_group="/dask")
    )


def test_variables_of_one_line_are_the_container_s():
    """Python reads PYTHONPATH before any code of ours could set it; what has two lines goes with the Boot."""
    lines = files(made())["/run/dask-cloud/environment"].decode().splitlines()
    boot = Boot.loads(files(made())["/run/dask-cloud/boot"].decode())

    assert "PYTHONPATH=/opt/our/packages:/opt/more" in lines
    assert {"GREETING": "two\nlines"} == boot.environment


def test_the_agent_is_masked_first_and_nothing_is_installed():
    """The first command of the first boot masks what would join an ECS cluster; no other key is used."""
    told = document(made())

    assert ["systemctl", "mask", "--now", "ecs.service", "amazon-ecs-volume-plugin.service"] == told[
        "bootcmd"
    ][0]
    assert {"bootcmd", "write_files", "runcmd"} == set(told), "cloud-init ignores keys that it does not know"


def test_gpus_are_given_to_the_container():
    """Only where there are any, since the engine refuses the option otherwise."""
    unit = "/etc/systemd/system/dask-cloud.service"

    assert b"--gpus 4 " in files(made(gpus=4))[unit]
    assert b"--gpus" not in files(made())[unit]


def test_its_log_goes_to_a_stream_of_its_own():
    """The stream is named after the cluster and the machine's id, which only the machine knows."""
    unit = files(made())["/etc/systemd/system/dask-cloud.service"].decode()

    assert f"awslogs-stream={IDENTITY.name}/`cat /var/lib/cloud/data/instance-id`" in unit
    assert "awslogs-group=/company/analytics/dask" in unit
    assert f"{IDENTITY.name}/i-1" == boots.log_stream(IDENTITY.name, "i-1")


# -- the user's own -------------------------------------------------------------------------------------


MIME = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=="

--==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
echo mine

--==
Content-Type: text/cloud-config; charset="us-ascii"

#cloud-config
runcmd: [[echo, mine]]
write_files: [{path: /etc/mine, content: mine}]
packages: [git]

--==--
"""


@needs_cloud_init
@pytest.mark.parametrize(
    ("own", "kinds"),
    [
        (None, []),
        (SCRIPT, ["text/x-shellscript"]),
        (OWN_CONFIG, ["text/cloud-config"]),
        (OWN_CONFIG + "merge_how: dict(replace)+list()+str()\n", ["text/cloud-config"]),
        (OWN_CONFIG.replace("mine", "größer"), ["text/cloud-config"]),
        (MIME, ["text/x-shellscript", "text/cloud-config"]),
    ],
)
def test_the_user_s_own_user_data_is_merged(own, kinds):
    """cloud-init itself reads both from gzip, the user's commands before ours, and loses neither's."""
    found, config = as_cloud_init_reads(made(user_data=own))
    plain = document(made())

    assert [*kinds, "text/cloud-config"] == found
    assert plain["bootcmd"] == config["bootcmd"]
    assert plain["write_files"] == config["write_files"][-len(plain["write_files"]) :]
    assert plain["runcmd"] == config["runcmd"][-len(plain["runcmd"]) :]
    if own and "#cloud-config" in own:
        word = "größer" if "größer" in own else "mine"
        assert ["echo", word] == config["runcmd"][0]
        assert {"path": f"/etc/{word}", "content": word} == config["write_files"][0]
    if own == MIME:
        assert ["git"] == config["packages"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("echo mine", "begin a script with #!/bin/sh"),
        ("#cloud-config\nruncmd: echo", "runcmd that is no list"),
        ("#cloud-config\n- a", "no mapping"),
        ("#cloud-config\n: :\n  - [", "no YAML"),
    ],
)
def test_what_cloud_init_would_not_read_is_refused(own, message):
    """Before any call: cloud-init would only log it, on a machine that nobody can look into."""
    config, boot = boot_for("worker")
    with pytest.raises(ConfigError, match=message):
        boots.check(dataclasses.replace(config, user_data=own), [boot])


def test_too_much_is_refused_before_any_call():
    """The error says how many bytes, of what, and what to do."""
    noise = base64.b85encode(os.urandom(12_000)).decode()
    config, boot = boot_for("scheduler", default_image(), user_data=f"{SCRIPT}# {noise}\n")
    with pytest.raises(
        ConfigError, match=r"would be \d{5} bytes, of which \d{5} bytes of user_data="
    ) as error:
        boots.check(config, [boot])

    assert "bytes of the runtime" in str(error.value)
    assert "bytes of environment=" in str(error.value)
    assert "EC2 takes 16384" in str(error.value)
    assert "carries the runtime" in str(error.value)
    boots.check(dataclasses.replace(config, user_data=SCRIPT), [boot])


def test_a_lock_that_is_too_large_is_named():
    """With its bytes; a lock with the hashes of every file is what makes user data too large."""
    noise = "".join(f" --hash=sha256:{os.urandom(32).hex()}" for _ in range(300))
    config, boot = boot_for("worker", image="", boot="uv", lock=f"{LOCK}zict==3.0{noise}\n")
    with pytest.raises(ConfigError, match=r"\d{5} bytes of lock=") as error:
        boots.check(config, [boot])

    assert "pylock.toml" in str(error.value)


def test_an_environment_made_of_a_lock_leaves_room():
    """For forty packages with the hashes of both architectures, beside the runtime and an environment."""
    config, boot = boot_for("scheduler", image="", boot="uv", lock=LOCK)
    for number in range(40):
        hashes = "".join(f" --hash=sha256:{os.urandom(32).hex()}" for _ in range(2))
        config = dataclasses.replace(config, lock=f"{config.lock}package-{number}==1.{number}{hashes}\n")
    boots.check(config, [boot])

    assert len(made("scheduler", "", boot="uv", lock=LOCK)) < 12_500


def test_only_an_autonomous_scheduler_has_a_manager():
    """A unit of its own runs the manager's image with its mandate; workers are told nothing of it."""
    told = [one["write_files"] for one in parts_of(made("scheduler", autonomous=True))]
    more, rest = ({file["path"] for file in part} for part in told)
    found = written({"write_files": told[0]})
    unit = found["/etc/systemd/system/dask-cloud-manager.service"].decode()
    variables = dict(line.split("=", 1) for line in found["/run/dask-cloud/manager"].decode().splitlines())

    assert {"/run/dask-cloud/manager", "/etc/systemd/system/dask-cloud-manager.service"} == more
    assert set(files(made("scheduler"))) == rest
    assert set(files(made())) == set(files(made(autonomous=True)))
    assert (
        " ".join(("--entrypoint", *autonomous.COMMAND[:1], manager_image(), *autonomous.COMMAND[1:])) in unit
    )
    assert f"awslogs-stream={IDENTITY.name}/`cat /var/lib/cloud/data/instance-id`/manager" in unit
    assert {"AWS_DEFAULT_REGION", autonomous.MANDATE} == set(variables)
    assert "ap-southeast-3" == autonomous.Mandate.of_environment(variables).options["region"]
    assert len(made("scheduler", autonomous=True)) < 5120
    assert len(made("scheduler", default_image(), autonomous=True)) < 13_312


# -- cloud-init's and systemd's own opinions ------------------------------------------------------------


VARIANTS = [
    {"role": role, "image": image, "gpus": gpus, "user_data": own}
    for role in ("scheduler", "worker")
    for image, gpus, own in ((CARRIES, 0, None), (default_image(), 2, OWN_CONFIG))
]
VARIANTS += [
    {"image": "", "boot": "uv", "lock": LOCK, "user_data": own} for own in (None, SCRIPT, OWN_CONFIG)
]


VARIANTS.append({"role": "scheduler", "autonomous": True})


@needs_cloud_init
@pytest.mark.parametrize("variant", VARIANTS)
def test_cloud_init_s_schema_allows_it(variant, tmp_path):
    """Every variant, the user's own merged in, is what cloud-init's own check calls valid."""
    _, config = as_cloud_init_reads(made(**variant))

    assert "" == schema_of(config, tmp_path)


@needs_systemd
@pytest.mark.parametrize(
    "kind", ["plain", *(pytest.param(kind, marks=needs_cloud_init) for kind in ("uv", "autonomous"))]
)
def test_systemd_reads_the_units(tmp_path, kind):
    """Each setting of theirs is known to systemd; what they start need not be installed here."""
    if kind == "plain":
        whole = document(made(gpus=1))
    elif kind == "uv":
        _, whole = as_cloud_init_reads(made("worker", "", boot="uv", lock=LOCK))
    else:
        _, whole = as_cloud_init_reads(made("scheduler", autonomous=True))
    units, wrong = units_of(whole, tmp_path)
    more = ["dask-cloud-manager.service"] if kind == "autonomous" else []

    assert ["dask-cloud-lease.service", "dask-cloud-lease.timer", *more, "dask-cloud.service"] == sorted(
        units
    )
    assert [] == wrong


# -- its scripts, as they run ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="a machine's scripts are for GNU's tools")
class TestLease:
    """The machine's own timer ends it, whatever became of the container."""

    @pytest.mark.parametrize(
        ("age_s", "expires", "ends"),
        [(0, 1_900_000_000, False), (550, 1_900_000_000, False), (650, 1_900_000_000, True), (0, 1000, True)],
    )
    def test_it_ends_the_machine(self, tmp_path, monkeypatch, age_s, expires, ends):
        """A lease that nobody has renewed for its length ends the machine, and so does the hard end."""
        host = Host(tmp_path, files(made()))
        host.command("shutdown")
        lease = tmp_path / "run/dask-cloud/lease"
        lease.touch()
        os.utime(lease, times=(time.time() - age_s,) * 2)
        path = "/etc/dask-cloud-lease"
        host.files[path] = host.files[path].replace(b"1900000000", str(expires).encode())
        done = host.run(path)

        assert (["shutdown -h now"] if ends else []) == host.calls
        assert ends == ("shutting down" in done.stdout)

    def test_no_lease_ends_the_machine(self, tmp_path):
        """After a reboot the lease is gone with the memory it was in, and what ran does not come back."""
        host = Host(tmp_path, files(made()))
        host.command("shutdown")
        host.run("/etc/dask-cloud-lease")

        assert ["shutdown -h now"] == host.calls

    def test_it_is_as_long_as_a_start_may_take(self):
        """The image is pulled under the first lease."""
        text = files(made(start_timeout="20 minutes"))["/etc/dask-cloud-lease"]

        assert b"'-1200 seconds'" in text


@pytest.mark.skipif(sys.platform != "linux", reason="a machine's scripts are for GNU's tools")
@pytest.mark.parametrize(
    ("count", "mdadm", "calls"),
    [
        (0, True, []),
        (1, True, ["mkfs.xfs -qK /dev/nvme1", "mount -o noatime /dev/nvme1 /var/lib/dask-cloud"]),
        (
            3,
            True,
            [
                "mdadm --create /dev/md/dask-cloud --run --level 0 --raid-devices 3 /dev/nvme1 /dev/nvme2 /dev/nvme3",
                "mkfs.xfs -qK /dev/md/dask-cloud",
                "mount -o noatime /dev/md/dask-cloud /var/lib/dask-cloud",
            ],
        ),
        (2, False, ["mkfs.xfs -qK /dev/nvme1", "mount -o noatime /dev/nvme1 /var/lib/dask-cloud"]),
    ],
)
def test_local_disks_become_scratch(tmp_path, count, mdadm, calls):
    """Instance store disks, each named twice, are striped, formatted and mounted; without any there is a folder."""
    host = Host(tmp_path, files(made()))
    host.command("mkfs.xfs")
    host.command("mount")
    host.command("mdadm", "exit 0" if mdadm else "exit 1")
    for number in range(1, count + 1):
        (tmp_path / f"dev/nvme{number}").touch()
        for name in (f"AWS{number}", f"AWS{number}-ns-1"):
            link = tmp_path / f"dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_{name}"
            link.symlink_to(tmp_path / f"dev/nvme{number}")
    host.run("/run/dask-cloud/scratch")

    assert calls == [call for call in host.calls if mdadm or not call.startswith("mdadm")]
    assert 0o1777 == (tmp_path / "var/lib/dask-cloud").stat().st_mode & 0o7777


def test_the_tests_need_no_network():
    """cloud-init is used as it is installed; nothing of it is a dependency of ours."""
    assert importlib.util.find_spec("cloudinit") is None
