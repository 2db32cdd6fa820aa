"""Machines as real processes, each on a loopback address of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest
from cloudruntime.boot import Boot, Leases

from cloudprovider.provider import Identity
from cloudprovider.security import Secrets, client_security, make_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

NETWORK = f"127.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}"
HOSTS = itertools.count(2)
PYTHON = (sys.executable, "-m", "cloudruntime")


class Running:
    """One machine: its first process, and what it logs."""

    def __init__(self, id: str, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.id = id
        self.address = address
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def scheduler(self) -> str:
        """Where its scheduler listens."""
        return f"tls://{self.address}:8786"

    def says(self, pattern: str, within_s: float = 30.0) -> re.Match[str]:
        """Wait until the log has it."""
        deadline = time.monotonic() + within_s
        while (found := re.search(pattern, self.log)) is None:
            assert time.monotonic() < deadline, f"{self.id} never said {pattern!r}:\n{self.log}"
            assert self.process.poll() is None or re.search(pattern, self.log), self.log
            time.sleep(0.05)
        return found

    def ends(self, within_s: float = 30.0) -> tuple[int, str]:
        """Wait for its end; the exit code and the last line of the log."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.id} did not end in {within_s} s:\n{self.log}")
        return code, self.log.splitlines()[-1]

    def stop(self) -> None:
        """What the cloud does to a machine that it wants to stop: SIGTERM to the first process."""
        self.process.send_signal(signal.SIGTERM)


class Machines:
    """Machines of one cluster, all gone when the block ends."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        self.folder = folder
        self.secrets = secrets
        self._all: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._all:
            if machine.process.poll() is None:
                os.killpg(machine.process.pid, signal.SIGKILL)
            machine.process.wait()

    def start(
        self,
        role: str,
        *,
        scheduler: Running | str | None = None,
        leases: Leases | None = None,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = PYTHON,
        **boot: Any,
    ) -> Running:
        """Start a machine the way a cloud does: an environment and a command."""
        number = next(HOSTS)
        id, address = f"{role[0]}-{number}", f"{NETWORK}.{number}"
        if isinstance(scheduler, Running):
            scheduler = scheduler.scheduler
        options: dict[str, Any] = {"secret": "env:DASK_CLOUD_SECRET", "scheduler": scheduler, **boot}
        if role == "worker":
            options = {"nthreads": 1, "memory_limit": "500 MB", **options}
        what = Boot(cluster="test", role=role, leases=leases or Leases(), **options)
        variables = {
            **os.environ,
            "DASK_CLOUD_BOOT": what.dumps(),
            "DASK_CLOUD_SECRET": self.secrets.machine,
            "DASK_CLOUD_MACHINE": id,
            "DASK_CLOUD_ADDRESS": address,
            "TMPDIR": str(self.folder),
            "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "fork",
            **(environ or {}),
        }
        log = self.folder / f"{id}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._all.append(Running(id, address, process, log))
        return self._all[-1]


@pytest.fixture(scope="session")
def secrets() -> Secrets:
    return make_secrets(Identity(name="test", owner="me", created=0, expires=int(time.time()) + 3600))


@pytest.fixture
def machines(tmp_path: Path, secrets: Secrets) -> Iterator[Machines]:
    with Machines(tmp_path, secrets) as some:
        yield some


@pytest.fixture(scope="module")
def module_machines(tmp_path_factory: pytest.TempPathFactory, secrets: Secrets) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines"), secrets) as some:
        yield some


@pytest.fixture
def connect(secrets: Secrets) -> Iterator[Any]:
    """Makes clients of a scheduler's machine."""
    from distributed import Client

    with ExitStack() as stack:

        def client(scheduler: Running) -> Client:
            made = Client(scheduler.scheduler, security=client_security(secrets.client), timeout=30)
            stack.callback(made.close)
            return made

        yield client


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory, secrets: Secrets) -> dict[str, Any]:
    """The keys of a machine and of a client, in files, by role."""
    from cloudruntime.secrets import keep

    return {
        role: keep(json.loads(getattr(secrets, role)), str(tmp_path_factory.mktemp(role)))
        for role in ("machine", "client")
    }
