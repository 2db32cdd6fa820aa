"""Secrets in a key vault, which keeps what was deleted for days, and its name with it.

https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers._azure_errors import codes
from cloudprovider.providers._calls import moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.providers._azure import Azure

__all__ = ["get", "put", "remove"]

#: How a vault says that a name is one of something that was deleted, or is about to be.
DELETED, DELETING = "ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted"
CONFLICTS = {DELETED, DELETING, "Conflict", "ObjectIsBeingRecovered"}
MISSING = {"NotFound", "SecretNotFound"}
FORBIDDEN = {"Forbidden", "ForbiddenByRbac"}
#: Seconds in which a right that was just given holds everywhere, and in which a deleted name is free again.
# https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
RIGHT_S, NAME_S = 600.0, 60.0


def put(
    azure: Azure,
    vault: str,
    name: str,
    value: str,
    *,
    tags: Mapping[str, str],
    expires: int,
    fresh: bool = False,
) -> None:
    """Store a secret, whatever was deleted under its name.

    Parameters
    ----------
    azure, vault
        Where: the vault's URL.
    name, value, tags
        What.
    expires
        Seconds since the epoch after which it is worth nothing.
    fresh
        Whether the right to do so was given so recently that it may not hold yet.
    """
    until = datetime.fromtimestamp(expires, UTC)
    start = time.monotonic()
    for _ in moments(RIGHT_S if fresh else NAME_S):
        try:
            with azure.translated():
                azure.secrets(vault).set_secret(name, value, tags=dict(tags), expires_on=until)
        except CloudError as error:
            said = set(codes(error))
            waits = fresh and isinstance(error, CredentialsError) and said & FORBIDDEN
            if not waits and (not said & CONFLICTS or time.monotonic() - start > NAME_S):
                raise
            if not waits and DELETING not in said:
                _recover(azure, vault, name)
        else:
            return
    raise CloudError(
        f"Vault {vault} took no secret {name}: what was deleted under its name still is in the way."
    )


def _recover(azure: Azure, vault: str, name: str) -> None:
    """Take back what was deleted, so that it can be written over; that needs no right to purge."""
    try:
        with azure.translated():
            azure.secrets(vault).begin_recover_deleted_secret(name)
    except CloudError as error:
        if not set(codes(error)) & (CONFLICTS | MISSING):
            raise


def get(azure: Azure, vault: str, name: str) -> str | None:
    """A secret; None when there is none."""
    try:
        with azure.translated():
            return str(azure.secrets(vault).get_secret(name).value)
    except CloudError as error:
        if set(codes(error)) & MISSING:
            return None
        raise


def remove(azure: Azure, vault: str, name: str) -> bool:
    """Delete a secret for good, where the vault lets us; whether there was one."""
    try:
        with azure.translated():
            azure.secrets(vault).begin_delete_secret(name)
    except CloudError as error:
        said = set(codes(error))
        if said & MISSING:
            return False
        if not said & CONFLICTS:
            raise
    _purge(azure, vault, name)
    return True


def _purge(azure: Azure, vault: str, name: str) -> None:
    """Remove what was deleted, once the vault has finished deleting it; who may not leaves it to expire."""
    for _ in moments(5.0):
        try:
            with azure.translated():
                azure.secrets(vault).purge_deleted_secret(name)
        except CloudError as error:
            said = set(codes(error))
            if said & FORBIDDEN:
                return
            if not said & (CONFLICTS | MISSING):
                raise
        else:
            return
