"""`template`: the files that the package brings, written out for people to build on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudprovider import templates
from cloudprovider.cli.codes import Code, Failure
from cloudprovider.cli.finding import json_option, nearest
from cloudprovider.cli.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["template"]


def _completed(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    return [name for name in _names() if name.startswith(incomplete)]


@click.command(short_help="List the package's templates, or write NAME out.")
@click.argument("name", required=False, shell_complete=_completed)
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path)
)
@click.option("--force", is_flag=True, help="Also over files that are there.")
@json_option
def template(name: str | None, directory: Path | None, *, force: bool, as_json: bool) -> None:
    """Write template NAME, a file or a folder of them, into DIR; without NAME, list what there is.

    Files keep their places under the folder NAME. Holes such as ${image} stay: Terraform's templatefile fills them.
    """
    if name is None:
        click.echo(json.dumps(_names()) if as_json else "\n".join(_names()))
        return
    if directory is None:
        raise click.UsageError(f"Where to? Say `dask cloud template {name} DIR`.")
    written = _written(_chosen(name), directory, force=force)
    if as_json:
        click.echo(json.dumps({"template": name, "files": list(map(str, written))}))
    else:
        click.echo(f"Wrote {counted(len(written), 'file')} to {directory}.")


def _names() -> list[str]:
    """Every file, and every folder of files with its `/`."""
    files = [*templates.shipped()]
    folders = {f"{parent.as_posix()}/" for file in files for parent in [*Path(file).parents][:-1]}
    return sorted([*files, *folders])


def _chosen(name: str) -> dict[Path, Path]:
    """The files of a name, by where they go; `templates/` may be left out of it.

    Raises
    ------
    Failure
        When there are none, with the nearest names.
    """
    files = templates.shipped()
    for wanted in (name.rstrip("/"), f"templates/{name.rstrip('/')}"):
        if wanted in files:
            return {Path(Path(wanted).name): files[wanted]}
        if inside := {Path(file): path for file, path in files.items() if file.startswith(f"{wanted}/")}:
            return {file.relative_to(wanted): path for file, path in inside.items()}
    raise Failure(f"There is no template {name!r}{nearest(name, _names(), 'there are none')}", Code.unknown)


def _written(files: Mapping[Path, Path], directory: Path, *, force: bool) -> list[Path]:
    """Write files below a directory.

    Raises
    ------
    Failure
        When one is there already; nothing is written then.
    """
    targets = {directory / place: path for place, path in files.items()}
    there = [str(target) for target in targets if target.exists()]
    if there and not force:
        said = f"{there[0]} is" if len(there) == 1 else f"{there[0]} and {len(there) - 1} more are"
        raise Failure(f"{said} there already: --force writes over it. Nothing was written.", Code.failed)
    for target, path in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return [*targets]
