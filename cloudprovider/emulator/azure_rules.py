"""The rules of Azure's network security groups: what may be in one, and what is in each.

https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_wire import AzureError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check", "defaults"]

FIRST, LAST = 100, 4096
#: Name, priority, access, direction, from, to.
DEFAULTS = (
    ("AllowVnetInBound", 65000, "Allow", "Inbound", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65001, "Allow", "Inbound", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65500, "Deny", "Inbound", "*", "*"),
    ("AllowVnetOutBound", 65000, "Allow", "Outbound", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65001, "Allow", "Outbound", "*", "Internet"),
    ("DenyAllOutBound", 65500, "Deny", "Outbound", "*", "*"),
)
#: What a rule says once or many times.
EITHER = (
    ("sourceAddressPrefix", "sourceAddressPrefixes"),
    ("destinationAddressPrefix", "destinationAddressPrefixes"),
    ("sourcePortRange", "sourcePortRanges"),
    ("destinationPortRange", "destinationPortRanges"),
)


def check(name: str, rule: dict[str, Any], others: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Refuse a rule that cannot be, or not beside these."""
    priority = rule.get("priority")
    if priority is None or not FIRST <= priority <= LAST:
        text = f"Security rule {name} has invalid Priority. Value provided: {priority} Allowed range {FIRST}-{LAST}."
        raise AzureError(400, "SecurityRuleInvalidPriority", text)
    for one, many in EITHER:
        members = f"{one.removesuffix('AddressPrefix')}ApplicationSecurityGroups"
        if not (rule.get(one) or rule.get(many) or rule.get(members)):
            what = one[0].upper() + one[1:]
            text = f"Required security rule parameters are missing for security rule with Id: {name}. {what}."
            raise AzureError(400, "SecurityRuleParameterMissing", text)
    for other, known in others:
        if (known["priority"], known["direction"].lower()) == (priority, rule["direction"].lower()):
            text = f"Security rule {name} conflicts with rule {other}. Rules cannot have the same Priority and Direction."
            raise AzureError(400, "SecurityRuleConflict", text)


def defaults(group: str) -> list[dict[str, Any]]:
    """The rules that every group ends with."""
    return [
        {
            "id": f"{group}/defaultSecurityRules/{name}",
            "name": name,
            "type": "Microsoft.Network/networkSecurityGroups/defaultSecurityRules",
            "properties": {
                "provisioningState": "Succeeded",
                "protocol": "*",
                "sourcePortRange": "*",
                "destinationPortRange": "*",
                "sourceAddressPrefix": source,
                "destinationAddressPrefix": target,
                "access": access,
                "priority": priority,
                "direction": direction,
            },
        }
        for name, priority, access, direction, source, target in DEFAULTS
    ]
