"""User data is read as cloud-init reads it, and its complaints are cloud-init's."""

from __future__ import annotations

import base64
import gzip
import sys

import pytest

from cloudprovider.emulator.guest_userdata import merged, read_user_data, shell_script
from cloudprovider.emulator.images import Images
from cloudprovider.emulator.room import Room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")

INSTANCE = {
    "v1": {"instance_id": "i-7", "local-hostname": "h"},
    "ds": {"meta_data": {"instance-type": "m7i.large"}},
}


@pytest.fixture(scope="module")
def room():
    room = Room(Images())
    yield room
    room.close()


def read(data):
    return read_user_data(data if isinstance(data, bytes) else data.encode(), INSTANCE)


def test_files_are_written_as_said(boot):
    """Contents in every encoding, permissions, appended and deferred files are as write_files says."""
    packed = base64.b64encode(gzip.compress(b"packed")).decode()
    machine = boot(
        f"""#cloud-config
bootcmd: [[sh, -c, "test -e /opt/plain || echo none yet"]]
write_files:
  - {{path: /opt/plain, content: "text\\n"}}
  - {{path: /opt/plain, content: more, append: true}}
  - {{path: /opt/b64, content: {base64.b64encode(b"bytes").decode()}, encoding: b64, permissions: "0600"}}
  - {{path: /opt/packed, content: {packed}, encoding: gz+b64}}
  - {{path: /opt/binary, content: !!binary {packed}, encoding: gzip}}
  - {{path: /opt/late, content: late, defer: true}}
  - {{content: nowhere}}
  - {{path: ../../../opt/escaped, content: kept inside}}
  - {{path: /opt/odd, content: odd, encoding: rot13, permissions: rwx}}
"""
    )
    console = machine.finished()

    assert ["text\nmore", "bytes", "packed", "packed", "late", "kept inside", "odd"] == [
        machine.read(f"/opt/{name}")
        for name in ("plain", "b64", "packed", "binary", "late", "escaped", "odd")
    ]
    assert 0o600 == machine.guest.path("/opt/b64").stat().st_mode & 0o777
    assert "cloud-init: none yet" in console
    assert (
        "cc_write_files.py[WARNING]: No path provided to write for entry 7 in module write-files" in console
    )
    assert "Unknown encoding type rot13, assuming text/plain" in console
    assert "Undecodable permissions 'rwx', returning default 644" in console


def test_failures_are_said_as_cloud_init_says_them(boot):
    """A module that fails is logged in cloud-init's words, and the next ones run all the same."""
    machine = boot(
        """#cloud-config
bootcmd: [[sh, -c, "exit 4"]]
write_files: [{path: /opt/x, content: "?", encoding: gzip}]
packages: [htop]
runcmd:
  - [sh, -c, "echo still running; exit 3"]
"""
    )
    console = machine.finished()

    assert "Failed to run bootcmd module bootcmd" in console
    assert "Running module bootcmd (<module 'cloudinit.config.cc_bootcmd'" in console
    assert "Running module write-files (<module 'cloudinit.config.cc_write_files'" in console
    assert "cloud-init: still running" in console
    assert "Failed to run module scripts-user (scripts in /var/lib/cloud/instance/scripts)" in console
    assert "does nothing for 'packages'" in console


def test_machine_knows_its_instance(boot):
    """The files that tell a machine who it is are there before the first command, as are template variables."""
    machine = boot(
        "## template: jinja\n#cloud-config\nbootcmd:\n"
        "  - [sh, -c, 'echo {{ v1.instance_id }} {{ ds.meta_data.local_ipv4 }} $INSTANCE_ID']\n"
        "  - cat /var/lib/cloud/data/instance-id\n"
        "  - grep -c instance_id /run/cloud-init/instance-data.json\n",
        address="127.31.0.77",
    )
    console = machine.finished()
    own = machine.read("/var/lib/cloud/data/instance-id").strip()

    assert own.startswith("i-")
    assert f"cloud-init: {own} 127.31.0.77 {own}" in console
    assert f"cloud-init: {own}\n" in console


def test_runcmd_of_texts_is_one_script(boot):
    """Commands of runcmd share one shell, as in life: a failure ends none, and a folder changed stays so."""
    machine = boot("#cloud-config\nruncmd: [cd /opt, A=1, [false], 'echo $A; touch here', [ls, /opt]]\n")

    assert "cloud-init: 1\ncloud-init: here" in machine.finished()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"just words", "Unhandled non-multipart (text/x-not-multipart) userdata: 'b'just words'...'"),
        (b"#include http://x", "Unhandled unknown content-type (text/x-include-url)"),
        (b"#cloud-config\na: [", "Failed loading yaml blob"),
        (b"#cloud-config\n- a", "Failed loading yaml blob"),
        (b"#cloud-config\n", "empty cloud config"),
        (
            b"## template: jinja\n#cloud-config\na: '{{ v1.nothing }}'",
            "Could not render jinja template variables",
        ),
        (b"## template: jinja\n#cloud-config\na: '{{ v1. }}'", "Ignoring jinja template for part-001"),
        (b"\x1f\x8bnot gzip", "Unhandled non-multipart"),
    ],
)
def test_what_cannot_be_used_is_said(data, why):
    """Formats and texts that cloud-init does not take are told as it tells them, and do nothing."""
    found = read(data)

    assert why in "\n".join(text for _, text in found.warnings)
    assert not found.scripts


def test_beginning_tells_a_part():
    """What a part is follows from how it begins, compressed or not, with the instance's data in a template."""
    config = read(gzip.compress(b"#cloud-config\na: 1\n")).config
    rendered = read(
        "## template: jinja\n#cloud-config\na: {{ instance_id }} {{ v1.local_hostname }}\n"
    ).config
    scripts = read("#!/bin/sh\r\necho\r\n").scripts

    assert {"a": 1} == config
    assert {"a": "i-7 h"} == rendered
    assert [("instance/scripts", "part-001", "#!/bin/sh\necho\n")] == scripts


def test_later_config_replaces_unless_told_to_merge():
    """By default a later cloud-config's keys replace those before; its mergers can have lists appended."""
    old, new = {"a": [1], "b": {"c": 1}, "s": "x"}, {"a": [2], "b": {"d": 2}, "s": "y"}

    assert new == merged(old, new, {"dict": ["replace"], "list": [], "str": []})
    assert {"a": [1, 2], "b": {"c": 1, "d": 2}, "s": "x"} == merged(
        old, new, {"dict": ["no_replace", "recurse_list"], "list": ["append"]}
    )
    assert [2, 1] == merged([1], [2], {"list": ["prepend"]})


def test_commands_become_a_script():
    """Words of a list are quoted, texts are the shell's own, and anything else is refused."""
    assert "#!/bin/sh\n'echo' 'it'\\''s' '1'\necho $A\n" == shell_script(
        [["echo", "it's", 1], "echo $A", None]
    )
    with pytest.raises(TypeError, match="Expected list or tuple"):
        shell_script("echo")
    with pytest.raises(TypeError, match="Unable to shellify type 'int'"):
        shell_script([1])
