"""The machine room runs machines as processes that are like containers, and leaves nothing of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudprovider.emulator.images import ImageNotFound, Images, dask_image
from cloudprovider.emulator.room import Process, Room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")


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

    def end(self, timeout_s: float = 30) -> int:
        """Its exit code, once it has one."""
        assert self.over.wait(timeout_s), f"it still runs; it said {self.lines}"
        return self.codes[0]

    def said(self, text: str, timeout_s: float = 30) -> str:
        """The first line with a text in it, once there is one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := [line for line in self.lines if text in line]:
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f"never said {text!r}, but {self.lines}")


def start(room, *argv, image=None, architecture="X86_64", init=False, **environ) -> Watched:
    watched = Watched()
    watched.process = room.start(
        image=image or dask_image(),
        argv=argv,
        environ=environ,
        address="127.31.0.5",
        architecture=architecture,
        init=init,
        log=watched.lines.append,
        exited=watched.ended,
    )
    return watched


def run(room, *argv, **environ) -> list[str]:
    """What a machine says until it ends well."""
    watched = start(room, *argv, **environ)
    assert 0 == watched.end(), watched.lines
    return watched.lines


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def all_gone(pids, timeout_s=10) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def images():
    return Images()


@pytest.fixture(scope="module")
def room(images):
    room = Room(images)
    yield room
    room.close()


FORKS = """
import os, sys, threading

def fork(times):
    for _ in range(times):
        pid = os.fork()
        if not pid:
            print("child", file=sys.stderr)
            os._exit(0)
        os.waitpid(pid, 0)
    over.set()

over = threading.Event()
threading.Thread(target=fork, args=(300,), daemon=True).start()
while not over.is_set():
    print("parent", file=sys.stderr)
"""


def test_process_forked_while_a_line_is_written_writes_too(room):
    """A process that a thread forks, as Dask's nanny does, writes while its parent is writing."""
    lines = run(room, sys.executable, "-c", FORKS)

    assert 300 == lines.count("child")


@pytest.mark.parametrize(("init", "code"), [(True, 128 + signal.SIGTERM), (False, 128 + signal.SIGKILL)])
def test_a_program_that_handles_no_signal_yet(room, init, code):
    """It is ended by SIGTERM where an init process is the first one, and only by SIGKILL where itself is."""
    watched = start(room, "sh", "-c", "echo here; sleep 60", init=init)
    watched.said("here")
    watched.process.stop(3)

    assert code == watched.end()


def test_output_comes_line_by_line_before_the_end(room):
    """Every line that a machine writes, also a last one without an end, is told before its exit code."""
    watched = start(
        room, "sh", "-c", r"for i in $(seq 3000); do echo $i; done; echo err >&2; printf 'a\377b'"
    )

    assert 0 == watched.end()
    assert [*map(str, range(1, 3001)), "err", "a\N{REPLACEMENT CHARACTER}b"] == watched.lines


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("python", "-c", "raise SystemExit(9)"), 9),
        (("python", "-c", "raise SystemExit('why')"), 1),
        (("python", "-c", "1 / 0"), 1),
        (("python", "-c", "import os; os.abort()"), 134),
        (("python", "-m", "no_such_module"), 1),
        (("python", "--version"), 0),
    ],
)
def test_exit_code_is_as_dockers(room, argv, code):
    """The exit code is the command's own, or 128 + N when signal N ended it, forked or not."""
    assert code == start(room, *argv).end()


def test_error_looks_like_an_interpreters_own(room):
    """A Python machine's traceback shows its own code and nothing of how it was started."""
    watched = start(room, "python", "-c", "def f():\n    1 / 0\nf()")
    watched.end()

    assert [
        "Traceback (most recent call last):",
        '  File "<string>", line 3, in <module>',
        '  File "<string>", line 2, in f',
        "ZeroDivisionError: division by zero",
    ] == watched.lines


@pytest.mark.parametrize("python", [True, False])
def test_environment_is_the_images_and_its_own(room, python, monkeypatch):
    """A machine sees no variable of the process that runs the cloud, credentials least of all."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "precious")
    monkeypatch.setenv("HOME", "/of/the/user")
    show = ("python", "-c", "import os\nfor k, v in os.environ.items(): print(f'{k}={v}')")
    said = dict(line.split("=", 1) for line in run(room, *(show if python else ("env",)), MINE="a 'b' \"c\""))

    assert "a 'b' \"c\"" == said["MINE"]
    assert "fork" == said["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"]
    assert "ip-127-31-0-5.ec2.internal" == said["HOSTNAME"]
    assert {"HOME", "HOSTNAME", "LANG", "MINE", "PATH", "TMPDIR"} == {
        name for name in said if not name.startswith("DASK_DISTRIBUTED__")
    }
    assert "/of/the/user" != said["HOME"]


def test_home_and_temporary_folder_are_its_own_and_go_with_it(room):
    """Each machine starts in an empty home; what it writes there is removed when it has ended."""
    code = "import os, tempfile; open('f', 'w').close(); print(os.getcwd()); print(tempfile.mkdtemp())"
    home, made = run(room, "python", "-c", code)
    other, _ = run(room, "python", "-c", code)

    assert home != other
    assert not Path(home).exists()
    assert not Path(made).exists()


def test_no_file_of_the_server_is_open(room):
    """A machine starts with three open files, and reads nothing from the first."""
    code = "import os; print(len(os.listdir('/proc/self/fd')) - 1, repr(os.read(0, 1)))"
    for_company = start(room, "sleep", "60")

    assert ["3 b''"] == run(room, "python", "-c", code)
    for_company.process.kill()


def test_runtime_is_absent_unless_the_image_carries_it(room, images):
    """In an image that does not carry the runtime only what the boot brings can be imported, and never us."""
    images.add("with:1", carries_runtime=True)
    code = (
        "from importlib.util import find_spec\n"
        "def has(name):\n"
        "    try: return find_spec(name) is not None\n"
        "    except ModuleNotFoundError: return False\n"
        "print([has(n) for n in ('cloudruntime', 'cloudprovider', 'distributed')])"
    )

    assert ["[False, False, True]"] == run(room, "python", "-c", code)
    assert ["[True, False, True]"] == run(room, "python", "-c", code, image="with:1")


def test_what_the_boot_brings_is_found(room, tmp_path):
    """A package on PYTHONPATH is found, also one that is hidden in the image itself."""
    package = tmp_path / "cloudruntime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys; print('brought', sys.argv[1:], __package__)")

    assert ["brought ['a'] cloudruntime"] == run(
        room, "python", "-m", "cloudruntime", "a", PYTHONPATH=str(tmp_path)
    )


def test_bootstrap_becomes_its_successor_in_the_same_process(room, tmp_path):
    """`os.execv` of the same Python keeps the process id, takes the environment, and never returns."""
    (tmp_path / "successor.py").write_text(
        "import os, sys, threading, signal\n"
        "print(os.getpid(), sys.argv[1:], os.environ['NEW'], __name__, int(signal.getsignal(signal.SIGTERM)))"
    )
    bootstrap = (
        "import os, sys, signal\n"
        "signal.signal(signal.SIGTERM, print)\n"
        f"os.environ.update(PYTHONPATH={str(tmp_path)!r}, NEW='1')\n"
        "print(os.getpid(), flush=True)\n"
        "try:\n"
        "    os.execv(sys.executable, [sys.executable, '-m', 'successor', 'x'])\n"
        "finally:\n"
        "    print('returned')\n"
    )
    pid, successor = run(room, "python", "-c", bootstrap)

    assert f"{pid} ['x'] 1 __main__ 0" == successor


def test_exec_of_another_program_is_real(room):
    """`os.execve` of anything but this Python replaces the process, as it does everywhere."""
    code = "import os; os.execve('/bin/sh', ['sh', '-c', 'echo $$ $ONLY $HOME'], {'ONLY': 'this'})"
    watched = start(room, "python", "-c", code)
    watched.end()

    assert [f"{watched.process.pid} this"] == watched.lines


def test_dask_obeys_the_machines_environment(room):
    """Dask, imported in the server, is configured as if the machine had just imported it.

    What it reads when it is imported, and keeps, makes it be imported again.
    """
    code = (
        "import sys, importlib.util\nprint('distributed' in sys.modules)\n"
        "importlib.util.find_spec('distributed')\n"
        "import distributed, dask\nprint(dask.config.get('distributed.scheduler.bandwidth'))\n"
        "print('distributed.dashboard.worker' in sys.modules)\n"
        "import distributed.core\nprint(distributed.core.tick_maximum_delay)"
    )
    bandwidth = {"DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH": "1 kB"}

    assert ["False", "1 kB", "True", "30"] == run(room, "python", "-c", code, **bandwidth)
    assert ["False", "100000000", "False", "7"] == run(
        room, "python", "-c", code, DASK_DISTRIBUTED__ADMIN__TICK__LIMIT="7s"
    )


def test_dask_obeys_what_a_machine_sets_before_importing_it(room):
    """A variable that the machine's own code sets before its first import of Dask counts."""
    code = (
        "import os; os.environ['DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP'] = '77s'\n"
        "import distributed, dask; print(dask.config.get('distributed.comm.timeouts.tcp'))"
    )

    assert ["77s"] == run(room, "python", "-c", code)


def test_random_numbers_differ_between_machines(room):
    """Machines are forks of one process, but not of its random numbers."""
    code = "import random, uuid; print(random.random())"

    assert run(room, "python", "-c", code) != run(room, "python", "-c", code)


def test_preloaded_modules_are_there_and_work():
    """What the room imports for all machines is imported in each, and computes in a fork."""
    pytest.importorskip("pandas")
    room = Room(Images(), preload=["no_such_module", "dask.dataframe", "pyarrow.parquet"])
    code = (
        "import sys; print('pandas' in sys.modules, 'dask.dataframe' in sys.modules)\n"
        "import dask, dask.dataframe as dd, pandas as pd\n"
        "pd.DataFrame({'x': range(100), 'y': 'a'}).to_parquet('f.parquet')\n"
        "print(int(dd.read_parquet('f.parquet').groupby('y').x.sum().compute()['a']))"
    )
    with contextlib.closing(room):
        loaded = Path(f"/proc/{room._engine._server.pid}/maps")
        deadline = time.monotonic() + 60
        while "_parquet" not in loaded.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ["True False", "4950"] == run(room, "python", "-c", code)


def test_nanny_forks_its_worker(room):
    """A Nanny's worker starts by fork in a machine, and computes."""
    code = (
        "from distributed import Client, LocalCluster\n"
        "with LocalCluster(n_workers=1, dashboard_address=':0') as cluster, Client(cluster) as client:\n"
        "    print(client.submit(sum, [1, 2]).result())\n"
        "    print(list(client.run(lambda: __import__('multiprocessing').get_start_method(True)).values()))\n"
    )
    watched = start(room, "python", "-c", code)

    assert 0 == watched.end(), "\n".join(watched.lines)
    assert "3" in watched.lines


def test_other_python_is_started(room, images):
    """An image of another Python runs that Python."""
    python = Path(sys.base_prefix, "bin", "python3")
    if not python.exists() or python == Path(sys.executable):
        pytest.skip("there is no other Python here")
    images.add("other:1", python=python)

    code = "import sys; print(sys.prefix)"
    assert [sys.base_prefix] == run(room, "python", "-c", code, image="other:1")


def test_interpreter_variable_needs_a_new_interpreter(room):
    """A variable that Python reads only when it starts is obeyed."""
    assert ["1"] == run(room, "python", "-c", "import sys; print(sys.flags.optimize)", PYTHONOPTIMIZE="1")


def test_command_that_is_not_there_cannot_start(room):
    """A command that the image has not is an OSError that names it, as from a container engine."""
    with pytest.raises(FileNotFoundError, match="executable file not found in") as caught:
        start(room, "no-such-command")

    assert "no-such-command" == caught.value.filename


def test_file_that_is_no_program_cannot_start(room, tmp_path):
    """What the kernel says of a bad executable reaches the caller."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nothing")
    program.chmod(0o755)
    with pytest.raises(OSError, match="format error") as caught:
        start(room, str(program))

    assert errno.ENOEXEC == caught.value.errno


def test_wrong_architecture_cannot_start(room, images):
    """An image for one architecture does not start on another."""
    images.add("intel:1", architectures=["X86_64"])
    with pytest.raises(OSError, match="exec format error"):
        start(room, "python", "-c", "", image="intel:1", architecture="ARM64")


def test_unknown_image_cannot_be_pulled(room):
    """A machine of an image that no registry has says so in the cloud's words."""
    with pytest.raises(ImageNotFound, match=r"CannotPullContainerError: .* nobody/nothing:1: not found"):
        start(room, "true", image="nobody/nothing:1")


def test_stop_asks_the_first_process_only(room):
    """SIGTERM reaches PID 1 alone, which may take its time; the rest ends with it."""
    code = (
        "import signal, subprocess, sys, time\n"
        "child = subprocess.Popen(['sh', '-c', 'trap \"echo child asked\" TERM; while :; do sleep 0.05; done'])\n"
        "def leave(*_):\n"
        "    time.sleep(0.3); print('leaving', child.poll(), flush=True); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('up', child.pid, flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    watched = start(room, "python", "-c", code)
    child = int(watched.said("up").split()[1])
    watched.process.stop(20)

    assert 5 == watched.end()
    assert ["leaving None"] == watched.lines[1:]
    assert not lives(child)


@pytest.mark.parametrize("argv", [("sleep", "60"), ("python", "-c", "import time; time.sleep(60)")])
def test_first_process_without_a_handler_ignores_sigterm(room, argv):
    """As a container's PID 1, one that has no handler for SIGTERM lives until it is killed."""
    watched = start(room, *argv)
    began = time.monotonic()
    watched.process.stop(0.4)

    assert 137 == watched.end()
    assert 0.3 < time.monotonic() - began < 5


def test_kill_ends_all_at_once(room):
    """SIGKILL ends the whole machine, whatever its first process does with SIGTERM."""
    watched = start(room, "sh", "-c", "trap '' TERM; sleep 60 & echo up; wait")
    watched.said("up")
    watched.process.stop(60)
    watched.process.kill()

    assert 137 == watched.end(10)


def test_orphans_are_the_first_processes(room):
    """A process whose parent ends comes to the machine's first process, as in a container."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(0.3); print(os.getppid(), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); os.wait()\n"
    )
    watched = start(room, "python", "-c", code)
    watched.end()

    assert [str(watched.process.pid)] == watched.lines


def test_nothing_escapes_a_machine(room):
    """Processes in sessions of their own, and their children, end with the machine's first process."""
    code = (
        "setsid sh -c 'echo $$; sleep 61 & echo $!; wait' & (setsid sleep 62 & echo $!) ; sleep 0.3; exit 4"
    )
    watched = start(room, "sh", "-c", code)

    assert 4 == watched.end()
    assert 3 == len(watched.lines)
    assert not any(lives(int(pid)) for pid in watched.lines)


def test_failing_listener_harms_no_other(room):
    """An error in what the cloud does with a line is the cloud's, and the machine's end is still told."""
    over = threading.Event()

    def refuse(_line: str) -> None:
        raise ValueError("no")

    room.start(
        image=dask_image(),
        argv=["echo", "line"],
        environ={},
        address="127.31.0.6",
        architecture="X86_64",
        log=refuse,
        exited=lambda _code: over.set(),
    )

    assert over.wait(10)
    assert ["fine"] == run(room, "echo", "fine")


def test_many_start_side_by_side(room):
    """Machines can be started from many threads at once."""
    machines: list[Watched] = []
    threads = [
        threading.Thread(target=lambda i=i: machines.append(start(room, "sh", "-c", f"echo {i}; exit {i}")))
        for i in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(40)) == sorted(machine.end() for machine in machines)
    assert all([str(machine.codes[0])] == machine.lines for machine in machines)


def test_close_ends_every_machine_and_tells_it():
    """After `close` no machine is left, and each end has been told."""
    room = Room(Images())
    machines = [start(room, "sh", "-c", "setsid sleep 63 & echo $!; wait") for _ in range(5)]
    pids = [int(machine.said("")) for machine in machines]
    room.close()

    assert [[137]] * 5 == [machine.codes for machine in machines]
    assert not any(lives(pid) for pid in pids)


def test_room_that_starts_nothing_closes_at_once():
    """A room that is closed while its server still starts does not wait for long, and leaves nothing."""
    room = Room(Images())
    server = room._engine._server.pid
    room.close()

    assert not lives(server)


def test_server_that_dies_takes_its_machines_along():
    """When the fork server is killed, its machines are too, their ends are told, and no other can start."""
    room = Room(Images())
    watched = start(room, "sh", "-c", "echo $$; while :; do sleep 0.1; done")
    pid = int(watched.said(""))
    os.kill(room._engine._server.pid, signal.SIGKILL)

    assert 137 == watched.end()
    assert all_gone([pid])
    with pytest.raises(OSError, match=r"fork server|Broken pipe"):
        start(room, "true")
    room.close()
    room.close()  # closing twice is no error
    assert not room.folder.exists()


def test_killed_emulator_leaves_nothing(tmp_path):
    """`kill -9` of the process that runs the cloud leaves no process and no file of any machine."""
    program = tmp_path / "emulator.py"
    program.write_text(
        "import os, sys, time\n"
        "from cloudprovider.emulator.images import Images, dask_image\n"
        "from cloudprovider.emulator.room import Room\n"
        "room = Room(Images())\n"
        "say = lambda line: os.write(1, f'{line}\\n'.encode())\n"  # whole lines, from any thread
        "for command in sys.argv[1:]:\n"
        "    room.start(image=dask_image(), argv=['sh', '-c', command], environ={}, address='127.31.0.7',\n"
        "               architecture='X86_64', log=say, exited=say)\n"
        "say(f'server {room._engine._server.pid}')\n"
        "time.sleep(60)\n"
    )
    commands = [
        "echo pid $$; echo home $HOME; trap '' TERM HUP; sleep 64; sleep 64",
        "echo pid $$; setsid sh -c 'echo pid $$; sleep 65 & echo pid $!; wait' & (setsid sleep 66 &); wait",
    ]
    with subprocess.Popen(
        [sys.executable, str(program), *commands], stdout=subprocess.PIPE, text=True
    ) as emulator:
        said = [emulator.stdout.readline().split() for _ in range(6)]
        emulator.kill()
    pids = [int(line[1]) for line in said if line[0] in {"pid", "server"}]
    homes = [Path(line[1]) for line in said if line[0] == "home"]

    assert 5 == len(pids)
    assert all_gone(pids)
    assert not any(home.exists() for home in homes)


def test_engine_none_runs_nothing():
    """With engine 'none' a machine is only told of: it lives until it is stopped, and is charged by nobody."""
    room = Room(Images(), engine="none")
    stopped, killed, left = (start(room, "whatever") for _ in range(3))
    stopped.process.stop(30)
    killed.process.kill()

    assert (143, 137) == (stopped.end(), killed.end())
    assert not left.over.is_set()
    room.close()
    assert [137] == left.codes


def test_unknown_engine_is_refused():
    """An engine there is not is an error that names those there are."""
    with pytest.raises(ValueError, match="'process', 'podman' and 'none'"):
        Room(Images(), engine="docker")


def test_rooms_variables_are_every_machines():
    """The room's own variables come after the image's and before the machine's."""
    room = Room(Images(), environ={"A": "room", "B": "room", "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "2s"})
    code = "echo $A $B $DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL"
    with contextlib.closing(room):
        assert ["room machine 2s"] == run(room, "sh", "-c", code, B="machine")
