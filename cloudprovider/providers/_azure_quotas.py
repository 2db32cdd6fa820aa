"""What a region of Azure may run at once, as its usages tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.provider import Quota

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._azure import Azure
    from cloudprovider.providers._azure_plan import Kind

__all__ = ["ADVICE", "Limits"]

ADVICE = (
    "Ask for more at https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade, or use "
    "fewer or smaller machines."
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The subscription's limits on cores in one region.

    Parameters
    ----------
    region
        Where.
    usages
        By name, as the API tells them.
    """

    region: str
    usages: Mapping[str, Mapping[str, Any]]

    @classmethod
    def ask(cls, azure: Azure, region: str) -> Self:
        """Ask for those of a region."""
        usages = azure.pages("compute", "usage.list", region)
        return cls(region=region, usages={usage["name"]["value"]: usage for usage in usages})

    def quotas(self, kinds: Mapping[str, Kind], role: str, markets: Sequence[str]) -> Sequence[Quota]:
        """The limit with least room in each market; empty where none is known in one of them."""
        tightest = [self._tightest(kinds, role, market) for market in markets]
        return tuple(quota for quota in tightest if quota) if all(tightest) else ()

    def _tightest(self, kinds: Mapping[str, Kind], role: str, market: str) -> Quota | None:
        """Of the limits that a market's machines count against, the one with least room."""
        taken = kinds["scheduler"].quotas["on-demand"] if role != "scheduler" else {}
        limits = [
            self._quota(name, each, taken.get(name, 0))
            for name, each in kinds[role].quotas[market].items()
            if name in self.usages
        ]
        return min(limits, key=lambda quota: quota.machines, default=None)

    def _quota(self, name: str, each: int, taken: int) -> Quota:
        """One limit on cores, as a usage says it."""
        usage = self.usages[name]
        told = usage["name"].get("localizedValue") or name
        return Quota(
            name=f"{told} in {self.region}",
            limit=float(usage["limit"]),
            unit="cores",
            each=float(each),
            taken=float(taken),
            used=float(usage["currentValue"]),
            advice=ADVICE,
        )
