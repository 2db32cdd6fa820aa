"""The life of instances: provisioning, staging, running, stopping, terminated or gone, with a real inside in between.

https://cloud.google.com/compute/docs/instances/instance-lifecycle
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloudprovider.emulator.gce_guests import Guests
from cloudprovider.emulator.gce_links import Place, region_of
from cloudprovider.emulator.gce_prices import address_price, machine_price
from cloudprovider.emulator.vms import Power

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_disks import Disks
    from cloudprovider.emulator.gce_machine import LiveInstance
    from cloudprovider.emulator.gce_networks import Networks
    from cloudprovider.emulator.gce_operations import Operation, Operations
    from cloudprovider.emulator.gcp_services import GCPServices

HOUR_S = 3600.0
#: How long an operating system has: https://cloud.google.com/compute/docs/instances/shutdown-overview#guest_shutdown_period
SHUTDOWN_S = {"on-demand": 120.0, "spot": 30.0}
ADDRESS = "public IPv4"
SYSTEM = "system"
HOST_ERROR = "host error"
MAINTENANCE = "its computer was maintained"
#: How long before a maintenance a machine is told, with accelerators and without:
# https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
TOLD_S, TOLD_WITH_GPUS_S = 60.0, 3600.0
ON = frozenset({"PROVISIONING", "STAGING", "RUNNING"})


class InstanceLife:
    """Moves instances from state to state, as time passes and their insides end."""

    def __init__(
        self,
        account: Account,
        operations: Operations,
        networks: Networks,
        disks: Disks,
        services: GCPServices,
    ) -> None:
        self._account, self._operations = account, operations
        self._networks, self._disks = networks, disks
        self._guests = Guests(account, services, networks, self.halted)
        self._power = Power(account, self._guests, self._run, self._finish)
        self._waiting: dict[LiveInstance, list[Operation]] = {}
        self.gone: Callable[[LiveInstance], None] = lambda _: None

    # -- what its owner asks -------------------------------------------------------------------------

    def begin(self, instance: LiveInstance, operation: Operation) -> None:
        """An instance was ordered, or started again: let it run soon."""
        account = self._account
        self._waiting.setdefault(instance, []).append(operation)
        instance.run += 1
        if instance.state == "TERMINATED":
            instance.preempted, instance.reason = False, ""
            instance.enter("PROVISIONING")
        self._give_address(instance)
        account.timers.after(account.profile.address_s, lambda: self._stage(instance, instance.run))
        self._power.on(instance)
        if instance.market == "spot" and account.profile.spot_interruptions:
            hours = account.chance.expovariate(account.profile.spot_interruptions)
            run = instance.run
            account.timers.after(hours * HOUR_S, lambda: self._interrupt_by_chance(instance, run))

    def stop(self, instance: LiveInstance, operation: Operation) -> None:
        """Stop one."""
        self._waiting.setdefault(instance, []).append(operation)
        if instance.state == "TERMINATED":
            self._tell_done(instance)
        elif instance.state in ON:
            self._shut(instance, "stopped by its owner")

    def delete(self, instance: LiveInstance, operation: Operation) -> None:
        """Stop one if it runs, and let it be gone."""
        self._waiting.setdefault(instance, []).append(operation)
        instance.deleting = True
        if instance.state in ON:
            self._shut(instance, "deleted")
        elif instance.state == "TERMINATED":
            instance.enter("STOPPING")
            self._power.gone(instance)

    def reset(self, instance: LiveInstance) -> None:
        """Cut its power for a moment; it stays running."""
        if instance.guest is not None and instance.state == "RUNNING":
            self._guests.kill(instance)
            instance.guest.boot()

    # -- what happens to it --------------------------------------------------------------------------

    def interrupt(self, instance: LiveInstance) -> None:
        """Take a Spot VM back: its metadata says so, its operating system is asked to end, and half a minute later its
        power is cut.

        https://cloud.google.com/compute/docs/instances/spot#preemption-process
        """  # noqa: D205
        if instance.market != "spot":
            raise ValueError(f"{instance.id} is a standard VM: only a Spot VM is preempted.")
        with self._account.lock:
            if instance.state not in ON or instance.preempted:
                return
            instance.preempted = True
            instance.touch()
            notice = (instance.scheduling.get("preemptionNoticeDuration") or {}).get("seconds", 0)
        self._account.timers.after(float(notice), lambda: self._reclaim(instance))

    def kill(self, instance: LiveInstance) -> None:
        """Let the computer that it runs on fail: nothing in it is told, and it starts elsewhere if it may."""
        with self._account.lock:
            if instance.state not in ON:
                return
            self._event(instance, "compute.instances.hostError")
            self._shut(instance, HOST_ERROR, force=True)

    def maintain(self, instance: LiveInstance) -> None:
        """Maintain the computer that it runs on: it moves on as it runs, or is told and then begins again elsewhere."""
        if instance.market == "spot":
            self.interrupt(instance)
            return
        event = f"{instance.scheduling['onHostMaintenance']}_ON_HOST_MAINTENANCE"
        instance.maintenance, run = event, instance.run
        instance.touch()
        notice_s = TOLD_WITH_GPUS_S if instance.order.gpus else TOLD_S
        self._account.timers.after(notice_s, lambda: self._maintained(instance, run))

    def _maintained(self, instance: LiveInstance, run: int) -> None:
        with self._account.lock:
            event, instance.maintenance = instance.maintenance, "NONE"
            instance.touch()
            if event.startswith("TERMINATE") and instance.state in ON and instance.run == run:
                self._event(instance, "compute.instances.terminateOnHostMaintenance")
                self._shut(instance, MAINTENANCE)

    def halted(self, instance: LiveInstance) -> None:
        """Its operating system has powered it off, by itself or because it was asked to."""
        with self._account.lock:
            if instance.state == "RUNNING":
                self._event(instance, "compute.instances.guestTerminate")
                self._shut(instance, "powered off from within", force=True)
            elif instance.state == "STOPPING":
                self._power.gone(instance)

    def end(self, instances: Iterable[LiveInstance]) -> None:
        """End all that runs in instances."""
        self._power.end(instances)

    # -- how -----------------------------------------------------------------------------------------

    def _stage(self, instance: LiveInstance, run: int) -> None:
        with self._account.lock:
            if instance.state == "PROVISIONING" and instance.run == run:
                instance.enter("STAGING")

    def _run(self, instance: LiveInstance) -> None:
        with self._account.lock:
            if instance.state not in ("PROVISIONING", "STAGING"):
                return
            instance.enter("RUNNING")
            price = machine_price(instance.order, instance.zone)
            self._account.ledger.start(instance.id, instance.type, instance.market, price, time.time())
            self._limit(instance)
            self._tell_done(instance)
        self._guests.boot(instance)

    def _limit(self, instance: LiveInstance) -> None:
        """Let it end when its run time is over."""
        limited = instance.scheduling.get("maxRunDuration")
        if limited:
            run = instance.run
            self._account.timers.after(float(limited["seconds"]), lambda: self._out_of_time(instance, run))

    def _out_of_time(self, instance: LiveInstance, run: int) -> None:
        with self._account.lock:
            if instance.state in ON and instance.run == run:
                self._event(instance, "compute.instances.maxRunDurationReached")
                self._end_by_action(instance, "its maxRunDuration is over")

    def _interrupt_by_chance(self, instance: LiveInstance, run: int) -> None:
        if instance.state in ON and instance.run == run:
            self.interrupt(instance)

    def _reclaim(self, instance: LiveInstance) -> None:
        with self._account.lock:
            if instance.state in ON:
                self._event(instance, "compute.instances.preempted")
                self._end_by_action(instance, "preempted")

    def _end_by_action(self, instance: LiveInstance, why: str) -> None:
        instance.deleting = instance.scheduling.get("instanceTerminationAction") == "DELETE"
        self._shut(instance, why)

    def _event(self, instance: LiveInstance, kind: str) -> None:
        """An operation that nobody asked for."""
        self._operations.begin(kind, instance.where, SYSTEM).finish()

    def _shut(self, instance: LiveInstance, why: str, *, force: bool = False) -> None:
        instance.enter("STOPPING")
        instance.reason = why
        self._account.ledger.stop(instance.id, time.time(), instance.type)
        force = force or bool(instance.scheduling.get("skipGuestOsShutdown"))
        self._power.off(instance, force=force, timeout_s=SHUTDOWN_S[instance.market])

    def _finish(self, instance: LiveInstance) -> None:
        if instance.deleting:
            self._guests.discard(instance)
        with self._account.lock:
            if instance.state != "STOPPING":
                return
            self._take_address(instance)
            if instance.deleting:
                self._forget(instance)
            else:
                instance.enter("TERMINATED")
            self._tell_done(instance)
            if instance.reason in (HOST_ERROR, MAINTENANCE) and instance.scheduling["automaticRestart"]:
                kind = "compute.instances.automaticRestart"
                self.begin(instance, self._operations.begin(kind, instance.where, SYSTEM))

    def _forget(self, instance: LiveInstance) -> None:
        instance.enter("DELETED")
        self._networks.give_back(instance.order.subnetwork, instance.address)
        for disk, order in instance.disks:
            self._disks.detach(disk, instance.where)
            if order.auto_delete or order.kind == "local-ssd":
                name = disk["selfLink"].rpartition("/")[2]
                self._disks.drop(Place(instance.where.project, instance.where.scope, "disks", name))
        self.gone(instance)

    def _tell_done(self, instance: LiveInstance) -> None:
        for operation in self._waiting.pop(instance, []):
            operation.finish()

    def _give_address(self, instance: LiveInstance) -> None:
        """A public address is there as long as it is switched on, unless it is a reserved one."""
        if instance.order.public and not instance.public_address:
            wanted = instance.order.interface["accessConfigs"][0].get("natIP", "")
            # A machine's public address is its private one, on loopback.
            instance.public_address = wanted or instance.address
            price = address_price(instance.zone, instance.market)
            self._account.ledger.start(instance.id, ADDRESS, instance.market, price, time.time())

    def _take_address(self, instance: LiveInstance) -> None:
        reserved = self._networks.reserved(
            instance.where.project, f"regions/{region_of(instance.zone)}", instance.public_address
        )
        if instance.deleting or reserved is None:
            instance.public_address = ""
            self._account.ledger.stop(instance.id, time.time(), ADDRESS)
