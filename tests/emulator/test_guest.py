"""An emulated machine boots, runs what its user data says, and ends as a real one does."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import sys
import time
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from guests import Machine, all_gone, lives

from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.images import Images, dask_image
from cloudprovider.emulator.room import Room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")

IMAGE = dask_image()
MASK = "bootcmd: [[systemctl, mask, --now, ecs.service]]\n"
SLEEPER = "import signal, sys, time; print('up', flush=True); signal.signal(15, lambda *_: sys.exit(3)); time.sleep(600)"

#: As our own machines are: a container whose end is the machine's, and a lease outside of it.
LEASED = f"""#cloud-config
{MASK}
write_files:
  - path: /run/work/lease
    content: ""
  - path: /etc/lease
    content: |
      find /run/work/lease -newermt '-2 seconds' | grep -q . && exit
      echo 'nothing renewed the lease'
      shutdown -h now
  - path: /etc/systemd/system/lease.service
    content: |
      [Service]
      Type=oneshot
      ExecStart=/bin/sh /etc/lease
      StandardOutput=journal+console
  - path: /etc/systemd/system/lease.timer
    content: |
      [Timer]
      OnActiveSec=300
      OnUnitActiveSec=300
  - path: /run/work/program
    content: |
      import os, time
      while True:
          os.utime(os.environ["LEASE"])
          print("renewed", flush=True)
          time.sleep(0.2)
  - path: /etc/systemd/system/work.service
    content: |
      [Service]
      ExecStart=docker run --rm --name work --network host -e LEASE=/run/work/lease -v /run/work:/run/work --stop-timeout 1 --entrypoint python {IMAGE} /run/work/program
      ExecStop=-docker stop work
      ExecStopPost=shutdown -h now
      TimeoutStopSec=2
      StandardOutput=journal+console
runcmd:
  - [systemctl, start, lease.timer]
  - [systemctl, start, --no-block, work.service]
"""


@pytest.fixture(scope="module")
def images():
    return Images()


@pytest.fixture(scope="module")
def room(images):
    room = Room(images)
    yield room
    room.close()


def units(**services: str) -> str:
    """A cloud-config with services, which starts them all."""
    files = "".join(
        f"  - path: /etc/systemd/system/{name.replace('_', '-')}.service\n    content: |\n"
        + "".join(f"      {line}\n" for line in text.strip().splitlines())
        for name, text in services.items()
    )
    starts = "".join(f"  - [systemctl, start, --no-block, {name.replace('_', '-')}]\n" for name in services)
    return f"#cloud-config\n{MASK}write_files:\n{files}runcmd:\n{starts}"


# --- Life and death --------------------------------------------------------------------------------------


def test_user_data_with_one_docker_run_runs_its_container(boot):
    """User data that starts a container gets its output on the console and in the log service, under its names."""
    machine = boot(
        f"""#cloud-config
runcmd:
  - [docker, run, --rm, --network, host, --log-driver, awslogs, --log-opt, awslogs-group=/dask, --log-opt,
     awslogs-stream=c/1, -e, WHO=me, --entrypoint, python, "{IMAGE}", -c, "import os; print('I am', os.environ['WHO'])"]
"""
    )

    assert "cloud-init: I am me" in machine.finished()
    assert ("/dask", "c/1", "I am me") == machine.log("I am")


def test_containers_end_shuts_the_machine_down(boot):
    """A unit whose ExecStopPost is a shutdown ends the machine with its container, and nothing runs afterwards."""
    machine = boot(
        units(
            work=f"""[Service]
ExecStart=docker run --rm --entrypoint python {IMAGE} -c "print('done')"
ExecStopPost=shutdown -h now
StandardOutput=journal+console"""
        )
    )
    machine.halted()

    assert "docker: done" in machine.console
    assert machine.lines[-1].endswith("reboot: Power down")
    assert [] == machine.guest.pids


def test_power_button_stops_services_by_their_stop_command(boot):
    """The power button has a unit's container stopped with SIGTERM, which it can answer, before the power goes."""
    machine = boot(
        units(
            work=f"""[Service]
ExecStart=docker run --rm --name work --stop-timeout 30 --entrypoint python {IMAGE} -c "{SLEEPER}"
ExecStop=-docker stop work
StandardOutput=journal+console"""
        )
    )
    machine.said("docker: up")
    pids = machine.guest.pids
    machine.guest.stop(30)
    machine.halted()

    assert (
        "work.service: Main process exited, code=exited, status=3" not in machine.console
    )  # it was asked to
    assert "Stopped work.service" in machine.console
    assert pids
    assert all_gone(pids)


def test_power_button_does_not_wait_for_ever(boot):
    """What lives on after the power button's time is killed, and the machine is off."""
    machine = boot(
        units(
            deaf="""[Service]
ExecStart=/bin/sh -c "trap '' TERM; echo deaf; while :; do sleep 1; done"
StandardOutput=journal+console"""
        )
    )
    machine.said("sh: deaf")
    pids = machine.guest.pids
    machine.guest.stop(0.5)
    machine.halted(20)

    assert all_gone(pids)


def test_kill_leaves_nothing_and_tells_nobody(boot):
    """When the power is cut, every process of the machine is gone, its script's children too, without a word."""
    machine = boot("#!/bin/sh\necho begun\nsleep 600 &\necho child=$!\nwait\n")
    child = int(machine.said("child=").partition("child=")[2])
    pids = [child, *machine.guest.pids]
    assert all(lives(pid) for pid in pids)
    machine.guest.kill()

    assert all_gone(pids)
    assert not machine.halts.acquire(timeout=0.3)


def test_frozen_container_ends_with_its_lease(boot):
    """A container that is frozen renews no lease: a timer outside of it ends the machine, container and all."""
    machine = boot(LEASED, scale=0.01)
    machine.said("docker: renewed")
    time.sleep(3)  # longer than the lease: it is renewed
    assert "nothing renewed" not in machine.console
    container = _lasting(machine)
    os.kill(container, signal.SIGSTOP)
    machine.halted(30)

    assert "sh: nothing renewed the lease" in machine.console
    assert all_gone([container])


def test_machine_that_was_stopped_boots_again(boot):
    """At its second boot a machine runs bootcmd and enabled units but no runcmd, with its disk but an empty /run."""
    machine = boot(
        """#cloud-config
bootcmd:
  - [systemctl, mask, --now, ecs.service]
  - [sh, -c, "echo boot >> /var/boots"]
write_files:
  - path: /etc/systemd/system/each.service
    content: |
      [Service]
      Type=oneshot
      ExecStart=/bin/sh -c "echo enabled >> /var/units"
      [Install]
      WantedBy=multi-user.target
runcmd:
  - [systemctl, enable, each.service]
  - [sh, -c, "echo once >> /var/runs; touch /run/here; poweroff"]
"""
    )
    machine.halted()
    assert "once\n" == machine.read("/var/runs")
    machine.lines.clear()
    machine.guest.boot()
    machine.finished()
    machine.said("Finished each.service")

    assert "boot\nboot\n" == machine.read("/var/boots")
    assert "once\n" == machine.read("/var/runs")
    assert "enabled\n" == machine.read("/var/units")
    assert not machine.guest.path("/run/here").exists()


@pytest.mark.parametrize(
    "command", ["poweroff", "systemctl poweroff", "shutdown -h now", "shutdown now", "halt"]
)
def test_machine_can_switch_itself_off(boot, command):
    """Every way to switch a machine off from inside does."""
    boot(f"#cloud-config\nruncmd: [[{', '.join(command.split())}]]\n").halted()


def test_reboot_boots_again_and_is_no_halt(boot):
    """A machine that reboots is not told to have halted, and comes up again."""
    machine = boot("#!/bin/sh\nreboot\n")
    machine.said("reboot: Restarting system")
    machine.said("finished at")

    assert not machine.halts.acquire(timeout=0.2)


def test_shutdown_can_be_scheduled_and_taken_back(boot):
    """`shutdown +N` ends the machine after N minutes of the emulated time, unless it is taken back."""
    kept = boot("#!/bin/sh\nshutdown -h +1\nshutdown -c\necho kept\n", scale=0.02)
    ended = boot("#cloud-config\nruncmd: [[shutdown, -P, '+1', bye]]\n", scale=0.02)
    ended.halted()

    assert "Shutdown scheduled for" in ended.console
    assert "kept" in kept.finished()
    assert not kept.halts.acquire(timeout=1.5)


def test_ecs_agent_joins_unless_it_is_masked(boot):
    """On an ECS-optimised image the agent registers with the cluster `default`, as in life, unless it is masked."""
    free, masked, other = (
        boot("#!/bin/sh\ntrue\n"),
        boot(f"#cloud-config\n{MASK}"),
        boot(kind=Kind(ecs_agent=False)),
    )
    free.said("Registered container instance with cluster default")
    masked.finished()
    other.finished()

    assert ["default", "", ""] == [machine.guest.ecs_cluster for machine in (free, masked, other)]


def test_scripts_of_the_user_start_containers(boot):
    """A user's own script is really run by the shell, and its docker, systemctl and shutdown are the machine's."""
    machine = boot(
        f"""#!/bin/sh
set -e
mkdir -p /opt/data && echo 'of the machine' > /opt/data/file
id=$(docker run -d --name mine -v /opt/data:/data:ro -e FILE=/data/file --entrypoint python {IMAGE} -c '
import os
print("read", open(os.environ["FILE"]).read())')
echo "id has ${{#id}} letters"
test "$(docker wait mine)" = 0
/usr/bin/docker logs mine > /var/log/mine
test "$(docker inspect -f '{{{{.State.Status}}}}' mine)" = exited
systemctl is-active docker
docker rm mine
shutdown -h now
"""
    )
    machine.halted()

    assert "cloud-init: id has 64 letters" in machine.console
    assert "read of the machine\n\n" == machine.read("/var/log/mine")
    assert "Unable to find image" in machine.console


def test_scripts_touch_nothing_but_the_machines_disk(boot):
    """A path in a script is the machine's: nothing of this computer changes, and the console shows no other."""
    machine = boot(
        "#!/bin/sh\necho secret > /etc/of-the-guest\nls /etc/of-the-guest /tmp\ncat /nowhere /etc/nothing\n"
    )
    console = machine.finished()

    assert "secret\n" == machine.read("/etc/of-the-guest")
    assert not os.path.exists("/etc/of-the-guest")  # noqa: PTH110
    assert "cloud-init: /etc/of-the-guest" in console
    assert "cat: /etc/nothing: No such file or directory" in console
    assert str(machine.guest.path("/")) not in console


def test_programs_know_the_machines_network(boot):
    """What the machine's network offers is in the environment of its scripts and its containers, and no secret is."""
    machine = boot(
        f"#!/bin/sh\necho script=$ENDPOINT\n"
        f'docker run --rm --entrypoint python {IMAGE} -c \'import os; print("box=" + os.environ["ENDPOINT"])\'\n',
        environ={"ENDPOINT": "http://127.0.0.1:9"},
    )
    console = machine.finished()

    assert "cloud-init: script=http://127.0.0.1:9" in console
    assert "cloud-init: box=http://127.0.0.1:9" in console


@pytest.mark.parametrize("disks", [0, 1, 2])
def test_local_disks_are_where_life_has_them(boot, disks):
    """Instance-store disks appear by id, can be formatted and mounted once formatted, and what is not there cannot."""
    machine = boot(
        """#!/bin/sh
ls /dev/disk/by-id | grep -c Instance_Storage
mkdir /scratch
for disk in $(readlink -e /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_* | sort -u); do
  mount $disk /scratch || mkfs.xfs -q $disk && mount $disk /scratch && mountpoint /scratch && echo mounted
done
mount /dev/nvme7n1 /scratch || echo refused
""",
        Kind(disks=disks),
    )
    console = machine.finished()

    assert f"cloud-init: {disks * 2}" in console  # by the controller, and by its namespace
    assert disks == console.count("cloud-init: mounted")
    assert disks == console.count("wrong fs type")
    assert "special device /dev/nvme7n1 does not exist" in console
    assert "cloud-init: refused" in console


def test_mime_parts_run_in_order_and_merge(boot):
    """A gzip'd MIME multipart of a script and two cloud-configs runs all, the second config's lists appended."""
    message = MIMEMultipart()
    for subtype, text, merge in (
        (
            "cloud-config",
            "#cloud-config\nbootcmd: [[sh, -c, 'echo 1 boot']]\nruncmd: [[sh, -c, 'echo 4 run']]\n",
            "",
        ),
        ("x-shellscript", "#!/bin/sh\necho 3 script\n", ""),
        (
            "cloud-config",
            "#cloud-config\nbootcmd: [[sh, -c, 'echo 2 boot']]\nruncmd: [echo 5 run]\n",
            "list(append)+dict(no_replace,recurse_list)+str()",
        ),
    ):
        part = MIMEText(text, subtype)
        if merge:
            part["Merge-Type"] = merge
        message.attach(part)
    machine = boot(gzip.compress(message.as_bytes()))

    said = [line.partition("cloud-init: ")[2] for line in machine.finished().splitlines()]
    assert ["1 boot", "2 boot", "3 script", "4 run", "5 run"] == [line for line in said if line[:1].isdigit()]


def test_fifty_machines_boot_in_a_few_seconds_of_cpu(boot, room):
    """Fifty machines with a service, a timer and a container each boot with little more than what is forked."""
    began = resource.getrusage(resource.RUSAGE_SELF)
    text = units(
        work=f"""[Service]
ExecStart=docker run --rm --network host --log-driver awslogs --log-opt awslogs-group=g --log-opt awslogs-stream=s --entrypoint python {IMAGE} -c "{SLEEPER}"
ExecStopPost=shutdown -h now"""
    )
    machines = [boot(text, address=f"127.31.1.{number}") for number in range(1, 51)]
    for machine in machines:
        machine.log("up", 120)
    used = resource.getrusage(resource.RUSAGE_SELF)

    assert used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime < 15
    pids = [machine.guest.pids for machine in machines]
    assert [1] * 50 == [len(own) for own in pids]  # one container, and no interpreter or shell beside it


def _lasting(machine: Machine) -> int:
    """The process of a machine that stays; its timer's come and go."""
    pids = set(machine.guest.pids)
    while len(pids) > 1:
        time.sleep(0.1)
        pids &= set(machine.guest.pids)
    return pids.pop()
