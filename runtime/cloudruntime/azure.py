"""What a machine on Azure asks its cloud: who it is, its secret, and what becomes of it."""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cloudruntime.web import Again, Answer, again, ask, patiently

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Events", "Metadata", "identity", "secret"]

# https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
METADATA = "http://169.254.169.254"
INSTANCE, TOKEN, EVENTS = "2021-02-01", "2018-02-01", "2020-07-01"
VAULT = "7.4"
OK, BAD, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, GONE = 200, 400, 401, 403, 404, 410
#: A role may take minutes to be known everywhere: https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
PATIENCE_S = 600.0
#: What the machine does not outlive, and the least time between the notice and it; a freeze is over in seconds.
# https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
ENDS = {"Preempt": 30.0, "Reboot": 900.0, "Redeploy": 600.0, "Terminate": 300.0}


class Metadata:
    """The instance metadata service of a machine.

    Parameters
    ----------
    environ
        May say where it is, as for Azure's own libraries.
    patience_s
        How long what is needed may be missing.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float = 60.0) -> None:
        self.url = (environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or METADATA).rstrip("/")
        self._patience_s = patience_s

    def ask(
        self, path: str, version: str, data: bytes | None = None, more: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask once."""
        query = urlencode({"api-version": version, **(more or {})})
        return ask(f"{self.url}/metadata/{path}?{query}", {"Metadata": "true"}, data, direct=True)

    def need(self, path: str, version: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A document, soon.

        Raises
        ------
        ValueError
            When there is still none, or it is refused.
        """
        return patiently(partial(self._needed, path, version, more), self._patience_s)

    def _needed(self, path: str, version: str, more: Mapping[str, str] | None) -> dict[str, Any]:
        answer = self.ask(path, version, more=more)
        if answer.status == OK and (found := answer.document()):
            return found
        why = f"the metadata service at {self.url} gives no {path}: {answer.why()}"
        # An identity that was just given to the machine is not found at first.
        new = answer.status == BAD and "not found" in answer.text
        if new or again(answer) or answer.status in (OK, NOT_FOUND, GONE):
            raise Again(why)
        raise ValueError(why)


def identity(environ: Mapping[str, str]) -> tuple[str, str]:
    """The machine's name and its private address."""
    found = Metadata(environ).need("instance", INSTANCE)
    interface = found["network"]["interface"][0]["ipv4"]["ipAddress"][0]
    return str(found["compute"]["name"]), str(interface["privateIpAddress"])


def secret(url: str, environ: Mapping[str, str], patience_s: float = PATIENCE_S) -> str:
    """The newest version of a secret in a key vault, read by the machine's own identity.

    Parameters
    ----------
    url
        `https://VAULT/secrets/NAME`, perhaps with `?client_id=` of which of its identities.
    environ
        May say where the metadata service is.
    patience_s
        How long the vault may be busy, or not know yet that there is a secret or that the machine may read it.

    Raises
    ------
    ValueError
        When it cannot be read; says what is missing.
    """
    parts = urlsplit(url)
    bare = f"{parts.scheme}://{parts.netloc}{parts.path}?api-version={VAULT}"
    whose = {name: values[0] for name, values in parse_qs(parts.query).items()}
    here = Metadata(environ, patience_s / 3)
    return patiently(partial(_read, here, bare, whose), patience_s)


def _read(here: Metadata, url: str, whose: Mapping[str, str]) -> str:
    refused = ask(url, {})
    # Whose token a vault wants, it says itself: https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses
    challenge = refused.headers.get("www-authenticate", "")
    wanted = re.search(r'(?:resource|scope)="?([^",\s]+)', challenge)
    if wanted is None:
        raise _refusal(refused, f"the vault of {url} does not say how it is asked")
    resource = wanted[1].removesuffix("/.default")
    token = here.need("identity/oauth2/token", TOKEN, {"resource": resource, **whose})["access_token"]
    answer = ask(url, {"Authorization": f"Bearer {token}"})
    if answer.status != OK:
        why = {
            FORBIDDEN: "the machine's identity may not read (Key Vault Secrets User)",
            NOT_FOUND: "there is no",
        }
        raise _refusal(answer, f"{why.get(answer.status, 'the vault does not give')} {url.partition('?')[0]}")
    return str(answer.document()["value"])


def _refusal(answer: Answer, why: str) -> Exception:
    later = again(answer) or answer.status in (UNAUTHORIZED, FORBIDDEN, NOT_FOUND)
    return (Again if later else ValueError)(f"{why}: {answer.why()}")


class Events:
    """Scheduled events of a machine.

    Parameters
    ----------
    environ
        May say where the metadata service is.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._here = Metadata(environ)
        self._name = ""
        self._mine: set[str] = set()

    def look(self) -> list[tuple[str, float]]:
        """What Azure is about to do with the machine: in words, and the seconds that are left.

        Raises
        ------
        OSError
            When it does not say.
        """
        self._name = self._name or self._here.need("instance", INSTANCE)["compute"]["name"]
        answer = self._here.ask("scheduledevents", EVENTS)
        if answer.status != OK:
            raise OSError(answer.why())
        found = []
        for event in answer.document().get("Events", ()):
            if self._name in event["Resources"] and event["EventType"] in ENDS:
                found.append((f"{event['EventType']} by {event['EventSource']}", _left(event)))
                if event["EventStatus"] == "Scheduled" and event["Resources"] == [self._name]:
                    self._mine.add(event["EventId"])
        return found

    def over(self) -> None:
        """The machine is ready: what was announced for it alone need not wait any longer."""
        if self._mine:
            requests = [{"EventId": id} for id in sorted(self._mine)]
            body = json.dumps({"StartRequests": requests}).encode()
            self._here.ask("scheduledevents", EVENTS, body)


def _left(event: Mapping[str, Any]) -> float:
    """Seconds until an event may begin; it has begun when it says no time."""
    if not event.get("NotBefore"):
        return ENDS["Preempt"] if event["EventStatus"] == "Scheduled" else 0.0
    return max(0.0, parsedate_to_datetime(event["NotBefore"]).timestamp() - time.time())
