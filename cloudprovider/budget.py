"""A limit on what a cluster may spend, which its scheduler keeps.

Whoever leads says at each renewal for how long the budget pays for the machines there are. The scheduler's
supervisor ends the cluster then, also when nobody has been heard of since: without a manager no machine is
added, so that the budget lasts at least as long as was said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.bill import HOUR, Bill, dollars, duration
from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.bill import Rate

__all__ = ["Budget", "amount_of"]

#: Seconds that machines may bill between the scheduler's word and their end.
END_S = 60.0


def amount_of(value: str | float, option: str = "budget") -> float:
    """An amount of money in US dollars, as price tables have them; a bare number is dollars."""
    found = re.fullmatch(
        r"(?:USD|\$)?\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:USD|\$)?", str(value).strip(), re.IGNORECASE
    )
    if found is None or not float(found[1]) > 0:
        raise ConfigError(f"{option}={value!r} is no amount of US dollars; write '25 USD' or 25.")
    return float(found[1])


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent, and what was spent before this manager came.

    Parameters
    ----------
    usd
        US dollars that the cluster may cost in all.
    before
        Of these, what machines have cost that this manager has never seen.
    """

    usd: float
    before: float = 0.0

    @classmethod
    def found(cls, record: Mapping[str, Any], bill: Bill, usd: float | None = None) -> Budget:
        """The budget of a cluster that another manager made, as its scheduler remembers it."""
        return cls(usd=usd or record["usd"], before=max(0.0, record["spent"] - (bill.spent or 0.0)))

    def promise(self, rates: Sequence[Rate], boot_s: float = 0.0) -> float:
        """Seconds from the end of a boot for which the budget surely pays, when machines of these rates are ordered.

        At least those in which a manager says how long it really does.
        """
        return max(END_S, self.left_s(_first(rates)) - boot_s)

    def spent(self, bill: Bill) -> float:
        """US dollars spent until now."""
        return self.before + (bill.spent or 0.0)

    def left_s(self, bill: Bill) -> float:
        """Seconds for which the budget pays for what bills now, their ends included; negative when it is over.

        Raises
        ------
        ConfigError
            When something has no known price: the budget cannot be kept.
        """
        if bill.unknown:
            raise ConfigError(
                f"budget={dollars(self.usd)} cannot be kept: there is no price here for {', '.join(bill.unknown)}. "
                "Leave budget= out, or choose machines with a known price (`dask cloud price`)."
            )
        left, per_s = self.usd - self.spent(bill), (bill.per_hour or 0.0) / HOUR
        return left / per_s - END_S if per_s else left * float("1e9")

    def over(self, bill: Bill) -> str:
        """Why the cluster must end, as a sentence; empty while the budget pays."""
        if self.left_s(bill) > 0:
            return ""
        return (
            f"of its budget of {dollars(self.usd)}, {dollars(self.spent(bill))} are spent, and {duration(END_S)} are "
            "kept for the end of its machines. Pass a larger budget= to go on."
        )

    def record(self, bill: Bill) -> dict[str, float]:
        """What the scheduler is told."""
        per_s = (bill.per_hour or 0.0) / HOUR
        return {"usd": self.usd, "spent": self.spent(bill), "per_s": per_s, "left_s": self.left_s(bill)}

    def check_order(self, rates: Sequence[Rate]) -> None:
        """Refuse to order machines of these rates when the budget does not pay for their first minutes.

        Raises
        ------
        ConfigError
            When it does not, or something has no known price.
        """
        self.check(_first(rates))

    def check(self, bill: Bill) -> None:
        """Refuse a start that the budget does not pay for.

        Raises
        ------
        ConfigError
            When it does not, or something has no known price.
        """
        if self.left_s(bill) <= 0:
            raise ConfigError(
                f"budget={dollars(self.usd)} is spent already: these machines cost {dollars(bill.per_hour or 0.0)} "
                f"an hour, billing minimums make {dollars(self.spent(bill))} of the start, and "
                f"{duration(END_S)} are kept for their end."
            )


def _first(rates: Sequence[Rate]) -> Bill:
    """The bill of machines that have just been ordered: their minimums."""
    return Bill(
        spent=sum(rate.per_second * rate.minimum_s for rate in rates),
        per_hour=sum(rate.per_hour for rate in rates),
        unknown=tuple(dict.fromkeys(word for rate in rates for word in rate.unknown)),
    )
