"""What a machine runs: pure data, JSON, versioned."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BOOT", "SCHEDULER", "Boot", "Leases"]

#: Environment variable that holds a Boot as JSON, or `@PATH` of a file that does.
BOOT = "DASK_CLOUD_BOOT"
#: Environment variable that overrides a Boot's scheduler address: it is known only when workers are ordered.
SCHEDULER = "DASK_CLOUD_SCHEDULER"

VERSION = 1


@dataclass(frozen=True)
class Leases:
    """How long a machine may live without being renewed, in seconds.

    Parameters
    ----------
    scheduler_lost
        A worker that no scheduler answers.
    idle
        A cluster with a client connected and nothing to do.
    no_client
        A scheduler with neither a client nor work.
    no_client_work
        A scheduler with work but no client.
    network
        How long a peer may be silent on the network before Dask gives it up.
    expires
        Seconds since the epoch: the hard end, which never moves. None means none.
    budget
        How long the cluster's budget surely pays, until a manager says how long it does. None where there is none.
    """

    scheduler_lost: float = 300.0
    idle: float = 1200.0
    no_client: float = 600.0
    no_client_work: float = 7200.0
    network: float = 300.0
    expires: int | None = None
    budget: float | None = None


@dataclass(frozen=True)
class Boot:
    """What a machine runs. It holds references to secrets, never a key.

    Parameters
    ----------
    cluster
        Name of the cluster.
    role
        `scheduler` or `worker`.
    group
        The kind of worker it is.
    image
        The container image that runs it.
    scheduler
        Address of the scheduler, such as `tls://10.0.0.5:8786`; None for the scheduler itself.
    secret
        Reference to the machine's secret: `env:NAME`, `file:PATH`, `ssm:NAME`, `secretsmanager:NAME`,
        `gcp-secret:NAME`, `keyvault:URL`. None means that nothing is encrypted.
    nthreads, memory_limit
        Per worker process; None means what the machine has, shared between its processes.
    processes
        Worker processes a machine.
    environment
        Environment variables for Dask and for user code.
    options
        Further keyword arguments of `distributed`'s Scheduler or Nanny.
    leases
        How long it may live without being renewed.
    jupyter
        Whether the scheduler's machine serves Jupyter beside it.
    autonomous
        Whether a manager runs on the scheduler's machine beside it.
    versions
        The client's versions by package (`python`, `distributed`, ...): a different Python minor
        or `distributed` ends the boot.
    """

    cluster: str
    role: str
    group: str = "default"
    image: str = ""
    scheduler: str | None = None
    secret: str | None = None
    nthreads: int | None = None
    memory_limit: str | None = None
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    leases: Leases = field(default_factory=Leases)
    jupyter: bool = False
    autonomous: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """The Boot as one line of JSON; what has its default is left out."""
        default = dataclasses.asdict(Boot(cluster="", role=""))
        document = {k: v for k, v in dataclasses.asdict(self).items() if v != default[k]}
        return json.dumps({"version": VERSION, **document}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Boot:
        """The Boot that a JSON document says.

        Raises
        ------
        ValueError
            When it is no Boot, or one of another version.
        """
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError(f"Not a Boot: {text[:200]}")  # noqa: TRY004  (a text that is wrong)
        made = f"dask-cloud {document.get('versions', {}).get('dask-cloud', 'of another version')} wrote it"
        if document.pop("version", None) != VERSION:
            raise ValueError(f"Not a Boot of version {VERSION}, {made}: {text[:200]}")
        unknown = sorted(set(document) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"A Boot has no {', '.join(unknown)}; {made}")
        return cls(**{**document, "leases": Leases(**document.get("leases", {}))})

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Boot:
        """The Boot that this process was given.

        Raises
        ------
        ValueError
            When there is none.
        """
        text = environ.get(BOOT, "")
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs import time)
                text = file.read()
        if not text:
            raise ValueError(f"{BOOT} is not set: it must hold a Boot as JSON, or @PATH of one")
        boot = cls.loads(text)
        scheduler = environ.get(SCHEDULER)
        return dataclasses.replace(boot, scheduler=scheduler) if scheduler else boot
