"""What a region of Google Cloud may run at once, as it tells with itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.provider import Quota
from cloudprovider.providers import _gce_wire as wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gce_plan import Kind

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The quotas of one region, and what machines take of them.

    Parameters
    ----------
    project, region
        Where.
    known, used
        By metric, how much there is, and how much of it is in use.
    kinds
        By role, what its machines are.
    nat
        Whether they have a way out without an address of their own.
    """

    project: str
    region: str
    known: Mapping[str, float]
    kinds: Mapping[str, Kind]
    nat: bool
    used: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Any, project: str, kinds: Mapping[str, Kind], *, nat: bool) -> Self:
        """Those of a region, as regions.get tells it."""
        return cls(
            project=project,
            region=place.name,
            known={one.metric: one.limit for one in place.quotas},
            used={one.metric: one.usage for one in place.quotas},
            kinds=kinds,
            nat=nat,
        )

    def quotas(self, config: GCPConfig, role: str, markets: Sequence[str]) -> Sequence[Quota]:
        """The quota with least room in each market; empty where none is known in one of them."""
        found = []
        scheduler = self._usage(config, "scheduler", "on-demand") if role != "scheduler" else {}
        for market in markets:
            shares = {name: each for name, each in self._usage(config, role, market).items() if each}
            known = [
                self._quota(metric, each, scheduler.get(metric, 0.0))
                for metric, each in shares.items()
                if metric in self.known
            ]
            if not known:
                return ()
            found.append(min(known, key=lambda quota: quota.machines))
        return found

    def _usage(self, config: GCPConfig, role: str, market: str) -> dict[str, float]:
        """What one machine takes of each."""
        addresses = wire.is_outside(config, role, nat=self.nat)
        own = self.kinds[role].shares(market, self.known)
        return {**own, "INSTANCES": 1.0, "IN_USE_ADDRESSES": float(addresses)}

    def _quota(self, metric: str, each: float, taken: float) -> Quota:
        where = f"https://console.cloud.google.com/iam-admin/quotas?project={self.project}"
        return Quota(
            name=f"{metric} in {self.region}",
            limit=self.known[metric],
            unit="vCPU" if metric.endswith("CPUS") else metric.lower().replace("_", " "),
            each=each,
            taken=taken,
            used=self.used.get(metric),
            advice=f"Ask for more at {where}, or use fewer or smaller machines.",
        )
