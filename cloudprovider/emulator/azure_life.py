"""The life of Azure's machines, and when they bill.

https://learn.microsoft.com/azure/virtual-machines/states-billing: a machine that its operating system has switched
off still bills in full; only what is deallocated or deleted through the API does not.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
import uuid
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.azure_bills import disk_price, machine_price
from cloudprovider.emulator.azure_tls import identity
from cloudprovider.emulator.azure_wire import AzureError
from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.vms import Insides, Power, pull_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.azure_machine import LiveVM
    from cloudprovider.emulator.guest import Guest

__all__ = ["PREEMPTED", "Life"]

PREEMPTED = "OperationPreempted"

NOTICE_S = 30.0  # https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
POLL_S = 1.0  # how often a machine looks for notices
LINGER_S = 30.0  # how long a machine waits that failed, before it deletes itself
HOUR_S = 3600.0
ARCHITECTURES = {"x64": "x86_64", "Arm64": "arm64"}


class Guests(Insides["LiveVM"]):
    """The insides of Azure's machines."""

    def __init__(
        self, account: Account, halted: Callable[[LiveVM], None], leads: Callable[[LiveVM], bool]
    ) -> None:
        super().__init__(account, halted)
        self._leads = leads
        self._front = account.endpoint.replace("http:", "https:", 1)

    def made(self, machine: LiveVM) -> Guest:
        """A new inside: custom data, metadata service, and where the cloud is."""
        account, order = self._account, machine.order
        bundle = str(identity().bundle(account.room.folder))
        environ = {
            "ARM_METADATA_HOSTNAME": self._front.removeprefix("https://"),
            "AZURE_AUTHORITY_HOST": self._front,
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": f"{account.endpoint}/_cloud/azure/{machine.id}",
            "CURL_CA_BUNDLE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "DASK_CLOUD_LINGER_S": f"{max(1.0, LINGER_S * account.timers.scale):g}",
            "DASK_CLOUD_POLL_S": f"{max(0.2, POLL_S * account.timers.scale):g}",
        }
        kind = Kind(
            name=order.size,
            architecture=ARCHITECTURES[order.image.architecture],
            gpus=order.gpus,
            region=order.location,
            zone=order.zone,
            image=order.image.name,
            system=order.image.system,
            ecs_agent=False,
        )
        return self.guest(
            machine,
            address=machine.address,
            kind=kind,
            user_data=order.custom_data,
            environ=environ,
            logs=lambda *_: None,
            reach=functools.partial(self._reach, machine),
        )

    def _reach(self, machine: LiveVM, image: str) -> str:
        """Why an image's registry does not hand it out; empty when it does."""
        if not self._leads(machine):
            registry = image.partition("/")[0]
            return (
                f'Get "https://{registry}/v2/": net/http: request canceled while waiting for connection '
                "(Client.Timeout exceeded)"
            )
        return pull_failure(self._account, image)


class Life:
    """Moves machines from state to state, as time passes and their insides end.

    Parameters
    ----------
    account
        Of the emulated cloud.
    removed
        Called when a machine is deleted for good.
    leads
        Whether a machine has a way to the internet.
    """

    def __init__(
        self, account: Account, removed: Callable[[LiveVM], None], leads: Callable[[LiveVM], bool]
    ) -> None:
        self._account = account
        self._removed = removed
        self._guests = Guests(account, self.halted, leads)
        self._power = Power(account, self._guests, self._run, self._finish)

    def begin(self, machine: LiveVM) -> None:
        """A machine was ordered: let it run soon."""
        account, order = self._account, machine.order
        if machine.disk is not None and machine.refusal is None:
            name = f"{order.disk_kind} {order.disk_gib} GiB"
            hourly = disk_price(order.location, order.disk_kind, order.disk_gib)
            account.ledger.start(machine.id, name, "on-demand", hourly, time.time())
            machine.disk.document["payer"] = (machine.id, name)
        self._power.on(machine)
        if order.market == "spot" and account.profile.spot_interruptions:
            hours = account.chance.expovariate(account.profile.spot_interruptions)
            account.timers.after(hours * HOUR_S, lambda: self._interrupt_by_chance(machine))

    # -- what its owner asks -------------------------------------------------------------------------

    def start(self, machine: LiveVM, then: Callable[[], None]) -> None:
        """Start one that is stopped or deallocated."""
        if machine.power not in ("stopped", "deallocated"):
            self._account.timers.after(0, then)
            return
        machine.enter("starting")
        machine.settled = lambda _: then()
        self._power.on(machine)

    def stop(self, machine: LiveVM, then: Callable[[], None], *, force: bool = False) -> None:
        """Switch one off; it bills on."""
        self._shut(machine, "stopping", then, force=force)

    def deallocate(self, machine: LiveVM, then: Callable[[], None], *, force: bool = False) -> None:
        """Switch one off and give back its place."""
        self._bill_no_more(machine)
        self._shut(machine, "deallocating", then, force=force)

    def delete(self, machine: LiveVM, then: Callable[[], None], *, force: bool = False) -> None:
        """Delete one."""
        if machine.provisioning == "Deleting":
            machine.gone.append(then)
            if force:  # who comes second need not wait for the first
                self._power.off(machine, force=True)
            return
        self._bill_no_more(machine)
        self._shut(machine, "stopping", then, force=force)
        machine.provisioning = "Deleting"

    def restart(self, machine: LiveVM, then: Callable[[], None]) -> None:
        """Let its operating system begin again."""
        if machine.guest is not None and machine.runs:
            machine.rebooting = True
            self._guests.stop(machine, 60.0)
        self._account.timers.after(self._account.profile.release_s, then)

    # -- what happens to it --------------------------------------------------------------------------

    def interrupt(self, machine: LiveVM) -> None:
        """Take a spot machine back, with a notice half a minute before."""
        if machine.order.market != "spot":
            raise ValueError(f"{machine.id} is no Spot machine: only those are evicted.")
        with self._account.lock:
            if machine.power not in ("starting", "running") or any(
                event["EventType"] == "Preempt" for event in machine.events
            ):
                return
            before = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=NOTICE_S * self._account.timers.scale)
            event = {
                "EventId": str(uuid.uuid4()).upper(),
                "EventType": "Preempt",
                "ResourceType": "VirtualMachine",
                "Resources": [machine.id],
                "EventStatus": "Scheduled",
                "NotBefore": before.strftime("%a, %d %b %Y %H:%M:%S GMT"),
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
            machine.events.append(event)
        self._account.timers.after(NOTICE_S, lambda: self.approve(machine, event["EventId"]))

    def approve(self, machine: LiveVM, event_id: Any) -> None:
        """Let what was announced happen: its time has come, or the machine says that it is ready."""
        with self._account.lock:
            event = next((one for one in machine.events if one["EventId"] == event_id), None)
            if event is None or event["EventStatus"] == "Started":
                return
            event["EventStatus"], event["NotBefore"] = "Started", ""
            machine.reason = "Evicted: Azure needed its capacity"
            if machine.order.evicts == "Delete":
                self.delete(machine, _nothing)
            else:
                self.deallocate(machine, _nothing)

    def kill(self, machine: LiveVM) -> None:
        """Let the computer that it runs on fail: nothing in it is told, and it bills on."""
        with self._account.lock:
            if machine.runs:
                machine.reason = "Its host failed"
                self._shut(machine, "stopping", _nothing, force=True)

    def halted(self, machine: LiveVM) -> None:
        """Its operating system has powered it off, by itself or because it was asked to."""
        with self._account.lock:
            if machine.rebooting:
                machine.rebooting = False
                machine.guest.boot()
            elif machine.runs:
                machine.enter("stopped")
            elif machine.power in ("stopping", "deallocating"):
                self._power.gone(machine)

    def end(self, machines: Iterable[LiveVM]) -> None:
        """End all that runs in machines."""
        self._power.end(machines)

    # -- how -----------------------------------------------------------------------------------------

    def _run(self, machine: LiveVM) -> None:
        account, order = self._account, machine.order
        with account.lock:
            if machine.power != "starting":
                return
            if machine.refusal:
                machine.enter("stopped")
                machine.settle(machine.refusal)
                return
            machine.enter("running")
            hourly = machine_price(order.location, order.size, order.market)
            account.ledger.start(machine.id, order.size, order.market, hourly, time.time())
        self._guests.boot(machine)
        account.timers.after(account.profile.guest_s, lambda: self._provisioned(machine))

    def _provisioned(self, machine: LiveVM) -> None:
        with self._account.lock:
            if machine.provisioning != "Deleting":
                machine.settle()

    def _bill_no_more(self, machine: LiveVM) -> None:
        self._account.ledger.stop(machine.id, time.time(), machine.order.size)

    def _interrupt_by_chance(self, machine: LiveVM) -> None:
        if machine.power in ("starting", "running"):
            self.interrupt(machine)

    def _shut(self, machine: LiveVM, power: str, then: Callable[[], None], *, force: bool) -> None:
        was = machine.power
        if machine.settled:
            machine.settle(
                AzureError(
                    409, PREEMPTED, "Operation execution has been preempted by a more recent operation."
                )
            )
        machine.gone.append(then)
        machine.enter(power)
        if was in ("stopped", "deallocated"):
            self._power.gone(machine)
        else:
            self._power.off(machine, force=force)

    def _finish(self, machine: LiveVM) -> None:
        if machine.provisioning == "Deleting":
            self._guests.discard(machine)
        with self._account.lock:
            if machine.ended is not None or machine.power not in ("stopping", "deallocating"):
                return
            machine.enter("stopped" if machine.power == "stopping" else "deallocated")
            machine.events = [one for one in machine.events if one["EventStatus"] != "Started"]
            if machine.provisioning == "Deleting":
                machine.ended = time.time()
                self._removed(machine)
            waiting, machine.gone = machine.gone, []
        for then in waiting:
            then()


def _nothing() -> None:
    """Be called when nobody waits."""
