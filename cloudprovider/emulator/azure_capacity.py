"""How many machines there is room for: by market, location, zone and size, and by quota.

https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-sku-not-available
https://learn.microsoft.com/troubleshoot/azure/virtual-machines/allocation-failure
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cloudprovider.emulator import azure_catalogue
from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_machine import LiveVM
    from cloudprovider.emulator.azure_offers import Offers
    from cloudprovider.emulator.azure_orders import Order

__all__ = ["Capacity"]


class Capacity:
    """What is left of the cloud.

    Parameters
    ----------
    account, offers
        Of the emulated cloud.
    machines
        All that there are.
    """

    def __init__(self, account: Account, offers: Offers, machines: Callable[[], Iterable[LiveVM]]) -> None:
        self._account = account
        self._offers = offers
        self._machines = machines

    def used(self, location: str) -> Mapping[str, int]:
        """What machines use of each quota of a location."""
        found: dict[str, int] = {}
        for machine in self._machines():
            order = machine.order
            if machine.holds and order.location == location:
                for name in ("virtualMachines", *self._quotas(order)):
                    found[name] = found.get(name, 0) + (1 if name == "virtualMachines" else order.vcpus)
        return found

    @staticmethod
    def _quotas(order: Order) -> tuple[str, ...]:
        """Spot machines have a quota of their own."""
        if order.market == "spot":
            return ("lowPriorityCores",)
        return ("cores", azure_catalogue.family(order.size))

    def check_quota(self, order: Order, count: int) -> None:
        """Refuse more vCPUs than the subscription may have; Azure says so before it accepts."""
        used, wanted = self.used(order.location), order.vcpus * count
        for name in self._quotas(order):
            limit = min(self._offers.limit(name), self._fault_limit(order))
            if used.get(name, 0) + wanted > limit:
                raise over_quota(name, order.location, limit, used.get(name, 0), wanted)

    def _fault_limit(self, order: Order) -> float:
        fault = self._account.faults.market("quota", order.market)
        return fault.room if fault else float("inf")

    def refusal(self, order: Order, id: str) -> AzureError | None:
        """Why there is no room for one machine; None when there is, which is then taken."""
        words = (order.market, order.location, order.zone, order.size)
        for fault in self._account.faults.of("capacity"):
            if (
                fault.market in ("", order.market)
                and fault.zone in ("", order.zone)
                and (not fault.type or fnmatchcase(order.size, fault.type))
            ):
                if fault.room <= 0:
                    return no_room(order, id, fault.code)
                fault.room -= 1
        held = [one.order for one in self._machines() if one.holds]
        for key, limit in self._account.profile.capacity.items():
            if fits(key, words) and limit <= sum(
                fits(key, (one.market, one.location, one.zone, one.size)) for one in held
            ):
                return no_room(order, id)
        return None


def fits(key: str, words: tuple[str, ...]) -> bool:
    """Whether each word of a capacity's name is the market, the location, the zone or the size."""
    return all(any(fnmatchcase(word, part) for word in words) for part in key.split("/"))


def no_room(order: Order, id: str, code: str = "") -> AzureError:
    """What Azure says when it has no place: at once for Spot, else after it has accepted."""
    if code == "SkuNotAvailable" or (order.market == "spot" and not code):
        text = (
            f"The requested size for resource '{id}' is currently not available in location '{order.location}' "
            f"zones '{order.zone}' for subscription '{SUBSCRIPTION}'. Please try another size or deploy to a "
            "different location or zones. See https://aka.ms/azureskunotavailable for details."
        )
        return AzureError(409, "SkuNotAvailable", text)
    if order.zone:
        text = (
            "Allocation failed. We do not have sufficient capacity for the requested VM size in this zone. Read more "
            "about improving likelihood of allocation success at http://aka.ms/allocation-guidance"
        )
        return AzureError(409, code or "ZonalAllocationFailed", text)
    text = (
        "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. Read more "
        "about improving likelihood of allocation success at http://aka.ms/allocation-guidance"
    )
    return AzureError(409, code or "AllocationFailed", text)


def over_quota(name: str, location: str, limit: float, used: int, wanted: int) -> AzureError:
    """What Azure says of more vCPUs than the subscription may have.

    https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota
    """
    words = {"cores": "Total Regional Cores", "lowPriorityCores": "LowPriorityCores"}.get(
        name, f"{name} Cores"
    )
    text = (
        f"Operation could not be completed as it results in exceeding approved {words} quota. Additional details - "
        f"Deployment Model: Resource Manager, Location: {location}, Current Limit: {limit:g}, Current Usage: {used}, "
        f"Additional Required: {wanted}, (Minimum) New Limit Required: {used + wanted}. Submit a request for Quota "
        "increase at https://aka.ms/ProdportalCRP/#blade/Microsoft_Azure_Capacity/UsageAndQuota.ReactView by "
        "specifying parameters listed in the 'Details' section for deployment to succeed."
    )
    return AzureError(409, "OperationNotAllowed", text)
