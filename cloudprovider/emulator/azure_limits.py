"""How many calls Azure takes: of each subscription, of each region, of each resource.

https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
https://learn.microsoft.com/azure/virtual-machines/compute-throttling-limits
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudprovider.emulator.azure_wire import SUBSCRIPTION, AzureError
from cloudprovider.emulator.profiles import Bucket

if TYPE_CHECKING:
    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_wire import Request
    from cloudprovider.emulator.profiles import Rate

__all__ = ["Limits"]

KINDS = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}


class Limits:
    """Counts calls."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(self, request: Request, location: str, caller: str) -> dict[str, str]:
        """Count a call: the headers that tell what remains; raises AzureError when nothing did.

        What a subscription takes, it takes of each caller; what a service takes, in each location.
        """
        profile, name = self._account.profile, f"{request.service}:{request.operation}"
        kind = KINDS.get(request.method, "writes")
        taken = [(caller, key, rate) for key, rate in profile.rates(f"subscription:{kind}")]
        taken += [(location, key, rate) for key, rate in profile.rates(name)]
        change = "reads" if kind == "reads" else "changes"
        taken += [(location, key, rate) for key, rate in profile.rates(f"{request.service}:{change}")]
        if rate := profile.resources.get(name):
            taken.append((request.path.lower(), name, rate))
        for place, key, rate in taken:
            bucket = self._buckets.setdefault((place, key), Bucket(rate, self._account.timers.scale))
            if not bucket.take():
                raise self.throttled(request, rate)
        return {f"x-ms-ratelimit-remaining-subscription-{kind}": self._remaining(kind, caller)}

    def _remaining(self, kind: str, caller: str) -> str:
        for key, rate in self._account.profile.rates(f"subscription:{kind}"):
            bucket = self._buckets.get((caller, key))
            return str(int(bucket.left if bucket else rate.burst))
        return "11999" if kind == "reads" else "1199"

    def throttled(self, request: Request, rate: Rate | None = None) -> AzureError:
        """What is said to who calls too often."""
        seconds = (1 / rate.per_second if rate else 1.0) * self._account.timers.scale
        headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
        if request.service == "compute":
            return AzureError(
                429,
                "OperationNotAllowed",
                "The server rejected the request because too many requests have been received for this "
                "subscription.",
                details=[
                    {
                        "code": "TooManyRequests",
                        "target": request.operation.replace(".", ""),
                        "message": f'{{"operationGroup":"{request.operation.replace(".", "")}"}}',
                    }
                ],
                headers={
                    **headers,
                    "x-ms-ratelimit-remaining-resource": f"Microsoft.Compute/{request.operation.replace('.', '')};0",
                },
            )
        if request.service == "network":
            text = "The request is being throttled as the limit has been reached for operation type."
            return AzureError(429, "TooManyRequests", text, headers=headers)
        return AzureError(
            429,
            "SubscriptionRequestsThrottled",
            f"Number of requests for subscription '{SUBSCRIPTION}' exceeded the limit. Please try again after "
            f"'{headers['Retry-After']}' seconds.",
            headers=headers,
        )
