"""One emulated cloud, put together: its account, its machine room, its API."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cloudprovider.emulator import profiles
from cloudprovider.emulator.account import Account
from cloudprovider.emulator.control import Control
from cloudprovider.emulator.faults import Faults
from cloudprovider.emulator.images import Images
from cloudprovider.emulator.ledger import Ledger
from cloudprovider.emulator.network import connect
from cloudprovider.emulator.room import Room
from cloudprovider.emulator.server import Server
from cloudprovider.emulator.timers import Timers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any

    from cloudprovider.emulator.control import Action
    from cloudprovider.emulator.records import Call, EmulatedMachine
    from cloudprovider.emulator.server import Answer, Aside

#: Where each cloud's API is.
APIS = {"aws": "aws:AWS", "gcp": "gcp:GCP", "azure": "azure:Azure"}


class API(Protocol):
    """One cloud's API, from an account's first day until `end`: made from an `Account`, and nothing else.

    It is what an account is forgotten with: the next one is made anew, in the same process.
    """

    account: Account
    calls: list[Call]
    """What it was asked, oldest first."""
    tls: ssl.SSLContext | None
    """By which it is also reached by HTTPS, at the same port; None when it is not."""
    asides: Mapping[str, Aside]
    """What answers under `/_cloud/NAME/`, such as the metadata service of machines."""
    actions: Mapping[tuple[str, str], Action]
    """What only this cloud is asked through `Control`: by method and name."""

    def warm(self) -> None:
        """Make the first calls as quick as the later ones."""

    def environ(self) -> dict[str, str]:
        """The vendor's own variables by which a process uses it."""

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Answer one request of the API, and remember it."""

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the ones that ended a while ago included."""

    def leftovers(self) -> list[str]:
        """What the account has beside its landing, a line each; called with the account's lock held."""

    def interrupt(self, id: str, **given: Any) -> None:
        """Take a spot machine back, with notice."""

    def kill(self, id: str) -> None:
        """Let a machine fail, without notice."""

    def end(self) -> None:
        """End every machine, and let nothing happen later."""


class Cloud:
    """A cloud that answers, until it is closed.

    Parameters
    ----------
    name
        Which: one of `APIS`.
    profile, time_scale, seed, figures
        How it behaves; see `cloudprovider.emulator.Emulator`.
    engine
        What its machines are: `process`, `podman` or `none`.
    port
        Where it listens; 0 means any.
    network
        Where its machines are: `loopback` or `namespaces`.
    """

    def __init__(
        self,
        name: str = "aws",
        *,
        profile: str,
        time_scale: float,
        seed: int,
        engine: str = "process",
        port: int = 0,
        figures: Mapping[str, Any] | None = None,
        network: str = "loopback",
    ) -> None:
        self._network = connect(network)
        self.server = Server(self._network.listen(port))
        self._network.open(self.server)
        self._images = Images()
        self._room = Room(self._images, engine)  # begins to import Dask beside us
        module, _, kind = APIS[name].partition(":")
        self._api_class = getattr(importlib.import_module(f"{__package__}.{module}"), kind)
        self.api = self._make(profile, time_scale, seed, figures or {})
        self.api.warm()
        self.server.serve(self.api, Control(self))
        self.server.start()

    def _make(self, profile: str, time_scale: float, seed: int, figures: Mapping[str, Any]) -> API:
        self._settings = (profile, time_scale, seed, figures)
        account = Account(
            profile=profiles.profile(profile, figures),
            timers=Timers(time_scale),
            faults=Faults(),
            ledger=Ledger(),
            room=self._room,
            images=self._images,
            network=self._network,
            endpoint=self.server.url,
            seed=seed,
        )
        api: API = self._api_class(account)
        return api

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        direct = ",".join(dict.fromkeys(("127.0.0.1", "localhost", str(urlsplit(self.server.url).hostname))))
        return {
            **self.api.environ(),
            "DASK_CLOUD__ADDRESS_URL": f"{self.server.url}/_cloud/address",
            "DASK_CLOUD__REGISTRY_URL": f"{self.server.url}/v2",
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def reset(
        self,
        profile: str | None = None,
        time_scale: float | None = None,
        seed: int | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Forget everything: an account as it was on its first day."""
        was = self._settings
        if figures is None:
            figures = was[3] if profile is None else {}
        profiles.check_figures(figures)
        self.api.end()
        self._room.empty()  # a new account gives the same addresses again: nobody may answer there
        self._network.empty()
        self._images.reset()
        self.api = self._make(
            was[0] if profile is None else profile,
            was[1] if time_scale is None else time_scale,
            was[2] if seed is None else seed,
            figures,
        )
        self.server.cloud = self.api

    def close(self) -> None:
        """End every machine, and answer no more."""
        self.server.shutdown()
        self.api.end()
        self._room.close()
        self._network.close()
