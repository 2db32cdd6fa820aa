"""`open` and `scale`: what takes a manager, which attaches, does it, and lets go."""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import discovery
from cloudprovider.cli.codes import Code, Failure
from cloudprovider.cli.finding import Where, cloud_option, json_option, name_argument, region_option
from cloudprovider.cli.text import counted
from cloudprovider.errors import CloudError
from cloudprovider.events import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.cli.finding import Home

__all__ = ["attached", "open_pages", "scale"]

#: Seconds between two looks whether the cluster is still there.
LOOK_S = 1.0


@contextmanager
def attached(home: Home) -> Iterator[Any]:
    """The cluster with a manager of ours, which leaves it running."""
    cls = discovery.cluster_class(home.cloud)
    cluster = cls.from_name(home.name, progress=False, shutdown_on_close=False, **home.options)
    try:
        yield cluster
    finally:
        cluster.close()


@click.command("open", short_help="Serve NAME's dashboard or Jupyter on this computer.")
@name_argument
@click.argument("page", type=click.Choice(["dashboard", "jupyter"]), default="dashboard")
@cloud_option
@region_option
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@json_option
def open_pages(
    name: str, page: str, clouds: tuple[str, ...], region: str | None, *, no_browser: bool, as_json: bool
) -> None:
    """Serve the dashboard, or Jupyter, of cluster NAME on this computer until Ctrl-C."""
    home = Where(clouds, region).home(name)
    with interrupted_by_sigterm(), attached(home) as cluster:
        link = cluster.jupyter_link if page == "jupyter" else cluster.dashboard_link
        if not link:
            raise CloudError(f"Cluster {name!r} serves no {page}{_advice(page)}.")
        with suppress(KeyboardInterrupt):
            click.echo(json.dumps({"cluster": name, "page": page, "url": link}) if as_json else link)
            click.echo("Ctrl-C ends this page, not the cluster.", err=True)
            if not no_browser:
                click.launch(link)
            _until_ended(home, cluster)
            raise CloudError(f"Cluster {name!r} has ended.")


def _until_ended(home: Home, cluster: Any) -> None:
    """Wait until the cluster has no machine any more, looking only while its scheduler is out of sight."""
    while True:
        time.sleep(LOOK_S)
        if not cluster.sees:
            with suppress(CloudError):  # the cloud may be out of reach too
                if not home.provider.list(home.name):
                    return


def _advice(page: str) -> str:
    return ": it was started without jupyter=True" if page == "jupyter" else ""


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end us as Ctrl-C does, which lets go of the cluster first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(short_help="Scale cluster NAME to N workers.")
@name_argument
@click.argument("n_workers", metavar="N", type=click.IntRange(0))
@cloud_option
@region_option
@json_option
def scale(name: str, n_workers: int, clouds: tuple[str, ...], region: str | None, *, as_json: bool) -> None:
    """Scale cluster NAME to N workers; those that go are emptied first."""
    with attached(Where(clouds, region).home(name)) as cluster:
        before = len(cluster.requested)
        cluster.scale(n_workers)
        now = len(cluster.requested)
        kept = cluster.events.of(Phase.kept)
    if as_json:
        click.echo(json.dumps({"cluster": name, "asked": n_workers, "before": before, "workers": now}))
    else:
        click.echo(f"Cluster {name} has {counted(now, 'worker')}; before it had {before}.")
    if kept and now > n_workers:
        raise Failure(kept[-1].message, Code.partly)
