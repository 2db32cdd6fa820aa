"""What can go wrong, as a tree, and how a cloud's own errors become it.

::

    CloudError                     what happened, where, how many, what to do next
    ├── ConfigError(ValueError)    before any call
    ├── CredentialsError           none found, or they may not do X
    ├── CapacityError              the cloud has none now
    ├── QuotaError                 your limit; names it and how to raise it
    ├── BootError                  the machine came, Dask did not
    └── AccessError                it runs, you cannot reach it
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "AccessError",
    "BootError",
    "CapacityError",
    "CloudError",
    "CloudWarning",
    "ConfigError",
    "CredentialsError",
    "QuotaError",
]


class CloudError(Exception):
    """Something a cloud, or the way to it, refused: the message says what to do next.

    Not a RuntimeError: `distributed.deploy.Cluster.close` swallows those.
    """


class CloudWarning(UserWarning):
    """Something that did not go as asked, and that the cluster goes on without."""


class ConfigError(CloudError, ValueError):
    """An option that cannot work, found before any call."""


class CredentialsError(CloudError):
    """No credentials were found, or they may not do what is needed."""


class CapacityError(CloudError):
    """The cloud has none of what was asked for now."""


class QuotaError(CloudError):
    """A limit of the account or of the service's rates."""


class BootError(CloudError):
    """A machine came, but Dask did not.

    Parameters
    ----------
    message
        What happened.
    logs
        The machine's last log lines, shown under the message; empty when there are none.
    """

    def __init__(self, message: str, logs: str = "") -> None:
        super().__init__(f"{message}\n\nIts last log lines:\n{logs}" if logs else message)
        self.logs = logs


class AccessError(CloudError):
    """The cluster runs, but cannot be reached from here: the message names the rule, route or tunnel."""


@contextmanager
def translated(translate: Callable[[Exception], Exception | None]) -> Iterator[None]:
    """Raise what `translate` makes of a foreign error, from it; let through what it does not know."""
    try:
        yield
    except Exception as error:
        if (ours := translate(error)) is None or ours is error:
            raise
        raise ours from error
