"""What a machine on Compute Engine asks Google Cloud: who it is, its secret, and what becomes of it."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING

from cloudruntime.web import Again, again, ask, patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Metadata", "identity", "looks", "secret"]

# https://cloud.google.com/compute/docs/metadata/querying-metadata
METADATA = "metadata.google.internal"
SECRETS = "https://secretmanager.googleapis.com/"
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 200, 401, 403, 404
#: A role may take minutes to be known everywhere: https://cloud.google.com/iam/docs/access-change-propagation
PATIENCE_S = 420.0
#: What is left after the notice, as it names no time: https://cloud.google.com/compute/docs/instances/spot
PREEMPTED_S = 30.0
# https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
TERMINATED, TERMINATED_S = "TERMINATE_ON_HOST_MAINTENANCE", 60.0


class Metadata:
    """The metadata service of a machine.

    Parameters
    ----------
    environ
        May say where it is, as for Google's own libraries.
    patience_s
        How long what is needed may be missing.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float = 30.0) -> None:
        self.url = f"http://{environ.get('GCE_METADATA_HOST') or METADATA}/computeMetadata/v1"
        self._patience_s = patience_s

    def get(self, path: str) -> str:
        """What is there; empty when there is nothing.

        Raises
        ------
        OSError
            When it does not answer.
        """
        answer = ask(f"{self.url}/{path}", {"Metadata-Flavor": "Google"}, direct=True)
        if answer.status not in (OK, NOT_FOUND):
            raise OSError(answer.why())
        return answer.text.strip() if answer.status == OK else ""

    def need(self, path: str) -> str:
        """What is there, soon.

        Raises
        ------
        ValueError
            When there is still nothing, or no answer.
        """
        return patiently(partial(self._needed, path), self._patience_s)

    def _needed(self, path: str) -> str:
        try:
            found = self.get(path)
        except OSError as error:
            raise Again(f"the metadata service at {self.url} does not answer: {error}") from error
        if not found:
            raise Again(f"the metadata service at {self.url} has no {path}")
        return found


def identity(environ: Mapping[str, str]) -> tuple[str, str]:
    """The machine's name and its private address."""
    here = Metadata(environ)
    return here.need("instance/name"), here.need("instance/network-interfaces/0/ip")


def secret(name: str, environ: Mapping[str, str], patience_s: float = PATIENCE_S) -> str:
    """The newest version of a secret, read by the machine's own service account.

    Parameters
    ----------
    name
        `projects/PROJECT/secrets/NAME`.
    environ
        May say where both services are.
    patience_s
        How long Secret Manager may be busy, or not know yet that there is a secret or that the machine may read it.

    Raises
    ------
    ValueError
        When it cannot be read; says what is missing.
    """
    here = Metadata(environ, patience_s / 3)
    base = environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER") or SECRETS
    url = f"{base.rstrip('/')}/v1/{name}/versions/latest:access"
    return patiently(partial(_read, here, url, name), patience_s)


def _read(here: Metadata, url: str, name: str) -> str:
    token = _json(here.need("instance/service-accounts/default/token"))["access_token"]
    answer = ask(url, {"Authorization": f"Bearer {token}"})
    if answer.status == OK:
        return base64.b64decode(answer.document()["payload"]["data"]).decode()
    account = here.need("instance/service-accounts/default/email")
    why = {
        FORBIDDEN: f"the machine's service account {account} lacks secretmanager.versions.access on {name}",
        NOT_FOUND: f"Secret Manager has no {name}",
    }.get(answer.status, f"Secret Manager does not give {name}")
    if again(answer) or answer.status in (UNAUTHORIZED, FORBIDDEN, NOT_FOUND):
        raise Again(f"{why}: {answer.why()}")
    raise ValueError(f"{why}: {answer.why()}")


def _json(text: str) -> dict[str, str]:
    import json

    return dict(json.loads(text))


def looks(environ: Mapping[str, str]) -> Callable[[], list[tuple[str, float]]]:
    """Asks what the cloud is about to do with the machine: in words, and the seconds that are left."""
    here = Metadata(environ)

    def look() -> list[tuple[str, float]]:
        found = []
        if here.get("instance/preempted") == "TRUE":
            found.append(("preempted", PREEMPTED_S))
        if here.get("instance/maintenance-event") == TERMINATED:
            found.append(("host maintenance that ends the machine", TERMINATED_S))
        return found

    return look
