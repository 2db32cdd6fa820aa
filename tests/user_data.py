"""User data as cloud-init itself reads it, and as its scripts run."""

from __future__ import annotations

import base64
import email
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

SCRIPT = "#!/bin/sh\necho mine\n"
OWN_CONFIG = (
    "#cloud-config\nruncmd:\n  - [echo, mine]\nwrite_files:\n  - path: /etc/mine\n    content: mine\n"
)
needs_cloud_init = pytest.mark.skipif(
    shutil.which("cloud-init") is None, reason="Debian's package cloud-init is not installed"
)
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)

MERGED = """
import json, sys, tempfile
from cloudinit import handlers, helpers, user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
folder = tempfile.mkdtemp()
paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})
whole = user_data.UserDataProcessor(paths).process(sys.stdin.buffer.read())
handler = CloudConfigPartHandler(paths)
handler.handle_part(None, handlers.CONTENT_START, None, None, None, None)
kinds = []
for part in whole.walk():
    if part.get_content_maintype() == "multipart":
        continue
    kinds.append(part.get_content_type())
    if kinds[-1] == "text/cloud-config":
        text = util.fully_decoded_payload(part)
        handler.handle_part(None, kinds[-1], "part", text, None, part)
print(json.dumps([kinds, handler.cloud_buf]))
"""


def as_cloud_init_reads(data):
    """The kinds of its parts, and the configuration they come to."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", MERGED],
        input=data,
        capture_output=True,
        check=True,
        env={"HOME": "/nowhere"},
    )
    return json.loads(done.stdout)


def configurations(text):
    """The cloud-config of each part that has any, read without cloud-init."""
    parts = [part for part in email.message_from_string(text).walk() if not part.is_multipart()]
    texts = [part.get_payload(decode=True).decode() for part in parts]
    return [yaml.safe_load(text) for text in texts if text.startswith("#cloud-config")]


def written(config):
    """The files that a configuration has cloud-init write, as it writes them."""
    found = {}
    for file in config["write_files"]:
        content = file["content"].encode()
        if "b64" in file.get("encoding", ""):
            content = base64.b64decode(content)
        found[file["path"]] = gzip.decompress(content) if "gz" in file.get("encoding", "") else content
    return found


def schema_of(config, folder):
    """What cloud-init's own check says of a configuration; empty when it is valid."""
    path = folder / "user-data"
    path.write_text(f"#cloud-config\n{yaml.safe_dump(config)}")
    done = subprocess.run(
        ["cloud-init", "schema", "--config-file", path], capture_output=True, text=True, check=False
    )
    valid = done.stdout.strip() == f"Valid cloud-config: {path}"
    return "" if valid else done.stdout + done.stderr


def units_of(config, folder):
    """The names of the units a configuration writes, and what systemd does not understand of them."""
    units = []
    for file in config["write_files"]:
        if file["path"].startswith("/etc/systemd/system/"):
            path = folder / Path(file["path"]).relative_to("/etc/systemd/system")
            path.parent.mkdir(exist_ok=True)
            path.write_text(file["content"])
            units += [path] if path.parent == folder else []
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    apart = ("docker", "is not executable")  # what they start need not be installed here
    ours = [line for line in lines if "dask-cloud" in line and not any(word in line for word in apart)]
    return [path.name for path in units], ours


class Host:
    """Runs scripts of user data with a folder for `/`, and notes which of the host's commands they call."""

    def __init__(self, root, files):
        self.root = root
        self.files = files
        self.bin = root / "bin"
        for folder in ("bin", "run/dask-cloud", "var/lib", "dev/disk/by-id", "etc"):
            (root / folder).mkdir(parents=True)

    def command(self, name, code="exit 0"):
        """Play one of the host's commands, by what a shell does in its place."""
        (self.bin / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {self.root}/calls\n{code}\n')
        (self.bin / name).chmod(0o755)

    def run(self, path, *arguments, **environ):
        """Run one of the files as a script, to its end."""
        return subprocess.run(
            self.line(path, *arguments),
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            check=False,
        )

    def line(self, path, *arguments):
        """The command line of it."""
        text = self.files[path].decode()
        for folder in ("run/dask-cloud", "var/lib/dask-cloud", "dev/disk", "dev/nvme"):
            text = text.replace(f"/{folder}", f"{self.root}/{folder}")
        return ["sh", "-c", text, "sh", *arguments]

    def environ(self, **more):
        """What it finds."""
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", **more}

    @property
    def calls(self):
        """Which commands it called so far."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.replace(str(self.root), "") for line in lines]
