"""Why a machine ended, in a sentence: by what the cloud says, what the machine said last, and what its scheduler heard.

The log of a dead machine stays in the cloud's log service for `log_retention_days`, where it has one. While the
cluster lives, its scheduler keeps the last words of machines that said good-bye, and of those that a manager saw die.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cloudprovider.bill import duration
from cloudprovider.provider import State

if TYPE_CHECKING:
    from cloudprovider.provider import Machine

__all__ = ["CAUSES", "Cause", "Why", "why"]

#: How the runtime's last line begins.
LAST = re.compile(r"dask-cloud-runtime: ended: (.+)")
#: What more than one cloud and kernel say of it: https://docs.kernel.org/admin-guide/mm/concepts.html#oom-killer
MEMORY = re.compile(r"out ?of ?memory|oom.?kill|exceeded \d+% memory budget", re.IGNORECASE)
#: What we say ourselves of a kill of which nobody knows more, and what Azure leaves open.
GUESSES = re.compile(
    r": out of memory\?|: out of memory, or the cloud took the machine|it was evicted, or deleted itself"
)
#: Reasons that are ours: a fleet's for what it returned, and what providers tell their cloud of it.
RETURNED = re.compile(r"released|returned by another manager|dask [a-z0-9-]+ gave it back\b.*")
#: Reasons that say nothing beside another.
EMPTY = re.compile(r"Essential container in task exited; (?=.)")
#: Kinds of ends that a log may tell of beyond its last line: of the kernel's and the container engine's.
LOGGED = frozenset({"memory", "image"})
KILLED = re.compile(r"killed by signal (\d+)")


class Cause(NamedTuple):
    """One way in which machines end.

    Parameters
    ----------
    kind
        A word for programs.
    said
        What the cloud, the machine or its scheduler says of it: a regular expression.
    sentence
        The same for people; groups of `said` may be in it.
    advice
        What would do about it; empty when there is nothing to do.
    """

    kind: str
    said: str
    sentence: str
    advice: str = ""


# EC2: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
# ECS: https://docs.aws.amazon.com/AmazonECS/latest/userguide/stopped-task-error-codes.html
#: Ways to end, most telling first: the first one that is said counts.
CAUSES = (
    Cause("memory", MEMORY.pattern, "it ran out of memory", "workers with more memory would do"),
    Cause(
        "spot",
        r"spot (task|instance|interruption)|SpotInstance(Termination|Shutdown)|\bpreempt(ed)?\b|\bevicted\b",
        "the cloud took it back, as it may with spot",
    ),
    Cause(
        "host",
        r"host failed|host maintenance|Server\.InternalError|Server\.ScheduledStop|HostError",
        "the cloud's own host failed, or was maintained",
    ),
    Cause(
        "image",
        r"CannotPull|pull access denied|manifest unknown|manifest for .* not found|repository does not exist|"
        r"error pulling image|failed to resolve reference",
        "its image is missing, or may not be had",
        "check image=, and that its registry lets machines have it",
    ),
    Cause("image", r"image: the image cannot run Dask", "its image cannot run Dask", "check image="),
    Cause(
        "budget", r"budget: the cluster's budget is spent", "the budget was spent", "a larger budget= goes on"
    ),
    Cause(
        "lease",
        r"expired: the hard end|run time was over",
        "the cluster's hard end had come",
        "a longer max_lifetime= would do",
    ),
    Cause(
        "lease",
        r"idle: the cluster had nothing to do",
        "its lease was over: the cluster had nothing to do",
        "a longer idle_timeout= would do",
    ),
    Cause(
        "lease",
        r"no_client(_work)?: ",
        "its lease was over: no client renewed it",
        "stay connected, or pass autonomous=True",
    ),
    Cause(
        "network",
        r"scheduler_lost: ",
        "it lost its scheduler: none answered within the lease",
        "either the scheduler had ended, or the network between them was cut",
    ),
    Cause("asked", r"asked: the cluster asked|cloud-end asked", "the cluster asked for its end"),
    Cause(
        "stopped",
        r"interrupted: the machine was told to stop|User ?Initiated|TaskStopped|\bSIGTERM\b",
        "somebody, or the cloud, told it to stop",
    ),
    Cause(
        "start",
        r"(boot|versions|secret|identity|front): (the Boot|the image's|the machine|the address)",
        "it could not start",
    ),
    Cause(
        "killed",
        KILLED.pattern,
        "it was killed by signal {0}",
        "its log does not say by whom; signal 9 is often a lack of memory",
    ),
    Cause(
        "code",
        r"(?:ended with|exit|status)[ =](?:code )?([1-9]\d*)",
        "Dask ended with exit code {0}, its own or that of code it ran",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Why:
    """Why a machine ended; its text is a sentence.

    Parameters
    ----------
    machine
        As it was last seen.
    cause
        Why, or that it has not ended.
    logs
        Its last lines; empty when there are none, or none any more.
    kind
        The same in a word: of `CAUSES`, `returned` when it was not needed any more, `unknown` when only what was
        said is known, and `alive` when it has not ended.
    """

    machine: Machine
    cause: str
    logs: str = field(default="", repr=False)
    kind: str = "unknown"

    def __str__(self) -> str:
        machine = self.machine
        what = ", ".join(filter(None, (machine.kind, machine.market, machine.zone)))
        name = f"{machine.role.capitalize()} {machine.id} ({what})"
        if machine.state is not State.gone:
            return f"{name} {self.cause}."
        began = machine.billed_from or machine.created
        lived = f" after {duration(machine.ended - began)}" if machine.ended and began else ""
        return f"{name} ended{lived}: {self.cause}."


def why(machine: Machine, logs: str, heard: str = "") -> Why:
    """Read a machine's end from what the cloud says of it, and from its last lines.

    Parameters
    ----------
    machine
        As the cloud says it is, or was.
    logs
        Its last lines.
    heard
        Why it left, as it told its scheduler; empty where it told nothing.
    """
    if machine.state is not State.gone:
        does = "it runs" if machine.state is State.running else "it is starting"
        return Why(machine=machine, cause=f"has not ended: {does}", logs=logs, kind="alive")
    kind, cause = _cause(EMPTY.sub("", machine.reason.strip().rstrip(".")), logs, heard)
    return Why(machine=machine, cause=cause, logs=logs, kind=kind)


def _cause(reason: str, logs: str, heard: str) -> tuple[str, str]:
    """The kind of an end, and the end in words."""
    if RETURNED.fullmatch(reason):
        return "returned", "it was not needed any more"
    last = LAST.findall(logs)[-1:]
    evidence = _evidence(reason, last[0] if last else "", heard)
    said = GUESSES.sub("", "\n".join((reason, *last, heard)))
    for cause in CAUSES:
        unsaid = not last or (cause.kind == "memory" and KILLED.search(said))
        text = f"{said}\n{logs}" if unsaid and cause.kind in LOGGED else said
        if match := re.search(cause.said, text, re.IGNORECASE):
            sentence = cause.sentence.format(*match.groups())
            proof = f" ({evidence})" if evidence and GUESSES.sub("", evidence) not in sentence else ""
            return cause.kind, f"{sentence}{proof}" + (f"; {cause.advice}" if cause.advice else "")
    return "unknown", evidence or "neither the cloud nor its log says why"


def _evidence(reason: str, last: str, heard: str) -> str:
    """What each has said, once."""
    causes = [reason] if reason else []
    if last and last not in reason:
        causes.append(f"it said {last!r}")
    if heard and heard not in f"{reason} {last}":
        causes.append(f"its scheduler heard {heard!r}")
    return "; ".join(causes)
