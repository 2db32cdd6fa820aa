"""Who acts by a machine's credentials: its role, which may do what the role's policies allow and nothing else."""

from __future__ import annotations

import secrets
import string
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.permissions import missing
from cloudprovider.emulator.refusals import PERSON, decoded, denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.wire import Request

LIFE_S = 6 * 3600.0
RENEWED_S = 3600.0  # "We make new credentials available at least five minutes before the expiration"
ALPHABET = string.ascii_uppercase + "234567"


@dataclass(frozen=True)
class Session:
    """Credentials of a role.

    Parameters
    ----------
    role
        Of moto.
    name
        The session's: the id of the instance.
    issued, expires
        Seconds since the epoch.
    key, secret, token
        The credentials themselves.
    """

    role: Any
    name: str
    issued: float
    expires: float
    key: str = field(default_factory=lambda: f"ASIA{''.join(secrets.choice(ALPHABET) for _ in range(16))}")
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(60))

    @property
    def arn(self) -> str:
        """Who acts."""
        return f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role.name}/{self.name}"


class Principals:
    """The sessions of machines' roles, by their access keys; thread-safe."""

    def __init__(self) -> None:
        self._by_key: dict[str, Session] = {}
        self._by_name: dict[str, Session] = {}
        self._lock = threading.Lock()

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation of STS; None when moto does."""
        return {"DecodeAuthorizationMessage": decoded, "GetCallerIdentity": self.identity}.get(operation)

    def identity(self, request: Request) -> dict[str, Any]:
        """GetCallerIdentity: the person, or the role's session on a machine."""
        session = self.who(request.key)
        if session is None:
            return {"UserId": "AKIAIOSFODNN7EXAMPLE", "Account": ACCOUNT, "Arn": PERSON}
        return {"UserId": f"{session.role.id}:{session.name}", "Account": ACCOUNT, "Arn": session.arn}

    def check(self, request: Request) -> None:
        """Refuse what a machine's role may not do."""
        session = self.who(request.key)
        if session and (lacking := missing(request, roles.policies(session.role))):
            raise denied(request, *lacking, session.arn)

    def session(self, role: Any, name: str) -> Session:
        """The credentials of a role for a machine: the same until they are nearly over."""
        now = time.time()
        with self._lock:
            known = self._by_name.get(name)
            if known is None or known.role is not role or known.expires - now < RENEWED_S:
                known = Session(role, name, now, now + LIFE_S)
                self._by_name[name] = self._by_key[known.key] = known
            return known

    def who(self, key: str) -> Session | None:
        """The session of an access key; None when it is no machine's."""
        return self._by_key.get(key)
