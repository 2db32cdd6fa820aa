"""One emulated cloud, put together: its account, its machine room, its API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.emulator import aws, profiles
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
    from collections.abc import Mapping
    from typing import Any

    from cloudprovider.emulator.aws import AWS

CLOUDS = ("aws",)


class Cloud:
    """A cloud that answers, until it is closed.

    Parameters
    ----------
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
        self._moto = aws.import_moto(self._network)
        self.aws = self._make(profile, time_scale, seed, figures or {})
        self.aws.warm()
        self.server.cloud, self.server.control = self.aws, Control(self)
        self.server.start()

    def _make(self, profile: str, time_scale: float, seed: int, figures: Mapping[str, Any]) -> AWS:
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
        return aws.AWS(account, self._moto)

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
        self.aws.end()
        self._room.empty()  # a new account gives the same addresses again: nobody may answer there
        self._network.empty()
        self._images.reset()
        self._moto.reset()
        self.aws = self._make(
            was[0] if profile is None else profile,
            was[1] if time_scale is None else time_scale,
            was[2] if seed is None else seed,
            figures,
        )
        self.server.cloud = self.aws

    def close(self) -> None:
        """End every machine, and answer no more."""
        self.server.shutdown()
        self.aws.end()
        self._room.close()
        self._network.close()
