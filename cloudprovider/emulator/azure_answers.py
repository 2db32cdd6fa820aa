"""Holds what the services beside answer to the model classes of Azure's own SDK."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import azure_flat_models, azure_models
from cloudprovider.emulator.azure_wire import AzureError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check", "check_secrets"]


def check(document: Any) -> None:
    """Raise AzureError when an answer, or one of those in a list, is not what the SDK knows by its type."""
    if document is None:
        return
    for one in document["value"] if isinstance(document.get("value"), list) else [document]:
        if kind := _kinds().get(one.get("type", "")):
            _check(kind, one)


def check_secrets(operation: str, document: Any) -> None:
    """Raise AzureError when what a vault answers is not what the SDK knows of the operation."""
    if document is None:
        return
    kind = _secret_kinds()[operation]
    for one in document["value"] if isinstance(document.get("value"), list) else [document]:
        _check(kind, one)


def _check(kind: Any, one: Mapping[str, Any]) -> None:
    models = azure_models if azure_models.is_model(kind) else azure_flat_models
    for problem in models.problems(kind, one, answer=True):
        raise AzureError(500, "EmulatorBug", f"The emulator's {kind.__name__} is wrong: {problem.text}")


@functools.cache
def _kinds() -> Mapping[str, Any]:
    """The model class of each type of resource."""
    from azure.mgmt.authorization.v2022_04_01 import models as authorization
    from azure.mgmt.keyvault import models as keyvault
    from azure.mgmt.msi.v2024_11_30 import models as msi

    return {
        "Microsoft.ManagedIdentity/userAssignedIdentities": msi.Identity,
        "Microsoft.Authorization/roleDefinitions": authorization.RoleDefinition,
        "Microsoft.Authorization/roleAssignments": authorization.RoleAssignment,
        "Microsoft.KeyVault/vaults": keyvault.Vault,
        "Microsoft.KeyVault/deletedVaults": keyvault.DeletedVault,
    }


@functools.cache
def _secret_kinds() -> Mapping[str, Any]:
    """The model class that each operation of a vault answers with, alone or in a list."""
    from azure.keyvault.secrets._generated import models

    return {
        "set_secret": models.SecretBundle,
        "get_secret": models.SecretBundle,
        "update_secret": models.SecretBundle,
        "recover_deleted_secret": models.SecretBundle,
        "get_secrets": models.SecretItem,
        "get_secret_versions": models.SecretItem,
        "delete_secret": models.DeletedSecretBundle,
        "get_deleted_secret": models.DeletedSecretBundle,
        "get_deleted_secrets": models.DeletedSecretItem,
    }
