"""What keeps a cluster from starting, found before or after it did not: findings, each with what mends it.

A cloud's own checks are beside its provider (`providers/_<vendor>_doctor.py`). They make nothing and spend nothing:
they read, simulate and rehearse.
"""

from __future__ import annotations

import enum
import importlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider import discovery
from cloudprovider.errors import CloudError, ConfigError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from datetime import date

__all__ = [
    "Check",
    "Finding",
    "Verdict",
    "examine",
    "of_error",
    "ok",
    "problem",
    "provider_of",
    "run",
    "told_once",
    "unknown",
    "warning",
    "worst",
]

#: Where a sentence of ours ends and the next begins.
SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z`])")
#: What mends that nobody knows.
ASK = "Ask again in a minute; `dask cloud doctor --help` names what can be left out."


class Verdict(enum.StrEnum):
    """What a finding means for a start."""

    ok = enum.auto()
    warning = enum.auto()
    problem = enum.auto()
    unknown = enum.auto()


#: From bad to good.
RANKS = (Verdict.problem, Verdict.warning, Verdict.unknown, Verdict.ok)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    topic
        What was looked at, in a word.
    verdict
        What it means for a start.
    found
        A sentence that says it.
    fix
        What mends it: a command or a page. Empty only where all is well.
    """

    topic: str
    verdict: Verdict
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """For programs."""
        return {**asdict(self), "verdict": str(self.verdict)}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One look at one thing, which makes nothing.

    Parameters
    ----------
    topic
        What it looks at, in a word; no two checks of one run have the same.
    look
        Looks, and says what it found. An error of ours that it raises is a finding as well.
    after
        The topic of an earlier check without whose success this one could say nothing.
    """

    topic: str
    look: Callable[[], Iterable[Finding]]
    after: str = ""


def ok(topic: str, found: str) -> Finding:
    """All is well."""
    return Finding(topic=topic, verdict=Verdict.ok, found=found)


def warning(topic: str, found: str, fix: str) -> Finding:
    """It does not keep a cluster from starting, and should be known."""
    return Finding(topic=topic, verdict=Verdict.warning, found=found, fix=fix)


def problem(topic: str, found: str, fix: str) -> Finding:
    """It keeps a cluster from starting, or costs money for nothing."""
    return Finding(topic=topic, verdict=Verdict.problem, found=found, fix=fix)


def unknown(topic: str, found: str, fix: str) -> Finding:
    """It could not be looked at."""
    return Finding(topic=topic, verdict=Verdict.unknown, found=found, fix=fix)


def worst(findings: Iterable[Finding]) -> Verdict:
    """What the findings come to; `unknown` is not as bad as a warning."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in RANKS if verdict in verdicts), Verdict.ok)


def run(checks: Sequence[Check], ended: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at everything side by side; what was found, in the order of the checks.

    Parameters
    ----------
    checks
        Each after the one that it waits for.
    ended
        Is told the topic of each check that has ended, in its thread.
    """
    running: dict[str, Future[list[Finding] | None]] = {}

    def look(check: Check) -> list[Finding] | None:
        try:
            before = running[check.after].result() if check.after else []
            if before is None or worst(before) is Verdict.problem:
                return None
            return _looked(check)
        finally:
            ended(check.topic)

    with ThreadPoolExecutor(max(1, len(checks)), thread_name_prefix="dask-cloud-doctor") as pool:
        for check in checks:
            running[check.topic] = pool.submit(look, check)
    answers = {topic: future.result() for topic, future in running.items()}
    found = [finding for answer in answers.values() for finding in answer or ()]
    return found + _not_looked_at(checks, [topic for topic, answer in answers.items() if answer is None])


def _looked(check: Check) -> list[Finding]:
    """What a check found; an error is a finding."""
    try:
        return [*check.look()]
    except (CloudError, ImportError, OSError) as error:
        return [of_error(check.topic, error)]
    except Exception as error:  # noqa: BLE001  (what the others found is worth more than a traceback)
        return [unknown(check.topic, f"The check itself failed: {error!r}.", ASK)]


def of_error(topic: str, error: Exception, *, fix: str = "") -> Finding:
    """The finding that an error is: its first sentence says what was found, the others what to do.

    Whoever may not look has found nothing. Only where `credentials` are looked at is that what is wrong.
    """
    said = str(error) or repr(error)
    found, *rest = SENTENCE.split(said, maxsplit=1)
    rest = [fix] if fix else rest
    plain = type(error) is CloudError or not isinstance(error, CloudError)
    hidden = isinstance(error, CredentialsError) and topic != "credentials"
    verdict = Verdict.unknown if (plain and topic != "credentials") or hidden else Verdict.problem
    return Finding(topic=topic, verdict=verdict, found=found, fix=" ".join(rest) or ASK)


def _not_looked_at(checks: Sequence[Check], topics: Sequence[str]) -> list[Finding]:
    """That some checks waited in vain."""
    if not topics:
        return []
    first = next(check.after for check in checks if check.topic in topics and check.after not in topics)
    return [
        unknown(
            "the rest",
            f"Not looked at: {', '.join(topics)}.",
            f"Mend the {first} first, and ask again.",
        )
    ]


def told_once(findings: Sequence[Finding], before: Iterable[Finding]) -> list[Finding]:
    """The findings that have not been told already."""
    known = {*before}
    return [finding for finding in findings if finding not in known]


def examine(
    cloud: str, ended: Callable[[str], None] = lambda _: None, *, today: date | None = None, **options: Any
) -> list[Finding]:
    """What keeps a cluster from starting in a cloud, and what mends it; nothing is made, nothing is spent.

    Parameters
    ----------
    cloud
        What the command line calls it, such as `fargate`.
    ended
        Is told the topic of each check that has ended, in its thread.
    today
        From when the age of price tables is told. Default: this day.
    **options
        As of the cluster that shall start.

    Examples
    --------
    >>> [str(finding.fix) for finding in examine("fargate", spot=True)]  # doctest: +SKIP
    """
    try:
        provider = provider_of(cloud, options)
    except ConfigError as error:
        return [problem("options", str(error), f"`dask cloud doctor {cloud} --help` lists the options.")]
    vendor = discovery.CLOUDS[cloud].vendor
    module = importlib.import_module(f"cloudprovider.providers._{vendor}_doctor")
    return run(module.checks(provider, today), ended)


def provider_of(cloud: str, options: Mapping[str, Any]) -> Any:
    """A provider of a cluster with these options, which is never started.

    Raises
    ------
    ConfigError
        When they cannot work.
    """
    row = discovery.CLOUDS[cloud]
    module = importlib.import_module(row.module)
    config = getattr(module, row.config).of(**options)
    return getattr(module, row.provider)(config, config.identity())
