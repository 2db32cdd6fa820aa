"""Everything that is made to go wrong in a cluster's life, case by case: where in it, and what.

The calls are those of a life that was recorded, in the cloud's own order.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos_client import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["KINDS", "Case", "Recorded", "cases", "sample"]

#: Each kind of case: what happens.
KINDS = {
    "killed": "the client is killed at a call",
    "fault": "a call is throttled, fails after its effect, loses its answer, is denied, or its keys have expired",
    "scheduler": "the scheduler's machine dies",
    "returned": "the client is killed at a call, and another collects what was published",
    "stale": "the cloud shows machines late, and the client is killed",
    "cut": "a part of the network is cut, and heals or not",
    "clock": "a clock is wrong, or jumps",
}
#: What happens to a call, by what `Emulator.inject` calls it, and how often; None is until the client has ended.
CALL_FAULTS: dict[str, dict[str, Any]] = {
    "throttle": {"times": 1},
    "error-after-effect": {"times": 1},
    "lost-answer": {"times": 1},
    "denied": {"times": 1},
    "expired-credentials": {"times": None},
}
#: With what the names of calls begin, or end, that change nothing.
READS = ("Describe", "Get", "List", "get", "list", "aggregated", "Check")
#: Seconds after a call was begun when it may have had its effect.
LATE_S = 0.01
#: Seconds in which the cloud does not show a machine.
STALE_S = (1.0, 5.0)
#: Seconds into a phase when the scheduler's machine dies.
DEATHS_S = (0.0, 0.4)
#: Clouds on which a machine whose host has failed is stopped, and does not end.
STOPPED = ("gcp", "azure")
#: Between whom the network is cut: by the names of `chaos_network`.
CUTS = ("client-scheduler", "worker-scheduler", "machines-cloud", "client-cloud")
#: Seconds after which a cut heals; None is after the leases.
HEALS_S = (3.0, 12.0, None)
#: By how many seconds a clock is wrong: a cloud that checks it refuses more than a few minutes.
ASKEW_S = (240, -240, 3 * 3600, -3 * 3600, 30 * 3600, -30 * 3600)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that goes wrong in one life of a cluster.

    Parameters
    ----------
    cloud, kind
        Of `embedded.ACCOUNTS` and of `KINDS`.
    phase
        In which it happens.
    at, call
        At which call of the phase, counted from 1, and what that is; 0 is none.
    what
        What happens, by a word.
    figures
        What that takes.
    """

    cloud: str
    kind: str
    phase: str
    at: int = 0
    call: str = ""
    what: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What it is called, the same in every run."""
        figures = [f"{name}={value}" for name, value in sorted(self.figures.items())]
        at = [f"{self.at} {self.call}".strip()] if self.at else []
        return "/".join([self.cloud, self.kind, self.phase, *at, *filter(None, [self.what]), *figures])

    @property
    def dies(self) -> bool:
        """Whether the client is killed."""
        return self.kind in ("killed", "returned", "stale") or bool(self.figures.get("dies"))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The calls of a life in which nothing goes wrong, by phase: the client's own, and all that the cloud saw."""

    client: dict[str, list[str]]
    cloud: dict[str, list[str]]


def cases(cloud: str, recorded: Recorded, *, network: bool, clocks: bool) -> list[Case]:
    """Every case of a cloud, those of a kind one after the other.

    Parameters
    ----------
    cloud, recorded
        Which, and what a life there calls.
    network, clocks
        Whether parts of the network can be cut, and clocks be wrong, here.
    """
    return [
        *_deaths(cloud, recorded),
        *_returns(cloud, recorded),
        *_faults(cloud, recorded),
        *_stale(cloud, recorded),
        *_schedulers(cloud),
        *(_cuts(cloud) if network else ()),
        *(_clocks(cloud) if clocks else ()),
    ]


def sample(every: Sequence[Case], seed: str, number: int) -> list[Case]:
    """So many of these cases, of every kind in turn."""
    chance = random.Random(seed)
    left = {kind: [case for case in every if case.kind == kind] for kind in KINDS}
    chosen: list[Case] = []
    while len(chosen) < min(number, len(every)):
        for some in left.values():
            if some and len(chosen) < number:
                chosen.append(some.pop(chance.randrange(len(some))))
    return chosen


def _calls(recorded: Recorded) -> Iterator[tuple[str, int, str]]:
    """Each call of the client's, and one past the last of each phase."""
    for phase in PHASES:
        for at, call in enumerate([*recorded.client[phase], "the end"], 1):
            yield phase, at, call


def _deaths(cloud: str, recorded: Recorded) -> Iterator[Case]:
    for phase, at, call in _calls(recorded):
        for late_s in (0.0, LATE_S):
            figures = {"late_s": late_s} if late_s else {}
            yield Case(cloud=cloud, kind="killed", phase=phase, at=at, call=call, figures=figures)


def _returns(cloud: str, recorded: Recorded) -> Iterator[Case]:
    for phase, at, call in _calls(recorded):
        if phase == "scale":
            for late_s in (0.0, LATE_S, 20 * LATE_S):
                figures = {"late_s": late_s} if late_s else {}
                yield Case(cloud=cloud, kind="returned", phase=phase, at=at, call=call, figures=figures)


def _faults(cloud: str, recorded: Recorded) -> Iterator[Case]:
    """What changes something fails in every way; what only reads, in each way in turn."""
    reads = 0
    for phase in PHASES:
        seen: Counter[str] = Counter()
        for call in recorded.cloud[phase]:
            seen[call] += 1
            figures = {"operation": call, "every": seen[call]}
            kinds = list(CALL_FAULTS)
            if call.rpartition(":")[2].rpartition(".")[2].startswith(READS):
                kinds, reads = [kinds[reads % len(kinds)]], reads + 1
            for kind in kinds:
                yield Case(cloud=cloud, kind="fault", phase=phase, what=kind, figures=figures)


def _stale(cloud: str, recorded: Recorded) -> Iterator[Case]:
    for phase, at, call in _calls(recorded):
        if recorded.cloud["start"] and at == len(recorded.client[phase]) + 1:
            for seconds in STALE_S:
                figures = {"seconds": seconds}
                yield Case(cloud=cloud, kind="stale", phase=phase, at=at, call=call, figures=figures)


def _schedulers(cloud: str) -> Iterator[Case]:
    # Where a failed host leaves a stopped machine, only who is there can delete that: benchmarks/README.md.
    for phase in PHASES:
        for after_s in DEATHS_S:
            for dies in (False,) if cloud in STOPPED else (False, True):
                figures = {"after_s": after_s, "dies": dies}
                yield Case(cloud=cloud, kind="scheduler", phase=phase, what="died", figures=figures)


def _cuts(cloud: str) -> Iterator[Case]:
    for phase in PHASES:
        for what in CUTS if cloud != "local" else CUTS[:2]:
            for heals_s in HEALS_S:
                yield Case(cloud=cloud, kind="cut", phase=phase, what=what, figures={"heals_s": heals_s})


def _clocks(cloud: str) -> Iterator[Case]:
    for askew in ASKEW_S:
        for what in ("client", "machines"):
            for dies in (False, True):
                figures = {"askew_s": askew, "dies": dies}
                yield Case(cloud=cloud, kind="clock", phase="start", what=what, figures=figures)
        for phase in ("scale", "close"):
            yield Case(cloud=cloud, kind="clock", phase=phase, what="client", figures={"askew_s": askew})
            yield Case(cloud=cloud, kind="clock", phase=phase, what="machines", figures={"askew_s": askew})


def described(case: Case) -> dict[str, Any]:
    """A case as JSON can say it."""
    return {"case": case.id, **dataclasses.asdict(case)}
