"""Machines as they are: real first processes, real Dask, real signals."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import venv
from pathlib import Path

import psutil
import pytest
from cloudruntime import jupyter
from cloudruntime.boot import Boot, Leases
from cloudruntime.exits import Exit
from cloudruntime.identity import ECS
from cloudruntime.packing import BOOTSTRAP, PACKED, packed
from cloudruntime.tls import context
from distributed.core import rpc

from cloudprovider.security import client_security

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

SCHEDULER, WORKER = (Boot(cluster="test", role=role) for role in ("scheduler", "worker"))
RUNTIME = Path(__file__).parents[2] / "runtime"
#: What a task does that never gives back the interpreter lock.
HOLD = "import ctypes; ctypes.PyDLL(None).sleep(60)"


def names(client):
    return {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}


def ask(client, operation, **arguments):
    """Call an operation of the scheduler as a manager does."""

    async def call():
        return await getattr(client.scheduler, operation)(**arguments)

    return client.sync(call)


def end(client):
    """End the cluster as a manager does, and let go."""
    ask(client, "cloud_end")
    client.close()


@pytest.fixture(scope="module")
def cluster(module_machines):
    """A scheduler and two workers that boot side by side, the workers first."""
    machines = module_machines
    scheduler = machines.start("scheduler")
    two = [machines.start("worker", scheduler=scheduler, processes=k) for k in (1, 2)]
    for machine in (scheduler, *two):
        machine.says("at tls://")
    return scheduler, *two


class TestCluster:
    """A cluster that runs."""

    def test_it_computes(self, cluster, connect):
        """Workers come up beside their scheduler, find it, and are named after their machines."""
        scheduler, one, two = cluster
        client = connect(scheduler)
        client.wait_for_workers(3, timeout=20)

        assert {one.id, f"{two.id}-0", f"{two.id}-1"} == names(client)
        assert 2 == client.submit(lambda x: x + 1, 1).result(timeout=20)

    def test_its_services_are_behind_the_front(self, cluster, connect):
        """Clients learn the dashboard's loopback port and the front's port."""
        client = connect(cluster[0])
        services = client.scheduler_info()["services"]

        assert {"dashboard", "front"} == set(services)
        assert 8787 == services["front"]

    def test_the_dashboard_is_reached_through_the_front_alone(self, cluster, connect, keys):
        """The page listens on loopback; the front shows it to who has a certificate."""
        client = connect(cluster[0])
        info = client.scheduler_info(n_workers=-1)
        own = [w for w in info["workers"].values() if w["name"] == cluster[1].id]
        page = f"machine-{cluster[1].address.replace('.', '-')}.port-{own[0]['services']['dashboard']}"

        deadline = time.monotonic() + 5
        while b"502" in get(cluster[1].address, "dashboard", "/health", keys):
            assert time.monotonic() < deadline, "the worker's page is not known to its front"
        assert b"200 OK" in get(cluster[0].address, "dashboard", "/health", keys)
        assert b"200 OK" in get(cluster[0].address, page, "/health", keys)
        assert b"502" in get(cluster[0].address, "jupyter", "/", keys)

    def test_its_status_can_be_asked(self, cluster, connect):
        """A manager, or a person, can ask who is there and what the leases are."""
        client = connect(cluster[0])
        status = json.loads(json.dumps(ask(client, "cloud_status")))

        assert "test" == status["cluster"]
        assert cluster[0].id == status["machine"]
        assert client.id in status["clients"]
        assert 1200.0 == status["leases"]["idle"]
        assert "python" in status["versions"]
        assert status["renewed_s"] is None

    def test_no_key_is_in_an_environment(self, cluster, connect):
        """Neither Dask nor user code finds the secret in its environment."""
        client = connect(cluster[0])
        seen = [
            client.run_on_scheduler(lambda: dict(os.environ)),
            *client.run(lambda: dict(os.environ)).values(),
        ]

        assert len(seen) >= 2
        assert all("PRIVATE KEY" not in value for environ in seen for value in environ.values())
        assert all("DASK_CLOUD_SECRET" not in environ for environ in seen)

    def test_machines_survive_a_silent_network(self, cluster, connect):
        """Both ends of each connection wait as long as the lease says."""
        client = connect(cluster[0])

        def timeout():
            import dask

            return dask.config.get("distributed.comm.timeouts.tcp")

        assert {"300s"} == {client.run_on_scheduler(timeout), *client.run(timeout).values()}

    def test_each_worker_process_draws_its_own_numbers(self, cluster, connect):
        """Forked machines do not share random numbers."""
        client = connect(cluster[0])

        def draw():
            import random

            import numpy as np

            return random.random(), float(np.random.default_rng().random())

        drawn = client.run(draw)

        assert len(drawn) == len(set(drawn.values()))


def get(address, name, path, keys):
    """GET a page through a front."""
    tls = context(keys["client"], ssl.Purpose.SERVER_AUTH)
    with (
        socket.create_connection((address, 8787), timeout=10) as plain,
        tls.wrap_socket(plain, server_hostname=name) as door,
    ):
        door.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return b"".join(iter(lambda: door.recv(1 << 16), b""))


def test_a_stopped_worker_drains(machines, connect):
    """SIGTERM moves what only this worker holds to others, then ends it; nothing is lost."""
    scheduler = machines.start("scheduler")
    workers = [machines.start("worker", scheduler=scheduler) for _ in range(2)]
    client = connect(scheduler)
    client.wait_for_workers(2, timeout=20)
    data = client.scatter(list(range(6)))
    workers[0].stop()

    assert (Exit.interrupted, "SIGTERM, drained") == ended(workers[0])
    assert list(range(6)) == client.gather(data)
    assert {workers[1].id} == names(client)
    left = ask(client, "cloud_status")["left"]
    assert [(workers[0].id, "interrupted")] == [(one["machine"], one["reason"]) for one in left]


def ended(machine, within_s=30.0):
    """The exit, and what the last line of the log says beyond its meaning."""
    code, line = machine.ends(within_s)
    assert line.startswith(f"dask-cloud-runtime: ended: {Exit(code).name}: "), machine.log
    return Exit(code), line.split(": ", 4)[4] if line.count(": ") > 3 else ""


def test_the_last_copy_waits_for_somewhere_to_go(machines, connect):
    """An interrupted worker that alone holds data keeps it until another worker comes."""
    scheduler = machines.start("scheduler")
    worker = machines.start("worker", scheduler=scheduler)
    client = connect(scheduler)
    client.wait_for_workers(1, timeout=20)
    data = client.scatter("precious")
    worker.stop()
    worker.says("draining")
    machines.start("worker", scheduler=scheduler)

    assert (Exit.interrupted, "SIGTERM, drained") == ended(worker)
    assert "precious" == data.result(timeout=10)


def test_a_cluster_ends_workers_first(machines, connect):
    """A manager ends the whole cluster through its scheduler, in words of its own; every machine says so."""
    scheduler = machines.start("scheduler")
    workers = [machines.start("worker", scheduler=scheduler, processes=k) for k in (1, 2)]
    client = connect(scheduler)
    client.wait_for_workers(3, timeout=20)
    end(client)

    assert [(Exit.asked, "")] * 3 == [ended(machine) for machine in (*workers, scheduler)]


def test_all_stopped_at_once_end_at_once(machines, connect):
    """SIGTERM to every machine in the same moment: nobody waits for somebody who is gone."""
    scheduler = machines.start("scheduler")
    workers = [machines.start("worker", scheduler=scheduler) for _ in range(2)]
    with connect(scheduler) as client:
        client.wait_for_workers(2, timeout=20)
    begun = time.monotonic()
    for machine in (scheduler, *workers):
        machine.stop()

    assert {Exit.interrupted} == {ended(machine)[0] for machine in (scheduler, *workers)} - {Exit.asked}
    assert time.monotonic() - begun < 30


def test_a_task_that_holds_the_interpreter_blocks_nothing(machines, connect):
    """Neither the drain nor the end waits for user code that never gives the lock back."""
    scheduler = machines.start("scheduler")
    one, two = [
        machines.start("worker", scheduler=scheduler, environ={"DASK_CLOUD_STOP_S": "4"}) for _ in range(2)
    ]
    client = connect(scheduler)
    client.wait_for_workers(2, timeout=20)
    for machine in (one, two):
        client.submit(exec, HOLD, workers=[machine.id], pure=False, allow_other_workers=False)
    time.sleep(0.5)
    one.stop()

    assert Exit.interrupted == ended(one)[0]
    end(client)
    assert Exit.asked == ended(two)[0]
    assert Exit.asked == ended(scheduler)[0]


def test_a_scheduler_whose_interpreter_is_held_can_be_stopped(machines, connect):
    """The supervisor kills what does not end in the cloud's time, and says so."""
    scheduler = machines.start("scheduler", environ={"DASK_CLOUD_STOP_S": "3"})
    client = connect(scheduler)
    with pytest.raises(TimeoutError):
        client.sync(client._run_on_scheduler, exec, HOLD, callback_timeout=0.5)
    scheduler.stop()

    assert Exit.interrupted == ended(scheduler)[0]
    assert "Dask does not end by itself: killing it" in scheduler.log


def test_a_scheduler_that_is_killed_is_waited_for_as_long_as_the_lease_says(machines, connect):
    """A worker keeps looking for a scheduler that vanished; SIGTERM then does not wait for a drain."""
    scheduler = machines.start("scheduler")
    lost, stopped = [
        machines.start("worker", scheduler=scheduler, leases=Leases(scheduler_lost=lease))
        for lease in (6, 300)
    ]
    with connect(scheduler) as client:
        client.wait_for_workers(2, timeout=20)
    os.killpg(scheduler.process.pid, signal.SIGKILL)
    stopped.stop()

    assert (Exit.interrupted, "SIGTERM, not drained: the scheduler does not answer") == ended(stopped)
    assert (Exit.scheduler_lost, "") == ended(lost)


def test_a_worker_comes_back_to_its_scheduler(machines, connect):
    """A worker whose connection broke starts again under its own name, and works."""
    scheduler = machines.start("scheduler")
    worker = machines.start("worker", scheduler=scheduler)
    client = connect(scheduler)
    client.wait_for_workers(1, timeout=20)

    async def cut(dask_scheduler):
        for comm in dask_scheduler.stream_comms.values():
            comm.abort()

    client.run_on_scheduler(cut)
    worker.says("lost its scheduler, looking for it again")
    worker.says("(?s)looking for it again.*at tls://")

    assert 3 == client.submit(sum, [1, 2]).result(timeout=20)
    assert {worker.id} == names(client)


def test_a_machine_that_the_cloud_took_is_forgotten_at_once(machines, connect):
    """Told that a machine is gone, the scheduler computes its tasks elsewhere, and blames nobody."""
    scheduler = machines.start("scheduler")
    one, two = [machines.start("worker", scheduler=scheduler) for _ in range(2)]
    client = connect(scheduler)
    client.wait_for_workers(2, timeout=20)
    os.killpg(one.process.pid, signal.SIGSTOP)
    stuck = client.submit(lambda: 42, workers=[one.id], allow_other_workers=True)
    gone = ask(client, "cloud_forget", name=one.id)

    assert 1 == len(gone)
    assert 42 == stuck.result(timeout=10)
    assert {two.id} == names(client)
    assert () == tuple(ask(client, "cloud_forget", name="never-heard-of"))


class TestLeases:
    """Machines end themselves, and say why."""

    def test_idle(self, machines, connect):
        """A cluster with nothing to do ends although a client is connected, workers first."""
        leases = Leases(idle=8.0, no_client=60)
        scheduler = machines.start("scheduler", leases=leases)
        connect(scheduler)
        worker = machines.start("worker", scheduler=scheduler)
        worker.says("at tls://")

        assert Exit.idle == ended(worker)[0]
        assert Exit.idle == ended(scheduler)[0]

    def test_no_client(self, machines, secrets):
        """Neither client nor work: a manager's renewal keeps the cluster, its silence ends it."""
        scheduler = machines.start("scheduler", leases=Leases(no_client=3.0))
        scheduler.says("at tls://")
        security = client_security(secrets.client)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert [] == list(renewed(scheduler, security)["clients"])
            time.sleep(0.2)

        assert Exit.no_client == ended(scheduler)[0]

    def test_no_client_work(self, machines, connect):
        """What a client left running has a lease of its own."""
        from distributed import fire_and_forget

        scheduler = machines.start("scheduler", leases=Leases(no_client_work=6.0))
        client = connect(scheduler)
        fire_and_forget(client.submit(time.sleep, 60))
        time.sleep(0.5)
        client.close()

        assert Exit.no_client_work == ended(scheduler)[0]

    @pytest.mark.parametrize("role", ["scheduler", "worker"])
    def test_expires(self, machines, role):
        """The hard end comes for every machine, whatever it does."""
        lease = Leases(expires=int(time.time()) + 1)
        machine = machines.start(role, scheduler="tls://127.0.0.1:1", leases=lease)

        assert Exit.expired == ended(machine)[0]

    def test_no_scheduler(self, machines):
        """A worker whose scheduler never comes ends within its lease."""
        worker = machines.start("worker", scheduler="tls://127.0.0.1:1", leases=Leases(scheduler_lost=1.0))

        assert Exit.scheduler_lost == ended(worker)[0]


def renewed(scheduler, security):
    """Renew the lease as a manager does, which is no client."""

    async def once():
        async with rpc(scheduler.scheduler, connection_args=security.get_connection_args("client")) as there:
            return await there.cloud_renew()

    return asyncio.run(once())


class TestBadBoots:
    """What cannot work ends at once, with a code and a last line that say why."""

    @pytest.mark.parametrize(
        ("environ", "exit", "says"),
        [
            ({"DASK_CLOUD_BOOT": ""}, Exit.boot, "DASK_CLOUD_BOOT is not set"),
            ({"DASK_CLOUD_BOOT": "{]"}, Exit.boot, "the Boot cannot be read"),
            ({"DASK_CLOUD_SECRET": ""}, Exit.secret, "the environment has no DASK_CLOUD_SECRET"),
            ({"DASK_CLOUD_MACHINE": ""}, Exit.identity, "neither"),
            ({"DASK_CLOUD_ADDRESS": "192.0.2.1"}, Exit.front, "front cannot be used"),
        ],
    )
    def test_incomplete(self, machines, environ, exit, says):
        """A Boot, a secret, an identity and an address: without one of them there is no machine."""
        machine = machines.start("scheduler", environ=environ)

        code, line = machine.ends()
        assert exit == code, machine.log
        assert says in line

    def test_an_image_without_distributed(self, machines, tmp_path):
        """The last line names the package that is missing and the Python that misses it."""
        venv.create(tmp_path / "image", with_pip=False, symlinks=True)
        python = str(tmp_path / "image" / "bin" / "python")
        machine = machines.start(
            "worker",
            scheduler="tls://127.0.0.1:1",
            image="acme/bare:1",
            command=(python, "-m", "cloudruntime"),
            environ={"PYTHONPATH": str(RUNTIME)},
        )

        code, line = machine.ends()
        assert Exit.image == code, machine.log
        assert "acme/bare:1 has no package 'distributed'" in line
        assert python in line

    def test_another_distributed(self, machines):
        """Another distributed ends the boot, naming both versions; another numpy is a warning."""
        import distributed

        machine = machines.start("scheduler", versions={"distributed": "2024.1.0", "dask": "2024.1.1"})

        code, line = machine.ends()
        assert Exit.versions == code, machine.log
        assert (
            f"the client has distributed 2024.1.0, this image has distributed {distributed.__version__}"
            in line
        )
        assert "warning: the client has dask 2024.1.1" in machine.log

    @pytest.mark.parametrize("minor", ["3.8", "3.9", "3.10", "3.12", "3.13", "3.14"])
    def test_another_python(self, machines, minor, tmp_path):
        """Another Python minor ends the boot, naming both, however old it is and packed or not."""
        python = other_python(minor)
        mine = ".".join(map(str, sys.version_info[:3]))
        machine = machines.start(
            "scheduler",
            versions={"python": mine},
            command=(python, "-c", BOOTSTRAP),
            environ={PACKED: packed(SCHEDULER), "PYTHONPATH": ""},
        )

        code, line = machine.ends()
        assert {f"{machine.id}.log"} == {path.name for path in tmp_path.iterdir()}, "it left something behind"
        assert Exit.versions == code, machine.log
        assert f"the client has python {mine}, this image has python {minor}." in line

    def test_options_that_dask_refuses(self, machines):
        """A scheduler that dies while it starts says what it died of."""
        machine = machines.start("scheduler", options={"port": "nonsense"})

        code, line = machine.ends()
        assert Exit.failed == code
        assert "the scheduler did not start: " in line

    def test_an_address_that_is_taken(self, machines):
        """Two schedulers on one address: the second says so, and the first stays."""
        with socket.create_server(("127.98.0.1", 8786)):
            machine = machines.start("scheduler", environ={"DASK_CLOUD_ADDRESS": "127.98.0.1"})

            code, line = machine.ends()
        assert Exit.failed == code
        assert "address" in line.lower()


def other_python(minor):
    """An interpreter of that version, when this computer has one."""
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions", Path("/usr")]
    found = [path for root in roots for path in sorted(root.glob(f"{minor}.*/bin/python{minor}"))]
    found += [path for root in roots for path in root.glob(f"bin/python{minor}")]
    if not found or minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip(f"there is no other Python {minor} on this computer")
    return str(found[0])


def test_a_machine_that_still_learns_who_it_is_can_be_stopped(machines):
    """SIGTERM before there is a supervisor ends the machine at once, with a reason."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/v4"
        machine = machines.start("worker", scheduler="tls://127.0.0.1:1", environ={ECS: uri})
        silent.settimeout(20)
        with silent.accept()[0]:
            machine.stop()

            assert (Exit.interrupted, "SIGTERM") == ended(machine)


def test_the_supervisor_stays_light():
    """The first process imports no Dask, and so no user code."""
    program = "import sys, cloudruntime.__main__, cloudruntime.supervisor; print('dask' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "False" == out.stdout.strip()


class TestPacked:
    """The runtime comes along where the image does not carry it."""

    def test_it_is_small(self):
        """It fits into a task definition (64 KB) with room to spare."""
        assert len(packed(SCHEDULER)) < 24_000
        assert len(BOOTSTRAP) < 1_000

    def test_it_starts_where_there_is_none(self, machines, connect):
        """An image that has `distributed` and nothing of ours runs a scheduler and a worker."""
        bare = sys._base_executable
        site = next(path for path in sys.path if path.endswith("site-packages"))
        assert subprocess.run(
            [bare, "-c", "import cloudruntime"], env={"PYTHONPATH": site}, check=False
        ).returncode
        environ = {PACKED: packed(SCHEDULER), "PYTHONPATH": site}
        command = (bare, "-c", BOOTSTRAP)
        scheduler = machines.start("scheduler", command=command, environ=environ)
        environ[PACKED] = packed(WORKER)
        spawn = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn"}
        machines.start("worker", scheduler=scheduler, command=command, environ={**environ, **spawn})

        assert 3 == connect(scheduler).submit(sum, [1, 2]).result(timeout=30)

    def test_the_bootstrap_leaves_no_trace_in_the_environment(self, tmp_path):
        """What user code inherits is a path, not the packed runtime; the process stays the same."""
        (tmp_path / "probe.py").write_text("")
        say = "import os,json;print(json.dumps([os.getpid(),'DASK_CLOUD_RUNTIME' in os.environ]))"
        program = BOOTSTRAP.replace('"-m","cloudruntime"', f'"-c",{say!r}')
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, PACKED: packed(SCHEDULER)},
            stdout=subprocess.PIPE,
        )
        out, _ = process.communicate(timeout=20)

        assert [process.pid, False] == json.loads(out)


def test_dask_runs_without_forks(machines, connect):
    """Where the supervisor cannot fork, Dask is a process of its own that learns all by the channel."""
    program = (
        "import sys; from cloudruntime import __main__, child; child.CAN_FORK = False; "
        "sys.exit(__main__.main())"
    )
    command = (sys.executable, "-c", program)
    scheduler = machines.start("scheduler", command=command)
    worker = machines.start("worker", scheduler=scheduler, command=command)
    client = connect(scheduler)

    assert 3 == client.submit(sum, [1, 2]).result(timeout=30)
    client.shutdown()
    assert [(Exit.asked, "")] * 2 == [ended(machine) for machine in (worker, scheduler)]


@pytest.mark.skipif(importlib.util.find_spec("jupyter_server") is None, reason="needs jupyter-server")
class TestJupyter:
    """Jupyter beside the scheduler."""

    def test_it_is_behind_the_front_and_asks_for_its_token(self, machines, keys, secrets, tmp_path):
        """A process of its own, reached by who has a certificate, used by who has the token too."""
        hostile = tmp_path / "jupyter_server_config.json"
        hostile.write_text('{"ServerApp": {"token": ""}, "IdentityProvider": {"token": ""}}')
        scheduler = machines.start("scheduler", jupyter=True, environ={"JUPYTER_CONFIG_DIR": str(tmp_path)})
        scheduler.says("Jupyter serves", 40)
        token = json.loads(secrets.client)["token"]

        assert b"403 Forbidden" in get(scheduler.address, "jupyter", "/jupyter/api/status", keys)
        assert b"200 OK" in get(scheduler.address, "jupyter", f"/jupyter/api/status?token={token}", keys)
        assert token not in scheduler.log
        commands = [process.cmdline() for process in psutil.Process(scheduler.process.pid).children()]
        assert any("cloudruntime.jupyter" in command for command in commands)
        assert not any(token in word for command in commands for word in command)

        scheduler.stop()
        assert Exit.interrupted == ended(scheduler)[0]

    def test_a_notebook_finds_its_scheduler(self, keys, machines):
        """`Client()` needs no address and no keys there."""
        scheduler = machines.start("scheduler")
        scheduler.says("at tls://")
        program = "from distributed import Client\nwith Client(timeout=10) as c: print(c.scheduler.address)"
        environ = {**os.environ, **jupyter.environment(scheduler.scheduler, keys["machine"])}
        out = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=40,
        )

        assert scheduler.scheduler == out.stdout.strip()

    def test_without_a_token_there_is_none(self, machines, secrets):
        """A secret that holds no token ends a boot that asks for Jupyter."""
        bare = json.dumps({**json.loads(secrets.machine), "token": ""})
        machine = machines.start("scheduler", jupyter=True, environ={"DASK_CLOUD_SECRET": bare})

        code, line = machine.ends()
        assert Exit.secret == code
        assert "never starts without a token" in line


def test_dask_ends_with_its_supervisor(machines, connect):
    """A supervisor that is killed takes its Dask process and workers along."""
    scheduler = machines.start("scheduler")
    worker = machines.start("worker", scheduler=scheduler)
    connect(scheduler).wait_for_workers(1, timeout=20)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert len(children) == 2
    worker.process.kill()

    assert [] == psutil.wait_procs(children, timeout=5)[1]


def test_the_boots_environment_reaches_dask_and_user_code(machines, connect):
    """Quotes and newlines included, before Dask reads its configuration."""
    value = 'a "quote", a\nnewline and $HOME'
    environment = {"MINE": value, "DASK_FOO__BAR": "7"}
    scheduler = machines.start("scheduler", environment=environment)
    machines.start("worker", scheduler=scheduler, environment=environment)
    client = connect(scheduler)

    def seen():
        import dask

        return os.environ["MINE"], dask.config.get("foo.bar")

    assert (value, 7) == client.run_on_scheduler(seen)
    assert (value, 7) == client.submit(seen).result(timeout=20)
