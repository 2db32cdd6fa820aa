"""Which manager of a cluster decides: a lease in its scheduler.

A cluster may have several managers: the one that made it, and each that found it by name. One leads: it
orders, replaces and returns machines. The others see what there is, wait, and say who leads. A manager that
stands by, on the scheduler's machine of an autonomous cluster, leads while no other one does.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Lead"]


@dataclass(frozen=True)
class Lead:
    """What a manager knows of the lead.

    Parameters
    ----------
    manager
        Tells this manager from others.
    who
        The same for people.
    holder
        Who else leads; empty while nobody else does.
    said_s
        Seconds since the scheduler heard of that one.
    standby
        Whether this manager leads only while no other one does.
    term
        Counts who has led; 0 until the scheduler has said anything.
    """

    manager: str
    who: str
    holder: str = ""
    said_s: float = 0.0
    standby: bool = False
    term: int = 0

    @classmethod
    def sought(cls) -> Self:
        """A new manager's, that leads unless its scheduler says otherwise."""
        return cls(secrets.token_hex(8), f"{_user()}@{socket.gethostname()} (process {os.getpid()})")

    @classmethod
    def stood_by(cls) -> Self:
        """The lead of a manager on the scheduler's machine, which is none at first."""
        who = f"the manager on its scheduler's machine, {socket.gethostname()} (process {os.getpid()})"
        return cls(secrets.token_hex(8), who, holder="nobody yet", standby=True)

    @property
    def ours(self) -> bool:
        """Whether this manager decides."""
        return not self.holder

    def told(self, record: Mapping[str, Any] | None) -> Self:
        """The same after what the scheduler says; a scheduler that says nothing lets everyone decide."""
        if record is None:
            return self if self.standby else dataclasses.replace(self, holder="", said_s=0.0)
        term = record.get("term", 1)  # older schedulers count none
        if record["manager"] == self.manager:
            return dataclasses.replace(self, holder="", said_s=0.0, term=term)
        return dataclasses.replace(self, holder=record["who"], said_s=record["said_s"], term=term)

    def refusal(self, where: str) -> CloudError:
        """Why this manager may not decide."""
        return CloudError(
            f"{where} is led by {self.holder}, heard of {self.said_s:.0f} s ago: scale it there, or call "
            "detach() there and try again here. Who is not heard of for a minute leads no more."
        )

    def __str__(self) -> str:
        return f"is led by {self.holder}" if self.holder else "is led from here now"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "somebody"
