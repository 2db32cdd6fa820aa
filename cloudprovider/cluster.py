"""The `distributed` Cluster that the user holds: a fleet plus a scheduler connection."""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import inspect
import logging
import math
import time
import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from distributed.comm import CommClosedError
from distributed.core import Status, rpc

from cloudprovider import access, security
from cloudprovider.budget import Budget, amount_of
from cloudprovider.compat import translated_options
from cloudprovider.config import Config, seconds
from cloudprovider.errors import (
    AccessError,
    BootError,
    CloudError,
    CloudWarning,
    CredentialsError,
)
from cloudprovider.estate import Beside, Estate
from cloudprovider.events import Event, Events, Phase
from cloudprovider.lead import Lead
from cloudprovider.leading import BUSY_S, LeadingCluster
from cloudprovider.notices import Notices
from cloudprovider.paying import PayingCluster
from cloudprovider.progress import say, shown
from cloudprovider.provider import Machine, Provider, State
from cloudprovider.telling import TellingCluster
from cloudprovider.timeline import Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from cloudprovider.blackbox import Why
    from cloudprovider.provider import Identity

__all__ = ["CloudCluster"]

logger = logging.getLogger("cloudprovider")

#: Seconds that a start waits for workers after the scheduler has answered.
WELCOME_S = 5.0
#: Seconds between two looks for the scheduler's address, at the most.
LONGEST_LOOK_S = 1.0
#: Seconds of one try to reach a scheduler again.
AGAIN_S = 10.0
#: Seconds the scheduler may take to end every machine when asked over its own connection.
GOODBYE_S = 10.0


class CloudCluster(LeadingCluster, TellingCluster, PayingCluster):
    """A Dask cluster on any provider; each cloud's class sets `config_class` and `provider_class`.

    Parameters
    ----------
    asynchronous
        Whether this is used with `await` and `async with`.
    loop
        The event loop to run in; made when not given.
    **options
        The fields of the cloud's `Config`.

    Raises
    ------
    CloudError
        One of its kinds, when the cluster cannot start; nothing is left then.
    """

    config_class: ClassVar[type[Config]]
    provider_class: ClassVar[type[Provider]]

    _instances: ClassVar[weakref.WeakSet[CloudCluster]] = weakref.WeakSet()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "config_class" in cls.__dict__:
            cls.__signature__ = _signature(cls.config_class)

    def __init__(self, *, asynchronous: bool = False, loop: Any = None, **options: Any) -> None:
        options = translated_options(self.config_class.section, options, stacklevel=2)
        self._setup(self.config_class.of(**options), asynchronous=asynchronous, loop=loop)

    def _setup(
        self,
        config: Config,
        *,
        asynchronous: bool,
        loop: Any,
        attach: bool = False,
        beside: Beside | None = None,
    ) -> None:
        self.events = Events()
        self.estate = Estate(config, self.provider_class, self.events, type(self).__name__, beside)
        self.security: Any = None
        self.shutdown_on_close = config.shutdown_on_close
        self._attach = attach
        self._beside = beside is not None
        self._starting: asyncio.Future[None] | None = None
        self._bringing: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        self._manager: asyncio.Task[None] | None = None
        self._touch: asyncio.Future[None] | None = None
        self._telling: asyncio.Future[None] | None = None
        self._tidying: asyncio.Future[None] | None = None
        self._reconciling: asyncio.Lock | None = None
        self._wake: asyncio.Event | None = None
        self._pages: Any = None
        self._arrivals: frozenset[str] = frozenset()
        self.notices = Notices(self.events)
        self._tunnel: Any = None
        self._renewed = -math.inf
        self._lead = Lead.stood_by() if beside else Lead.sought()
        self._budget = None if config.budget is None else Budget(usd=amount_of(config.budget))
        self._inherited = False
        self._told: frozenset[str] = frozenset()  # the machines that the budget was last divided among
        self._wished: Mapping[str, Any] | None = None  # what the scheduler was last told
        self._met: set[str] = set()  # machines that the cloud was asked for, whoever ordered them
        self._heard = time.time()
        self._ended: CloudError | None = None
        self._complaint = ""
        super().__init__(asynchronous=asynchronous, loop=loop, name=self.estate.identity.name, quiet=True)
        self.events.listen(self._remember)
        self._instances.add(self)
        if not self.called_from_running_loop:
            self._loop_runner.start()
            try:
                self.sync(self._start)
            except BaseException:
                # Ctrl-C cancels the start in the loop's thread; what it made must go before we return.
                self.sync(self._close)
                self._loop_runner.stop()
                raise

    @classmethod
    def from_name(cls, name: str, *, asynchronous: bool = False, loop: Any = None, **options: Any) -> Self:
        """Find a running cluster by its name, from any process or machine with the cloud's credentials.

        The address you come from is admitted beside those that are; `allow_from` makes its own the only ones.

        Parameters
        ----------
        name
            Of the cluster, as `dask cloud list` shows it.
        asynchronous, loop
            As in the constructor.
        **options
            The fields of the cloud's `Config` that say where to look, such as `region`, and
            `shutdown_on_close`.

        Raises
        ------
        CloudError
            When no such cluster runs; the message lists those that do.
        """
        self = cls.__new__(cls)
        self._setup(
            cls.config_class.named(name, **options), asynchronous=asynchronous, loop=loop, attach=True
        )
        return self

    @classmethod
    async def stand_by(cls, config: Config, beside: Beside) -> Self:
        """Find the cluster as the manager that runs on its scheduler's machine; see `cloudprovider.autonomous`."""
        self = cls.__new__(cls)
        self._setup(config, asynchronous=True, loop=None, attach=True, beside=beside)
        return await self

    async def over(self) -> None:
        """Return when the scheduler has ended, and with it the cluster."""
        if self._manager is not None:
            await asyncio.wait({self._manager})

    # -- start -----------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        async def settle() -> Self:
            if self.status == Status.created:
                await self._start()
            elif self.status == Status.running:
                await self._reconcile()
            return self

        return settle().__await__()

    def __enter__(self) -> Self:
        entered: Self = super().__enter__()
        return entered

    async def __aenter__(self) -> Self:
        await self
        return self

    async def _start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_or_close())
        await self._starting

    async def _start_or_close(self) -> None:
        self.status = Status.starting
        self._reconciling, self._wake = asyncio.Lock(), asyncio.Event()
        self._bringing = asyncio.ensure_future(self._bring_up())
        try:
            with shown(self.events, self.config.progress, title=self._where):
                await self._bringing
        except BaseException as error:
            closed_by_another = self._closing is not None
            if self._attach:  # a cluster that we cannot reach from here may well be in use
                self.shutdown_on_close = False
            await self._close()
            if closed_by_another and isinstance(error, asyncio.CancelledError):
                raise CloudError(f"{self._where} was closed while it started.") from error
            raise

    async def _bring_up(self) -> None:
        """One boot deep: workers are ordered as soon as the scheduler's private address is known."""
        await self._call(self.estate.find if self._attach else self.estate.make)
        self.security = security.client_security(self.estate.client_secret)
        deadline = asyncio.get_running_loop().time() + self.estate.start_timeout_s
        await self._wait_for_address(deadline, lambda: self.estate.placed)
        machine = self.estate.scheduler
        where = f"{machine.private_address} in {machine.zone or 'one zone'}"
        self.events.emit(Phase.placed, f"The scheduler has {where}.", machine=machine.id, role="scheduler")
        connecting = asyncio.ensure_future(self._connect(deadline))
        try:
            refusal = await self._reconcile() if self.fleet.missing > 0 else None
            if refusal and not self.fleet.machines:
                raise refusal
            if self._budget and not self._attach:
                self._budget.check(await self._call(self.estate.committed))
            await connecting
        finally:
            connecting.cancel()
        await super()._start()
        self._note_arrivals()
        await self._renew()
        self._manager = asyncio.ensure_future(self._manage())
        self._touch = asyncio.ensure_future(self._stay_in_touch())
        self._telling = asyncio.ensure_future(self._keep_telling())
        if self._beside:  # nobody looks
            return
        self._tidying = asyncio.ensure_future(self._tidy())
        await self._serve_pages()
        await self._welcome()
        if refusal:
            warnings.warn(f"{refusal} The cluster keeps what came.", CloudWarning, stacklevel=2)

    async def _tidy(self) -> None:
        """Remove what others' clusters left free of charge past their hard end; it is no reason to fail."""
        try:
            swept = await self._call(self.provider.sweep_expired)
        except CloudError as error:
            logger.info("What expired clusters left was not swept: %s", error)
        else:
            if swept:
                self.events.emit(Phase.landing, f"Swept what {', '.join(swept)} left behind.")

    async def _welcome(self) -> None:
        """Give workers, which booted beside the scheduler, a moment to arrive while progress is shown."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WELCOME_S):
                while self.fleet.machines.keys() - self._arrived():
                    self._waker.clear()
                    await self._waker.wait()

    async def _wait_for_address(self, deadline: float, there: Callable[[], bool]) -> None:
        """Wait until the scheduler's machine has an address, looking ever less often."""
        loop = asyncio.get_running_loop()
        pause = 0.2
        while not there():
            if loop.time() > deadline:
                within = f"{self.estate.start_timeout_s:.0f} s"
                raise BootError(f"The scheduler {self.estate.scheduler.id} had no address after {within}.")
            await asyncio.sleep(pause)
            pause = min(1.3 * pause, LONGEST_LOOK_S)
            await self._look_at_scheduler()

    async def _look_at_scheduler(self) -> None:
        machine = await self._call(self.estate.look_at_scheduler)
        if machine.state is State.gone:
            raise await self._over(machine)

    async def _over(self, machine: Machine) -> CloudError:
        """Why there is no scheduler: it never was up, or it has ended."""
        if self.status != Status.running:
            provider = self.estate.provider
            return provider.diagnosis(machine, await self._call(provider.logs, machine.id, 20))
        self._ended = CloudError(
            f"The scheduler {machine.id} has ended ({machine.reason or 'no reason given'}), and with it all "
            f"that {self._where} knew. close() removes the rest; then start another."
        )
        self.events.emit(Phase.lost, str(self._ended), machine=machine.id, reason=machine.reason)
        return self._ended

    async def _connect(self, deadline: float) -> None:
        """Reach the scheduler while watching that its machine lives."""
        await self._wait_for_address(deadline, lambda: self.estate.addressed)
        watching = asyncio.ensure_future(self._watch_scheduler())
        try:
            address = await self._reachable_address()
            await self._reach(address, deadline - asyncio.get_running_loop().time(), watching)
        except AccessError:
            await self._look_at_scheduler()
            raise
        finally:
            watching.cancel()
        self.scheduler_comm = rpc(address, connection_args=self.security.get_connection_args("client"))
        self.events.emit(
            Phase.connected, f"The scheduler answers at {address}.", machine=self.estate.scheduler.id
        )

    async def _reach(self, address: str, within: float, watching: asyncio.Future[None]) -> None:
        """Wait until the scheduler answers, or until who watches it raises."""
        reaching = asyncio.ensure_future(
            access.reach(
                address,
                self.security,
                within=within,
                allowed=self.config.sources(),
                running=lambda: self.estate.scheduler.state is State.running,
            )
        )
        try:
            await asyncio.wait({watching, reaching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await reaching
        finally:
            reaching.cancel()

    async def _reach_again(self) -> None:
        """Wait until the scheduler answers again, and say meanwhile what is in the way."""
        watching = asyncio.ensure_future(self._until_ended())
        try:
            while True:
                try:
                    return await self._reach(self.scheduler_comm.address, AGAIN_S, watching)
                except AccessError as error:
                    self._complain(error)
        finally:
            watching.cancel()

    async def _until_ended(self) -> None:
        while self._ended is None:
            with suppress(CloudError):  # the cloud may be out of reach too
                await self._watch_scheduler()
        raise self._ended

    async def _reachable_address(self) -> str:
        if self._beside or not self.config.tunnel:
            return self.estate.contact
        self.events.emit(Phase.access, "Opening the cloud's tunnel to the scheduler.", tunnel=True)
        self._tunnel = await self._call(self.estate.provider.tunnel, self.estate.scheduler)
        await self._call(self._tunnel.open, self.estate.start_timeout_s)
        host, port = self._tunnel.address
        return f"tls://{host}:{port}"

    async def _watch_scheduler(self) -> None:
        pause = 1.0
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 5.0)
            await self._look_at_scheduler()

    # -- while it runs -----------------------------------------------------------------------------------

    async def _stay_in_touch(self) -> None:
        try:
            await self.keep_watch(self._reach_again)
        except CloudError as error:
            logger.error("%s", error)  # noqa: TRY400  (a sentence for people)

    async def _wait_for_workers(self, n_workers: int = 0, timeout: Any = None) -> None:  # noqa: ASYNC109  distributed's
        """Wait as distributed does, past a broken connection, but end with the reason when none will come."""
        loop = asyncio.get_running_loop()
        deadline, left = loop.time() + (seconds(timeout, "timeout") if timeout else math.inf), timeout
        while True:
            waiting = asyncio.ensure_future(super()._wait_for_workers(n_workers, left))
            try:
                while not waiting.done():
                    await asyncio.wait({waiting}, timeout=0.2)
                    if not waiting.done() and (failure := self._ended or self.fleet.failure):
                        raise failure
                await waiting
            except CommClosedError:
                await asyncio.sleep(BUSY_S)
                left = max(0.1, deadline - loop.time()) if timeout else None
            else:
                return
            finally:
                waiting.cancel()

    # -- access ------------------------------------------------------------------------------------------

    async def _serve_pages(self) -> None:
        from cloudprovider.dashboard import serve_pages

        front = self.scheduler_info.get("services", {}).get("front")
        if front is None:
            return
        host = self.scheduler_comm.address.rpartition("/")[2].rpartition(":")[0]
        address = "{}:{}".format(*self._tunnel.front) if self._tunnel else f"{host}:{front}"
        try:
            self._pages = await serve_pages(address, self.estate.client_secret)
        except OSError as error:
            logger.warning("The dashboard cannot be served here: %s", error)

    @property
    def dashboard_link(self) -> str:
        """Where the user's browser finds the dashboard: this machine, through mutual TLS."""
        return "" if self._pages is None else str(self._pages.link)

    @property
    def jupyter_link(self) -> str:
        """Where the user's browser finds Jupyter, with its token; empty without `jupyter=True`."""
        if self._pages is None or not self.config.jupyter:
            return ""
        return f"{self._pages.url}/jupyter/lab?token={self.estate.token}"

    @property
    def timeline(self) -> Timeline:
        """Which second of the start went where."""
        return timeline(self.events)

    def why(self, worker: str) -> Why | Awaitable[Why]:
        """Why a machine ended: a sentence, with what it said last.

        Parameters
        ----------
        worker
            Id of a machine, or name of one of its Dask workers.

        Raises
        ------
        CloudError
            When this cluster has had no such machine.

        Examples
        --------
        >>> print(cluster.why("1f0c3a"))  # doctest: +SKIP
        Worker 1f0c3a (0.25 vCPU, 0.5 GiB, spot, us-east-1a) ended after 12 min 05 s: Your Spot Task was interrupted.
        """
        return self.sync(self._why, str(worker))  # type: ignore[no-any-return]

    async def _why(self, worker: str) -> Why:
        machine = worker
        known = self.fleet.machines.keys() | self.fleet.ended.keys()  # an id may end like a worker's name
        if (
            worker not in known
            and self.estate.workers_per_machine > 1
            and worker.rpartition("-")[2].isdigit()
        ):
            machine = worker.rpartition("-")[0]
        found: Why = await self._call(self.estate.why, machine, await self._heard_of(machine))
        return found

    def allow(self, *sources: str) -> Awaitable[None] | None:
        """Make the ingress rules exactly these CIDR blocks; without any, your present address.

        Raises
        ------
        CloudError
            When the cloud refuses the rule.
        """
        return self.sync(self._call, self.estate.allow, sources)  # type: ignore[no-any-return]

    # -- leave and close -----------------------------------------------------------------------------------

    def detach(self) -> str:
        """Let go of the cluster and leave it running, to its leases; `from_name` finds it again.

        A `CloudWarning` says how many results only futures hold: those go with their client. What was published,
        or given to `fire_and_forget`, stays.

        Returns
        -------
        str
            The name to find it by; to be awaited where the cluster is asynchronous.
        """
        self.shutdown_on_close = False
        name = self.sync(self._detach)
        if not self.asynchronous:
            self._loop_runner.stop()
        return name  # type: ignore[no-any-return]

    async def _detach(self) -> str:
        if self.sees:
            with suppress(OSError):
                if held := await self.scheduler_comm.cloud_futures():
                    warnings.warn(
                        f"{held} results of {self._where} are held by futures alone, and go when their client ends. "
                        "client.publish_dataset() keeps results, and fire_and_forget() work, for whoever comes next.",
                        CloudWarning,
                        stacklevel=2,
                    )
        await self._close()
        return str(self.name)

    def close(self, timeout: float | None = None) -> Any:
        """End everything this cluster made, and wait until it is gone.

        Parameters
        ----------
        timeout
            Seconds after which to give up waiting.
        """
        done = super().close(timeout)
        if not self.asynchronous:
            self._loop_runner.stop()
        return done

    async def _close(self) -> None:
        if self.status == Status.closed:
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut_down())
        await asyncio.shield(self._closing)

    async def _shut_down(self) -> None:
        self.status = Status.closing
        self.events.emit(Phase.closing, f"Closing {self._where}.")
        self.estate.stop()
        await self._stop_own_tasks()
        try:
            with self._keeping_receipt():
                if self.shutdown_on_close:
                    asked = await self._say_goodbye()
                    if error := await self._clean_up(asked=asked):
                        raise error
        finally:
            await super()._close()
            await self._close_tunnel()
            self._instances.discard(self)
            stays = not self.shutdown_on_close and self.scheduler_comm is not None
            said = f"Left {self._where} running." if stays else f"Closed {self._where}{self.estate.paid}."
            closed = self.events.emit(Phase.closed, said)
            say(closed.message, visible=self.config.progress)

    async def _stop_own_tasks(self) -> None:
        if self._adaptive is not None:
            self._adaptive.stop()
        for task in (self._bringing, self._manager, self._touch, self._telling, self._tidying):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})
        if self._pages is not None:
            await self._pages.close()

    async def _close_tunnel(self) -> None:
        if self._tunnel is not None:
            await asyncio.to_thread(self._tunnel.close)

    async def _say_goodbye(self) -> bool:
        """Ask the scheduler to end every machine: this needs no cloud credentials.

        Returns whether it heard us; it may end before it has answered.
        """
        watched = self._watch_worker_status_comm
        connected = watched is not None and not watched.closed()
        if self.scheduler_comm is not None and self._ended is None:
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(self.scheduler_comm.terminate(), GOODBYE_S)
                connected = True
        return connected

    async def _clean_up(self, *, asked: bool) -> CloudError | None:
        """Delete through the API; returns what to raise when machines may still run."""
        try:
            if self._calls:
                await asyncio.wait(set(self._calls))
            await asyncio.to_thread(self.estate.remove)
        except CredentialsError as error:
            free = (
                f"{error} The scheduler has ended the machines of {self.name!r} itself; what is left bills "
                f"nothing (secrets, group, definitions): remove it with `dask cloud sweep {self.name}`."
            )
            if not asked:
                return CredentialsError(
                    f"{error} Machines of {self.name!r} may still run until their leases end them; "
                    f"with fresh credentials `dask cloud sweep {self.name}` ends them now."
                )
            logger.warning("%s", free)
            self.events.emit(Phase.closing, free)
        except CloudError as error:
            return error
        return None

    def _sweep_at_exit(self) -> None:
        with self._keeping_receipt():
            if self.shutdown_on_close:
                self.estate.remove()

    # -- what it says of itself ----------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled: it holds sockets and an event loop. "
            f"Send its name and use {type(self).__name__}.from_name({self.name!r}), or send "
            "cluster.scheduler_address to code that has a client's certificate."
        )

    def _remember(self, event: Event) -> None:
        self._log(event.message)

    @property
    def identity(self) -> Identity:
        """Its name, owner, birth and hard end, as its tags say."""
        return self.estate.identity

    @property
    def provider(self) -> Provider:
        """The cloud's service that runs its machines."""
        return self.estate.provider

    @property
    def scheduler_machine(self) -> Machine:
        """Its scheduler's machine."""
        return self.estate.scheduler


def _signature(config: type[Config]) -> inspect.Signature:
    """The keyword arguments of a cluster class: its Config's fields, and Dask's own two."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    fields = [
        inspect.Parameter(f.name, keyword, default=None, annotation=f.type)
        for f in dataclasses.fields(config)
    ]
    own = [
        inspect.Parameter("asynchronous", keyword, default=False, annotation="bool"),
        inspect.Parameter("loop", keyword, default=None, annotation="Any"),
    ]
    return inspect.Signature([*fields, *own])


@atexit.register
def _sweep_forgotten() -> None:
    # At interpreter exit executors refuse work and Cluster.close() swallows the error, so that
    # machines would leak: call the synchronous provider directly.
    for cluster in list(CloudCluster._instances):  # noqa: SLF001
        try:
            cluster._sweep_at_exit()  # noqa: SLF001
        except CloudError as error:
            logger.warning("%s", error)
