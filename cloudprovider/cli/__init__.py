"""`dask cloud ...`, the command line; `dask-cloud` is the same.

A command's module is imported when the command is used: listing clusters imports neither an emulator nor
`distributed`. What scripts can rely on is the exit code, of `cloudprovider.cli.codes`, and what `--json` prints
to stdout; what is said to people meanwhile goes to stderr.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cloud"]

#: Where each command is.
COMMANDS = {
    "demo": "cloudprovider.cli.offline:demo",
    "doctor": "cloudprovider.cli.doctor:doctor",
    "down": "cloudprovider.cli.ending:down",
    "emulate": "cloudprovider.emulator.__main__:emulate",
    "list": "cloudprovider.cli.listing:list_clusters",
    "logs": "cloudprovider.cli.logs:logs",
    "open": "cloudprovider.cli.managing:open_pages",
    "policy": "cloudprovider.cli.policy:policy",
    "price": "cloudprovider.cli.price:price",
    "scale": "cloudprovider.cli.managing:scale",
    "show": "cloudprovider.cli.showing:show",
    "sweep": "cloudprovider.cli.ending:sweep",
    "template": "cloudprovider.cli.template:template",
    "up": "cloudprovider.cli.starting:up",
}


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show what a cloud refused as one message, without a traceback."""
    from cloudprovider.errors import CloudError

    try:
        yield
    except BrokenPipeError:  # who read what we wrote has gone: click's own matter
        raise
    except KeyboardInterrupt as error:
        from cloudprovider.cli.codes import Code

        raise SystemExit(Code.interrupted) from error
    except (CloudError, ImportError, OSError) as error:
        from cloudprovider.cli.codes import Failure

        raise Failure.of(error) from error


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """The commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        with plain_errors():
            return super().invoke(ctx)


@click.group(cls=Commands)
def cloud() -> None:
    """Dask clusters on any cloud."""
