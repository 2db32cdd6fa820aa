"""`python -m cloudprovider.emulator aws`: serve an emulated cloud until Ctrl-C."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

import click

from cloudprovider.emulator.emulator import CLOUDS, check_network
from cloudprovider.emulator.network import NETWORKS
from cloudprovider.emulator.profiles import PROFILES, check_figures

PR_SET_PDEATHSIG = 1


@click.command()
@click.argument("name", metavar="CLOUD", type=click.Choice(list(CLOUDS)), default="aws")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    help="How fast, how large and how reliable it is.  [default: the cloud's own; aws: fargate]",
)
@click.option(
    "--time-scale", type=float, default=1.0, show_default=True, help="Multiplies the cloud's waits."
)
@click.option("--seed", type=int, default=0, show_default=True, help="All chance is drawn from it.")
@click.option("--port", type=int, default=0, show_default=True, help="Where to listen; 0 means any.")
@click.option(
    "--engine", type=click.Choice(["process", "podman", "none"]), default="process", show_default=True
)
@click.option(
    "--figures",
    default="{}",
    metavar="JSON",
    help="Figures of the profile that are to be others, such as '{\"running_s\": 5}'.",
)
@click.option(
    "--network",
    type=click.Choice(list(NETWORKS)),
    default="loopback",
    show_default=True,
    help="Where machines are: on loopback, or each behind its VPC's router, with its rules enforced.",
)
@click.option("--json", "as_json", is_flag=True, help="Say it for programs: one object in one line.")
@click.option("--die-with-parent", is_flag=True, hidden=True)
def emulate(
    name: str,
    profile: str | None,
    time_scale: float,
    seed: int,
    port: int,
    engine: str,
    figures: str,
    network: str,
    *,
    as_json: bool,
    die_with_parent: bool,
) -> None:
    """Serve an emulated CLOUD on loopback, and say how to use it."""
    parent = os.getppid()
    if die_with_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    if network == "namespaces":
        from cloudprovider.emulator.kernel import unavailable

        if why := unavailable():
            raise click.ClickException(f"--network namespaces {why}.")
    try:
        check_network(name, network)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    changed = json.loads(figures)
    check_figures(changed)
    profile = profile or ("fargate" if name == "aws" else name)
    options = {"profile": profile, "time_scale": time_scale, "seed": seed, "engine": engine, "port": port}
    serve(name, as_json=as_json, figures=changed, network=network, **options)


def serve(name: str, *, as_json: bool = False, **options: Any) -> None:
    """Serve an emulated cloud until SIGINT or SIGTERM."""
    from cloudprovider.emulator.cloud import Cloud

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    cloud = Cloud(name, **options)
    if as_json:
        click.echo(json.dumps({"cloud": name, "url": cloud.server.url, "environment": cloud.environ()}))
    else:
        click.echo(cloud.server.url)
        click.echo(f"# The emulated {name} answers. To use it from another shell:")
        for variable, value in cloud.environ().items():
            click.echo(f"export {variable}={value}")
    sys.stdout.flush()
    ended.wait()
    cloud.close()
    logging.shutdown()
    os._exit(0)  # to take the interpreter apart, with all that it imported, would take a second more


if __name__ == "__main__":
    emulate()
