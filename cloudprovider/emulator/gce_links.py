"""What Compute Engine calls its resources: links, scopes, names, times and numbers.

https://cloud.google.com/compute/docs/naming-resources
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import secrets
from dataclasses import dataclass
from typing import Any

from cloudprovider.emulator.gcp_wire import PROJECT, GCPError

BASE = "https://www.googleapis.com/compute/v1/"
#: The project whose networks are shared with ours: https://cloud.google.com/vpc/docs/shared-vpc
HOST_PROJECT = f"{PROJECT}-host"
#: Google counts its times in California.
CALIFORNIA = dt.timezone(dt.timedelta(hours=-8))
URL = re.compile(
    r"(?:https?://[^/]+/compute/[a-z0-9]+/)?(?:projects/([^/]+)/)?"
    r"(?:(global|(?:zones|regions)/[^/]+)/)?(?:([A-Za-z]+)/)?(.+)"
)
NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
#: https://cloud.google.com/compute/docs/labeling-resources#requirements
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64

_numbers = itertools.count(secrets.randbits(61) | (1 << 61))

Document = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a resource is.

    Parameters
    ----------
    project, scope, collection, name
        Such as `dask-emulated`, `zones/us-central1-a` (or `global`), `instances`, `a`.
    """

    project: str
    scope: str
    collection: str
    name: str

    @property
    def path(self) -> str:
        """Such as `projects/p/zones/z/instances/a`."""
        return f"projects/{self.project}/{self.scope}/{self.collection}/{self.name}"

    @property
    def link(self) -> str:
        """Its URL."""
        return BASE + self.path

    def new(self, kind: str) -> Document:
        """What every new resource has."""
        return {
            "kind": f"compute#{kind}",
            "id": number(),
            "creationTimestamp": stamp(),
            "name": self.name,
            "selfLink": self.link,
        }

    def missing(self) -> GCPError:
        """What is said when it is not there."""
        return GCPError(404, f"The resource '{self.path}' was not found", reason="notFound")

    def taken(self) -> GCPError:
        """What is said when it is there already."""
        return GCPError(409, f"The resource '{self.path}' already exists", reason="alreadyExists")


def number() -> str:
    """The id of a new resource."""
    return str(next(_numbers))


def fingerprint() -> str:
    """Another one after each change."""
    return secrets.token_urlsafe(8) + "="


def stamp(moment: float | None = None) -> str:
    """A moment, now if none is given."""
    when = dt.datetime.now(CALIFORNIA) if moment is None else dt.datetime.fromtimestamp(moment, CALIFORNIA)
    return when.isoformat(timespec="milliseconds")


def place(text: str, collection: str, project: str, scope: str) -> Place:
    """The place that a full, partial or bare name means; project and scope are the caller's unless it says so.

    Raises
    ------
    ValueError
        When it is of another collection.
    """
    match = URL.fullmatch(text)
    if match is None or (match[3] or collection) != collection:
        raise ValueError(text)
    return Place(match[1] or project, match[2] or scope, collection, match[4])


def region_of(zone: str) -> str:
    """The region of a zone."""
    return zone.rpartition("-")[0]


def invalid(field: str, value: Any, why: str) -> GCPError:
    """What is said of a field that cannot be."""
    return GCPError(400, f"Invalid value for field '{field}': '{value}'. {why}", reason="invalid")


def check_name(field: str, name: str) -> None:
    """Refuse what is no name of a resource."""
    if not NAME.fullmatch(name):
        raise invalid(field, name, f"Must be a match of regex '(?:{NAME.pattern})'")


def check_labels(field: str, labels: dict[str, str]) -> None:
    """Refuse what cannot be labels."""
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise invalid(field, key, "Label keys must start with a lowercase letter and have lowercase "
                          "letters, digits, underscores and dashes only, 63 at most.")  # fmt: skip
        if not LABEL_VALUE.fullmatch(value):
            raise invalid(field, value, f"Label value '{value}' violates format constraints. The value can only "
                          "contain lowercase letters, numeric characters, underscores and dashes. The value can "
                          "be at most 63 characters long.")  # fmt: skip
    if len(labels) > MOST_LABELS:
        raise invalid(field, len(labels), f"A resource can have at most {MOST_LABELS} labels.")
