"""`python -m cloudruntime`: the first process of a machine's container."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cloudruntime import identity, rest, secrets, versions
from cloudruntime.boot import Boot
from cloudruntime.exits import Ended, Exit

if TYPE_CHECKING:
    from collections.abc import MutableMapping

#: Where the scheduler listens, on the machine's address; 0 means any.
PORT = "DASK_CLOUD_PORT"
FRONT_PORT = "DASK_CLOUD_FRONT_PORT"
#: Where a runtime that the boot brought along was unpacked; see `cloudruntime.packing`.
UNPACKED = "DASK_CLOUD_UNPACKED"


def main(environ: MutableMapping[str, str] = os.environ) -> int:
    """Run the machine until it ends; the exit code says why, and so does the last line of the log."""
    signal.signal(signal.SIGTERM, _stopped)  # a container's first process ignores what it does not handle
    unpacked = environ.pop(UNPACKED, "")
    folder = tempfile.mkdtemp(prefix="dask-cloud-")  # its mode is 0700
    try:
        ended = _run(environ, folder)
    except Ended as early:
        ended = early
    finally:
        for leftover in filter(None, (folder, unpacked)):
            shutil.rmtree(leftover, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.write(f"dask-cloud-runtime: ended: {ended}\n")
    sys.stderr.flush()
    return int(ended.exit)


def _stopped(signum: int, _frame: Any) -> None:
    """The cloud wants the machine to stop before there is a supervisor."""
    raise Ended(Exit.interrupted, signal.Signals(signum).name)


def _run(environ: MutableMapping[str, str], folder: str) -> Ended:
    boot = _or_end(Exit.boot, Boot.of_environment, environ)
    _check_image(boot)
    keys = None
    if boot.secret:
        bundle = _or_end(Exit.secret, secrets.fetch, boot.secret, environ)
        _or_end(Exit.boot, rest.unpack, bundle, os.path.dirname(__file__))  # noqa: PTH120
        keys = secrets.keep(bundle, folder)
    if boot.jupyter:
        _check_jupyter(boot, keys)
    who = _or_end(Exit.identity, identity.learn, environ)

    from cloudruntime import front
    from cloudruntime.child import Site
    from cloudruntime.supervisor import supervise

    door = None
    if keys is not None:
        door = _or_end(Exit.front, front.bind, who.address, int(environ.get(FRONT_PORT) or front.PORT))
    site = Site(
        boot=boot,
        identity=who,
        keys=keys,
        port=int(environ.get(PORT) or 8786),
        front_port=door.getsockname()[1] if door else 0,
    )
    return supervise(site, door)


def _check_jupyter(boot: Boot, keys: secrets.Keys | None) -> None:
    from cloudruntime import jupyter

    if keys is None or not keys.token:
        raise Ended(Exit.secret, "Jupyter never starts without a token, and the machine's secret holds none")
    if not jupyter.available():
        raise Ended(
            Exit.image, f"{boot.image or 'it'} has no 'jupyter_server', and the Boot asks for Jupyter"
        )


def _check_image(boot: Boot) -> None:
    """End a boot that cannot work, and name both sides."""
    here = versions.installed(boot.versions)
    wrong, warnings = versions.compare(boot.versions, here)
    for warning in warnings:
        sys.stderr.write(f"dask-cloud-runtime: warning: {warning}\n")
    if wrong:
        raise Ended(
            Exit.versions, f"{wrong}. Use an image with the client's versions, or the other way round"
        )
    if find_spec("distributed") is None:
        raise Ended(
            Exit.image,
            f"{boot.image or 'it'} has no package 'distributed' for {sys.executable} (Python {here['python']}). "
            "Use an image that has it, such as Dask's own ghcr.io/dask/dask",
        )


def _or_end(exit: Exit, function: Any, *arguments: Any) -> Any:
    """What `function` returns; what it cannot do ends the machine."""
    try:
        return function(*arguments)
    except (ValueError, TypeError, OSError) as error:
        raise Ended(exit, str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
