"""Emulated machines have the operating systems that Compute Engine and Azure boot, with what can be told apart from within."""

from __future__ import annotations

import sys

import pytest

from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.guest_systems import SYSTEMS
from cloudprovider.emulator.images import Images, dask_image
from cloudprovider.emulator.room import Room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")

IMAGE = dask_image()


@pytest.fixture(scope="module")
def room():
    room = Room(Images())
    yield room
    room.close()


def script(*commands: str) -> str:
    """A script that says how each command ended."""
    return "#!/bin/sh\n" + "".join(f"{command}\necho code $?\n" for command in commands)


def codes(machine) -> list[int]:
    lines = [line for line in machine.finished().splitlines() if line.startswith("cloud-init: code ")]
    return [int(line.rpartition(" ")[2]) for line in lines]


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_says_what_it_is(boot, system):
    """On its console, in its own file, and where cloud-init has its data from."""
    machine = boot("#!/bin/sh\ngrep ^ID= /etc/os-release\n", Kind(system=system))
    console, known = machine.finished(), SYSTEMS[system]

    assert f"Welcome to {known.title} {known.version}!" in console
    assert f'cloud-init: ID="{known.id}"' in console
    assert f"Datasource {known.datasource}." in console


def test_container_optimized_os_forgets_what_it_was_told(boot):
    """Its configuration and cloud-init's memory are empty at each boot, so that it does all of it again."""
    machine = boot(
        "#!/bin/sh\necho once >> /etc/told\necho once >> /var/lib/told\ncat /etc/told /var/lib/told | wc -l\n",
        Kind(system="cos"),
    )
    machine.finished()
    machine.guest.stop(10)
    machine.halted()
    machine.lines.clear()
    machine.guest.boot()

    assert "cloud-init: 3" in machine.finished()


def test_rules_of_its_firewall_are_noted(boot):
    """They are not in force, as the network's own rules are; what is no rule is refused."""
    rule = "-A INPUT -p tcp -j ACCEPT"
    machine = boot(script(f"iptables -w {rule}", "iptables -F"), Kind(system="cos"))

    assert [0, 2] == codes(machine)
    assert [rule] == machine.guest.firewall


def test_gpus_are_devices_once_their_driver_is_installed(boot):
    """Without NVIDIA's toolkit the engine gives a container devices, which are not there before."""
    show = '-c \'import os; print("gpus", os.environ.get("NVIDIA_VISIBLE_DEVICES"))\''
    run = f"docker run --rm --device /dev/nvidia0 --device /dev/nvidia1 --entrypoint python {IMAGE} {show}"
    machine = boot(
        script(
            run,
            f"docker run --rm --gpus 1 --entrypoint python {IMAGE} {show}",
            "cos-extensions install tpu",
            "cos-extensions install gpu && mount --bind /var/lib/nvidia /var/lib/nvidia",
            "mount -o remount,exec /var/lib/nvidia",
            run,
        ),
        Kind(system="cos", gpus=2),
        scale=0.001,
    )

    assert [125, 125, 1, 0, 0, 0] == codes(machine)
    assert "gpus 0,1" in machine.console
    assert 'adding custom device "/dev/nvidia0": no such file or directory' in machine.console


@pytest.mark.parametrize(
    ("system", "install"),
    [
        ("azure-linux", "tdnf install -qy moby-engine moby-cli"),
        ("ubuntu", "apt-get -qq update && apt-get -qqy -o DPkg::Lock::Timeout=120 install docker.io"),
    ],
)
def test_an_engine_is_there_once_it_is_installed(boot, system, install):
    """Before there is neither command nor service, and a service that requires it cannot start."""
    unit = "[Unit]\\nRequires=docker.service\\n[Service]\\nExecStart=docker ps\\n"
    machine = boot(
        script(
            "systemctl cat docker.service",
            "docker ps",
            f"printf '{unit}' > /etc/systemd/system/mine.service; systemctl start mine.service",
            "cos-extensions install gpu",
            f"{install.split()[0]} install emacs",
            install,
            "systemctl start mine.service && systemctl is-active docker.service",
            f"docker run --rm --entrypoint python {IMAGE} -c 'print(6 * 7)'",
        ),
        Kind(system=system),
        scale=0.001,
    )

    assert [1, 127, 5, 127, 1, 0, 0, 0] == codes(machine)
    assert "Unit docker.service not found" in machine.console
    assert "cloud-init: 42" in machine.console


def test_containers_log_to_google_cloud(boot):
    """Under `gcplogs` the log's name is known; a service account that may not write is said when a container starts."""
    run = f"docker run --rm --name mine --log-driver gcplogs {{}} --entrypoint python {IMAGE} -c 'print(1)'"
    logs = boot(
        script(run.format("--log-opt mode=non-blocking"), run.format("--log-opt tag=x")), Kind(system="cos")
    )
    refused = boot(
        script(run.format("")), Kind(system="cos"), open_log=lambda *asked: f"{asked} is not allowed"
    )

    assert [0, 125] == codes(logs)
    assert [("gcplogs-docker-driver", "mine", "1")] == logs.logged
    assert [125] == codes(refused)
    assert (
        "authenticate with Google Cloud Logging: ('gcplogs-docker-driver', 'mine', False)" in refused.console
    )


def test_what_comes_after_a_service_knows_how_it_ended(boot):
    """As systemd tells ExecStopPost: the result, and the exit code of what failed."""
    unit = '[Service]\\nExecStart=/bin/sh -c "exit {}"\\nExecStopPost=/bin/sh -c "echo $SERVICE_RESULT $EXIT_STATUS"\\nStandardOutput=journal+console\\n'
    commands = [
        f"printf '{unit.format(code)}' > /etc/systemd/system/s{code}.service; systemctl start s{code}.service"
        for code in (0, 64)
    ]
    machine = boot(script(*commands))

    machine.said("sh: success 0")
    machine.said("sh: exit-code 64")


@pytest.mark.parametrize(
    ("system", "pattern"),
    [("cos", "/dev/disk/by-id/google-local-*"), ("azure-linux", "/dev/disk/azure/local/by-serial/*")],
)
def test_local_disks_have_the_clouds_names(boot, system, pattern):
    """They can be formatted and mounted where the cloud says that they are."""
    machine = boot(
        f"#!/bin/sh\nmkdir /scratch\nfor disk in `readlink -e {pattern}`; do\n"
        "  mkfs.ext4 -qF $disk && mount -o noatime $disk /scratch && echo mounted\ndone\n",
        Kind(system=system, disks=2),
    )

    assert 2 == machine.finished().count("cloud-init: mounted")
