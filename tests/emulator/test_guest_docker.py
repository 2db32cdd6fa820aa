"""The container engine of an emulated machine takes and refuses what docker does, in its words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.guest_docker_run import BadFlag, read_run
from cloudprovider.emulator.guest_uv import find_uv
from cloudprovider.emulator.images import Images, dask_image
from cloudprovider.emulator.room import Room

if TYPE_CHECKING:
    from guests import Machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")

IMAGE = dask_image()
ARM = "registry.example/arm:1"


@pytest.fixture(scope="module")
def room():
    images = Images()
    images.add(ARM, architectures=["ARM64"])
    images.add("registry.example/started:1", entrypoint=["python", "-c", "import sys; print(sys.argv)"])
    room = Room(images)
    yield room
    room.close()


def script(*commands: str) -> str:
    """A script that says how each command ended."""
    return "#!/bin/sh\n" + "".join(f"{command}\necho code $?\n" for command in commands)


def codes(machine: Machine) -> list[int]:
    return [
        int(line.rpartition(" ")[2])
        for line in machine.finished().splitlines()
        if line.startswith("cloud-init: code ")
    ]


def python(code: str, *options: str, image: str = IMAGE) -> str:
    return f"docker run {' '.join(options)} --entrypoint python {image} -c '{code}'"


def test_run_ends_with_the_containers_code(boot):
    """The exit code of `docker run` is the container's own, or docker's for what it cannot start."""
    machine = boot(
        script(
            python("raise SystemExit(7)", "--rm"),
            f"docker run --rm --entrypoint nowhere {IMAGE}",
            f"docker run --rm --nonsense {IMAGE}",
            "docker run",
            "docker frobnicate",
            "docker run --rm registry.example/started:1 one two",
        )
    )

    assert [7, 127, 125, 125, 1, 0] == codes(machine)
    assert 'exec: "nowhere": executable file not found in $PATH' in machine.console
    assert "docker: unknown flag: --nonsense" in machine.console
    assert "See 'docker run --help'." in machine.console
    assert "['-c', 'one', 'two']" in machine.console


def test_image_that_does_not_exist_cannot_be_pulled(boot):
    """A missing image is refused in docker's words, with its code: 1 for a pull, 125 for a run."""
    missing = "registry.example/missing:1"
    machine = boot(script(f"docker pull {missing}", f"docker run --rm {missing}"))

    assert [1, 125] == codes(machine)
    why = f"Error response from daemon: manifest for {missing} not found: manifest unknown"
    assert f"cloud-init: {why}" in machine.console
    assert f"Unable to find image '{missing}' locally" in machine.console
    assert f"docker: {why}" in machine.console


def test_registry_that_cannot_be_reached_says_so(boot):
    """What the network has against a pull is what docker says of it."""
    machine = boot(
        script(f"docker pull {IMAGE}"), reach=lambda image: f'Get "https://{image[:4]}": i/o timeout'
    )

    assert [1] == codes(machine)
    assert 'Error response from daemon: Get "https://ghcr": i/o timeout' in machine.console


def test_image_for_another_architecture_cannot_run(boot):
    """An image of another architecture is pulled but ends with an exec format error; on its own it runs."""
    other = boot(script(python("print(6 * 7)", image=ARM)))
    own = boot(script(python("print(6 * 7)", image=ARM)), Kind(architecture="arm64"))

    assert [[255], [0]] == [codes(other), codes(own)]
    assert "does not match the detected host platform (linux/amd64)" in other.console
    assert "exec python: exec format error" in other.console
    assert "cloud-init: 42" in own.console


def test_gpus_are_given_only_where_there_are_some(boot):
    """`--gpus all` fails on a machine without a GPU, and shows all of them on one that has some."""
    show = python('import os; print(os.environ["NVIDIA_VISIBLE_DEVICES"])', "--gpus all")
    without, having = boot(script(show, "nvidia-smi -L")), boot(script(show, "nvidia-smi -L"), Kind(gpus=2))

    assert [[125, 9], [0, 0]] == [codes(without), codes(having)]
    assert 'could not select device driver "" with capabilities: [[gpu]]' in without.console
    assert "cloud-init: all" in having.console
    assert 2 == having.console.count("cloud-init: GPU ")


def test_awslogs_needs_a_log_group_that_is_there(boot):
    """Under awslogs a group must be named and exist, an unknown option is refused, and lines go to the stream."""
    machine = boot(
        script(
            python("print(1)", "--log-driver awslogs"),
            python("print(2)", "--log-driver awslogs", "--log-opt awslogs-group=missing"),
            python(
                "print(3)", "--log-driver awslogs", "--log-opt awslogs-group=/dask", "--log-opt nonsense=1"
            ),
            python(
                "print(4)",
                "--log-driver awslogs",
                "--log-opt awslogs-group=/dask",
                "--log-opt awslogs-stream=a/b",
            ),
            python("print(5)", "--log-driver none --name silent"),
            "docker logs silent",
            python("print(6)", "--log-driver nonsense"),
        ),
        open_log=lambda group, *_: (
            "" if group == "/dask" else "ResourceNotFoundException: The specified log group does not exist."
        ),
    )

    assert [125, 125, 125, 0, 0, 1, 125] == codes(machine)
    assert [("/dask", "a/b", "4")] == machine.logged
    assert "must specify a value for log opt 'awslogs-group'" in machine.console
    assert "The specified log group does not exist" in machine.console
    assert "unknown log opt 'nonsense' for awslogs log driver" in machine.console


def test_names_are_unique_until_removed(boot):
    """A container's name is taken until it is removed, which one that runs is not without force."""
    machine = boot(
        script(
            python("import time; time.sleep(600)", "-d --name one"),
            python("print(1)", "--name one"),
            "docker ps --filter name=one",
            "docker rm one",
            "docker rm -f one",
            python("print(2)", "--name one"),
            "docker stop one missing",
        )
    )

    assert [0, 125, 0, 1, 0, 0, 1] == codes(machine)
    assert 'Conflict. The container name "/one" is already in use by container' in machine.console
    assert "running   one" in machine.console
    assert "Error response from daemon: No such container: missing" in machine.console


def test_stop_asks_before_it_kills(boot):
    """`docker stop` sends SIGTERM and waits as long as it is told; what has no handler is killed then, as PID 1."""
    handler = 'import signal, sys, time; signal.signal(15, lambda *_: sys.exit(5)); print("ready", flush=True); time.sleep(600)'
    ready = "until docker logs {0} | grep -q ready; do sleep 0.05; done"
    machine = boot(
        script(
            python(handler, "-d --name polite"),
            ready.format("polite"),
            "docker stop polite",
            "test $(docker wait polite) = 5",
            python('import time; print("ready", flush=True); time.sleep(600)', "-d --name deaf"),
            ready.format("deaf"),
            "docker stop -t 0 deaf",
            "test $(docker wait deaf) = 137",
        )
    )

    assert [0] * 8 == codes(machine)


def test_foreground_run_hands_sigterm_on(boot):
    """A `docker run` in the foreground that is asked to end hands that on to its container."""
    code = 'import signal, sys, time; signal.signal(15, lambda *_: sys.exit(5)); print("ready", flush=True); time.sleep(600)'
    machine = boot(
        f"#!/bin/sh\n{python(code, '--rm --name it')} &\n"
        "until docker logs it | grep -q ready; do sleep 0.05; done\nkill -TERM $!\nwait $!\necho code $?\n"
    )

    assert [5] == codes(machine)


def test_without_its_engine_there_is_no_docker(boot):
    """When the engine's service is stopped, docker cannot connect to it."""
    machine = boot(script("systemctl stop docker", "docker ps", f"docker run {IMAGE}"))

    assert [0, 1, 125] == codes(machine)
    assert "Cannot connect to the Docker daemon" in machine.console


def test_folders_are_where_the_container_expects_them(boot):
    """A mounted folder's path in a container's environment, command and program means the machine's folder."""
    machine = boot(
        """#!/bin/sh
mkdir -p /run/shared
echo 'import os; print(open("/inside/file").read() + os.environ["AT"] + " " + os.environ["NOT"])' > /run/shared/program
echo hello > /run/shared/file
"""
        f"docker run --rm -v /run/shared:/inside -e AT=@/inside/file -e NOT=/insider --entrypoint python {IMAGE} /inside/program\n"
        "cat /run/shared/file\n"
    )
    console = machine.finished()

    assert 2 == console.count("cloud-init: hello")
    assert "cloud-init: @/run/shared/file /insider" in console


# --- What `docker run` is told ---------------------------------------------------------------------------


def read(*words: str, environ=None, files=None):
    def opened(name):
        if name not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    return read_run(words, environ or {}, opened)


def test_flags_come_in_every_form():
    """Long and short flags, values joined or apart, switches together: all mean the same."""
    found = read(
        *(
            "-dit",
            "--name=n",
            "-eA=1",
            "-e",
            "B=2=3",
            "-v/a:/b",
            "--env",
            "OWN",
            "--env",
            "NONE",
            "--net",
            "host",
        ),
        *(
            "--env-file",
            "/f",
            "--stop-timeout",
            "120",
            "--ulimit=nofile=1:2",
            "--shm-size",
            "2g",
            "i:1",
            "--not",
            "-x",
        ),
        environ={"OWN": "mine"},
        files={"/f": "# no\n\nC=c d\nA=0\nOWN\n"},
    )

    assert found.detach
    assert ("n", "host", 120.0) == (found.name, found.network, found.stop_timeout_s)
    assert {"A": "1", "B": "2=3", "C": "c d", "OWN": "mine"} == found.environ
    assert {"/b": "/a"} == found.mounts
    assert ("i:1", ("--not", "-x")) == (found.image, found.command)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--frob", "i"], "unknown flag: --frob"),
        (["-z", "i"], "unknown shorthand flag: 'z' in -z"),
        (["--name"], "flag needs an argument: --name"),
        (["--rm"], "requires at least 1 argument"),
        (["--env-file", "/none", "i"], "open /none: no such file or directory"),
        (["--env-file", "/bad", "i"], "variable 'A B' contains whitespaces"),
        (["--ulimit", "nofile", "i"], "invalid ulimit argument: nofile"),
        (["--shm-size", "big", "i"], "invalid size"),
        (["--stop-timeout", "soon", "i"], "invalid syntax"),
        (["--restart", "always", "i"], "is not understood here"),
        (["--network", "mine", "i"], "network mine not found"),
        (["-v", "/a:b", "i"], "mount path must be absolute"),
        (["-p", "80:80", "i"], "unknown shorthand flag: 'p' in -p"),
    ],
)
def test_wrong_flags_are_refused(words, why):
    """What docker does not take, or what is not emulated, is refused before anything starts."""
    with pytest.raises(BadFlag) as raised:
        read(*words, files={"/bad": "A B=1\n"})

    assert why in str(raised.value)


def test_uv_is_copied_out_of_its_image(boot):
    """A container that was never started gives what is in its image and nothing else; uv runs without a network."""
    image = f"ghcr.io/astral-sh/uv:0.12.6@sha256:{64 * '0'}"
    machine = boot(
        script(
            f"docker create --name uv {image}",
            "docker cp uv:/uv /usr/local/bin/uv",
            "docker cp uv:/etc/passwd /tmp/passwd",
            "docker cp uv:/uv nowhere:/uv",
            "docker cp missing:/uv /uv",
            "docker rm uv",
            "uv --version",
        )
    )

    assert [0, 0, 1, 1, 1, 0, 0 if find_uv() else 127] == codes(machine)
    assert "Could not find the file /etc/passwd in container uv" in machine.console
    assert "No such container: missing" in machine.console
    assert ("cloud-init: uv " if find_uv() else "set UV to its path") in machine.console
