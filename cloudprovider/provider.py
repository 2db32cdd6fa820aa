"""What a cloud service must do to host Dask machines, and what it says of each machine."""

from __future__ import annotations

import enum
import math
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider import __version__
from cloudprovider.errors import AccessError, BootError, CloudError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloudruntime.boot import Boot

    from cloudprovider.bill import Rate
    from cloudprovider.security import Secrets
    from cloudprovider.tunnel import Tunnel

__all__ = ["Created", "Identity", "Machine", "Provider", "Quota", "State", "Swept", "contact", "find"]

#: Where a scheduler listens, and where its machine's TLS front does, unless its address says otherwise.
SCHEDULER_PORT, FRONT_PORT = 8786, 8787


def contact(address: str, port: int = SCHEDULER_PORT) -> str:
    """`host:port` of an address that may already have a port."""
    return address if ":" in address else f"{address}:{port}"


class State(enum.StrEnum):
    """How far a machine is in its life. `gone` is final, and the only proof of death."""

    starting = enum.auto()
    running = enum.auto()
    gone = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whose a resource is: what the tags of everything in a cluster say.

    Parameters
    ----------
    name
        The cluster's name, `[a-z0-9-]{1,40}`; every resource's name is a function of it.
    owner
        Who made it, slugged.
    created, expires
        Seconds since the epoch. `expires` is the hard end and never moves.
    """

    name: str
    owner: str
    created: int
    expires: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the cloud says exists.

    Parameters
    ----------
    id
        The cloud's own name for it. Its Dask workers are named `<id>` or `<id>-<k>`.
    role
        `scheduler` or `worker`.
    state
        See `State`.
    cluster
        Name of the cluster its tags say it belongs to.
    group
        The kind of worker it was ordered as.
    private_address, public_address
        None until the cloud has assigned it; set does not mean that the machine runs.
    zone
        None until placed.
    kind
        Size, in the cloud's own words.
    market
        `on-demand` or `spot`.
    created
        Seconds since the epoch when it was ordered.
    billed_from, ended
        Seconds since the epoch from which and until which it bills; None when not yet. A machine that is
        gone has no `ended` while it still winds up.
    reason
        Why it is gone; empty while it is not.
    """

    id: str
    role: str
    state: State
    cluster: str = ""
    group: str = "default"
    private_address: str | None = None
    public_address: str | None = None
    zone: str | None = None
    kind: str = ""
    market: str = "on-demand"
    created: float = 0.0
    billed_from: float | None = None
    ended: float | None = None
    reason: str = ""
    expires: int | None = None


@dataclass(frozen=True, kw_only=True)
class Created:
    """The answer to an order: what was made, and why it is fewer than asked."""

    machines: tuple[Machine, ...] = ()
    refusal: CloudError | None = None


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep removed, by the cloud's own names, and what it could not remove yet."""

    machines: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    left: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A limit of the account on machines of one kind in one market, whoever runs them.

    Parameters
    ----------
    name
        What the cloud calls it.
    limit, unit
        How much the account has, and of what.
    each
        How much of it one machine takes.
    taken
        How much of it the cluster's scheduler takes. What else runs in the account is not known.
    advice
        A sentence that says how to raise it.
    used
        How much of it is in use now, by whomever; None where the cloud does not tell.
    """

    name: str
    limit: float
    unit: str
    each: float
    taken: float = 0.0
    advice: str = ""
    used: float | None = None

    @property
    def machines(self) -> int:
        """Machines that fit beside the scheduler when nothing else runs in the account."""
        return self._fit(self.limit)

    @property
    def free(self) -> int:
        """Machines that fit beside the scheduler now, as far as the cloud tells what is in use."""
        return self._fit(self.limit - (self.used or 0.0))

    def _fit(self, room: float) -> int:
        return max(0, math.floor((room - self.taken) / self.each))


class Provider(ABC):
    """What a cloud service must do to host Dask machines. Synchronous and thread-safe.

    * Batched.  `create` takes a count, the rest take ids: one API call per batch the cloud allows.
    * Named by the cloud.  A machine's Dask workers are `<id>` or `<id>-<k>`: the fleet counts machines,
      the cluster translates names and counts, and scale-down never splits a machine.
    * Eventually consistent.  `describe` may not show a machine that `create` just returned:
      a machine is gone when its state says so; absence is not death.
    * Tagged at birth.  Whatever `create` makes, `sweep` finds without any memory.
    * Idempotent.  A call retried after a lost answer makes nothing twice (client tokens, request ids).
    * Whole errors.  Every foreign error crosses this border as a `CloudError`, raised from it.
    """

    #: Whose machines these are.
    identity: Identity
    #: The cloud's own options.
    config: Any
    #: How many machines one `create` orders at its best; the fleet orders in waves of this size.
    wave: int = 100
    #: How many machines one call describes; the fleet looks at no more at a time.
    look: int = 100
    #: Seconds a boot takes when nothing is known yet; the fleet paces its looks by it.
    boot_s: float = 60.0
    #: What `prepare` chose for the user, each a sentence without its end.
    chosen: tuple[str, ...] = ()

    def __init__(self, config: Any, identity: Identity) -> None:
        self.config = config
        self.identity = identity

    @abstractmethod
    def prepare(self, boots: Sequence[Boot], secrets: Secrets) -> tuple[Boot, ...]:
        """Find or make the landing, and make what the cluster owns before its first machine.

        Returns the boots as `create` wants them, with their references to the stored secrets.
        """

    @abstractmethod
    def attach(self) -> Secrets:
        """Find the cluster of this name, from any process, and read its client secret.

        Sets `identity` to what the tags say, and makes `create` work again.

        Raises
        ------
        CloudError
            When there is no such cluster; the message lists those there are.
        """

    def resume(self) -> None:
        """Find the cluster as its own manager does, on the scheduler's machine and with that machine's rights.

        As `attach`, but that nobody reads a secret: the client's is for people's credentials alone. `config` and
        `identity` are the cluster's own, by its mandate.

        Raises
        ------
        CloudError
            When there is no such cluster, or no manager can run beside its scheduler.
        """
        raise CloudError(f"No manager can run beside the scheduler of {self.identity.name!r} here.")

    @abstractmethod
    def boot(self, role: str) -> Boot:
        """The boot this cluster's machines of a role run, after `prepare`, `attach` or `resume`."""

    @abstractmethod
    def create(self, boot: Boot, count: int) -> Created:
        """Order `count` machines; keep what came, and say why it is fewer."""

    @abstractmethod
    def describe(self, ids: Collection[str]) -> list[Machine]:
        """What the cloud says of these machines; it may not know the newest yet."""

    @abstractmethod
    def delete(self, ids: Collection[str]) -> None:
        """End these machines; unknown ids are no error."""

    @abstractmethod
    def list(self, cluster: str | None = None) -> list[Machine]:
        """Live machines of a cluster, or of every cluster of this provider, by tag."""

    @abstractmethod
    def sweep(self, cluster: str) -> Swept:
        """Remove everything tagged with this cluster, machines first; the landing stays."""

    @abstractmethod
    def expired(self) -> tuple[str, ...]:
        """The clusters whose `expires` has passed, and that have left something but no live machine."""

    @abstractmethod
    def sweep_expired(self) -> tuple[str, ...]:
        """Remove what `expired` clusters left; return their names."""

    @abstractmethod
    def allow(self, sources: Collection[str]) -> None:
        """Make the cluster's ingress rules exactly these CIDR sources."""

    @abstractmethod
    def logs(self, id: str, lines: int = 100) -> str:
        """The last log lines of one machine, dead or alive; empty when there are none yet."""

    def ended(self, cluster: str) -> Sequence[Machine]:  # noqa: ARG002  a cloud that forgets at once has none
        """Machines of a cluster that have ended, by tag, as far as the cloud still knows whose they were."""
        return []

    def rate(self, machine: Machine) -> Rate:  # noqa: ARG002  a cloud's own price depends on it
        """What a machine costs while it bills; nothing, where machines cost nothing."""
        from cloudprovider.bill import Rate

        return Rate(per_hour=0.0)

    def likely(self, role: str, market: str = "on-demand") -> Machine:
        """A machine of a role as an order's first choice would make it, after `prepare`: for what it would cost."""
        return Machine(id="", role=role, state=State.starting, market=market)

    def quotas(self, role: str = "worker") -> Sequence[Quota]:  # noqa: ARG002  a cloud's own depend on it
        """The account's limits on machines of a role, one for each market they may come from.

        Empty where there are none, or one of them is not known. At most one call for each; asked when
        `config` is all that is known.
        """
        return ()

    def now(self) -> float:
        """Seconds since the epoch by the cloud's clock, as far as it is known; ours may be wrong, or jump."""
        return time.time()

    def tunnel(self, machine: Machine) -> Tunnel:
        """The cloud's own tunnel to a scheduler's machine, not open yet; no rule lets anyone in.

        Raises
        ------
        AccessError
            When there is none here.
        """
        raise AccessError(f"There is no tunnel to {machine.id}: pass public=True, or allow_from=.")

    def diagnosis(self, machine: Machine, logs: str) -> CloudError:
        """What to tell the user of a machine that ended before Dask answered on it."""
        why = machine.reason or "the cloud gave no reason"
        return BootError(f"The {machine.role} {machine.id} ended before Dask answered on it: {why}.", logs)


def find(provider: Provider) -> Secrets:
    """`attach`, where what another version wrote down is told in a sentence.

    Raises
    ------
    CloudError
        As `attach` does, and when there is a cluster whose records cannot be read.
    """
    try:
        secrets = provider.attach()
        for role in ("scheduler", "worker"):
            provider.boot(role)
    except CloudError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, zlib.error) as error:
        name = provider.identity.name
        raise CloudError(
            f"Cluster {name!r} was made by another version of dask-cloud, and {__version__} cannot read what that "
            f"one wrote down ({type(error).__name__}: {error}). `dask cloud down {name}` ends it; to use it, install "
            "the version that made it."
        ) from error
    return secrets
