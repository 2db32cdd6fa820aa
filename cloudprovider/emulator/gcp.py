"""The embedded Google Cloud: Compute Engine and the services beside it, as slow and as strict as Google's are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gcp_services import GCPServices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.control import Action
    from cloudprovider.emulator.records import Call, EmulatedMachine
    from cloudprovider.emulator.server import Answer, Aside


class GCP:
    """Answers the API of one project; see `cloudprovider.emulator.cloud.API`."""

    tls = None

    def __init__(self, account: Account) -> None:
        self.account = account
        self.services = GCPServices(account)
        self.calls: list[Call] = []
        self.asides: Mapping[str, Aside] = {}
        self.actions: Mapping[tuple[str, str], Action] = {}

    def warm(self) -> None:
        """Make the first calls as quick as the later ones."""

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return {}

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Answer one request, and remember it."""
        del method, path, headers, body, caller
        return 404, {}, b""

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the ones that ended a while ago included."""
        return []

    def leftovers(self) -> list[str]:
        """What the project has beside its landing."""
        return []

    def interrupt(self, id: str, **given: Any) -> None:
        """Take a spot machine back, with notice."""
        del given
        raise LookupError(f"There is no machine {id}.")

    def kill(self, id: str) -> None:
        """Let a machine fail, without notice."""
        raise LookupError(f"There is no machine {id}.")

    def end(self) -> None:
        """End every machine, and let nothing happen later."""
        self.account.timers.close()
