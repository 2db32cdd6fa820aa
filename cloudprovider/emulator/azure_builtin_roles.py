"""Azure's built-in roles that those who start machines need, by the ids they have everywhere.

https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILT_IN", "Role"]

GROUPS = ("Microsoft.Resources/subscriptions/resourceGroups/read",)
COMMON = (
    *(
        "Microsoft.Authorization/*/read",
        "Microsoft.Insights/alertRules/*",
        "Microsoft.Resources/deployments/*",
    ),
    *(*GROUPS, "Microsoft.Support/*"),
)
METADATA = "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
VAULTS = (
    *("Microsoft.KeyVault/checkNameAvailability/read", "Microsoft.KeyVault/deletedVaults/read"),
    *(
        "Microsoft.KeyVault/locations/*/read",
        "Microsoft.KeyVault/vaults/*/read",
        "Microsoft.KeyVault/operations/read",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a role definition allows.

    Parameters
    ----------
    name
        In words.
    actions, not_actions, data_actions, not_data_actions
        Patterns, in which `*` stands for anything.
    """

    name: str
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()


BUILT_IN = {
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": Role(name="Owner", actions=("*",)),
    "b24988ac-6180-42a0-ab88-20f7382dd24c": Role(
        name="Contributor",
        actions=("*",),
        not_actions=(
            *("Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"),
            "Microsoft.Authorization/elevateAccess/Action",
            *(
                "Microsoft.Blueprint/blueprintAssignments/write",
                "Microsoft.Blueprint/blueprintAssignments/delete",
            ),
            "Microsoft.Compute/galleries/share/action",
        ),
    ),
    "acdd72a7-3385-48ef-bd42-f606fba81ae7": Role(name="Reader", actions=("*/read",)),
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": Role(
        name="User Access Administrator",
        actions=("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
    ),
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168": Role(
        name="Role Based Access Control Administrator",
        actions=(
            *(
                "Microsoft.Authorization/roleAssignments/write",
                "Microsoft.Authorization/roleAssignments/delete",
            ),
            *("*/read", "Microsoft.Support/*"),
        ),
    ),
    "9980e02c-c2be-4d73-94e8-173b1dc7cf3c": Role(
        name="Virtual Machine Contributor",
        actions=(
            *COMMON,
            *("Microsoft.Compute/availabilitySets/*", "Microsoft.Compute/locations/*"),
            *("Microsoft.Compute/virtualMachines/*", "Microsoft.Compute/virtualMachineScaleSets/*"),
            *(
                "Microsoft.Compute/disks/write",
                "Microsoft.Compute/disks/read",
                "Microsoft.Compute/disks/delete",
            ),
            *("Microsoft.Network/locations/*", "Microsoft.Network/networkInterfaces/*"),
            "Microsoft.Network/applicationGateways/backendAddressPools/join/action",
            *("Microsoft.Network/loadBalancers/*/join/action", "Microsoft.Network/loadBalancers/read"),
            *(f"Microsoft.Network/networkSecurityGroups/{verb}" for verb in ("join/action", "read")),
            *(f"Microsoft.Network/publicIPAddresses/{verb}" for verb in ("join/action", "read")),
            *(
                "Microsoft.Network/virtualNetworks/read",
                "Microsoft.Network/virtualNetworks/subnets/join/action",
            ),
        ),
    ),
    "4d97b98b-1d4f-4787-a291-c67834d212e7": Role(
        name="Network Contributor", actions=(*COMMON, "Microsoft.Network/*")
    ),
    "fb879df8-f326-4884-b1cf-06f3ad86be52": Role(
        name="Virtual Machine User Login",
        actions=(
            *("Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/virtualNetworks/read"),
            *("Microsoft.Network/networkInterfaces/read", "Microsoft.Compute/virtualMachines/*/read"),
        ),
        data_actions=("Microsoft.Compute/virtualMachines/login/action",),
    ),
    "f1a07417-d97a-45cb-824c-7a7467783830": Role(
        name="Managed Identity Operator",
        actions=(
            *COMMON,
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
        ),
    ),
    "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59": Role(
        name="Managed Identity Contributor",
        actions=(
            *COMMON,
            *(
                f"Microsoft.ManagedIdentity/userAssignedIdentities/{verb}"
                for verb in ("read", "write", "delete")
            ),
        ),
    ),
    "f25e0fa2-a7c8-4377-a976-54943a77a395": Role(
        name="Key Vault Contributor",
        actions=(*COMMON, "Microsoft.KeyVault/*"),
        not_actions=(
            "Microsoft.KeyVault/locations/deletedVaults/purge/action",
            "Microsoft.KeyVault/hsmPools/*",
        ),
    ),
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": Role(
        name="Key Vault Administrator",
        actions=(*COMMON, *VAULTS),
        data_actions=("Microsoft.KeyVault/vaults/*",),
    ),
    "21090545-7ca7-4776-b22c-e363652d74d2": Role(
        name="Key Vault Reader",
        actions=(*COMMON, *VAULTS),
        data_actions=("Microsoft.KeyVault/vaults/*/read", METADATA),
    ),
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": Role(
        name="Key Vault Secrets Officer",
        actions=(*COMMON, *VAULTS),
        data_actions=("Microsoft.KeyVault/vaults/secrets/*",),
    ),
    "4633458b-17de-408a-b874-0445c86b69e6": Role(
        name="Key Vault Secrets User",
        data_actions=("Microsoft.KeyVault/vaults/secrets/getSecret/action", METADATA),
    ),
}
