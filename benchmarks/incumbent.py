"""dask-cloudprovider as PyPI has it, in an environment of its own, against the same embedded cloud."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cloudprovider.emulator.room import search_path

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME, VERSION = "dask-cloudprovider", "2025.9.0"
#: With the same Dask as ours, of which it is told by its image.
PACKAGES = (
    f"{NAME}[aws]=={VERSION}",
    f"distributed=={version('distributed')}",
    f"dask=={version('dask')}",
)
#: It runs these on its machines; distributed had them until 2026.6. Its image has them again.
SCRIPTS = ("dask-scheduler", "dask-worker")
IMAGE = "registry.example/dask-with-console-scripts:1"
#: It knows no landing: its log group stays for the next cluster, as ours does, and is not counted as left.
KEPT = "log group: dask-ecs"
#: Set in a network of our own.
OWN_NETWORK = "DASK_CLOUD_BENCHMARK_NETWORK"
PROGRAM = """
import json, sys, time
from dask_cloudprovider.aws import FargateCluster
workers, image, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]
small = dict(worker_cpu=256, worker_mem=1024, scheduler_cpu=256, scheduler_mem=1024)
cpu, began = time.process_time(), time.perf_counter()
with FargateCluster(n_workers=workers, image=image, **small) as cluster:
    cluster.wait_for_workers(workers, timeout=3600)
    wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
    print(json.dumps({"wall": wall, "cpu": used, "until": until}), flush=True)
    while how == "stay":
        time.sleep(1)
"""


def folder() -> Path:
    """Where this user's environments are kept from run to run."""
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"dask-cloud-benchmarks-{owner}"


def python(*more: str) -> Path:
    """The interpreter of its environment, with what else it needs: made by the first who asks, and kept."""
    home = folder() / "-".join([NAME, *more])
    executable, ready = home / "bin" / "python", home / "ready"
    packages = (*PACKAGES, *more)
    wanted = " ".join(packages)
    if not (ready.exists() and ready.read_text(encoding="utf-8") == wanted):
        for command in _commands(home, executable, packages):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{NAME} could not be installed from PyPI:\n{done.stderr[-2000:]}")
        ready.write_text(wanted, encoding="utf-8")
    return executable


def _commands(home: Path, executable: Path, packages: Iterable[str]) -> list[list[str | Path]]:
    """What makes its environment: uv where there is one, else the interpreter's own tools."""
    if uv := shutil.which("uv"):
        return [
            [uv, "venv", "--clear", "--python", sys.executable, home],
            [uv, "pip", "install", "--python", executable, *packages],
        ]
    return [
        [sys.executable, "-m", "venv", "--clear", home],
        [executable, "-m", "pip", "install", "--disable-pip-version-check", *packages],
    ]


def add_image(cloud):
    """Make its image known to an embedded cloud: our own machines' Dask, and the scripts it wants."""
    scripts = folder() / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    for name in SCRIPTS:
        script = scripts / name
        module = f"distributed.cli.{name.replace('-', '_')}"
        script.write_text(
            f"#!{sys.executable}\nfrom {module} import main\n\nraise SystemExit(main())\n", encoding="utf-8"
        )
        script.chmod(0o755)
    cloud.add_image(IMAGE, environ={"PATH": f"{scripts}:{search_path(sys.executable)}"})


def own_network():
    """Go on in a network of our own, where there can be one: its scheduler listens on every address of a network.

    It would answer for the schedulers of all others on this computer, and they for it.
    """
    if OWN_NETWORK not in os.environ and shutil.which("unshare"):
        os.environ[OWN_NETWORK] = "1"
        enter = ["unshare", "--map-root-user", "--net", "sh", "-c"]
        if subprocess.run([*enter, "ip link set lo up"], check=False, capture_output=True).returncode == 0:
            again = [*enter, 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
            os.execvp("unshare", again)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("0.0.0.0", 8786))
        except OSError as error:
            raise SystemExit(
                f"Somebody has port 8786, which the scheduler of {NAME} needs: end it."
            ) from error


def environ():
    """A process's environment without what concerns us; it reads and writes a folder of configuration: one of its own."""
    home = folder() / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DASK_"))}
    return {**kept, "HOME": str(home), "DASK_CONFIG": str(home)}


def begin(workers, how):
    """Start its program."""
    return subprocess.Popen(
        [python(), "-c", PROGRAM, str(workers), IMAGE, how],
        env=environ(),
        cwd=folder(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it says much at its end, which would fill a pipe that nobody reads
    )
