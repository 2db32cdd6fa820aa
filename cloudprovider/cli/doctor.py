"""`doctor`: what keeps a cluster from starting, and what mends it; it makes nothing and spends nothing."""

from __future__ import annotations

import importlib
import json
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import discovery
from cloudprovider.cli.finding import json_option
from cloudprovider.cli.options import chosen, config_options
from cloudprovider.cli.text import WIDTH, counted
from cloudprovider.doctor import Verdict, examine, problem, provider_of, told_once, worst
from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloudprovider.doctor import Finding

__all__ = ["doctor"]

CLOUDS = [name for name, row in discovery.CLOUDS.items() if row.vendor]
#: Options that say nothing of whether a cluster can start.
LEFT_OUT = (
    *("name", "budget", "jupyter", "max_lifetime", "progress", "receipt", "security", "shutdown_on_close"),
    *(
        "client_timeout",
        "idle_timeout",
        "network_timeout",
        "scheduler_timeout",
        "start_timeout",
        "work_timeout",
    ),
)
#: Seconds after which whoever waits is told for what.
QUIET_S = 1.0
#: How each cloud is signed in to.
LOGINS = (
    "`aws configure` or `aws sso login`; `gcloud auth application-default login`; `az login`. Without any account, "
    "`dask cloud demo` shows it all on this computer."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found of one cloud.

    Parameters
    ----------
    cloud
        What the command line calls it.
    findings
        In the order of the checks.
    seconds
        How long it took.
    """

    cloud: str
    findings: Sequence[Finding]
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cloud": self.cloud,
            "verdict": str(worst(self.findings)),
            "seconds": round(self.seconds, 2),
            "findings": [finding.as_json() for finding in self.findings],
        }

    def lines(self, before: Sequence[Finding]) -> Iterator[str]:
        """For people; what was told before of another cloud is only counted."""
        fresh = told_once(self.findings, before)
        yield f"{self.cloud}: {_counts(self.findings)}"
        width = max((len(finding.topic) for finding in fresh), default=0)
        for finding in fresh:
            yield from _told(finding, width)
        if known := len(self.findings) - len(fresh):
            yield f"  and {counted(known, 'finding')} as above"


def _counts(findings: Sequence[Finding]) -> str:
    """How many of which verdict, in words; how many are well only where all are."""
    words = {Verdict.problem: "problem", Verdict.warning: "warning"}
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    said = [counted(counts[verdict], word) for verdict, word in words.items() if counts[verdict]]
    said += [f"{counts[Verdict.unknown]} unknown"] if counts[Verdict.unknown] else []
    return ", ".join([*said, f"{counts[Verdict.ok]} ok"] if said else ["all is well"])


def _told(finding: Finding, width: int) -> Iterator[str]:
    """A finding in columns, and under it what mends it."""
    head = f"  {finding.verdict:7}  {finding.topic:{width}}  "
    yield from _wrapped(finding.found, head, len(head))
    if finding.fix:
        yield from _wrapped(finding.fix, "    -> ", 7)


def _wrapped(text: str, head: str, indent: int) -> list[str]:
    """Prose after a head; a command or an address that is longer than a line stays whole, to be copied."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Clouds(click.Group):
    """A command for each cloud, with the options of its clusters."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """The clouds."""
        return CLOUDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One cloud's, made now: its Config is imported for it."""
        return _command(cmd_name) if cmd_name in CLOUDS else None


@click.group(
    cls=Clouds,
    invoke_without_command=True,
    subcommand_metavar="[CLOUD [OPTIONS]]",
    short_help="Say what keeps clusters from starting.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Say what keeps a cluster from starting, and what mends it. Nothing is made, nothing is spent.

    Without CLOUD it looks at every cloud for which credentials are configured here. With it, the options are
    those of the cluster that shall start. It ends with 0 only where there is no problem.
    """
    if ctx.invoked_subcommand is None:
        _show(_everywhere(), as_json=as_json)


def _command(cloud: str) -> click.Command:
    row = discovery.CLOUDS[cloud]
    config = getattr(importlib.import_module(row.module), row.config)

    def look(*, as_json: bool, **options: Any) -> None:
        parent = click.get_current_context().parent
        shown = as_json or bool(parent and parent.params.get("as_json"))
        with _patiently() as ended:
            report = _examined(cloud, chosen(options), ended)
        _show([report], as_json=shown)

    command = click.Command(
        cloud,
        callback=look,
        params=config_options(config, LEFT_OUT),
        help=f"Say what keeps a {row.cluster} from starting; the options are its own.",
        short_help=f"For {row.cluster}.",
    )
    command.params.append(click.Option(["--json", "as_json"], is_flag=True, help="For programs."))
    return command


def _everywhere() -> list[Report]:
    """What is found of every cloud that has credentials here, side by side."""
    clouds = [cloud for cloud in discovery.configured() if cloud in CLOUDS]
    if not clouds:
        return [
            Report(
                cloud="here",
                findings=[problem("credentials", "No cloud's credentials are configured here.", LOGINS)],
            )
        ]
    with _patiently() as ended, ThreadPoolExecutor(len(clouds)) as pool:
        answers = [*pool.map(lambda cloud: _if_configured(cloud, ended), clouds)]
    return [report for report in answers if report]


def _if_configured(cloud: str, ended: Callable[[str], None]) -> Report | None:
    """What is found of a cloud; None where its clusters need an option that nobody gave."""
    try:
        provider_of(cloud, {})
    except ConfigError:
        return None
    return _examined(cloud, {}, ended)


def _examined(cloud: str, options: Mapping[str, Any], ended: Callable[[str], None]) -> Report:
    began = time.monotonic()
    findings = examine(cloud, ended, **options)
    return Report(cloud=cloud, findings=findings, seconds=time.monotonic() - began)


def _show(reports: Sequence[Report], *, as_json: bool) -> None:
    """Tell what was found; end with 1 where there is a problem."""
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    before: list[Finding] = []
    for number, report in enumerate(reports if not as_json else ()):
        click.echo("\n".join([*([""] if number else []), *report.lines(before)]))
        before += report.findings
    if any(worst(report.findings) is Verdict.problem for report in reports):
        click.get_current_context().exit(1)


@contextmanager
def _patiently() -> Iterator[Callable[[str], None]]:
    """Say how many checks have ended, in a terminal, once it takes a while; yields whom to tell."""
    from rich.console import Console

    status = Console(stderr=True).status("Looking...")
    ended: list[str] = []

    def heard(topic: str) -> None:
        ended.append(topic)
        status.update(f"Looking: {counted(len(ended), 'check')} done, the last of {topic}...")

    timer = threading.Timer(QUIET_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield heard
    finally:
        timer.cancel()
        timer.join()
        status.stop()
