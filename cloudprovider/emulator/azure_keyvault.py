"""The key vaults of the embedded Azure: how they are made, deleted, kept for a while, recovered and purged.

https://learn.microsoft.com/rest/api/keyvault/keyvault/vaults
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_vault_secrets import DAY_S, VaultSecrets
from cloudprovider.emulator.azure_wire import SUBSCRIPTION, TENANT, AzureError, check_body, group_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.azure_doors import Doors
    from cloudprovider.emulator.azure_wire import Request

TYPE = "Microsoft.KeyVault/vaults"
VERSION = "2026-05-15"
NAME = re.compile(r"(?=.{3,24}$)[a-zA-Z](?:-?[a-zA-Z0-9])*")
KEPT_DAYS = range(7, 91)
#: Names that somebody else has: they are one space for all of Azure.
TAKEN = frozenset({"contoso", "keyvault", "myvault", "secrets", "vault"})
#: From this version on, a vault asks role assignments unless it is told otherwise.
# https://learn.microsoft.com/azure/key-vault/general/access-control-default
BY_ROLES_SINCE = "2026-02-01"
LINK = "Follow this link for more information: https://go.microsoft.com/fwlink/?linkid={}"
#: What is kept of what a vault is ordered with.
SETTINGS = (
    *("tenantId", "sku", "enabledForDeployment", "enabledForDiskEncryption", "enabledForTemplateDeployment"),
    *("enablePurgeProtection", "publicNetworkAccess"),
)
METHODS = {
    (TYPE, "PUT", 1): ("Vaults.CreateOrUpdate", "_put"),
    (TYPE, "PATCH", 1): ("Vaults.Update", "_patch"),
    (TYPE, "GET", 1): ("Vaults.Get", "_get"),
    (TYPE, "DELETE", 1): ("Vaults.Delete", "_delete"),
    (TYPE, "GET", 0): ("Vaults.List", "_list"),
    ("Microsoft.KeyVault/deletedVaults", "GET", 0): ("Vaults.ListDeleted", "_list_deleted"),
    ("Microsoft.KeyVault/locations/deletedVaults", "GET", 2): ("Vaults.GetDeleted", "_get_deleted"),
    ("Microsoft.KeyVault/locations/deletedVaults/purge", "POST", 2): ("Vaults.PurgeDeleted", "_purge"),
    ("Microsoft.KeyVault/checkNameAvailability", "POST", 0): ("Vaults.CheckNameAvailability", "_check_name"),
}


@dataclass
class Vault:
    """One vault.

    Parameters
    ----------
    document
        As it is answered.
    secrets
        What is in it.
    deleted
        When it was, in seconds since the epoch; 0 when it is not.
    """

    document: dict[str, Any]
    secrets: VaultSecrets = field(repr=False)
    deleted: float = 0.0

    @property
    def id(self) -> str:
        """Of Resource Manager."""
        return str(self.document["id"])

    @property
    def settings(self) -> dict[str, Any]:
        """Its properties."""
        found: dict[str, Any] = self.document["properties"]
        return found


class Vaults:
    """The vaults of a subscription; guarded by the account's lock.

    Parameters
    ----------
    clock
        The cloud's time.
    has_group
        Whether there is such a resource group.
    doors
        Through which their secrets are reached.
    forget
        Removes the role assignments on a vault that is deleted; they do not come back with it.
        https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview#key-vault-recovery
    """

    def __init__(
        self,
        clock: Callable[[], float],
        has_group: Callable[[str], bool],
        doors: Doors,
        forget: Callable[[str], None],
    ) -> None:
        self._clock, self._has_group, self._doors, self._forget = clock, has_group, doors, forget
        self._vaults: dict[str, Vault] = {}

    def handler(self, request: Request) -> Callable[[Request], tuple[int, Any]] | None:
        """What answers a call; None when it is another's."""
        known = request.id
        for (kind, method, names), (operation, act) in METHODS.items():
            if (kind.lower(), method, names) == (known.type.lower(), request.method, len(known.names)):
                request.service, request.operation = "keyvault", operation
                answer: Callable[[Request], tuple[int, Any]] = getattr(self, act)
                return answer
        return None

    def at(self, url: str) -> Vault | None:
        """The vault at an address; None when there is none."""
        live = (one for one in self._vaults.values() if not one.deleted)
        return next((one for one in live if one.settings["vaultUri"].rstrip("/") == url), None)

    def all(self) -> list[Vault]:
        """Every vault that is not deleted."""
        return [one for one in self._vaults.values() if not one.deleted]

    def forget(self, scope: str) -> None:
        """Delete those within a scope that is no more: they are kept for a while too."""
        for one in self.all():
            if one.id.lower().startswith(f"{scope.lower()}/"):
                self._let_go(one)

    # -- vaults ----------------------------------------------------------------------------------------

    def _put(self, request: Request) -> tuple[int, Any]:
        check_body(request, _models().VaultCreateOrUpdateParameters)
        known, given = request.id, request.body["properties"]
        name = known.names[0]
        if not self._has_group(known.group):
            raise group_missing(known.group)
        if not NAME.fullmatch(name):
            raise AzureError(400, "VaultNameNotValid", _bad_name(name))
        self._purge_old()
        one = self._vaults.get(name.lower())
        if one and one.id.lower() == request.path.lower() and not one.deleted:
            return 200, self._changed(one, request)
        if (
            one
            and one.deleted
            and given.get("createMode") == "recover"
            and one.id.lower() == request.path.lower()
        ):
            return 201, self._recovered(one)
        if one or name.lower() in TAKEN:
            raise self._used(name, one)
        settings = self._checked(given, request.query.get("api-version", ""))
        settings["vaultUri"] = f"{self._doors.open()}/"
        self._vaults[name.lower()] = made = self._made(request, settings)
        return 201, made.document

    def _used(self, name: str, one: Vault | None) -> AzureError:
        if one and one.deleted:
            text = f"A vault with the same name already exists in deleted state. You need to either recover or purge existing key vault. {LINK.format(2149745)}"
            return AzureError(409, "ConflictError", text)
        text = (
            f"The vault name '{name}' is already in use. Vault names are globally unique so it is possible that the "
            "name is already taken. If you are sure that the vault name was not taken then it is possible that a vault "
            "with the same name was recently deleted but not purged after being placed in a recoverable state. "
            f"{LINK.format(2147740)}."
        )
        return AzureError(409, "VaultAlreadyExists", text)

    def _made(self, request: Request, settings: dict[str, Any]) -> Vault:
        known, now = request.id, _stamp(self._clock())
        document = {
            "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{known.group}/providers/{TYPE}/{known.names[0]}",
            "name": known.names[0],
            "type": TYPE,
            "location": request.body["location"],
            "tags": request.body.get("tags") or {},
            "systemData": {
                "createdByType": "Application",
                "createdAt": now,
                "lastModifiedByType": "Application",
                "lastModifiedAt": now,
            },
            "properties": settings,
        }
        inside = VaultSecrets(
            settings["vaultUri"].rstrip("/"),
            settings["softDeleteRetentionInDays"],
            self._clock,
            protected=bool(settings.get("enablePurgeProtection")),
        )
        return Vault(document, inside)

    @staticmethod
    def _checked(given: dict[str, Any], version: str) -> dict[str, Any]:
        """The properties of a vault that is ordered so."""
        _check(given)
        if not given.get("enableRbacAuthorization", version >= BY_ROLES_SINCE):
            text = "The emulated Key Vault has no access policies: set enableRbacAuthorization."
            raise AzureError(501, "NotImplemented", text)
        return {
            **{key: given[key] for key in SETTINGS if given.get(key) is not None},
            "accessPolicies": [],
            "enableRbacAuthorization": True,
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": given.get("softDeleteRetentionInDays", KEPT_DAYS[-1]),
            "provisioningState": "Succeeded",
        }

    def _changed(self, one: Vault, request: Request) -> dict[str, Any]:
        settings = self._checked({**one.settings, **request.body["properties"]}, BY_ROLES_SINCE)
        if settings["softDeleteRetentionInDays"] != one.settings["softDeleteRetentionInDays"]:
            raise AzureError(
                400,
                "BadRequest",
                'The property "softDeleteRetentionInDays" has been set already and it can\'t be modified.',
            )
        one.document["properties"] = {**settings, "vaultUri": one.settings["vaultUri"]}
        one.document["tags"] = request.body.get("tags") or {}
        return one.document

    def _recovered(self, one: Vault) -> dict[str, Any]:
        one.deleted = 0.0
        return one.document

    def _found(self, request: Request) -> Vault:
        known = request.id
        if not self._has_group(known.group):
            raise group_missing(known.group)
        one = self._vaults.get(known.names[0].lower())
        if one is None or one.deleted or one.id.lower() != request.path.rstrip("/").lower():
            text = (
                f"The Resource '{TYPE}/{known.names[0]}' under resource group '{known.group}' was not found. For more "
                "details please go to https://aka.ms/ARMResourceNotFoundFix"
            )
            raise AzureError(404, "ResourceNotFound", text)
        return one

    def _get(self, request: Request) -> tuple[int, Any]:
        return 200, self._found(request).document

    def _patch(self, request: Request) -> tuple[int, Any]:
        check_body(request, _models().VaultPatchParameters)
        one, given = self._found(request), request.body or {}
        settings = self._checked({**one.settings, **(given.get("properties") or {})}, BY_ROLES_SINCE)
        one.document["properties"] = {**settings, "vaultUri": one.settings["vaultUri"]}
        one.document["tags"] = given.get("tags", one.document["tags"])
        return 200, one.document

    def _list(self, request: Request) -> tuple[int, Any]:
        scope = f"{request.id.scope.lower()}/"
        return 200, {"value": [one.document for one in self.all() if one.id.lower().startswith(scope)]}

    # -- deleted ones ----------------------------------------------------------------------------------

    def _delete(self, request: Request) -> tuple[int, Any]:
        one = self._vaults.get(request.id.names[0].lower())
        if one is None or one.deleted or one.id.lower() != request.path.lower():
            return 204, None
        self._let_go(one)
        return 200, None

    def _let_go(self, one: Vault) -> None:
        one.deleted = self._clock()
        self._forget(one.id)

    def _kept(self, request: Request) -> Vault:
        location, name = request.id.names
        self._purge_old()
        one = self._vaults.get(name.lower())
        if one is None or not one.deleted or one.document["location"].lower() != location.lower():
            text = f"The specified deleted vault '{name}' does not exist."
            raise AzureError(404, "DeletedVaultNotFound", text)
        return one

    def _shown(self, one: Vault) -> dict[str, Any]:
        days, location = one.settings["softDeleteRetentionInDays"], one.document["location"]
        name = one.document["name"]
        return {
            "id": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/{location}/deletedVaults/{name}",
            "name": name,
            "type": "Microsoft.KeyVault/deletedVaults",
            "properties": {
                "vaultId": one.id,
                "location": location,
                "tags": one.document["tags"],
                "deletionDate": _stamp(one.deleted),
                "scheduledPurgeDate": _stamp(one.deleted + days * DAY_S),
                **({"purgeProtectionEnabled": True} if one.settings.get("enablePurgeProtection") else {}),
            },
        }

    def _get_deleted(self, request: Request) -> tuple[int, Any]:
        return 200, self._shown(self._kept(request))

    def _list_deleted(self, _: Request) -> tuple[int, Any]:
        self._purge_old()
        return 200, {"value": [self._shown(one) for one in self._vaults.values() if one.deleted]}

    def _purge(self, request: Request) -> tuple[int, Any]:
        one = self._kept(request)
        if one.settings.get("enablePurgeProtection"):
            raise AzureError(405, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed.")
        self._drop(one)
        return 200, None

    def _purge_old(self) -> None:
        now = self._clock()
        for one in list(self._vaults.values()):
            if one.deleted and one.deleted + one.settings["softDeleteRetentionInDays"] * DAY_S < now:
                self._drop(one)

    def _drop(self, one: Vault) -> None:
        del self._vaults[one.document["name"].lower()]
        self._doors.close(one.settings["vaultUri"].rstrip("/"))

    def _check_name(self, request: Request) -> tuple[int, Any]:
        check_body(request, _models().VaultCheckNameAvailabilityParameters)
        name = request.body["name"]
        self._purge_old()
        if not NAME.fullmatch(name):
            return 200, {"nameAvailable": False, "reason": "AccountNameInvalid", "message": _bad_name(name)}
        one = self._vaults.get(name.lower())
        if one or name.lower() in TAKEN:
            why = self._used(name, one).message
            return 200, {"nameAvailable": False, "reason": "AlreadyExists", "message": why}
        return 200, {"nameAvailable": True}


def _check(given: dict[str, Any]) -> None:
    """Refuse what Azure does not allow a vault to be."""
    low, high = KEPT_DAYS[0], KEPT_DAYS[-1]
    wrong = {
        f"The tenant '{given['tenantId']}' is not the subscription's.": given["tenantId"].lower() != TENANT,
        "Enabling the 'soft delete' functionality is an irreversible action.": given.get("enableSoftDelete")
        is False,
        f"The property 'softDeleteRetentionInDays' must be between {low} and {high}.": given.get(
            "softDeleteRetentionInDays", high
        )
        not in KEPT_DAYS,
        'The property "enablePurgeProtection" cannot be set to false.': given.get("enablePurgeProtection")
        is False,
    }
    for text, is_so in wrong.items():
        if is_so:
            raise AzureError(400, "BadRequest", text)


def _bad_name(name: str) -> str:
    return (
        f"The vault name '{name}' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name "
        "must begin with a letter, end with a letter or digit, and not contain consecutive hyphens. "
        f"{LINK.format(2147742)}"
    )


def _stamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()


@functools.cache
def _models() -> Any:
    from azure.mgmt.keyvault import models

    return models
