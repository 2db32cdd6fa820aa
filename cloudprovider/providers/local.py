"""Machines that are processes on this computer: the reference of the contract, and its double.

Everything a cloud would remember is in a directory, so that other processes find it: per cluster its
tags, its two secrets, and per machine a record and a log.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
from cloudruntime.boot import BOOT, SCHEDULER, Boot
from cloudruntime.exits import explain

from cloudprovider import autonomous
from cloudprovider import tags as ledger
from cloudprovider.config import Config
from cloudprovider.errors import CapacityError, CloudError
from cloudprovider.provider import Created, Identity, Machine, Provider, State, Swept
from cloudprovider.security import Secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloudprovider.bill import Rate

__all__ = ["LocalConfig", "LocalProvider"]

#: Seconds a machine may take to end after it was asked to, before it is made to.
GRACE_S = 5.0
#: A name whose cluster has no machine is free again after this.
LEFT_S = 60.0
LINUX = sys.platform == "linux"


@dataclass(frozen=True, kw_only=True)
class LocalConfig(Config):
    """Options of `ProcessCluster`.

    Parameters
    ----------
    directory
        Where records, secrets and logs are. Default: one folder of this user's in the temporary folder.
    capacity
        How many machines there is room for; None for no limit.
    price
        US dollars an hour that a machine is said to cost, to try a budget out. Default: nothing.
    """

    section: ClassVar[str] = "local"
    can_be_autonomous: ClassVar[bool] = True

    directory: str | None = None
    capacity: int | None = None
    price: float = 0.0
    allow_from: str | Sequence[str] | None = "127.0.0.0/8"

    @property
    def root(self) -> Path:
        """The directory of all clusters."""
        if self.directory is not None:
            return Path(self.directory)
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
        return Path(tempfile.gettempdir()) / f"dask-cloud-local-{user}"


def process_environment(boot: Boot, record: dict[str, Any]) -> dict[str, str]:
    """What the process of one machine is told."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DASK_CLOUD_")}
    environment.update(
        {
            BOOT: dataclasses.replace(boot, scheduler=None).dumps(),
            "DASK_CLOUD_MACHINE": record["id"],
            "DASK_CLOUD_ADDRESS": record["host"],
            "DASK_CLOUD_PORT": str(record["port"]),
            "DASK_CLOUD_FRONT_PORT": "8787" if LINUX else "0",
            "PYTHONUNBUFFERED": "1",
        }
    )
    if boot.scheduler:
        environment[SCHEDULER] = boot.scheduler
    return environment


def machine(record: dict[str, Any], tags: Identity, *, alive: bool, reason: str = "") -> Machine:
    """Read one record."""
    port = record["port"]
    address = record["host"] if port in (0, 8786) else f"{record['host']}:{port}"
    return Machine(
        id=record["id"],
        role=record["role"],
        group=record["group"],
        state=State.running if alive else State.gone,
        cluster=tags.name,
        private_address=address,
        public_address=address,
        zone="local",
        kind="process",
        created=record["created"],
        billed_from=record["created"],
        ended=None if alive else time.time(),
        reason=reason,
        expires=tags.expires,
    )


class LocalProvider(Provider):
    """See `Provider`; its machines are child processes that run `python -m cloudruntime`."""

    wave = 50
    boot_s = 3.0

    config: LocalConfig

    def __init__(self, config: LocalConfig, identity: Identity) -> None:
        super().__init__(config, identity)
        self.capacity = config.capacity
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._claimed: bool | None = None  # None: prepare() has not been tried

    # -- the cluster -------------------------------------------------------------------------------

    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        home = self._home(self.identity.name)
        self._claim(home, secrets.client)
        for part in (home / "machines", home / "logs"):
            part.mkdir(exist_ok=True, mode=0o700)
        _write(home / "tags.json", json.dumps(ledger.for_cluster(self.identity, self.config.tags)))
        _write(home / "machine.secret", secrets.machine)
        _write(home / "client.secret", secrets.client)
        ready = tuple(dataclasses.replace(boot, secret=f"file:{home / 'machine.secret'}") for boot in boots)
        for boot in ready:
            _write(home / f"{boot.role}.boot", boot.dumps())
        return ready

    def _claim(self, home: Path, secret: str) -> None:
        """Take the cluster's name by making its directory, which only one can."""
        self._claimed = bool(self._claimed)
        home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            home.mkdir(mode=0o700)
        except FileExistsError as error:
            stored = home / "client.secret"
            retried = stored.exists() and stored.read_text() == secret
            if not retried:
                if self.list(home.name) or time.time() - home.stat().st_mtime < LEFT_S:
                    raise CloudError(
                        f"There is a cluster {home.name!r} in {self.config.root} already. Attach to it with "
                        f"from_name({home.name!r}), end it with `dask cloud sweep {home.name}`, or choose "
                        "another name."
                    ) from error
                self._claimed = None
                self.sweep(home.name)
                home.mkdir(mode=0o700)
        self._claimed = True

    def attach(self) -> Secrets:
        home = self._home(self.identity.name)
        identity = self._identity(home)
        if identity is None:
            names = sorted(path.name for path in self._homes())
            there_are = f"There are: {', '.join(names)}." if names else "There is none."
            raise CloudError(f"No cluster {self.identity.name!r} is in {self.config.root}. {there_are}")
        self.identity = identity
        return Secrets(client=(home / "client.secret").read_text())

    def resume(self) -> None:
        self.attach()

    def boot(self, role: str) -> Boot:
        return Boot.loads((self._home(self.identity.name) / f"{role}.boot").read_text())

    def allow(self, sources: Collection[str]) -> None:
        """Loopback has no rules."""

    # -- machines ----------------------------------------------------------------------------------

    def create(self, boot: Boot, count: int) -> Created:
        room = count
        if self.capacity is not None:
            room = max(0, min(count, self.capacity - len(self.list(self.identity.name))))
        made = tuple(self._start(boot) for _ in range(room))
        if room == count:
            return Created(machines=made)
        return Created(
            machines=made,
            refusal=CapacityError(
                f"This computer started {room} of {count} machines: capacity={self.capacity}. "
                "Pass a larger capacity."
            ),
        )

    def describe(self, ids: Collection[str]) -> list[Machine]:
        return [found for id in ids if (found := self._describe(self.identity.name, id))]

    def delete(self, ids: Collection[str]) -> None:
        records = [r for id in ids if (r := self._record(self.identity.name, id))]
        # The scheduler last: workers that lose it first keep looking for it.
        for role in ("worker", "scheduler"):
            self._end([r for r in records if r["role"] == role])
        for record in records:
            if child := self._children.pop(record["id"], None):
                child.wait(GRACE_S)

    def list(self, cluster: str | None = None) -> list[Machine]:
        homes = [self._home(cluster)] if cluster else self._homes()
        return [m for m in self._all(homes) if m.state is not State.gone]

    def ended(self, cluster: str) -> Sequence[Machine]:
        return [
            dataclasses.replace(m, ended=self._log(cluster, m.id).stat().st_mtime)  # until then it wrote
            for m in self._all([self._home(cluster)])
            if m.state is State.gone
        ]

    def _all(self, homes: Sequence[Path]) -> Sequence[Machine]:
        paths = [
            (home.name, path.stem) for home in homes for path in sorted((home / "machines").glob("*.json"))
        ]
        return [found for cluster, id in paths if (found := self._describe(cluster, id))]

    def sweep(self, cluster: str) -> Swept:
        home = self._home(cluster)
        if not home.is_dir() or (self._claimed is False and cluster == self.identity.name):
            return Swept()
        machines = tuple(m.id for m in self.list(cluster))
        here = self.identity
        self.identity = dataclasses.replace(here, name=cluster)
        try:
            self.delete([path.stem for path in (home / "machines").glob("*.json")])
        finally:
            self.identity = here
        shutil.rmtree(home)
        return Swept(machines=machines, resources=(str(home),))

    def rate(self, machine: Machine) -> Rate:  # noqa: ARG002  every process costs the same
        """What a machine is said to cost."""
        from cloudprovider.bill import Rate

        return Rate(per_hour=self.config.price)

    def expired(self) -> tuple[str, ...]:
        known = [(home.name, self._identity(home)) for home in self._homes()]
        over = [name for name, identity in known if identity and identity.expires < time.time()]
        return tuple(name for name in over if not self.list(name))

    def sweep_expired(self) -> tuple[str, ...]:
        over = self.expired()
        for name in over:
            self.sweep(name)
        return over

    def logs(self, id: str, lines: int = 100) -> str:
        path = self._log(self.identity.name, id)
        try:
            return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    # -- one process -------------------------------------------------------------------------------

    def _start(self, boot: Boot) -> Machine:
        home = self._home(self.identity.name)
        id = f"local-{secrets.token_hex(5)}"
        record: dict[str, Any] = {
            "id": id,
            "role": boot.role,
            "group": boot.group,
            "created": time.time(),
            **_place(boot.role),
        }
        environ, log = process_environment(boot, record), self._log(home.name, id)
        self._children[id] = child = _run(["-m", "cloudruntime"], environ, log)
        record |= _born(child)
        if boot.autonomous:
            config = dataclasses.replace(self.config, directory=str(self.config.root.absolute()))
            environ |= autonomous.environment(boot, autonomous.mandate(config, self.identity))
            record["manager"] = _born(_run(autonomous.COMMAND[1:], environ, log.with_suffix(".manager.log")))
        _write(home / "machines" / f"{id}.json", json.dumps(record))
        return machine(record, self.identity, alive=True)

    def _describe(self, cluster: str, id: str) -> Machine | None:
        record = self._record(cluster, id)
        identity = self._identity(self._home(cluster))
        if record is None or identity is None:
            return None
        child = self._children.get(id)
        code = child.poll() if child else None
        if code is None and _process(record):
            return machine(record, identity, alive=True)
        reason = explain(code) if code is not None else "the process is gone"
        return machine(record, identity, alive=False, reason=reason)

    def _end(self, records: Sequence[dict[str, Any]]) -> None:
        """Ask these processes to end, then make them, and all they started."""
        both = [each for r in records for each in (r, r.get("manager")) if each]
        processes = [p for r in both if (p := _process(r))]
        trees = [q for p in processes for q in (p, *_children(p))]
        for process in processes:
            _signal(process, signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, GRACE_S)
        for process in trees if alive else ():
            _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
        psutil.wait_procs(trees, GRACE_S)

    # -- the directory -----------------------------------------------------------------------------

    def _home(self, cluster: str) -> Path:
        return self.config.root / cluster

    def _log(self, cluster: str, id: str) -> Path:
        return self._home(cluster) / "logs" / f"{id}.log"

    def _homes(self) -> Sequence[Path]:
        return sorted(path.parent for path in self.config.root.glob("*/tags.json"))

    @staticmethod
    def _identity(home: Path) -> Identity | None:
        try:
            return ledger.identity(json.loads((home / "tags.json").read_text()))
        except FileNotFoundError:
            return None

    def _record(self, cluster: str, id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._home(cluster) / "machines" / f"{id}.json").read_text())
        except FileNotFoundError:
            return None
        return found


def _place(role: str) -> dict[str, Any]:
    """A host and port nobody else has: Linux gives each machine a loopback address of its own."""
    if LINUX:
        low, high = 1 + secrets.randbelow(254), secrets.randbelow(256)
        return {"host": f"127.{64 + secrets.randbelow(128)}.{high}.{low}", "port": 8786}
    if role == "worker":
        return {"host": "127.0.0.1", "port": 0}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"host": "127.0.0.1", "port": free.getsockname()[1]}


def _run(arguments: Sequence[str], environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a Python process that outlives this one."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # A process that another manager ends must not stay a zombie of this one.
    threading.Thread(target=child.wait, name=f"reap {child.pid}", daemon=True).start()
    return child


def _born(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What tells a process from a later one of the same number."""
    return {"pid": child.pid, "born": psutil.Process(child.pid).create_time()}


def _process(record: dict[str, Any]) -> psutil.Process | None:
    """The live process of a record; a number used again by another process is not it."""
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["born"]) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _children(process: psutil.Process) -> Sequence[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return ()


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(f".{secrets.token_hex(4)}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
