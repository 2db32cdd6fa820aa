"""The ledger: what the tags of every resource say, in a form that serves every cloud.

All keys and values fit `[a-z0-9_-]{1,63}`: times are seconds since the epoch and the owner is slugged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

CLUSTER = "dask-cluster"
ROLE = "dask-role"
GROUP = "dask-group"
OWNER = "dask-owner"
CREATED = "dask-created"
EXPIRES = "dask-expires"
LANDING = "dask-landing"
SERVICE = "dask-service"
AUTONOMOUS = "dask-autonomous"

RESERVED = frozenset({CLUSTER, ROLE, GROUP, OWNER, CREATED, EXPIRES, LANDING, SERVICE, AUTONOMOUS})
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


def checked_name(name: str) -> str:
    """`name`, when every cloud can use it as part of a resource's name."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"name={name!r} cannot name a cluster: use 1 to 40 of a-z, 0-9 and '-', "
            f"starting with a letter; {slug(str(name))!r} would do."
        )
    return name


def slug(text: str, length: int = 40) -> str:
    """The nearest text to `text` that any cloud takes as a name or a tag's value."""
    slugged = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].rstrip("-")
    return slugged if slugged[:1].isalpha() else f"dask-{slugged}"[:length].rstrip("-")


def for_cluster(identity: Identity, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tags of whatever belongs to a cluster."""
    return {
        **(extra or {}),
        CLUSTER: identity.name,
        OWNER: identity.owner,
        CREATED: str(identity.created),
        EXPIRES: str(identity.expires),
    }


def for_machine(
    identity: Identity, role: str, group: str = "default", extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The tags of one machine, and of what is made for one role."""
    return {**for_cluster(identity, extra), ROLE: role, GROUP: group}


def identity(tags: Mapping[str, str]) -> Identity | None:
    """Whose a resource is, as its tags say; None when it is not ours."""
    try:
        return Identity(
            name=tags[CLUSTER], owner=tags[OWNER], created=int(tags[CREATED]), expires=int(tags[EXPIRES])
        )
    except (KeyError, ValueError):
        return None
