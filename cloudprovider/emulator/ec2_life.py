"""The life of EC2 instances: pending, running, shutting-down, terminated, with a real inside in between.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.ec2_guests import Guests
from cloudprovider.emulator.vms import SHUTDOWN_S, Power

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ec2_machine import LiveInstance

logger = logging.getLogger(__name__)

NOTICE_S = 120.0  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
HOUR_S = 3600.0
ZONELESS = "%Y-%m-%dT%H:%M:%SZ"

USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
GUEST = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
SPOT = ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")
HOST = ("Server.InternalError", "Server.InternalError: Internal error on launch")


class InstanceLife:
    """Moves instances from state to state, as time passes and their insides end."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._guests = Guests(account, self.halted)
        self._power = Power(account, self._guests, self._run, self._finish)
        self.changed: Callable[[], None] = _nothing  # called when an instance has come or gone

    def begin(self, instance: LiveInstance) -> None:
        """An instance was ordered: let it run soon."""
        account = self._account
        instance.life = self
        self._bill_goods(instance)
        self._power.on(instance)
        if instance.market == "spot" and account.profile.spot_interruptions:
            hours = account.chance.expovariate(account.profile.spot_interruptions)
            account.timers.after(hours * HOUR_S, lambda: self._interrupt_by_chance(instance))

    def hasten(self, instance: LiveInstance) -> None:
        """Let an instance that was ordered run already."""
        self._run(instance)

    # -- what its owner asks -------------------------------------------------------------------------

    def start(self, instance: LiveInstance) -> Any:
        """Start a stopped one; tells which state it had."""
        if instance.state != "stopped":
            return instance._state
        before = instance.enter("pending")
        self._power.on(instance)
        return before

    def stop(self, instance: LiveInstance, *, force: bool = False) -> Any:
        """Stop one; tells which state it had."""
        if instance.state not in ("pending", "running"):
            return instance._state
        return self._shut(instance, "stopping", f"User initiated ({_gmt()})", USER, force=force)

    def terminate(self, instance: LiveInstance, *, force: bool = False) -> Any:
        """Terminate one; tells which state it had."""
        if instance.state in ("shutting-down", "terminated"):
            return instance._state
        return self._shut(instance, "shutting-down", f"User initiated ({_gmt()})", USER, force=force)

    def reboot(self, instance: LiveInstance) -> None:
        """Let its operating system begin again; it stays running."""
        if instance.guest is not None and instance.state == "running":
            instance.rebooting = True
            self._guests.stop(instance, SHUTDOWN_S)

    # -- what happens to it --------------------------------------------------------------------------

    def interrupt(self, instance: LiveInstance, *, rebalance: bool = False) -> None:
        """Take a spot instance back: with a notice two minutes before, or only recommend to leave it."""
        if instance.market != "spot":
            raise ValueError(f"{instance.id} is an on-demand instance: only a spot instance is interrupted.")
        with self._account.lock:
            if instance.state not in ("pending", "running"):
                return
            instance.rebalance = instance.rebalance or _stamp(time.time())
            if rebalance or instance.notice is not None:
                return
            seconds = NOTICE_S * self._account.timers.scale
            instance.notice = {"action": "terminate", "time": _stamp(time.time() + seconds)}
        self._account.timers.after(NOTICE_S, lambda: self._reclaim(instance))

    def kill(self, instance: LiveInstance) -> None:
        """Let the computer that it runs on fail: nothing in it is told."""
        with self._account.lock:
            if instance.state not in ("terminated", "stopped"):
                self._shut(instance, "shutting-down", "Server.InternalError", HOST, force=True)

    def halted(self, instance: LiveInstance) -> None:
        """Its operating system has powered it off, by itself or because it was asked to."""
        with self._account.lock:
            if instance.rebooting:
                instance.rebooting = False
                instance.guest.boot()
            elif instance.state == "running":
                terminates = instance.instance_initiated_shutdown_behavior == "terminate"
                state = "shutting-down" if terminates or instance.market == "spot" else "stopping"
                self._shut(instance, state, "", GUEST, force=True)
            elif instance.state in ("shutting-down", "stopping"):
                self._power.gone(instance)

    def end(self, instances: Sequence[LiveInstance]) -> None:
        """End all that runs in instances."""
        self._power.end(instances)

    # -- how -----------------------------------------------------------------------------------------

    def _run(self, instance: LiveInstance) -> None:
        account = self._account
        with account.lock:
            if instance.state != "pending":
                return
            instance.enter("running")
            hourly = self._guests.hourly(instance)
            account.ledger.start(instance.id, instance.instance_type, instance.market, hourly, time.time())
            self.changed()
        self._guests.boot(instance)

    def _bill_goods(self, instance: LiveInstance) -> None:
        """Volumes bill from when they are made, and so do public addresses."""
        for kind, hourly in self._guests.goods(instance):
            self._account.ledger.start(instance.id, kind, "on-demand", hourly, instance.created)

    def _interrupt_by_chance(self, instance: LiveInstance) -> None:
        if instance.state in ("pending", "running"):
            self.interrupt(instance)

    def _reclaim(self, instance: LiveInstance) -> None:
        with self._account.lock:
            if instance.state in ("pending", "running"):
                self._shut(instance, "shutting-down", SPOT[0], SPOT)

    def _shut(
        self, instance: LiveInstance, state: str, reason: str, why: tuple[str, str], *, force: bool = False
    ) -> Any:
        before = instance.enter(state, reason, *why)
        self._account.ledger.stop(instance.id, time.time(), instance.instance_type)
        self.changed()
        if before.name == "stopped":
            self._power.gone(instance)
        else:
            self._power.off(instance, force=force)
        return before

    def _finish(self, instance: LiveInstance) -> None:
        state = {"shutting-down": "terminated", "stopping": "stopped"}.get(instance.state)
        if state == "terminated":
            self._guests.discard(instance)
        with self._account.lock:
            if state is None or instance.state not in ("shutting-down", "stopping"):
                return
            why = instance.state_reason
            instance.enter(state, instance._reason, why.code, why.message)
            if state == "terminated":
                instance.ended = time.time()
                self._account.ledger.stop(instance.id, instance.ended)
                self._guests.discard(instance)
                self._account.network.detach(instance.nics[0])
                instance.release()
            self.changed()


def _stamp(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime(ZONELESS)


def _gmt() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S GMT")


def _nothing() -> None:
    """Be called when nobody else wants to be."""
