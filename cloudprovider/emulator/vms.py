"""Virtual machines of any cloud: switched on and off, with a real inside where the engine gives one."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from cloudprovider.emulator.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudprovider.emulator.account import Account

__all__ = ["VM", "Insides", "Power", "pull_failure"]

#: How long an operating system has to shut down before its power is cut.
SHUTDOWN_S = 120.0
PATIENCE_S = 180.0  # after which the power is cut whatever its inside does
CONSOLE_LINES = 2000


class VM(Protocol):
    """One machine, as far as its inside and its power go."""

    guest: Any
    """Its inside; None while it has none."""
    inside: bool
    """Whether it is to have one, where the engine gives any."""
    console: list[str]
    """What its serial console said, the last lines."""

    @property
    def id(self) -> str:
        """What the cloud calls it; its guest is told the same."""

    @property
    def runs(self) -> bool:
        """Whether it is switched on, by its state."""

    @property
    def moment(self) -> object:
        """Another object after each change of its state."""


M = TypeVar("M", bound=VM)


class Insides(ABC, Generic[M]):
    """Gives running machines an inside. Each cloud says of what kind, and what its network does for it."""

    def __init__(self, account: Account, halted: Callable[[M], None]) -> None:
        self._account = account
        self._halted = halted

    @abstractmethod
    def made(self, machine: M) -> Guest:
        """A new inside: `guest` with what is the cloud's own."""

    def attach(self, machine: M) -> None:
        """Bring a machine into its network; called with the account's lock held."""

    def leave(self, machine: M) -> None:
        """Take it out again."""

    def boot(self, machine: M) -> None:
        """Switch a machine on; one that was stopped has its disk as it was."""
        account = self._account
        if account.room.engine == "none" or not machine.inside:
            return
        with account.lock:
            if not machine.runs:
                return
            self.attach(machine)
        guest = machine.guest or self.made(machine)
        with account.lock:
            if machine.runs:
                machine.guest = guest
                guest.boot()
                return
        guest.discard()

    def guest(self, machine: M, network: str = "", **own: Any) -> Guest:
        """An inside, with what all clouds' have alike."""
        account = self._account
        return Guest(
            account.room.within(network),
            id=machine.id,
            console=functools.partial(self.heard, machine),
            halted=functools.partial(self._halted, machine),
            scale=account.timers.scale,
            boot_s=account.profile.guest_s,
            pull_s=account.profile.pull_s,
            engine_s=account.profile.engine_s,
            **own,
        )

    def heard(self, machine: M, line: str) -> None:
        """Take a line of its serial console."""
        machine.console.append(line)
        del machine.console[:-CONSOLE_LINES]

    def stop(self, machine: M, timeout_s: float) -> bool:
        """Ask what runs in a machine to end; False when nothing runs that could say when it has."""
        if machine.guest is None:
            return False
        machine.guest.stop(timeout_s)
        return True

    @staticmethod
    def kill(machine: M) -> None:
        """Cut a machine's power; waits until nothing runs."""
        if machine.guest is not None:
            machine.guest.kill()

    def discard(self, machine: M) -> None:
        """Cut a machine's power, forget its disk and leave its network; waits until nothing runs."""
        guest, machine.guest = machine.guest, None
        if guest is not None:
            guest.discard()
        self.leave(machine)


class Power(Generic[M]):
    """Switches machines on and off, in the cloud's time.

    Parameters
    ----------
    insides
        What is switched.
    run
        Called when a machine that was switched on is to run.
    finish
        Called some time after a machine's power is off.
    """

    def __init__(
        self,
        account: Account,
        insides: Insides[M],
        run: Callable[[M], None],
        finish: Callable[[M], None],
    ) -> None:
        self._account = account
        self._insides = insides
        self._run = run
        self._finish = finish

    def on(self, machine: M) -> None:
        """Let a machine run soon."""
        account = self._account
        account.timers.after(account.spread(account.profile.running_s), lambda: self._run(machine))

    def off(self, machine: M, *, force: bool = False, timeout_s: float = SHUTDOWN_S) -> None:
        """Let a machine shut down, or cut its power at once; its state has been changed already.

        Who is told that it has halted calls `gone`.
        """
        if force or not self._insides.stop(machine, timeout_s):
            self._cut_after(machine, 0)
        else:
            self._cut_after(machine, PATIENCE_S / max(self._account.timers.scale, 1e-3))

    def _cut_after(self, machine: M, delay_s: float) -> None:
        """Cut its power then, unless its state has changed since."""
        now = machine.moment

        def cut() -> None:
            if machine.moment is now:
                self._insides.kill(machine)
                self.gone(machine)

        self._account.timers.after(delay_s, cut)

    def gone(self, machine: M) -> None:
        """A machine's power is off: soon it has ended for good."""
        self._account.timers.after(self._account.profile.release_s, lambda: self._finish(machine))

    def end(self, machines: Iterable[M]) -> None:
        """End all that runs in machines."""
        for machine in machines:
            self._insides.discard(machine)


def pull_failure(account: Account, image: str) -> str:
    """What a registry says that the `image-pull` fault makes fail; empty when it does not."""
    if not any(fnmatchcase(image, fault.image or "*") for fault in account.faults.of("image-pull")):
        return ""
    registry, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    return (
        f"failed to resolve reference {image!r}: unexpected status from HEAD request to "
        f"https://{registry}/v2/{repository}/manifests/{tag}: 500 Internal Server Error"
    )
