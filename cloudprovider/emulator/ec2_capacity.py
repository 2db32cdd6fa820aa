"""How many instances there is room for: by zone, type and market, by quota, and by rate."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.aws_faults import throttled
from cloudprovider.emulator.ec2_errors import spot_limit, vcpu_limit
from cloudprovider.emulator.profiles import Bucket
from cloudprovider.emulator.quotas import Quotas, quota_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.ec2_orders import Order
    from cloudprovider.emulator.faults import Fault
    from cloudprovider.emulator.wire import AWSError, Request

ENDLESS = 1 << 30
#: States in which an instance holds its place and counts for its quota.
HOLDING = frozenset({"pending", "running", "shutting-down", "stopping"})


class Capacity:
    """What is left of one account's cloud."""

    def __init__(self, account: Account, quotas: Quotas) -> None:
        self._account = account
        self._quotas = quotas
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def room(self, order: Order, zone: str, instances: Sequence[LiveInstance]) -> int:
        """How many instances of this kind the zone has room for."""
        words = (order.market, zone, order.type)
        held = [one for one in instances if one.state in HOLDING]
        limits = [
            limit - sum(_fits(key, (one.market, one.availability_zone, one.instance_type)) for one in held)
            for key, limit in self._account.profile.capacity.items()
            if _fits(key, words)
        ]
        limits += [fault.room for fault in self._faults(words)]
        return max(0, min([*limits, ENDLESS]))

    def take(self, order: Order, zone: str, count: int) -> None:
        """Take room away where it does not come back."""
        for fault in self._faults((order.market, zone, order.type)):
            fault.room -= count

    def within_quota(self, order: Order, instances: Iterable[LiveInstance]) -> int:
        """How many instances of this kind the account may still have."""
        quota = quota_of(order.type, order.market)
        if quota is None:
            return ENDLESS
        used = sum(
            one.order.vcpus
            for one in instances
            if one.state in HOLDING and quota_of(one.instance_type, one.market) == quota
        )
        return max(0, int((self._quotas.value(quota) - used) // order.vcpus))

    def over_quota(self, order: Order) -> AWSError:
        """What EC2 says to who wants more than that."""
        if order.market == "spot":
            return spot_limit()
        quota = quota_of(order.type, order.market)
        return vcpu_limit(self._quotas.value(quota) if quota else 0)

    def pace(self, request: Request, count: int) -> None:
        """Refuse a call that concerns more machines than the rate of its operation leaves."""
        name = f"{request.service}:{request.operation}"
        rate = self._account.profile.resources.get(name)
        if rate is None:
            return
        scale = self._account.timers.scale
        bucket = self._buckets.setdefault((request.region, name), Bucket(rate, scale))
        if not bucket.take(count):
            raise throttled(request)

    def _faults(self, words: tuple[Any, ...]) -> list[Fault]:
        market, zone, kind = words
        return [
            fault
            for fault in self._account.faults.of("capacity")
            if fault.market in ("", market)
            and fault.zone in ("", zone)
            and (not fault.type or fnmatchcase(kind, fault.type))
        ]


def _fits(key: str, words: tuple[Any, ...]) -> bool:
    """Whether each word of a capacity's name is the market, the zone or the type."""
    return all(any(fnmatchcase(word or "", part) for word in words) for part in key.split("/"))
