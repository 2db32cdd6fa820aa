"""EC2 as one account sees it: what is answered by live machines here, and what moto answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.ec2_fleets import Fleets
from cloudprovider.emulator.ec2_instances import Instances, known
from cloudprovider.emulator.ec2_spot import Spot
from cloudprovider.emulator.ec2_templates import Templates

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.quotas import Quotas
    from cloudprovider.emulator.wire import Request


class EC2:
    """The EC2 of one account, in every region."""

    def __init__(self, account: Account, quotas: Quotas) -> None:
        self.instances = Instances(account, quotas)
        self._parts = (
            self.instances,
            Fleets(self.instances),
            Templates(self.instances),
            Spot(self.instances),
        )

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation; None when moto does."""
        return next((found for part in self._parts if (found := part.handler(operation))), None)

    @staticmethod
    def touched(region: str) -> None:
        """Moto has changed something: what instances are told like is to be written anew."""
        for one in known(region).values():
            one.fragment = None
