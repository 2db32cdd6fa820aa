"""With engine 'podman' machines are real containers of real images."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest
from cloudruntime.boot import Boot
from cloudruntime.exits import Exit
from cloudruntime.packing import BOOTSTRAP, PACKED, packed
from container_images import official, with_distributed
from distributed import Client

from cloudprovider.emulator.images import ImageNotFound, Images
from cloudprovider.emulator.podman import LABEL, command, unavailable
from cloudprovider.emulator.room import Process, Room
from cloudprovider.provider import Identity
from cloudprovider.security import client_security, make_secrets

pytestmark = [pytest.mark.podman, pytest.mark.timeout(300)]


@dataclass
class Watched:
    """A machine, and all that the room told of it."""

    lines: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    process: Process | None = None

    def ended(self, code: int) -> None:
        self.codes.append(code)
        self.over.set()

    def end(self) -> int:
        assert self.over.wait(60), self.lines
        return self.codes[0]

    def said(self, text: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := [line for line in self.lines if text in line]:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"never said {text!r}, but {self.lines}")


def containers() -> list[str]:
    listed = [*command(), "ps", "--all", "--quiet", f"--filter=label={LABEL}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def plain():
    """An image that has `distributed` but nothing of ours."""
    if why := unavailable():
        pytest.skip(why)
    return with_distributed()


@pytest.fixture(scope="module")
def images(plain):
    images = Images()
    images.add(plain)
    return images


@pytest.fixture(scope="module")
def room(images):
    room = Room(images, engine="podman")
    try:
        start(room, next(i.name for i in images if "dask-cloud-test" in i.name), "python", "--version").end()
    except OSError as error:
        room.close()
        pytest.skip(f"podman cannot run containers here: {error.strerror}")
    yield room
    room.close()
    assert [] == containers()


def start(room, image, *argv, address="127.31.7.5", **environ) -> Watched:
    watched = Watched()
    watched.process = room.start(
        image=image,
        argv=argv,
        environ=environ,
        address=address,
        architecture="X86_64",
        log=watched.lines.append,
        exited=watched.ended,
    )
    return watched


def test_container_is_a_machine(room, plain, monkeypatch):
    """A container has its own environment and process 1, says its lines, and ends with its own code."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "precious")
    code = (
        "import os; print(os.getpid(), os.environ['HOSTNAME'], repr(os.environ['MINE']), os.environ['HOME']);"
        "print('AWS_SECRET_ACCESS_KEY' in os.environ); raise SystemExit(7)"
    )
    watched = start(room, plain, "python", "-c", code, MINE="a\n'b'", HOME="/tmp")

    assert 7 == watched.end()
    assert ["1 ip-127-31-7-5.ec2.internal \"a\\n'b'\" /tmp", "False"] == watched.lines


def test_container_is_stopped_as_a_machine_is(room, plain):
    """SIGTERM reaches a handler; without one the container lives until it is killed."""
    code = "import signal, sys, time; {}; print('up', flush=True); time.sleep(60)"
    polite = start(room, plain, "python", "-c", code.format("signal.signal(15, lambda *_: sys.exit(5))"))
    deaf = start(room, plain, "python", "-c", code.format("pass"))
    for machine in (polite, deaf):
        machine.said("up")
    polite.process.stop(30)
    deaf.process.stop(0.5)

    assert (5, 137) == (polite.end(), deaf.end())


def test_container_that_cannot_start_is_an_error(room, images, plain):
    """A command that is not in the image, and an image that is not there, are what they are for a process."""
    with pytest.raises(FileNotFoundError, match="executable file not found"):
        start(room, plain, "no-such-command")
    images.add("localhost/dask-cloud-test/nothing:1")
    with pytest.raises(ImageNotFound, match="CannotPullContainerError"):
        start(room, "localhost/dask-cloud-test/nothing:1", "true")


def test_killed_emulator_leaves_no_container(room, plain, tmp_path):
    """`kill -9` of the process that runs the cloud leaves no container."""
    program = tmp_path / "emulator.py"
    program.write_text(
        "import time\n"
        "from cloudprovider.emulator.images import Images\n"
        "from cloudprovider.emulator.room import Room\n"
        f"images = Images(); images.add({plain!r}); room = Room(images, engine='podman')\n"
        f"room.start(image={plain!r}, argv=['python', '-c', 'import time; print(1, flush=True); time.sleep(60)'],\n"
        "           environ={}, address='127.31.7.8', architecture='X86_64',\n"
        "           log=lambda line: print(line, flush=True), exited=print)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as emulator:
        assert "1\n" == emulator.stdout.readline()
        assert 1 == len(containers())
        emulator.kill()

    deadline = time.monotonic() + 20
    while containers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [] == containers()


def computes(room, image, number: int, *argv, **environ) -> None:
    """A scheduler and a worker of an image find each other over TLS, and compute."""
    now = int(time.time())
    keys = make_secrets(Identity(name="podman", owner="test", created=now, expires=now + 3600))
    host = f"127.31.8.{number}"
    scheduler = f"tls://{host}:8786"

    def machine(role: str, address: str, **more: str) -> Watched:
        boot = Boot(cluster="podman", role=role, image=image, secret="env:DASK_CLOUD_SECRET", nthreads=1)
        more |= {"DASK_CLOUD_BOOT": boot.dumps(), "DASK_CLOUD_SECRET": keys.machine, **environ}
        more |= {"DASK_CLOUD_MACHINE": f"{role}-0", "DASK_CLOUD_ADDRESS": address}
        more |= {PACKED: packed(boot)} if BOOTSTRAP in argv else {}
        return start(room, image, *argv, address=address, **more)

    leader = machine("scheduler", host)
    worker = machine("worker", f"127.31.8.{number + 1}", DASK_CLOUD_SCHEDULER=scheduler)
    leader.said("scheduler-0 at")
    with Client(scheduler, security=client_security(keys.client), timeout=30) as client:
        client.wait_for_workers(1, timeout=60)
        assert 3 == client.submit(sum, [1, 2]).result(timeout=30)
        assert ["worker-0"] == [info["name"] for info in client.scheduler_info()["workers"].values()]
    leader.process.stop(30)

    assert (Exit.interrupted, Exit.interrupted) == (leader.end(), worker.end())


def test_boot_brings_the_runtime(room, plain):
    """An image that has `distributed` but nothing of ours becomes scheduler and worker by what the boot brings."""
    computes(room, plain, 1, "python", "-c", BOOTSTRAP)


def test_official_image_carries_the_runtime(room, images):
    """The image that the official Dockerfile makes becomes scheduler and worker by itself, and not as root."""
    try:
        image = official()
    except RuntimeError as error:
        if not re.search(r"Could not fetch URL|NewConnectionError|No matching distribution", str(error)):
            raise
        pytest.skip("the official Dockerfile needs a package index, and there is none here")
    images.add(image, carries_runtime=True)
    watched = start(room, image, "python", "-c", "import os; print(os.getuid())")

    assert 0 == watched.end(), watched.lines
    assert ["1000"] == watched.lines
    computes(room, image, 3, "python", "-m", "cloudruntime")
