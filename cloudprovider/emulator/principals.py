"""Who calls: the account itself, one of its users, or a session of one of its roles.

The account's own credentials, which an embedded cloud hands out at first, may do everything. Users and roles may do
what their policies allow, and nothing else.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_root-user.html
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import string
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import roles
from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.refusals import CODES, PERSON, decoded
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudprovider.emulator.wire import Request

__all__ = ["Caller", "Principals", "Session"]

LIFE_S = 6 * 3600.0
RENEWED_S = 3600.0  # "We make new credentials available at least five minutes before the expiration"
ASSUMED_S = 3600.0  # https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
ALPHABET = string.ascii_uppercase + "234567"
#: The ids of access keys that AWS gives: a user's, and those of a session.
GIVEN = re.compile(r"(AKIA|ASIA)[A-Z0-9]{16}")
#: How a service says that it does not know an access key; the others say UnrecognizedClientException.
STRANGERS = {
    "ec2": ("AuthFailure", "AWS was not able to validate the provided access credentials", 401),
    "iam": ("InvalidClientTokenId", "The security token included in the request is invalid.", 403),
    "sts": ("InvalidClientTokenId", "The security token included in the request is invalid.", 403),
}
STRANGER = ("UnrecognizedClientException", "The security token included in the request is invalid.", 400)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls by credentials of their own.

    Parameters
    ----------
    arn, user_id
        As GetCallerIdentity tells them.
    policies
        What they may do.
    limits
        The session policies that limit it further; none when there is no limit.
    """

    arn: str
    user_id: str
    policies: Sequence[Any]
    limits: Sequence[Any] = ()


@dataclass(frozen=True)
class Session:
    """Credentials of a role.

    Parameters
    ----------
    role
        Of moto.
    name
        The session's: the id of the instance or of the task.
    issued, expires
        Seconds since the epoch.
    limits
        Its session policies.
    key, secret, token
        The credentials themselves.
    """

    role: Any
    name: str
    issued: float
    expires: float
    limits: tuple[str, ...] = ()
    key: str = field(default_factory=lambda: f"ASIA{''.join(secrets.choice(ALPHABET) for _ in range(16))}")
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(60))

    @property
    def arn(self) -> str:
        """Who acts."""
        return f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role.name}/{self.name}"

    @property
    def caller(self) -> Caller:
        """Who calls by these credentials, with what the role may do now."""
        policies = [*roles.policies(self.role)]
        return Caller(
            arn=self.arn, user_id=f"{self.role.id}:{self.name}", policies=policies, limits=self.limits
        )

    def document(self) -> dict[str, str]:
        """As STS tells them."""
        return {
            "AccessKeyId": self.key,
            "SecretAccessKey": self.secret,
            "SessionToken": self.token,
            "Expiration": stamp(self.expires),
        }


def stamp(moment: float) -> str:
    """A moment as AWS writes it."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Principals:
    """The users and the sessions of an account, by their access keys; thread-safe.

    Parameters
    ----------
    root
        The access key of the account itself.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._by_key: dict[str, Session] = {}
        self._by_name: dict[str, Session] = {}
        self._lock = threading.Lock()

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation of STS; None when moto does."""
        return {
            "AssumeRole": self.assume,
            "DecodeAuthorizationMessage": decoded,
            "GetCallerIdentity": self.identity,
        }.get(operation)

    def identity(self, request: Request) -> dict[str, Any]:
        """GetCallerIdentity."""
        caller = self.who(request)
        if caller is None:
            return {"UserId": "AKIAIOSFODNN7EXAMPLE", "Account": ACCOUNT, "Arn": PERSON}
        return {"UserId": caller.user_id, "Account": ACCOUNT, "Arn": caller.arn}

    def assume(self, request: Request) -> dict[str, Any]:
        """AssumeRole: a session of a role that trusts whoever asks."""
        given: Mapping[str, Any] = request.parameters or {}
        caller = self.who(request)
        who = PERSON if caller is None else caller.arn
        role = roles.find(ACCOUNT, given["RoleArn"])
        if role is None or not roles.trusts(role, ACCOUNT, who):
            code, status = CODES["sts"]
            message = (
                f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {given['RoleArn']}"
            )
            raise AWSError(code, message, status)
        now = time.time()
        life_s = float(given.get("DurationSeconds", ASSUMED_S))
        limits = (str(given["Policy"]),) if given.get("Policy") else ()
        session = Session(role, given["RoleSessionName"], now, now + life_s, limits)
        with self._lock:
            self._by_key[session.key] = session
        assumed = {"AssumedRoleId": f"{role.id}:{session.name}", "Arn": session.arn}
        return {"Credentials": session.document(), "AssumedRoleUser": assumed}

    def session(self, role: Any, name: str) -> Session:
        """The credentials of a role for a machine: the same until they are nearly over."""
        now = time.time()
        with self._lock:
            known = self._by_name.get(name)
            if known is None or known.role is not role or known.expires - now < RENEWED_S:
                known = Session(role, name, now, now + LIFE_S)
                self._by_name[name] = self._by_key[known.key] = known
            return known

    def who(self, request: Request) -> Caller | None:
        """Who calls; None for the account itself, which may do everything.

        Raises
        ------
        AWSError
            When the access key is one that AWS gives, and nobody's here.
        """
        if request.key == self._root or not GIVEN.fullmatch(request.key):
            return None
        if session := self._by_key.get(request.key):
            if session.expires > time.time():
                return session.caller
        elif user := _user(request.key):
            return user
        raise AWSError(*STRANGERS.get(request.service, STRANGER))

    def login(self, policies: Sequence[str], name: str) -> dict[str, str]:
        """Make a user who may do what policies allow, or let one do that from now on; the variables of their keys."""
        from moto.iam import iam_backends

        backend = iam_backends[ACCOUNT]["aws"]
        with self._lock:
            user = backend.users.get(name) or backend.create_user(backend.region_name, name)
            user.policies = {f"{name}-{number}": text for number, text in enumerate(policies)}
            [key, *_] = user.access_keys or [backend.create_access_key(name, prefix="AKIA")]
        return {"AWS_ACCESS_KEY_ID": key.access_key_id, "AWS_SECRET_ACCESS_KEY": key.secret_access_key}


def _user(key: str) -> Caller | None:
    """The user whose access key it is, with what they and their groups may do."""
    from moto.iam import iam_backends

    backend = iam_backends[ACCOUNT]["aws"]
    known = backend.access_keys.get(key)
    if known is None or known.status != "Active" or known.user_name not in backend.users:
        return None
    user = backend.users[known.user_name]
    held = [user, *backend.get_groups_for_user(user.name)]
    policies = [text for one in held for text in roles.policies(one)]
    return Caller(arn=user.arn, user_id=user.id, policies=policies)
