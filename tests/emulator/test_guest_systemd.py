"""systemd of an emulated machine runs services and timers as the real one does, and refuses what it does not model."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from cloudprovider.emulator.guest_units import (
    BadUnit,
    calendar_time,
    read_environment,
    read_unit,
    seconds,
)
from cloudprovider.emulator.images import Images
from cloudprovider.emulator.room import Room

if TYPE_CHECKING:
    from guests import Machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")


@pytest.fixture(scope="module")
def room():
    room = Room(Images())
    yield room
    room.close()


@pytest.fixture
def boot_units(boot):
    """Boots a machine with these units, or files, that runs commands."""

    def boot_units(units, *commands, **options) -> Machine:
        files = "".join(
            f"  - path: {name if name.startswith('/') else f'/etc/systemd/system/{name}'}\n    content: |\n"
            + "".join(f"      {line.strip()}\n" for line in text.strip().splitlines())
            for name, text in units.items()
        )
        runcmd = "".join(f"  - [sh, -c, '{command}']\n" for command in commands)
        return boot(f"#cloud-config\nwrite_files:\n{files}runcmd:\n{runcmd}", **options)

    return boot_units


def test_service_runs_its_commands_in_order(boot_units):
    """ExecStartPre, ExecStart, ExecStop and ExecStopPost follow each other, with the unit's variables in them."""
    machine = boot_units(
        {
            "/etc/variables": "# not this\nB='two words'\nC=3\n",
            "a.service": """[Unit]
            Description=All of it
            [Service]
            Environment="A=one word" Z=z
            EnvironmentFile=/etc/variables
            EnvironmentFile=-/etc/missing
            ExecStartPre=-/bin/false
            ExecStartPre=/bin/echo pre ${A} $B $$HOME %n
            ExecStart=/bin/sh -c "echo main $C; exit $${Z:+0}"
            ExecStop=/bin/echo stop
            ExecStopPost=/bin/echo post
            StandardOutput=journal+console""",
        },
        "systemctl start a",
    )
    machine.said("Deactivated successfully")

    lines = machine.console.splitlines()
    assert [
        "echo: pre one word two words $HOME a.service",
        "sh: main 3",
        "echo: stop",
        "echo: post",
    ] == [line for line in lines if line.startswith(("echo: ", "sh: "))]
    # A simple service counts as started while its program begins: which of both is heard first is chance.
    assert [
        "systemd[1]: Starting a.service - All of it...",
        "systemd[1]: Started a.service - All of it.",
        "systemd[1]: a.service: Deactivated successfully.",
    ] == [line for line in lines if line.startswith("systemd[1]: ") and "a.service" in line]


def test_failed_start_is_told_to_who_asked(boot_units):
    """A oneshot that fails makes `systemctl start` fail, in systemd's words, and its stop commands still run."""
    machine = boot_units(
        {
            "bad.service": """[Service]
            Type=oneshot
            ExecStart=/bin/sh -c "exit 6"
            ExecStart=/bin/echo never
            ExecStop=/bin/echo not stopped
            ExecStopPost=/bin/echo post
            StandardOutput=journal+console""",
            "pre.service": "[Service]\nExecStartPre=/bin/false\nExecStart=/bin/echo never\nStandardOutput=journal+console",
        },
        "systemctl start bad || echo code $?; systemctl is-failed bad; systemctl start pre || echo code $?",
        "systemctl start missing || echo code $?; systemctl is-active missing || echo code $?",
    )
    console = machine.finished()

    assert ["1", "1", "5", "3"] == [line[-1] for line in console.splitlines() if "cloud-init: code" in line]
    assert "Job for bad.service failed because the control process exited with error code." in console
    assert "bad.service: Main process exited, code=exited, status=6" in console
    assert "cloud-init: failed" in console
    assert "Unit missing.service not found." in console
    assert "echo: post" in console
    assert "never" not in console
    assert "echo: not stopped" not in console


def test_unknown_settings_make_a_unit_bad(boot_units):
    """A setting that is not emulated is an error on the console: nobody can come to rely on it."""
    machine = boot_units(
        {"odd.service": "[Service]\nExecStart=/bin/true\nCPUQuota=20%%\n"},
        "systemctl start odd || echo code $?",
    )
    console = machine.finished()

    assert "/etc/systemd/system/odd.service:3: Unknown key name 'CPUQuota' in section 'Service'." in console
    assert "Unit odd.service has a bad unit file setting." in console
    assert "cloud-init: code 1" in console


def test_a_folder_beside_a_unit_adds_to_it(boot_units):
    """What its files say comes after the unit's own, and what they leave empty is forgotten before."""
    machine = boot_units(
        {
            "a.service": "[Service]\nExecStartPre=/bin/echo one\nExecStart=/bin/echo ours\nStandardOutput=journal+console",
            "a.service.d/b.conf": "[Service]\nExecStartPre=/bin/echo two\nExecStart=\nExecStart=/bin/echo theirs",
            "a.service.d/ignored": "[Service]\nExecStart=/bin/echo nobody",
        },
        "systemctl start a.service",
    )
    machine.said("echo: theirs")
    said = [
        line.partition("echo: ")[2] for line in machine.finished().splitlines() if line.startswith("echo:")
    ]

    assert ["one", "two", "theirs"] == said


def test_masked_units_do_not_start(boot_units):
    """A masked unit cannot be started, and neither can one whose own file is there be masked."""
    machine = boot_units(
        {"mine.service": "[Service]\nExecStart=/bin/true\n"},
        "systemctl mask --now docker ghost; systemctl start docker || echo code $?",
        "systemctl is-active docker; systemctl mask mine || echo code $?; systemctl is-enabled docker ghost",
    )
    console = machine.finished()

    assert "Created symlink /etc/systemd/system/docker.service → /dev/null." in console
    assert "Unit ghost.service does not exist, proceeding anyway." in console
    assert "Failed to start docker.service: Unit docker.service is masked." in console
    assert "Failed to mask unit: File /etc/systemd/system/mine.service already exists." in console
    assert "cloud-init: inactive" in console
    assert 2 == console.count("cloud-init: masked")


def test_stopping_waits_no_longer_than_the_unit_says(boot_units):
    """A service that ignores SIGTERM is killed after TimeoutStopSec; one that does not ends at once."""
    machine = boot_units(
        {
            "deaf.service": "[Service]\nExecStart=/bin/sh -c \"trap '' TERM; echo up; while :; do sleep 0.1; done\"\nTimeoutStopSec=1\nStandardOutput=journal+console",
            "good.service": "[Service]\nExecStart=/bin/sleep 600",
        },
        "systemctl start deaf good; systemctl stop good; systemctl is-active good deaf",
    )
    machine.finished()
    machine.said("sh: up")
    began = time.monotonic()
    machine.guest.stop(60)
    machine.halted()

    assert 0.9 < time.monotonic() - began
    assert "cloud-init: inactive\ncloud-init: active" in machine.console


def test_changed_units_count_after_a_reload(boot_units):
    """A unit file that changed is read again after daemon-reload, and not before."""
    machine = boot_units(
        {"a.service": "[Service]\nType=oneshot\nExecStart=/bin/echo first\nStandardOutput=journal+console"},
        "systemctl start a; sed -i s/first/second/ /etc/systemd/system/a.service; systemctl start a",
        "systemctl daemon-reload; systemctl start a",
    )
    console = machine.finished()

    assert 2 == console.count("echo: first")
    assert 1 == console.count("echo: second")


def test_service_restarts_as_it_says_until_it_is_given_up(boot_units):
    """Restart=on-failure starts a failed service again, until it failed too often."""
    machine = boot_units(
        {
            "a.service": '[Service]\nExecStart=/bin/sh -c "echo try; exit 1"\nRestart=on-failure\nStandardOutput=journal+console'
        },
        "systemctl start a",
    )
    machine.said("a.service: Start request repeated too quickly.")

    assert 5 == machine.console.count("sh: try")


def test_timers_elapse_in_scaled_time(boot_units):
    """OnActiveSec, OnUnitActiveSec and OnBootSec count in the emulated time; a calendar time is as it is."""
    soon = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + 4))
    service = "[Service]\nType=oneshot\nExecStart=/bin/echo {0}\nStandardOutput=journal+console"
    machine = boot_units(
        {
            "often.timer": "[Timer]\nOnActiveSec=100\nOnUnitActiveSec=5min\nAccuracySec=1",
            "often.service": service.format("often"),
            "booted.timer": "[Timer]\nOnBootSec=1min 40s\nUnit=of-boot.service",
            "of-boot.service": service.format("boot"),
            "date.timer": f"[Timer]\nOnCalendar={soon}",
            "date.service": service.format("date"),
            "past.timer": "[Timer]\nOnCalendar=2020-01-01 00:00:00 UTC",
            "past.service": service.format("past"),
            "stopped.timer": "[Timer]\nOnActiveSec=100",
            "stopped.service": service.format("stopped"),
        },
        "systemctl enable --now often.timer; systemctl start booted.timer date.timer past.timer stopped.timer",
        "systemctl stop stopped.timer",
        scale=0.01,
    )
    machine.said("echo: boot")
    machine.said("echo: date")
    deadline = time.monotonic() + 30
    while machine.console.count("echo: often") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)

    assert 2 <= machine.console.count("echo: often")
    assert "echo: past" not in machine.console
    assert "echo: stopped" not in machine.console


# --- Unit files ------------------------------------------------------------------------------------------


def test_unit_is_read_with_all_its_forms():
    """Comments, joined lines, several sections, settings that are emptied, and commands that may fail."""
    unit = read_unit(
        "a.service",
        "# comment\n[Unit]\nDescription=It\nAfter=x\n\n[Service]\n; comment\nEnvironment=A=1 \\\n  B=2\n"
        "ExecStartPre=/bin/lost\nExecStartPre=\nExecStart=-/bin/run 'a b' \"c %n\"\nTimeoutStopSec=1min 30s\n[Install]\nWantedBy=x y\n",
    )

    assert "a.service - It" == unit.description
    assert ["A=1", "B=2"] == unit.words("Environment")
    assert "ExecStartPre" not in unit.commands
    assert ("/bin/run", "a b", "c a.service") == unit.commands["ExecStart"][0].words
    assert unit.commands["ExecStart"][0].may_fail
    assert 90 == unit.seconds("TimeoutStopSec", 1)
    assert ["x", "y"] == unit.words("WantedBy")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.service", "[Service]\nExecStart=/bin/a\nNonsense=1", "a.service:3: Unknown key name 'Nonsense'"),
        ("a.service", "[Serv]\n", "Unknown section 'Serv'"),
        ("a.service", "ExecStart=/bin/a", "Assignment outside of section"),
        ("a.service", "[Service]\nExecStart", "Missing '='"),
        ("a.service", "[Service]\nType=oneshot", "Service has no ExecStart= setting"),
        ("a.service", "[Service]\nExecStart=/a\nExecStart=/b", "more than one ExecStart="),
        ("a.service", "[Service]\nType=notify\nExecStart=/a", "Failed to parse Type=notify"),
        ("a.service", "[Service]\nType=oneshot\nRestart=always\nExecStart=/a", "isn't allowed"),
        ("a.service", "[Service]\nExecStart=/bin/date +%s", "Failed to resolve unit specifiers"),
        ("a.service", "[Service]\nExecStart=+/bin/a", "the command is not understood here"),
        ("a.service", "[Service]\nExecStart=/bin/a 'b", "No closing quotation"),
        ("a.service", "[Service]\nExecStart=/a\nTimeoutStopSec=soon", "Failed to parse time span: soon"),
        ("a.timer", "[Timer]\nAccuracySec=1", "Timer unit lacks value setting"),
        ("a.timer", "[Timer]\nOnCalendar=daily", "Failed to parse calendar specification"),
        ("a.path", "[Unit]\nDescription=x", "units of this kind are not understood here"),
    ],
)
def test_wrong_units_are_refused(name, text, why):
    """What is wrong in a unit file, or not emulated, is refused with its place."""
    with pytest.raises(BadUnit) as raised:
        read_unit(name, text)

    assert why in str(raised.value)


def test_times_are_read_as_systemd_reads_them():
    """Spans add their parts; calendar times are absolute and in UTC."""
    assert [90, 0.5, 7200, 5, float("inf")] == [
        seconds(span) for span in ("1min 30s", "500ms", "2 hours", "5", "infinity")
    ]
    assert 1_700_000_000 == calendar_time("@1700000000")
    assert (
        1_700_000_000
        == calendar_time("Tue 2023-11-14 22:13:20 UTC")
        == calendar_time("2023-11-14 22:13:20 UTC")
    )


def test_variables_are_read_as_systemd_reads_them():
    """A file of variables has comments and quotes, and values with equals signs."""
    assert {"A": "1", "B": "x y", "C": "a=b"} == read_environment("# c\n;d\nA=1\n B='x y'\nC=a=b\nnothing\n")
