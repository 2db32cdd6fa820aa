"""What is in a key vault: its secrets, their versions, and the deleted ones that it keeps for a while.

https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups
"""

from __future__ import annotations

import functools
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import AzureError, check_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.azure_wire import Request

#: https://learn.microsoft.com/azure/key-vault/general/service-limits#secret-transactions
MOST_BYTES = 25_600
NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
PAGE = 25
DAY_S = 86_400.0
ACTION = "Microsoft.KeyVault/vaults/secrets/"
#: By method and path: the operation, and the data action it takes. A segment `-` is a name.
ROUTES = {
    ("PUT", "secrets/-"): ("set_secret", "setSecret/action"),
    ("GET", "secrets"): ("get_secrets", "readMetadata/action"),
    ("GET", "secrets/-"): ("get_secret", "getSecret/action"),
    ("GET", "secrets/-/versions"): ("get_secret_versions", "readMetadata/action"),
    ("GET", "secrets/-/-"): ("get_secret", "getSecret/action"),
    ("PATCH", "secrets/-/-"): ("update_secret", "setSecret/action"),
    ("DELETE", "secrets/-"): ("delete_secret", "delete"),
    ("GET", "deletedsecrets"): ("get_deleted_secrets", "readMetadata/action"),
    ("GET", "deletedsecrets/-"): ("get_deleted_secret", "getSecret/action"),
    ("DELETE", "deletedsecrets/-"): ("purge_deleted_secret", "purge/action"),
    ("POST", "deletedsecrets/-/recover"): ("recover_deleted_secret", "recover/action"),
}


@dataclass
class _Secret:
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: float = 0.0

    @property
    def newest(self) -> str:
        return next(reversed(self.versions))


class VaultSecrets:
    """The secrets of one vault; guarded by the account's lock.

    Parameters
    ----------
    url
        Of the vault, without a slash at its end.
    kept_days
        How long deleted ones can be recovered.
    protected
        Whether they cannot be purged before.
    clock
        The cloud's time.
    """

    def __init__(
        self, url: str, kept_days: int, clock: Callable[[], float], *, protected: bool = False
    ) -> None:
        self._url, self._days, self._clock, self._protected = url, kept_days, clock, protected
        self._secrets: dict[str, _Secret] = {}

    @staticmethod
    def route(request: Request) -> tuple[str, str, list[str]]:
        """The operation of a request, the data action it takes, and the names in its path."""
        parts = [part for part in request.path.split("/") if part]
        for (method, path), (operation, action) in ROUTES.items():
            segments = path.split("/")
            if method == request.method and len(segments) == len(parts):
                pairs = list(zip(segments, parts, strict=True))
                if all(mine in ("-", given) for mine, given in pairs):
                    return operation, ACTION + action, [given for mine, given in pairs if mine == "-"]
        raise AzureError(
            404, "NotFound", f"There is no {request.method} {request.path} in the emulated Key Vault."
        )

    def act(self, operation: str, request: Request, names: list[str]) -> tuple[int, Any]:
        """Answer an operation."""
        self._purge_old()
        answer: tuple[int, Any] = getattr(self, f"_{operation}")(request, *names)
        return answer

    def names(self) -> list[str]:
        """Of the secrets that are not deleted."""
        return [name for name, one in self._secrets.items() if not one.deleted]

    # -- secrets ---------------------------------------------------------------------------------------

    def _set_secret(self, request: Request, name: str) -> tuple[int, Any]:
        check_body(request, _models().SecretSetParameters)
        given = request.body
        if not NAME.fullmatch(name):
            raise AzureError(400, "BadParameter", f"The request URI contains an invalid name: {name}")
        if len(given["value"].encode()) > MOST_BYTES:
            raise AzureError(400, "BadParameter", "The secret value is too long: at most 25k bytes.")
        one = self._secrets.setdefault(name.lower(), _Secret())
        if one.deleted:
            text = f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged."
            raise AzureError(409, "Conflict", text, inner={"code": "ObjectIsDeletedButRecoverable"})
        now, version = int(self._clock()), secrets.token_hex(16)
        one.versions[version] = {
            "value": given["value"],
            "id": f"{self._url}/secrets/{name}/{version}",
            "attributes": {"enabled": True, **(given.get("attributes") or {}), **self._times(now)},
            **{key: given[key] for key in ("contentType", "tags") if given.get(key) is not None},
        }
        return 200, one.versions[version]

    def _times(self, now: int) -> dict[str, Any]:
        level = "Recoverable" if self._protected else "Recoverable+Purgeable"
        return {"created": now, "updated": now, "recoveryLevel": level, "recoverableDays": self._days}

    def _find(self, name: str, version: str = "") -> dict[str, Any]:
        one = self._secrets.get(name.lower())
        if one is None or one.deleted or (version and version not in one.versions):
            raise _not_found(f"{name}/{version}" if version else name)
        return one.versions[version or one.newest]

    def _get_secret(self, _: Request, name: str, version: str = "") -> tuple[int, Any]:
        # A secret is told outside of its `nbf` and `exp` too.
        # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#date-time-controlled-operations
        found = self._find(name, version)
        if not found["attributes"]["enabled"]:
            text = "Operation get is not allowed on a disabled secret."
            raise AzureError(403, "Forbidden", text, inner={"code": "SecretDisabled"})
        return 200, found

    def _update_secret(self, request: Request, name: str, version: str) -> tuple[int, Any]:
        check_body(request, _models().SecretUpdateParameters)
        found, given = self._find(name, version), request.body or {}
        found["attributes"] |= {**(given.get("attributes") or {}), "updated": int(self._clock())}
        found |= {key: given[key] for key in ("contentType", "tags") if key in given}
        return 200, {key: value for key, value in found.items() if key != "value"}

    def _get_secrets(self, request: Request) -> tuple[int, Any]:
        names = self.names()
        return 200, self._page(request, "secrets", [self._item(self._find(name), name) for name in names])

    def _get_secret_versions(self, request: Request, name: str) -> tuple[int, Any]:
        self._find(name)
        every = self._secrets[name.lower()].versions.values()
        items = [{key: value for key, value in one.items() if key != "value"} for one in every]
        return 200, self._page(request, f"secrets/{name}/versions", items)

    def _item(self, found: dict[str, Any], name: str) -> dict[str, Any]:
        return {
            **{key: value for key, value in found.items() if key != "value"},
            "id": f"{self._url}/secrets/{name}",
        }

    def _page(self, request: Request, path: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        start, size = int(request.query.get("$skiptoken", "0")), int(request.query.get("maxresults", PAGE))
        version, end = request.query["api-version"], start + size
        link = f"{self._url}/{path}?api-version={version}&$skiptoken={end}&maxresults={size}"
        return {"value": items[start:end], "nextLink": link if end < len(items) else None}

    # -- deleted ones ----------------------------------------------------------------------------------

    def _delete_secret(self, _: Request, name: str) -> tuple[int, Any]:
        self._find(name)
        self._secrets[name.lower()].deleted = self._clock()
        return 200, self._kept(name, value=True)

    def _kept(self, name: str, *, value: bool = False) -> dict[str, Any]:
        one = self._secrets.get(name.lower())
        if one is None or not one.deleted:
            raise _not_found(name)
        newest = one.versions[one.newest]
        return {
            **{key: item for key, item in newest.items() if value or key != "value"},
            "recoveryId": f"{self._url}/deletedsecrets/{name}",
            "deletedDate": int(one.deleted),
            "scheduledPurgeDate": int(one.deleted + self._days * DAY_S),
        }

    def _get_deleted_secret(self, _: Request, name: str) -> tuple[int, Any]:
        return 200, self._kept(name, value=True)

    def _get_deleted_secrets(self, request: Request) -> tuple[int, Any]:
        names = [name for name, one in self._secrets.items() if one.deleted]
        items = [{**self._kept(name), "id": f"{self._url}/secrets/{name}"} for name in names]
        return 200, self._page(request, "deletedsecrets", items)

    def _purge_deleted_secret(self, _: Request, name: str) -> tuple[int, Any]:
        self._kept(name)
        if self._protected:
            text = 'Operation "purge" is not allowed because purge protection is enabled for this vault.'
            raise AzureError(403, "Forbidden", text, inner={"code": "ForbiddenByPolicy"})
        del self._secrets[name.lower()]
        return 204, None

    def _recover_deleted_secret(self, _: Request, name: str) -> tuple[int, Any]:
        self._kept(name)
        self._secrets[name.lower()].deleted = 0.0
        return 200, self._item(self._find(name), name)

    def _purge_old(self) -> None:
        over = self._clock() - self._days * DAY_S
        for name in [name for name, one in self._secrets.items() if one.deleted and one.deleted < over]:
            del self._secrets[name]


def _not_found(name: str) -> AzureError:
    text = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may "
        "be able to recover it using the correct recovery command. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125182"
    )
    return AzureError(404, "SecretNotFound", text)


@functools.cache
def _models() -> Any:
    from azure.keyvault.secrets._generated import models

    return models
