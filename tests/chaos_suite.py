"""Runs cases of `chaos_cases` on the account of one cloud, and says what each left."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chaos_network
from chaos_cases import CALL_FAULTS, Case, Recorded, cases, described
from chaos_client import GROUP, PHASES, clients, live

from cloudprovider import CloudError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from embedded import Account

__all__ = ["Clock", "Suite", "Verdict"]

#: How long machines may live alone.
LEASES = {"client_timeout": "4s", "scheduler_timeout": "4s", "work_timeout": "4s"}
#: How long a cluster waits for who comes back.
RETURN = "20s"
#: How long anything may take at a cluster whose network is cut.
SHORT = {"start_timeout": "15s", "network_timeout": "6s"}
#: The hard end of clusters that the next start sweeps.
LIFETIME_S = 45
#: Clients that live and die at once.
TOGETHER = 4
#: Seconds of a life, of a client whose network stays cut, and of the end of all leases; a busy computer is slow.
LIFE_S, CUT_OFF_S, OVER_S = 150.0, 15.0, 90.0
#: On Azure a machine waits ten minutes for the right to read its secret, whether there is one or not.
LONG_OVER_S = {"azure": 690.0}
#: What a cloud's ledger may add to a machine that bills no more, in seconds.
NOISE_S = 0.01
#: The image whose machines have a clock of their own.
ASKEW = "registry.example/askew/dask:1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a case.

    Parameters
    ----------
    case
        Which.
    happened
        Whether what was to go wrong did.
    billing, left
        Machines that billed after the leases, and what a sweep or the next start left.
    results
        `kept`, `lost: ...`, or empty where the life held none.
    ended
        How the client ended: `killed`, `closed`, `hung`, or with which error; `bug: ...` with one that is not ours.
    over_s
        Seconds from its end until nothing billed.
    said
        The last lines of the machines that billed.
    """

    case: Case
    happened: bool = True
    billing: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    results: str = ""
    ended: str = ""
    over_s: float = 0.0
    said: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def survived(self) -> bool:
        """Whether the case met every promise."""
        wrong = self.billing or self.left or self.results.startswith("lost")
        return not wrong and not self.ended.startswith(("bug", "hung"))

    def document(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {**described(self.case), **{k: v for k, v in dataclasses.asdict(self).items() if k != "case"}}


class Clock:
    """Clocks that can be wrong: a file for each says by how much; none where there is no C compiler."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.library = self.folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        if compiler := shutil.which("cc"):
            subprocess.run(
                [compiler, "-O2", "-shared", "-fPIC", "-o", self.library, source, "-ldl"], check=True
            )
        self.set("client", 0)
        self.set("machines", 0)

    @contextlib.contextmanager
    def preloaded(self) -> Iterator[bool]:
        """Have what is started in this block be able to go by such clocks; whether it is."""
        before = os.environ.get("LD_PRELOAD")
        if self.library.exists():
            os.environ["LD_PRELOAD"] = str(self.library)
        try:
            yield self.library.exists()
        finally:
            os.environ.pop("LD_PRELOAD", None)
            if before is not None:
                os.environ["LD_PRELOAD"] = before
            shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, whose: str) -> str:
        """What says by how much the clock of `client` or `machines` is wrong."""
        return str(self.folder / whose)

    def set(self, whose: str, ahead_s: int) -> None:
        """Let it be wrong by so much from now on."""
        fresh = self.folder / f"{whose}.new"
        fresh.write_text(str(ahead_s))
        fresh.replace(self.file(whose))


class Suite:
    """Runs cases on one account.

    Parameters
    ----------
    account
        As on its first day.
    clock
        By which clients and machines go where it is wrong.
    walled
        Whether the network can be cut.
    alone
        Whether this process tries no other cloud: clients then begin with its SDK imported.
    """

    def __init__(
        self, account: Account, clock: Clock | None = None, *, walled: bool = False, alone: bool = False
    ) -> None:
        self.account = account
        self.clock = clock
        self.walled = walled
        self._context = clients(account.emulator if alone else "")
        self._cut = threading.Lock()

    # -- what there is to try ------------------------------------------------------------------------

    def cases(self) -> list[Case]:
        """Every case of this cloud, by the calls of a life in which nothing goes wrong."""
        return cases(self.account.name, self.record(), network=self.walled, clocks=self.clock is not None)

    def record(self) -> Recorded:
        """Live a life in which nothing goes wrong."""
        cloud = self.account.cloud
        self._first_day()
        marks: list[int] = []
        order = self._order("recorded", Case(cloud=self.account.name, kind="killed", phase="none"))
        said = Client(self._context, order, lambda _: marks.append(len(cloud.calls) if cloud else 0)).follow()
        assert said.get("results") == "kept", said
        self.account.nothing_left()
        calls = [f"{call.service}:{call.operation}" for call in cloud.calls] if cloud else []
        marks.append(len(calls))
        parts = zip(PHASES, marks, marks[1:], strict=False)
        return Recorded(client=said["calls"], cloud={phase: calls[a:b] for phase, a, b in parts})

    # -- how it is tried -----------------------------------------------------------------------------

    def run(self, chosen: Sequence[Case]) -> Iterator[Verdict]:
        """Try cases; those that end with a killed client several at a time."""
        together = [case for case in chosen if case.kind in ("killed", "returned")]
        for first in range(0, len(together), TOGETHER):
            by_start = first // TOGETHER % 3 == 2
            yield from self.try_all(together[first : first + TOGETHER], by_start=by_start)
        for case in chosen:
            if case not in together:
                yield from self.try_all([case])

    def try_all(self, some: Sequence[Case], *, by_start: bool = False) -> Iterator[Verdict]:
        """Try these at once, each with a cluster of its own.

        Parameters
        ----------
        some
            Which; only those whose client is killed can be tried side by side.
        by_start
            Whether what is left goes with the next start, after the hard end, or by a sweep.
        """
        self._first_day()
        named = {f"chaos-{number}": case for number, case in enumerate(some)}
        lifetime = {"max_lifetime": f"{LIFETIME_S}s"} if by_start else {}
        with ThreadPoolExecutor(len(named)) as threads:
            lives = {name: threads.submit(self._live, name, case, lifetime) for name, case in named.items()}
        ends, ended = {name: life.result() for name, life in lives.items()}, time.time()
        billing, over_s = self._leases_over()
        said = {id: self._last_lines(id) for id in billing}
        self._undo()
        if by_start:
            _wait(lambda: time.time() > ended + LIFETIME_S, LIFETIME_S + 30.0)
        left = self._swept(() if by_start else named)
        for name, case in named.items():
            own = {
                "billing": _of(name, billing, named),
                "left": _of(name, left, named),
                "over_s": round(over_s, 1),
                "said": said,
            }
            yield Verdict(case=case, **own, **ends[name])

    def _first_day(self) -> None:
        if self.account.cloud:
            self.account.cloud.reset(time_scale=0.2)  # a machine looks at its lease every 30 seconds
            self.account.prepare()
            self.account.room_again(None)
            if self.clock:
                self.account.cloud.add_image(ASKEW, environ={"CHAOS_CLOCK": self.clock.file("machines")})
        if self.clock:
            self.clock.set("client", 0)
            self.clock.set("machines", 0)

    def _order(self, name: str, case: Case, **more: Any) -> dict[str, Any]:
        """What a client is told."""
        options = {
            **self.account.options,
            **self.account.hasty,
            **LEASES,
            "name": name,
            "n_workers": 1,
            **more,
        }
        environ = dict(os.environ)
        if case.kind == "cut":
            options |= SHORT
        if case.kind == "returned":
            options["client_timeout"] = RETURN
        if case.kind == "clock" and self.clock:
            environ["CHAOS_CLOCK"] = self.clock.file("client")
            if case.what == "machines" and self.account.cloud:
                options["image"] = ASKEW
        return {
            "cloud": self.account.name,
            "options": options,
            "events": list(self.account.events),
            "environ": environ,
            "group": GROUP if self.walled else None,
            "phase": case.phase,
            "at": case.at,
            "late_s": case.figures.get("late_s", 0.0),
        }

    def _live(self, name: str, case: Case, lifetime: dict[str, Any]) -> dict[str, Any]:
        """One life; what came of it."""
        order = self._order(name, case, **lifetime)
        client = Client(self._context, order, lambda client: self._harm(name, case, client))
        said = client.follow()
        if self.account.cloud and not case.dies:
            spent = not any(fault["times"] for fault in self.account.cloud.faults)
            self.account.cloud.clear()
        else:
            spent = True
        if case.kind == "returned" and said["ended"] == "killed" and case.phase == "scale":
            back = {**order, "returns": True, "at": 0}
            said = Client(self._context, back, lambda _: None).follow()
        judged = case.kind != "scheduler" and (case.kind != "cut" or case.figures["heals_s"] is not None)
        return {
            "ended": said["ended"],
            "results": said.get("results", "") if judged else "",
            "happened": spent,
        }

    def _harm(self, name: str, case: Case, client: Client) -> None:
        """Do what goes wrong in the phase that the client is about to enter."""
        if case.phase != client.phase:
            return
        cloud, figures = self.account.cloud, case.figures
        if case.kind == "fault":
            cloud.inject(case.what, **figures, **CALL_FAULTS[case.what])
        elif case.kind == "stale":
            cloud.inject("stale", seconds=figures["seconds"])
        elif case.kind == "scheduler":
            client.later(figures["after_s"], lambda: self._scheduler_dies(name, client, dies=figures["dies"]))
        elif case.kind == "cut":
            self._cut_off(case, client)
        elif case.kind == "clock" and self.clock:
            self.clock.set(case.what, figures["askew_s"])
            if figures.get("dies"):
                client.dies_in = "scale"

    def _scheduler_dies(self, name: str, client: Client, *, dies: bool) -> None:
        _wait(lambda: client.over or self.account.kill_scheduler(name), 30.0)
        if dies:
            time.sleep(0.2)
            client.kill()

    def _cut_off(self, case: Case, client: Client) -> None:
        chaos_network.cut(case.what, self.account.cloud.endpoint if self.account.cloud else "")
        self._is_cut = True
        heals_s = case.figures["heals_s"]
        if heals_s is not None:
            client.later(heals_s, self._heal)
        client.later((heals_s or 0.0) + CUT_OFF_S, client.kill, even_over=False)

    def _heal(self) -> None:
        with self._cut:
            if getattr(self, "_is_cut", False):
                self._is_cut = False
                chaos_network.heal()

    # -- what is left --------------------------------------------------------------------------------

    def _leases_over(self) -> tuple[list[str], float]:
        """What bills when all leases are over, by the cloud's own ledger, and how long that took."""
        begun = time.monotonic()
        _wait(
            lambda: not self.account.running() and not self.account.billing(),
            LONG_OVER_S.get(self.account.name, OVER_S),
        )
        return self.account.billing() or self.account.running(), time.monotonic() - begun

    def _last_lines(self, id: str) -> str:
        try:
            return self.account.provider("chaos-0").logs(id, 25)
        except CloudError as error:
            return str(error)

    def _undo(self) -> None:
        if self.walled:
            self._heal()
        if self.account.cloud:
            self.account.cloud.clear()

    def _swept(self, names: Sequence[str] | dict[str, Case]) -> list[str]:
        """What is left after a sweep of these, or after the next start where none is named."""
        account = self.account
        for name in names:
            account.provider(name).sweep(name)
        if not names:
            account.provider("next").sweep_expired()
        _wait(lambda: not account.running() and not account.leftovers(), 60.0)
        return account.leftovers()


class Client:
    """A client, as who watches it sees it.

    Parameters
    ----------
    context
        What starts it.
    order
        See `chaos_client.Life`.
    enters
        Called with this when it is about to enter a phase.
    """

    def __init__(self, context: Any, order: dict[str, Any], enters: Any) -> None:
        self.line, there = context.Pipe()
        self.process = context.Process(target=live, args=(order, there))
        self.process.start()
        there.close()
        self.enters = enters
        self.phase = ""
        self.dies_in = ""
        self.over = False
        self._timers: list[threading.Timer] = []

    def follow(self) -> dict[str, Any]:
        """Let it live; what it said at its end."""
        said: dict[str, Any] = {}
        deadline = time.monotonic() + LIFE_S
        with contextlib.suppress(EOFError, ConnectionError):
            while not said and self.line.poll(max(0.0, deadline - time.monotonic())):
                message = self.line.recv()
                said = message.get("done", {})
                if not said:
                    self._enter(message["phase"])
        hung = not said and time.monotonic() >= deadline
        if hung:
            self.kill()
        self.process.join(30)
        for timer in self._timers:
            if getattr(timer, "even_over", True):
                timer.join()
            else:
                timer.cancel()
        self.over = True
        if self.process.exitcode == -signal.SIGKILL:
            return {"ended": f"hung in {self.phase}" if hung else "killed"}
        bug = f"bug: {said['foreign']}" if said.get("foreign") else ""
        return {**said, "ended": bug or said.get("error") or ("closed" if said else "bug: it died")}

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.enters(self)
        if phase == self.dies_in:
            self.kill()
        self.line.send("go")

    def later(self, after_s: float, act: Any, *, even_over: bool = True) -> None:
        """Do something in a while."""
        timer = threading.Timer(after_s, act)
        timer.even_over = even_over  # type: ignore[attr-defined]
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def kill(self) -> None:
        """End it as it is."""
        with contextlib.suppress(AttributeError, ValueError):
            self.process.kill()


def _of(name: str, found: Sequence[str], named: Collection[str]) -> tuple[str, ...]:
    """What of this is a cluster's: what names it, and what names none of those that lived beside it."""
    return tuple(one for one in found if name in one or not any(other in one for other in named))


def _wait(condition: Any, within_s: float) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
