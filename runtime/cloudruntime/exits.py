"""Why a machine ended, as the exit code of its first process."""

from __future__ import annotations

import enum

__all__ = ["Ended", "Exit", "explain"]


class Exit(enum.IntEnum):
    """An exit code that says why; none of them is one that a shell or a container engine uses."""

    asked = 0
    failed = 60
    boot = 61
    image = 62
    versions = 63
    secret = 64
    identity = 65
    front = 66
    scheduler_lost = 70
    idle = 71
    no_client = 72
    no_client_work = 73
    expired = 74
    interrupted = 75
    budget = 76


#: What each exit means, for the last log line and for whoever reads an exit code.
REASONS = {
    Exit.asked: "the cluster asked for the end",
    Exit.failed: "Dask ended with an error",
    Exit.boot: "the Boot cannot be read",
    Exit.image: "the image cannot run Dask",
    Exit.versions: "the image's versions do not match the client's",
    Exit.secret: "the machine's secret cannot be read",
    Exit.identity: "the machine cannot learn who it is",
    Exit.front: "the address of the TLS front cannot be used",
    Exit.scheduler_lost: "no scheduler answered within the lease",
    Exit.idle: "the cluster had nothing to do for as long as its lease allows",
    Exit.no_client: "neither a client nor work renewed the lease",
    Exit.no_client_work: "work went on, but no client renewed the lease",
    Exit.expired: "the hard end of the cluster has come",
    Exit.interrupted: "the machine was told to stop",
    Exit.budget: "the cluster's budget is spent",
}


class Ended(Exception):  # noqa: N818  (an end is not always an error)
    """The machine's life is over, and why.

    Parameters
    ----------
    exit
        The exit code.
    detail
        What a person should know beyond the reason; may be empty.
    """

    def __init__(self, exit: Exit, detail: str = "") -> None:
        super().__init__(f"{exit.name}: {REASONS[exit]}" + (f": {detail}" if detail else ""))
        self.exit = exit
        self.detail = detail


def explain(code: int) -> str:
    """What an exit code of a machine's first process means, in words.

    Examples
    --------
    >>> explain(71)
    'idle: the cluster had nothing to do for as long as its lease allows'
    >>> explain(137)
    'killed by signal 9: out of memory, or the cloud took the machine'
    """
    if code in REASONS:
        return f"{Exit(code).name}: {REASONS[Exit(code)]}"
    if code == 137 or code == -9:  # noqa: PLR1714, PLR2004  (128 + SIGKILL, or as Python says it)
        return "killed by signal 9: out of memory, or the cloud took the machine"
    return f"exit code {code}"
