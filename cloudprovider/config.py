"""Options: one frozen dataclass per cloud whose fields are the keyword arguments and the YAML keys.

One precedence: keyword, then Dask config, then default. `None` means unset; `False` and `0` are values.
"""

from __future__ import annotations

import dataclasses
import difflib
import getpass
import importlib.metadata
import ipaddress
import math
import os
import re
import secrets
import sys
import time
import typing
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from cloudruntime.boot import Boot, Leases

from cloudprovider import tags as ledger
from cloudprovider.bill import checked_path
from cloudprovider.budget import amount_of
from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Config", "setting"]

#: Packages whose versions travel in a Boot: what Dask pickles with, and what users compute with most.
VERSIONED = (
    "dask",
    "dask-cloud",  # who attaches with another one can be told which it takes
    "distributed",
    "msgpack",
    "cloudpickle",
    "tornado",
    "toolz",
    "numpy",
    "pandas",
    "pyarrow",
)


def setting(path: str, default: Any = None) -> Any:
    """What Dask config says under `cloud`, with the environment of this moment first.

    `dask.config` reads `DASK_CLOUD__...` once, when it is imported; an emulated cloud that was started
    since then says where it is through the environment.

    Parameters
    ----------
    path
        Such as `fargate.n-workers`.
    default
        What it is when nobody says.
    """
    import dask.config

    variable = "DASK_CLOUD__" + path.replace(".", "__").replace("-", "_").upper()
    if variable in os.environ:
        return dask.config.interpret_value(os.environ[variable])
    return dask.config.get(f"cloud.{path}", default=default)


def seconds(value: str | float, option: str) -> float:
    """A length of time in seconds; a bare number is seconds."""
    from dask.utils import parse_timedelta

    try:
        parsed = float(parse_timedelta(value, default="seconds"))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{option}={value!r} is no length of time; write '20 minutes' or 1200.") from error
    if parsed < 0:
        raise ConfigError(f"{option}={value!r} is before now.")
    return parsed


def gibibytes(value: str | float, option: str) -> float:
    """An amount of memory in GiB; a bare number is GiB."""
    from dask.utils import parse_bytes

    try:
        amount = float(value)
    except (TypeError, ValueError):
        try:
            amount = float(parse_bytes(value)) / 2**30
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{option}={value!r} is no amount of memory; write '8 GiB'.") from error
    if not 0 < amount < math.inf:
        raise ConfigError(f"{option}={value!r} is no amount of memory; write '8 GiB'.")
    return amount


def listed(value: str | Iterable[str] | None) -> list[str]:
    """One name or several, as a list."""
    return [value] if isinstance(value, str) else [*(value or ())]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The vocabulary that every cloud shares.

    Parameters
    ----------
    name
        The cluster's name; made up when not given.
    n_workers
        Dask workers to start with.
    image
        Container image that has `distributed`. Default: Dask's own, at the client's versions.
    environment
        Environment variables for Dask and user code on every machine.
    worker_nthreads, worker_memory_limit
        Threads and memory of each worker. Default: the machine's, shared between its workers.
    workers_per_machine
        Dask workers on each machine. Default: one, or one a GPU where machines have GPUs.
    worker_options, scheduler_options
        Further keyword arguments of `distributed`'s Nanny and Scheduler.
    public
        Whether machines get public addresses. False needs a tunnel or a route of your own.
    tunnel
        Reach the scheduler through the cloud's own tunnel, with no rule open to the internet.
    allow_from
        CIDR blocks that may reach the scheduler. Default: the caller's own address.
        `0.0.0.0/0` must be asked for by name.
    idle_timeout
        A cluster with nothing to do ends after this.
    scheduler_timeout
        A worker that no scheduler answers ends after this.
    client_timeout
        A cluster with neither client nor work ends after this.
    work_timeout
        A cluster with work but no client ends after this.
    network_timeout
        How long a peer may be silent on the network before Dask gives it up.
    max_lifetime
        The hard end of everything in the cluster.
    budget
        What the cluster may cost in all, such as `"25 USD"`: it ends in time, also when nobody looks.
        Default: no limit.
    receipt
        File to which the receipt is written on close, as text, JSON or a page by its ending: `.txt`, `.json`
        or `.html`. `{name}` in it is the cluster's name. Default: none.
    start_timeout
        How long the scheduler may take from its order to its first answer.
    tags
        Further tags on everything that is made.
    security
        True for mutual TLS with keys of this cluster's own, or a `distributed.Security` of yours.
        There is no False.
    jupyter
        Serve Jupyter, with a token of its own, beside the scheduler.
    autonomous
        Run a manager on the scheduler's machine as well, which goes on scaling, replacing and ending machines
        while no client is there. The cluster then lives as long as it has work, up to `max_lifetime`:
        `client_timeout` and `work_timeout` do not count.
    manager_image
        Container image of that manager. Default: the official one, at the client's versions.
    shutdown_on_close
        Whether `close()` ends the machines. False leaves the cluster to its leases.
    progress
        Whether to show progress. Default: when someone can see it.
    """

    #: The key under `cloud` in Dask config.
    section: typing.ClassVar[str] = "default"
    #: Whether its provider runs a manager on the scheduler's machine.
    can_be_autonomous: typing.ClassVar[bool] = False

    name: str | None = None
    n_workers: int = 0
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    worker_nthreads: int | None = None
    worker_memory_limit: str | None = None
    workers_per_machine: int | None = None
    worker_options: Mapping[str, Any] = field(default_factory=dict)
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    public: bool = True
    tunnel: bool = False
    allow_from: str | Sequence[str] | None = None
    idle_timeout: str | float = "20 minutes"
    scheduler_timeout: str | float = "5 minutes"
    client_timeout: str | float = "10 minutes"
    work_timeout: str | float = "2 hours"
    network_timeout: str | float = "5 minutes"
    max_lifetime: str | float = "24 hours"
    budget: str | float | None = None
    receipt: str | None = None
    start_timeout: str | float = "10 minutes"
    tags: Mapping[str, str] = field(default_factory=dict)
    security: Any = True
    jupyter: bool = False
    autonomous: bool = False
    manager_image: str | None = None
    shutdown_on_close: bool = True
    progress: bool | None = None

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Check keyword arguments, fill in from Dask config, and make the Config.

        Raises
        ------
        ConfigError
            For a name that is no option, with the nearest that is; for a value that cannot work.
        """
        config = cls._of(options)
        config.check()
        return config

    @classmethod
    def named(cls, name: str, **options: Any) -> Self:
        """The Config that finds a running cluster: what it was made with is read from the cloud.

        Raises
        ------
        ConfigError
            For a name that no cluster can have, or that is no option.
        """
        return cls._of({**options, "name": ledger.checked_name(name)})

    @classmethod
    def _of(cls, options: Mapping[str, Any]) -> Self:
        names = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                raise ConfigError(cls._no_option(name, names))
        chosen = dict(cls._configured(names))
        chosen.update((name, value) for name, value in options.items() if value is not None)
        return cls(**chosen)

    @classmethod
    def _configured(cls, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """What Dask config says: `cloud.<section>` before `cloud.default`."""
        for section in ("default", cls.section):
            written = setting(section) or {}
            if not isinstance(written, dict):
                raise ConfigError(
                    f"Dask config cloud.{section} is {written!r}; it must be a mapping of options."
                )
            for key in written:
                name = str(key).replace("-", "_")
                if name not in names and section == cls.section:
                    raise ConfigError(f"Dask config cloud.{section}: {cls._no_option(name, names)}")
            for name in names:
                value = setting(f"{section}.{name.replace('_', '-')}")
                value = setting(f"{section}.{name}") if value is None else value
                if value is not None:
                    yield name, value

    @classmethod
    def _no_option(cls, name: str, names: Sequence[str]) -> str:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f". It has: {', '.join(sorted(names))}."
        return f"{cls.__name__.removesuffix('Config')}Cluster has no option {name!r}{hint}"

    def check(self) -> None:
        """Refuse what cannot work, before any call. A cloud's Config extends this."""
        if self.name is not None:
            ledger.checked_name(self.name)
        if not _whole(self.n_workers) or self.n_workers < 0:
            raise ConfigError(f"n_workers={self.n_workers!r} must be a whole number, 0 or more.")
        per_machine = self.workers_per_machine
        if per_machine is not None and (not _whole(per_machine) or per_machine < 1):
            raise ConfigError(f"workers_per_machine={per_machine!r} must be a whole number, 1 or more.")
        if self.autonomous and not self.can_be_autonomous:
            raise ConfigError(f"autonomous=True is not to be had on {self.section}.")
        if self.security is False or self.security is None:
            raise ConfigError("security=False is not to be had: every connection is mutual TLS.")
        if not self.public and not self.tunnel and self.allow_from is None:
            # A peered network or a VPN can reach private addresses; the user then knows its range.
            raise ConfigError(
                "public=False gives the scheduler no address you can reach from here. Pass tunnel=True, "
                "or allow_from='10.0.0.0/8' (your own range) when you are inside the network."
            )
        self._check_limits()
        self._check_environment()
        self._check_tags()
        if self.allow_from is not None:
            self.sources()

    def _check_limits(self) -> None:
        for option in ("idle", "scheduler", "client", "work", "network", "start"):
            seconds(getattr(self, f"{option}_timeout"), f"{option}_timeout")
        if seconds(self.max_lifetime, "max_lifetime") <= 0:
            raise ConfigError("max_lifetime must be longer than nothing.")
        if self.budget is not None:
            amount_of(self.budget)
        if self.receipt is not None:
            checked_path(self.receipt, "receipt")

    def _check_environment(self) -> None:
        for key, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) or "\0" in str(value):
                raise ConfigError(f"environment has {key!r}, which no process can be given as a variable.")
            if key.startswith("DASK_CLOUD_"):
                raise ConfigError(f"environment has {key!r}: names that start with DASK_CLOUD_ are ours.")

    def _check_tags(self) -> None:
        for key in self.tags:
            if key in ledger.RESERVED:
                raise ConfigError(f"tags has {key!r}, which this project writes itself.")

    def sources(self) -> tuple[str, ...]:
        """`allow_from` as CIDR blocks; empty when it is not set."""
        given = [self.allow_from] if isinstance(self.allow_from, str) else (self.allow_from or ())
        try:
            return tuple(str(ipaddress.ip_network(source, strict=False)) for source in given)
        except ValueError as error:
            raise ConfigError(f"allow_from={self.allow_from!r}: {error}.") from error

    def identity(self) -> Identity:
        """A new cluster's identity: its name, owner, birth and hard end."""
        created = int(time.time())
        return Identity(
            name=self.name or f"dask-{secrets.token_hex(4)}",
            owner=ledger.slug(_user()),
            created=created,
            expires=created + int(seconds(self.max_lifetime, "max_lifetime")),
        )

    def boot_for(self, role: str, identity: Identity) -> Boot:
        """What a machine of that role runs; the provider adds where its secret is."""
        worker = role == "worker"
        return Boot(
            cluster=identity.name,
            role=role,
            image=self.image or "",
            nthreads=self.worker_nthreads if worker else None,
            memory_limit=self.worker_memory_limit if worker else None,
            processes=(self.workers_per_machine or 1) if worker else 1,
            environment={key: str(value) for key, value in self.environment.items()},
            options=dict(self.worker_options if worker else self.scheduler_options),
            leases=self._leases(identity),
            jupyter=self.jupyter and not worker,
            autonomous=self.autonomous and not worker,
            versions=client_versions(),
        )

    def _leases(self, identity: Identity) -> Leases:
        """How long machines live without being renewed; with a manager of its own a cluster needs no client."""
        idle_s = seconds(self.idle_timeout, "idle_timeout")
        client_s = seconds(self.client_timeout, "client_timeout")
        work_s = seconds(self.work_timeout, "work_timeout")
        lifetime_s = seconds(self.max_lifetime, "max_lifetime")
        return Leases(
            scheduler_lost=seconds(self.scheduler_timeout, "scheduler_timeout"),
            idle=idle_s,
            no_client=idle_s if self.autonomous else client_s,
            no_client_work=lifetime_s if self.autonomous else work_s,
            network=seconds(self.network_timeout, "network_timeout"),
            expires=identity.expires,
        )


Spot = bool | Literal["fallback"]


def client_versions() -> dict[str, str]:
    """The client's versions of what must, or should, be the same on the machines."""
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
