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

#: What it runs on its machines are the console scripts that distributed had until 2026.6.
INCUMBENT = ("dask-cloudprovider[aws]==2025.9.0", "distributed==2026.3.0", "dask==2026.3.0")
#: It knows no landing: its log group stays for the next cluster, as ours does, and is not counted as left.
KEPT = "log group: dask-ecs"
IMAGE = "registry.example/dask-with-console-scripts:2026.3.0"
#: The image of our machines in the same run: a fresh interpreter for each, as theirs is.
OUR_IMAGE = "registry.example/dask:fresh"
PROGRAM = """
import json, sys, time
from dask_cloudprovider.aws import FargateCluster
workers = int(sys.argv[1])
small = dict(worker_cpu=256, worker_mem=1024, scheduler_cpu=256, scheduler_mem=1024)
cpu, began = time.process_time(), time.perf_counter()
with FargateCluster(n_workers=workers, image=sys.argv[2], **small) as cluster:
    cluster.wait_for_workers(workers, timeout=600)
    wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
print(json.dumps({"wall": wall, "cpu": used, "until": until}))
"""


def environment(name, packages):
    """The interpreter of an environment with these packages; it is made once and kept in the temporary folder."""
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"dask-cloud-benchmarks-{owner}" / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text() == " ".join(packages):
        return python
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", folder], check=True)
    installers = (
        [shutil.which("uv") or "uv", "pip", "install", "--quiet"],
        [sys.executable, "-m", "pip", "install"],
    )
    installer = installers[0] if shutil.which("uv") else installers[1]
    where = ["--python", python] if installer is installers[0] else ["--prefix", folder]
    subprocess.run([*installer, *where, *packages], check=True, stdout=subprocess.DEVNULL)
    ready.write_text(" ".join(packages))
    return python


def add_images(cloud):
    """Make the images of both known to an embedded cloud."""
    cloud.add_image(IMAGE, python=environment("dask-cloudprovider", INCUMBENT))
    cloud.add_image(OUR_IMAGE, python=environment("image", (f"distributed=={version('distributed')}",)))


def opt_in():
    """Let the account have long names of tasks, as every account has had since 2021: it asks for that."""
    import boto3

    boto3.client("ecs").put_account_setting(name="taskLongArnFormat", value="enabled")


def check_port():
    """Its scheduler listens on every address: nobody else may have its port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("0.0.0.0", 8786))
        except OSError as error:
            raise SystemExit(
                "Something listens on port 8786, which dask-cloudprovider's scheduler needs on every address: "
                "end it, or run this in a network of its own: "
                "unshare -rn sh -c 'ip link set lo up; exec python benchmarks/start.py --against'"
            ) from error


def start(workers):
    """What its start prints, run in its own environment; it writes to a folder of configuration: its own."""
    python = environment("dask-cloudprovider", INCUMBENT)
    with tempfile.TemporaryDirectory() as home:
        private = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DASK_"))
        }
        private |= {"HOME": home, "DASK_CONFIG": home}
        command = [python, "-c", PROGRAM, str(workers), IMAGE]
        options = {"env": private, "cwd": home, "text": True, "timeout": 900}
        done = subprocess.run(command, check=False, capture_output=True, **options)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"dask-cloudprovider started nothing: {done.stderr}")
    return done.stdout
