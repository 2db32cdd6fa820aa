"""The small parts of the runtime: identity, secrets, versions, exits, the Boot."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cloudruntime import identity, secrets, versions
from cloudruntime.boot import Boot, Leases
from cloudruntime.child import Site
from cloudruntime.exits import REASONS, Ended, Exit, explain
from hypothesis import given
from hypothesis import strategies as st

RUNTIME = Path(__file__).parents[2] / "runtime"
TASK = {
    "TaskARN": "arn:aws:ecs:us-east-1:123456789012:task/dask/0123456789abcdef",
    "Containers": [{"Name": "dask", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.0.5"]}]}],
}
BUNDLE = {"ca": "the ca", "cert": "the cert", "key": "the key", "token": "the token"}

words = st.text(min_size=1, max_size=20)
boots = st.builds(
    Boot,
    cluster=words,
    role=st.sampled_from(["scheduler", "worker"]),
    scheduler=st.none() | words,
    nthreads=st.none() | st.integers(1, 64),
    processes=st.integers(1, 8),
    environment=st.dictionaries(words, words, max_size=3),
    options=st.dictionaries(words, st.integers() | words, max_size=3),
    leases=st.builds(Leases, idle=st.floats(0, 1e6), expires=st.none() | st.integers(0, 2**40)),
    jupyter=st.booleans(),
)


@given(boots)
def test_a_boot_survives_its_json(boot):
    """Whatever a Boot holds, quotes and newlines included, a machine reads the same."""
    assert boot == Boot.loads(boot.dumps())


@pytest.mark.parametrize("news", [{"version": 99}, {"telepathy": True}])
def test_a_boot_of_another_version_says_which(news):
    """What another version wrote is refused by the name of that version."""
    text = Boot(cluster="c", role="worker", versions={"dask-cloud": "9.9"}).dumps()
    with pytest.raises(ValueError, match=r"dask-cloud 9\.9 wrote it"):
        Boot.loads(json.dumps({**json.loads(text), **news}))


@given(boots)
def test_a_site_survives_its_json(boot):
    """A Dask process that is no fork is told all that a fork knows."""
    site = Site(
        boot=boot,
        identity=identity.Identity(id="m", address="10.0.0.5"),
        keys=secrets.Keys(ca="a", cert="b", key="c", token="d"),
        port=8786,
        front_port=8787,
    )

    assert site == Site.loads(site.dumps())


def test_every_exit_has_a_reason_of_its_own():
    """An exit code says why, in words, and is no code that shells or engines use."""
    assert set(Exit) == set(REASONS)
    assert len(set(REASONS.values())) == len(Exit)
    assert all(code == 0 or 3 <= code <= 113 for code in Exit)
    assert "scheduler_lost: no scheduler answered within the lease" == explain(70)
    assert "killed by signal 9: out of memory, or the cloud took the machine" == explain(137)
    assert "exit code 1" == explain(1)
    assert "idle: the cluster had nothing to do for as long as its lease allows: since noon" == str(
        Ended(Exit.idle, "since noon")
    )


def test_ecs_says_who_a_machine_is():
    """The task's id names the machine, its interface's address is what it binds."""
    assert identity.Identity(id="0123456789abcdef", address="10.0.0.5") == identity.of_ecs(TASK)


@pytest.mark.parametrize("task", [{}, {"TaskARN": "arn:x/y", "Containers": []}, {**TASK, "TaskARN": ""}])
def test_an_ecs_answer_without_a_task_or_address_is_an_error(task):
    """What the metadata service says is believed only when it is whole."""
    with pytest.raises(ValueError, match="names no task with an address"):
        identity.of_ecs(task)


class Metadata(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v4/x/task" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(TASK).encode())

    def log_message(self, *_):
        pass


def test_the_metadata_service_is_asked_past_any_proxy():
    """Identity comes from the address in the environment, over http, without a proxy."""
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}/v4/x"
        try:
            me = identity.learn({identity.ECS: url, "http_proxy": "http://127.0.0.1:1"})
            with pytest.raises(ValueError, match="does not answer"):
                identity.learn({identity.ECS: f"{url}/wrong"})
        finally:
            server.shutdown()

    assert "10.0.0.5" == me.address


def test_without_a_metadata_service_the_environment_says_who_a_machine_is():
    """Machines that are local processes are told their names."""
    assert identity.Identity(id="m", address="127.0.0.1") == identity.learn({"DASK_CLOUD_MACHINE": "m"})
    with pytest.raises(ValueError, match="neither"):
        identity.learn({})
    with pytest.raises(ValueError, match="speaks http"):
        identity.learn({identity.ECS: "file:///etc/passwd"})


def test_a_secret_leaves_the_environment():
    """A secret that came in a variable is in no variable afterwards."""
    environ = {"S": json.dumps(BUNDLE)}

    assert BUNDLE == secrets.fetch("env:S", environ)
    assert {} == environ


def test_a_secret_is_read_from_a_file(tmp_path):
    """`file:` names a path."""
    (tmp_path / "secret").write_text(json.dumps(BUNDLE))

    assert BUNDLE == secrets.fetch(f"file:{tmp_path / 'secret'}", {})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("vault:x", "no reference this runtime can follow; it knows env:, file:"),
        ("nonsense", "no reference"),
        ("env:", "no reference"),
        ("env:MISSING", "the environment has no MISSING"),
        ("file:/does/not/exist", "cannot be read"),
        ("env:BROKEN", "no JSON of ca, cert, key"),
        ("env:PARTIAL", "no JSON of ca, cert, key"),
        ("env:LIST", "no JSON of ca, cert, key"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_but_not_shown(reference, message):
    """Errors say which reference is wrong, and nothing of what it holds."""
    environ = {"BROKEN": "-----BEGIN", "PARTIAL": '{"ca": "very secret"}', "LIST": '["very secret"]'}
    with pytest.raises(ValueError, match=message) as error:
        secrets.fetch(reference, environ)

    assert "very secret" not in str(error.value)
    assert "BEGIN" not in str(error.value)


def test_keys_are_files_of_this_user_alone(tmp_path):
    """Keys on disk can be read by nobody else, and `repr` shows no token."""
    keys = secrets.keep(BUNDLE, str(tmp_path))

    for part in secrets.PARTS:
        path = getattr(keys, part)
        assert 0o600 == stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116
        with open(path) as file:  # noqa: PTH123
            assert BUNDLE[part] == file.read()
    assert "the token" == keys.token
    assert "the token" not in repr(keys)


HERE = {"python": "3.12.4", "distributed": "2026.8.0", "numpy": "2.1.0"}


@pytest.mark.parametrize(
    ("client", "wrong"),
    [
        ({"python": "3.12.1", "distributed": "2026.8.0"}, ""),
        ({}, ""),
        ({"python": "3.11.9"}, "the client has python 3.11.9, this image has python 3.12.4"),
        (
            {"distributed": "2026.1.0"},
            "the client has distributed 2026.1.0, this image has distributed 2026.8.0",
        ),
    ],
)
def test_what_dask_cannot_bridge_ends_the_boot(client, wrong):
    """Another Python minor or another distributed is an error that names both."""
    assert (wrong, []) == versions.compare(client, HERE)


def test_other_differences_are_a_warning():
    """Another numpy may work; what the image lacks entirely may not be needed."""
    assert ("", ["the client has numpy 2.0.0, this image has numpy 2.1.0"]) == versions.compare(
        {"numpy": "2.0.0", "pandas": "3.0"}, HERE
    )


def test_versions_are_read_without_importing():
    """The supervisor stays light: it reads versions from metadata."""
    here = versions.installed({"python": "", "numpy": "", "no-such-package": ""})

    assert {"python", "distributed", "numpy"} == set(here)


def test_the_documented_exit_codes_are_the_real_ones():
    """The table in the README and the enumeration say the same."""
    readme = (RUNTIME / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", readme, re.MULTILINE)

    assert [(str(int(exit)), exit.name, REASONS[exit]) for exit in Exit] == rows


def test_the_official_image_runs_the_runtime_as_nobody_special():
    """The Dockerfile sets the entry point, leaves root behind and downloads nothing but packages."""
    lines = (RUNTIME / "Dockerfile").read_text(encoding="utf-8").splitlines()

    assert 'ENTRYPOINT ["python", "-m", "cloudruntime"]' == lines[-1]
    assert "USER dask" in lines
    assert not any(word in line for line in lines for word in ("curl", "wget", "ADD "))
