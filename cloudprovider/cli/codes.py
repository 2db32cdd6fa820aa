"""With what a command ends: one table, for scripts."""

from __future__ import annotations

import enum

import click

from cloudprovider.errors import (
    AccessError,
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
)

__all__ = ["CODES", "Code", "Failure", "code_of"]


class Code(enum.IntEnum):
    """The exit codes. A number never changes its meaning."""

    done = 0
    failed = 1
    wrong = 2
    unknown = 3
    rights = 4
    room = 5
    unreachable = 6
    in_use = 7
    unconfirmed = 8
    partly = 9
    interrupted = 130


#: What each means, in words for people.
CODES = {
    Code.done: "It did what was asked.",
    Code.failed: "It failed or was refused; the message says why and what to do next.",
    Code.wrong: "It was called wrongly: no such command or option, or a value that cannot work.",
    Code.unknown: "Nothing has this name: no cluster, no machine, no template.",
    Code.rights: "There are no credentials, or they have expired or lack a permission, which the message names.",
    Code.room: "The cloud has no capacity now, or your quota does not allow it.",
    Code.unreachable: "The cluster runs, but cannot be reached from here.",
    Code.in_use: "The cluster is in use, and `--force` was not given.",
    Code.unconfirmed: "Nothing was done: it takes a yes, or `--yes` where nobody can be asked.",
    Code.partly: "It was done in part: a cloud could not be asked, or fewer workers came, or something is left.",
    Code.interrupted: "Ctrl-C.",
}
#: By the kind of error, the most special first.
ERRORS: tuple[tuple[type[Exception], Code], ...] = (
    (ConfigError, Code.wrong),
    (CredentialsError, Code.rights),
    (CapacityError, Code.room),
    (QuotaError, Code.room),
    (AccessError, Code.unreachable),
)


def code_of(error: BaseException) -> Code:
    """The exit code of what a cloud, or the way to it, refused."""
    return next((code for kind, code in ERRORS if isinstance(error, kind)), Code.failed)


class Failure(click.ClickException):
    """What ends a command: one message on stderr, and an exit code.

    Parameters
    ----------
    message
        For people.
    code
        For scripts.
    """

    def __init__(self, message: str, code: Code) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # a class may have several

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The same as an error of the library's; its kind stands before the message where that says more."""
        kind = "" if type(error) is CloudError else f"{type(error).__name__}: "
        return cls(f"{kind}{error}", code_of(error))
