"""The manager of a cluster that outlives the laptop: it runs beside the scheduler, on the scheduler's machine.

`python -m cloudprovider.autonomous` is the process of a second container there, of the manager image. Its
cluster's *mandate* says what it manages; its keys come as the scheduler's do, by the Boot, and its rights
are those of the scheduler's machine. While somebody else leads, it stands by.

The first process only starts the second one again when that one dies; it imports next to nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from cloudprovider import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudruntime.boot import Boot

    from cloudprovider.config import Config
    from cloudprovider.provider import Identity

__all__ = ["COMMAND", "MANDATE", "Mandate", "environment", "main", "mandate"]

#: What the second container runs.
COMMAND = ("python", "-m", "cloudprovider.autonomous")
#: Environment variable that holds the mandate as JSON.
MANDATE = "DASK_CLOUD_MANDATE"
#: Seconds before a manager that died is started again, the first time and at most; one that lived for longer than
#: that begins anew.
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
#: The exit code of a manager that cannot work, however often it is started.
NEVER = 2
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
    version
        Of the client's dask-cloud.
    """

    cloud: str
    options: Mapping[str, Any]
    identity: Mapping[str, Any]
    version: str

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
    told = Mandate(
        cloud=config.section, options=options, identity=dataclasses.asdict(identity), version=__version__
    )
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


# -- the first process ---------------------------------------------------------------------------------------


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run the manager, again whenever it dies, until the cluster is over; returns the exit code."""
    try:
        told = Mandate.of_environment(environ)
    except (TypeError, ValueError) as error:
        say(f"this is no mandate for dask-cloud {__version__}: {error}")
        return NEVER
    pause = PAUSE_S
    while time.time() < told.identity["expires"]:
        began = time.monotonic()
        if (code := _attended(environ)) in {0, NEVER}:
            return code
        pause = PAUSE_S if time.monotonic() - began > LONGEST_PAUSE_S else pause
        say(f"the manager ended with code {code}: it is started again in {pause:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    say("the hard end of the cluster has come")
    return 0


def _attended(environ: Mapping[str, str]) -> int:
    """Run one manager to its end; a signal for us is one for it."""
    child = subprocess.Popen([sys.executable, "-m", "cloudprovider.autonomous", "manage"], env=dict(environ))

    def stop(signum: int, _frame: Any) -> None:
        sys.exit(128 + signum)  # out of `wait`, which holds a lock that another `wait` would want

    signal.signal(signal.SIGTERM, stop)
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()


def say(message: str) -> None:
    """A line in the machine's log."""
    sys.stderr.write(f"dask-cloud-manager: {message}\n")
    sys.stderr.flush()


# -- the second one ------------------------------------------------------------------------------------------


async def manage(environ: Mapping[str, str]) -> None:
    """Stand by or lead, until the cluster is over.

    Raises
    ------
    CloudError
        When the cluster is not to be found, or its scheduler does not answer.
    ValueError
        When the Boot, the mandate or the secret cannot be read.
    """
    from cloudruntime import secrets
    from cloudruntime.boot import Boot

    from cloudprovider.discovery import cluster_class
    from cloudprovider.estate import Beside
    from cloudprovider.provider import Identity

    told, boot = Mandate.of_environment(environ), Boot.of_environment(environ)
    identity = Identity(**told.identity)
    keys = json.dumps(secrets.fetch(boot.secret or "", dict(environ)))
    cls = cluster_class(told.cloud)
    own = {"name": identity.name, "progress": False, "shutdown_on_close": False}
    try:
        config = cls.config_class(**{**told.options, **own})
    except TypeError as error:  # an option that only another version has
        raise ValueError(
            f"The mandate is of dask-cloud {told.version}, this image has {__version__}: {error}. Pass a manager_image= "
            "that has the client's version."
        ) from error
    cluster = await cls.stand_by(config, Beside(identity=identity, keys=keys))
    hush = cluster.events.listen(lambda event: say(event.message))
    say(f"stands by for {identity.name}")
    await cluster.over()
    hush()
    say("the cluster is over")
    await cluster.close()


def _manage() -> int:
    import logging

    from cloudruntime.child import die_with

    from cloudprovider.errors import CloudError

    die_with(os.getppid())
    logging.basicConfig(format="dask-cloud-manager: %(message)s")
    try:
        asyncio.run(manage(os.environ))
    except CloudError as error:  # the cloud may think otherwise in a moment
        say(str(error))
        return 1
    except ValueError as error:
        say(str(error))
        return NEVER
    return 0


if __name__ == "__main__":
    sys.exit(_manage() if sys.argv[1:] == ["manage"] else main())
