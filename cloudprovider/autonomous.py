"""The manager of a cluster that outlives the laptop: it runs beside the scheduler, on the scheduler's machine.

`python -m cloudprovider.autonomous` is the process of a second container there, of the manager image. Its
cluster's *mandate* says what it manages; its keys come as the scheduler's do, by the Boot, and its rights
are those of the scheduler's machine. While somebody else leads, it stands by.

The first process only starts the second one again when that one dies; it imports next to nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.config import Config
    from cloudprovider.provider import Identity

__all__ = ["COMMAND", "MANDATE", "Mandate", "environment", "mandate"]

#: What the second container runs.
COMMAND = ("python", "-m", "cloudprovider.autonomous")
#: Environment variable that holds the mandate as JSON.
MANDATE = "DASK_CLOUD_MANDATE"
#: Options that the manager has no use for, or reads from the Boots; keys are among them.
NOT_TOLD = frozenset(
    {
        "environment",
        "manager_image",
        "name",
        "progress",
        "scheduler_options",
        "security",
        "shutdown_on_close",
        "worker_options",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mandate:
    """What a manager on the scheduler's machine is told.

    Parameters
    ----------
    cloud
        Which one, as the command line calls it.
    options
        Of its Config, those that are not their defaults.
    identity
        The cluster's, as its tags say.
    """

    cloud: str
    options: Mapping[str, Any]
    identity: Mapping[str, Any]

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Mandate:
        """The mandate that this process was given.

        Raises
        ------
        ValueError
            When there is none.
        """
        text = environ.get(MANDATE, "")
        if not text:
            raise ValueError(f"{MANDATE} is not set: it must hold a mandate as JSON")
        return cls(**json.loads(text))


def mandate(config: Config, identity: Identity) -> str:
    """What the manager on the scheduler's machine is told, as one line of JSON; it holds no key.

    Parameters
    ----------
    config
        The cluster's options, with what the provider settled, such as the region.
    identity
        The cluster's.
    """
    blank = type(config)
    options = {
        f.name: value
        for f in dataclasses.fields(config)
        if f.name not in NOT_TOLD and (value := getattr(config, f.name)) != getattr(blank(), f.name)
    }
    told = Mandate(cloud=config.section, options=options, identity=dataclasses.asdict(identity))
    return json.dumps(dataclasses.asdict(told), separators=(",", ":"), sort_keys=True)


def environment(boot: Boot, mandate: str) -> dict[str, str]:
    """The environment of the second container, but for its secret, which comes as the scheduler's does.

    Parameters
    ----------
    boot
        The scheduler's.
    mandate
        Of `mandate`.
    """
    from cloudruntime.boot import BOOT

    return {BOOT: boot.dumps(), MANDATE: mandate}
