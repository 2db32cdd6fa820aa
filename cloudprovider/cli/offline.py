"""`demo`: what needs no cloud account."""

from __future__ import annotations

import dataclasses
import json

import click

from cloudprovider.demo import STAGES

__all__ = ["demo"]


@click.command(short_help="Show it all on an embedded cloud.")
@click.option(
    "--cloud", "name", type=click.Choice([*STAGES]), default="fargate", show_default=True, help="Which."
)
@click.option("--keep", is_flag=True, help="Leave the embedded cloud up and print how to connect.")
@click.option(
    "--json",
    "report",
    is_flag=False,
    flag_value="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="[FILE]",
    help="The report for programs, on stdout or into a file.",
)
def demo(name: str, report: str | None, *, keep: bool) -> None:
    """Start a cluster on an embedded cloud, compute, scale, lose a spot worker, see the bill."""
    from cloudprovider.demo import run

    result = run(name, keep=keep, aside=report == "-")
    if report:
        text = json.dumps(dataclasses.asdict(result), indent=2, default=str)
        with click.open_file(report, "w", encoding="utf-8") as file:
            click.echo(text, file=file)
    raise SystemExit(0 if result.ok else 1)
