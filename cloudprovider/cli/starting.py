"""`up`: a cluster that stays when this program has ended, as a file or the command line says."""

from __future__ import annotations

import dataclasses
import difflib
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import discovery
from cloudprovider.cli.codes import Code, Failure
from cloudprovider.cli.finding import Where, json_option
from cloudprovider.cli.text import counted, leases, wrapped
from cloudprovider.config import seconds
from cloudprovider.errors import CloudError, CloudWarning, ConfigError
from cloudprovider.events import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cloudprovider.cli.finding import Home

__all__ = ["Plan", "plan", "up"]

#: What a file says beside options: which cluster class.
CLASS = "cluster"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cluster that is asked for.

    Parameters
    ----------
    cloud
        What the command line calls its provider.
    options
        Keyword arguments of its class.
    """

    cloud: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str | None:
        """Its name; None when any will do."""
        name: str | None = self.options.get("name")
        return name

    @property
    def n_workers(self) -> int | None:
        """Dask workers; None when nobody says."""
        number: int | None = self.options.get("n_workers")
        return number

    def check(self) -> None:
        """Refuse what cannot work before anything is asked of the cloud.

        Raises
        ------
        ConfigError
            As the cluster class does.
        """
        discovery.config_class(self.cloud).of(**self.options)


@click.command(
    short_help="Start a cluster that stays, or scale it.",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS]",
)
@click.argument("target", metavar="FILE|PROVIDER")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[--OPTION VALUE]...")
@click.option("--n-workers", type=click.IntRange(0), default=None, help="Dask workers.")
@click.option("--name", default=None, help="The cluster's name; made up otherwise.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@json_option
def up(
    target: str,
    options: tuple[str, ...],
    n_workers: int | None,
    name: str | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Start a cluster that stays when this command has ended, to its leases.

    PROVIDER is fargate, ecs, ec2, gcp, azure or local, or the name of a cluster class. FILE is YAML: the same under
    `cluster`, and the class's options. On the command line each option of the class may follow, such as
    --worker-cpu 4 or --tunnel; these count before the file's.

    When the cluster of that name runs already, it is scaled to the number of workers that is asked for, if any.
    """
    wanted = plan(target, [*options], n_workers=n_workers, name=name)
    wanted.check()
    home = _running(wanted)
    said = _adjusted(wanted, home) if home else _started(wanted, progress=not quiet)
    if as_json:
        click.echo(json.dumps(said, indent=2))
    else:
        click.echo("\n".join(_lines(said)))
    if problem := said["problem"]:
        raise Failure(problem, Code.partly)


# -- what is asked for -----------------------------------------------------------------------------------


def plan(target: str, given: Sequence[str], **more: Any) -> Plan:
    """What a file or a provider's name, and options after it, ask for.

    Raises
    ------
    ConfigError
        For what is neither, and for what is no option.
    """
    if target.startswith("-"):
        raise click.UsageError(f"Say FILE or PROVIDER before {target}.")
    if (cloud := _cloud_of(target)) is not None:
        written: Mapping[str, Any] = {}
    else:
        cloud, written = _read(Path(target))
    options = {**written, **dict(_options(given)), **{k: v for k, v in more.items() if v is not None}}
    return Plan(cloud=cloud, options=options)


def _cloud_of(word: str) -> str | None:
    """The provider that a word names, its own or its cluster class's; None when it names none."""
    every = {name.lower(): name for name in discovery.CLOUDS}
    every |= {row.cluster.lower(): name for name, row in discovery.CLOUDS.items()}
    return every.get(word.lower())


def _unknown(word: str, what: str) -> ConfigError:
    every = [*discovery.CLOUDS, *(row.cluster for row in discovery.CLOUDS.values())]
    near = difflib.get_close_matches(word, every, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f": {', '.join(discovery.CLOUDS)}."
    return ConfigError(f"{what}{hint}")


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The provider and the options in a file."""
    import yaml

    try:
        written = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise _unknown(str(path), f"{str(path)!r} is neither a file nor a provider") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(written, dict) or not isinstance(written.get(CLASS), str):
        raise ConfigError(f"{path} must be a mapping with `{CLASS}: fargate` or the like, and options.")
    cloud = _cloud_of(written[CLASS])
    if cloud is None:
        raise _unknown(written[CLASS], f"{path} says {CLASS}: {written[CLASS]}, which is no provider")
    return cloud, {str(key).replace("-", "_"): value for key, value in written.items() if key != CLASS}


def _options(given: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Options as they are written on a command line: `--worker-cpu 4`, `--worker-cpu=4`, `--tunnel`, `--no-public`."""
    words = [*given]
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise click.UsageError(f"{word!r} is no option: they begin with --, such as --worker-cpu 4.")
        name, equals, value = word[2:].partition("=")
        key = name.replace("-", "_")
        if equals:
            yield key, _value(value)
        elif words and not words[0].startswith("--"):
            yield key, _value(words.pop(0))
        elif key.startswith("no_"):
            yield key.removeprefix("no_"), False
        else:
            yield key, True


def _value(text: str) -> Any:
    """A value as YAML has it: a number, a word, a list, a mapping."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


# -- what is done ------------------------------------------------------------------------------------------


def _running(wanted: Plan) -> Home | None:
    """Where the cluster of that name runs already."""
    if wanted.name is None:
        return None
    where = Where([wanted.cloud], wanted.options.get("region"))
    [home] = where.homes(wanted.name)
    if home.machines and home.scheduler is None:
        raise CloudError(
            f"Cluster {wanted.name!r} has lost its scheduler: `dask cloud sweep {wanted.name}` removes what it left."
        )
    return home if home.machines else None


def _adjusted(wanted: Plan, home: Home) -> dict[str, Any]:
    """Scale a cluster that runs, when another number of workers is asked for."""
    from cloudprovider.cli.managing import attached

    with attached(home) as cluster:
        before = now = len(cluster.requested)
        if wanted.n_workers is not None and wanted.n_workers != before:
            cluster.scale(wanted.n_workers)
            now = len(cluster.requested)
        return _report(wanted, cluster, started=False, before=before, workers=now)


def _started(wanted: Plan, *, progress: bool) -> dict[str, Any]:
    """Start the cluster, and let go of it once its workers are there: nobody replaces those that fail then."""
    cls = discovery.cluster_class(wanted.cloud)
    # It is left to its leases only once it stands: what a start has made goes with its failure.
    options = {**wanted.options, "shutdown_on_close": True, "progress": progress}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloudWarning)  # it is an event as well, which is shown
        cluster = cls(**options)
    with cluster:
        problem = _awaited(cluster)
        said = _report(
            wanted, cluster, started=True, before=0, workers=len(cluster.scheduler_info["workers"])
        )
        cluster.detach()
    return {**said, "problem": problem}


def _awaited(cluster: Any) -> str:
    """Wait for the workers that the cloud let us have; why they are fewer than asked for."""
    wanted, ordered = cluster.config.n_workers, len(cluster.requested)
    refused = cluster.events.of(Phase.refused)
    problem = refused[-1].message if refused and ordered < wanted else ""
    if ordered:
        patience_s = seconds(cluster.config.start_timeout, "start_timeout")
        try:
            cluster.wait_for_workers(min(ordered, wanted), timeout=patience_s)
        except (CloudError, TimeoutError) as error:
            problem = str(error)
    return f"Not all of {counted(wanted, 'worker')} came. {problem}" if problem else ""


def _report(wanted: Plan, cluster: Any, **facts: Any) -> dict[str, Any]:
    """What became of it, for programs."""
    region = wanted.options.get("region")
    return {
        "cluster": cluster.name,
        "cloud": wanted.cloud,
        "region": region,
        "class": type(cluster).__name__,
        "scheduler": cluster.scheduler_machine.id,
        "expires": cluster.identity.expires,
        "leases": dataclasses.asdict(cluster.provider.boot("scheduler").leases),
        "autonomous": bool(getattr(cluster.config, "autonomous", False)),
        **facts,
        "problem": "",
    }


def _lines(said: Mapping[str, Any]) -> Iterator[str]:
    """What became of it, and what to type next."""
    name, workers = said["cluster"], counted(said["workers"], "worker")
    if said["started"]:
        yield f"Cluster {name} runs on {said['cloud']} with {workers}."
    elif said["workers"] == said["before"]:
        yield f"Cluster {name} runs on {said['cloud']} already, with {workers}."
    else:
        yield f"Cluster {name} runs on {said['cloud']} already; it has {workers} now, and had {said['before']}."
    fleet = (
        "is replaced and adapted there" if said["autonomous"] else "is replaced while a manager is attached"
    )
    yield from wrapped([f"{leases(said['leases'], time.time())} What fails {fleet}."])
    where = f" --region {said['region']}" if said["region"] else ""
    keyword = f', region="{said["region"]}"' if said["region"] else ""
    yield ""
    yield f'  {said["class"]}.from_name("{name}"{keyword})'
    yield f"  dask cloud open {name}{where}"
    yield f"  dask cloud down {name}{where}"
